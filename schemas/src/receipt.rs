//! What the gateway adds to an event: the `receipt` member, spliced behind the sender's own bytes.
//!
//! **Invariant:** nothing a client sends can set a field of the receipt; the sender's bytes stay as they came.

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
}

impl Receipt {
    /// The event's bytes with the receipt as its last member. `event` is a scanned JSON object.
    pub fn splice(&self, event: &[u8]) -> Vec<u8> {
        let body = event.trim_ascii();
        let open = body.strip_suffix(b"}").unwrap_or(body).trim_ascii_end();
        let receipt = serde_json::to_vec(self).unwrap_or_default();
        let mut record = Vec::with_capacity(open.len() + receipt.len() + 16);
        record.extend_from_slice(open);
        if !open.ends_with(b"{") {
            record.push(b',');
        }
        record.extend_from_slice(b"\"receipt\":");
        record.extend_from_slice(&receipt);
        record.push(b'}');
        record
    }
}
