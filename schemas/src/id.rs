//! Identifiers as types, and the ids that mean nobody.
//!
//! **Invariant:** two spellings of one UUID are one [`EventId`]; the text form is canonical lower case with hyphens.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Namespace of [`EventId::foreign`]. It never changes: ids of re-sent vendor events depend on it.
pub const FOREIGN_EVENT_NAMESPACE: Uuid = Uuid::from_u128(0x6b1f_24a8_7c53_5b0e_9d0a_52e1_76c9_41d3);

/// Namespace of [`DecisionId::derive`].
pub const DECISION_NAMESPACE: Uuid = Uuid::from_u128(0x2f6c_91d0_1b7a_5c44_8a35_d0e6_94b7_3e12);

/// Namespace of control records' ids ([`EventId::control`]).
pub const CONTROL_NAMESPACE: Uuid = Uuid::from_u128(0xc41b_7d5e_90f2_5a68_b3c7_1e8d_46a0_952f);

/// The id of an event: a UUID in any spelling, the unit of deduplication.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

impl EventId {
    /// Reads any spelling of a UUID: hyphenated, simple, braced, `urn:uuid:`, either case.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// The id of an event whose sender used something else than a UUID: `UUIDv5` over
    /// `source NUL [ce_source NUL] id`, so that a re-send has the same id and another source has another.
    pub fn foreign(source: &SourceName, ce_source: Option<&str>, id: &str) -> Self {
        let mut name = Vec::with_capacity(source.as_str().len() + id.len() + 2);
        name.extend_from_slice(source.as_str().as_bytes());
        name.push(0);
        if let Some(ce_source) = ce_source {
            name.extend_from_slice(ce_source.as_bytes());
            name.push(0);
        }
        name.extend_from_slice(id.as_bytes());
        Self(Uuid::new_v5(&FOREIGN_EVENT_NAMESPACE, &name))
    }

    /// The id of the `n`-th control record that the record at `cause` gives rise to.
    pub fn control(topic: &str, partition: u32, offset: u64, n: u32) -> Self {
        Self(Uuid::new_v5(&CONTROL_NAMESPACE, format!("{topic}\0{partition}\0{offset}\0{n}").as_bytes()))
    }

    /// A new `UUIDv7` from the time in milliseconds since 1970 and ten random bytes.
    pub fn v7(unix_millis: u64, entropy: &[u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_millis, entropy).into_uuid())
    }

    /// Writes the canonical text.
    pub fn encode(self, text: &mut [u8; 36]) -> &str {
        self.0.as_hyphenated().encode_lower(text)
    }

    /// From the sixteen bytes of the UUID, network order.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The time in a `UUIDv7`, by the clock of whoever made it; `None` for any other id.
    pub fn minted_at(&self) -> Option<crate::time::Timestamp> {
        let [t1, t2, t3, t4, t5, t6, version, ..] = *self.as_bytes();
        let millis = i64::from_be_bytes([0, 0, t1, t2, t3, t4, t5, t6]);
        (version >> 4 == 7).then_some(crate::time::Timestamp(millis))
    }

    /// The sixteen bytes of the UUID, network order.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// The id of a decision: v5(rule, version, subject, trigger event), so that a replay gives the same one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DecisionId(Uuid);

impl DecisionId {
    /// Derives the id; `subject` is [`ProfileKey`]'s text form.
    pub fn derive(rule: &str, version: &str, subject: &ProfileKey, trigger: EventId) -> Self {
        let name = format!("{rule}\0{version}\0{subject}\0{trigger}");
        Self(Uuid::new_v5(&DECISION_NAMESPACE, name.as_bytes()))
    }

    /// From the sixteen bytes of the UUID, network order.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The sixteen bytes of the UUID, network order.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Reads any spelling of a UUID.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

macro_rules! uuid_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.as_hyphenated().fmt(f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.as_hyphenated().fmt(f) }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.as_hyphenated().encode_lower(&mut [0; 36]))
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a UUID"))
            }
        }
    )*};
}
uuid_text!(EventId, DecisionId);

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "describe", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps the text as it is.
            pub fn new(text: impl Into<String>) -> Self { Self(text.into()) }
            /// The text.
            pub fn as_str(&self) -> &str { &self.0 }
            /// The text, taken out.
            pub fn into_string(self) -> String { self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:?}", self.0) }
        }
    )*};
}
text_id! {
    /// A person as the sender's own system knows them.
    UserId,
    /// A device or browser before anybody is known.
    AnonymousId,
    /// The device's session; an attribute of the event, not the processor's session.
    SessionId,
    /// A key that allows to write; public ones stand in pages, secret ones never leave a server.
    WriteKey,
    /// The configured name of a key; survives the key's rotation.
    SourceName,
    /// What happened, such as `product_view`: 1 to 128 bytes.
    EventType,
}

