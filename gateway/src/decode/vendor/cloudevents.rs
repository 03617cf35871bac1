//! `CloudEvents` 1.0 over HTTP: binary, structured and batch mode, and the handshake of webhooks.
//!
//! **Invariant:** one event has the same bytes in every mode, so that its repeat in another is seen as one; its id counts within its
//! `source`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use schemas::id::EventId;
use schemas::json::{self, Body, Kind, Scanned, Tape};
use schemas::verdict::Code;
use serde::de::IgnoredAny;
use serde_json::json;

use super::draft::{Draft, Object, quoted};
use super::{Action, Adapter, Answer, Batch, Call, Item, Reply, Told, spec, text};
use crate::authenticate::Credential;
use crate::error::RequestError;

pub(crate) const ADAPTER: Adapter = Adapter {
    name: "cloudevents",
    endpoints: &[("POST, OPTIONS", "/cloudevents")],
    strays: &[(
        "/cloudevents/{*rest}",
        "There is nothing here. CloudEvents go to POST /cloudevents, or to POST /v1/events.",
    )],
    claims: |call| is_one(call.headers),
    decode,
    refuse,
};

/// Whether a request's headers say that it is of this kind.
pub(crate) fn is_one(headers: &HeaderMap) -> bool {
    headers.contains_key("ce-specversion") || content_type(headers).starts_with("application/cloudevents")
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn decode(call: &Call<'_>) -> Result<Action, RequestError> {
    if call.method == Method::OPTIONS {
        return Ok(handshake(call));
    }
    let mut credentials: Vec<Credential> = call.credential()?.into_iter().collect();
    credentials.extend(call.parameter("key").as_deref().map(Credential::in_query));
    let mut tape = Tape::default();
    let items = match content_type(call.headers).as_str() {
        "application/cloudevents+json" => vec![structured(call, call.body, &mut tape)],
        "application/cloudevents-batch+json" => match json::split(call.body, call.max_events)? {
            Body::Many { events, .. } => {
                events.iter().map(|event| structured(call, event, &mut tape)).collect()
            }
            Body::One(_) => {
                return Err(RequestError::new(Code::BodySyntax, "A batch is an array of CloudEvents."));
            }
        },
        other if other.starts_with("application/cloudevents") => {
            return Err(RequestError::new(
                Code::BodyUnsupported,
                "Send CloudEvents as JSON, or in binary mode.",
            ));
        }
        _ if call.headers.contains_key("ce-specversion") => vec![binary(call, &mut tape)],
        _ => {
            let message = "No CloudEvent: send `ce-` headers, or application/cloudevents+json.";
            return Err(RequestError::new(Code::BodyUnsupported, message));
        }
    };
    let answer: Answer = Box::new(answer);
    Ok(Action::Take(Batch { credentials, items, answer }))
}

/// Verdicts as our own path says them.
fn answer(told: &Told<'_>) -> Reply {
    let taken = told.verdicts.iter().any(|verdict| verdict.acked.is_some());
    let refused = told.refused().next().is_some();
    let status = match told.again() {
        Some(again) if !taken && !refused => again,
        None if told.all_refused() => StatusCode::UNPROCESSABLE_ENTITY,
        None if !refused => StatusCode::OK,
        _ => StatusCode::MULTI_STATUS,
    };
    Reply::json(status, &json!({"events": told.verdicts}))
}

fn refuse(_: &Call<'_>, error: &RequestError, _: &Told<'_>) -> Reply {
    Reply::json(error.status(), &json!({"error": crate::transport::errors::object(error)}))
}

/// A sender of webhooks asks whether it may send: anybody may who has a key.
fn handshake(call: &Call<'_>) -> Action {
    let mut reply =
        Reply::text(StatusCode::OK, "").with("webhook-allowed-rate", HeaderValue::from_static("*"));
    if let Some(origin) = call.headers.get("webhook-request-origin") {
        reply = reply.with("webhook-allowed-origin", origin.clone());
    }
    let reply = reply.with("allow", HeaderValue::from_static("POST, OPTIONS"));
    Action::Reply { credentials: Vec::new(), reply }
}

/// What an event says, from wherever it was read.
#[derive(Default)]
struct Attributes<'a> {
    named: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl Attributes<'_> {
    fn get(&self, wanted: &str) -> Option<&str> {
        self.named.iter().find(|(name, value)| name == wanted && !value.is_empty()).map(|(_, value)| &**value)
    }

    fn draft(&mut self, metadata: Option<&str>) -> Draft {
        let mut draft = Draft::new(self.get("type"));
        if let Some(id) = self.get("id") {
            draft.id(id);
            draft.ce_source(self.get("source").unwrap_or_default());
        }
        if let Some(user) = self.get("userid").or_else(|| self.get("subject")) {
            draft.user_text(user);
        }
        if let Some(device) = self.get("anonymousid") {
            draft.anonymous_text(device);
        }
        if let Some(session) = self.get("sessionid") {
            draft.member("session_id", &quoted(session));
        }
        let time = self.get("time").is_some_and(|time| draft.timestamp_text(time));
        draft.member("metadata", metadata.unwrap_or("{}"));
        self.named.sort();
        let mut context = Object::default();
        context.text("vendor", ADAPTER.name);
        for (name, value) in &self.named {
            let placed = ["specversion", "type", "userid", "anonymousid", "sessionid"].contains(&&**name);
            let is_plain = name == "datacontenttype" && is_json(value);
            let is_uuid = name == "id" && EventId::parse(value).is_some();
            if !(placed || is_plain || is_uuid || name == "time" && time) {
                context
                    .text(if name == "id" { "original_event_id" } else { name.as_ref() }.to_owned(), value);
            }
        }
        draft.context(context);
        draft
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.is_empty() || essence.ends_with("/json") || essence.ends_with("+json")
}

fn structured(call: &Call<'_>, event: &[u8], tape: &mut Tape) -> Item {
    let Ok(scanned) = tape.object(event.trim_ascii(), call.limits) else {
        return Item::Broken(event.to_vec());
    };
    let mut attributes = Attributes::default();
    for member in scanned.children().filter(|member| member.kind() != Kind::Null) {
        let name = member.name();
        if !matches!(&*name, "data" | "data_base64") {
            let value = member.string().unwrap_or(Cow::Borrowed(member.raw()));
            attributes.named.push((name, value));
        }
    }
    let is_json = is_json(attributes.get("datacontenttype").unwrap_or_default());
    let metadata = match (spec::child(&scanned, "data"), spec::child(&scanned, "data_base64")) {
        (Some(data), _) => Some(wrapped(&data)),
        (None, Some(encoded)) => {
            let bytes = encoded.string().and_then(|encoded| text::base64(&encoded));
            let Some(bytes) = bytes else { return Item::Broken(event.to_vec()) };
            payload(&bytes, is_json, call, &mut Tape::default())
        }
        (None, None) => None,
    };
    Item::Event(attributes.draft(metadata.as_deref()))
}

fn wrapped(data: &Scanned<'_>) -> String {
    if data.kind() == Kind::Object { data.raw().to_owned() } else { format!("{{\"data\":{}}}", data.raw()) }
}

/// An event's bytes as `metadata`.
fn payload(bytes: &[u8], is_json: bool, call: &Call<'_>, tape: &mut Tape) -> Option<String> {
    let trimmed = bytes.trim_ascii();
    if trimmed.is_empty() {
        return None;
    }
    if is_json {
        if let Ok(object) = tape.object(trimmed, call.limits) {
            return Some(object.raw().to_owned());
        }
        let value = std::str::from_utf8(trimmed)
            .ok()
            .filter(|_| serde_json::from_slice::<IgnoredAny>(trimmed).is_ok());
        // A broken object stays text, and is no other member of the event.
        if let Some(value) = value.filter(|value| !value.starts_with('{')) {
            return Some(format!("{{\"data\":{value}}}"));
        }
    }
    Some(match std::str::from_utf8(bytes) {
        Ok(text) => format!("{{\"data\":{}}}", quoted(text)),
        Err(_) => format!("{{\"data_base64\":{}}}", quoted(&text::encoded(bytes))),
    })
}

fn binary(call: &Call<'_>, tape: &mut Tape) -> Item {
    let mut attributes = Attributes::default();
    for (name, value) in call.headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let Some(value) = decoded(value.as_bytes()) else {
            // What is not UTF-8 is refused where our own events would be.
            return Item::Broken([b"{\"event_type\":\"", value.as_bytes(), b"\xff\"}"].concat());
        };
        attributes.named.push((Cow::Borrowed(name), Cow::Owned(value)));
    }
    let content_type = call.header("content-type").unwrap_or_default();
    if !is_json(content_type) {
        attributes.named.push((Cow::Borrowed("datacontenttype"), Cow::Borrowed(content_type)));
    }
    let is_json = is_json(content_type);
    let is_object = call.body.trim_ascii_start().starts_with(b"{");
    if is_json && is_object && tape.object(call.body, call.limits).is_err() {
        return Item::Broken(call.body.to_vec());
    }
    let metadata = payload(call.body, is_json, call, tape);
    Item::Event(attributes.draft(metadata.as_deref()))
}

/// A header's value: percent-encoded as the specification asks, or not, as half of the clients do it; quoted or not.
fn decoded(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    let inner = value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\""));
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = inner.unwrap_or(value);
    let (mut is_encoded, mut is_latin) = (false, false);
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, byte, after.split_first()) {
            (b'%', Some(byte), _) => {
                is_encoded |= !byte.is_ascii();
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'\\', _, Some((escaped, behind))) if inner.is_some() => {
                bytes.push(*escaped);
                rest = behind;
            }
            _ => {
                is_latin |= !first.is_ascii();
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_or_else(
        // Some clients send the bytes of Latin-1 as they are.
        |error| {
            (is_latin && !is_encoded).then(|| error.as_bytes().iter().map(|byte| char::from(*byte)).collect())
        },
        Some,
    )
}
