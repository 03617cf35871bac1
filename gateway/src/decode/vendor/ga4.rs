//! Google Analytics 4: the Measurement Protocol (web streams and Firebase), its debug endpoint, and what `gtag` sends.
//!
//! **Invariant:** its events have no ids: one is derived from the bytes of the request and the event's place in it, so that a repeat of the
//! request is no second event.

use std::borrow::Cow;

use http::StatusCode;
use schemas::json::{Kind, Member, Tape};
use schemas::verdict::Code;
use serde::de::IgnoredAny;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::draft::{Draft, Object, quoted};
use super::{Action, Adapter, Answer, Batch, Call, Item, Reply, Told, spec};
use crate::authenticate::Credential;
use crate::decode::native::instant;
use crate::error::RequestError;
use crate::route::hex;

const POST: &str = "POST, OPTIONS";
const BOTH: &str = "POST, GET, OPTIONS";

const LOST: &str = "There is nothing here. GA4's and Firebase's events go to POST /mp/collect?api_secret=…, POST /debug/mp/collect, and from \
    pages to /g/collect?v=2&tid=….";

/// Bytes of a hash that stand in an id.
const HASHED_BYTES: usize = 16;
/// Most items of a hit.
const MAX_ITEMS: usize = 200;

pub(super) const ADAPTER: Adapter = Adapter {
    name: "ga4",
    endpoints: &[(POST, "/mp/collect"), (POST, "/debug/mp/collect"), (BOTH, "/g/collect")],
    strays: &[("/mp/{*rest}", LOST), ("/debug/mp/{*rest}", LOST), ("/g/{*rest}", LOST)],
    claims: |_| true,
    decode,
    refuse,
};

fn decode(call: &Call<'_>) -> Result<Action, RequestError> {
    let seed = digest(&[call.uri.query().unwrap_or_default().as_bytes(), call.body]);
    let is_page = call.path() == "/g/collect";
    let name = if is_page { "tid" } else { "api_secret" };
    let credentials = call.parameter(name).as_deref().map(Credential::in_query).into_iter().collect();
    let items = if is_page { hits(call, &seed)? } else { payload(call, &seed)? };
    let is_debug = call.path() == "/debug/mp/collect";
    let answer: Answer = Box::new(move |told| answer(told, is_debug));
    Ok(Action::Take(Batch { credentials, items, answer }))
}

/// A name for bytes, where a vendor's events have no ids.
pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            hash.update([0]);
        }
        hash.update(part);
    }
    hex(hash.finalize().get(..HASHED_BYTES).unwrap_or_default())
}

