//! What the sender is told of each event: status, level of safety reached, and why not.
//!
//! **Invariant:** n events in, n verdicts out, in the order sent. Codes are stable; each has a page `docs/errors/<code>.md`.

use serde::{Deserialize, Serialize};

use crate::id::EventId;

/// How safe an event is. Ordered: `Received < Disk < Broker`.
#[cfg_attr(feature = "describe", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckLevel {
    /// In the gateway's memory.
    Received,
    /// Written and fsynced by the gateway.
    #[default]
    Disk,
    /// Acknowledged by Kafka or Kinesis (acks=all).
    Broker,
}

impl AckLevel {
    /// Reads the word used on the wire.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "received" => Self::Received,
            "disk" => Self::Disk,
            "broker" => Self::Broker,
            _ => return None,
        })
    }
}

/// What became of an event at the edge.
#[cfg_attr(feature = "describe", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// On the log.
    Accepted,
    /// Was on the log already.
    Duplicate,
    /// Kept aside, fixable; not on the log.
    Quarantined,
    /// Refused; sending it again unchanged will not help.
    Rejected,
    /// Not taken now; send it again later.
    Retry,
}

/// Stable reason codes. The text form is what clients and documentation see.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Code {
    /// The event is not valid JSON.
    JsonSyntax,
    /// The event's bytes are not UTF-8, or an escape names half of a surrogate pair.
    JsonUnicode,
    /// A name occurs twice in one object.
    JsonDuplicateName,
    /// Nested deeper than the limit.
    JsonDepth,
    /// A number that no double can hold.
    JsonNumber,
    /// A NUL or other control character in a name or id.
    JsonControlCharacter,
    /// The event is not a JSON object.
    EventNotObject,
    /// The event is larger than the limit.
    EventTooLarge,
    /// A required field of the event is absent.
    EventFieldMissing,
    /// A field of the event has the wrong form.
    EventFieldInvalid,
    /// The event names a field that only the gateway may write.
    EventReservedField,
    /// The event type is reserved for control records.
    EventTypeReserved,
    /// The key may not send this event type.
    EventTypeNotAllowed,
    /// An operator has stopped events like this one.
    EventKilled,
    /// Who the event is about does not want to be measured, and the key honours that.
    EventNoConsent,
    /// No schema for this event type, and the key does not allow that.
    SchemaUnknown,
    /// The pinned schema version does not exist.
    SchemaVersionUnknown,
    /// The event does not fit its schema.
    SchemaInvalid,
    /// Neither `user_id` nor `anonymous_id` names anybody.
    IdentityMissing,
    /// More events than a batch may carry.
    BatchTooManyEvents,
    /// The log does not take records now.
    LogUnavailable,
    /// The disk is near full; admission is closed.
    LogFull,
    /// The record is larger than the topic allows.
    LogRecordTooLarge,
    /// The gateway is shutting down.
    Draining,
    /// Too much at once.
    Overloaded,
    /// The body is not what its `Content-Encoding` says, or is cut short.
    BodyCompression,
    /// The body uses a `Content-Encoding` or `Content-Type` that is not supported.
    BodyUnsupported,
    /// The body is larger than the limit, as sent or inflated.
    BodyTooLarge,
    /// The body cannot be split into events.
    BodySyntax,
    /// The body was not received in time.
    BodyTimeout,
    /// The body has no events.
    BodyEmpty,
    /// A query parameter or header has the wrong form.
    RequestInvalid,
    /// No such resource.
    NotFound,
    /// The method is not supported here.
    MethodNotAllowed,
    /// No key was sent.
    KeyMissing,
    /// The key is unknown or revoked.
    KeyUnknown,
    /// The key does not allow this origin.
    OriginNotAllowed,
    /// This needs a secret key.
    SecretKeyRequired,
    /// The key was good until a while ago.
    KeyExpired,
    /// The key is used through a signed browser token only.
    TokenRequired,
    /// The token is none of ours, or is for something else.
    TokenInvalid,
    /// The token's time is over.
    TokenExpired,
    /// The key sends more events a second than it may.
    RateExceeded,
    /// The key has sent as many events today as it may.
    QuotaExceeded,
    /// The person's profile has more events than its key expects of one.
    ProfileHot,
    /// The frame is not one of the protocol.
    FrameInvalid,
    /// A fault of ours.
    Internal,
}

