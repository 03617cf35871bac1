//! `POST /v1/events`.
//!
//! **Invariant:** the status agrees with the body: 200 all accepted or duplicate, 422 all rejected or quarantined, 503 all to be
//! sent again (429 where the key's rate or quota is the reason), 207 a mix; any other status has no `events` and put nothing on the log.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use schemars::JsonSchema;
use schemas::json::{Kind, Member};
use schemas::time::Timestamp;
use schemas::verdict::{AckLevel, Code, Reason, Status, Verdict};
use serde::Serialize;

use super::api::{self, Access, Content, Events, Operation, Parameter, Verb, shape};
use super::incoming::Source;
use super::stream::{Stream, Summary};
use super::{Client, Visitor, body, errors};
use crate::Gateway;
use crate::authenticate::{Key, origin, parameter};
use crate::decode::compression::{self, Cap};
use crate::decode::inflater::Inflater;
use crate::decode::native::{self, ContentType, SentAt};
use crate::decode::vendor::cloudevents;
use crate::error::RequestError;

pub(super) const SENDING: &[Parameter] = &[
    Parameter {
        name: "ack",
        place: "query",
        about: "The level that is waited for.",
        shape: shape::<AckLevel>,
    },
    Parameter {
        name: "sent_at",
        place: "query",
        about: "When the client sends, by its own clock.",
        shape: shape::<Timestamp>,
    },
];

