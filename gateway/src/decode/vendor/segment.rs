//! Segment's tracking API, and the settings that its browser and mobile clients load.
//!
//! **Invariant:** 200 says that whatever is not listed in `errors` is taken; 400 that nothing of it ever will be.

use http::{Method, StatusCode};
use schemas::json::Tape;
use serde_json::json;

use super::spec::{self, Manner};
use super::{Action, Adapter, Answer, Batch, Call, Item, Reply, Told, text};
use crate::authenticate::Credential;
use crate::error::RequestError;
use schemas::verdict::Code;

const POST: &str = "POST, OPTIONS";
const GET: &str = "GET, HEAD, OPTIONS";

/// What a lost client is told.
const LOST: &str = "There is nothing here. Segment's and RudderStack's clients send to POST /v1/batch, /v1/import, /v1/track, /v1/identify, \
    /v1/page, /v1/screen, /v1/group or /v1/alias, or short /v1/b, /v1/t, /v1/i, /v1/p, /v1/s, /v1/g, /v1/a; our own events go to POST /v1/events.";

/// Calls by the last part of their path.
pub(super) const CALLS: &[(&str, Option<&str>)] = &[
    ("batch", None),
    ("import", None),
    ("b", None),
    ("track", Some("track")),
    ("t", Some("track")),
    ("identify", Some("identify")),
    ("i", Some("identify")),
    ("page", Some("page")),
    ("p", Some("page")),
    ("screen", Some("screen")),
    ("s", Some("screen")),
    ("group", Some("group")),
    ("g", Some("group")),
    ("alias", Some("alias")),
    ("a", Some("alias")),
];

pub(super) const ADAPTER: Adapter = Adapter {
    name: "segment",
    endpoints: &[
        (POST, "/v1/batch"),
        (POST, "/v1/import"),
        (POST, "/v1/b"),
        (POST, "/v1/track"),
        (POST, "/v1/t"),
        (POST, "/v1/identify"),
        (POST, "/v1/i"),
        (POST, "/v1/page"),
        (POST, "/v1/p"),
        (POST, "/v1/screen"),
        (POST, "/v1/s"),
        (POST, "/v1/group"),
        (POST, "/v1/g"),
        (POST, "/v1/alias"),
        (POST, "/v1/a"),
        (POST, "/v1/m"),
        (GET, "/v1/pixel/{call}"),
        (GET, "/v1/projects/{key}/settings"),
    ],
    strays: &[("/v1/{*rest}", LOST)],
    claims: |_| true,
    decode,
    refuse,
};

fn decode(call: &Call<'_>) -> Result<Action, RequestError> {
    let path = call.path();
    if path == "/v1/m" {
        // Figures that the client collects of itself: nothing of ours to keep.
        let reply = Reply::json(StatusCode::OK, &json!({"success": true}));
        return Ok(Action::Reply { credentials: Vec::new(), reply });
    }
    if let Some(key) = path.strip_prefix("/v1/projects/").and_then(|rest| rest.strip_suffix("/settings")) {
        return Ok(settings(call, key));
    }
    if path.starts_with("/v1/pixel/") {
        return pixel(call);
    }
    let batch = take(call, Manner { vendor: "segment", ..Manner::default() }, say(call))?;
    Ok(Action::Take(batch))
}

/// The events of a body, from whichever vendor of the family.
pub(super) fn take(call: &Call<'_>, manner: Manner, answer: Answer) -> Result<Batch, RequestError> {
    let (events, envelope) = spec::split(call, "batch")?;
    let last = call.path().rsplit('/').next().unwrap_or_default();
    let named = CALLS.iter().find(|(name, _)| *name == last).and_then(|(_, call)| *call);
    let sent_at = spec::envelope_instant(&envelope, "sentAt").or(manner.sent_at);
    let manner = Manner { call: named, sent_at, ..manner };
    let mut credentials: Vec<Credential> = call.credential()?.into_iter().collect();
    let mut tape = Tape::default();
    let single = events.first().filter(|_| envelope.is_empty());
    let inner = single.and_then(|event| tape.object(event, call.limits).ok());
    let inner = inner.and_then(|event| spec::child(&event, "writeKey")?.string().map(String::from));
    let named = spec::envelope_text(&envelope, "writeKey").or(inner);
    credentials.extend(named.as_deref().map(Credential::in_body));
    credentials.extend(call.parameter("writeKey").as_deref().map(Credential::in_query));
    let items = events.iter().map(|event| spec::item(call, event, &manner, &mut tape)).collect();
    Ok(Batch { credentials, items, answer })
}

