//! Looking at what was refused, and trying it again: `/v1/quarantine`, for whoever holds a secret key.
//!
//! **Invariant:** quarantine itself is never changed: a replay is a new event under the old id, so doing it twice counts once;
//! each request reads a bounded number of records.

mod list;
mod record;
mod replay;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::Gateway;
use crate::transport::errors;

/// Its paths.
pub(crate) fn router() -> Router<Arc<Gateway>> {
    let only_get = || async { errors::method_not_allowed("GET, HEAD, OPTIONS") };
    let only_post = || async { errors::method_not_allowed("POST, OPTIONS") };
    Router::new()
        .route("/v1/quarantine", get(list::records).fallback(only_get))
        .route("/v1/quarantine/reasons", get(list::reasons).fallback(only_get))
        .route("/v1/quarantine/replay", post(replay::replay).fallback(only_post))
        .route("/v1/quarantine/{at}", get(list::one).fallback(only_get))
}

#[cfg(test)]
mod tests;
