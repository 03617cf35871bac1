//! `GET /v1/hot-profiles`: whose profiles have most events, in the last whole window and the present one.
//!
//! **Invariant:** for secret keys alone: it names people.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use schemars::JsonSchema;
use serde::Serialize;

use super::api::{Access, Answer, Content, Operation, Verb, shape};
use super::errors;
use crate::Gateway;
use crate::error::RequestError;
use crate::hot::Window;

pub(crate) const HOT: Operation = Operation {
    method: Verb::Get,
    path: "/v1/hot-profiles",
    summary: "The profiles with most events.",
    access: Access::SecretKey,
    parameters: &[],
    body: &[],
    answers: &[Answer::ok("Of the last whole window and the present one.", &[Content::json(shape::<All>)])],
    errors: &[],
};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HotProfiles")]
struct All {
    /// Length of a window, seconds.
    window_s: u32,
    last: Window,
    present: Window,
}

/// The profiles with most events.
pub(crate) async fn list(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, RequestError> {
    gateway.keys().authenticate_secret(&headers, &uri)?;
    let [last, present] = gateway.hot.windows(gateway.clock.now());
    let all = All { window_s: gateway.config.hot_window_s, last, present };
    Ok(errors::json(StatusCode::OK, serde_json::to_vec(&all).unwrap_or_default()))
}
