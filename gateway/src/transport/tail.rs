//! `GET /v1/tail`: every verdict as it is told, for operators, as server-sent events.
//!
//! `?source=`, `event_type=`, `outcome=`, `reason=`, `user_id=`, `anonymous_id=` and `library=` leave the others out.
//!
//! **Invariant:** following costs senders nothing: a follower that is too slow loses entries and is told how many; the number of
//! followers is bounded. Who an event is about can be asked for, and is never shown.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Uri};
use schemas::event::Library;
use schemas::id::{EventType, SourceName};
use schemas::json::{self, Limits, Member};
use schemas::time::Timestamp;
use schemas::verdict::{Code, Status, Verdict};
use serde::{Deserialize as _, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast};

use super::api::{Access, Answer, Content, Operation, Verb};
use crate::Gateway;
use crate::authenticate::parameter;
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
    entries: broadcast::Sender<Arc<Shown>>,
    readers: Arc<Semaphore>,
}

/// What of an event can be asked for and is not shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct About {
    user_id: Option<String>,
    anonymous_id: Option<String>,
    library: Option<Library>,
}

impl About {
    /// Reads an event; one that cannot be read is about nobody.
    pub(crate) fn of(event: &[u8], limits: Limits) -> Self {
        let members = json::object(event, limits).unwrap_or_default();
        let member = |name: &str| members.iter().find(|member| member.name == name);
        Self {
            user_id: member("user_id").and_then(Member::text),
            anonymous_id: member("anonymous_id").and_then(Member::text),
            library: member("context").and_then(|context| Library::of_context(context.value)),
        }
    }
}

/// One verdict on its way to followers.
#[derive(Debug)]
struct Shown {
    text: String,
    source: SourceName,
    event_type: Option<EventType>,
    status: Status,
    code: Option<Code>,
    about: About,
}

/// What a follower wants to see; all that is given must agree.
#[derive(Debug, Default)]
struct Filter {
    source: Option<String>,
    event_type: Option<String>,
    status: Option<Status>,
    code: Option<Code>,
    user_id: Option<String>,
    anonymous_id: Option<String>,
    library: Option<String>,
}

impl Filter {
    fn of(uri: &Uri) -> Result<Self, RequestError> {
        let wrong = |what: &'static str| RequestError::new(Code::RequestInvalid, what);
        let status = parameter(uri, "outcome").map(|word| {
            let quoted = serde_json::Value::from(word.as_str());
            Status::deserialize(quoted)
                .map_err(|_| wrong("`outcome` is accepted, duplicate, quarantined, rejected or retry."))
        });
        let code = parameter(uri, "reason").map(|text| {
            Code::parse(&text)
                .ok_or_else(|| wrong("`reason` is a code of docs/errors, such as schema.invalid."))
        });
        Ok(Self {
            source: parameter(uri, "source"),
            event_type: parameter(uri, "event_type"),
            status: status.transpose()?,
            code: code.transpose()?,
            user_id: parameter(uri, "user_id"),
            anonymous_id: parameter(uri, "anonymous_id"),
            library: parameter(uri, "library"),
        })
    }

    fn takes(&self, shown: &Shown) -> bool {
        let about = &shown.about;
        self.source.as_ref().is_none_or(|source| shown.source.as_str() == source)
            && agrees(self.event_type.as_deref(), shown.event_type.as_ref().map(EventType::as_str))
            && self.status.is_none_or(|status| shown.status == status)
            && self.code.is_none_or(|code| shown.code == Some(code))
            && agrees(self.user_id.as_deref(), about.user_id.as_deref())
            && agrees(self.anonymous_id.as_deref(), about.anonymous_id.as_deref())
            && self
                .library
                .as_ref()
                .is_none_or(|wanted| about.library.as_ref().is_some_and(|library| library.is(wanted)))
    }
}

fn agrees(wanted: Option<&str>, found: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| found == Some(wanted))
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
        about: About,
    ) {
        let entry = Entry { received_at, source, event_type, verdict };
        if let Ok(json) = serde_json::to_string(&entry) {
            let _ = self.entries.send(Arc::new(Shown {
                text: format!("event: verdict\ndata: {json}\n\n"),
                source: source.clone(),
                event_type: event_type.cloned(),
                status: verdict.status,
                code: verdict.reason.as_ref().map(|reason| reason.code),
                about,
            }));
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
    let filter = Filter::of(&uri)?;
    let reader = Arc::clone(&gateway.tail.readers).try_acquire_owned();
    let reader = reader.map_err(|_| RequestError::new(Code::Overloaded, "Too many followers; close one."))?;
    let entries = gateway.tail.entries.subscribe();
    let drain = Arc::clone(&gateway.drain);
    let hello = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(b": following\n\n"))]);
    let lost_entries = gateway.metrics.tail_lost.clone();
    let state = (entries, drain, reader, filter, lost_entries);
    let lines = stream::unfold(state, |(mut entries, drain, reader, filter, lost_entries)| async move {
        let silence = tokio::time::sleep(KEEP_ALIVE);
        tokio::pin!(silence);
        let line = loop {
            tokio::select! {
                entry = entries.recv() => match entry {
                    Ok(shown) if filter.takes(&shown) => break Bytes::copy_from_slice(shown.text.as_bytes()),
                    Ok(_) => {}
                    Err(RecvError::Lagged(lost)) => {
                        lost_entries.inc_by(lost);
                        break format!("event: lost\ndata: {{\"lost\":{lost}}}\n\n").into();
                    }
                    Err(RecvError::Closed) => return None,
                },
                () = &mut silence => break Bytes::from_static(b":\n\n"),
                () = drain.begun() => return None,
            }
        };
        Some((Ok(line), (entries, drain, reader, filter, lost_entries)))
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(hello, lines));
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
