//! Carries decisions back to the page whose own events caused them.
//!
//! A session is a client's conversation across sockets. It remembers the ids of the events it sent; a decision names the event
//! that triggered it, and so finds its session. Decisions are kept until the client is known to have them: each is followed by
//! a WebSocket ping with its number, and the pong confirms everything before it. After a cut they are sent again, so a client
//! may see one twice, and tells them apart by `decision_id`.
//!
//! **Invariant:** a decision reaches only the session that sent its trigger; sessions, ids and decisions kept are bounded by
//! configuration; the oldest go first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use broker::log::{ReadError, ReadLimit, SharedLog};
use schemas::decision::Decision;
use schemas::id::{EventId, SourceName};
use schemas::time::Timestamp;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};
use tokio::sync::Notify;

use crate::config::{GatewayConfig, SocketConfig};
use crate::drain::Drain;
use crate::telemetry::Metrics;

/// Answered batches remembered above the cumulative position; more means that the client skipped one for good.
const MAX_ANSWERED_ABOVE: usize = 64;
/// Pause before the log is asked again after it failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Sessions without socket are looked for this many times within their life.
const SWEEPS_PER_TTL: i64 = 10;

/// One socket's hold on a session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    id: Arc<str>,
    /// A later socket that resumes the session has a higher one.
    generation: u64,
}

/// What a client is told when its session begins or goes on.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) session: Session,
    /// Highest `seq` below which everything is answered.
    pub(crate) resumed: u64,
    /// Told when there is something to send, or the session was taken over.
    pub(crate) wake: Arc<Notify>,
}

/// As many sessions as can be held have open sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many sessions")]
pub(crate) struct Full;

/// A decision's frame and its number within the session.
pub(crate) type Numbered = (u64, Arc<str>);

#[derive(Debug)]
pub(crate) struct PushHub {
    config: SocketConfig,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<Arc<str>, Held>,
    triggers: HashMap<EventId, Arc<str>>,
    next_sweep: Timestamp,
}

#[derive(Debug)]
struct Held {
    source: SourceName,
    generation: u64,
    detached_at: Option<Timestamp>,
    cumulative: u64,
    answered_above: BTreeSet<u64>,
    ids: VecDeque<EventId>,
    decisions: VecDeque<Numbered>,
    next_number: u64,
    wake: Arc<Notify>,
}