impl Code {
    /// Every code, in the order of declaration.
    pub const ALL: &'static [Self] = &[
        Self::JsonSyntax,
        Self::JsonUnicode,
        Self::JsonDuplicateName,
        Self::JsonDepth,
        Self::JsonNumber,
        Self::JsonControlCharacter,
        Self::EventNotObject,
        Self::EventTooLarge,
        Self::EventFieldMissing,
        Self::EventFieldInvalid,
        Self::EventReservedField,
        Self::EventTypeReserved,
        Self::EventTypeNotAllowed,
        Self::EventKilled,
        Self::EventNoConsent,
        Self::SchemaUnknown,
        Self::SchemaVersionUnknown,
        Self::SchemaInvalid,
        Self::IdentityMissing,
        Self::BatchTooManyEvents,
        Self::LogUnavailable,
        Self::LogFull,
        Self::LogRecordTooLarge,
        Self::Draining,
        Self::Overloaded,
        Self::BodyCompression,
        Self::BodyUnsupported,
        Self::BodyTooLarge,
        Self::BodySyntax,
        Self::BodyTimeout,
        Self::BodyEmpty,
        Self::RequestInvalid,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::KeyMissing,
        Self::KeyUnknown,
        Self::OriginNotAllowed,
        Self::SecretKeyRequired,
        Self::KeyExpired,
        Self::TokenRequired,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::RateExceeded,
        Self::QuotaExceeded,
        Self::ProfileHot,
        Self::FrameInvalid,
        Self::Internal,
    ];

    /// The stable text of the code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JsonSyntax => "json.syntax",
            Self::JsonUnicode => "json.unicode",
            Self::JsonDuplicateName => "json.duplicate_name",
            Self::JsonDepth => "json.depth",
            Self::JsonNumber => "json.number",
            Self::JsonControlCharacter => "json.control_character",
            Self::EventNotObject => "event.not_object",
            Self::EventTooLarge => "event.too_large",
            Self::EventFieldMissing => "event.field_missing",
            Self::EventFieldInvalid => "event.field_invalid",
            Self::EventReservedField => "event.reserved_field",
            Self::EventTypeReserved => "event.type_reserved",
            Self::EventTypeNotAllowed => "event.type_not_allowed",
            Self::EventKilled => "event.killed",
            Self::EventNoConsent => "event.no_consent",
            Self::SchemaUnknown => "schema.unknown",
            Self::SchemaVersionUnknown => "schema.version_unknown",
            Self::SchemaInvalid => "schema.invalid",
            Self::IdentityMissing => "identity.missing",
            Self::BatchTooManyEvents => "batch.too_many_events",
            Self::LogUnavailable => "log.unavailable",
            Self::LogFull => "log.full",
            Self::LogRecordTooLarge => "log.record_too_large",
            Self::Draining => "gateway.draining",
            Self::Overloaded => "gateway.overloaded",
            Self::BodyCompression => "body.compression",
            Self::BodyUnsupported => "body.unsupported",
            Self::BodyTooLarge => "body.too_large",
            Self::BodySyntax => "body.syntax",
            Self::BodyTimeout => "body.timeout",
            Self::BodyEmpty => "body.empty",
            Self::RequestInvalid => "request.invalid",
            Self::NotFound => "request.not_found",
            Self::MethodNotAllowed => "request.method_not_allowed",
            Self::KeyMissing => "key.missing",
            Self::KeyUnknown => "key.unknown",
            Self::OriginNotAllowed => "key.origin_not_allowed",
            Self::SecretKeyRequired => "key.secret_required",
            Self::KeyExpired => "key.expired",
            Self::TokenRequired => "key.token_required",
            Self::TokenInvalid => "token.invalid",
            Self::TokenExpired => "token.expired",
            Self::RateExceeded => "key.rate_exceeded",
            Self::QuotaExceeded => "key.quota_exceeded",
            Self::ProfileHot => "profile.hot",
            Self::FrameInvalid => "frame.invalid",
            Self::Internal => "gateway.internal",
        }
    }

    /// Reads the stable text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("unknown code `{text}`")))
    }
}

/// Why an event was not accepted as it is.
#[cfg_attr(feature = "describe", derive(schemars::JsonSchema))]
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// What is wrong.
    pub code: Code,
    /// Where, as a JSON pointer from the event's root (RFC 6901).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The JSON Schema keyword that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyword: Option<String>,
    /// What would have been right, in words for the developer. Never echoes the value that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The schema judged by, as `type@version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

impl Reason {
    /// A reason that names only its code.
    pub const fn new(code: Code) -> Self {
        Self { code, pointer: None, keyword: None, expected: None, schema: None }
    }

    /// The same, at `pointer`.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// The same, saying what is expected.
    #[must_use]
    pub fn expecting(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }
}

/// The answer for one event.
#[cfg_attr(feature = "describe", derive(schemars::JsonSchema))]
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// The event's id, canonical; absent if none could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    /// What became of it.
    pub status: Status,
    /// The level reached; present for accepted and duplicate events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked: Option<AckLevel>,
    /// Why not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What was odd about an event that was taken all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// Something odd that did not stop the event.
#[cfg_attr(feature = "describe", derive(schemars::JsonSchema))]
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Warning {
    /// Stable word: `identity.nobody`, `event.unknown_field`, `timestamp.clamped`, `schema.invalid`, …
    pub code: String,
    /// Where, as a JSON pointer from the event's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The JSON Schema keyword that failed, where the schema's faults are only observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyword: Option<String>,
    /// The schema judged by, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

impl Warning {
    /// A warning that names only its word.
    pub fn of(code: &str) -> Self {
        Self { code: code.to_owned(), pointer: None, keyword: None, schema: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_read_back() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
    }

    #[test]
    fn levels_are_ordered_by_safety() {
        assert!(AckLevel::Received < AckLevel::Disk && AckLevel::Disk < AckLevel::Broker);
    }
}
