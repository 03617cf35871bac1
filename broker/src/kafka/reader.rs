//! Reads partitions from any offset, many of them through one client.
//!
//! **Invariant:** a read returns records from its offset on and none before; what is fetched in advance is bounded by
//! `fetch_bytes` a partition. Two lanes, each one client, so that one who looks something up does not move the place of one
//! who follows the end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::TopicPartitionList;
use schemas::time::Timestamp;
use schemas::topic::{Offset, TopicPartition};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::KafkaConfig;
use super::client::{Context, Link, blocking, configure};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::headers;
use crate::log::{ReadError, ReadLimit, Record};

/// Clients that read.
const LANES: usize = 2;
/// How long a question to the broker may take.
const ASK: Duration = Duration::from_secs(5);
/// How long a client's events wait to be served.
const SERVE: Duration = Duration::from_millis(200);

/// All lanes.
pub(crate) struct Lanes {
    all: [Arc<Lane>; LANES],
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    uses: AtomicU64,
}

/// One client and the partitions that it follows.
struct Lane {
    config: KafkaConfig,
    link: Arc<Link>,
    consumer: Mutex<Option<Arc<BaseConsumer<Context>>>>,
    cursors: Mutex<HashMap<TopicPartition, Arc<tokio::sync::Mutex<Cursor>>>>,
    stop: Arc<AtomicBool>,
}

/// A place in a partition.
#[derive(Default)]
struct Cursor {
    followed: Option<Followed>,
    /// When it was used last, counted in reads.
    used: u64,
}

struct Followed {
    queue: PartitionQueue<Context>,
    /// The offset behind the last record that was returned.
    next: u64,
    /// A record that no longer fitted an answer.
    kept: Option<Record>,
    filled: Arc<Notify>,
}

impl Lanes {
    pub(crate) fn new(
        config: &KafkaConfig,
        link: &Arc<Link>,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
    ) -> Self {
        let lane = |_| {
            Arc::new(Lane {
                config: config.clone(),
                link: Arc::clone(link),
                consumer: Mutex::default(),
                cursors: Mutex::default(),
                stop: Arc::default(),
            })
        };
        Self { all: std::array::from_fn(lane), clock, counters, uses: AtomicU64::new(1) }
    }

    /// Oldest and next offset, as the broker tells.
    pub(crate) async fn watermarks(&self, at: TopicPartition) -> Result<(Offset, Offset), ReadError> {
        let [lane, ..] = &self.all;
        lane.watermarks(at).await
    }

    pub(crate) async fn read(
        &self,
        at: TopicPartition,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Record>, ReadError> {
        let deadline = Instant::now() + limit.max_wait;
        let (lane, cursor) = self.choose(at, from);
        let mut cursor = cursor.lock().await;
        cursor.used = self.uses.fetch_add(1, Ordering::Relaxed);
        if cursor.followed.as_ref().is_none_or(|followed| followed.next != from.0) {
            let (start, end) = lane.watermarks(at).await?;
            if from < start {
                return Err(ReadError::Expired { start });
            }
            if from > end {
                return Err(ReadError::BeyondEnd { end });
            }
            cursor.followed = None;
            cursor.followed = Some(lane.follow(at, from).await?);
        }
        let Some(followed) = cursor.followed.as_mut() else { return Ok(Vec::new()) };
        let outcome = self.gather(at, followed, limit, deadline).await;
        match &outcome {
            Ok(records) => self.counters.read_records.add(records.len() as u64),
            // The next read finds out why.
            Err(_) => cursor.followed = None,
        }
        outcome
    }

    /// The lane that stands at this offset, else the one whose place was not used for longest.
    fn choose(&self, at: TopicPartition, from: Offset) -> (Arc<Lane>, Arc<tokio::sync::Mutex<Cursor>>) {
        let mut best = None;
        for lane in &self.all {
            let cursor = lane.cursor(at);
            // A place that is being read is in use now.
            let used = match cursor.try_lock() {
                Ok(cursor) if cursor.followed.as_ref().is_some_and(|followed| followed.next == from.0) => 0,
                Ok(cursor) if cursor.followed.is_none() => 1,
                Ok(cursor) => cursor.used.max(2),
                Err(_) => u64::MAX,
            };
            if best.as_ref().is_none_or(|(least, _, _)| used < *least) {
                best = Some((used, Arc::clone(lane), cursor));
            }
        }
        let [first, ..] = &self.all;
        best.map_or_else(|| (Arc::clone(first), first.cursor(at)), |(_, lane, cursor)| (lane, cursor))
    }

    async fn gather(
        &self,
        at: TopicPartition,
        followed: &mut Followed,
        limit: ReadLimit,
        deadline: Instant,
    ) -> Result<Vec<Record>, ReadError> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        loop {
            let filled = Arc::clone(&followed.filled);
            let filled = filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            while let Some(record) = followed.poll(at, self.clock.now())? {
                bytes += record.key.len() + record.value.len();
                if bytes > limit.max_bytes && !records.is_empty() {
                    followed.kept = Some(record);
                    return Ok(records);
                }
                followed.next = record.offset.0 + 1;
                records.push(record);
                if records.len() >= limit.max_records.max(1) {
                    return Ok(records);
                }
            }
            if !records.is_empty() || timeout_at(deadline, filled).await.is_err() {
                return Ok(records);
            }
        }
    }

    pub(crate) fn close(&self) {
        for lane in &self.all {
            lane.close();
        }
    }
}

