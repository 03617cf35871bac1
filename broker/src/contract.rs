//! What every log promises, as checks that run against any of them.
//!
//! **Invariant:** a check speaks only of [`Log`]; what differs between logs is told in [`Traits`]. Checks panic when a promise
//! is broken, and each waits on a condition with a bounded deadline.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "checks fail by panicking"
)]

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use schemas::header::CE_ID;
use schemas::id::EventId;
use schemas::partition;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};
use schemas::verdict::AckLevel;

use tokio::time::Instant;

use crate::headers::Headers;
use crate::log::{Appended, Log, NewRecord, ReadError, ReadLimit, Record, RecordError};

/// The topic that the checks fill: nothing else of ours reads it, so that a broker may be shared.
pub const TOPIC: Topic = Topic::DeadLetter;

/// How long a check waits for what must come.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a log is like.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// The level that an append which wants `Broker` reaches.
    pub highest: AckLevel,
    /// Whether answers name partition and offset.
    pub tells_place: bool,
    /// Whether a record for a partition that does not exist is refused; a spool gives it the partition of its key.
    pub knows_partitions: bool,
}

impl Traits {
    /// The journal's.
    pub const JOURNAL: Self = Self { highest: AckLevel::Disk, tells_place: true, knows_partitions: true };
    /// Kafka's.
    pub const KAFKA: Self = Self { highest: AckLevel::Broker, ..Self::JOURNAL };
    /// The spool's.
    pub const SPOOL: Self = Self { tells_place: false, knows_partitions: false, ..Self::KAFKA };
}

/// Runs every check. The log's topics may hold records already.
pub async fn check_all(log: &dyn Log, traits: Traits) {
    order_within_a_partition(log, traits).await;
    order_of_a_key(log).await;
    everything_comes_back_as_it_went(log).await;
    reads_obey_their_limits(log).await;
    reads_wait_and_wake(log).await;
    reads_outside_are_refused(log).await;
    levels_are_the_truth(log, traits).await;
    a_record_that_is_refused_costs_no_neighbour(log, traits).await;
    an_event_is_found_by_every_record_that_names_it(log).await;
    log.hold("contract", at(0), Offset(0));
    assert!(log.health().admitting);
}

/// A record for one partition.
pub fn record(partition: u32, key: &str, value: impl Into<Bytes>) -> NewRecord {
    NewRecord {
        topic: TOPIC,
        key: Bytes::copy_from_slice(key.as_bytes()),
        partition: Some(PartitionId(partition)),
        headers: Headers::new(),
        value: value.into(),
    }
}

/// A partition of the topic that the checks fill.
pub const fn at(partition: u32) -> TopicPartition {
    TopicPartition { topic: TOPIC, partition: PartitionId(partition) }
}

/// Appends records of which none is refused.
pub async fn append(log: &dyn Log, batch: Vec<NewRecord>, want: AckLevel) -> Vec<Appended> {
    let answers = log.append(batch, want).await.expect("taken");
    answers.into_iter().collect::<Result<_, _>>().expect("none is refused")
}

/// Reads `count` records from an offset on, waiting for them.
pub async fn read_exactly(log: &dyn Log, at: TopicPartition, from: Offset, count: usize) -> Vec<Record> {
    let (mut records, mut next, until) = (Vec::new(), from, Instant::now() + PATIENCE);
    while records.len() < count {
        let limit = ReadLimit { max_records: count - records.len(), ..ReadLimit::default() };
        let more = log.read(at, next, limit).await.expect("readable");
        next = more.last().map_or(next, |record| record.offset.next());
        records.extend(more);
        assert!(Instant::now() < until, "{} of {count} records of {at} came in time", records.len());
    }
    records
}

/// Where the next record will be. A spool's records may still be on their way, so it is asked for until it rests.
async fn settled_end(log: &dyn Log, at: TopicPartition) -> Offset {
    let until = Instant::now() + PATIENCE;
    while log.health().spooled_records > 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    log.end_offset(at).await.expect("has an end")
}

async fn order_within_a_partition(log: &dyn Log, traits: Traits) {
    let start = settled_end(log, at(1)).await;
    let mut answers = Vec::new();
    for batch in 0..20 {
        let records = (0..10).map(|n| record(1, "k", format!("{}", batch * 10 + n))).collect();
        answers.extend(append(log, records, AckLevel::Disk).await);
    }
    assert_eq!(answers.len(), 200);
    let records = read_exactly(log, at(1), start, 200).await;
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record.value, Bytes::from(n.to_string()), "appended order is log order");
        assert_eq!(record.offset, Offset(start.0 + n as u64), "offsets rise by one");
        assert_eq!(record.at, at(1));
    }
    if traits.tells_place {
        let told: Vec<_> = answers.iter().map(|answer| answer.at).collect();
        let right: Vec<_> = records.iter().map(|record| Some((PartitionId(1), record.offset))).collect();
        assert_eq!(told, right, "the answer names the place");
    }
    assert_eq!(settled_end(log, at(1)).await, Offset(start.0 + 200));
    let middle = read_exactly(log, at(1), Offset(start.0 + 77), 3).await;
    assert_eq!(middle.iter().map(|record| record.offset.0 - start.0).collect::<Vec<_>>(), [77, 78, 79]);
}

