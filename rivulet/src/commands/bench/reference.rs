//! The references of `bench ingest`: a bare axum server that parses and validates, then discards or hands to Kafka.
//!
//! **Invariant:** does what a careful developer would write in an afternoon with `serde_json`, `jsonschema` and `rdkafka`; nothing
//! of ours but the schema documents.

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

use crate::cli::ReferenceOptions;

/// The topic of the reference.
#[cfg(feature = "kafka")]
pub(super) const TOPIC: &str = "rivulet.bench.reference";
/// As many as our own topics have.
#[cfg(feature = "kafka")]
const PARTITIONS: u32 = 64;
/// Largest body, bytes.
const BODY_MAX: usize = 4 << 20;

struct Reference {
    registry: Registry,
    sink: Sink,
}

/// Serves until killed; prints its address first.
pub(in crate::commands) async fn run(options: ReferenceOptions) -> anyhow::Result<ExitCode> {
    let sink = Sink::new(options.kafka.as_deref()).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
    crate::console::say(&format!("listening on http://{}", listener.local_addr()?));
    let app = Router::new()
        .route("/v1/events", post(accept))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_MAX))
        .with_state(Arc::new(Reference { registry: Registry::builtin(), sink }));
    axum::serve(listener, app).await.context("the server failed")?;
    Ok(ExitCode::SUCCESS)
}

async fn accept(State(reference): State<Arc<Reference>>, body: Bytes) -> (StatusCode, String) {
    let Ok(Value::Array(events)) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, String::new());
    };
    let valid: Vec<&Value> = events.iter().filter(|event| is_valid(&reference.registry, event)).collect();
    if !reference.sink.take(&valid).await {
        return (StatusCode::SERVICE_UNAVAILABLE, String::new());
    }
    (StatusCode::OK, format!("{{\"valid\":{}}}", valid.len()))
}

fn is_valid(registry: &Registry, event: &Value) -> bool {
    let Some(event_type) = event.get("event_type").and_then(Value::as_str) else { return false };
    matches!(registry.judge(&EventType::new(event_type), None, event.get("metadata")), Judgement::Valid(_))
}

/// Where valid events go.
#[cfg(feature = "kafka")]
struct Sink(Option<broker::kafka::bare::BareProducer>);

#[cfg(feature = "kafka")]
impl Sink {
    async fn new(brokers: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self(match brokers {
            Some(brokers) => {
                Some(broker::kafka::bare::BareProducer::connect(brokers, TOPIC, PARTITIONS).await?)
            }
            None => None,
        }))
    }

    /// Whether all were taken.
    async fn take(&self, events: &[&Value]) -> bool {
        let Some(producer) = &self.0 else { return true };
        let sent = events.iter().map(|event| async move {
            let key = event.get("user_id").and_then(Value::as_str).unwrap_or_default();
            producer.send(key, &event.to_string()).await
        });
        futures_util::future::join_all(sent).await.iter().all(Result::is_ok)
    }
}

/// Where valid events go: nowhere, in a build without Kafka.
#[cfg(not(feature = "kafka"))]
struct Sink;

#[cfg(not(feature = "kafka"))]
impl Sink {
    async fn new(brokers: Option<&str>) -> anyhow::Result<Self> {
        anyhow::ensure!(brokers.is_none(), "this build has no Kafka");
        Ok(Self)
    }

    async fn take(&self, _events: &[&Value]) -> bool {
        true
    }
}
