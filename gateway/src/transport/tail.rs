//! `GET /v1/tail`: every verdict as it is told, for operators, as server-sent events.
//!
//! **Invariant:** following costs senders nothing: a follower that is too slow loses entries and is told how many; the number of
//! followers is bounded.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Uri};
use schemas::id::{EventType, SourceName};
use schemas::time::Timestamp;
use schemas::verdict::{Code, Verdict};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast};

use super::api::{Access, Answer, Content, Operation, Verb};
use crate::Gateway;
use crate::config::GatewayConfig;
use crate::error::RequestError;

pub(crate) const TAIL: Operation = Operation {
    method: Verb::Get,
    path: "/v1/tail",
    summary: "Every verdict as it is told.",
    access: Access::SecretKey,
    parameters: &[],
    body: &[],
    answers: &[Answer::ok("Server-sent events, without end.", &[Content::other("text/event-stream")])],
    errors: &[Code::Overloaded],
};

/// A comment keeps proxies from cutting a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where verdicts are shown.
#[derive(Debug)]
pub(crate) struct Tail {
    entries: broadcast::Sender<Arc<str>>,
    readers: Arc<Semaphore>,
}

#[derive(Serialize)]
struct Entry<'a> {
    received_at: Timestamp,
    source: &'a SourceName,
    event_type: Option<&'a EventType>,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

impl Tail {
    pub(crate) fn new(config: &GatewayConfig) -> Self {
        Self {
            entries: broadcast::Sender::new(config.tail_backlog),
            readers: Arc::new(Semaphore::new(config.tail_readers)),
        }
    }

    /// Whether anybody looks.
    pub(crate) fn has_readers(&self) -> bool {
        self.entries.receiver_count() > 0
    }

    /// Shows one verdict.
    pub(crate) fn publish(
        &self,
        received_at: Timestamp,
        source: &SourceName,
        event_type: Option<&EventType>,
        verdict: &Verdict,
    ) {
        let entry = Entry { received_at, source, event_type, verdict };
        if let Ok(json) = serde_json::to_string(&entry) {
            let _ = self.entries.send(format!("event: verdict\ndata: {json}\n\n").into());
        }
    }
}

/// Follows until the client goes or the gateway drains.
pub(crate) async fn follow(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, RequestError> {
    gateway.keys().authenticate_secret(&headers, &uri)?;
    let reader = Arc::clone(&gateway.tail.readers).try_acquire_owned();
    let reader = reader.map_err(|_| RequestError::new(Code::Overloaded, "Too many followers; close one."))?;
    let entries = gateway.tail.entries.subscribe();
    let drain = Arc::clone(&gateway.drain);
    let hello = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(b": following\n\n"))]);
    let lines = stream::unfold((entries, drain, reader), |(mut entries, drain, reader)| async move {
        let line = tokio::select! {
            entry = entries.recv() => match entry {
                Ok(entry) => Bytes::copy_from_slice(entry.as_bytes()),
                Err(RecvError::Lagged(lost)) => format!("event: lost\ndata: {{\"lost\":{lost}}}\n\n").into(),
                Err(RecvError::Closed) => return None,
            },
            () = tokio::time::sleep(KEEP_ALIVE) => Bytes::from_static(b":\n\n"),
            () = drain.begun() => return None,
        };
        Some((Ok(line), (entries, drain, reader)))
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(hello, lines));
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
