//! For hosts in Rust: the server's frames and answers as inputs. (The browser's shell does the same with `JSON.parse`.)
//!
//! **Invariant:** what is no frame, and what a stranger answered, becomes an input that removes nothing.

use alloc::string::String;

use schemas::wire::{Frame, FrameKind, WireStatus};

use crate::input::{Answer, Greeting, Input, Millis, Verdicts};

/// Hands a frame of the socket on as an input. Of a greeting the host itself needs the session: [`Frame::session`].
pub fn frame<R>(text: &str, run: impl FnOnce(&Input<'_>) -> R) -> R {
    let Some(frame) = read(text) else { return run(&Input::Heard) };
    let packed = pack(&frame);
    let number = |number: Option<u64>| number.map_or(0, saturating);
    let limits = frame.limits.unwrap_or_default();
    let input = match frame.kind {
        FrameKind::Hello => Input::Greeted(Greeting {
            resumed: number(frame.resumed),
            credit: number(frame.credit),
            event_bytes: saturating(limits.event_bytes),
            batch_bytes: saturating(limits.batch_bytes),
            batch_events: saturating(limits.batch_events),
        }),
        FrameKind::Ack => Input::Ack {
            seq: number(frame.seq),
            cumulative: number(frame.cumulative),
            credit: number(frame.credit),
            verdicts: Verdicts(packed.as_deref()),
        },
        FrameKind::Decision => match (frame.decision_id, frame.decision) {
            (Some(id), Some(json)) => Input::Decision { id, json },
            _ => Input::Heard,
        },
        FrameKind::Pace => Input::Pace(f64::from(number(frame.retry_after_ms))),
        FrameKind::Error => Input::Refused { code: frame.code.unwrap_or("frame.invalid") },
        FrameKind::Pong | FrameKind::Other => Input::Heard,
    };
    run(&input)
}

/// Hands the answer of a request on as an input; `status` is 0 if there was none.
pub fn answer<R>(
    request: u32,
    status: u32,
    retry_after: Millis,
    body: &str,
    run: impl FnOnce(&Input<'_>) -> R,
) -> R {
    let frame = read(body);
    let packed = frame.as_ref().and_then(pack);
    let code = frame.and_then(|frame| frame.code).unwrap_or_default();
    let verdicts = Verdicts(packed.as_deref());
    run(&Input::Http(Answer { request, status, retry_after, code, verdicts }))
}

/// The session that a greeting names, to be asked for after a cut.
pub fn session(text: &str) -> Option<&str> {
    read(text).filter(|frame| frame.kind == FrameKind::Hello)?.session
}

/// Raw control characters are no JSON, and separate fields.
fn read(text: &str) -> Option<Frame<'_>> {
    let clean = text.bytes().all(|byte| byte >= 0x20 || matches!(byte, b'\t' | b'\n' | b'\r'));
    if clean { Frame::read(text) } else { None }
}

fn pack(frame: &Frame<'_>) -> Option<String> {
    let mut out = String::new();
    for verdict in frame.verdicts() {
        if !out.is_empty() {
            out.push('\u{1f}');
        }
        let letter = match verdict.status {
            WireStatus::Accepted => "a",
            WireStatus::Duplicate => "d",
            WireStatus::Quarantined => "q",
            WireStatus::Rejected => "r",
            WireStatus::Retry | WireStatus::Unknown => "",
        };
        for text in [letter, "\u{1f}", verdict.event_id.unwrap_or_default(), "\u{1f}", verdict.json] {
            out.push_str(text);
        }
    }
    Some(out).filter(|out| !out.is_empty())
}

fn saturating(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
