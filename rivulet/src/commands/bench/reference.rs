//! The reference of `bench ingest`: a bare axum server that parses, validates and discards.
//!
//! **Invariant:** does what a careful developer would write in an afternoon with `serde_json` and `jsonschema`; nothing of ours
//! but the schema documents.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use schemas::id::EventType;
use schemas::registry::{Judgement, Registry};
use serde_json::Value;

/// Largest body, bytes.
const BODY_MAX: usize = 4 << 20;

/// Serves until killed; prints its address first.
pub(in crate::commands) async fn run() -> anyhow::Result<ExitCode> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
    crate::console::say(&format!("listening on http://{}", listener.local_addr()?));
    let app = Router::new()
        .route("/v1/events", post(accept))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_MAX))
        .with_state(Arc::new(Registry::builtin()));
    axum::serve(listener, app).await.context("the server failed")?;
    Ok(ExitCode::SUCCESS)
}

async fn accept(State(registry): State<Arc<Registry>>, body: Bytes) -> (StatusCode, String) {
    let Ok(Value::Array(events)) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, String::new());
    };
    let valid = events.iter().filter(|event| is_valid(&registry, event)).count();
    (StatusCode::OK, format!("{{\"valid\":{valid}}}"))
}

fn is_valid(registry: &Registry, event: &Value) -> bool {
    let Some(event_type) = event.get("event_type").and_then(Value::as_str) else { return false };
    matches!(registry.judge(&EventType::new(event_type), None, event.get("metadata")), Judgement::Valid(_))
}
