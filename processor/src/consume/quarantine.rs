//! Records that cannot be processed, put aside in the form in which the gateway puts events aside.
//!
//! **Invariant:** raw bytes are kept up to [`MAX_RAW_BYTES`], with full length and SHA-256, and where the record stood.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::headers::Headers;
use broker::log::{NewRecord, Record};
use bytes::Bytes;
use processor_core::profile::view::ObjectWriter;
use schemas::header;
use schemas::id::EventId;
use schemas::topic::Topic;
use schemas::verdict::{Reason, Status};
use sha2::{Digest, Sha256};

use crate::control::hex;

/// Raw bytes kept.
pub(crate) const MAX_RAW_BYTES: usize = 256 << 10;
/// The source that such records name.
const SOURCE: &str = "rivulet.processor";

/// The record for quarantine.
pub(crate) fn record(record: &Record, reason: &Reason) -> NewRecord {
    let id = EventId::control(record.at.topic.name(), record.at.partition.0, record.offset.0, 0).to_string();
    let origin = ObjectWriter::default()
        .value("topic", record.at.topic.name())
        .value("partition", &record.at.partition)
        .value("offset", &record.offset)
        .end();
    let kept = record.value.get(..MAX_RAW_BYTES).unwrap_or(&record.value);
    let value = ObjectWriter::default()
        .raw("event_id", "null")
        .value("received_at", &record.appended_at)
        .value("source", SOURCE)
        .value("status", &Status::Quarantined)
        .value("reason", reason)
        .raw("origin", &origin)
        .value("length", &record.value.len())
        .value("sha256", &hex(&Sha256::digest(&record.value)));
    let value = match std::str::from_utf8(kept) {
        Ok(text) => value.value("raw", text),
        Err(_) => value.value("raw_base64", &STANDARD.encode(kept)),
    };
    NewRecord {
        topic: Topic::Quarantine,
        key: Bytes::copy_from_slice(id.as_bytes()),
        partition: None,
        headers: Headers::of([
            (header::CONTENT_TYPE, header::CONTENT_TYPE_JSON),
            (header::IDEMPOTENCY_KEY, &id),
        ]),
        value: Bytes::from(value.end()),
    }
}
