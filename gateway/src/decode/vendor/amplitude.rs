//! Amplitude: HTTP API V2, its batches, the older form endpoints, and what its older phone clients send to `/`.
//!
//! **Invariant:** 400 names the events that will never be taken, by their places; what else was in the request is taken, and has an
//! id by which its repeat is seen.

use http::StatusCode;
use schemas::event::somebody;
use schemas::json::{self, Body, Kind, Scanned, Tape};
use schemas::time::Timestamp;
use schemas::verdict::{Code, Reason, Status};
use serde_json::{Map, Value, json};

use super::around::{Places, grouped, is_placed};
use super::draft::{Draft, Object, quoted};
use super::ga4::digest;
use super::{Action, Adapter, Answer, Batch, Call, Item, Reply, Told, spec};
use crate::authenticate::Credential;
use crate::error::RequestError;

const POST: &str = "POST, OPTIONS";
const BOTH: &str = "POST, GET, OPTIONS";

pub(super) const ADAPTER: Adapter = Adapter {
    name: "amplitude",
    endpoints: &[
        (POST, "/2/httpapi"),
        (POST, "/batch"),
        (BOTH, "/httpapi"),
        (BOTH, "/identify"),
        (BOTH, "/groupidentify"),
        (POST, "/"),
    ],
    strays: &[
        ("/2/{*rest}", "There is nothing here. Amplitude's clients send to POST /2/httpapi, or POST /batch."),
        ("/batch/{*rest}", "There is nothing here. Amplitude's clients send batches to POST /batch."),
    ],
    claims,
    decode,
    refuse,
};

/// Of the paths that others have too, it has what bears its marks.
fn claims(call: &Call<'_>) -> bool {
    match call.path() {
        "/batch" => {
            matches!(json::split_by(call.body, "events", call.max_events), Ok(Body::Many { envelope, .. }) if !envelope.is_empty())
        }
        "" => form_urlencoded::parse(call.body).any(|(name, _)| name == "client"),
        _ => true,
    }
}

/// Members that have a place of their own in our event, or say only how it is sent.
const PLACED: &[&str] = &[
    "event_type",
    "user_id",
    "device_id",
    "insert_id",
    "uuid",
    "time",
    "timestamp",
    "event_properties",
    "user_properties",
    "group_properties",
    "session_id",
    "ip",
    "library",
    "api_key",
    "options",
    "group_type",
    "group_value",
    "price",
    "quantity",
    "revenue",
    "productId",
    "product_id",
    "revenueType",
    "revenue_type",
    "currency",
];

/// What belongs to a sale stands beside the properties.
const SALE: &[&str] =
    &["price", "quantity", "revenue", "productId", "product_id", "revenueType", "revenue_type", "currency"];

const AROUND: Places = &[
    ("os_name", "os", "name"),
    ("os_version", "os", "version"),
    ("device_brand", "device", "brand"),
    ("device_manufacturer", "device", "manufacturer"),
    ("device_model", "device", "model"),
    ("device_type", "device", "type"),
    ("idfa", "device", "idfa"),
    ("idfv", "device", "idfv"),
    ("adid", "device", "adid"),
    ("android_id", "device", "android_id"),
    ("app_version", "app", "version"),
    ("version_name", "app", "version"),
    ("carrier", "network", "carrier"),
    ("country", "location", "country"),
    ("region", "location", "region"),
    ("city", "location", "city"),
    ("dma", "location", "dma"),
    ("location_lat", "location", "latitude"),
    ("location_lng", "location", "longitude"),
];

fn decode(call: &Call<'_>) -> Result<Action, RequestError> {
    let sent = Sent::read(call)?;
    let named = match call.path() {
        "/identify" => Some("$identify"),
        "/groupidentify" => Some("$groupidentify"),
        _ => None,
    };
    let mut tape = Tape::default();
    let items =
        sent.events.iter().map(|event| item(call, event, named, sent.uploaded_at, &mut tape)).collect();
    let size = call.body.len();
    let is_plain = is_plain(call);
    let answer: Answer = Box::new(move |told| answer(told, size, is_plain));
    Ok(Action::Take(Batch { credentials: sent.credentials, items, answer }))
}

