//! Mixpanel: `/track`, `/engage`, `/groups`, `/import`, and `/record`, whose recordings of screens are thrown away.
//!
//! **Invariant:** `1`, or status 1, says that something was taken; what is refused for good never makes a client send again.

use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use schemas::json::{Kind, Scanned, Tape};
use schemas::verdict::Code;
use serde_json::{Value, json};

use super::around::{Places, grouped};
use super::draft::{Draft, Object};
use super::{Action, Adapter, Answer, Batch, Call, Item, Reply, Told, spec, text};
use crate::authenticate::Credential;
use crate::decode::native::{self, ContentType};
use crate::error::RequestError;

const BOTH: &str = "POST, GET, OPTIONS";
const POST: &str = "POST, OPTIONS";

const LOST: &str = "There is nothing here. Mixpanel's clients send to /track, /engage, /groups and /import.";

pub(super) const ADAPTER: Adapter = Adapter {
    name: "mixpanel",
    endpoints: &[
        (BOTH, "/track"),
        (BOTH, "/engage"),
        (BOTH, "/groups"),
        (BOTH, "/import"),
        (POST, "/record"),
    ],
    strays: &[
        ("/track/{*rest}", LOST),
        ("/engage/{*rest}", LOST),
        ("/groups/{*rest}", LOST),
        ("/import/{*rest}", LOST),
    ],
    // PostHog's clients have the same path and say their version.
    claims: |call| call.parameter("ver").is_none(),
    decode,
    refuse,
};

/// What an update of a profile can ask for.
const OPERATIONS: &[&str] =
    &["$set", "$set_once", "$add", "$append", "$union", "$remove", "$unset", "$delete", "$increment"];

/// Properties that have a place of their own in our event.
const PLACED: &[&str] =
    &["token", "distinct_id", "$device_id", "$user_id", "$insert_id", "time", "ip", "$ip"];

/// Where properties stand in `context` too.
const AROUND: Places = &[
    ("mp_lib", "library", "name"),
    ("$lib_version", "library", "version"),
    ("$current_url", "page", "url"),
    ("current_url_path", "page", "path"),
    ("current_page_title", "page", "title"),
    ("$referrer", "page", "referrer"),
    ("current_url_search", "page", "search"),
    ("utm_source", "campaign", "source"),
    ("utm_medium", "campaign", "medium"),
    ("utm_campaign", "campaign", "name"),
    ("utm_term", "campaign", "term"),
    ("utm_content", "campaign", "content"),
    ("$os", "os", "name"),
    ("$os_version", "os", "version"),
    ("$brand", "device", "brand"),
    ("$manufacturer", "device", "manufacturer"),
    ("$model", "device", "model"),
    ("$app_version_string", "app", "version"),
    ("$app_build_number", "app", "build"),
    ("$carrier", "network", "carrier"),
    ("$wifi", "network", "wifi"),
    ("$screen_width", "screen", "width"),
    ("$screen_height", "screen", "height"),
    ("$browser", "browser", "name"),
    ("$browser_version", "browser", "version"),
];

/// Properties that say what a member of a schema of ours says, by event: they stand there too, unless it is given.
const MEANT: &[(&str, &str, &str)] = &[("search", "q", "query")];

fn decode(call: &Call<'_>) -> Result<Action, RequestError> {
    if call.path() == "/record" {
        let mut credentials: Vec<Credential> = call.credential()?.into_iter().collect();
        credentials.extend(call.parameter("token").as_deref().map(Credential::in_query));
        let reply = Reply::json(StatusCode::OK, &json!({"code": 200, "status": "OK"}));
        return Ok(Action::Reply { credentials, reply });
    }
    let sent = Sent::read(call)?;
    let found = native::split(sent.data(call), ContentType::Json, call.max_events)?;
    let mut reader =
        Reader { call, token: None, insert_ids: Vec::new(), items: Vec::new(), tape: Tape::default() };
    for event in &found.events {
        reader.record(event);
    }
    if reader.items.len() > call.max_events {
        return Err(RequestError::new(
            Code::BatchTooManyEvents,
            "Too many updates in one body; send several.",
        ));
    }
    let Reader { token, insert_ids, items, .. } = reader;
    let mut credentials: Vec<Credential> = call.credential()?.into_iter().collect();
    for name in ["api_key", "token"] {
        credentials.extend(call.parameter(name).as_deref().map(Credential::in_query));
        credentials.extend(sent.field(name).map(Credential::in_body));
    }
    let token = token.as_deref().map(Credential::in_body);
    credentials.extend(token.map(|token| if sent.is_in_url { token.into_url() } else { token }));
    let answer = answer(call, &sent, insert_ids);
    Ok(Action::Take(Batch { credentials, items, answer }))
}

