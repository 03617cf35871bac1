//! What the gateway adds to an event: the `receipt` member, spliced behind the sender's own bytes.
//!
//! **Invariant:** nothing a client sends can set a field of the receipt; the sender's bytes stay as they came.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::id::{EventId, SourceName};
use crate::time::Timestamp;

/// Who vouched for the event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// A public browser key: anybody can have sent it.
    Public,
    /// A secret key: the shop's own server.
    Secret,
    /// A public key with a signed user token.
    Token,
}

/// The gateway's note on an event. All times UTC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// Canonical id.
    pub event_id: EventId,
    /// When the gateway had the whole request.
    pub received_at: Timestamp,
    /// When it happened: the sender's time, corrected by `sent_at`, clamped to `received_at` + 1 min.
    pub occurred_at: Timestamp,
    /// The key's configured name.
    pub source: SourceName,
    /// The schema judged by, as `type@version`; absent for an unknown type that the key allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Who vouched for it.
    pub trust: Trust,
    /// Client address, truncated by the source's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// `User-Agent` of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The id as sent, when it was no UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_event_id: Option<String>,
    /// The device's clock was clamped: its own time, corrected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clamped_from: Option<Timestamp>,
    /// Why the event does not fit `schema`, where that was only observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_fault: Option<SchemaFault>,
    /// JSON pointers of the values that were redacted; the first [`MAX_REDACTED`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<String>,
}

/// Most pointers in `redacted`.
pub const MAX_REDACTED: usize = 32;

/// Where an event does not fit its schema.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SchemaFault {
    /// JSON pointer from the event's root.
    pub pointer: String,
    /// The keyword that failed.
    pub keyword: String,
}

/// A [`Receipt`] that is about to be written: its texts are borrowed, because there is one for every event.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are those of `Receipt`")]
pub struct NewReceipt<'a> {
    pub event_id: EventId,
    pub received_at: Timestamp,
    pub occurred_at: Timestamp,
    pub source: &'a SourceName,
    pub schema: Option<&'a str>,
    pub trust: Trust,
    pub ip: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    pub original_event_id: Option<&'a str>,
    pub clamped_from: Option<Timestamp>,
    pub schema_fault: Option<&'a SchemaFault>,
    pub redacted: &'a [String],
}

/// Bytes that most receipts have at most.
pub const RECEIPT_ROOM: usize = 384;

impl Receipt {
    /// The event's bytes with the receipt as its last member. `event` is a scanned JSON object.
    pub fn splice(&self, event: &[u8]) -> Vec<u8> {
        let mut record = Vec::with_capacity(event.len() + RECEIPT_ROOM);
        // A vector takes everything.
        let _ = self.borrowed().splice(event, &mut record);
        record
    }

    fn borrowed(&self) -> NewReceipt<'_> {
        NewReceipt {
            event_id: self.event_id,
            received_at: self.received_at,
            occurred_at: self.occurred_at,
            source: &self.source,
            schema: self.schema.as_deref(),
            trust: self.trust,
            ip: self.ip.as_deref(),
            user_agent: self.user_agent.as_deref(),
            original_event_id: self.original_event_id.as_deref(),
            clamped_from: self.clamped_from,
            schema_fault: self.schema_fault.as_ref(),
            redacted: &self.redacted,
        }
    }
}

impl NewReceipt<'_> {
    /// Writes the event's bytes with the receipt as its last member. `event` is a scanned JSON object.
    pub fn splice(&self, event: &[u8], record: &mut impl Write) -> io::Result<()> {
        let body = event.trim_ascii();
        let open = body.strip_suffix(b"}").unwrap_or(body).trim_ascii_end();
        record.write_all(open)?;
        record.write_all(if open.ends_with(b"{") { b"\"receipt\":" } else { b",\"receipt\":" })?;
        self.write(record)?;
        record.write_all(b"}")
    }

    /// Writes the receipt as JSON. What every receipt has is written without the general serializer, which looks at each byte.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(b"{\"event_id\":\"")?;
        out.write_all(self.event_id.encode(&mut [0; 36]).as_bytes())?;
        // Neither instants nor words of ours hold what JSON escapes.
        write!(out, "\",\"received_at\":\"{}\",\"occurred_at\":\"{}\"", self.received_at, self.occurred_at)?;
        member(out, "source", Some(self.source))?;
        member(out, "schema", self.schema)?;
        out.write_all(match self.trust {
            Trust::Public => b",\"trust\":\"public\"",
            Trust::Secret => b",\"trust\":\"secret\"",
            Trust::Token => b",\"trust\":\"token\"",
        })?;
        member(out, "ip", self.ip)?;
        member(out, "user_agent", self.user_agent)?;
        member(out, "original_event_id", self.original_event_id)?;
        member(out, "clamped_from", self.clamped_from)?;
        member(out, "schema_fault", self.schema_fault)?;
        member(out, "redacted", Some(self.redacted).filter(|redacted| !redacted.is_empty()))?;
        out.write_all(b"}")
    }
}

