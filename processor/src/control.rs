//! Control records on the log: how they are written, and told from forged ones.
//!
//! The value is `{"event_type":"rivulet.merge","control":"<JSON as text>","mac":"<hex>","receipt":{…}}`. The MAC is HMAC-SHA256 over
//! type, id, time and the text of `control`; only processors know its key. So whoever can write to the topic can neither merge
//! profiles nor move time.
//!
//! **Invariant:** a record that reads back as a control record was written by a processor with the same key, unchanged.

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use processor_core::Control;
use processor_core::profile::view::ObjectWriter;
use schemas::header;
use schemas::id::{EventId, SourceName};
use schemas::json::{self, Limits};
use schemas::receipt::{Receipt, Trust};
use schemas::time::Timestamp;
use schemas::topic::{PartitionId, Topic};
use sha2::Sha256;

use broker::headers::Headers;
use broker::log::NewRecord;

/// The source that control records name.
const SOURCE: &str = "rivulet";
/// Begins what is authenticated, so that the key's other uses never collide.
const PURPOSE: &[u8] = b"rivulet.control.1";

/// Key of the MAC; its bytes are never printed.
#[derive(Clone)]
pub struct ControlKey(Vec<u8>);

impl std::fmt::Debug for ControlKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ControlKey")
    }
}

/// A control record read back.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) id: EventId,
    pub(crate) received_at: Timestamp,
    pub(crate) control: Control,
}

/// Why a record of a reserved type is none of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Forged {
    /// Members are absent or of the wrong kind.
    #[error("a control record of the wrong shape")]
    Shape,
    /// The MAC is not ours.
    #[error("a control record that no processor wrote")]
    Mac,
}

impl ControlKey {
    /// Takes the key's bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    fn mac(&self, event_type: &str, id: EventId, at: Timestamp, control: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for part in [PURPOSE, event_type.as_bytes(), id.as_bytes(), &at.0.to_be_bytes(), control.as_bytes()] {
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(part);
        }
        Some(mac)
    }

    /// Writes a record; `partition` only for records without a subject.
    pub(crate) fn write(
        &self,
        control: &Control,
        id: EventId,
        at: Timestamp,
        partition: Option<PartitionId>,
    ) -> NewRecord {
        let event_type = control.event_type();
        let text = processor_core::profile::view::to_json(control);
        let mac = self
            .mac(event_type, id, at, &text)
            .map(|mac| hex(&mac.finalize().into_bytes()))
            .unwrap_or_default();
        let receipt = Receipt {
            event_id: id,
            received_at: at,
            occurred_at: at,
            source: SourceName::new(SOURCE),
            schema: None,
            trust: Trust::Secret,
            ip: None,
            user_agent: None,
            original_event_id: None,
            clamped_from: None,
            schema_fault: None,
            redacted: Vec::new(),
        };
        let value = ObjectWriter::default()
            .value("event_type", event_type)
            .value("control", &text)
            .value("mac", &mac)
            .value("receipt", &receipt)
            .end();
        let key = control.subject().map_or(event_type, |subject| subject.record_key());
        let id = id.to_string();
        NewRecord {
            topic: Topic::Events,
            key: Bytes::copy_from_slice(key.as_bytes()),
            partition,
            headers: Headers::of([
                (header::CE_SPEC_VERSION, header::SPEC_VERSION),
                (header::CE_ID, &id),
                (header::CE_TYPE, event_type),
                (header::CE_SOURCE, SOURCE),
                (header::CONTENT_TYPE, header::CONTENT_TYPE_JSON),
                (header::IDEMPOTENCY_KEY, &id),
            ]),
            value: Bytes::from(value),
        }
    }

    /// Reads a record of a reserved type.
    pub(crate) fn read(&self, value: &[u8]) -> Result<Read, Forged> {
        let members = json::object(value, Limits::default()).map_err(|_| Forged::Shape)?;
        let find = |name: &str| members.iter().find(|member| member.name == name).ok_or(Forged::Shape);
        let text = |name: &str| find(name)?.text().ok_or(Forged::Shape);
        let receipt: Receipt = serde_json::from_slice(find("receipt")?.value).map_err(|_| Forged::Shape)?;
        let (event_type, control, mac) = (text("event_type")?, text("control")?, text("mac")?);
        let given = unhex(&mac).ok_or(Forged::Shape)?;
        let mac =
            self.mac(&event_type, receipt.event_id, receipt.received_at, &control).ok_or(Forged::Mac)?;
        mac.verify_slice(&given).map_err(|_| Forged::Mac)?;
        let control: Control = serde_json::from_str(&control).map_err(|_| Forged::Shape)?;
        if control.event_type() != event_type {
            return Err(Forged::Shape);
        }
        Ok(Read { id: receipt.event_id, received_at: receipt.received_at, control })
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? * 16 + digit(low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use schemas::id::ProfileKey;

    use super::*;

    #[test]
    fn a_control_record_reads_back_and_any_change_is_noticed() {
        let key = ControlKey::new("secret");
        let [from, into] = ["anonymous:a\"1", "user:u1"].map(|text| ProfileKey::parse(text).unwrap());
        let id = EventId::control("rivulet.events", 1, 2, 3);
        let record = key.write(&Control::Merge { from, into }, id, Timestamp(1_767_268_800_000), None);
        assert_eq!(&record.key[..], b"a\"1");
        let read = key.read(&record.value).unwrap();
        assert_eq!((read.id, read.control.event_type()), (id, "rivulet.merge"));
        assert_eq!(ControlKey::new("other").read(&record.value).unwrap_err(), Forged::Mac);
        let text = String::from_utf8(record.value.to_vec()).unwrap();
        for (old, new) in [("u1", "u2"), ("2026", "2027"), ("rivulet.merge", "rivulet.absorb")] {
            assert!(key.read(text.replace(old, new).as_bytes()).is_err(), "{old}");
        }
        assert!(key.read(br#"{"event_type":"rivulet.merge","from":"a","into":"b"}"#).is_err());
        assert!(
            schemas::event::LoggedEvent::read(&record.value, Limits::default()).is_ok(),
            "other readers can skip it"
        );
    }
}
