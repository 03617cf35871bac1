//! The log on Apache Kafka.
//!
//! **Invariant:** a record is produced to the partition that murmur2 gives its key, in the order of `append`, with acks=all;
//! nothing here blocks the async runtime, and every queue towards and from the broker is bounded.

mod append;
pub mod bare;
mod client;
mod lookup;
mod producer;
mod reader;
mod topics;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use schemas::id::EventId;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};
use schemas::verdict::AckLevel;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

pub(crate) use self::client::{Link, blocking};
use self::lookup::Lookup;
pub(crate) use self::producer::{Delivery, Failure, Outgoing, Producer, SendError, record_bytes};
use self::reader::{Lanes, answer};
pub(crate) use self::topics::Topics;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::log::{
    Answers, AppendError, Health, Log, LogFuture, NewRecord, ReadError, ReadLimit, Record, Sighting,
};

/// How long to wait before a partition that could not be read is tried again.
const READ_PAUSE: Duration = Duration::from_millis(200);

/// How Kafka is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KafkaConfig {
    /// `host:port`, more with commas.
    pub brokers: String,
    /// Partitions of topics that are made. 64.
    pub partitions: u32,
    /// Copies of topics that are made; -1 takes the broker's default. -1.
    pub replication: i32,
    /// Whether missing topics are made. `true`.
    pub create_topics: bool,
    /// How long an append waits for the broker before it is `Unavailable`; its records may still arrive. 10 s.
    pub ack_deadline: Duration,
    /// Records that may be under way to the broker. 100,000.
    pub queue_records: u32,
    /// Bytes that may be under way to the broker. 64 MiB.
    pub queue_bytes: u32,
    /// How long the client gathers records for a batch. 5 ms.
    pub linger: Duration,
    /// `none`, `lz4` or `zstd`. `lz4`.
    pub compression: String,
    /// Bytes that a partition's reader holds in advance. 256 KiB.
    pub fetch_bytes: u32,
    /// How long a read or a question about offsets is asked again while the partition has no leader that answers, before it is
    /// `Unavailable`. 0.
    pub read_patience: Duration,
    /// Further settings of librdkafka, such as those of TLS and SASL; they override ours.
    pub settings: Vec<(String, String)>,
}

impl KafkaConfig {
    /// The defaults, with these brokers.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            partitions: 64,
            replication: -1,
            create_topics: true,
            ack_deadline: Duration::from_secs(10),
            queue_records: 100_000,
            queue_bytes: 64 << 20,
            linger: Duration::from_millis(5),
            compression: "lz4".to_owned(),
            fetch_bytes: 256 << 10,
            read_patience: Duration::ZERO,
            settings: Vec::new(),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A setting is unknown or has no such value.
    #[error("the Kafka client refuses its settings: {0}")]
    Settings(String),
}

/// The log on Apache Kafka.
pub struct KafkaLog {
    config: KafkaConfig,
    link: Arc<Link>,
    topics: watch::Receiver<Option<Arc<Topics>>>,
    watcher: tokio::task::JoinHandle<()>,
    producer: tokio::sync::Mutex<Option<Producer>>,
    room: Arc<Semaphore>,
    lanes: Lanes,
    lookup: Arc<Lookup>,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    closed: std::sync::atomic::AtomicBool,
}

impl KafkaLog {
    /// Makes the clients. Whether a broker answers is not waited for. Called within a tokio runtime.
    pub fn connect(config: KafkaConfig, clock: Arc<dyn Clock>) -> Result<Self, ConnectError> {
        let link = Arc::new(Link::default());
        let refused = |error: rdkafka::error::KafkaError| ConnectError::Settings(error.to_string());
        let (watcher, topics) = topics::watch(&config, &link).map_err(refused)?;
        // Whether the settings can be had is found out now and not with the first record.
        drop(Producer::new(&config, &link, None, Arc::new(|_| ())).map_err(refused)?);
        let counters = Arc::<Counters>::default();
        let lanes = Lanes::new(&config, &link, Arc::clone(&clock), Arc::clone(&counters));
        let lookup = Arc::new(Lookup::new(&config, &link));
        Ok(Self {
            room: Arc::new(Semaphore::new(config.queue_bytes as usize)),
            config,
            link,
            topics,
            watcher,
            producer: tokio::sync::Mutex::new(None),
            lanes,
            lookup,
            clock,
            counters,
            closed: false.into(),
        })
    }

    /// What is counted.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    pub(crate) fn config(&self) -> &KafkaConfig {
        &self.config
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// What is known of the topics; `None` until a broker has answered.
    pub(crate) fn topics(&self) -> watch::Receiver<Option<Arc<Topics>>> {
        self.topics.clone()
    }

    async fn known_topics(&self, deadline: Instant) -> Option<Arc<Topics>> {
        let mut topics = self.topics.clone();
        let known = timeout_at(deadline, topics.wait_for(Option::is_some)).await.ok()?.ok()?;
        known.clone()
    }

