//! Looks for single records: at known places, or through whole topics, all partitions at once.
//!
//! **Invariant:** has clients of its own, so that nobody who follows a partition is disturbed, and no question waits behind a
//! fetch at the end of a partition; one sweep at a time; a broker that is silent ends it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};
use schemas::header::CE_ID;
use schemas::id::EventId;
use schemas::time::Timestamp;
use schemas::topic::{Offset, Topic, TopicPartition};
use tokio::time::Instant;

use super::KafkaConfig;
use super::client::{Context, Link, configure};
use super::reader::record;
use crate::log::{MAX_SIGHTINGS, Record};
use crate::naming;

/// Topics whose records name events.
const TOPICS: [Topic; 3] = [Topic::Events, Topic::Quarantine, Topic::Decisions];
/// How long a question to the broker may take, and how long it may be silent while records are awaited.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);
/// An event may be on the log this long before the time in its id: senders' clocks go wrong.
const CLOCK_TOLERANCE_MILLIS: i64 = 10 * 60 * 1000;
/// Bytes fetched in advance by a sweep, KiB.
const SWEEP_KIB: u32 = 16 << 10;

/// Looks for records.
pub(crate) struct Lookup {
    config: KafkaConfig,
    link: Arc<Link>,
    /// For known places; kept, because to connect takes longer than to ask.
    asker: Mutex<Option<BaseConsumer<Context>>>,
    sweeping: Mutex<()>,
}

impl Lookup {
    pub(crate) fn new(config: &KafkaConfig, link: &Arc<Link>) -> Self {
        Self {
            config: config.clone(),
            link: Arc::clone(link),
            asker: Mutex::default(),
            sweeping: Mutex::default(),
        }
    }

    fn consumer(&self) -> KafkaResult<BaseConsumer<Context>> {
        let kib = SWEEP_KIB;
        let client = configure(
            &self.config,
            &[
                // Named because the client wants it; no group is joined and nothing committed.
                ("group.id", "rivulet.lookup".to_owned()),
                ("enable.auto.commit", "false".to_owned()),
                ("enable.auto.offset.store", "false".to_owned()),
                ("enable.partition.eof", "true".to_owned()),
                ("auto.offset.reset", "error".to_owned()),
                ("fetch.wait.max.ms", "10".to_owned()),
                ("fetch.error.backoff.ms", "100".to_owned()),
                ("max.partition.fetch.bytes", "1048576".to_owned()),
                ("fetch.max.bytes", (kib << 10).to_string()),
                ("receive.message.max.bytes", "200000000".to_owned()),
                ("queued.max.messages.kbytes", kib.to_string()),
            ],
        );
        client.create_with_context(Context { link: Arc::clone(&self.link) })
    }

    /// The records at these places, as far as they are still there. Blocks.
    pub(crate) fn fetch(
        &self,
        places: &[(TopicPartition, Offset)],
        now: Timestamp,
    ) -> KafkaResult<Vec<Record>> {
        let mut slot = self.asker.lock().unwrap_or_else(PoisonError::into_inner);
        let asker = match slot.take() {
            Some(asker) => asker,
            None => self.consumer()?,
        };
        let mut by_partition: BTreeMap<(&str, i32), Vec<(TopicPartition, Offset)>> = BTreeMap::new();
        for (at, offset) in places {
            let partition = i32::try_from(at.partition.0).unwrap_or(i32::MAX);
            by_partition.entry((at.topic.name(), partition)).or_default().push((*at, *offset));
        }
        let mut found = Vec::new();
        // One place of each partition at a time.
        while !by_partition.is_empty() {
            let round: Vec<_> = by_partition.values_mut().filter_map(Vec::pop).collect();
            by_partition.retain(|_, rest| !rest.is_empty());
            found.extend(fetch_round(&asker, &round, now)?);
        }
        *slot = Some(asker);
        Ok(found)
    }