impl Session {
    /// The name that the client resumes by.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

impl PushHub {
    pub(crate) fn new(config: &GatewayConfig, metrics: &Metrics) -> Self {
        Self { config: config.socket.clone(), metrics: metrics.clone(), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with a session, if it is known and of the same source, or begins one under the name `fresh`.
    pub(crate) fn open(
        &self,
        resume: Option<&str>,
        fresh: String,
        source: &SourceName,
        now: Timestamp,
    ) -> Result<Opened, Full> {
        let mut state = self.lock();
        state.sweep(now, &self.config);
        let known = resume.and_then(|id| state.sessions.get_key_value(id));
        let known = known.filter(|(_, held)| held.source == *source).map(|(id, _)| Arc::clone(id));
        if let Some(id) = known
            && let Some(held) = state.sessions.get_mut(&id)
        {
            held.generation += 1;
            held.detached_at = None;
            // The socket before this one finds out that it was succeeded; it has its own handle.
            held.wake.notify_one();
            held.wake = Arc::new(Notify::new());
            held.wake.notify_one();
            let session = Session { id, generation: held.generation };
            return Ok(Opened { session, resumed: held.cumulative, wake: Arc::clone(&held.wake) });
        }
        if state.sessions.len() >= self.config.sessions && !state.forget_oldest_detached() {
            return Err(Full);
        }
        let id: Arc<str> = fresh.into();
        let wake = Arc::new(Notify::new());
        let held = Held {
            source: source.clone(),
            generation: 1,
            detached_at: None,
            cumulative: 0,
            answered_above: BTreeSet::new(),
            ids: VecDeque::new(),
            decisions: VecDeque::new(),
            next_number: 1,
            wake: Arc::clone(&wake),
        };
        state.sessions.insert(Arc::clone(&id), held);
        Ok(Opened { session: Session { id, generation: 1 }, resumed: 0, wake })
    }

    /// The socket is gone; the session waits for another.
    pub(crate) fn detach(&self, session: &Session, now: Timestamp) {
        let mut state = self.lock();
        if let Some(held) = state.held(session) {
            held.detached_at = Some(now);
        }
    }

    /// Remembers that these events are the session's own. Who sent an id first keeps it.
    pub(crate) fn expect(&self, session: &Session, ids: &mut dyn Iterator<Item = EventId>) {
        let mut state = self.lock();
        let State { sessions, triggers, .. } = &mut *state;
        let Some(held) = sessions.get_mut(&session.id) else { return };
        for id in ids {
            if let std::collections::hash_map::Entry::Vacant(vacant) = triggers.entry(id) {
                vacant.insert(Arc::clone(&session.id));
                held.ids.push_back(id);
            }
            if held.ids.len() > self.config.session_ids
                && let Some(oldest) = held.ids.pop_front()
            {
                triggers.remove(&oldest);
            }
        }
    }

    /// Books a batch as answered; returns the position below which all are.
    pub(crate) fn answered(&self, session: &Session, seq: u64) -> u64 {
        let mut state = self.lock();
        let Some(held) = state.held(session) else { return 0 };
        if seq > held.cumulative && held.answered_above.len() < MAX_ANSWERED_ABOVE {
            held.answered_above.insert(seq);
        }
        while held.answered_above.remove(&(held.cumulative.saturating_add(1))) {
            held.cumulative += 1;
        }
        held.cumulative
    }

    /// Frames of decisions numbered above `sent`; `None` if another socket has taken the session over.
    pub(crate) fn decisions_after(&self, session: &Session, sent: u64) -> Option<Vec<Numbered>> {
        let mut state = self.lock();
        let held = state.held(session)?;
        Some(held.decisions.iter().filter(|(number, _)| *number > sent).cloned().collect())
    }

    /// The client has every decision up to this number.
    pub(crate) fn confirm(&self, session: &Session, number: u64) {
        let mut state = self.lock();
        if let Some(held) = state.held(session) {
            while held.decisions.front().is_some_and(|(first, _)| *first <= number) {
                held.decisions.pop_front();
            }
        }
    }

    /// Hands a decision to the session that sent its trigger, if there is one.
    fn deliver(&self, trigger: EventId, frame: &str) {
        let mut state = self.lock();
        let State { sessions, triggers, .. } = &mut *state;
        let Some(held) = triggers.get(&trigger).and_then(|id| sessions.get_mut(id)) else { return };
        held.decisions.push_back((held.next_number, frame.into()));
        held.next_number += 1;
        if held.decisions.len() > self.config.session_decisions {
            held.decisions.pop_front();
            self.metrics.decisions_dropped.inc();
        }
        held.wake.notify_one();
    }
}

impl State {
    /// The session, if this socket still is the one that holds it.
    fn held(&mut self, session: &Session) -> Option<&mut Held> {
        self.sessions.get_mut(&session.id).filter(|held| held.generation == session.generation)
    }

    fn sweep(&mut self, now: Timestamp, config: &SocketConfig) {
        if now < self.next_sweep {
            return;
        }
        let ttl = i64::try_from(config.session_ttl_ms).unwrap_or(i64::MAX);
        self.next_sweep = now.plus_millis(ttl / SWEEPS_PER_TTL);
        let oldest = now.plus_millis(ttl.saturating_neg());
        let expired = self.sessions.iter().filter(|(_, held)| held.detached_at.is_some_and(|at| at < oldest));
        let expired: Vec<Arc<str>> = expired.map(|(id, _)| Arc::clone(id)).collect();
        for id in expired {
            self.forget(&id);
        }
    }

    fn forget_oldest_detached(&mut self) -> bool {
        let detached =
            self.sessions.iter().filter_map(|(id, held)| Some((held.detached_at?, Arc::clone(id))));
        let Some((_, oldest)) = detached.min() else { return false };
        self.forget(&oldest);
        true
    }

    fn forget(&mut self, id: &str) {
        if let Some(held) = self.sessions.remove(id) {
            for id in held.ids {
                self.triggers.remove(&id);
            }
        }
    }
}

/// Starts the tasks that read decisions as they are written, until the hub is gone or the gateway drains.
pub(crate) fn subscribe(hub: &Arc<PushHub>, log: &SharedLog, drain: &Arc<Drain>) {
    let (hub, log, drain) = (Arc::downgrade(hub), Arc::clone(log), Arc::clone(drain));
    tokio::spawn(async move {
        let partitions = loop {
            match log.partitions(Topic::Decisions).await {
                Ok(partitions) => break partitions,
                Err(ReadError::Closed) => return,
                Err(error) => tracing::debug!(%error, "decisions cannot be read yet"),
            }
            if hub.strong_count() == 0 || drain.has_begun() {
                return;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        };
        for partition in (0..partitions).map(PartitionId) {
            let (hub, log, drain) = (hub.clone(), Arc::clone(&log), Arc::clone(&drain));
            tokio::spawn(async move {
                tokio::select! {
                    () = drain.begun() => {}
                    () = follow(&hub, &log, TopicPartition { topic: Topic::Decisions, partition }) => {}
                }
            });
        }
    });
}

/// Reads one partition from its end.
async fn follow(hub: &Weak<PushHub>, log: &SharedLog, at: TopicPartition) {
    let mut from: Option<Offset> = None;
    loop {
        let records = match from {
            None => log.end_offset(at).await.map(|end| {
                from = Some(end);
                Vec::new()
            }),
            Some(offset) => log.read(at, offset, ReadLimit::default()).await,
        };
        let Some(hub) = hub.upgrade() else { return };
        match records {
            Ok(records) => {
                for record in records {
                    from = Some(record.offset.next());
                    match serde_json::from_slice::<Decision>(&record.value) {
                        Ok(decision) => hub.deliver(decision.trigger, &frame(&record.value)),
                        Err(error) => tracing::warn!(%at, offset = record.offset.0, %error, "not a decision"),
                    }
                }
            }
            Err(ReadError::Expired { start }) => from = Some(start),
            Err(ReadError::BeyondEnd { end }) => from = Some(end),
            Err(ReadError::Closed) => return,
            Err(ReadError::Unavailable(error)) => {
                tracing::debug!(%at, %error, "decisions cannot be read now");
                drop(hub);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// The frame around a record's own bytes, which are a JSON object.
fn frame(decision: &[u8]) -> String {
    format!("{{\"type\":\"decision\",\"decision\":{}}}", String::from_utf8_lossy(decision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn hub(sessions: usize) -> PushHub {
        let socket =
            SocketConfig { sessions, session_ids: 2, session_decisions: 2, ..SocketConfig::default() };
        PushHub::new(&GatewayConfig { socket, ..GatewayConfig::default() }, &Metrics::new(&testing::log()))
    }

    fn event(n: u8) -> EventId {
        EventId::from_bytes([n; 16])
    }

    fn open(hub: &PushHub, resume: Option<&str>, fresh: &str, now: i64) -> Result<Opened, Full> {
        hub.open(resume, fresh.to_owned(), &SourceName::new("web"), Timestamp(now))
    }

    fn frames(hub: &PushHub, session: &Session, sent: u64) -> Vec<String> {
        hub.decisions_after(session, sent).unwrap().into_iter().map(|(_, frame)| frame.to_string()).collect()
    }

    #[test]
    fn a_decision_reaches_only_the_session_that_sent_its_trigger_first() {
        let hub = hub(4);
        let (one, two) = (open(&hub, None, "one", 0).unwrap(), open(&hub, None, "two", 0).unwrap());
        hub.expect(&one.session, &mut [event(1)].into_iter());
        hub.expect(&two.session, &mut [event(1), event(2)].into_iter());
        hub.deliver(event(1), "a");
        hub.deliver(event(9), "nobody's");
        assert_eq!(frames(&hub, &one.session, 0), ["a"]);
        assert!(frames(&hub, &two.session, 0).is_empty());
    }

    #[test]
    fn a_resumed_session_gets_what_was_not_confirmed_and_the_old_socket_gets_nothing() {
        let hub = hub(4);
        let one = open(&hub, None, "one", 0).unwrap();
        hub.expect(&one.session, &mut [event(1), event(2)].into_iter());
        hub.deliver(event(1), "a");
        hub.deliver(event(2), "b");
        hub.confirm(&one.session, 1);
        assert_eq!(hub.answered(&one.session, 1), 1);
        assert_eq!(hub.answered(&one.session, 3), 1);
        assert_eq!(hub.answered(&one.session, 2), 3);
        let again = open(&hub, Some("one"), "other", 1).unwrap();
        assert_eq!((again.session.id(), again.resumed), ("one", 3));
        assert_eq!(frames(&hub, &again.session, 0), ["b"]);
        assert!(hub.decisions_after(&one.session, 0).is_none());
        hub.detach(&one.session, Timestamp(2));
        assert!(hub.decisions_after(&again.session, 0).is_some(), "the old socket cannot detach the new one");
    }

    #[test]
    fn sessions_ids_and_decisions_are_bounded() {
        let hub = hub(1);
        let one = open(&hub, None, "one", 0).unwrap();
        assert_eq!(open(&hub, None, "two", 0).unwrap_err(), Full);
        hub.expect(&one.session, &mut [event(1), event(2), event(3)].into_iter());
        for n in [1, 2, 2, 3] {
            hub.deliver(event(n), &n.to_string());
        }
        assert_eq!(
            frames(&hub, &one.session, 0),
            ["2", "3"],
            "event 1 is forgotten, the oldest decision too"
        );
        hub.detach(&one.session, Timestamp(0));
        let two = open(&hub, Some("unknown"), "two", 1).unwrap();
        assert_eq!((two.session.id(), two.resumed), ("two", 0));
        assert!(hub.lock().triggers.is_empty());
    }

    #[test]
    fn a_session_without_socket_is_forgotten_in_time_and_bound_to_its_source() {
        let hub = hub(4);
        let one = open(&hub, None, "one", 0).unwrap();
        hub.detach(&one.session, Timestamp(0));
        let other = hub.open(Some("one"), "x".to_owned(), &SourceName::new("app"), Timestamp(1)).unwrap();
        assert_eq!(other.session.id(), "x");
        assert_eq!(open(&hub, Some("one"), "y", 700_000).unwrap().session.id(), "y");
    }
}