/// The fields of a form, and the events in whichever of them.
struct Sent {
    fields: Vec<(String, String)>,
    /// Of `data`, decoded; of other bodies nothing.
    data: Option<Vec<u8>>,
    /// It came in the address, where secret keys do not belong.
    is_in_url: bool,
}

impl Sent {
    fn read(call: &Call<'_>) -> Result<Self, RequestError> {
        let body = call.body.trim_ascii();
        if body.starts_with(b"{") || body.starts_with(b"[") {
            return Ok(Self { fields: Vec::new(), data: None, is_in_url: false });
        }
        let fields: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
        let mut sent = Self { fields, data: None, is_in_url: false };
        let in_body = sent.field("data").map(str::to_owned);
        sent.is_in_url = in_body.is_none();
        let Some(data) = in_body.or_else(|| call.parameter("data").map(std::borrow::Cow::into_owned)) else {
            return Err(RequestError::new(Code::BodyEmpty, "Send events as JSON, or in `data` of a form."));
        };
        let plain = data.trim();
        sent.data = Some(if plain.starts_with(['{', '[']) {
            data.into_bytes()
        } else {
            let unreadable =
                || RequestError::new(Code::BodySyntax, "`data` is neither JSON nor JSON in base64.");
            text::base64(&data).ok_or_else(unreadable)?
        });
        Ok(sent)
    }

    fn data<'s>(&'s self, call: &Call<'s>) -> &'s [u8] {
        self.data.as_deref().unwrap_or(call.body)
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that stands in the address or the form.
    fn says(&self, call: &Call<'_>, name: &str) -> Option<String> {
        call.parameter(name).map(std::borrow::Cow::into_owned).or_else(|| self.field(name).map(str::to_owned))
    }
}

/// Reads records into items.
struct Reader<'c> {
    call: &'c Call<'c>,
    /// The first that a record names.
    token: Option<String>,
    /// One a record, for the answers of `/import`.
    insert_ids: Vec<Option<String>>,
    items: Vec<Item>,
    tape: Tape,
}

impl Reader<'_> {
    fn record(&mut self, bytes: &[u8]) {
        let Ok(record) = self.tape.object(bytes, self.call.limits) else {
            self.insert_ids.push(None);
            self.items.push(Item::Broken(bytes.to_vec()));
            return;
        };
        let properties = spec::child(&record, "properties").filter(|value| value.kind() == Kind::Object);
        let about = properties.unwrap_or(record);
        let token = || ["token", "$token"].iter().find_map(|name| text_of(&about, name));
        self.token = self.token.take().or_else(token);
        self.insert_ids.push(text_of(&about, "$insert_id"));
        match self.call.path() {
            "/engage" => updates(&record, "people", &mut self.items),
            "/groups" => updates(&record, "group", &mut self.items),
            _ => self.items.push(Item::Event(event(&record, &about))),
        }
    }
}

/// Text or a number, as text.
fn text_of(object: &Scanned<'_>, name: &str) -> Option<String> {
    let value = spec::child(object, name)?;
    let digits = (value.kind() == Kind::Number).then(|| value.raw().to_owned());
    value.string().map(String::from).or(digits).filter(|text| !text.trim().is_empty())
}

fn event(record: &Scanned<'_>, properties: &Scanned<'_>) -> Draft {
    let name = spec::child(record, "event").and_then(|name| name.string());
    let mut draft = Draft::new(name.as_deref().filter(|name| !name.is_empty()));
    if let Some(id) = text_of(properties, "$insert_id") {
        draft.id(&id);
    }
    let previous = who(properties, name.as_deref().unwrap_or_default(), &mut draft);
    let mut metadata = Object::default();
    if let Some(time) = spec::child(properties, "time")
        && !draft.timestamp(&time.member())
    {
        metadata.raw("time", time.raw());
    }
    for member in properties.children().filter(|member| !PLACED.contains(&&*member.name())) {
        if properties.address() != record.address() || !matches!(&*member.name(), "event" | "properties") {
            metadata.raw(member.name(), member.raw());
        }
    }
    for (_, theirs, ours) in MEANT.iter().filter(|(event, ..)| Some(*event) == name.as_deref()) {
        if let Some(value) = spec::child(properties, theirs) {
            metadata.raw(*ours, value.raw());
        }
    }
    if let Some(previous) = previous {
        metadata.text("previous_id", &previous);
    }
    draft.member("metadata", metadata.end().as_deref().unwrap_or("{}"));
    address(properties, &mut draft);
    let mut context = Object::default();
    context.text("vendor", ADAPTER.name);
    grouped(&mut context, AROUND, |name| spec::child(properties, name));
    draft.context(context);
    draft
}

