//! Events as the log has them, for the tests of the step.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it; tests fail by panicking"
)]

use processor_core::*;
use schemas::event::LoggedEvent;
use schemas::id::{EventId, ProfileKey, SourceName};
use schemas::json::Limits;
use schemas::receipt::{Receipt, Trust};
use schemas::time::Timestamp;

/// 2026-01-01T12:00:00Z
pub const NOON: i64 = 1_767_268_800_000;
pub const MINUTE: i64 = 60_000;

pub fn id(n: u32) -> EventId {
    EventId::from_bytes(u128::from(n).to_be_bytes())
}

pub fn bytes(n: u32, at: i64, head: &str, trust: Trust) -> Vec<u8> {
    let receipt = Receipt {
        event_id: id(n),
        received_at: Timestamp(at),
        occurred_at: Timestamp(at),
        source: SourceName::new("web"),
        schema: None,
        trust,
        ip: None,
        user_agent: None,
        original_event_id: None,
        clamped_from: None,
        schema_fault: None,
        redacted: Vec::new(),
    };
    receipt.splice(format!("{{{head}}}").as_bytes())
}

pub fn feed(program: &Program, profile: &mut Profile, bytes: &[u8], now: i64) -> Outputs {
    let event = LoggedEvent::read(bytes, Limits::default()).unwrap();
    step(program, profile, Input::Event(&EventInput::new(&event)), Timestamp(now))
}

pub fn key(text: &str) -> ProfileKey {
    ProfileKey::parse(text).unwrap()
}

pub fn user(id: &str) -> Profile {
    Profile::new(key(&format!("user:{id}")))
}