    /// The records at these places, as far as they are still there.
    pub async fn fetch(&self, places: Vec<(TopicPartition, Offset)>) -> Result<Vec<Record>, ReadError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let (lookup, now) = (Arc::clone(&self.lookup), self.clock.now());
        answer(blocking(move || lookup.fetch(&places, now)).await)
    }

    async fn watermarks(&self, at: TopicPartition) -> Result<(Offset, Offset), ReadError> {
        self.patiently(|| self.lanes.watermarks(at)).await
    }

    /// Asks again while a leader moves or starts, as long as patience allows.
    async fn patiently<T, F: Future<Output = Result<T, ReadError>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, ReadError> {
        let deadline = Instant::now() + self.config.read_patience;
        loop {
            match ask().await {
                Err(ReadError::Unavailable(why)) if Instant::now() < deadline => {
                    tracing::debug!(why, "a partition cannot be read; trying again");
                    tokio::time::sleep(READ_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Log for KafkaLog {
    fn append(&self, batch: Vec<NewRecord>, want: AckLevel) -> LogFuture<'_, Result<Answers, AppendError>> {
        Box::pin(async move {
            if self.closed.load(std::sync::atomic::Ordering::Acquire) {
                return Err(AppendError::Closed);
            }
            if batch.is_empty() {
                return Ok(Vec::new());
            }
            self.produce(batch, want).await
        })
    }

    fn read(
        &self,
        at: TopicPartition,
        from: Offset,
        limit: ReadLimit,
    ) -> LogFuture<'_, Result<Vec<Record>, ReadError>> {
        Box::pin(async move { self.patiently(|| self.lanes.read(at, from, limit)).await })
    }

    /// There is no index: the topics are read, all partitions at once, from ten minutes before the time in a `UUIDv7` on, and from
    /// their start when that does not show the event itself, or the id has no time.
    fn find(&self, event_id: EventId) -> LogFuture<'_, Result<Vec<Sighting>, ReadError>> {
        Box::pin(async move {
            let topics = self.known_topics(Instant::now() + self.config.ack_deadline).await;
            let topics =
                topics.ok_or_else(|| ReadError::Unavailable("the broker does not answer".to_owned()))?;
            let (lookup, now) = (Arc::clone(&self.lookup), self.clock.now());
            let partitions = move |topic| topics.known(topic).unwrap_or_default();
            let sweep = move || lookup.sweep(event_id, partitions, now);
            let found = answer(blocking(sweep).await)?;
            Ok(found.into_iter().map(|record| Sighting { record, published: true }).collect())
        })
    }

    fn start_offset(&self, at: TopicPartition) -> LogFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async move { Ok(self.watermarks(at).await?.0) })
    }

    fn end_offset(&self, at: TopicPartition) -> LogFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async move { Ok(self.watermarks(at).await?.1) })
    }

    fn partitions(&self, topic: Topic) -> LogFuture<'_, Result<u32, ReadError>> {
        Box::pin(async move {
            let topics = self.known_topics(Instant::now() + self.config.ack_deadline).await;
            let topics =
                topics.ok_or_else(|| ReadError::Unavailable("the broker does not answer".to_owned()))?;
            topics.known(topic).ok_or_else(|| ReadError::Unavailable(format!("there is no topic {topic}")))
        })
    }

    /// Kafka's own retention decides; nothing is held here.
    fn hold(&self, _consumer: &str, _at: TopicPartition, _from: Offset) {}

    fn health(&self) -> Health {
        let closed = self.closed.load(std::sync::atomic::Ordering::Acquire);
        let up = self.link.is_up();
        Health {
            admitting: up && !closed,
            disk: "ok".to_owned(),
            broker: if up { "ok" } else { "down" }.to_owned(),
            spooled_records: 0,
            spooled_bytes: 0,
            corrupted_records: 0,
            unpublishable_records: 0,
            disk_bytes: 0,
        }
    }

    fn close(&self) -> LogFuture<'_, ()> {
        Box::pin(async move {
            self.closed.store(true, std::sync::atomic::Ordering::Release);
            // Appends under way hold the semaphore's permits until they are answered.
            let all = self.room.acquire_many(self.config.queue_bytes);
            let _ = timeout_at(Instant::now() + self.config.ack_deadline, all).await;
            let producer = self.producer.lock().await.take();
            let _ = blocking(move || drop(producer)).await;
            self.watcher.abort();
            self.lanes.close();
        })
    }
}

/// A place that Kafka names.
pub(crate) fn place(partition: i32, offset: i64) -> (PartitionId, Offset) {
    (
        PartitionId(u32::try_from(partition).unwrap_or_default()),
        Offset(u64::try_from(offset).unwrap_or_default()),
    )
}
