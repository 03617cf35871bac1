//! Records that the topic will never take: kept in quarantine with the reason.
//!
//! **Invariant:** the quarantine record fits its own topic; it has the form that the gateway gives its own.

use std::sync::Arc;

use schemas::header;
use schemas::time::Timestamp;
use schemas::topic::Topic;
use schemas::verdict::{Code, Reason, Status};
use serde::Serialize;
use sha2::{Digest, Sha256};

use bytes::Bytes;

use crate::headers::Headers;
use crate::kafka::record_bytes;
use crate::log::NewRecord;

/// Raw bytes kept, at most.
const RAW_BYTES: usize = 256 << 10;

/// A record that was taken, and that its topic refuses for its size.
#[derive(Clone, Debug)]
pub struct Unpublishable {
    /// The record.
    pub record: NewRecord,
    /// Its size with everything around it, in bytes.
    pub bytes: usize,
    /// The topic's limit, in bytes.
    pub max: usize,
    /// The limit of the quarantine topic, in bytes.
    pub quarantine_max: usize,
    /// When it was found out.
    pub found_at: Timestamp,
}

/// Says what is appended instead of such a record.
pub type OnUnpublishable = Arc<dyn Fn(&Unpublishable) -> Option<NewRecord> + Send + Sync>;

#[derive(Serialize)]
struct Quarantined<'a> {
    event_id: Option<&'a str>,
    received_at: Timestamp,
    source: Option<&'a str>,
    status: Status,
    reason: Reason,
    topic: &'static str,
    raw: &'a str,
    length: usize,
    sha256: String,
}

/// The default: a quarantine record with reason `log.record_too_large`. A quarantine record that is too large is not
/// quarantined again.
pub fn quarantine(refused: &Unpublishable) -> Option<NewRecord> {
    let record = &refused.record;
    if record.topic == Topic::Quarantine {
        return None;
    }
    let text = |name: &str| record.headers.get(name).and_then(|value| std::str::from_utf8(value).ok());
    let sha256 =
        Sha256::digest(&record.value).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let event_id = text(header::CE_ID);
    let key = event_id.map_or_else(|| sha256.clone(), str::to_owned);
    let headers = Headers::of([(header::CONTENT_TYPE, header::CONTENT_TYPE_JSON)]);
    let expected = format!(
        "a record of at most {} bytes with key and headers, this one has {}",
        refused.max, refused.bytes
    );
    let mut keep = RAW_BYTES.min(record.value.len());
    loop {
        let kept = record.value.get(..keep).unwrap_or_default();
        let raw = String::from_utf8_lossy(kept);
        let value = Quarantined {
            event_id,
            received_at: refused.found_at,
            source: text(header::CE_SOURCE),
            status: Status::Rejected,
            reason: Reason::new(Code::LogRecordTooLarge).expecting(expected.clone()),
            topic: record.topic.name(),
            raw: raw.trim_end_matches(char::REPLACEMENT_CHARACTER),
            length: record.value.len(),
            sha256: sha256.clone(),
        };
        let value = serde_json::to_vec(&value).unwrap_or_default();
        if keep == 0 || record_bytes(key.as_bytes(), &headers, &value) <= refused.quarantine_max {
            let (key, value) = (Bytes::from(key), Bytes::from(value));
            return Some(NewRecord { topic: Topic::Quarantine, key, partition: None, headers, value });
        }
        keep /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quarantine_record_names_the_reason_and_fits_its_topic() {
        let event = NewRecord {
            topic: Topic::Events,
            key: Bytes::from_static(b"user"),
            partition: None,
            headers: Headers::of([(header::CE_ID, "123e4567-e89b-12d3-a456-426614174000")]),
            value: Bytes::from(format!("{{\"a\":\"{}\"}}", "\\u00e9é\"".repeat(500))),
        };
        for quarantine_max in [1_000, 2_000, 1_000_000] {
            let refused = Unpublishable {
                record: event.clone(),
                bytes: 5000,
                max: 2000,
                quarantine_max,
                found_at: Timestamp(0),
            };
            let record = quarantine(&refused).unwrap();
            assert!(record_bytes(&record.key, &record.headers, &record.value) <= quarantine_max);
            assert_eq!(record.key, "123e4567-e89b-12d3-a456-426614174000");
            let value: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
            assert_eq!(value["reason"]["code"], "log.record_too_large");
            assert_eq!(value["length"], event.value.len());
            assert!(quarantine(&Unpublishable { record, ..refused }).is_none());
        }
    }
}
