//! A log in memory for tests, which fails when it is told to.
//!
//! **Invariant:** keeps the contract but survives nothing; never part of a build that is not a test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "used by tests alone, which fail by panicking"
)]

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use schemas::id::EventId;
use schemas::partition;
use schemas::time::Timestamp;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};
use schemas::verdict::AckLevel;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::log::{
    Answers, AppendError, Appended, Health, Log, LogFuture, NewRecord, ReadError, ReadLimit, Record,
    RecordError, Sighting,
};

/// The largest value, in bytes, until [`MemoryLog::takes_at_most`] says otherwise.
const MAX_BYTES: usize = 1 << 20;

/// What befalls an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing: it is written, and its caller hears of it.
    Heard,
    /// It is written, but its caller hears of a failure.
    Unheard,
    /// It is not written.
    Lost,
}

/// A machine that may die under the log.
pub trait Machine: Send + Sync {
    /// Asked for every append.
    fn on_append(&self) -> Effect;
    /// Whether reads fail.
    fn is_dead(&self) -> bool;
}

/// A log in memory.
pub struct MemoryLog {
    partitions: u32,
    now: Timestamp,
    state: Mutex<State>,
    /// An append waits for one permit.
    gate: Semaphore,
    grown: Notify,
    machine: Option<Arc<dyn Machine>>,
}

#[derive(Default)]
struct State {
    records: HashMap<TopicPartition, Vec<Record>>,
    /// Places in the order of writing.
    order: Vec<(TopicPartition, usize)>,
    holds: HashMap<TopicPartition, Offset>,
    failure: Option<AppendError>,
    max_bytes: usize,
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLog").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

impl MemoryLog {
    /// A log whose topics have that many partitions, with a clock that stands at `now`.
    pub fn new(partitions: u32, now: Timestamp) -> Self {
        Self {
            partitions,
            now,
            state: Mutex::new(State { max_bytes: MAX_BYTES, ..State::default() }),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            grown: Notify::new(),
            machine: None,
        }
    }

    /// The same on a machine that may die. Of its events nothing is kept that nobody holds: the worst retention there is.
    #[must_use]
    pub fn on(self, machine: Arc<dyn Machine>) -> Self {
        Self { machine: Some(machine), ..self }
    }

    /// From now on every append fails so; `None` ends that.
    pub fn fail(&self, error: Option<AppendError>) {
        self.state.lock().unwrap().failure = error;
    }

    /// From now on records with a larger value are refused.
    pub fn takes_at_most(&self, bytes: usize) {
        self.state.lock().unwrap().max_bytes = bytes;
    }

    /// From now on appends wait until [`Self::let_through`].
    pub fn hold_back(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets that many appends go on.
    pub fn let_through(&self, appends: usize) {
        self.gate.add_permits(appends);
    }

    /// Appends as another program would, past everything that this one is told to do.
    pub fn put(&self, record: NewRecord) -> (PartitionId, Offset) {
        let NewRecord { topic, key, partition, headers, value } = record;
        let partition = partition.unwrap_or_else(|| partition::for_key(&key, self.partitions));
        let at = TopicPartition { topic, partition };
        let mut state = self.state.lock().unwrap();
        let list = state.records.entry(at).or_default();
        let place = list.len();
        let offset = Offset(place as u64);
        list.push(Record { at, offset, appended_at: self.now, key, headers, value });
        state.order.push((at, place));
        drop(state);
        self.grown.notify_waiters();
        (partition, offset)
    }

    /// Whether its machine is dead.
    pub fn is_dead(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| machine.is_dead())
    }

    /// Where its consumers hold a topic, all partitions together.
    pub fn held(&self, topic: Topic) -> u64 {
        let state = self.state.lock().unwrap();
        state.holds.iter().filter(|(at, _)| at.topic == topic).map(|(_, from)| from.0).sum()
    }

    /// Every record of a topic, in the order of writing.
    pub fn records(&self, topic: Topic) -> Vec<Record> {
        let state = self.state.lock().unwrap();
        let places = state.order.iter().filter(|(at, _)| at.topic == topic);
        places.filter_map(|(at, place)| state.records.get(at)?.get(*place).cloned()).collect()
    }

    /// The next offset of every partition of a topic.
    pub fn ends(&self, topic: Topic) -> Vec<u64> {
        let end = |partition| self.end(TopicPartition { topic, partition: PartitionId(partition) }).0;
        (0..self.partitions).map(end).collect()
    }

    fn end(&self, at: TopicPartition) -> Offset {
        Offset(self.state.lock().unwrap().records.get(&at).map_or(0, Vec::len) as u64)
    }