/// What a body is answered with.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "describes what is written by its parts")]
enum Told {
    /// One verdict an event, in the order sent.
    Verdicts(Answer<'static>),
    /// Of NDJSON longer than one batch.
    Summary(Summary),
}

const TOLD: &[Content] = &[Content::json(shape::<Told>), Content::other("application/x-ndjson")];

pub(crate) const EVENTS: Operation = Operation {
    method: Verb::Post,
    path: "/v1/events",
    summary: "Takes events and says what became of each.",
    access: Access::AnyKey,
    parameters: SENDING,
    body: &[
        Content::json(shape::<Events>),
        Content::other("application/x-ndjson"),
        Content::other("text/plain"),
    ],
    answers: &[
        api::Answer::ok("All accepted, or known already.", TOLD),
        api::Answer::new(StatusCode::MULTI_STATUS, "A mix.", TOLD),
        api::Answer::new(StatusCode::UNPROCESSABLE_ENTITY, "All rejected or quarantined.", TOLD),
        api::Answer::new(StatusCode::TOO_MANY_REQUESTS, "Beyond the key's rate or quota.", TOLD),
        api::Answer::new(StatusCode::SERVICE_UNAVAILABLE, "Nothing can be taken now.", TOLD),
    ],
    errors: &[
        Code::BodyCompression,
        Code::BodySyntax,
        Code::BodyEmpty,
        Code::BodyTimeout,
        Code::BodyTooLarge,
        Code::BatchTooManyEvents,
        Code::BodyUnsupported,
        Code::Draining,
        Code::Overloaded,
        Code::Internal,
    ],
};

/// What is known before the body is read.
struct Asked {
    key: Arc<Key>,
    ack: Option<AckLevel>,
    sent_at: SentAt,
    content_type: ContentType,
    encoding: String,
    /// Every verdict is wanted while the body is sent.
    follows: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Verdicts")]
struct Answer<'a> {
    events: &'a [Verdict],
}

/// Takes a body of events.
pub(crate) async fn events(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    if cloudevents::is_one(request.headers()) {
        return super::vendor::cloud_events(&gateway, request).await;
    }
    let (parts, body) = request.into_parts();
    let response = match take(&gateway, parts, body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    gateway.metrics.answered(response.status());
    response
}

async fn take(gateway: &Arc<Gateway>, parts: Parts, body: Body) -> Result<Response, RequestError> {
    let asked = match ask(gateway, &parts) {
        Ok(asked) => asked,
        Err(error) => {
            body::discard(body).await;
            return Err(error);
        }
    };
    let mut body = body;
    if asked.content_type == ContentType::NdJson {
        let (first, whole) = body::peek(body, &gateway.config).await?;
        let inflater = match Inflater::new(&asked.encoding, &first, gateway.config.inflate_ratio) {
            Ok(inflater) => inflater,
            Err(error) => {
                body::discard(whole).await;
                return Err(error);
            }
        };
        if inflater.is_some() || asked.encoding.trim().is_empty() {
            let visitor = Visitor::new(&parts.extensions, parts.headers);
            let client = Client::new(gateway, Arc::clone(&asked.key), &visitor);
            let source = Source::new(whole, inflater);
            let stream = Stream::new(gateway, client, asked.ack, asked.sent_at, source);
            return if asked.follows { stream.follow().await } else { stream.answer().await };
        }
        body = whole;
    }
    let budget = gateway.overload.budget(asked.key.policy.lane);
    let (bytes, mut share) = body::read(body, &gateway.config, &budget).await?;
    gateway.metrics.received_bytes.inc_by(bytes.len() as u64);
    let cap = Cap { max_bytes: gateway.config.batch_bytes, max_ratio: gateway.config.inflate_ratio };
    let inflated = compression::inflate(&asked.encoding, &bytes, cap)?;
    if matches!(inflated, std::borrow::Cow::Owned(_)) {
        budget.grow(&mut share, inflated.len())?;
    }
    let split = native::split(&inflated, asked.content_type, gateway.config.body_events())?;
    let sent_at = match asked.sent_at {
        SentAt::Absent => SentAt::from_envelope(&split.envelope),
        given => given,
    };
    let key = vouched(gateway, asked.key, &split.envelope, &parts.headers)?;
    gateway.note_discarded(&key.source, &split.envelope);
    let client = Client::new(gateway, Arc::clone(&key), &Visitor::new(&parts.extensions, parts.headers));
    let verdicts = in_slices(gateway, &client, asked.ack, sent_at, &split.events).await;
    drop(share);
    Ok(answered(gateway, &key, &verdicts?))
}

/// The verdicts of a body's events, which are taken a batch at a time.
async fn in_slices(
    gateway: &Arc<Gateway>,
    client: &Client,
    ack: Option<AckLevel>,
    sent_at: SentAt,
    events: &[&[u8]],
) -> Result<Vec<Verdict>, RequestError> {
    let mut verdicts = Vec::with_capacity(events.len());
    for slice in events.chunks(gateway.config.batch_events.max(1)) {
        let transmission = client.transmission(gateway, ack, sent_at, None);
        match gateway.accept(slice, transmission).await {
            Ok(told) => verdicts.extend(told),
            Err(_) if verdicts.is_empty() => {
                let message = "A fault of the gateway; send again, ids make that safe.";
                return Err(RequestError::new(Code::Internal, message));
            }
            // What is on the log already has to be told.
            Err(_) => verdicts.extend(slice.iter().map(|_| Verdict {
                event_id: None,
                status: Status::Retry,
                acked: None,
                reason: Some(Reason::new(Code::Internal)),
                warnings: Vec::new(),
            })),
        }
    }
    Ok(verdicts)
}

/// Beacons cannot have headers: a body may carry the user token beside its events.
fn vouched(
    gateway: &Gateway,
    key: Arc<Key>,
    envelope: &[Member<'_>],
    headers: &HeaderMap,
) -> Result<Arc<Key>, RequestError> {
    match envelope.iter().find(|member| member.name == "user_token" && member.kind != Kind::Null) {
        None => Ok(key),
        Some(member) => gateway.keys.load().vouch(&key, &member.text().unwrap_or_default(), origin(headers)),
    }
}

/// When what was not taken may be sent again: what rate and quota say, or the configured time.
pub(super) fn retry_after_s(gateway: &Gateway, key: &Key, verdicts: &[Verdict]) -> u64 {
    let metered = verdicts.iter().filter(|verdict| is_metered(verdict)).count();
    if metered == 0 {
        return gateway.config.retry_after_s;
    }
    let now = gateway.clock.now();
    let hot = verdicts.iter().any(|verdict| has_code(verdict, Code::ProfileHot));
    let wait = key.wait(metered, now).max(if hot { gateway.hot.window_left(now) } else { Duration::ZERO });
    u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1)
}

pub(super) fn is_metered(verdict: &Verdict) -> bool {
    [Code::RateExceeded, Code::QuotaExceeded, Code::ProfileHot]
        .into_iter()
        .any(|code| has_code(verdict, code))
}

fn has_code(verdict: &Verdict, code: Code) -> bool {
    verdict.reason.as_ref().is_some_and(|reason| reason.code == code)
}

/// The level that a request asks for.
pub(super) fn acknowledgement(uri: &Uri) -> Result<Option<AckLevel>, RequestError> {
    let Some(word) = parameter(uri, "ack") else { return Ok(None) };
    let level = AckLevel::parse(&word);
    level
        .map(Some)
        .ok_or_else(|| RequestError::new(Code::RequestInvalid, "`ack` is `received`, `disk` or `broker`."))
}

/// Everything that can be refused without the body.
fn ask(gateway: &Gateway, parts: &Parts) -> Result<Asked, RequestError> {
    if gateway.drain.has_begun() {
        return Err(RequestError::new(Code::Draining, "The gateway is shutting down; send again later."));
    }
    let key = gateway.keys.load().authenticate(&parts.headers, &parts.uri)?;
    if gateway.overload.refuses(key.policy.lane) {
        return Err(RequestError::new(
            Code::Overloaded,
            "Too much load for events of this lane; send again later.",
        ));
    }
    let ack = acknowledgement(&parts.uri)?;
    let sent_at = parameter(&parts.uri, "sent_at").map_or(SentAt::Absent, |text| SentAt::from_text(&text));
    let content_type = ContentType::parse(header(&parts.headers, &CONTENT_TYPE)?)?;
    let accepts = parts.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let follows = accepts.into_iter().any(|value| value.contains("application/x-ndjson"));
    let mut encodings = Vec::new();
    for value in parts.headers.get_all(CONTENT_ENCODING) {
        encodings.push(value.to_str().map_err(|_| unreadable_header())?);
    }
    Ok(Asked { key, ack, sent_at, content_type, encoding: encodings.join(","), follows })
}

fn header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, RequestError> {
    headers.get(name).map(|value| value.to_str().map_err(|_| unreadable_header())).transpose()
}

fn unreadable_header() -> RequestError {
    RequestError::new(Code::RequestInvalid, "Content-Type and Content-Encoding must be plain ASCII.")
}

/// The verdicts of a body, under the status that goes with them.
pub(super) fn answered(gateway: &Gateway, key: &Key, verdicts: &[Verdict]) -> Response {
    let status = status(verdicts);
    let body = serde_json::to_vec(&Answer { events: verdicts }).unwrap_or_default();
    let mut response = errors::json(status, body);
    if verdicts.iter().any(|verdict| verdict.status == Status::Retry) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after_s(gateway, key, verdicts)));
    }
    response
}

pub(super) fn status(verdicts: &[Verdict]) -> StatusCode {
    let all = |of: &[Status]| verdicts.iter().all(|verdict| of.contains(&verdict.status));
    if all(&[Status::Accepted, Status::Duplicate]) {
        StatusCode::OK
    } else if all(&[Status::Rejected, Status::Quarantined]) {
        StatusCode::UNPROCESSABLE_ENTITY
    } else if all(&[Status::Retry]) && verdicts.iter().any(is_metered) {
        StatusCode::TOO_MANY_REQUESTS
    } else if all(&[Status::Retry]) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::MULTI_STATUS
    }
}