async fn an_event_is_found_by_every_record_that_names_it(log: &dyn Log) {
    let fresh = settled_end(log, at(2)).await.0 + 1;
    let (event_id, other) = (EventId::v7(fresh, &[9; 10]), EventId::v7(fresh, &[8; 10]));
    let event = |id: EventId| NewRecord {
        topic: Topic::Events,
        headers: Headers::of([(CE_ID, id.to_string())]),
        // Like a control record, which is no event to whoever shares the broker.
        ..record(2, "k", r#"{"event_type":"rivulet.contract"}"#)
    };
    let refused =
        NewRecord { topic: Topic::Quarantine, partition: None, ..record(0, &event_id.to_string(), "{}") };
    let decision = format!(r#"{{"rule":"r","trigger":"{event_id}"}}"#);
    let decision = NewRecord { topic: Topic::Decisions, ..record(2, "k", decision) };
    append(log, vec![event(other), event(event_id), refused, decision], AckLevel::Disk).await;
    let topics = async |id: EventId| {
        let found = log.find(id).await.expect("can be asked");
        assert!(found.iter().all(|sighting| sighting.record.event_id() == Some(id)));
        let mut topics: Vec<Topic> = found.iter().map(|sighting| sighting.record.at.topic).collect();
        topics.sort_unstable();
        topics
    };
    for _ in 0..2 {
        assert_eq!(topics(event_id).await, [Topic::Events, Topic::Quarantine, Topic::Decisions]);
        assert_eq!(topics(other).await, [Topic::Events]);
        assert_eq!(topics(EventId::v7(fresh, &[7; 10])).await, [], "an id that nothing names");
        // Again when everything is where it belongs.
        settled_end(log, at(2)).await;
    }
}

async fn order_of_a_key(log: &dyn Log) {
    let count = log.partitions(TOPIC).await.expect("known");
    let mut starts = Vec::new();
    for partition in 0..count {
        starts.push(settled_end(log, at(partition)).await);
    }
    let keys: Vec<String> = (0..12).map(|n| format!("user_{n}")).collect();
    let mut expected: HashMap<u32, usize> = HashMap::new();
    for round in 0..15 {
        let of = |key: &String| NewRecord { partition: None, ..record(0, key, format!("{round}")) };
        append(log, keys.iter().map(of).collect(), AckLevel::Disk).await;
        for key in &keys {
            *expected.entry(partition::for_key(key.as_bytes(), count).0).or_default() += 1;
        }
    }
    let mut seen: HashMap<Bytes, Vec<u32>> = HashMap::new();
    for (partition, records) in expected {
        for record in read_exactly(log, at(partition), starts[partition as usize], records).await {
            let round = String::from_utf8(record.value.to_vec()).unwrap().parse().unwrap();
            seen.entry(record.key).or_default().push(round);
        }
    }
    assert_eq!(seen.len(), keys.len(), "every key is where murmur2 puts it");
    for rounds in seen.values() {
        assert_eq!(*rounds, (0..15).collect::<Vec<u32>>(), "a key's records keep their order");
    }
}

async fn everything_comes_back_as_it_went(log: &dyn Log) {
    let start = settled_end(log, at(2)).await;
    let odd = NewRecord {
        key: Bytes::from_static(&[0, 255, 1, 0]),
        headers: Headers::of([("ce_id", &b"x"[..]), ("empty", b""), ("ce_id", &[0, 159, 146, 150])]),
        ..record(2, "", Bytes::from_static(&[0, 10, 13, 255]))
    };
    let tombstone = record(2, "gone", Bytes::new());
    let large = record(2, "large", vec![b'x'; 200_000]);
    let batch = vec![odd, tombstone, large, record(2, "", "no key")];
    append(log, batch.clone(), AckLevel::Disk).await;
    let back = read_exactly(log, at(2), start, 4).await;
    for (new, record) in batch.iter().zip(&back) {
        assert_eq!((&new.key, &new.headers, &new.value), (&record.key, &record.headers, &record.value));
    }
    assert_eq!(back[0].header("empty"), Some(&b""[..]));
}

async fn reads_obey_their_limits(log: &dyn Log) {
    let start = settled_end(log, at(3)).await;
    let batch = (0..20).map(|_| record(3, "k", vec![b'y'; 10_000])).collect();
    append(log, batch, AckLevel::Disk).await;
    read_exactly(log, at(3), start, 20).await;
    let read = |limit| async move { log.read(at(3), start, limit).await.expect("readable").len() };
    assert_eq!(read(ReadLimit { max_records: 7, ..ReadLimit::default() }).await, 7);
    let bytes = read(ReadLimit { max_bytes: 45_000, ..ReadLimit::default() }).await;
    assert!((1..=4).contains(&bytes), "{bytes} records of 10,000 bytes in 45,000");
    assert_eq!(read(ReadLimit { max_bytes: 1, ..ReadLimit::default() }).await, 1, "one however large");
}

async fn reads_wait_and_wake(log: &dyn Log) {
    let end = settled_end(log, at(4)).await;
    let started = Instant::now();
    let wait = Duration::from_millis(300);
    let none =
        log.read(at(4), end, ReadLimit { max_wait: wait, ..ReadLimit::default() }).await.expect("readable");
    assert!(none.is_empty());
    assert!(started.elapsed() >= Duration::from_millis(250), "an empty answer comes after max_wait");
    let limit = ReadLimit { max_wait: PATIENCE, ..ReadLimit::default() };
    let append = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        append(log, vec![record(4, "k", "wake")], AckLevel::Disk).await;
    };
    let started = Instant::now();
    let (woken, ()) = tokio::join!(log.read(at(4), end, limit), append);
    assert_eq!(woken.expect("readable")[0].value, "wake");
    assert!(started.elapsed() < PATIENCE / 2, "a waiting reader is woken by an append");
}

async fn reads_outside_are_refused(log: &dyn Log) {
    let end = settled_end(log, at(5)).await;
    let start = log.start_offset(at(5)).await.expect("has a start");
    assert!(start <= end);
    let beyond = log.read(at(5), Offset(end.0 + 10), ReadLimit::default()).await;
    assert_eq!(beyond, Err(ReadError::BeyondEnd { end }));
}

async fn levels_are_the_truth(log: &dyn Log, traits: Traits) {
    for (want, most) in [
        (AckLevel::Received, AckLevel::Broker),
        (AckLevel::Disk, traits.highest),
        (AckLevel::Broker, traits.highest),
    ] {
        let start = settled_end(log, at(6)).await;
        let answers = append(log, vec![record(6, "k", "a"), record(6, "k", "b")], want).await;
        assert_eq!(answers.len(), 2);
        for answer in &answers {
            assert!(
                answer.level >= want.min(traits.highest) && answer.level <= most,
                "{want:?} got {:?}",
                answer.level
            );
        }
        read_exactly(log, at(6), start, 2).await;
    }
    assert_eq!(append(log, Vec::new(), AckLevel::Disk).await, []);
}

async fn a_record_that_is_refused_costs_no_neighbour(log: &dyn Log, traits: Traits) {
    let start = settled_end(log, at(7)).await;
    let nowhere = log.partitions(TOPIC).await.expect("known");
    let mut batch: Vec<NewRecord> = (0..10).map(|n| record(7, "k", format!("{n}"))).collect();
    batch[3].value = vec![b'z'; 40 << 20].into();
    batch[9].value = vec![b'z'; 40 << 20].into();
    if traits.knows_partitions {
        batch[5].partition = Some(PartitionId(nowhere));
    }
    let answers = log.append(batch, AckLevel::Broker).await.expect("taken");
    assert_eq!(answers.len(), 10, "one answer a record");
    let mut right = Vec::new();
    for (n, answer) in answers.iter().enumerate() {
        match n {
            3 | 9 => {
                let sizes = matches!(answer, Err(RecordError::TooLarge { bytes, max }) if *bytes >= 40 << 20 && max < bytes);
                assert!(sizes, "{answer:?}");
            }
            5 if traits.knows_partitions => {
                assert_eq!(*answer, Err(RecordError::NoPartition(PartitionId(nowhere))));
            }
            n => {
                assert_eq!(answer.as_ref().map(|answer| answer.level), Ok(traits.highest));
                right.push(Bytes::from(n.to_string()));
            }
        }
    }
    let back = read_exactly(log, at(7), start, right.len()).await;
    assert_eq!(back.iter().map(|record| record.value.clone()).collect::<Vec<_>>(), right);
    assert_eq!(settled_end(log, at(7)).await, Offset(start.0 + right.len() as u64), "and nothing else");
    let all = log.append(vec![record(7, "k", vec![b'z'; 40 << 20])], AckLevel::Received).await;
    assert!(matches!(all.expect("taken").as_slice(), [Err(RecordError::TooLarge { .. })]));
    append(log, vec![record(7, "k", "next")], AckLevel::Disk).await;
}
