//! The journal in front of Kafka: appends are answered from this machine's disk, and a task carries them to the broker.
//!
//! **Invariant:** a broker that is away changes no answer of `append` but the level `broker`; every record taken is published
//! or, if its topic will never take it, in quarantine; first occurrences keep their order per key; a restart repeats only
//! records that were not yet known to be acknowledged.

mod places;
mod position;
mod progress;
mod publisher;
mod unpublishable;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use schemas::id::EventId;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};
use schemas::verdict::AckLevel;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use self::places::Places;
use self::position::Position;
use self::progress::{Outcome, Progress, Waiting};
pub use self::unpublishable::{OnUnpublishable, Unpublishable, quarantine};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::embedded::file::{FileLayer, RealFiles};
use crate::embedded::{
    Damage, Entry, JournalConfig, OpenError, Room, SPOOL_TOPIC, Stored, Stream, Streams, Take, locked,
};
use crate::kafka::{KafkaLog, blocking};
use crate::log::{
    Answers, AppendError, Appended, Health, Log, LogFuture, NewRecord, ReadError, ReadLimit, Record,
    RecordError, Sighting,
};

/// The spool's only stream, so that its order is total.
const SPOOL: Stream = Stream { topic: SPOOL_TOPIC, partition: 0 };
/// Who holds the spool.
const CONSUMER: &str = "publisher";
/// Name of the header that says where a record goes.
const PLACE_HEADER: &str = "";

/// How often a closing spool looks whether it is empty.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How the spool works.
#[derive(Clone)]
pub struct SpoolConfig {
    /// How long a request for `broker` waits before it is answered `disk`. 10 s.
    pub ack_deadline: Duration,
    /// Records under way to the broker at once. 20,000.
    pub in_flight_records: usize,
    /// Bytes under way to the broker at once. 32 MiB.
    pub in_flight_bytes: usize,
    /// How often the position is stored, at most; a crash repeats what was acknowledged since. 100 ms.
    pub persist_interval: Duration,
    /// How long `close` goes on publishing while a broker answers. 5 s.
    pub close_deadline: Duration,
    /// What is appended instead of a record that its topic will never take. [`quarantine`].
    pub on_unpublishable: OnUnpublishable,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            ack_deadline: Duration::from_secs(10),
            in_flight_records: 20_000,
            in_flight_bytes: 32 << 20,
            persist_interval: Duration::from_millis(100),
            close_deadline: Duration::from_secs(5),
            on_unpublishable: Arc::new(quarantine),
        }
    }
}

/// Shared by the log and its publisher.
struct Inner {
    config: SpoolConfig,
    clock: Arc<dyn Clock>,
    kafka: KafkaLog,
    streams: Streams,
    counters: Arc<Counters>,
    progress: Mutex<Progress>,
    places: Places,
    /// Partition counts that positions belong to; empty before any.
    counts: Mutex<Vec<(Topic, u32)>>,
    persisted: Mutex<(Instant, Option<Position>)>,
    /// Rung when something was delivered.
    moved: Notify,
    stop: watch::Receiver<bool>,
}

/// The journal in front of Kafka.
pub struct Spool {
    inner: Arc<Inner>,
    closing: AtomicBool,
    tell_stop: watch::Sender<bool>,
    publisher: Mutex<Option<JoinHandle<()>>>,
}

impl Spool {
    /// Opens the spool in the journal's folder and starts to publish. Called within a tokio runtime.
    ///
    /// Of the journal's settings, partitions and retention do not apply: the spool keeps what is not yet published.
    pub fn open(
        config: SpoolConfig,
        journal: JournalConfig,
        kafka: KafkaLog,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        Self::open_with(config, journal, kafka, clock, Arc::new(RealFiles))
    }

    /// The same on another file layer.
    pub fn open_with(
        config: SpoolConfig,
        journal: JournalConfig,
        kafka: KafkaLog,
        clock: Arc<dyn Clock>,
        files: Arc<dyn FileLayer>,
    ) -> Result<Self, OpenError> {
        let retention = journal.retention_age;
        let journal = JournalConfig {
            partitions: 1,
            retention_age: Some(Duration::ZERO),
            retention_bytes: None,
            ..journal
        };
        let stored = Position::load(&*files, &journal.dir);
        let dir = journal.dir.clone();
        let streams = Streams::open(journal, Arc::clone(&clock), Arc::clone(&files))?;
        let places = Places::open(files, &dir, streams.salt(), retention);
        let position = stored.unwrap_or_default();
        let low = position.low.max(streams.bounds(SPOOL).0);
        // A position beyond the journal's end raises the end: what was published is not to be numbered again, or new records
        // would pass for published.
        let highest = position.ahead.iter().map(|(_, end)| *end).max().unwrap_or_default();
        streams.hold(CONSUMER, SPOOL, low.max(highest));
        streams.hold(CONSUMER, SPOOL, low);
        let ahead = position.ahead_under(&position.counts).unwrap_or_default();
        let (tell_stop, stop) = watch::channel(false);
        let inner = Arc::new(Inner {
            counters: streams.counters(),
            config,
            clock,
            kafka,
            streams,
            progress: Mutex::new(Progress::at(low, ahead)),
            places,
            counts: Mutex::new(position.counts),
            persisted: Mutex::new((Instant::now(), None)),
            moved: Notify::new(),
            stop,
        });
        let publisher = tokio::spawn(publisher::publish(Arc::clone(&inner)));
        Ok(Self { inner, closing: AtomicBool::new(false), tell_stop, publisher: Mutex::new(Some(publisher)) })
    }

