//! WebSocket frames of `rivulet.v1`: JSON text, one object a message, told apart by `type`.
//!
//! Client: `hello`, then `batch` frames with rising `seq`, `ping`. Server: `hello`, one `ack` a batch (with the highest `seq`
//! below which everything is answered), `decision`, `pace`, `error`. `docs/protocol.md` is the specification.
//! The browser engine writes and reads the same frames with [`crate::wire`].

use serde::{Deserialize, Serialize};

use crate::decision::Decision;
use crate::verdict::{AckLevel, Code, Verdict};

/// The subprotocol's name in `Sec-WebSocket-Protocol`.
pub const SUBPROTOCOL: &str = "rivulet.v1";

/// What a client says besides `batch`, whose events are taken as raw bytes (see the gateway).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ClientHello {
    /// The write key, unless it came as `?key=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Name and version of the client, such as `rivulet-js/0.1.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk: Option<String>,
    /// The session to go on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// Compressions that the client can do both ways, the one it likes best first. Names that the server does not know are
    /// passed over, so that a newer client may list more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compression: Vec<String>,
}

/// A client's report of events that it dropped knowingly: one of the array `discarded` beside the `events` of a batch frame or a
/// body of `POST /v1/events`. It may come several times, and with a higher number each: what counts is an id's highest.
#[cfg_attr(feature = "describe", derive(schemars::JsonSchema))]
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Discarded {
    /// The report's own, a UUID.
    pub id: String,
    /// Why: `queue.full`, `event.expired` (no verdict for 7 days) or `event.too_large`.
    pub code: String,
    /// How many events.
    pub events: u64,
}

/// How a binary message is compressed, once `hello` has agreed on it. One message is one whole stream of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// RFC 1952; what `CompressionStream` of browsers does.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// The first of the client's that is known here.
    pub fn agree(offered: &[String]) -> Option<Self> {
        offered.iter().find_map(|name| match name.as_str() {
            "gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => None,
        })
    }

    /// Its name in `hello`, which is also its name as a `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// What the server says. Serialised with `type` first.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServerFrame {
    /// Answer to `hello`.
    Hello {
        /// Unguessable; name it in `resume` after a cut.
        session: String,
        /// Highest `seq` answered in the resumed session; 0 in a new one.
        resumed: u64,
        /// Batches the client may have unanswered at once.
        credit: u32,
        /// Milliseconds since 1970, for the client's clock offset.
        server_time: i64,
        /// What the server takes.
        limits: Limits,
        /// How binary messages are compressed from now on, both ways; absent: there are none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compression: Option<Compression>,
    },
    /// Answer to `batch`.
    Ack {
        /// The batch's own number.
        seq: u64,
        /// Everything up to here is answered.
        cumulative: u64,
        /// Batches the client may have unanswered at once, from now on.
        credit: u32,
        /// Milliseconds since 1970.
        server_time: i64,
        /// One verdict an event, in the order sent.
        events: Vec<Verdict>,
    },
    /// Something for the page to show.
    Decision {
        /// The decision.
        decision: Box<Decision>,
    },
    /// Answer to `ping`.
    Pong {
        /// Milliseconds since 1970.
        server_time: i64,
    },
    /// Send slower.
    Pace {
        /// Milliseconds to wait before the next batch.
        retry_after_ms: u64,
    },
    /// The connection ends; the close frame follows.
    Error {
        /// What is wrong.
        code: Code,
        /// In words.
        message: String,
    },
}

/// What the server takes, told in `hello` and at `GET /v1/limits`. Sizes in bytes, after inflation.
#[cfg_attr(feature = "describe", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Largest event.
    pub event_bytes: usize,
    /// Largest body or batch frame.
    pub batch_bytes: usize,
    /// Most events in a body or batch frame.
    pub batch_events: usize,
    /// Deepest nesting.
    pub depth: usize,
    /// The level that a batch is answered at unless it asks otherwise.
    pub ack: AckLevel,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes: 64 << 10,
            batch_bytes: 4 << 20,
            batch_events: 2_500,
            depth: 32,
            ack: AckLevel::Disk,
        }
    }
}

#[cfg(test)]
mod tests;
