//! The part of the contract that the browser engine shares: writing `batch` and `hello` frames and bodies around events that
//! are JSON already, and pulling the few facts the engine needs out of the server's frames and answers.
//!
//! No `std`, no dependencies, no JSON tree, no `format!`, no floats: in a browser each of them costs more bytes than this file.
//!
//! **Invariant:** what is written here parses as the client frames of `frame`, and every server frame that serde writes is read
//! back to the same facts (property tests in `frame`). Unknown members and any order of members are fine; no input panics,
//! and none recurses.

mod read;
#[allow(
    clippy::single_char_add_str,
    reason = "one call for every text is smaller than a push that is inlined"
)]
mod write;

pub use read::{Frame, FrameKind, Verdicts, WireLimits, WireStatus, WireVerdict, member, member_text};
pub use write::{batch_head, hello_frame, push_discarded, push_events, push_number, push_string};

/// The frame that keeps a silent connection open.
pub const PING_FRAME: &str = r#"{"type":"ping"}"#;
