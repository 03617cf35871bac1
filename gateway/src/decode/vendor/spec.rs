//! The event that Segment's, `RudderStack`'s and Jitsu's clients share: `type`, `event`, `userId`, `anonymousId`, `messageId`,
//! `properties` or `traits`, `context`.
//!
//! **Invariant:** every member of the vendor's event is in ours under a documented name, but for what tells only of the
//! transmission.

use std::borrow::Cow;

use schemas::event::somebody;
use schemas::json::{self, Body, Kind, Member, Scanned, Tape};
use schemas::time::Timestamp;

use super::draft::{Draft, Object, quoted};
use super::{Call, Item};
use crate::decode::native::instant;
use crate::error::RequestError;

/// Members that say how the event is sent, or that have a place of their own in ours.
const PLACED: &[&str] = &[
    "type",
    "event",
    "userId",
    "anonymousId",
    "messageId",
    "timestamp",
    "originalTimestamp",
    "sentAt",
    "properties",
    "traits",
    "context",
    "previousId",
    "groupId",
    "writeKey",
    "_metadata",
    "name",
    "category",
];

/// What differs between the vendors of the family, and what a whole request says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    /// As it stands in `context.vendor`.
    pub(crate) vendor: &'static str,
    /// An explicit `timestamp` is not corrected by the time of sending.
    pub(crate) timestamp_is_final: bool,
    /// The call that the path names, for events that do not say.
    pub(crate) call: Option<&'static str>,
    pub(crate) sent_at: Option<Timestamp>,
    /// The device that the request names, for events that name nobody.
    pub(crate) anonymous_id: Option<String>,
}

/// A body's events as their bytes, and what stands beside them.
pub(crate) fn split<'a>(
    call: &Call<'a>,
    array: &'static str,
) -> Result<(Vec<&'a [u8]>, Vec<Member<'a>>), RequestError> {
    match json::split_by(call.body, array, call.max_events)? {
        Body::One(event) => Ok((vec![event], Vec::new())),
        Body::Many { events, envelope } => Ok((events, envelope)),
    }
}

/// The text of an envelope's member.
pub(crate) fn envelope_text(envelope: &[Member<'_>], name: &str) -> Option<String> {
    envelope.iter().find(|member| member.name == name)?.text()
}

/// An envelope's time of sending.
pub(crate) fn envelope_instant(envelope: &[Member<'_>], name: &str) -> Option<Timestamp> {
    instant(envelope.iter().find(|member| member.name == name)?)
}

/// One event in our form.
pub(crate) fn item(call: &Call<'_>, event: &[u8], manner: &Manner, tape: &mut Tape) -> Item {
    match tape.object(event, call.limits) {
        Ok(scanned) => Item::Event(draft(&scanned, manner)),
        Err(_) => Item::Broken(event.to_vec()),
    }
}

/// The members of an event by name; `null` counts as absent.
struct Event<'e>(Scanned<'e>);

impl<'e> Event<'e> {
    fn get(&self, name: &str) -> Option<Scanned<'e>> {
        child(&self.0, name)
    }

    fn text(&self, name: &str) -> Option<Cow<'e, str>> {
        self.get(name)?.string().filter(|text| !text.is_empty())
    }
}

/// A member of an object that is not `null`.
pub(crate) fn child<'e>(object: &Scanned<'e>, name: &str) -> Option<Scanned<'e>> {
    if object.kind() != Kind::Object {
        return None;
    }
    object.children().find(|child| child.is_named(name) && child.kind() != Kind::Null)
}

fn draft(scanned: &Scanned<'_>, manner: &Manner) -> Draft {
    let event = Event(*scanned);
    let named = event.text("type").or(manner.call.map(Cow::Borrowed));
    let call = named.unwrap_or(Cow::Borrowed(if event.get("event").is_some() { "track" } else { "" }));
    let event_type = if call == "track" { event.text("event") } else { Some(call.clone()) };
    let mut draft = Draft::new(event_type.as_deref().filter(|name| !name.is_empty()));
    if let Some(id) = event.get("messageId") {
        let digits = (id.kind() == Kind::Number).then(|| Cow::Borrowed(id.raw()));
        draft.id(&id.string().or(digits).unwrap_or_default());
    }
    who(&event, &call, manner, &mut draft);
    let mut context = Object::default();
    when(&event, manner, &mut draft, &mut context);
    what(&event, &call, &mut draft);
    around(&event, manner, &mut draft, &mut context);
    draft.context(context);
    draft
}