/// The endpoints that answer in text.
fn is_plain(call: &Call<'_>) -> bool {
    matches!(call.path(), "/httpapi" | "/identify" | "/groupidentify" | "")
}

struct Sent {
    credentials: Vec<Credential>,
    events: Vec<Vec<u8>>,
    uploaded_at: Option<Timestamp>,
}

impl Sent {
    fn read(call: &Call<'_>) -> Result<Self, RequestError> {
        let body = call.body.trim_ascii();
        if body.starts_with(b"{") || body.starts_with(b"[") || !is_plain(call) {
            return Self::json(call);
        }
        let in_query: Vec<_> =
            form_urlencoded::parse(call.uri.query().unwrap_or_default().as_bytes()).collect();
        let in_body: Vec<_> = form_urlencoded::parse(body).collect();
        let find = |pairs: &[(std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)], names: &[&str]| {
            pairs.iter().find(|(name, _)| names.contains(&&**name)).map(|(_, value)| value.to_string())
        };
        let keys = ["api_key", "client"];
        let mut credentials: Vec<Credential> =
            find(&in_body, &keys).as_deref().map(Credential::in_body).into_iter().collect();
        credentials.extend(find(&in_query, &keys).as_deref().map(Credential::in_query));
        let names = ["event", "e", "identification", "events"];
        let Some(text) = find(&in_body, &names).or_else(|| find(&in_query, &names)) else {
            return Err(RequestError::new(Code::BodyEmpty, "missing_event"));
        };
        let events = match json::split(text.as_bytes(), call.max_events)? {
            Body::One(event) => vec![event.to_vec()],
            Body::Many { events, .. } => events.into_iter().map(<[u8]>::to_vec).collect(),
        };
        let uploaded_at = find(&in_body, &["upload_time"]).and_then(|at| Timestamp::parse(&at));
        Ok(Self { credentials, events, uploaded_at })
    }

    fn json(call: &Call<'_>) -> Result<Self, RequestError> {
        let array = if call.path() == "/identify" || call.path() == "/groupidentify" {
            "identification"
        } else {
            "events"
        };
        let (events, envelope) = spec::split(call, array)?;
        let key = spec::envelope_text(&envelope, "api_key");
        let mut credentials: Vec<Credential> = key.as_deref().map(Credential::in_body).into_iter().collect();
        credentials.extend(call.parameter("api_key").as_deref().map(Credential::in_query));
        if envelope.is_empty() {
            // One event that is no array, beside the key.
            let mut tape = Tape::default();
            let whole = events.first().and_then(|whole| tape.object(whole, call.limits).ok());
            let Some(whole) = whole else {
                return Err(RequestError::new(Code::BodySyntax, "Invalid JSON request body"));
            };
            let key = spec::child(&whole, "api_key").and_then(|key| key.string());
            credentials.extend(key.as_deref().map(Credential::in_body));
            let one = spec::child(&whole, array).filter(|event| event.kind() == Kind::Object);
            let Some(one) = one else {
                return Err(RequestError::new(
                    Code::BodyEmpty,
                    format!("Request missing required field: `{array}`"),
                ));
            };
            return Ok(Self { credentials, events: vec![one.raw().as_bytes().to_vec()], uploaded_at: None });
        }
        let uploaded_at = spec::envelope_instant(&envelope, "client_upload_time");
        Ok(Self { credentials, events: events.into_iter().map(<[u8]>::to_vec).collect(), uploaded_at })
    }
}

fn item(call: &Call<'_>, event: &[u8], named: Option<&str>, at: Option<Timestamp>, tape: &mut Tape) -> Item {
    match tape.object(event, call.limits) {
        Ok(scanned) => Item::Event(draft(&scanned, named, at)),
        Err(_) => Item::Broken(event.to_vec()),
    }
}

