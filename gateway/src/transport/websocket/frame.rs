//! Reads what a client says.
//!
//! **Invariant:** the events of a batch stay bytes, so that a broken one costs only itself; anything else that is not a frame of
//! the protocol is refused as a whole.

use schemas::frame::ClientHello;
use schemas::json::{self, Body, Kind, Member};
use schemas::verdict::{AckLevel, Code};

use super::ending::{CLOSE_FRAME, Ending};
use crate::decode::native::SentAt;

/// Deepest nesting of `hello` and `ping`.
const CONTROL_DEPTH: usize = 8;

/// What a client says.
pub(super) enum ClientFrame<'a> {
    Hello(ClientHello),
    Batch {
        seq: u64,
        sent_at: SentAt,
        ack: Option<AckLevel>,
        envelope: Vec<Member<'a>>,
        events: Vec<&'a [u8]>,
    },
    Ping,
}

/// Reads one frame. Events stay bytes, so that a broken one costs only itself.
pub(super) fn parse(text: &[u8], max_events: usize) -> Result<ClientFrame<'_>, Ending> {
    let body = json::split(text, max_events).map_err(|error| match error.code {
        Code::BatchTooManyEvents => Ending::with(
            CLOSE_FRAME,
            Code::BatchTooManyEvents,
            "Too many events in one batch; see `limits` in hello.",
        ),
        _ => Ending::not_a_frame(),
    })?;
    match body {
        Body::One(frame) => {
            let limits = json::Limits { max_depth: CONTROL_DEPTH };
            let members = json::object(frame, limits).map_err(|_| Ending::not_a_frame())?;
            match member_text(&members, "type").as_deref() {
                Some("hello") => {
                    serde_json::from_slice(frame).map(ClientFrame::Hello).map_err(|_| Ending::not_a_frame())
                }
                Some("ping") => Ok(ClientFrame::Ping),
                _ => Err(Ending::not_a_frame()),
            }
        }
        Body::Many { events, envelope } => {
            if member_text(&envelope, "type").as_deref() != Some("batch") {
                return Err(Ending::not_a_frame());
            }
            let seq = envelope.iter().find(|member| member.name == "seq" && member.kind == Kind::Number);
            let seq = seq.and_then(|member| std::str::from_utf8(member.value).ok()?.parse().ok());
            let ack = match envelope.iter().find(|member| member.name == "ack" && member.kind != Kind::Null) {
                Some(member) => {
                    let level = member.text().and_then(|word| AckLevel::parse(&word));
                    Some(level.ok_or_else(Ending::not_a_frame)?)
                }
                None => None,
            };
            let seq = seq.ok_or_else(Ending::not_a_frame)?;
            Ok(ClientFrame::Batch { seq, sent_at: SentAt::from_envelope(&envelope), ack, envelope, events })
        }
    }
}

fn member_text(members: &[Member<'_>], name: &str) -> Option<String> {
    members.iter().find(|member| member.name == name)?.text()
}
