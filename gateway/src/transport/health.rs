//! For operators: is it alive, does it take events, what are its figures.
//!
//! **Invariant:** `/ready` is 200 while events are admitted, whatever the broker does; 503 only when the log does not admit or the
//! gateway drains.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use schemars::JsonSchema;
use serde::Serialize;

use super::api::{Access, Answer, Content, Operation, Verb, shape};
use super::errors;
use crate::Gateway;

pub(crate) const LIVE: Operation = Operation {
    method: Verb::Get,
    path: "/live",
    summary: "The process answers.",
    access: Access::Everybody,
    parameters: &[],
    body: &[],
    answers: &[Answer::ok("Alive.", &[Content::other("application/json")])],
    errors: &[],
};

pub(crate) const READY: Operation = Operation {
    path: "/ready",
    summary: "Whether events are taken, and what the log says of itself.",
    answers: &[
        Answer::ok("Events are taken.", &[Content::json(shape::<Readiness>)]),
        Answer::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "No events are taken now.",
            &[Content::json(shape::<Readiness>)],
        ),
    ],
    ..LIVE
};

pub(crate) const METRICS: Operation = Operation {
    path: "/metrics",
    summary: "Everybody's figures.",
    answers: &[Answer::ok("OpenMetrics.", &[Content::other("application/openmetrics-text")])],
    ..LIVE
};

#[derive(Serialize, JsonSchema)]
struct Readiness {
    /// `ready`, `draining` or `closed`.
    status: &'static str,
    /// The log takes events.
    admitting: bool,
    /// `ok`, `full` or `failing`.
    disk: String,
    disk_bytes: u64,
    /// `ok`, `down`, or `none` when there is none.
    broker: String,
    spool: Spool,
    corrupted_records: u64,
    unpublishable_records: u64,
}

/// What waits for the broker.
#[derive(Serialize, JsonSchema)]
struct Spool {
    records: u64,
    bytes: u64,
}

/// The process answers.
pub(crate) async fn live() -> Response {
    errors::json(StatusCode::OK, br#"{"status":"live"}"#.to_vec())
}

/// Whether events are taken, and what the log says of itself.
pub(crate) async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    let health = gateway.log.health();
    let status = match (gateway.drain.has_begun(), health.admitting) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "closed",
    };
    let body = Readiness {
        status,
        admitting: health.admitting,
        disk: health.disk,
        disk_bytes: health.disk_bytes,
        broker: health.broker,
        spool: Spool { records: health.spooled_records, bytes: health.spooled_bytes },
        corrupted_records: health.corrupted_records,
        unpublishable_records: health.unpublishable_records,
    };
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    errors::json(code, serde_json::to_vec(&body).unwrap_or_default())
}

/// Everybody's metrics.
pub(crate) async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, format)], gateway.metrics.render_all().await).into_response()
}