    /// What the spool counts; reads are counted by [`Self::kafka`].
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.inner.counters)
    }

    /// The log behind the spool.
    pub fn kafka(&self) -> &KafkaLog {
        &self.inner.kafka
    }

    /// Damage of the spool's journal found since it was opened, at most 1,000 places.
    pub fn damage(&self) -> Vec<Damage> {
        self.inner.streams.damage()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = self.tell_stop.send(true);
    }
}

impl Inner {
    /// Records that are in the spool and not known to be published.
    fn waiting(&self) -> u64 {
        let (_, end) = self.streams.bounds(SPOOL);
        let progress = locked(&self.progress);
        end.saturating_sub(progress.next()) + progress.in_flight().0 as u64
    }

    async fn take(&self, batch: Vec<NewRecord>, want: AckLevel, room: Room) -> Result<Answers, AppendError> {
        let entries = batch.into_iter().map(|record| Ok(encode(record))).collect();
        let pending = self.streams.append(entries, room).await?;
        self.counters.spooled_records.add(pending.taken() as u64);
        if want == AckLevel::Received {
            return Ok(pending.received());
        }
        if want == AckLevel::Broker {
            return Ok(self.wait(pending.written(|(_, offset)| offset).await?).await);
        }
        pending.written(|_| Appended { level: AckLevel::Disk, at: None }).await
    }

    /// Waits until the records at these places of the spool are published, at most until the deadline. The spool has one
    /// stream, where what was taken of a batch stands side by side.
    async fn wait(&self, places: Vec<Result<u64, RecordError>>) -> Answers {
        let deadline = Instant::now() + self.config.ack_deadline;
        let mut taken = places.iter().flatten();
        let outcomes = match taken.next() {
            Some(first) => self.outcomes(*first, 1 + taken.count(), deadline).await,
            None => Vec::new(),
        };
        let mut outcomes = outcomes.into_iter();
        let mut late = false;
        let mut answers = Answers::with_capacity(places.len());
        for place in places {
            let outcome = match place {
                Ok(_) => outcomes.next().flatten(),
                Err(error) => {
                    answers.push(Err(error));
                    continue;
                }
            };
            late |= outcome.is_none();
            answers.push(match outcome {
                Some(Outcome::Broker(at)) => Ok(Appended { level: AckLevel::Broker, at }),
                Some(Outcome::TooLarge { bytes, max }) => Err(RecordError::TooLarge { bytes, max }),
                None => Ok(Appended { level: AckLevel::Disk, at: None }),
            });
        }
        if late {
            self.counters.broker_deadlines.add(1);
        }
        answers
    }

    /// What has become of the `count` records from `first` on, by the deadline.
    async fn outcomes(&self, first: u64, count: usize, deadline: Instant) -> Vec<Option<Outcome>> {
        let waiting = locked(&self.progress).wait_for(first, count);
        let told = match waiting {
            Waiting::Over(outcomes) => return outcomes,
            Waiting::Open(told) => told,
        };
        let wait = Wait { inner: self, first };
        match timeout_at(deadline, told).await {
            Ok(Ok(outcomes)) => outcomes,
            _ => wait.give_up(),
        }
    }
}

/// Somebody who waits for a batch; leaves when dropped.
struct Wait<'a> {
    inner: &'a Inner,
    first: u64,
}

