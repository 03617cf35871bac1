//! Sessions: what somebody did without a pause of more than the gap.
//!
//! **Edge rule:** an event joins a session when it lies at most [`Settings::gap_ms`] from its nearest end: exactly 30:00.000
//! joins, one millisecond more begins a new session. A session lasts at most [`Settings::cap_ms`].
//!
//! An event that bridges two sessions makes them one, which keeps the id of the earlier. Closed sessions are kept for a while
//! so that late events find theirs; an event that may belong to one no longer kept is late and changes no session.
//!
//! **Invariant:** the sessions of a profile never overlap, none is of negative length, and events of a session are counted once.

use schemas::id::EventId;
use schemas::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::codec::wire;
use crate::output::Outputs;

/// Sessions kept a profile, the newest first to stay.
pub const MAX_SESSIONS: usize = 6;
/// Namespace of session ids.
const SESSION_NAMESPACE: Uuid = Uuid::from_u128(0x8e24_6b0f_d371_5a1c_9f86_37d0_b25c_e418);

/// How sessions are cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The longest pause within a session, in milliseconds.
    pub gap_ms: i64,
    /// The longest session, in milliseconds.
    pub cap_ms: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { gap_ms: 30 * 60_000, cap_ms: 24 * 3_600_000 }
    }
}

/// One session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// A UUID, v5 of the event that began it as first seen; kept through merges.
    #[serde(with = "text")]
    pub id: Uuid,
    /// Its first event's time.
    pub started_at: Timestamp,
    /// Its last event's time.
    pub last_at: Timestamp,
    /// How many events.
    pub events: u64,
    /// Its end was told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// Its end was told and it changed since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reopened: bool,
}

wire!(Session { id, started_at, last_at, events, closed, reopened });

impl Session {
    fn begin(event: EventId, at: Timestamp) -> Self {
        let id = Uuid::new_v5(&SESSION_NAMESPACE, event.as_bytes());
        Self { id, started_at: at, last_at: at, events: 1, closed: false, reopened: false }
    }

    /// What changes tell of it: all but whether its end was told, which is nothing that happened to it.
    pub fn attribute(&self) -> String {
        crate::profile::view::ObjectWriter::default()
            .text("id", self.id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()))
            .value("started_at", &self.started_at)
            .value("last_at", &self.last_at)
            .value("events", &self.events)
            .end()
    }

    /// Whether another one tells the same.
    fn same_attribute(&self, other: &Self) -> bool {
        let told = |session: &Self| (session.id, session.started_at, session.last_at, session.events);
        told(self) == told(other)
    }

    /// Notes what changed from one current session to another.
    pub(crate) fn changed(old: Option<Self>, new: Option<&Self>, out: &mut Outputs) {
        if !old.as_ref().zip(new).is_some_and(|(old, new)| old.same_attribute(new)) {
            out.change("session", old.as_ref().map(Self::attribute), new.map(Self::attribute));
        }
    }

    /// Its length in milliseconds.
    pub const fn millis(&self) -> i64 {
        self.last_at.0 - self.started_at.0
    }

    fn touched(&mut self) {
        self.reopened |= self.closed;
        self.closed = false;
    }

    /// Makes this and a later session one, under this one's id.
    fn join(&mut self, later: &Self) {
        self.started_at = self.started_at.min(later.started_at);
        self.last_at = self.last_at.max(later.last_at);
        self.events += later.events;
        self.reopened |= self.closed || later.closed || later.reopened;
        self.closed = false;
    }

    fn hull_millis(&self, later: &Self) -> i64 {
        self.last_at.max(later.last_at).0 - self.started_at.min(later.started_at).0
    }
}

/// A session's id in JSON.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Uuid::try_parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The sessions that a profile keeps, in order of time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sessions {
    list: Vec<Session>,
    /// Where the newest session no longer kept ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forgotten: Option<Timestamp>,
}

wire!(Sessions { list, forgotten });

impl Sessions {
    /// The newest session.
    pub fn current(&self) -> Option<&Session> {
        self.list.last()
    }

