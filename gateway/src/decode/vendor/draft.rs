//! Writes an event in our form from pieces of a vendor's.
//!
//! **Invariant:** values are the vendor's bytes; no name is written twice; the bytes do not depend on when the event was sent or
//! came, so that a repeat is seen as one. Addresses in `context` are cut by the key's policy before anybody sees them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;

use schemas::event::somebody;
use schemas::id::{EventId, NO_PROFILE_PREFIX, SourceName, means_nobody};
use schemas::json::{Kind, Member, Scanned};
use schemas::time::Timestamp;

use crate::address;
use crate::config::IpPolicy;
use crate::decode::native::{SentAt, instant};

/// Up to so many names are compared one by one; beyond, a set is kept.
const COMPARED_NAMES: usize = 24;

/// Makes a new event id.
pub(crate) type Mint<'a> = &'a mut dyn FnMut() -> Option<EventId>;

/// A JSON object that is being written. The first of two members with one name stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object<'n> {
    text: String,
    few: Vec<Cow<'n, str>>,
    many: HashSet<Cow<'n, str>>,
}

impl<'n> Object<'n> {
    /// A member as the vendor's bytes.
    pub(crate) fn raw(&mut self, name: impl Into<Cow<'n, str>>, value: &str) {
        let name = name.into();
        if self.has(&name) {
            return;
        }
        push_member(&mut self.text, &name, value);
        if self.few.len() < COMPARED_NAMES {
            self.few.push(name);
        } else {
            self.many.insert(name);
        }
    }

    /// A member that is text.
    pub(crate) fn text(&mut self, name: impl Into<Cow<'n, str>>, value: &str) {
        self.raw(name, &quoted(value));
    }

    /// Every member of an object.
    pub(crate) fn all(&mut self, object: &Scanned<'n>) {
        for child in object.children() {
            self.raw(child.name(), child.raw());
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.few.iter().any(|known| known == name) || self.many.contains(name)
    }

    /// The object, unless nothing is in it.
    pub(crate) fn end(self) -> Option<String> {
        (!self.text.is_empty()).then(|| format!("{{{}}}", self.text))
    }
}

/// One event in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    /// Members but for those below.
    members: String,
    context: String,
    id: Option<String>,
    ce_source: Option<String>,
    ip: Option<String>,
    /// Somebody is meant.
    has_somebody: bool,
    sent_at: SentAt,
}

impl Draft {
    pub(crate) fn new(event_type: Option<&str>) -> Self {
        let mut draft = Self::default();
        if let Some(event_type) = event_type {
            push_member(&mut draft.members, "event_type", &quoted(event_type));
        }
        draft
    }

    /// The id, whatever its form; blank is none.
    pub(crate) fn id(&mut self, id: &str) {
        self.id = Some(id).filter(|id| !id.trim().is_empty()).map(str::to_owned);
    }

    /// The context in which a `CloudEvents` id is unique.
    pub(crate) fn ce_source(&mut self, source: &str) {
        self.ce_source = Some(source.to_owned());
    }

    /// Somebody known. What means nobody is written too, for the warning.
    pub(crate) fn user(&mut self, value: &Member<'_>) {
        match value.kind {
            Kind::Null => {}
            Kind::String | Kind::Number => {
                self.has_somebody |= somebody(value).is_some();
                push_member(&mut self.members, "user_id", raw(value));
            }
            Kind::Object | Kind::Array | Kind::Boolean => self.user_text("[object Object]"),
        }
    }

    /// The same from text.
    pub(crate) fn user_text(&mut self, id: &str) {
        self.has_somebody |= !means_nobody(id);
        push_member(&mut self.members, "user_id", &quoted(id));
    }

    /// A device, unless nobody is meant.
    pub(crate) fn anonymous(&mut self, value: &Member<'_>) -> bool {
        somebody(value).is_some_and(|id| self.anonymous_text(&id))
    }

