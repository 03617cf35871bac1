//! Who: the device's id, the known person, the device's session.
//!
//! **Invariant:** a session's id is the id of its first event, and it ends after 30 minutes without one.

use alloc::string::String;

use crate::id::EventId;
use crate::packed::{cut, number};

/// A session ends after so long without an event.
const SESSION_GAP_MS: u64 = 30 * 60 * 1000;
/// The stored time of the session's last event may be older than the truth by this much, which spares writes.
const SESSION_WRITE_MS: u64 = 10_000;

/// The device's session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Session {
    pub(crate) id: EventId,
    pub(crate) last: u64,
}

impl Session {
    /// Reads the stored form: id, space, milliseconds in digits.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (id, last) = cut(text, b' ')?;
        Some(Self { id: EventId::parse(id)?, last: number(last)? })
    }

    /// The stored form.
    pub(crate) fn write(&self, out: &mut String) {
        self.id.push(out);
        out.push(' ');
        schemas::wire::push_u64(out, self.last);
    }
}

/// Who the events are about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    /// The device's id.
    pub(crate) anonymous: Option<EventId>,
    /// The person's id as a JSON string.
    pub(crate) user_json: Option<String>,
    /// The present session.
    pub(crate) session: Option<Session>,
    written: u64,
}

impl Identity {
    /// The session of an event at `now`, whose id starts a new one where the old has ended. The flag says whether to store it.
    pub(crate) fn touch(&mut self, now: u64, id: EventId) -> (Session, bool) {
        // A clock that was set back does not end a session.
        let session = match self.session {
            Some(session) if now < session.last.saturating_add(SESSION_GAP_MS) => {
                Session { last: session.last.max(now), ..session }
            }
            _ => Session { id, last: now },
        };
        let store = self.session.is_none_or(|old| old.id != session.id)
            || session.last >= self.written + SESSION_WRITE_MS;
        if store {
            self.written = session.last;
        }
        self.session = Some(session);
        (session, store)
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
    use crate::id::Mint;

    #[test]
    fn a_session_has_its_first_events_id_and_ends_after_half_an_hour() {
        let mut mint = Mint::default();
        let mut who = Identity::default();
        let mut event = |now| {
            let id = mint.next(now, [0; 4]);
            (id, who.touch(now, id).0.id)
        };
        let (first, session) = event(1_000_000);
        assert_eq!(session, first);
        assert_eq!(event(1_000_000 + SESSION_GAP_MS - 1).1, first);
        let (third, session) = event(1_000_000 + 2 * SESSION_GAP_MS);
        assert_eq!(session, third);
    }

    #[test]
    fn a_session_is_read_back_as_written() {
        let session = Session { id: Mint::default().next(5, [1; 4]), last: 1_714_054_985_123 };
        let mut text = String::new();
        session.write(&mut text);
        assert_eq!(Session::read(&text), Some(session));
        assert_eq!(Session::read("x 1"), None);
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