    fn take(&self, record: NewRecord, want: AckLevel) -> Result<Appended, RecordError> {
        let max = self.state.lock().unwrap().max_bytes;
        if record.value.len() > max {
            return Err(RecordError::TooLarge { bytes: record.value.len(), max });
        }
        if let Some(partition) = record.partition.filter(|partition| partition.0 >= self.partitions) {
            return Err(RecordError::NoPartition(partition));
        }
        let place = self.put(record);
        let level = want.min(AckLevel::Disk);
        Ok(Appended { level, at: (level == AckLevel::Disk).then_some(place) })
    }

    /// What is there from an offset on, as far as the limit allows.
    fn there(&self, at: TopicPartition, from: Offset, limit: ReadLimit) -> Result<Vec<Record>, ReadError> {
        let state = self.state.lock().unwrap();
        if self.is_dead() {
            return Err(ReadError::Unavailable("dead".to_owned()));
        }
        let held = state.holds.get(&at).filter(|_| self.machine.is_some() && at.topic == Topic::Events);
        if let Some(start) = held.copied().filter(|start| from < *start) {
            return Err(ReadError::Expired { start });
        }
        let list = state.records.get(&at).map_or(&[][..], Vec::as_slice);
        let Some(rest) = usize::try_from(from.0).ok().and_then(|from| list.get(from..)) else {
            return Err(ReadError::BeyondEnd { end: Offset(list.len() as u64) });
        };
        let (mut found, mut bytes) = (Vec::new(), 0);
        for record in rest.iter().take(limit.max_records) {
            bytes += record.key.len() + record.value.len();
            if bytes > limit.max_bytes && !found.is_empty() {
                break;
            }
            found.push(record.clone());
        }
        Ok(found)
    }
}

impl Log for MemoryLog {
    fn append(&self, batch: Vec<NewRecord>, want: AckLevel) -> LogFuture<'_, Result<Answers, AppendError>> {
        Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            if let Some(error) = self.state.lock().unwrap().failure.clone() {
                return Err(error);
            }
            let effect = self.machine.as_ref().map_or(Effect::Heard, |machine| machine.on_append());
            let mut answers = Answers::new();
            if effect != Effect::Lost {
                answers.extend(batch.into_iter().map(|record| self.take(record, want)));
            }
            if effect == Effect::Heard {
                Ok(answers)
            } else {
                Err(AppendError::Unavailable("dead".to_owned()))
            }
        })
    }

    fn read(
        &self,
        at: TopicPartition,
        from: Offset,
        limit: ReadLimit,
    ) -> LogFuture<'_, Result<Vec<Record>, ReadError>> {
        Box::pin(async move {
            let deadline = Instant::now() + limit.max_wait;
            loop {
                let grown = self.grown.notified();
                tokio::pin!(grown);
                grown.as_mut().enable();
                let found = self.there(at, from, limit)?;
                if !found.is_empty() || timeout_at(deadline, grown).await.is_err() {
                    return Ok(found);
                }
            }
        })
    }

    fn find(&self, event_id: EventId) -> LogFuture<'_, Result<Vec<Sighting>, ReadError>> {
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            let records = state.order.iter().filter_map(|(at, place)| state.records.get(at)?.get(*place));
            let named = records.filter(|record| record.event_id() == Some(event_id));
            Ok(named.map(|record| Sighting { record: record.clone(), published: true }).collect())
        })
    }

    fn start_offset(&self, _: TopicPartition) -> LogFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async { Ok(Offset(0)) })
    }

    fn end_offset(&self, at: TopicPartition) -> LogFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async move { Ok(self.end(at)) })
    }

    fn partitions(&self, _: Topic) -> LogFuture<'_, Result<u32, ReadError>> {
        Box::pin(async { Ok(self.partitions) })
    }

    fn hold(&self, _: &str, at: TopicPartition, from: Offset) {
        // What is gone does not come back for a reader that fell behind its own hold.
        let mut state = self.state.lock().unwrap();
        let held = state.holds.entry(at).or_insert(from);
        *held = from.max(*held);
    }

    fn health(&self) -> Health {
        Health {
            admitting: self.state.lock().unwrap().failure.is_none(),
            disk: "ok".to_owned(),
            broker: "none".to_owned(),
            spooled_records: 0,
            spooled_bytes: 0,
            corrupted_records: 0,
            unpublishable_records: 0,
            disk_bytes: 0,
        }
    }

    fn close(&self) -> LogFuture<'_, ()> {
        Box::pin(async {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{self, Traits};

    #[tokio::test]
    async fn keeps_the_contract() {
        contract::check_all(&MemoryLog::new(8, Timestamp(0)), Traits::JOURNAL).await;
    }
}