fn who(event: &Event<'_>, call: &str, manner: &Manner, draft: &mut Draft) {
    let user = event.get("userId");
    if let Some(user) = &user {
        draft.user(&user.member());
    }
    let is_known = user.is_some_and(|user| somebody(&user.member()).is_some());
    if event.get("anonymousId").is_some_and(|device| draft.anonymous(&device.member())) {
        return;
    }
    if call == "alias" {
        // What it was known by before may have been a device.
        if let Some(previous) = event.get("previousId") {
            draft.anonymous(&previous.member());
        }
    } else if let (false, Some(device)) = (is_known, &manner.anonymous_id) {
        draft.anonymous_text(device);
    }
}

fn when(event: &Event<'_>, manner: &Manner, draft: &mut Draft, context: &mut Object<'_>) {
    let (original, explicit) = (event.get("originalTimestamp"), event.get("timestamp"));
    let final_time = explicit.filter(|_| manner.timestamp_is_final);
    let time = final_time.or(original).or(explicit);
    let Some(time) = time else { return };
    if !draft.timestamp(&time.member()) {
        context.raw("timestamp", time.raw());
        return;
    }
    let sent_at = event.get("sentAt").and_then(|at| instant(&at.member())).or(manner.sent_at);
    if let (None, Some(sent_at)) = (final_time, sent_at) {
        draft.sent_at(sent_at);
    }
}

/// `metadata`: the properties of what happened, or the traits of whom it is about.
fn what(event: &Event<'_>, call: &str, draft: &mut Draft) {
    let about_traits = matches!(call, "identify" | "group");
    let (first, second) = if about_traits { ("traits", "properties") } else { ("properties", "traits") };
    let inner = event.get("context").and_then(|context| child(&context, "traits"));
    let inner = inner.filter(|_| call == "identify");
    // Some clients put the traits of `identify` only beside the context.
    let object = [event.get(first).filter(|value| !value.is_empty()), inner, event.get(second)]
        .into_iter()
        .flatten()
        .find(|value| value.kind() == Kind::Object);
    let mut metadata = Object::default();
    if let Some(object) = &object {
        metadata.all(object);
    }
    if call == "alias"
        && let Some(previous) = event.get("previousId")
    {
        let digits = (previous.kind() == Kind::Number).then(|| quoted(previous.raw()));
        metadata.raw("previous_id", digits.as_deref().unwrap_or(previous.raw()));
    }
    if call == "group"
        && let Some(group) = event.get("groupId")
    {
        metadata.raw("group_id", group.raw());
    }
    if matches!(call, "page" | "screen") {
        for name in ["name", "category"] {
            if let Some(value) = event.get(name) {
                metadata.raw(name, value.raw());
            }
        }
    }
    draft.member("metadata", metadata.end().as_deref().unwrap_or("{}"));
}

/// `context`, `session_id`, `consent`, and what has no place of its own.
fn around<'e>(event: &Event<'e>, manner: &Manner, draft: &mut Draft, context: &mut Object<'e>) {
    context.text("vendor", manner.vendor);
    let sent = event.get("context").filter(|value| value.kind() == Kind::Object);
    for member in sent.iter().flat_map(Scanned::children).filter(|member| member.kind() != Kind::Null) {
        let name = member.name();
        match &*name {
            "ip" => draft.ip(&member.string().unwrap_or_default()),
            "userAgent" => context.raw("user_agent", member.raw()),
            "groupId" => context.raw("group_id", member.raw()),
            "sessionId" => session(&member, draft),
            "consent" => consent(&member, draft, context),
            _ => context.raw(name, member.raw()),
        }
    }
    if let Some(group) = event.get("groupId") {
        context.raw("group_id", group.raw());
    }
    for member in event.0.children().filter(|member| member.kind() != Kind::Null) {
        let name = member.name();
        let is_empty = matches!(member.kind(), Kind::Object | Kind::Array) && member.is_empty();
        if !is_empty && !PLACED.contains(&&*name) {
            context.raw(name, member.raw());
        }
    }
}

/// A session's id, which may be a number.
pub(crate) fn session(member: &Scanned<'_>, draft: &mut Draft) {
    match member.kind() {
        Kind::Number => draft.member("session_id", &quoted(member.raw())),
        Kind::String => draft.member("session_id", member.raw()),
        _ => {}
    }
}

/// Segment's `categoryPreferences` are the purposes that are granted or denied.
fn consent<'e>(member: &Scanned<'e>, draft: &mut Draft, context: &mut Object<'e>) {
    match child(member, "categoryPreferences").filter(|value| value.kind() == Kind::Object) {
        Some(purposes) => draft.member("consent", purposes.raw()),
        None => context.raw("consent", member.raw()),
    }
}
