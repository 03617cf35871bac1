//! One of `PostHog`'s events in our form.
//!
//! **Invariant:** who was not identified is a device; `properties` are handed on as they are, but for the key and the address.

use std::borrow::Cow;

use schemas::event::somebody;
use schemas::json::{Kind, Scanned, Tape};
use schemas::time::Timestamp;

use super::super::draft::{Draft, Object, quoted};
use super::super::{Call, Item, spec};
use crate::decode::native::instant;

/// What holds for all events of a request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) sent_at: Option<Timestamp>,
    /// Name and version of the sender, where no event says it.
    pub(super) library: Option<(String, String)>,
}

/// Properties that have a place in our common `context`: the member there, the name in it, the property.
const AROUND: &[(&str, &[(&str, &str)])] = &[
    (
        "page",
        &[("url", "$current_url"), ("path", "$pathname"), ("title", "title"), ("referrer", "$referrer")],
    ),
    (
        "campaign",
        &[
            ("source", "utm_source"),
            ("medium", "utm_medium"),
            ("name", "utm_campaign"),
            ("term", "utm_term"),
            ("content", "utm_content"),
        ],
    ),
    ("library", &[("name", "$lib"), ("version", "$lib_version")]),
    ("os", &[("name", "$os"), ("name", "$os_name"), ("version", "$os_version")]),
    ("browser", &[("name", "$browser"), ("version", "$browser_version")]),
    (
        "device",
        &[
            ("type", "$device_type"),
            ("model", "$device_model"),
            ("manufacturer", "$device_manufacturer"),
            ("name", "$device_name"),
        ],
    ),
    (
        "app",
        &[
            ("name", "$app_name"),
            ("version", "$app_version"),
            ("build", "$app_build"),
            ("namespace", "$app_namespace"),
        ],
    ),
    ("screen", &[("width", "$screen_width"), ("height", "$screen_height")]),
    (
        "network",
        &[("carrier", "$network_carrier"), ("wifi", "$network_wifi"), ("cellular", "$network_cellular")],
    ),
];

/// The same where the member is no object.
const PLAIN: &[(&str, &str)] = &[
    ("user_agent", "$raw_user_agent"),
    ("user_agent", "$useragent"),
    ("locale", "$locale"),
    ("locale", "$browser_language"),
    ("timezone", "$timezone"),
    ("groups", "$groups"),
    ("group_id", "$group_key"),
];

/// Calls that say that two ids are of one person.
const ALIASES: &[&str] = &["$create_alias", "$merge_dangerously"];

/// An event and its `uuid`.
pub(super) fn item(
    call: &Call<'_>,
    bytes: &[u8],
    request: &Request,
    tape: &mut Tape,
) -> (Item, Option<String>) {
    let Ok(scanned) = tape.object(bytes, call.limits) else { return (Item::Broken(bytes.to_vec()), None) };
    let event = Event::new(scanned);
    let name = event.text("event");
    let mut draft = Draft::new(name.as_deref());
    let id = event
        .text("uuid")
        .or_else(|| event.anywhere("$insert_id")?.string())
        .or_else(|| event.text("messageId"));
    draft.id(id.as_deref().unwrap_or_default());
    let name = name.as_deref().unwrap_or_default();
    who(&event, name, &mut draft);
    when(&event, request, &mut draft);
    draft.member("metadata", &what(&event, name));
    around(&event, request, &mut draft);
    (Item::Event(draft), id.map(Cow::into_owned))
}

struct Event<'e> {
    whole: Scanned<'e>,
    /// Members of `properties` that are not `null`, by name.
    properties: Vec<(Cow<'e, str>, Scanned<'e>)>,
}

impl<'e> Event<'e> {
    fn new(whole: Scanned<'e>) -> Self {
        let properties = spec::child(&whole, "properties").filter(|value| value.kind() == Kind::Object);
        let members = properties.iter().flat_map(Scanned::children);
        let known = members.filter(|member| member.kind() != Kind::Null);
        Self { whole, properties: known.map(|member| (member.name(), member)).collect() }
    }

    fn text(&self, name: &str) -> Option<Cow<'e, str>> {
        spec::child(&self.whole, name)?.string().filter(|text| !text.trim().is_empty())
    }

    fn property(&self, name: &str) -> Option<Scanned<'e>> {
        self.properties.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Beside the properties, or among them.
    fn anywhere(&self, name: &str) -> Option<Scanned<'e>> {
        spec::child(&self.whole, name).or_else(|| self.property(name))
    }

    /// A switch among the properties, or among the options that version 1 has for some of them.
    fn switch(&self, name: &str) -> Option<bool> {
        let option = || spec::child(&spec::child(&self.whole, "options")?, name.strip_prefix('$')?);
        match self.property(name).or_else(option)?.raw() {
            "true" | "\"true\"" => Some(true),
            "false" | "\"false\"" => Some(false),
            _ => None,
        }
    }
}