fn answer(told: &Told<'_>, is_debug: bool) -> Reply {
    if let Some(status) = told.again() {
        return Reply::json(status, &json!({"validationMessages": []}));
    }
    if is_debug || told.all_refused() {
        let status = if is_debug { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        return Reply::json(status, &json!({"validationMessages": messages(told)}));
    }
    Reply::text(StatusCode::NO_CONTENT, "")
}

/// Refusals as the debug endpoint words them.
fn messages(told: &Told<'_>) -> Vec<serde_json::Value> {
    let refused = told.refused().filter_map(|(index, verdict)| Some((index, verdict.reason.as_ref()?)));
    let said = refused.map(|(index, reason)| {
        let pointer = reason.pointer.as_deref().unwrap_or_default();
        let expected = reason.expected.as_deref().unwrap_or("something else");
        json!({
            "fieldPath": format!("events[{index}]{}", pointer.replacen("/metadata", "/params", 1).replace('/', ".")),
            "description": format!("{}: expected {expected}", reason.code.as_str()),
            "validationCode": "VALUE_INVALID",
        })
    });
    said.collect()
}

fn refuse(_: &Call<'_>, error: &RequestError, _: &Told<'_>) -> Reply {
    let message = json!({"fieldPath": "", "description": error.message, "validationCode": "VALUE_INVALID"});
    Reply::json(error.status(), &json!({"validationMessages": [message]}))
}

/// The Measurement Protocol's body: who, and up to 25 events.
fn payload(call: &Call<'_>, seed: &str) -> Result<Vec<Item>, RequestError> {
    let (events, envelope) = spec::split(call, "events")?;
    if envelope.is_empty() {
        return Err(RequestError::new(Code::BodySyntax, "Send {\"client_id\":…,\"events\":[…]}."));
    }
    let mut tape = Tape::default();
    let items = events.iter().enumerate().map(|(place, event)| {
        let Ok(scanned) = tape.object(event, call.limits) else { return Item::Broken(event.to_vec()) };
        let name = spec::child(&scanned, "name").and_then(|name| name.string());
        let mut draft = Draft::new(name.as_deref().filter(|name| !name.is_empty()));
        draft.id(&format!("ga4:{seed}:{place}"));
        let mut context = Object::default();
        common(call, &envelope, &mut draft, &mut context);
        let own = spec::child(&scanned, "timestamp_micros").map(|time| time.member());
        let time = own.as_ref().or_else(|| member(&envelope, "timestamp_micros"));
        if let Some(time) = time.filter(|time| instant(time).is_some()) {
            draft.timestamp(time);
        }
        let params = spec::child(&scanned, "params").filter(|params| params.kind() == Kind::Object);
        draft.member("metadata", params.as_ref().map_or("{}", |params| params.raw()));
        if let Some(session) = params.as_ref().and_then(|params| spec::child(params, "session_id")) {
            match session.kind() {
                Kind::String => draft.member("session_id", session.raw()),
                Kind::Number => draft.member("session_id", &quoted(session.raw())),
                _ => {}
            }
        }
        draft.context(context);
        Item::Event(draft)
    });
    Ok(items.collect())
}

/// What the events of a payload have in common.
fn common<'e>(call: &Call<'_>, envelope: &'e [Member<'e>], draft: &mut Draft, context: &mut Object<'e>) {
    context.text("vendor", ADAPTER.name);
    for name in ["measurement_id", "firebase_app_id"] {
        if let Some(stream) = call.parameter(name) {
            context.text(name, &stream);
        }
    }
    let mut device = None;
    for member in envelope.iter().filter(|member| member.kind != Kind::Null) {
        let raw = std::str::from_utf8(member.value).unwrap_or("null");
        match &*member.name {
            "user_id" => draft.user(member),
            "client_id" | "app_instance_id" => device = device.or(Some(member)),
            "ip_override" => draft.ip(&member.str().unwrap_or_default()),
            "consent" => consent(raw, draft, context),
            "timestamp_micros" | "validation_behavior" => {}
            _ => context.raw(member.name.clone(), raw),
        }
    }
    if let Some(device) = device {
        draft.anonymous(device);
    }
}

/// `GRANTED` and `DENIED` by purpose.
fn consent(raw: &str, draft: &mut Draft, context: &mut Object<'_>) {
    let Ok(serde_json::Value::Object(purposes)) = serde_json::from_str(raw) else {
        context.raw("consent", raw);
        return;
    };
    let mut granted = Object::default();
    for (purpose, said) in &purposes {
        let said = said.as_str().is_some_and(|said| said.eq_ignore_ascii_case("granted"));
        granted.raw(purpose.as_str(), if said { "true" } else { "false" });
    }
    if let Some(granted) = granted.end() {
        draft.member("consent", &granted);
    }
}

fn member<'e>(envelope: &'e [Member<'e>], name: &str) -> Option<&'e Member<'e>> {
    envelope.iter().find(|member| member.name == name)
}

type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// What `gtag` sends: the query has what all hits share, a body has a hit a line.
fn hits(call: &Call<'_>, seed: &str) -> Result<Vec<Item>, RequestError> {
    let shared: Pairs<'_> = form_urlencoded::parse(call.uri.query().unwrap_or_default().as_bytes()).collect();
    let lines: Vec<&[u8]> = schemas::json::lines(call.body).take(call.max_events.saturating_add(1)).collect();
    if lines.len() > call.max_events {
        return Err(RequestError::new(Code::BatchTooManyEvents, "Too many hits in one body; send several."));
    }
    let alone: &[&[u8]] = &[b""];
    let lines = if lines.is_empty() { alone } else { &lines };
    let hit = |(place, line): (usize, &&[u8])| {
        let mut pairs: Pairs<'_> = form_urlencoded::parse(line).collect();
        pairs.extend(shared.iter().cloned());
        Item::Event(hit(&pairs, &format!("ga4:{seed}:{place}")))
    };
    Ok(lines.iter().enumerate().map(hit).collect())
}