fn address(properties: &Scanned<'_>, draft: &mut Draft) {
    if let Some(ip) = ["ip", "$ip"].iter().find_map(|name| text_of(properties, name)) {
        draft.ip(&ip);
    }
}

/// The mark of ids that mean a device.
const DEVICE: &str = "$device:";

/// Who is meant; and for calls that say that two ids are one person, the id from before.
fn who(properties: &Scanned<'_>, name: &str, draft: &mut Draft) -> Option<String> {
    let get = |name: &str| text_of(properties, name);
    let plain = |id: String| id.strip_prefix(DEVICE).map(str::to_owned).unwrap_or(id);
    let (user, device, previous) = match name {
        "$create_alias" => {
            let previous = get("distinct_id").map(plain);
            (get("alias"), previous.clone(), previous)
        }
        "$merge" => {
            let ids = spec::child(properties, "$distinct_ids").filter(|ids| ids.kind() == Kind::Array);
            let ids: Vec<String> = ids
                .iter()
                .flat_map(Scanned::children)
                .take(2)
                .filter_map(|id| id.string().map(String::from))
                .collect();
            // The first was there before, unless the second says that it is a device.
            let mut ids = ids.into_iter();
            let (first, second) = (ids.next(), ids.next());
            let is_device = second.as_ref().is_some_and(|id| id.starts_with(DEVICE));
            let (user, previous) = if is_device { (first, second) } else { (second, first) };
            let previous = previous.map(plain);
            (user, previous.clone(), previous)
        }
        _ => {
            let device = get("$device_id").map(plain);
            let before = get("$anon_distinct_id").or_else(|| get("$anon_id")).map(plain);
            let is_identify = name == "$identify";
            let named = get("$user_id").or_else(|| get("$identified_id").filter(|_| is_identify));
            match (named, get("distinct_id").or_else(|| get("$distinct_id"))) {
                (Some(user), _) => (Some(user), device.or(before), None),
                (None, Some(id)) if id.starts_with(DEVICE) => (None, device.or(Some(plain(id))), None),
                (None, Some(id)) if !is_identify && device.as_ref() == Some(&id) => (None, device, None),
                (None, id) => (id, device.or(before), None),
            }
        }
    };
    if let Some(user) = &user {
        draft.user_text(user);
    }
    if let Some(device) = &device {
        draft.anonymous_text(device);
    }
    previous
}

/// An event for each operation of an update.
fn updates(record: &Scanned<'_>, of: &str, items: &mut Vec<Item>) {
    let operations: Vec<Scanned<'_>> =
        record.children().filter(|member| OPERATIONS.contains(&&*member.name())).collect();
    if operations.is_empty() {
        items.push(Item::Event(update(record, of, None)));
    }
    items.extend(operations.into_iter().map(|operation| Item::Event(update(record, of, Some(operation)))));
}

fn update(record: &Scanned<'_>, of: &str, operation: Option<Scanned<'_>>) -> Draft {
    let event_type = operation.map(|operation| format!("{of}:{}", operation.name()));
    let mut draft = Draft::new(event_type.as_deref());
    who(record, "", &mut draft);
    address(record, &mut draft);
    let mut context = Object::default();
    context.text("vendor", ADAPTER.name);
    if let Some(time) = spec::child(record, "$time")
        && !draft.timestamp(&time.member())
    {
        context.raw("$time", time.raw());
    }
    let mut metadata = Object::default();
    if let Some(operation) = operation {
        if operation.kind() == Kind::Object {
            metadata.all(&operation);
        } else {
            metadata.raw(operation.name(), operation.raw());
        }
    }
    draft.member("metadata", metadata.end().as_deref().unwrap_or("{}"));
    for (theirs, ours) in [("$group_id", "group_id"), ("$group_key", "group_key")] {
        if let Some(value) = spec::child(record, theirs) {
            context.raw(ours, value.raw());
        }
    }
    draft.context(context);
    draft
}

/// What a client asked to be told, and how.
struct Manner {
    is_verbose: bool,
    is_import: bool,
    wants_image: bool,
    redirect: Option<HeaderValue>,
}

