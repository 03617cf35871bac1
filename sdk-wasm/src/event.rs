//! An event's JSON, put together from strings that the host's serialiser made.
//!
//! **Invariant:** the text begins with `{"event_id":"<36 letters>"`, by which a stored event is recognised.

use alloc::string::String;

use crate::id::EventId;
use crate::identity::{Identity, Session};
use crate::input::Tracked;

const HEAD: &str = r#"{"event_id":""#;

/// The event's JSON.
pub(crate) fn json(id: EventId, who: &Identity, session: Session, event: &Tracked<'_>) -> String {
    let mut out = String::with_capacity(256 + event.metadata_json.len() + event.context_json.len());
    out.push_str(HEAD);
    id.push(&mut out);
    out.push_str(r#"","event_type":"#);
    out.push_str(event.type_json);
    if let Some(user) = &who.user_json {
        out.push_str(r#","user_id":"#);
        out.push_str(user);
    }
    if let Some(device) = who.anonymous {
        out.push_str(r#","anonymous_id":""#);
        device.push(&mut out);
        out.push('"');
    }
    out.push_str(r#","timestamp":""#);
    out.push_str(event.timestamp);
    out.push_str(r#"","session_id":""#);
    session.id.push(&mut out);
    out.push_str(r#"","metadata":"#);
    out.push_str(event.metadata_json);
    out.push_str(r#","context":"#);
    out.push_str(event.context_json);
    out.push('}');
    out
}

/// Whether a stored text is an event of this id as [`json`] writes it.
pub(crate) fn is_event(text: &str, id: EventId) -> bool {
    let rest = text.strip_prefix(HEAD);
    rest.and_then(|rest| rest.get(..36)).and_then(EventId::parse) == Some(id)
        && text.ends_with('}')
        && text.bytes().all(|byte| byte >= 0x20)
}
