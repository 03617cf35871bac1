//! `GET /v1/limits`: what clients may send.
//!
//! **Invariant:** the same figures as in the `hello` of a socket, and the ones that are enforced.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use schemas::frame::Limits;

use super::api::{Access, Answer, Content, Operation, Verb, shape};
use super::errors;
use crate::Gateway;

pub(crate) const LIMITS: Operation = Operation {
    method: Verb::Get,
    path: "/v1/limits",
    summary: "What may be sent at once.",
    access: Access::Everybody,
    parameters: &[],
    body: &[],
    answers: &[Answer::ok("The limits in force.", &[Content::json(shape::<Limits>)])],
    errors: &[],
};

/// The limits as JSON.
pub(crate) async fn limits(State(gateway): State<Arc<Gateway>>) -> Response {
    errors::json(StatusCode::OK, serde_json::to_vec(&gateway.limits()).unwrap_or_default())
}