/// Whose id a [`ProfileKey`] holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileKind {
    /// A [`UserId`].
    User,
    /// An [`AnonymousId`].
    Anonymous,
}

/// Whose profile: user "x" is not anonymous "x". The text form is `user:x` or `anonymous:x`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ProfileKey {
    /// Whose id `id` is.
    pub kind: ProfileKind,
    /// The id as the sender wrote it.
    pub id: String,
}

impl ProfileKey {
    /// The profile of a known person.
    pub fn user(id: &UserId) -> Self {
        Self { kind: ProfileKind::User, id: id.as_str().to_owned() }
    }

    /// The profile of a device.
    pub fn anonymous(id: &AnonymousId) -> Self {
        Self { kind: ProfileKind::Anonymous, id: id.as_str().to_owned() }
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.split_once(':')?;
        let kind = match kind {
            "user" => ProfileKind::User,
            "anonymous" => ProfileKind::Anonymous,
            _ => return None,
        };
        Some(Self { kind, id: id.to_owned() })
    }

    /// The Kafka key: the id without its kind.
    pub fn record_key(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for ProfileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ProfileKind::User => "user",
            ProfileKind::Anonymous => "anonymous",
        };
        write!(f, "{kind}:{}", self.id)
    }
}

impl Serialize for ProfileKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProfileKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not `user:<id>` or `anonymous:<id>`"))
    }
}

/// Prefix of the anonymous id that a vendor adapter gives to an event without anybody; no profile is kept for it.
pub const NO_PROFILE_PREFIX: &str = "none:";

/// Ids that clients send when they mean nobody; compared without case and surrounding white space.
/// Everybody who sent one of these would otherwise become one person (PostHog/posthog#12008).
const NOBODY: &[&str] = &[
    "",
    "null",
    "undefined",
    "none",
    "nil",
    "nan",
    "anonymous",
    "guest",
    "unknown",
    "user",
    "id",
    "true",
    "false",
    "n/a",
    "na",
    "distinct_id",
    "user_id",
    "anonymous_id",
    "not_authenticated",
    "[object object]",
    "{}",
    "[]",
    "\"\"",
    "''",
];

/// Whether an id means nobody: a word of the list, or nothing but zeros, hyphens and dots.
pub fn means_nobody(id: &str) -> bool {
    let invisible =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}');
    let id = id.trim_matches(invisible);
    NOBODY.iter().any(|nobody| id.eq_ignore_ascii_case(nobody))
        || id.bytes().all(|b| matches!(b, b'0' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_uuid_is_one_id() {
        let canonical = EventId::parse("123e4567-e89b-12d3-a456-426614174000");
        for spelling in [
            "123E4567-E89B-12D3-A456-426614174000",
            "123e4567e89b12d3a456426614174000",
            "{123e4567-e89b-12d3-a456-426614174000}",
            "urn:uuid:123e4567-e89b-12d3-a456-426614174000",
        ] {
            assert_eq!(EventId::parse(spelling), canonical, "{spelling}");
        }
        assert_eq!(EventId::parse("order-1001"), None);
    }

    #[test]
    fn a_foreign_id_depends_on_its_source() {
        let one = EventId::foreign(&SourceName::new("web"), None, "order-1001");
        assert_eq!(one, EventId::foreign(&SourceName::new("web"), None, "order-1001"));
        assert_ne!(one, EventId::foreign(&SourceName::new("app"), None, "order-1001"));
        assert_ne!(one, EventId::foreign(&SourceName::new("web"), Some("/shop"), "order-1001"));
    }

    #[test]
    fn ids_that_mean_nobody_are_known() {
        for id in [
            "",
            " ",
            "null",
            "Undefined",
            "[object Object]",
            "NaN",
            "0",
            "None",
            "{}",
            "[]",
            "0000-0000",
            "0.0",
            "-",
            "\u{feff}null",
            "\t",
        ] {
            assert!(means_nobody(id), "{id:?}");
        }
        for id in ["u1", "10", "nullable", "00a0", "user_789"] {
            assert!(!means_nobody(id), "{id:?}");
        }
    }

    #[test]
    fn a_profile_key_keeps_colons_in_its_id() {
        let key = ProfileKey::user(&UserId::new("a:b"));
        assert_eq!(ProfileKey::parse(&key.to_string()), Some(key));
    }
}