fn hit(pairs: &Pairs<'_>, id: &str) -> Draft {
    let get = |wanted: &str| {
        pairs.iter().find(|(name, value)| name == wanted && !value.is_empty()).map(|(_, value)| &**value)
    };
    let mut draft = Draft::new(get("en"));
    draft.id(id);
    if let Some(user) = get("uid") {
        draft.user_text(user);
    }
    if let Some(device) = get("cid") {
        draft.anonymous_text(device);
    }
    if let Some(session) = get("sid") {
        draft.member("session_id", &quoted(session));
    }
    let (mut metadata, mut user, mut items) = (Object::default(), Object::default(), Vec::new());
    for (name, value) in pairs {
        let number = || {
            if serde_json::from_str::<serde_json::Number>(value).is_ok() {
                value.to_string()
            } else {
                quoted(value)
            }
        };
        match name.split_once('.') {
            Some(("ep", name)) => metadata.text(name, value),
            Some(("epn", name)) => metadata.raw(name, &number()),
            Some(("up", name)) => user.text(name, value),
            Some(("upn", name)) => user.raw(name, &number()),
            _ if name == "_et" => metadata.raw("engagement_time_msec", &number()),
            _ if name == "cu" => metadata.text("currency", value),
            _ if items.len() < MAX_ITEMS && is_item(name) => items.push(item(value)),
            _ => {}
        }
    }
    if !items.is_empty() {
        metadata.raw("items", &format!("[{}]", items.join(",")));
    }
    draft.member("metadata", metadata.end().as_deref().unwrap_or("{}"));
    if let Some(purposes) = get("gcs").and_then(|signal| signal.strip_prefix("G1")) {
        let mut granted = Object::default();
        for (purpose, signal) in ["ad_storage", "analytics_storage"].into_iter().zip(purposes.chars()) {
            if matches!(signal, '0' | '1') {
                granted.raw(purpose, if signal == '1' { "true" } else { "false" });
            }
        }
        if let Some(granted) = granted.end() {
            draft.member("consent", &granted);
        }
    }
    draft.context(around(&get, user));
    draft
}

/// The page and device of a hit.
fn around<'p>(get: &dyn Fn(&str) -> Option<&'p str>, user: Object<'_>) -> Object<'static> {
    let mut context = Object::default();
    context.text("vendor", ADAPTER.name);
    let mut page = Object::default();
    for (name, parameter) in [("url", "dl"), ("title", "dt"), ("referrer", "dr")] {
        if let Some(value) = get(parameter) {
            page.text(name, value);
        }
    }
    if let Some(page) = page.end() {
        context.raw("page", &page);
    }
    let size = get("sr").and_then(|size| size.split_once('x'));
    let size =
        size.and_then(|(width, height)| Some((width.parse::<u32>().ok()?, height.parse::<u32>().ok()?)));
    if let Some((width, height)) = size {
        context.raw("screen", &format!("{{\"width\":{width},\"height\":{height}}}"));
    }
    for (name, parameter) in [("locale", "ul"), ("measurement_id", "tid")] {
        if let Some(value) = get(parameter) {
            context.text(name, value);
        }
    }
    if let Some(user) = user.end() {
        context.raw("user_properties", &user);
    }
    context
}

/// `pr1` to `pr200`.
fn is_item(name: &str) -> bool {
    name.strip_prefix("pr")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `idA1~nmShirt~pr9.99~qt2`.
fn item(text: &str) -> String {
    const NAMES: &[(&str, &str)] = &[
        ("id", "item_id"),
        ("nm", "item_name"),
        ("br", "item_brand"),
        ("ca", "item_category"),
        ("c2", "item_category2"),
        ("c3", "item_category3"),
        ("c4", "item_category4"),
        ("c5", "item_category5"),
        ("va", "item_variant"),
        ("ln", "item_list_name"),
        ("li", "item_list_id"),
        ("lp", "index"),
        ("pr", "price"),
        ("qt", "quantity"),
        ("ds", "discount"),
        ("cp", "coupon"),
        ("af", "affiliation"),
        ("lo", "location_id"),
    ];
    const NUMBERS: &[&str] = &["price", "quantity", "discount", "index"];
    let mut item = Object::default();
    for part in text.split('~') {
        let Some((short, value)) = part.split_at_checked(2) else { continue };
        let Some((_, name)) = NAMES.iter().find(|(known, _)| *known == short) else { continue };
        if NUMBERS.contains(name)
            && serde_json::from_str::<IgnoredAny>(value).is_ok()
            && value.parse::<f64>().is_ok()
        {
            item.raw(*name, value.trim());
        } else {
            item.text(*name, value);
        }
    }
    item.end().unwrap_or_else(|| "{}".to_owned())
}