impl Wait<'_> {
    /// What is known of the batch so far.
    fn give_up(&self) -> Vec<Option<Outcome>> {
        locked(&self.inner.progress).give_up(self.first)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Log for Spool {
    fn append(&self, batch: Vec<NewRecord>, want: AckLevel) -> LogFuture<'_, Result<Answers, AppendError>> {
        Box::pin(async move {
            if self.closing.load(Ordering::Acquire) {
                return Err(AppendError::Closed);
            }
            self.inner.take(batch, want, Room::Common).await
        })
    }

    fn read(
        &self,
        at: TopicPartition,
        from: Offset,
        limit: ReadLimit,
    ) -> LogFuture<'_, Result<Vec<Record>, ReadError>> {
        self.inner.kafka.read(at, from, limit)
    }

    /// In the spool, and on Kafka at the places that were noted as records were acknowledged; if that shows nothing, wherever on
    /// Kafka: another process may have published it.
    fn find(&self, event_id: EventId) -> LogFuture<'_, Result<Vec<Sighting>, ReadError>> {
        Box::pin(async move {
            let inner = &self.inner;
            let mut found = Vec::new();
            for stored in inner.streams.find(event_id).await? {
                if locked(&inner.progress).is_waiting(stored.stamp.offset) {
                    found.extend(waiting(stored));
                }
            }
            let shared = Arc::clone(inner);
            let places = blocking(move || shared.places.find(event_id)).await.ok_or(ReadError::Closed)?;
            let records = inner.kafka.fetch(places).await?;
            // Acknowledged in the meantime.
            let same =
                |a: &Record, b: &Record| (a.at.topic, &a.key, &a.value) == (b.at.topic, &b.key, &b.value);
            found.retain(|sighting| !records.iter().any(|record| same(record, &sighting.record)));
            let named = records.into_iter().filter(|record| record.event_id() == Some(event_id));
            found.extend(named.map(|record| Sighting { record, published: true }));
            if found.is_empty() { inner.kafka.find(event_id).await } else { Ok(found) }
        })
    }

    fn start_offset(&self, at: TopicPartition) -> LogFuture<'_, Result<Offset, ReadError>> {
        self.inner.kafka.start_offset(at)
    }

    fn end_offset(&self, at: TopicPartition) -> LogFuture<'_, Result<Offset, ReadError>> {
        self.inner.kafka.end_offset(at)
    }

    fn partitions(&self, topic: Topic) -> LogFuture<'_, Result<u32, ReadError>> {
        self.inner.kafka.partitions(topic)
    }

    fn hold(&self, consumer: &str, at: TopicPartition, from: Offset) {
        self.inner.kafka.hold(consumer, at, from);
    }

    fn health(&self) -> Health {
        let journal = self.inner.streams.health();
        let waiting = self.inner.waiting();
        let (start, end) = self.inner.streams.bounds(SPOOL);
        // By the mean size: sizes of single records are on the disk alone.
        let kept = end.saturating_sub(start).max(1);
        let bytes = u128::from(journal.disk_bytes) * u128::from(waiting.min(kept)) / u128::from(kept);
        Health {
            admitting: journal.admitting && !self.closing.load(Ordering::Acquire),
            broker: self.inner.kafka.health().broker,
            spooled_records: waiting,
            spooled_bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            unpublishable_records: self.inner.counters.unpublishable_records.get(),
            ..journal
        }
    }

    fn close(&self) -> LogFuture<'_, ()> {
        Box::pin(async move {
            self.closing.store(true, Ordering::Release);
            let inner = &self.inner;
            let drained = async {
                while inner.waiting() > 0 && inner.kafka.health().broker == "ok" {
                    tokio::time::sleep(DRAIN_LOOK).await;
                }
            };
            let _ = timeout(inner.config.close_deadline, drained).await;
            let _ = self.tell_stop.send(true);
            let publisher = locked(&self.publisher).take();
            if let Some(publisher) = publisher {
                let _ = publisher.await;
            }
            inner.streams.close().await;
            inner.kafka.close().await;
        })
    }
}

/// A record that is not yet published.
fn waiting(stored: Stored) -> Option<Sighting> {
    let (offset, appended_at) = (Offset(stored.stamp.offset), stored.stamp.appended_at);
    let NewRecord { topic, key, partition, headers, value } = decode(stored)?;
    let at = TopicPartition { topic, partition: partition.unwrap_or(PartitionId(0)) };
    let record = Record { at, offset, appended_at, key, headers, value };
    Some(Sighting { record, published: false })
}

/// A record's place on Kafka.
pub type Place = (TopicPartition, Offset);

/// What a spool's folder knows of an event: records that wait there, and places on Kafka. Takes no lock and changes nothing, so
/// that the folder may be another process's. Finds no places in a folder that is no spool's.
pub fn find_in_folder(dir: &Path, event_id: EventId) -> io::Result<(Vec<Sighting>, Vec<Place>)> {
    let low = Position::load(&RealFiles, dir).unwrap_or_default().low;
    let stored = crate::embedded::in_folder(dir, event_id)?.into_iter();
    let waits = stored.filter(|stored| stored.stream == SPOOL && stored.stamp.offset >= low);
    Ok((waits.filter_map(waiting).collect(), places::find_in_folder(&RealFiles, dir, event_id)?))
}

fn encode(record: NewRecord) -> Entry {
    let note = Some(publisher::encode_place(record.topic, record.partition));
    Entry { stream: SPOOL, key: record.key, note, headers: record.headers, value: record.value }
}

/// The record that a place in the spool holds.
fn decode(stored: Stored) -> Option<NewRecord> {
    let (place, headers) = stored.headers.split_first(PLACE_HEADER)?;
    let mut take = Take(&place);
    let topic = *Topic::ALL.get(usize::from(take.u8()?))?;
    let chosen = take.u8()? == 1;
    let partition = take.u32()?;
    let partition = chosen.then_some(PartitionId(partition));
    Some(NewRecord { topic, key: stored.key, partition, headers, value: stored.value })
}
