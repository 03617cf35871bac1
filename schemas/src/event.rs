//! The event as it stands on the log, borrowed from the record's bytes.
//!
//! **Invariant:** values are kept as the bytes that were sent, so a number never changes its digits on the way.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use crate::id::{AnonymousId, EventType, ProfileKey, SessionId, UserId, means_nobody};
use crate::json::{self, Kind, Limits, Member};
use crate::receipt::Receipt;
use crate::verdict::Code;

/// Event types that begin so are control records and refused from outside.
pub const RESERVED_TYPE_PREFIX: &str = "rivulet.";

/// The members that a client may send at the top of an event.
pub const KNOWN_MEMBERS: [&str; 10] = [
    "event_id",
    "event_type",
    "user_id",
    "anonymous_id",
    "timestamp",
    "metadata",
    "session_id",
    "context",
    "consent",
    "schema",
];

/// Who wrote an event: `context.library`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Library {
    /// Its name.
    pub name: String,
    /// Its version, if it says one.
    #[serde(default)]
    pub version: Option<String>,
}

impl Library {
    /// Reads the JSON of `context`.
    pub fn of_context(context: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Context {
            library: Library,
        }
        serde_json::from_slice::<Context>(context).ok().map(|context| context.library)
    }

    /// Whether this text names it: its name, or name and version with a space between.
    pub fn is(&self, text: &str) -> bool {
        let rest = text.strip_prefix(self.name.as_str());
        rest.is_some_and(|rest| {
            rest.is_empty()
                || rest.strip_prefix(' ').is_some_and(|text| self.version.as_deref() == Some(text))
        })
    }
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{} {version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// An accepted event read back from the log.
#[derive(Clone, Debug)]
pub struct LoggedEvent<'a> {
    /// What happened.
    pub event_type: EventType,
    /// The known person, ids that mean nobody left out.
    pub user_id: Option<UserId>,
    /// The device, ids that mean nobody left out.
    pub anonymous_id: Option<AnonymousId>,
    /// The device's session.
    pub session_id: Option<SessionId>,
    /// The members of `metadata`; none if it is no object.
    pub metadata: Vec<Member<'a>>,
    /// The members of `context`; none if it is no object.
    pub context: Vec<Member<'a>>,
    /// JSON of `consent`, as sent.
    pub consent: Option<&'a [u8]>,
    /// The gateway's note.
    pub receipt: Receipt,
    /// The whole record's value.
    pub bytes: &'a [u8],
    /// What the sender sent of it: all before the receipt, which is the last member.
    pub body: &'a [u8],
}

impl<'a> LoggedEvent<'a> {
    /// Reads a record's value. Fails on anything our gateway did not write.
    pub fn read(bytes: &'a [u8], limits: Limits) -> Result<Self, json::Error> {
        let (members, [metadata, context]) = json::object_and(bytes, limits, ["metadata", "context"])?;
        let find = |name: &str| members.iter().find(|member| member.name == name);
        let missing =
            |name: &str| json::Error { code: Code::EventFieldMissing, pointer: format!("/{name}"), at: 0 };
        let invalid =
            |name: &str| json::Error { code: Code::EventFieldInvalid, pointer: format!("/{name}"), at: 0 };
        let receipt = find("receipt").ok_or_else(|| missing("receipt"))?;
        let body = before_receipt(bytes, receipt);
        let receipt: Receipt = serde_json::from_slice(receipt.value).map_err(|_| invalid("receipt"))?;
        let event_type = find("event_type")
            .ok_or_else(|| missing("event_type"))?
            .text()
            .ok_or_else(|| invalid("event_type"))?;
        let object =
            |name: &str| find(name).filter(|member| member.kind == Kind::Object).map(|member| member.value);
        Ok(Self {
            event_type: EventType::new(event_type),
            user_id: find("user_id").and_then(somebody).map(|id| UserId::new(id.into_owned())),
            anonymous_id: find("anonymous_id").and_then(somebody).map(|id| AnonymousId::new(id.into_owned())),
            session_id: find("session_id").and_then(Member::text).map(SessionId::new),
            metadata,
            context,
            consent: object("consent"),
            receipt,
            bytes,
            body,
        })
    }

    /// Whose event it is: the known person, else the device.
    pub fn profile_key(&self) -> Option<ProfileKey> {
        let user = self.user_id.as_ref().map(ProfileKey::user);
        user.or_else(|| self.anonymous_id.as_ref().map(ProfileKey::anonymous))
    }
}

/// What stands before the receipt's name.
fn before_receipt<'a>(bytes: &'a [u8], receipt: &Member<'_>) -> &'a [u8] {
    const NAME: usize = "\"receipt\":".len();
    let value = receipt.value.as_ptr().addr().saturating_sub(bytes.as_ptr().addr());
    value.checked_sub(NAME).and_then(|end| bytes.get(..end)).unwrap_or(bytes)
}

/// The id in a member, unless it means nobody. Numbers are taken by their digits.
pub fn somebody<'m>(member: &Member<'m>) -> Option<Cow<'m, str>> {
    let id = match member.kind {
        Kind::String => member.str()?,
        Kind::Number => Cow::Borrowed(std::str::from_utf8(member.value).ok()?),
        Kind::Object | Kind::Array | Kind::Boolean | Kind::Null => return None,
    };
    (!means_nobody(&id)).then_some(id)
}
