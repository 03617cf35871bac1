//! For operators: is it alive, does it take events, what are its figures.
//!
//! **Invariant:** `/ready` is 200 while events are admitted, whatever the broker does; 503 only when the log does not admit or the
//! gateway drains.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::errors;
use crate::Gateway;

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
    let body = json!({
        "status": status,
        "admitting": health.admitting,
        "disk": health.disk,
        "disk_bytes": health.disk_bytes,
        "broker": health.broker,
        "spool": {"records": health.spooled_records, "bytes": health.spooled_bytes},
        "corrupted_records": health.corrupted_records,
        "unpublishable_records": health.unpublishable_records,
    });
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    errors::json(code, body.to_string().into_bytes())
}

/// Everybody's metrics.
pub(crate) async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, format)], gateway.metrics.render_all().await).into_response()
}
