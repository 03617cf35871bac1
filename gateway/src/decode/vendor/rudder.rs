//! `RudderStack`'s data plane and the source configuration of its clients.
//!
//! Its paths are Segment's too; an event's own marks tell them apart: the `AnonymousId` header, `channel`, the library's name.
//!
//! **Invariant:** an explicit `timestamp` is final; 200 says `OK` and nothing else.

use http::StatusCode;
use serde_json::json;

use super::segment::{self, CALLS};
use super::spec::Manner;
use super::{Action, Adapter, Answer, Call, Reply, Told, text};
use crate::authenticate::Credential;
use crate::decode::native::SentAt;
use crate::error::RequestError;

const POST: &str = "POST, OPTIONS";
const GET: &str = "GET, HEAD, OPTIONS";

pub(super) const ADAPTER: Adapter = Adapter {
    name: "rudderstack",
    endpoints: &[
        (POST, "/v1/batch"),
        (POST, "/v1/import"),
        (POST, "/v1/track"),
        (POST, "/v1/identify"),
        (POST, "/v1/page"),
        (POST, "/v1/screen"),
        (POST, "/v1/group"),
        (POST, "/v1/alias"),
        (POST, "/beacon/v1/batch"),
        (GET, "/sourceConfig"),
    ],
    strays: &[(
        "/beacon/{*rest}",
        "There is nothing here. RudderStack's beacons go to POST /beacon/v1/batch?writeKey=…; everything else to /v1/batch and its like.",
    )],
    claims,
    decode,
    refuse,
};

fn claims(call: &Call<'_>) -> bool {
    let path = call.path();
    if call.headers.contains_key("anonymousid") || path.starts_with("/beacon") || path == "/sourceConfig" {
        return true;
    }
    let last = path.rsplit('/').next().unwrap_or_default();
    CALLS.iter().any(|(name, _)| *name == last)
        && (call.header("user-agent").is_some_and(|agent| agent.to_ascii_lowercase().contains("rudder"))
            || marked(call.body))
}

/// Its clients say on which channel they are, or their name, early in the first event.
fn marked(body: &[u8]) -> bool {
    /// How far marks are looked for, bytes.
    const LOOKED_AT: usize = 16 << 10;
    let head = body.get(..LOOKED_AT).unwrap_or(body);
    let marks: [&[u8]; 3] = [b"\"channel\":", b"RudderLabs", b"rudder-"];
    marks.iter().any(|mark| head.windows(mark.len()).any(|part| part == *mark))
}

fn decode(call: &Call<'_>) -> Result<Action, RequestError> {
    if call.path() == "/sourceConfig" {
        return source_config(call);
    }
    let device = call.header("anonymousid").and_then(text::base64);
    let sent_at = match call.header("sentat").map(SentAt::from_text) {
        Some(SentAt::At(at)) => Some(at),
        _ => None,
    };
    let manner = Manner {
        vendor: ADAPTER.name,
        timestamp_is_final: true,
        sent_at,
        anonymous_id: device.and_then(|bytes| String::from_utf8(bytes).ok()),
        ..Manner::default()
    };
    let answer: Answer = Box::new(|told| {
        if let Some(status) = told.again() {
            return Reply::text(status, "Not everything could be taken now; send all of it again.");
        }
        match told.first_refusal() {
            Some(first) if told.all_refused() => {
                Reply::text(StatusCode::BAD_REQUEST, &format!("Nothing was taken: {first}."))
            }
            _ => Reply::text(StatusCode::OK, "OK"),
        }
    });
    Ok(Action::Take(segment::take(call, manner, answer)?))
}

fn refuse(_: &Call<'_>, error: &RequestError, _: &Told<'_>) -> Reply {
    Reply::text(error.status(), &error.message)
}

/// A source that is enabled and has no other destinations.
fn source_config(call: &Call<'_>) -> Result<Action, RequestError> {
    let named = call.parameter("writeKey");
    let mut credentials: Vec<Credential> = call.credential()?.into_iter().collect();
    credentials.extend(named.as_deref().map(Credential::in_query));
    let body = json!({
        "source": {
            "id": "rivulet",
            "name": "rivulet",
            "writeKey": named,
            "enabled": true,
            "workspaceId": "rivulet",
            "config": {"statsCollection": {"errors": {"enabled": false}, "metrics": {"enabled": false}}},
            "connections": [],
            "destinations": [],
            "dataplanes": {},
            "updatedAt": "2024-01-01T00:00:00.000Z",
        },
        "isHosted": true,
        "updatedAt": "2024-01-01T00:00:00.000Z",
    });
    // Whoever has no key is told so.
    if credentials.is_empty() {
        credentials.push(Credential::in_query(""));
    }
    Ok(Action::Reply { credentials, reply: Reply::json(StatusCode::OK, &body).cacheable() })
}
