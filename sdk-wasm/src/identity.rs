//! Who: the device's id, the known person, the device's session.
//!
//! **Invariant:** a session's id is the id of its first event, and it ends after 30 minutes without one. A device that has no id
//! yet takes that of its first event.

use alloc::string::String;

use schemas::wire::push_number;

use crate::input::Millis;
use crate::packed::{cut, number};

/// A session ends after so long without an event.
const SESSION_GAP_MS: Millis = 30.0 * 60.0 * 1000.0;
/// The stored time of the session's last event may be older than the truth by this much, which spares writes.
const SESSION_WRITE_MS: Millis = 10_000.0;

/// Who the events are about. Texts are empty where nothing is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    /// The device's id.
    pub(crate) device: String,
    /// The person's id as a JSON string.
    pub(crate) user_json: String,
    /// The present session's id.
    pub(crate) session: String,
    /// Its last event.
    last: Millis,
    written: Millis,
}

impl Identity {
    /// Reads the stored session: id, space, milliseconds in digits.
    pub(crate) fn read_session(&mut self, text: &str) {
        if let Some((id, last)) = cut(text, b' ') {
            self.session = id.into();
            self.last = number(last);
        }
    }

    /// The stored form.
    pub(crate) fn write_session(&self, out: &mut String) {
        out.push_str(&self.session);
        out.push(' ');
        push_number(out, self.last);
    }

    /// An event at `now`, whose id starts a new session where the old has ended. Says whether to store the session.
    pub(crate) fn touch(&mut self, now: Millis, id: &str) -> bool {
        let mut store = false;
        // A clock that was set back does not end a session.
        if self.session.is_empty() || now >= self.last + SESSION_GAP_MS {
            self.session = id.into();
            self.last = now;
            store = true;
        }
        if now > self.last {
            self.last = now;
        }
        if store || self.last >= self.written + SESSION_WRITE_MS {
            self.written = self.last;
            store = true;
        }
        store
    }
}

/// Whether a stored text is a JSON string, so that a damaged store cannot damage events.
pub(crate) fn is_json_string(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return false;
    };
    let mut escaped = false;
    for byte in inner.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' | 0..=0x1f => return false,
            _ => {}
        }
    }
    !escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_its_first_events_id_and_ends_after_half_an_hour() {
        let mut who = Identity::default();
        let mut session = |now, id| {
            who.touch(now, id);
            who.session.clone()
        };
        assert_eq!(session(1_000_000.0, "first"), "first");
        assert_eq!(session(1_000_000.0 + SESSION_GAP_MS - 1.0, "second"), "first");
        assert_eq!(session(1_000_000.0 + 2.0 * SESSION_GAP_MS, "third"), "third");
        assert_eq!(session(0.0, "fourth"), "third", "the clock was set back");
    }

    #[test]
    fn a_session_is_read_back_as_written() {
        let mut who = Identity::default();
        who.touch(1_714_054_985_123.0, "id");
        let mut text = String::new();
        who.write_session(&mut text);
        assert_eq!(text, "id 1714054985123");
        let mut again = Identity::default();
        again.read_session(&text);
        assert!(!again.touch(1_714_054_985_124.0, "other") || again.session == "id");
        assert_eq!(again.session, "id");
    }

    #[test]
    fn only_whole_json_strings_are_believed() {
        for (text, right) in [
            (r#""u1""#, true),
            (r#""a\"b""#, true),
            (r#""a"b""#, false),
            (r#""a\""#, false),
            ("u1", false),
            ("\"", false),
        ] {
            assert_eq!(is_json_string(text), right, "{text}");
        }
    }
}