/// One event as base64 in `data`, for mails.
fn pixel(call: &Call<'_>) -> Result<Action, RequestError> {
    let unreadable = || RequestError::new(Code::RequestInvalid, "`data` is an event as JSON, in base64.");
    let data = call.parameter("data").and_then(|data| text::base64(&data)).ok_or_else(unreadable)?;
    let inner = Call { body: &data, ..*call };
    let answer: Answer = Box::new(|_| Reply::pixel());
    let mut batch = take(&inner, Manner { vendor: "segment", ..Manner::default() }, answer)?;
    // It came in the address, where secret keys do not belong.
    batch.credentials = batch.credentials.into_iter().map(Credential::into_url).collect();
    if call.method == Method::HEAD {
        batch.items = Vec::<Item>::new();
    }
    Ok(Action::Take(batch))
}

fn say(call: &Call<'_>) -> Answer {
    let is_page = call.header("origin").is_some();
    Box::new(move |told| {
        if let Some(status) = told.again() {
            return paced(
                status,
                is_page,
                told,
                "Not everything could be taken now; send all of it again: ids make that safe.",
            );
        }
        match told.first_refusal() {
            None => Reply::json(StatusCode::OK, &json!({"success": true})),
            Some(first) if told.all_refused() => {
                let message = format!("Nothing was taken: {first}.");
                let body = json!({"success": false, "code": "invalid_request", "message": message, "errors": told.listed()});
                Reply::json(StatusCode::BAD_REQUEST, &body)
            }
            Some(_) => Reply::json(StatusCode::OK, &json!({"success": true, "errors": told.listed()})),
        }
    })
}

/// The pause as the clients understand it: pages read seconds, the Node client the instant in milliseconds.
fn paced(status: StatusCode, is_page: bool, told: &Told<'_>, message: &str) -> Reply {
    let seconds = i64::try_from(told.retry_after_s).unwrap_or(i64::MAX);
    let reset =
        if is_page { seconds } else { told.now.as_millis().saturating_add(seconds.saturating_mul(1_000)) };
    let reply = Reply::json(status, &json!({"success": false, "message": message}));
    if status == StatusCode::TOO_MANY_REQUESTS { reply.with("x-ratelimit-reset", reset) } else { reply }
}

fn refuse(call: &Call<'_>, error: &RequestError, told: &Told<'_>) -> Reply {
    let is_page = call.header("origin").is_some();
    if error.status() == StatusCode::TOO_MANY_REQUESTS {
        return paced(error.status(), is_page, told, &error.message);
    }
    let code = error.code.as_str();
    let body = json!({"success": false, "code": code, "message": error.message, "docs": format!("docs/errors/{code}.md")});
    Reply::json(error.status(), &body)
}

/// What the clients load before they send: our own destination, and no other.
fn settings(call: &Call<'_>, key: &str) -> Action {
    let mut destination = json!({
        "apiKey": key,
        "unbundledIntegrations": [],
        "addBundledMetadata": true,
        "maybeBundledConfigIds": {},
        "versionSettings": {"version": "4.4.7", "componentTypes": ["browser"]},
    });
    if let (Some(host), Some(destination)) = (own_host(call), destination.as_object_mut()) {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let is_here = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
        destination.insert("apiHost".to_owned(), json!(format!("{host}/v1")));
        destination.insert("protocol".to_owned(), json!(if is_here { "http" } else { "https" }));
    }
    let on = json!({"__default": {"enabled": true, "integrations": {}}});
    let body = json!({
        "integrations": {"Segment.io": destination},
        "plan": {"track": on, "identify": {"__default": {"enabled": true}}, "group": {"__default": {"enabled": true}}},
        "edgeFunction": {},
        "analyticsNextEnabled": true,
        "middlewareSettings": {},
        "enabledMiddleware": {},
        "metrics": {"sampleRate": 0},
        "legacyVideoPluginsEnabled": false,
        "remotePlugins": [],
    });
    let reply = Reply::json(StatusCode::OK, &body).cacheable();
    Action::Reply { credentials: vec![Credential::in_query(key)], reply }
}

/// The name by which the client reached us, if it is one.
fn own_host<'a>(call: &Call<'a>) -> Option<&'a str> {
    let host = call.header("host")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    Some(host).filter(|host| !host.is_empty() && host.bytes().all(plain))
}
