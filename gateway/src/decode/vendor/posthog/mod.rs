//! `PostHog`'s capture endpoints in both of their versions, and what its clients load at their start.
//!
//! A body is JSON, JSON in base64, a form with either under `data`, or any of them compressed, whatever its type says.
//!
//! **Invariant:** `Ok` says that whatever is not listed in `errors` is taken; in version 1 each event has a result of its own.

mod event;

use std::borrow::Cow;

use http::{Method, StatusCode};
use schemas::json::{Member, Tape};
use schemas::verdict::{Code, Status, Verdict};
use serde_json::{Map, Value, json};

use self::event::Request;
use super::{Action, Adapter, Answer, Batch, Call, Reply, Told, spec, text};
use crate::authenticate::Credential;
use crate::decode::compression;
use crate::error::RequestError;
use schemas::time::Timestamp;

const POST: &str = "POST, OPTIONS";
const BOTH: &str = "POST, GET, OPTIONS";
const GET: &str = "GET, HEAD, OPTIONS";

const LOST: &str = "There is nothing here. PostHog's clients send to POST /e/, /i/v0/e/, /batch/, /capture/, /track/?ver=…, /engage/?ver=… \
    or /i/v1/analytics/events, and ask /flags/?v=2, /decide/?v=3 and /array/<key>/config.";

pub(super) const ADAPTER: Adapter = Adapter {
    name: "posthog",
    endpoints: &[
        (BOTH, "/e"),
        (BOTH, "/i/v0/e"),
        (BOTH, "/capture"),
        (POST, "/batch"),
        (BOTH, "/track"),
        (BOTH, "/engage"),
        (POST, "/i/v1/analytics/events"),
        (BOTH, "/flags"),
        (BOTH, "/decide"),
        (GET, "/array/{key}/config"),
        (GET, "/array/{key}/config.js"),
    ],
    strays: &[("/i/{*rest}", LOST)],
    claims,
    decode,
    refuse,
};

fn claims(call: &Call<'_>) -> bool {
    match call.path() {
        // Others have events in `events`.
        "/batch" => match (place(call.body, b"\"batch\""), place(call.body, b"\"events\"")) {
            (Some(batch), Some(events)) => batch < events,
            (batch, events) => batch.is_some() || events.is_none(),
        },
        "/track" | "/engage" => ["ver", "compression"].iter().any(|name| call.parameter(name).is_some()),
        _ => true,
    }
}

/// Where a name stands first, near the beginning.
fn place(body: &[u8], name: &[u8]) -> Option<usize> {
    /// How far it is looked for, bytes.
    const LOOKED_AT: usize = 16 << 10;
    let head = body.get(..LOOKED_AT).unwrap_or(body);
    head.windows(name.len()).position(|part| part == name)
}

fn decode(call: &Call<'_>) -> Result<Action, RequestError> {
    let path = call.path();
    if let Some(rest) = path.strip_prefix("/array/") {
        return Ok(config(rest));
    }
    if matches!(path, "/flags" | "/decide") {
        return Ok(flags(call));
    }
    let (body, in_url) = payload(call)?;
    let inner = Call { body: &body, ..*call };
    let mut batch = take(&inner, path == "/i/v1/analytics/events")?;
    if in_url {
        // It came in the address, where secret keys do not belong.
        batch.credentials = batch.credentials.into_iter().map(Credential::into_url).collect();
    }
    Ok(Action::Take(batch))
}

/// The JSON of a request, and whether it stood in the address.
fn payload<'a>(call: &Call<'a>) -> Result<(Cow<'a, [u8]>, bool), RequestError> {
    let unreadable = || RequestError::new(Code::BodySyntax, "Send JSON, or JSON in base64 as `data`.");
    let body = call.body.trim_ascii();
    let in_url = body.is_empty() && call.method == Method::GET;
    if body.starts_with(b"{") || body.starts_with(b"[") || body.is_empty() && !in_url {
        return Ok((Cow::Borrowed(call.body), false));
    }
    let data = if in_url { call.parameter("data") } else { text::field(body, "data") };
    let wrapped = match data {
        Some(data) => data,
        None if in_url => return Err(unreadable()),
        None => Cow::Borrowed(std::str::from_utf8(body).map_err(|_| unreadable())?),
    };
    if call.parameter("compression").is_some_and(|name| name == "lz64") {
        let message = "lz64 is not supported; use gzip-js, base64 or none (`disable_compression`).";
        return Err(RequestError::new(Code::BodyUnsupported, message));
    }
    let bytes = text::json_or_base64(&wrapped).ok_or_else(unreadable)?;
    let plain = compression::inflate("", &bytes, call.cap)?.into_owned();
    Ok((Cow::Owned(plain), in_url))
}