fn who(event: &Event<'_>, name: &str, draft: &mut Draft) {
    let id = event.anywhere("distinct_id").or_else(|| event.anywhere("$distinct_id"));
    let device = event.anywhere("$device_id");
    let joins = name == "$identify" || ALIASES.contains(&name);
    let is_anonymous = !joins && is_anonymous(event, id.as_ref(), device.as_ref());
    if let Some(id) = &id
        && !is_anonymous
    {
        draft.user(&id.member());
    }
    let before =
        if ALIASES.contains(&name) { event.anywhere("alias") } else { event.anywhere("$anon_distinct_id") };
    let own = id.filter(|_| is_anonymous);
    // The first that means somebody.
    let is_told = [own, before, device].into_iter().flatten().any(|id| draft.anonymous(&id.member()));
    if let (false, Some(before)) = (is_told, before) {
        draft.no_device(&before.member());
    }
}

/// Whether an event's sender has not been identified.
fn is_anonymous(event: &Event<'_>, id: Option<&Scanned<'_>>, device: Option<&Scanned<'_>>) -> bool {
    if let Some(is_identified) = event.switch("$is_identified") {
        return !is_identified;
    }
    let is_device = id.zip(device).is_some_and(|(id, device)| {
        somebody(&id.member()).is_some_and(|id| somebody(&device.member()).is_some_and(|device| id == device))
    });
    is_device || event.switch("$process_person_profile") == Some(false)
}

fn when(event: &Event<'_>, request: &Request, draft: &mut Draft) {
    let time = spec::child(&event.whole, "timestamp").or_else(|| event.property("timestamp"));
    let has_time = time.is_some_and(|time| draft.timestamp(&time.member()));
    let is_final =
        ["$ignore_sent_at", "$disable_skew_correction"].iter().any(|name| event.switch(name) == Some(true));
    let own = ["sent_at", "sentAt"]
        .into_iter()
        .find_map(|name| instant(&spec::child(&event.whole, name)?.member()));
    if has_time {
        if let Some(at) = own.or(request.sent_at).filter(|_| !is_final) {
            draft.sent_at(at);
        }
    } else if let Some(offset) =
        spec::child(&event.whole, "offset").filter(|offset| offset.kind() == Kind::Number)
    {
        let whole = offset.raw().split('.').next().unwrap_or_default();
        draft.sent_after(whole.parse().unwrap_or_default());
    }
}

fn what(event: &Event<'_>, name: &str) -> String {
    let mut metadata = Object::default();
    if ALIASES.contains(&name)
        && let Some(alias) = event.anywhere("alias")
    {
        let digits = (alias.kind() == Kind::Number).then(|| quoted(alias.raw()));
        metadata.raw("previous_id", digits.as_deref().unwrap_or(alias.raw()));
    }
    let properties = spec::child(&event.whole, "properties").filter(|value| value.kind() == Kind::Object);
    for member in properties.iter().flat_map(Scanned::children) {
        let name = member.name();
        if !matches!(&*name, "token" | "$ip") {
            metadata.raw(name, member.raw());
        }
    }
    for name in ["$set", "$set_once", "$unset"] {
        if let Some(member) = spec::child(&event.whole, name) {
            metadata.raw(name, member.raw());
        }
    }
    metadata.end().unwrap_or_else(|| "{}".to_owned())
}

fn around(event: &Event<'_>, request: &Request, draft: &mut Draft) {
    let mut context = Object::default();
    context.text("vendor", super::ADAPTER.name);
    if let Some(ip) = event.anywhere("$ip").or_else(|| spec::child(&event.whole, "ip")) {
        draft.ip(&ip.string().unwrap_or_default());
    }
    if let Some(session) = spec::child(&event.whole, "session_id").or_else(|| event.property("$session_id")) {
        spec::session(&session, draft);
    }
    for (member, names) in AROUND {
        let mut object = Object::default();
        for (name, property) in *names {
            if let Some(value) = event.property(property) {
                object.raw(*name, value.raw());
            }
        }
        if let (&"library", Some((name, version))) = (member, &request.library) {
            object.text("name", name);
            object.text("version", version);
        }
        if let Some(object) = object.end() {
            context.raw(*member, &object);
        }
    }
    for (name, property) in PLAIN {
        if let Some(value) = event.property(property) {
            context.raw(*name, value.raw());
        }
    }
    group(event, &mut context);
    for name in ["window_id", "options"] {
        if let Some(value) = spec::child(&event.whole, name)
            && !(value.kind() == Kind::Object && value.is_empty())
        {
            context.raw(name, value.raw());
        }
    }
    draft.context(context);
}

/// The account: the only group, or the one that is called so.
fn group(event: &Event<'_>, context: &mut Object<'_>) {
    let Some(groups) = event.property("$groups").filter(|groups| groups.kind() == Kind::Object) else {
        return;
    };
    let known = ["company", "account", "organization"].iter().find_map(|name| spec::child(&groups, name));
    let only = groups.children().next().filter(|_| groups.len() == 1);
    if let Some(group) = known.or(only) {
        context.raw("group_id", group.raw());
    }
}