fn draft(event: &Scanned<'_>, named: Option<&str>, uploaded_at: Option<Timestamp>) -> Draft {
    let get = |name: &str| spec::child(event, name);
    let own = get("event_type").and_then(|name| name.string()).filter(|name| !name.is_empty());
    let event_type = own.as_deref().or(named);
    let mut draft = Draft::new(event_type);
    let mut context = Object::default();
    context.text("vendor", ADAPTER.name);
    let time = get("time").or_else(|| get("timestamp"));
    if let Some(time) = &time {
        if draft.timestamp(&time.member()) {
            if let Some(at) = uploaded_at {
                draft.sent_roughly_at(at);
            }
        } else {
            context.raw("time", time.raw());
        }
    }
    let id = get("insert_id").or_else(|| get("uuid")).and_then(|id| somebody(&id.member()));
    match (id, time) {
        (Some(id), _) => draft.id(&id),
        // With its time it is itself: the vendor asks who has no ids to send again what was refused in part.
        (None, Some(_)) => draft.id(&format!("amplitude:{}", digest(&[event.raw().as_bytes()]))),
        (None, None) => {}
    }
    if let Some(user) = get("user_id") {
        draft.user(&user.member());
    }
    if let Some(device) = get("device_id") {
        draft.anonymous(&device.member());
    }
    if let Some(session) = get("session_id").filter(|session| session.raw() != "-1") {
        match session.kind() {
            Kind::Number => draft.member("session_id", &quoted(session.raw())),
            Kind::String => draft.member("session_id", session.raw()),
            _ => {}
        }
    }
    if let Some(ip) = get("ip").and_then(|ip| ip.string()) {
        draft.ip(&ip);
    }
    what(event, event_type.unwrap_or_default(), &mut draft, &mut context);
    around(event, &mut context);
    draft.context(context);
    draft
}

/// `metadata`: the properties of what happened, of the person for `$identify`, of the group for `$groupidentify`.
fn what<'e>(event: &Scanned<'e>, event_type: &str, draft: &mut Draft, context: &mut Object<'e>) {
    let about = match event_type {
        "$identify" => "user_properties",
        "$groupidentify" => "group_properties",
        _ => "event_properties",
    };
    let mut metadata = Object::default();
    for name in ["event_properties", "user_properties", "group_properties"] {
        let Some(object) = spec::child(event, name) else { continue };
        if name == about && object.kind() == Kind::Object {
            metadata.all(&object);
        } else if object.kind() != Kind::Object || !object.is_empty() {
            context.raw(name, object.raw());
        }
    }
    for name in SALE {
        if let Some(value) = spec::child(event, name) {
            metadata.raw(*name, value.raw());
        }
    }
    draft.member("metadata", metadata.end().as_deref().unwrap_or("{}"));
}

fn around<'e>(event: &Scanned<'e>, context: &mut Object<'e>) {
    match spec::child(event, "library") {
        Some(library) if library.kind() == Kind::String => {
            let text = library.string().unwrap_or_default();
            let (name, version) = text.split_once('/').unwrap_or((&text, ""));
            let mut library = Object::default();
            library.text("name", name);
            if !version.is_empty() {
                library.text("version", version);
            }
            context.raw("library", library.end().as_deref().unwrap_or("{}"));
        }
        Some(library) => context.raw("library", library.raw()),
        None => {}
    }
    grouped(context, AROUND, |name| spec::child(event, name));
    let group = ["group_type", "group_value"].map(|name| spec::child(event, name));
    if let [Some(of), Some(value)] = group
        && let Some(of) = of.string()
    {
        let mut groups = Object::default();
        groups.raw(of, value.raw());
        context.raw("groups", groups.end().as_deref().unwrap_or("{}"));
    }
    for member in event.children().filter(|member| member.kind() != Kind::Null) {
        let name = member.name();
        let is_empty = matches!(member.kind(), Kind::Object | Kind::Array) && member.is_empty();
        if is_empty || PLACED.contains(&&*name) || is_placed(AROUND, &name) {
            continue;
        }
        context.raw(if name == "language" { "locale".into() } else { name }, member.raw());
    }
}

