//! Records that cannot be processed, put aside in the form in which the gateway puts events aside.
//!
//! **Invariant:** raw bytes are kept up to [`MAX_RAW_BYTES`], with full length and SHA-256, and where the record stood.

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
        Err(_) => value.value("raw_base64", &base64(kept)),
    };
    let head = |name: &str, value: &str| (name.to_owned(), Bytes::copy_from_slice(value.as_bytes()));
    NewRecord {
        topic: Topic::Quarantine,
        key: Bytes::copy_from_slice(id.as_bytes()),
        partition: None,
        headers: vec![
            head(header::CONTENT_TYPE, header::CONTENT_TYPE_JSON),
            head(header::IDEMPOTENCY_KEY, &id),
        ],
        value: Bytes::from(value.end()),
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 (RFC 4648 §4).
fn base64(bytes: &[u8]) -> String {
    encode_base64(bytes, ALPHABET, true)
}

/// Base64 with a given alphabet.
pub(crate) fn encode_base64(bytes: &[u8], alphabet: &[u8; 64], pad: bool) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = usize::try_from((word >> (18 - 6 * place)) & 63).unwrap_or_default();
            match alphabet.get(digit) {
                Some(letter) if place <= chunk.len() => text.push(char::from(*letter)),
                _ if pad => text.push('='),
                _ => {}
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
