//! The task that carries the spool to the broker.
//!
//! **Invariant:** records go out in the order of the spool, at most `in_flight` at once; after an error the client is given up
//! and the spool is read again from the acknowledged positions.

use std::sync::Arc;
use std::time::Duration;

use schemas::partition;
use schemas::topic::{PartitionId, Topic, TopicPartition};
use schemas::verdict::AckLevel;
use tokio::time::{Instant, timeout};

use super::position::Position;
use super::progress::Step;
use super::unpublishable::Unpublishable;
use super::{Inner, SPOOL, decode};
use crate::embedded::{NOTE_BYTES, Room, Stored, locked};
use crate::kafka::{Delivery, Outgoing, Producer, SendError, Topics, blocking, record_bytes};
use crate::log::{NewRecord, ReadError, ReadLimit};

/// How long anything is waited for before the state of things is looked at again.
const LOOK: Duration = Duration::from_millis(100);
/// The first wait after an error; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest wait after an error.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// Records read from the spool at once.
const READ_RECORDS: usize = 1_000;
/// Bytes read from the spool at once.
const READ_BYTES: usize = 2 << 20;

/// Why a session with one client ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The spool closes.
    Stopped,
    /// The client is no longer of use.
    Broken,
    /// The topics are not what they were.
    Changed,
}

/// One client and what it works with.
struct Session<'a> {
    inner: &'a Arc<Inner>,
    topics: Arc<Topics>,
    producer: Producer,
}

/// Publishes until the spool closes.
pub(crate) async fn publish(inner: Arc<Inner>) {
    let mut pause = FIRST_PAUSE;
    let mut checked = false;
    while let Some(topics) = wait_for_topics(&inner).await {
        if !checked {
            check_counts(&inner, &topics);
            checked = true;
        }
        let before = locked(&inner.progress).low();
        let end = session(&inner, topics).await;
        persist(&inner, true).await;
        match end {
            End::Stopped => return,
            End::Changed => checked = false,
            End::Broken => {
                inner.counters.produce_errors.add(1);
                inner.counters.producer_restarts.add(1);
                let moved = locked(&inner.progress).low() > before;
                pause = if moved { FIRST_PAUSE } else { (pause * 2).min(LAST_PAUSE) };
                let _ = timeout(pause, inner.stop.clone().wait_for(|stop| *stop)).await;
            }
        }
    }
    persist(&inner, true).await;
}

/// Positions by partition count only as long as the partitions are the same.
fn check_counts(inner: &Inner, topics: &Topics) {
    let counts = counts(topics);
    let mut stored = locked(&inner.counts);
    if !stored.is_empty() && *stored != counts {
        tracing::warn!("partition counts have changed; records above the lowest position may be repeated");
        locked(&inner.progress).forget_partitions();
    }
    *stored = counts;
}

pub(crate) fn counts(topics: &Topics) -> Vec<(Topic, u32)> {
    Topic::ALL.iter().filter_map(|topic| Some((*topic, topics.known(*topic)?))).collect()
}

/// The topics, once a broker has told; `None` when the spool closes first.
async fn wait_for_topics(inner: &Inner) -> Option<Arc<Topics>> {
    let (mut topics, mut stop) = (inner.kafka.topics(), inner.stop.clone());
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return None,
            known = topics.wait_for(Option::is_some) => {
                if let Some(topics) = known.ok()?.clone() {
                    return Some(topics);
                }
            }
        }
    }
}

async fn session(inner: &Arc<Inner>, topics: Arc<Topics>) -> End {
    let generation = locked(&inner.progress).begin();
    inner.places.begin();
    let told = Arc::clone(inner);
    let on_delivery = move |(delivery, _): (Delivery, _)| {
        // First: what no longer waits is to be found where it stands.
        if let Ok(place) = delivery.result {
            told.places.placed(delivery.ticket, place);
        }
        if locked(&told.progress).deliver(generation, &delivery) {
            told.counters.published_records.add(1);
        }
        told.moved.notify_one();
    };
    let producer =
        match Producer::new(inner.kafka.config(), inner.kafka.link(), Some(&topics), Arc::new(on_delivery)) {
            Ok(producer) => producer,
            Err(error) => {
                tracing::error!(%error, "no client for the broker can be made");
                return End::Broken;
            }
        };
    let session = Session { inner, topics, producer };
    let end = session.run().await;
    if end == End::Broken {
        tracing::warn!(
            "delivery to the broker failed; going on from the acknowledged positions with a new client"
        );
    }
    // Gives up what is under way, which is answered with errors that no longer count.
    let producer = session.producer;
    let _ = blocking(move || drop(producer)).await;
    end
}