    /// All that are kept, in order of time.
    pub fn list(&self) -> &[Session] {
        &self.list
    }

    /// Puts an event into its session. False when it is too late for that.
    pub fn record(&mut self, settings: Settings, event: EventId, at: Timestamp) -> bool {
        if self.forgotten.is_some_and(|end| at.0 <= end.0.saturating_add(settings.gap_ms)) {
            return false;
        }
        let right = self.list.partition_point(|session| session.started_at <= at);
        let left = right.checked_sub(1);
        if let Some(inside) =
            left.and_then(|left| self.list.get_mut(left)).filter(|session| at <= session.last_at)
        {
            inside.events += 1;
            inside.touched();
            return true;
        }
        let single = Session::begin(event, at);
        let joins = |other: &&Session| {
            let pause = if other.last_at < at { at.0 - other.last_at.0 } else { other.started_at.0 - at.0 };
            pause <= settings.gap_ms && other.hull_millis(&single) <= settings.cap_ms
        };
        let joins_left = left.and_then(|left| self.list.get(left)).as_ref().is_some_and(joins);
        let joins_right = self.list.get(right).as_ref().is_some_and(joins);
        match (left, joins_left, joins_right) {
            (Some(left), true, _) => {
                let later = self.list.get(right).filter(|_| joins_right).copied();
                if let Some(session) = self.list.get_mut(left) {
                    session.join(&single);
                    if let Some(later) = later.filter(|later| session.hull_millis(later) <= settings.cap_ms) {
                        session.join(&later);
                        self.list.remove(right);
                    }
                }
            }
            (_, _, true) => {
                if let Some(session) = self.list.get_mut(right) {
                    session.join(&single);
                }
            }
            _ => self.list.insert(right, single),
        }
        self.shrink();
        true
    }

    /// Takes another profile's sessions in. Those that overlap become one, whatever its length.
    pub fn merge(&mut self, settings: Settings, other: &Self) {
        self.forgotten = self.forgotten.max(other.forgotten);
        let mut all: Vec<Session> = self.list.drain(..).chain(other.list.iter().copied()).collect();
        all.sort_by_key(|session| (session.started_at, session.last_at, session.id));
        for next in all {
            match self.list.last_mut() {
                Some(last) if last.last_at >= next.started_at => last.join(&next),
                Some(last)
                    if next.started_at.0 - last.last_at.0 <= settings.gap_ms
                        && last.hull_millis(&next) <= settings.cap_ms =>
                {
                    last.join(&next);
                }
                _ => self.list.push(next),
            }
        }
        self.shrink();
    }

    /// Closes what ended before `now`; gives the sessions closed.
    pub fn close_due(&mut self, settings: Settings, now: Timestamp) -> Vec<Session> {
        let due = |session: &&mut Session| !session.closed && due_at(settings, session) <= now;
        let mut closed = Vec::new();
        for session in self.list.iter_mut().filter(due) {
            closed.push(*session);
            session.closed = true;
            session.reopened = false;
        }
        closed
    }

    /// When the next session that is open ends.
    pub fn next_due(&self, settings: Settings) -> Option<Timestamp> {
        self.list.iter().filter(|session| !session.closed).map(|session| due_at(settings, session)).min()
    }

    fn shrink(&mut self) {
        while self.list.len() > MAX_SESSIONS {
            let oldest = self.list.remove(0);
            self.forgotten = self.forgotten.max(Some(oldest.last_at));
        }
    }
}