    /// The same from text.
    pub(crate) fn anonymous_text(&mut self, id: &str) -> bool {
        if means_nobody(id) {
            return false;
        }
        self.has_somebody = true;
        push_member(&mut self.members, "anonymous_id", &quoted(id));
        true
    }

    /// What was given as the device of somebody known and means nobody, for the warning.
    pub(crate) fn no_device(&mut self, value: &Member<'_>) {
        let text = if value.kind == Kind::String { raw(value) } else { "\"[object Object]\"" };
        if self.has_somebody && value.kind != Kind::Null {
            push_member(&mut self.members, "anonymous_id", text);
        }
    }

    /// The sender's time. What is none is left out: the vendors take the time of arrival then.
    pub(crate) fn timestamp(&mut self, value: &Member<'_>) -> bool {
        let readable = instant(value).is_some();
        if readable {
            push_member(&mut self.members, "timestamp", raw(value));
        }
        readable
    }

    /// The same from text.
    pub(crate) fn timestamp_text(&mut self, time: &str) -> bool {
        let readable = Timestamp::parse(time).is_some();
        if readable {
            push_member(&mut self.members, "timestamp", &quoted(time));
        }
        readable
    }

    /// When the sender's clock said that it sent.
    pub(crate) fn sent_at(&mut self, at: Timestamp) {
        self.sent_at = SentAt::At(at);
    }

    /// The same for vendors that correct only clocks that are far off.
    pub(crate) fn sent_roughly_at(&mut self, at: Timestamp) {
        self.sent_at = SentAt::Roughly(at);
    }

    /// How long after the event it was sent, milliseconds, where nothing else tells its time.
    pub(crate) fn sent_after(&mut self, age_ms: i64) {
        self.sent_at = SentAt::After(age_ms);
    }

    /// `metadata`, `consent`, `session_id`: one of our members, each at most once.
    pub(crate) fn member(&mut self, name: &'static str, value: &str) {
        push_member(&mut self.members, name, value);
    }

    /// The address of the device, if it is known otherwise than by the connection.
    pub(crate) fn ip(&mut self, text: &str) {
        self.ip = Some(text.trim().to_owned());
    }

    /// `context`, but for the address.
    pub(crate) fn context(&mut self, context: Object<'_>) {
        self.context = context.text;
    }

    /// The event's bytes under a key's source and policy, and the time of sending to correct it by.
    pub(crate) fn finish(
        mut self,
        source: &SourceName,
        policy: IpPolicy,
        mint: Mint<'_>,
    ) -> (Vec<u8>, SentAt) {
        let known = self.id.as_ref().map(|id| {
            EventId::parse(id).unwrap_or_else(|| EventId::foreign(source, self.ce_source.as_deref(), id))
        });
        let canonical = if self.has_somebody { known } else { known.or_else(mint) };
        let written = match (&self.id, &self.ce_source) {
            (Some(id), None) => Some(quoted(id)),
            _ => canonical.map(|id| quoted(&id.to_string())),
        };
        if let Some(id) = written {
            push_member(&mut self.members, "event_id", &id);
        }
        if let Some(id) = canonical.filter(|_| !self.has_somebody) {
            push_member(&mut self.members, "anonymous_id", &quoted(&format!("{NO_PROFILE_PREFIX}{id}")));
        }
        let ip = self.ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
        if let Some(ip) = ip.and_then(|ip| address::kept(ip, policy)) {
            push_member(&mut self.context, "ip", &quoted(&ip));
        }
        if !self.context.is_empty() {
            let context = format!("{{{}}}", self.context);
            push_member(&mut self.members, "context", &context);
        }
        (format!("{{{}}}", self.members).into_bytes(), self.sent_at)
    }
}

fn raw<'m>(value: &Member<'m>) -> &'m str {
    std::str::from_utf8(value.value).unwrap_or("null")
}

fn push_member(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(&quoted(name));
    text.push(':');
    text.push_str(value);
}

/// Text as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