/// Writes a member behind others, if there is one.
fn member<T: Serialize>(out: &mut impl Write, name: &str, value: Option<T>) -> io::Result<()> {
    let Some(value) = value else { return Ok(()) };
    out.write_all(b",\"")?;
    out.write_all(name.as_bytes())?;
    out.write_all(b"\":")?;
    Ok(serde_json::to_writer(out, &value)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::event::LoggedEvent;
    use crate::json::{DEEPEST, Limits, object};

    fn receipt() -> Receipt {
        Receipt {
            event_id: EventId::from_bytes([7; 16]),
            received_at: Timestamp(1_714_055_000_000),
            occurred_at: Timestamp(1_714_054_999_000),
            source: SourceName::new("web \"shop\""),
            schema: Some("add_to_cart@1".to_owned()),
            trust: Trust::Public,
            ip: Some("203.0.113.0".to_owned()),
            user_agent: Some("Mozilla/5.0 \"}\\".to_owned()),
            original_event_id: None,
            clamped_from: None,
            schema_fault: None,
            redacted: Vec::new(),
        }
    }

    /// Splices, and checks that the record has the event's members and one receipt, ours.
    fn splices_well(event: &[u8]) -> Result<(), TestCaseError> {
        let limits = Limits { max_depth: DEEPEST };
        let before = object(event, limits).unwrap();
        let record = receipt().splice(event);
        let after = object(&record, limits).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let (last, others) = after.split_last().unwrap();
        prop_assert_eq!(others, &before[..]);
        prop_assert_eq!(last.name.as_ref(), "receipt");
        prop_assert_eq!(&serde_json::from_slice::<Receipt>(last.value).unwrap(), &receipt());
        serde_json::from_slice::<Value>(&record).map_err(|error| TestCaseError::fail(error.to_string()))?;
        Ok(())
    }

    #[test]
    fn a_sender_cannot_plant_fields_of_the_receipt() {
        for event in [
            r#"{"event_type":"x","received_at":"1999-01-01T00:00:00Z","source":"admin","ip":"1.2.3.4","schema":"x@999"}"#,
            r#"{"event_type":"x","recei\u0076ed_at":"1999-01-01T00:00:00Z"}   "#,
            "\n{\"event_type\":\"x\"}\n\t",
            "{}",
            " { \r\n } ",
            r#"{"a":{}}"#,
            r#"{"a":"{"}"#,
        ] {
            splices_well(event.as_bytes()).unwrap_or_else(|error| panic!("{event}: {error}"));
        }
        let record = receipt().splice(br#"{"event_type":"x","user_id":"u1","source":"admin"} "#);
        let read = LoggedEvent::read(&record, Limits::default()).unwrap();
        assert_eq!(read.receipt, receipt());
        assert_eq!(read.profile_key().unwrap().to_string(), "user:u1");
        assert_eq!(read.bytes, record);
        assert_eq!(read.body, br#"{"event_type":"x","user_id":"u1","source":"admin","#);
        let record = receipt().splice(br#"{"event_type":"x","metadata":{"a":"\"receipt\":x","receipt":1}}"#);
        let read = LoggedEvent::read(&record, Limits::default()).unwrap();
        assert_eq!(read.body, br#"{"event_type":"x","metadata":{"a":"\"receipt\":x","receipt":1},"#);
        assert_eq!((read.metadata.len(), read.context.len()), (2, 0));
    }

    #[test]
    fn a_record_with_two_receipts_is_refused() {
        for name in ["receipt", "rec\\u0065ipt"] {
            let record = receipt().splice(format!("{{\"event_type\":\"x\",\"{name}\":{{}}}}").as_bytes());
            let error = LoggedEvent::read(&record, Limits::default()).unwrap_err();
            assert_eq!((error.code.as_str(), error.pointer.as_str()), ("json.duplicate_name", "/receipt"));
        }
        assert!(LoggedEvent::read(br#"{"event_type":"x"}"#, Limits::default()).is_err());
        assert!(LoggedEvent::read(b"null", Limits::default()).is_err());
        assert!(LoggedEvent::read(b"\xFF\xFE\0", Limits::default()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_event_is_spliced_to_valid_json(text in crate::json::tests::json_text(3), space in "[ \t\r\n]{0,3}") {
            let event = format!("{space}{{\"m\":{text}{space}}}{space}");
            if object(event.as_bytes(), Limits { max_depth: DEEPEST }).is_ok() {
                splices_well(event.as_bytes())?;
            }
        }
    }
}