impl Session<'_> {
    async fn run(&self) -> End {
        loop {
            if let Some(end) = self.over() {
                return end;
            }
            persist(self.inner, false).await;
            if self.has_changed() {
                // What is under way comes to its end first.
                let _ = timeout(LOOK, self.inner.moved.notified()).await;
                continue;
            }
            let next = locked(&self.inner.progress).next();
            let limit = ReadLimit { max_records: READ_RECORDS, max_bytes: READ_BYTES, max_wait: LOOK };
            let records = match self.inner.streams.read(SPOOL, next, limit).await {
                Ok(records) => records,
                Err(ReadError::Expired { start }) => {
                    locked(&self.inner.progress).skip_to(start.0);
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read");
                    let _ = timeout(LAST_PAUSE, self.inner.stop.clone().wait_for(|stop| *stop)).await;
                    continue;
                }
            };
            for record in records {
                if let Err(end) = self.publish(record).await {
                    return end;
                }
            }
        }
    }

    /// Whether the session must end. A closing spool goes on until it is empty or told to stop.
    fn over(&self) -> Option<End> {
        if *self.inner.stop.borrow() {
            return Some(End::Stopped);
        }
        if self.producer.is_broken() {
            return Some(End::Broken);
        }
        (self.has_changed() && locked(&self.inner.progress).in_flight().0 == 0).then_some(End::Changed)
    }

    fn has_changed(&self) -> bool {
        let now = self.inner.kafka.topics().borrow().clone();
        now.is_some_and(|now| *now != *self.topics)
    }

    async fn publish(&self, stored: Stored) -> Result<(), End> {
        let offset = stored.stamp.offset;
        let Some(record) = decode(stored) else {
            tracing::error!("a record of the spool has no topic; it is left out");
            locked(&self.inner.progress).skip(offset);
            return Ok(());
        };
        let count = self.topics.partitions(record.topic);
        let chosen = record.partition.filter(|partition| partition.0 < count);
        let partition = chosen.unwrap_or_else(|| partition::for_key(&record.key, count));
        let at = TopicPartition { topic: record.topic, partition };
        let bytes = record_bytes(&record.key, &record.headers, &record.value);
        let max = self.topics.max_bytes(record.topic);
        loop {
            let step = self.next_step(offset, at, bytes, bytes > max);
            match step {
                Step::Skip => {
                    locked(&self.inner.progress).skip(offset);
                    return Ok(());
                }
                Step::Refused => return self.refuse(offset, at, record, bytes, max).await,
                Step::Send if self.send(offset, at, &record)? => return Ok(()),
                Step::Send | Step::Wait => {
                    let _ = timeout(LOOK, self.inner.moved.notified()).await;
                    persist(self.inner, false).await;
                }
            }
            if let Some(end) = self.over().filter(|end| *end != End::Changed) {
                return Err(end);
            }
        }
    }

    /// What to do with a record; one that is to be sent counts as under way from here on.
    fn next_step(&self, offset: u64, at: TopicPartition, size: usize, too_large: bool) -> Step {
        let mut progress = locked(&self.inner.progress);
        let (records, bytes) = progress.in_flight();
        let config = &self.inner.config;
        match progress.step(offset, at) {
            Step::Send if too_large && progress.is_idle(at) => Step::Refused,
            Step::Send
                if too_large || records >= config.in_flight_records || bytes >= config.in_flight_bytes =>
            {
                Step::Wait
            }
            Step::Send => {
                progress.send(offset, at, size);
                Step::Send
            }
            step => step,
        }
    }

    /// Hands the record to the client; `false` when its queue is full.
    fn send(&self, offset: u64, at: TopicPartition, record: &NewRecord) -> Result<bool, End> {
        self.inner.places.sent(offset, record);
        let NewRecord { topic, key, headers, value, .. } = record;
        let outgoing = Outgoing { topic: *topic, partition: at.partition, key, headers, value };
        match self.producer.send(&outgoing, offset, None) {
            Ok(()) => Ok(true),
            Err(SendError::Full) => {
                locked(&self.inner.progress).unsend(offset);
                Ok(false)
            }
            Err(SendError::Refused(error)) => {
                locked(&self.inner.progress).unsend(offset);
                tracing::warn!(%error, "the client refuses a record");
                Err(End::Broken)
            }
        }
    }

    /// Puts what stands for the record into the spool first, then passes over it.
    async fn refuse(
        &self,
        offset: u64,
        at: TopicPartition,
        record: NewRecord,
        bytes: usize,
        max: usize,
    ) -> Result<(), End> {
        self.inner.counters.unpublishable_records.add(1);
        // The broker may know a lower limit than it has told us.
        let max = max.min(bytes.saturating_sub(1));
        tracing::warn!(topic = %at.topic, bytes, max, "a record is larger than its topic takes");
        // It goes through the spool as well, and what fits the topic has to fit there.
        let spool_max =
            self.inner.streams.record_max_bytes().saturating_sub(encode_place(at.topic, None).len());
        let quarantine_max = self.topics.max_bytes(Topic::Quarantine).min(spool_max);
        let found_at = self.inner.clock.now();
        let refused = Unpublishable { record, bytes, max, quarantine_max, found_at };
        if let Some(instead) = (self.inner.config.on_unpublishable)(&refused) {
            // A full disk is emptied by publishing, and this comes first.
            let put = || self.inner.take(vec![instead.clone()], AckLevel::Disk, Room::Headroom);
            loop {
                match put().await.map(|answers| answers.into_iter().find_map(Result::err)) {
                    Ok(None) => break,
                    Ok(Some(error)) => {
                        tracing::error!(%error, "a record that its topic does not take is lost: quarantine does not take it");
                        break;
                    }
                    Err(error) => tracing::error!(%error, "quarantine cannot be written"),
                }
                let _ = timeout(LAST_PAUSE, self.inner.stop.clone().wait_for(|stop| *stop)).await;
                if *self.inner.stop.borrow() {
                    return Err(End::Stopped);
                }
            }
        }
        locked(&self.inner.progress).refuse(offset, at, bytes, max);
        Ok(())
    }
}