/// The first instant at which no event can join the session's end any more.
fn due_at(settings: Settings, session: &Session) -> Timestamp {
    session.last_at.plus_millis(settings.gap_ms.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;
    /// 2026-01-01T10:00:00Z
    const TEN: i64 = 1_767_261_600_000;

    fn id(n: u8) -> EventId {
        EventId::from_bytes([n; 16])
    }

    fn at(minutes: i64) -> Timestamp {
        Timestamp(TEN + minutes * MINUTE)
    }

    #[test]
    fn a_late_event_joins_the_closed_session_and_corrects_its_close() {
        let settings = Settings::default();
        let mut sessions = Sessions::default();
        assert!(sessions.record(settings, id(1), at(0)));
        assert!(sessions.close_due(settings, at(30)).is_empty());
        let first = sessions.close_due(settings, at(31));
        assert_eq!(first.iter().map(|s| (s.events, s.reopened)).collect::<Vec<_>>(), [(1, false)]);
        assert!(sessions.record(settings, id(2), at(18)));
        assert_eq!(sessions.next_due(settings), Some(Timestamp(at(48).0 + 1)));
        let again = sessions.close_due(settings, at(49));
        assert_eq!(again.len(), 1);
        assert_eq!((&again[0].id, again[0].events, again[0].millis()), (&first[0].id, 2, 18 * MINUTE));
        assert!(again[0].reopened);
    }

    #[test]
    fn an_event_exactly_a_gap_away_joins_and_one_later_does_not() {
        let settings = Settings::default();
        let mut sessions = Sessions::default();
        sessions.record(settings, id(1), at(0));
        sessions.record(settings, id(2), at(30));
        assert_eq!(sessions.list().len(), 1);
        sessions.record(settings, id(3), Timestamp(at(60).0 + 1));
        assert_eq!(sessions.list().len(), 2);
    }

    #[test]
    fn an_earlier_event_moves_the_start_and_a_bridge_keeps_the_earlier_id() {
        let settings = Settings::default();
        let mut sessions = Sessions::default();
        sessions.record(settings, id(1), at(0));
        let first = sessions.list()[0].id;
        sessions.record(settings, id(2), at(-15));
        assert_eq!((sessions.list()[0].id, sessions.list()[0].started_at), (first, at(-15)));
        sessions.record(settings, id(3), at(50));
        assert_eq!(sessions.list().len(), 2);
        sessions.record(settings, id(4), at(25));
        assert_eq!(sessions.list().len(), 1);
        assert_eq!((sessions.list()[0].id, sessions.list()[0].events), (first, 4));
    }

    #[test]
    fn a_session_ends_at_the_cap() {
        let settings = Settings::default();
        let mut sessions = Sessions::default();
        for n in 0..=72 {
            sessions.record(settings, id(n), at(i64::from(n) * 20));
        }
        assert!(sessions.list().iter().all(|session| session.millis() <= settings.cap_ms));
        sessions.record(settings, id(99), at(73 * 20));
        assert_eq!(sessions.list().len(), 2);
    }

    #[test]
    fn an_event_of_a_forgotten_session_is_late() {
        let settings = Settings::default();
        let mut sessions = Sessions::default();
        for n in 0..10 {
            sessions.record(settings, id(n), at(i64::from(n) * 60));
        }
        assert_eq!(sessions.list().len(), MAX_SESSIONS);
        assert!(!sessions.record(settings, id(77), at(61)));
        assert!(sessions.record(settings, id(78), at(9 * 60 + 1)));
    }

    proptest! {
        #[test]
        fn sessions_never_overlap_and_count_every_event_once(
            minutes in prop::collection::vec((0_i64..3_000, 0_usize..8), 1..60),
            split in 0_usize..60,
        ) {
            let settings = Settings::default();
            let (mut one, mut two) = (Sessions::default(), Sessions::default());
            let mut counted = 0;
            for (n, (minute, close)) in minutes.iter().enumerate() {
                let target = if n < split { &mut one } else { &mut two };
                counted += u64::from(target.record(settings, id(u8::try_from(n).unwrap()), at(*minute)));
                if *close == 0 {
                    target.close_due(settings, at(*minute + 31));
                }
            }
            one.merge(settings, &two);
            prop_assert!(one.list().iter().all(|s| s.started_at <= s.last_at && s.events >= 1));
            prop_assert!(one.list().windows(2).all(|pair| pair[0].last_at < pair[1].started_at));
            if one.forgotten.is_none() {
                prop_assert_eq!(one.list().iter().map(|s| s.events).sum::<u64>(), counted);
            }
        }
    }
}