fn take(call: &Call<'_>, is_v1: bool) -> Result<Batch, RequestError> {
    let (events, envelope) = spec::split(call, "batch")?;
    let mut tape = Tape::default();
    let credentials = credentials(call, &envelope, events.first().copied(), &mut tape)?;
    let request = request(call, &envelope);
    let mut items = Vec::with_capacity(events.len());
    let mut ids = Vec::with_capacity(events.len());
    for event in events {
        let (item, id) = event::item(call, event, &request, &mut tape);
        items.push(item);
        ids.push(id);
    }
    let answer: Answer = if is_v1 { Box::new(move |told| results(told, &ids)) } else { Box::new(status) };
    Ok(Batch { credentials, items, answer })
}

/// Names of the key.
const KEY_NAMES: [&str; 4] = ["api_key", "token", "$token", "project_api_key"];

fn credentials(
    call: &Call<'_>,
    envelope: &[Member<'_>],
    first: Option<&[u8]>,
    tape: &mut Tape,
) -> Result<Vec<Credential>, RequestError> {
    let mut credentials: Vec<Credential> = call.credential()?.into_iter().collect();
    let named = KEY_NAMES.iter().filter_map(|name| spec::envelope_text(envelope, name));
    credentials.extend(named.map(|key| Credential::in_body(&key)));
    if let Some(event) = first.and_then(|event| tape.object(event, call.limits).ok()) {
        let properties = spec::child(&event, "properties");
        for object in [Some(event), properties].into_iter().flatten() {
            let named = KEY_NAMES.iter().filter_map(|name| spec::child(&object, name)?.string());
            credentials.extend(named.map(|key| Credential::in_body(&key)));
        }
    }
    let asked = ["token", "api_key"].into_iter().filter_map(|name| call.parameter(name));
    credentials.extend(asked.map(|key| Credential::in_query(&key)));
    // A key is there once for each event's name of it.
    credentials.dedup();
    Ok(credentials)
}

/// What holds for all events of a request.
fn request(call: &Call<'_>, envelope: &[Member<'_>]) -> Request {
    let named = ["sent_at", "sentAt"].into_iter().find_map(|name| spec::envelope_instant(envelope, name));
    let header = call.header("posthog-request-timestamp").and_then(Timestamp::parse);
    // Pages put the time of sending, in milliseconds, beside the path.
    let millis =
        call.parameter("_").and_then(|millis| millis.parse().ok()).and_then(Timestamp::from_epoch_number);
    let library = call.header("posthog-sdk-info").and_then(|info| info.split_once('/'));
    Request {
        sent_at: header.or(named).or(millis),
        library: library.map(|(name, version)| (name.to_owned(), version.to_owned())),
    }
}

fn status(told: &Told<'_>) -> Reply {
    if let Some(status) = told.again() {
        return again(status);
    }
    match told.first_refusal() {
        None => Reply::json(StatusCode::OK, &json!({"status": "Ok"})),
        Some(first) if told.all_refused() => {
            let mut body =
                fault("validation_error", "invalid_payload", &format!("Nothing was taken: {first}."));
            if let Some(body) = body.as_object_mut() {
                body.insert("errors".to_owned(), told.listed());
            }
            Reply::json(StatusCode::BAD_REQUEST, &body)
        }
        Some(_) => Reply::json(StatusCode::OK, &json!({"status": "Ok", "errors": told.listed()})),
    }
}

/// A result for each event by its `uuid`.
fn results(told: &Told<'_>, ids: &[Option<String>]) -> Reply {
    if let Some(status) = told.again()
        && told.verdicts.iter().all(|verdict| verdict.status == Status::Retry)
    {
        return again(status);
    }
    let named =
        ids.iter().zip(told.verdicts).filter_map(|(id, verdict)| Some((id.clone()?, result(verdict))));
    let results: Map<String, Value> = named.collect();
    Reply::json(StatusCode::OK, &json!({"results": results}))
}

