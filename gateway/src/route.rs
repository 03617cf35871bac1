//! Makes log records: where an event goes, under which key, with which headers.
//!
//! **Invariant:** a record's value is the sender's own bytes with the receipt behind them; a refused event's raw bytes go to
//! quarantine with the full length and SHA-256 even where they are cut.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::headers::{self, Headers};
use broker::log::NewRecord;
use bytes::{BufMut as _, BytesMut};
use schemas::header;
use schemas::id::{EventId, SourceName};
use schemas::receipt::{NewReceipt, RECEIPT_ROOM};
use schemas::time::Timestamp;
use schemas::topic::Topic;
use schemas::verdict::Reason;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::decode::native::SentAt;
use crate::pipeline::Transmission;
use crate::redact::Kept;
use crate::validate::{Checked, Refusal, Remains};

/// The record of an accepted event.
///
/// Its parts are pieces of `room`, which a batch's records share, so that a record costs no memory of its own.
pub(crate) fn event_record(
    event: &[u8],
    kept: &Kept,
    checked: &Checked,
    transmission: &Transmission,
    room: &mut BytesMut,
) -> NewRecord {
    let source = &transmission.key.source;
    let receipt = NewReceipt {
        event_id: checked.event_id,
        received_at: transmission.received_at,
        occurred_at: checked.occurred_at,
        source,
        schema: checked.schema.as_deref(),
        trust: transmission.key.trust_in(&checked.event_type, &checked.profile),
        ip: transmission.ip.as_deref().filter(|_| checked.objected.is_none()),
        user_agent: transmission.user_agent.as_deref().filter(|_| checked.objected.is_none()),
        original_event_id: checked.original_event_id.as_deref(),
        clamped_from: checked.clamped_from,
        schema_fault: checked.schema_fault.as_ref(),
        redacted: kept.pointers(),
    };
    room.extend_from_slice(checked.profile.record_key().as_bytes());
    let key = room.split().freeze();
    for (name, value) in [
        (header::CE_SPEC_VERSION, header::SPEC_VERSION),
        (header::CE_ID, checked.event_id.encode(&mut [0; 36])),
        (header::CE_TYPE, checked.event_type.as_str()),
        (header::CE_SOURCE, source.as_str()),
        (header::CE_TIME, &checked.occurred_at.to_string()),
        (header::CONTENT_TYPE, header::CONTENT_TYPE_JSON),
    ] {
        headers::encode(room, name, value.as_bytes());
    }
    let headers = Headers::read(room.split().freeze()).unwrap_or_default();
    // Memory takes everything.
    let _ = receipt.splice(kept.bytes(event).unwrap_or(b"{}"), &mut room.writer());
    let value = room.split().freeze();
    NewRecord { topic: Topic::Events, key, partition: None, headers, value }
}

/// Bytes that most records have beside their event, at most; the room of the others grows.
pub(crate) const RECORD_ROOM: usize = RECEIPT_ROOM + 128;

/// What stands on `rivulet.quarantine`.
#[derive(Serialize)]
struct Quarantined<'a> {
    event_id: Option<EventId>,
    received_at: Timestamp,
    source: &'a SourceName,
    status: schemas::verdict::Status,
    reason: &'a Reason,
    /// The bytes, where they are UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_base64: Option<String>,
    /// Where values were replaced or dropped in `raw`.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    redacted: &'a [String],
    /// The bytes are not kept: what is personal in them cannot be told.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    withheld: bool,
    /// Of the whole event as it came, before redaction and cut.
    length: usize,
    sha256: String,
    /// When the sender's clock said that it sent, if it could be read: a replay corrects times by it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
}

/// The record of a refused event.
pub(crate) fn quarantine_record(
    event: &[u8],
    what: &Kept,
    refusal: &Refusal,
    transmission: &Transmission,
    sent_at: SentAt,
    max_bytes: usize,
) -> NewRecord {
    let all = what.bytes(event).unwrap_or_default();
    let kept = all.get(..max_bytes).unwrap_or(all);
    // A cut inside a character leaves at most three bytes that are not UTF-8 on their own.
    let raw = match std::str::from_utf8(kept) {
        Ok(text) => Some(text),
        Err(error) if kept.len() < all.len() && error.error_len().is_none() => {
            kept.get(..error.valid_up_to()).and_then(|whole| std::str::from_utf8(whole).ok())
        }
        Err(_) => None,
    };
    let withheld = *what == Kept::DigestOnly;
    let keeps_sender = refusal.remains == Remains::Bytes && refusal.objected.is_none();
    let raw = raw.filter(|_| !withheld);
    let sha256 = hex(&Sha256::digest(event));
    // An event without readable id is keyed by its content: no key at all would put all of them in one partition.
    let key = refusal.event_id.map_or_else(|| sha256.clone(), |id| id.to_string());
    let value = Quarantined {
        event_id: refusal.event_id,
        received_at: transmission.received_at,
        source: &transmission.key.source,
        status: refusal.status,
        reason: &refusal.reason,
        raw,
        raw_base64: (raw.is_none() && !withheld).then(|| STANDARD.encode(kept)),
        redacted: what.pointers(),
        withheld,
        length: event.len(),
        sha256,
        sent_at: match sent_at {
            SentAt::At(instant) | SentAt::Roughly(instant) => Some(instant),
            SentAt::Absent | SentAt::After(_) | SentAt::Unreadable => None,
        },
        ip: transmission.ip.as_deref().filter(|_| keeps_sender),
        user_agent: transmission.user_agent.as_deref().filter(|_| keeps_sender),
    };
    NewRecord {
        topic: Topic::Quarantine,
        key: key.into(),
        partition: None,
        headers: Headers::of([(header::CONTENT_TYPE, header::CONTENT_TYPE_JSON)]),
        value: serde_json::to_vec(&value).unwrap_or_default().into(),
    }
}

/// Two digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