impl Manner {
    fn of(call: &Call<'_>, says: impl Fn(&str) -> Option<String>, is_form: bool) -> Self {
        let is_set = |name| says(name).is_some_and(|value| value == "1" || value == "true");
        // Older clients import by a form, and look for what `/track` says.
        let is_import = call.path() == "/import" && !(is_form && says("verbose").is_some());
        let is_web = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        let redirect = says("redirect").filter(|url| is_web(url) && call.path() == "/track");
        Self {
            is_verbose: is_set("verbose"),
            is_import,
            wants_image: is_set("img"),
            redirect: redirect.and_then(|url| HeaderValue::try_from(url).ok()),
        }
    }

    /// `1` or `0`, or the same with a reason.
    fn said(&self, status: StatusCode, is_good: bool, error: Option<&str>) -> Reply {
        let sign = u8::from(is_good);
        let body = if self.is_verbose { json!({"status": sign, "error": error}) } else { json!(sign) };
        Reply::json(status, &body)
    }
}

fn answer(call: &Call<'_>, sent: &Sent, insert_ids: Vec<Option<String>>) -> Answer {
    let manner = Manner::of(call, |name| sent.says(call, name), sent.data.is_some());
    Box::new(move |told| {
        let first = told.first_refusal();
        if let Some(status) = told.again() {
            let error = "Not everything could be taken now; send all of it again later.";
            return if manner.is_import {
                failure(status, error)
            } else {
                manner.said(status, false, Some(error))
            };
        }
        if manner.is_import {
            return imported(told, &insert_ids);
        }
        if let Some(to) = manner.redirect {
            let mut reply = Reply::text(StatusCode::FOUND, "");
            reply.headers.push((LOCATION, to));
            return reply;
        }
        if manner.wants_image {
            return Reply::pixel();
        }
        manner.said(StatusCode::OK, !told.all_refused(), first.as_deref())
    })
}

/// The answer of `/import`, with what failed by its place.
fn imported(told: &Told<'_>, insert_ids: &[Option<String>]) -> Reply {
    let failed: Vec<Value> = told
        .refused()
        .map(|(index, verdict)| {
            let reason = verdict.reason.as_ref();
            let pointer = reason.and_then(|reason| reason.pointer.as_deref()).unwrap_or_default();
            let message = reason.map_or("refused".to_owned(), |reason| {
                let expected = reason.expected.as_deref().map(|what| format!(": expected {what}"));
                format!("{}{}", reason.code.as_str(), expected.unwrap_or_default())
            });
            let id = insert_ids.get(index).cloned().flatten().unwrap_or_default();
            json!({"index": index, "$insert_id": id, "field": field(pointer), "message": message})
        })
        .collect();
    let count = told.verdicts.len().saturating_sub(failed.len());
    if failed.is_empty() {
        return Reply::json(
            StatusCode::OK,
            &json!({"code": 200, "num_records_imported": count, "status": "OK"}),
        );
    }
    let body = json!({
        "code": 400,
        "error": "some data points in the request failed validation",
        "failed_records": failed,
        "num_records_imported": count,
        "status": "Bad Request",
    });
    Reply::json(StatusCode::BAD_REQUEST, &body)
}

/// Our place in Mixpanel's words.
fn field(pointer: &str) -> String {
    match pointer {
        "/event_type" => "event".to_owned(),
        "/timestamp" => "properties.time".to_owned(),
        "/event_id" => "properties.$insert_id".to_owned(),
        "/user_id" => "properties.distinct_id".to_owned(),
        "/anonymous_id" => "properties.$device_id".to_owned(),
        other => other.replacen("/metadata", "properties", 1).trim_start_matches('/').replace('/', "."),
    }
}

fn failure(status: StatusCode, error: &str) -> Reply {
    let reason = status.canonical_reason().unwrap_or("Error");
    Reply::json(status, &json!({"code": status.as_u16(), "error": error, "status": reason}))
}

fn refuse(call: &Call<'_>, error: &RequestError, _: &Told<'_>) -> Reply {
    let fields: Vec<(String, String)> = form_urlencoded::parse(call.body).into_owned().collect();
    let sent = Sent { fields, data: None, is_in_url: false };
    let is_form = call.parameter("data").is_some() || sent.field("data").is_some();
    let manner = Manner::of(call, |name| sent.says(call, name), is_form);
    if manner.is_import || call.path() == "/record" {
        return failure(error.status(), &error.message);
    }
    // Clients on phones send again whatever is no 200: what can never be read is said in the body alone.
    let is_final = matches!(error.status(), StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let status = if is_final { StatusCode::OK } else { error.status() };
    manner.said(status, false, Some(&error.message))
}