fn answer(told: &Told<'_>, size: usize, is_plain: bool) -> Reply {
    if let Some(status) = told.again() {
        return again(told, status, is_plain);
    }
    if is_plain {
        return match told.first_refusal() {
            None => Reply::text(StatusCode::OK, "success"),
            Some(refusal) => Reply::text(StatusCode::BAD_REQUEST, &format!("invalid_event: {refusal}")),
        };
    }
    let Some(first) = told.first_refusal() else {
        let body = json!({
            "code": 200,
            "events_ingested": told.verdicts.len(),
            "payload_size_bytes": size,
            "server_upload_time": told.now.as_millis(),
        });
        return Reply::json(StatusCode::OK, &body);
    };
    let (mut missing, mut invalid, mut silenced) = (Map::new(), Map::new(), Vec::new());
    for (index, verdict) in told.refused() {
        let Some(reason) = &verdict.reason else {
            silenced.push(json!(index));
            continue;
        };
        let is_missing = matches!(reason.code, Code::EventFieldMissing | Code::IdentityMissing);
        let fields = if is_missing { &mut missing } else { &mut invalid };
        let places = fields.entry(field(reason)).or_insert_with(|| json!([]));
        if let Value::Array(places) = places {
            places.push(json!(index));
        }
    }
    let body = json!({
        "code": 400,
        "error": format!("Some events were refused: {first}"),
        "missing_field": null,
        "events_with_invalid_fields": invalid,
        "events_with_missing_fields": missing,
        "events_with_invalid_id_lengths": {},
        "silenced_events": silenced,
    });
    Reply::json(StatusCode::BAD_REQUEST, &body)
}

/// Our place in Amplitude's words.
fn field(reason: &Reason) -> String {
    match reason.pointer.as_deref().unwrap_or_default() {
        "" | "/" => "event".to_owned(),
        "/timestamp" => "time".to_owned(),
        "/event_id" => "insert_id".to_owned(),
        "/anonymous_id" => "device_id".to_owned(),
        other => {
            other.replacen("/metadata", "/event_properties", 1).trim_start_matches('/').replace('/', ".")
        }
    }
}

fn again(told: &Told<'_>, status: StatusCode, is_plain: bool) -> Reply {
    if is_plain {
        return Reply::text(status, "exceeded_capacity");
    }
    if status != StatusCode::TOO_MANY_REQUESTS {
        return Reply::json(
            status,
            &json!({"code": status.as_u16(), "error": "Service unavailable; send all of it again."}),
        );
    }
    let retried = told.verdicts.iter().enumerate().filter(|(_, verdict)| verdict.status == Status::Retry);
    let places: Vec<usize> = retried.map(|(index, _)| index).collect();
    throttled(&places)
}

/// Who is throttled is told by the places of the events: our limits are those of keys, not of people.
fn throttled(places: &[usize]) -> Reply {
    let body = json!({
        "code": 429,
        "error": "Too many requests; send all of it again after the time in Retry-After.",
        "eps_threshold": 0,
        "throttled_devices": {},
        "throttled_users": {},
        "throttled_events": places,
        "exceeded_daily_quota_devices": {},
        "exceeded_daily_quota_users": {},
    });
    Reply::json(StatusCode::TOO_MANY_REQUESTS, &body)
}

fn refuse(call: &Call<'_>, error: &RequestError, _: &Told<'_>) -> Reply {
    // The vendor says 400 where a key is wrong; its clients look for these words.
    let (status, message, missing) = match (error.status(), error.code) {
        (_, Code::KeyMissing) => {
            (StatusCode::BAD_REQUEST, "Request missing required field".to_owned(), Some("api_key"))
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            (StatusCode::BAD_REQUEST, format!("Invalid API key: {}", error.message), None)
        }
        (StatusCode::TOO_MANY_REQUESTS, _) if !is_plain(call) => return throttled(&[]),
        (status, _) => (status, error.message.to_string(), None),
    };
    if is_plain(call) {
        let is_key = missing.is_some() || message.starts_with("Invalid API key");
        return Reply::text(status, if is_key { "invalid_api_key" } else { &message });
    }
    Reply::json(status, &json!({"code": status.as_u16(), "error": message, "missing_field": missing}))
}