/// Stores the position, when that is due, and lets go of what lies before it.
pub(crate) async fn persist(inner: &Arc<Inner>, now: bool) {
    let due = {
        let mut last = locked(&inner.persisted);
        let due = now || last.0.elapsed() >= inner.config.persist_interval;
        if due {
            last.0 = Instant::now();
        }
        due
    };
    if !due {
        return;
    }
    let position = {
        let progress = locked(&inner.progress);
        Position {
            low: progress.low(),
            ahead: progress.acknowledged(),
            counts: locked(&inner.counts).clone(),
        }
    };
    if locked(&inner.persisted).1.as_ref() == Some(&position) {
        return;
    }
    let (stored, to) = (position.clone(), Arc::clone(inner));
    let store = move || {
        // Before the position: what is not noted is then published, and noted, again after a crash.
        let noted = to.places.write(to.clock.now(), to.streams.roomy());
        (stored.store(to.streams.files(), to.streams.dir()), noted)
    };
    let outcome = blocking(store).await.map(|(stored, noted)| {
        if let Err(error) = noted {
            tracing::warn!(error = %error.kind(), "where records stand on the broker could not be noted");
        }
        stored
    });
    match outcome {
        Some(Ok(())) => {
            inner.streams.hold(super::CONSUMER, SPOOL, position.low);
            inner.streams.retain();
            locked(&inner.persisted).1 = Some(position);
        }
        Some(Err(error)) => tracing::warn!(error = %error.kind(), "the spool's position cannot be stored"),
        None => {}
    }
}

/// Where a record goes, as the first header of its place in the spool.
pub(crate) fn encode_place(topic: Topic, partition: Option<PartitionId>) -> [u8; NOTE_BYTES] {
    let number = Topic::ALL.iter().position(|other| *other == topic).unwrap_or_default();
    let [a, b, c, d] = partition.map_or(0, |partition| partition.0).to_le_bytes();
    [u8::try_from(number).unwrap_or(u8::MAX), u8::from(partition.is_some()), a, b, c, d]
}
