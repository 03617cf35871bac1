//! `POST /v1/quarantine/replay`: tries refused events again, as they are (a newer schema may take them) or patched.
//!
//! **Invariant:** an event keeps its id, its received time and its source, and is judged like any other by the rules in force
//! now; one that would be refused again is not taken, and no second copy of it is kept; a replay done twice counts once.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use schemars::JsonSchema;
use schemas::json::{self, Difference, Limits};
use schemas::verdict::{AckLevel, Code, Reason, Status, Verdict};
use serde::Serialize;
use serde_json::{Map, Value};

use super::list::unreadable;
use super::record::{Found, Place, body, id_at, read_one};
use crate::Gateway;
use crate::consent::Signals;
use crate::decode::native::SentAt;
use crate::error::RequestError;
use crate::pipeline::Transmission;
use crate::transport::{body as request_body, errors};

/// Records in one request.
const MAX_RECORDS: usize = 1_000;

/// What is asked for.
struct Asked {
    at: Vec<Place>,
    patch: Option<Vec<u8>>,
    dry_run: bool,
}

/// What is asked for, as it is described.
#[derive(JsonSchema)]
#[schemars(rename = "Replay")]
#[expect(dead_code, reason = "read member by member, so that the digits in a patch survive")]
pub(super) struct Wanted {
    /// The records, in this order.
    #[schemars(length(max = MAX_RECORDS))]
    at: Vec<Place>,
    /// RFC 6902, applied to each.
    #[schemars(skip_serializing_if = "Option::is_none")]
    patch: Option<Vec<serde_json::Map<String, serde_json::Value>>>,
    /// Only say what would become of them.
    #[schemars(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReplayAnswer")]
pub(super) struct Answer {
    dry_run: bool,
    events: Vec<Outcome>,
}

/// What became, or would become, of one record.
#[derive(Serialize, JsonSchema)]
struct Outcome {
    at: Place,
    /// Absent when the record could not be tried at all; `problem` says why.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// What the patch changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<Difference>,
}

/// One record made ready.
struct Ready {
    event: Vec<u8>,
    transmission: Transmission,
    changed: Vec<Difference>,
}

/// Tries them in the order named.
pub(super) async fn replay(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, RequestError> {
    let (parts, raw) = request.into_parts();
    let asked = ask(&gateway, &parts, raw).await?;
    let mut events = Vec::with_capacity(asked.at.len());
    for at in &asked.at {
        let found = read_one(&gateway.log, *at).await.map_err(|error| unreadable(&error))?;
        events.push(try_again(&gateway, *at, found, &asked).await);
    }
    Ok(errors::json(StatusCode::OK, body(&Answer { dry_run: asked.dry_run, events })))
}

async fn ask(gateway: &Gateway, parts: &Parts, raw: Body) -> Result<Asked, RequestError> {
    if let Err(error) = gateway.keys().authenticate_secret(&parts.headers, &parts.uri) {
        request_body::discard(raw).await;
        return Err(error);
    }
    let (bytes, _share) = request_body::read(raw, &gateway.config, &gateway.budget).await?;
    let wrong = || {
        let message = "Send {\"at\":[\"partition:offset\",…]}, up to 1000, with `patch` (RFC 6902) and `dry_run` as you like.";
        RequestError::new(Code::RequestInvalid, message)
    };
    let members = json::object(&bytes, Limits::default()).map_err(|_| wrong())?;
    let member = |name: &str| members.iter().find(|member| member.name == name).map(|member| member.value);
    let places: Vec<String> = serde_json::from_slice(member("at").ok_or_else(wrong)?).map_err(|_| wrong())?;
    let at = places.iter().map(|text| Place::parse(text)).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
    if at.len() > MAX_RECORDS {
        return Err(wrong());
    }
    let dry_run = match member("dry_run") {
        None | Some(b"false" | b"null") => false,
        Some(b"true") => true,
        Some(_) => return Err(wrong()),
    };
    // The patch stays bytes, so that the digits in it survive.
    let patch = member("patch").filter(|patch| *patch != b"null").map(<[u8]>::to_vec);
    // Also where there is no record that it could be tried on.
    let operations = patch.as_deref().map(serde_json::from_slice::<Vec<Map<String, Value>>>);
    operations.transpose().map_err(|_| wrong())?;
    Ok(Asked { at, patch, dry_run })
}

async fn try_again(gateway: &Arc<Gateway>, at: Place, found: Option<Found>, asked: &Asked) -> Outcome {
    let ready = match found.ok_or_else(|| "no record stands there".to_owned()) {
        Ok(found) => prepare(gateway, found, asked.patch.as_deref()),
        Err(problem) => Err(problem),
    };
    let Ready { event, transmission, changed } = match ready {
        Ok(ready) => ready,
        Err(problem) => return Outcome { at, verdict: None, problem: Some(problem), changed: Vec::new() },
    };
    let preview = gateway.preview(&event, &transmission);
    let takes = preview.status == Status::Accepted;
    let verdict = if takes && !asked.dry_run {
        let verdicts = gateway.accept(&[&event], transmission).await;
        verdicts.ok().and_then(|verdicts| verdicts.into_iter().next()).unwrap_or_else(|| Verdict {
            status: Status::Retry,
            reason: Some(Reason::new(Code::Internal)),
            ..preview
        })
    } else {
        preview
    };
    Outcome { at, verdict: Some(verdict), problem: None, changed }
}

/// The event as it would come again.
fn prepare(gateway: &Gateway, found: Found, patch: Option<&[u8]>) -> Result<Ready, String> {
    let Found { at, kept } = found;
    let original = kept.bytes().ok_or("its bytes were not kept whole")?;
    let key = gateway
        .keys()
        .of_source(&kept.source)
        .ok_or("no key of its source is configured any more; add one of that name")?;
    let mut event = original.clone();
    if let Some(patch) = patch {
        event = json::patch(&event, patch).map_err(|error| error.to_string())?;
    }
    let changed = json::differences(&original, &event);
    if kept.event_id.is_none() {
        event = with_id(event, at);
    }
    let transmission = Transmission {
        key,
        key_is_good: true,
        received_at: kept.received_at,
        sent_at: kept.sent_at.map_or(SentAt::Absent, SentAt::At),
        each_sent_at: Vec::new(),
        ack: AckLevel::Disk,
        ip: kept.ip,
        user_agent: kept.user_agent,
        // What a browser said was applied before the event was kept; what the event says is asked again.
        signals: Signals::default(),
        session: None,
    };
    Ok(Ready { event, transmission, changed })
}

/// An event that came without an id gets one that is the same at each replay.
fn with_id(event: Vec<u8>, at: Place) -> Vec<u8> {
    let has_id = json::object(&event, Limits::default())
        .is_ok_and(|members| members.iter().any(|member| member.name == "event_id"));
    if has_id {
        return event;
    }
    let add = serde_json::json!([{"op": "add", "path": "/event_id", "value": id_at(at).to_string()}]);
    json::patch(&event, add.to_string().as_bytes()).unwrap_or(event)
}