    /// The records that name the event, found by reading the topics: first from a little before the time in its id on, if it has
    /// one, and if the event itself is not there, all. Blocks.
    pub(crate) fn sweep(
        &self,
        event_id: EventId,
        partitions: impl Fn(Topic) -> u32,
        now: Timestamp,
    ) -> KafkaResult<Vec<Record>> {
        let _one = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        let since = event_id.minted_at().map(|at| Timestamp(at.0.saturating_sub(CLOCK_TOLERANCE_MILLIS)));
        for since in [since, None].into_iter().skip(usize::from(since.is_none())) {
            let mut found = Vec::new();
            for topic in TOPICS {
                self.sweep_topic(topic, partitions(topic), since, event_id, now, &mut found)?;
            }
            let itself = found.iter().any(|record: &Record| record.at.topic != Topic::Decisions);
            if itself || since.is_none() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    fn sweep_topic(
        &self,
        topic: Topic,
        partitions: u32,
        since: Option<Timestamp>,
        event_id: EventId,
        now: Timestamp,
        found: &mut Vec<Record>,
    ) -> KafkaResult<()> {
        let consumer = self.consumer()?;
        let from = since.map_or(rdkafka::Offset::Beginning, |since| rdkafka::Offset::Offset(since.0.max(0)));
        let mut list = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            list.add_partition_offset(topic.name(), partition, from)?;
        }
        if since.is_some() {
            list = begin_at(&consumer.offsets_for_times(list, PATIENCE)?)?;
        }
        let mut open: HashSet<i32> = list.elements().iter().map(TopicPartitionListElem::partition).collect();
        consumer.assign(&list)?;
        let mut heard = Instant::now();
        while !open.is_empty() {
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if event_of(topic, &message) == Some(event_id)
                        && found.len() < MAX_SIGHTINGS
                        && let Some(at) = place(topic, &message)
                    {
                        found.push(record(at, &message, now));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    open.remove(&partition);
                    let mut done = TopicPartitionList::new();
                    done.add_partition(topic.name(), partition);
                    consumer.incremental_unassign(&done)?;
                }
                // The client goes on by itself, or does not: that shows in time.
                Some(Err(_)) | None => {}
            }
            if heard.elapsed() > PATIENCE {
                return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
            }
        }
        Ok(())
    }
}

/// The partitions that have anything since then.
fn begin_at(times: &TopicPartitionList) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for element in times.elements() {
        element.error()?;
        if let rdkafka::Offset::Offset(_) = element.offset() {
            list.add_partition_offset(element.topic(), element.partition(), element.offset())?;
        }
    }
    Ok(list)
}

fn fetch_round(
    consumer: &BaseConsumer<Context>,
    round: &[(TopicPartition, Offset)],
    now: Timestamp,
) -> KafkaResult<Vec<Record>> {
    let mut list = TopicPartitionList::new();
    for (at, offset) in round {
        let partition = i32::try_from(at.partition.0).unwrap_or(i32::MAX);
        let from = rdkafka::Offset::Offset(i64::try_from(offset.0).unwrap_or(i64::MAX));
        list.add_partition_offset(at.topic.name(), partition, from)?;
    }
    consumer.assign(&list)?;
    let mut found: Vec<Record> = Vec::new();
    // An end says a partition's number but not its topic; it counts for whichever is left.
    let (mut left, mut heard) = (round.len(), Instant::now());
    while left > 0 {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                let wanted = round.iter().find(|(at, offset)| {
                    at.topic.name() == message.topic()
                        && i64::from(at.partition.0) == i64::from(message.partition())
                        && i64::try_from(offset.0).is_ok_and(|offset| offset <= message.offset())
                        && found.iter().all(|record| record.at != *at)
                });
                let Some((at, offset)) = wanted else { continue };
                let record = record(*at, &message, now);
                // Anything behind it says that it is gone.
                left -= 1;
                heard = Instant::now();
                if record.offset == *offset {
                    found.push(record);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            // The offset is gone by retention.
            Some(Err(error)) if gone(&error) => left -= 1,
            Some(Err(_)) | None => {}
        }
        if heard.elapsed() > PATIENCE {
            return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
        }
    }
    consumer.assign(&TopicPartitionList::new())?;
    Ok(found)
}

fn gone(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}

fn place(topic: Topic, message: &BorrowedMessage<'_>) -> Option<TopicPartition> {
    let partition = schemas::topic::PartitionId(u32::try_from(message.partition()).ok()?);
    Some(TopicPartition { topic, partition })
}

fn event_of(topic: Topic, message: &BorrowedMessage<'_>) -> Option<EventId> {
    let headers = message.headers();
    let ce_id = headers.and_then(|headers| headers.iter().find(|header| header.key == CE_ID)?.value);
    naming::event_of(topic, message.key().unwrap_or_default(), ce_id, message.payload().unwrap_or_default())
}