impl Followed {
    /// The next record, if one is there.
    fn poll(&mut self, at: TopicPartition, now: Timestamp) -> Result<Option<Record>, ReadError> {
        if let Some(kept) = self.kept.take() {
            return Ok(Some(kept));
        }
        while let Some(message) = self.queue.poll(Duration::ZERO) {
            let message = message.map_err(|error| ReadError::Unavailable(code(&error)))?;
            if u64::try_from(message.offset()).is_ok_and(|offset| offset >= self.next) {
                return Ok(Some(record(at, &message, now)));
            }
        }
        Ok(None)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.close();
    }
}

impl Lane {
    fn cursor(&self, at: TopicPartition) -> Arc<tokio::sync::Mutex<Cursor>> {
        let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cursors.entry(at).or_default())
    }

    /// The client, made with the first use.
    fn consumer(&self) -> KafkaResult<Arc<BaseConsumer<Context>>> {
        let mut slot = self.consumer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(consumer) = slot.as_ref() {
            return Ok(Arc::clone(consumer));
        }
        let fetch = self.config.fetch_bytes;
        let client = configure(
            &self.config,
            &[
                // Named because the client wants it; no group is joined and nothing committed.
                ("group.id", "rivulet.reader".to_owned()),
                ("enable.auto.commit", "false".to_owned()),
                ("enable.auto.offset.store", "false".to_owned()),
                ("auto.offset.reset", "error".to_owned()),
                ("fetch.wait.max.ms", "100".to_owned()),
                ("fetch.error.backoff.ms", "100".to_owned()),
                ("fetch.queue.backoff.ms", "10".to_owned()),
                ("max.partition.fetch.bytes", fetch.to_string()),
                ("fetch.max.bytes", (fetch.saturating_mul(16)).max(1 << 20).to_string()),
                ("receive.message.max.bytes", "200000000".to_owned()),
                ("queued.min.messages", "1000".to_owned()),
                ("queued.max.messages.kbytes", fetch.div_ceil(1024).max(1).to_string()),
            ],
        );
        let consumer: Arc<BaseConsumer<Context>> =
            Arc::new(client.create_with_context(Context { link: Arc::clone(&self.link) })?);
        let (served, stop) = (Arc::downgrade(&consumer), Arc::clone(&self.stop));
        let serve = move || {
            while let Some(consumer) = served.upgrade().filter(|_| !stop.load(Ordering::Relaxed)) {
                // Messages come by the partitions' own queues; here are only events.
                let _ = consumer.poll(SERVE);
            }
        };
        if std::thread::Builder::new().name("kafka-events".to_owned()).spawn(serve).is_err() {
            return Err(KafkaError::ClientCreation("no thread".to_owned()));
        }
        *slot = Some(Arc::clone(&consumer));
        Ok(consumer)
    }

    async fn watermarks(self: &Arc<Self>, at: TopicPartition) -> Result<(Offset, Offset), ReadError> {
        let lane = Arc::clone(self);
        let ask = move || {
            let partition = i32::try_from(at.partition.0).unwrap_or(i32::MAX);
            lane.consumer()?.fetch_watermarks(at.topic.name(), partition, ASK)
        };
        let (low, high) = answer(blocking(ask).await)?;
        Ok((Offset(u64::try_from(low).unwrap_or_default()), Offset(u64::try_from(high).unwrap_or_default())))
    }

    /// Begins to fetch a partition from an offset on.
    async fn follow(self: &Arc<Self>, at: TopicPartition, from: Offset) -> Result<Followed, ReadError> {
        let lane = Arc::clone(self);
        let begin = move || {
            let consumer = lane.consumer()?;
            let partition = i32::try_from(at.partition.0).unwrap_or(i32::MAX);
            let offset = rdkafka::Offset::Offset(i64::try_from(from.0).unwrap_or(i64::MAX));
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(at.topic.name(), partition, offset)?;
            if consumer.assignment()?.find_partition(at.topic.name(), partition).is_some() {
                consumer.incremental_unassign(&list)?;
            }
            let queue = consumer.split_partition_queue(at.topic.name(), partition);
            let mut queue = queue.ok_or_else(|| KafkaError::ClientCreation("no queue".to_owned()))?;
            let filled = Arc::new(Notify::new());
            let bell = Arc::clone(&filled);
            queue.set_nonempty_callback(move || bell.notify_waiters());
            consumer.incremental_assign(&list)?;
            Ok(Followed { queue, next: from.0, kept: None, filled })
        };
        answer(blocking(begin).await)
    }

    fn close(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What a client's answer means to a reader.
pub(super) fn answer<T>(outcome: Option<KafkaResult<T>>) -> Result<T, ReadError> {
    outcome.ok_or(ReadError::Closed)?.map_err(|error| ReadError::Unavailable(code(&error)))
}

fn code(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string())
}

/// A message as a record.
pub(super) fn record(at: TopicPartition, message: &BorrowedMessage<'_>, now: Timestamp) -> Record {
    let copy = |bytes: Option<&[u8]>| bytes.map_or_else(Bytes::new, Bytes::copy_from_slice);
    let headers = message.headers().map_or_else(headers::Headers::new, |headers| {
        headers::Headers::of(headers.iter().map(|header| (header.key, header.value.unwrap_or_default())))
    });
    Record {
        at,
        offset: Offset(u64::try_from(message.offset()).unwrap_or_default()),
        appended_at: message.timestamp().to_millis().map_or(now, Timestamp),
        key: copy(message.key()),
        headers,
        value: copy(message.payload()),
    }
}