fn result(verdict: &Verdict) -> Value {
    let name = match verdict.status {
        Status::Accepted | Status::Duplicate => return json!({"result": "ok"}),
        Status::Quarantined | Status::Rejected => "drop",
        Status::Retry => "retry",
    };
    let reason = verdict.reason.as_ref();
    let pointer = reason.and_then(|reason| reason.pointer.as_deref()).unwrap_or_default();
    let details = reason.map(|reason| format!("{} {pointer}", reason.code.as_str()).trim_end().to_owned());
    json!({"result": name, "details": details})
}

fn again(status: StatusCode) -> Reply {
    let message = "Not everything could be taken now; send all of it again: ids make that safe.";
    Reply::json(status, &fault("server_error", "not_taken", message))
}

fn fault(kind: &str, code: &str, detail: &str) -> Value {
    json!({"type": kind, "code": code, "detail": detail, "attr": null, "error": detail})
}

fn refuse(_: &Call<'_>, error: &RequestError, _: &Told<'_>) -> Reply {
    let status = error.status();
    let (kind, code) = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ("authentication_error", "invalid_api_key"),
        _ if status.is_server_error() => ("server_error", error.code.as_str()),
        _ => ("validation_error", error.code.as_str()),
    };
    Reply::json(status, &fault(kind, code, &error.message))
}

/// No flags: the clients then take what their users gave as defaults.
fn flags(call: &Call<'_>) -> Action {
    let mut credentials: Vec<Credential> = call.credential().ok().flatten().into_iter().collect();
    if let Ok((body, _)) = payload(call)
        && let Ok(asked) = Tape::default().object(body.trim_ascii(), call.limits)
    {
        let named = KEY_NAMES.iter().filter_map(|name| spec::child(&asked, name)?.string());
        credentials.extend(named.map(|key| Credential::in_body(&key)));
    }
    credentials.extend(call.parameter("token").as_deref().map(Credential::in_query));
    // Whoever has no key is told so.
    if credentials.is_empty() {
        credentials.push(Credential::in_query(""));
    }
    // The first version of `decide` listed the flags that are on.
    let is_first = call.path() == "/decide" && call.parameter("v").is_none_or(|version| version == "1");
    let none = if is_first { json!([]) } else { json!({}) };
    let body = json!({
        "config": {"enable_collect_everything": true},
        "errorsWhileComputingFlags": false,
        "flags": {},
        "featureFlags": none,
        "featureFlagPayloads": {},
        "toolbarParams": {},
        "isAuthenticated": false,
        "sessionRecording": false,
        "siteApps": [],
        "supportedCompression": ["gzip", "gzip-js"],
    });
    Action::Reply { credentials, reply: Reply::json(StatusCode::OK, &body) }
}

/// What a page loads before it sends: everything off but the events themselves.
fn config(rest: &str) -> Action {
    let (key, file) = rest.rsplit_once('/').unwrap_or((rest, ""));
    let body = json!({
        "token": key,
        "supportedCompression": ["gzip", "gzip-js"],
        "hasFeatureFlags": false,
        "captureDeadClicks": false,
        "capturePerformance": false,
        "autocapture_opt_out": false,
        "autocaptureExceptions": false,
        "analytics": {"endpoint": "/i/v0/e/"},
        "elementsChainAsString": true,
        "errorTracking": {"autocaptureExceptions": false, "suppressionRules": []},
        "sessionRecording": false,
        "heatmaps": false,
        "surveys": false,
        "productTours": false,
        "logs": {"captureConsoleLogs": false},
        "defaultIdentifiedOnly": true,
        "siteApps": [],
    });
    let mut reply = Reply::json(StatusCode::OK, &body);
    if file == "config.js" {
        let key = json!(key);
        let script = format!(
            "(function(){{window._POSTHOG_REMOTE_CONFIG=window._POSTHOG_REMOTE_CONFIG||{{}};\
             window._POSTHOG_REMOTE_CONFIG[{key}]={{config:{body},siteApps:[]}};}})();"
        );
        reply = Reply { content_type: "application/javascript", body: script.into_bytes(), ..reply };
    }
    Action::Reply { credentials: vec![Credential::in_query(key)], reply: reply.cacheable() }
}
