//! The spool against the client library's broker in memory, which can be switched off. `tests/it` has a real one.

use std::path::Path;

use tokio::time::Instant;

use super::*;
use crate::clock::SystemClock;
use crate::contract::{self, Traits, append, at, read_exactly, record};
use crate::embedded::simulated::{Disk, Faults};
use crate::headers::Headers;
use crate::kafka::tests::{Answer, answer_produce, broker, connect};
use bytes::Bytes;

const PATIENCE: Duration = Duration::from_mins(1);

fn open(dir: &Path, brokers: String) -> Spool {
    let config = SpoolConfig { ack_deadline: Duration::from_millis(500), ..SpoolConfig::default() };
    let journal = JournalConfig { segment_bytes: 64 << 10, headroom_bytes: 0, ..JournalConfig::new(dir) };
    Spool::open(config, journal, connect(brokers), Arc::new(SystemClock)).unwrap()
}

async fn drained(spool: &Spool) {
    let started = Instant::now();
    while spool.health().spooled_records > 0 {
        assert!(started.elapsed() < PATIENCE, "{:?}", spool.health());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn fill(spool: &Spool, from: u64, to: u64) {
    for n in from..to {
        let answer = append(spool, vec![record(3, "k", format!("{n}"))], AckLevel::Disk).await;
        assert_eq!(answer[0].level, AckLevel::Disk);
    }
}

/// First occurrences of all numbers in a partition, and how many records there are.
async fn firsts(spool: &Spool) -> (Vec<u64>, usize) {
    let end = spool.end_offset(at(3)).await.unwrap();
    let records = read_exactly(spool, at(3), Offset(0), usize::try_from(end.0).unwrap()).await;
    let mut seen = std::collections::HashSet::new();
    let number = |record: &Record| String::from_utf8(record.value.to_vec()).unwrap().parse::<u64>().unwrap();
    (records.iter().map(number).filter(|n| seen.insert(*n)).collect(), records.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    let (broker, dir) = (broker(), tempfile::tempdir().unwrap());
    let spool = open(dir.path(), broker.bootstrap_servers());
    contract::check_all(&spool, Traits::SPOOL).await;
    spool.close().await;
    assert_eq!(spool.append(vec![record(0, "k", "v")], AckLevel::Disk).await, Err(AppendError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_changes_no_answer_and_everything_arrives_in_order() {
    let (broker, dir) = (broker(), tempfile::tempdir().unwrap());
    let spool = open(dir.path(), broker.bootstrap_servers());
    fill(&spool, 0, 50).await;
    drained(&spool).await;
    broker.broker_down(1).unwrap();
    fill(&spool, 50, 100).await;
    let answer = append(&spool, vec![record(3, "k", "100")], AckLevel::Broker).await;
    assert_eq!(answer[0].level, AckLevel::Disk, "the truth at the deadline");
    assert!(spool.health().spooled_records > 0 && spool.health().admitting);
    // A restart in the middle of the outage.
    drop(spool);
    let started = Instant::now();
    let spool = loop {
        let journal = JournalConfig { headroom_bytes: 0, ..JournalConfig::new(dir.path()) };
        let kafka = connect(broker.bootstrap_servers());
        match Spool::open(SpoolConfig::default(), journal, kafka, Arc::new(SystemClock)) {
            Ok(spool) => break spool,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
    };
    fill(&spool, 101, 150).await;
    broker.broker_up(1).unwrap();
    let answer = append(&spool, vec![record(3, "k", "150")], AckLevel::Broker).await;
    assert!(answer[0].level >= AckLevel::Disk);
    drained(&spool).await;
    let (firsts, _) = firsts(&spool).await;
    assert_eq!(firsts, (0..=150).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_repeats_nothing_that_was_acknowledged_and_trims_the_spool() {
    let (broker, dir) = (broker(), tempfile::tempdir().unwrap());
    for round in 0..3 {
        let spool = open(dir.path(), broker.bootstrap_servers());
        fill(&spool, round * 500, round * 500 + 500).await;
        drained(&spool).await;
        spool.close().await;
        let (records, bytes) = (spool.health().spooled_records, spool.health().disk_bytes);
        assert!(records == 0 && bytes < 130_000, "{records} records, {bytes} bytes");
    }
    let spool = open(dir.path(), broker.bootstrap_servers());
    let (firsts, records) = firsts(&spool).await;
    assert_eq!((firsts, records), ((0..1500).collect(), 1500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_wrong_position_costs_repetitions_and_no_record() {
    let (broker, dir) = (broker(), tempfile::tempdir().unwrap());
    for round in 0..3 {
        let spool = open(dir.path(), broker.bootstrap_servers());
        fill(&spool, round * 20, round * 20 + 20).await;
        drained(&spool).await;
        spool.close().await;
        drop(spool);
        let position = dir.path().join(position::NAME);
        match round {
            0 => std::fs::remove_file(position).unwrap(),
            1 => std::fs::write(position, b"nonsense").unwrap(),
            // Further than the journal: what is appended next must not pass for published.
            _ => std::fs::write(position, Position { low: 9_000, ..Position::default() }.write()).unwrap(),
        }
    }
    let spool = open(dir.path(), broker.bootstrap_servers());
    fill(&spool, 60, 80).await;
    drained(&spool).await;
    assert_eq!(firsts(&spool).await.0, (0..80).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_replicas_change_no_answer_and_everything_arrives_in_order_when_they_are_back() {
    let (broker, dir) = (broker(), tempfile::tempdir().unwrap());
    let spool = open(dir.path(), broker.bootstrap_servers());
    fill(&spool, 0, 1).await;
    drained(&spool).await;
    // More refusals than there are attempts in the time, then none.
    answer_produce(&broker, &[Answer::TooFewReplicas; 1_000]);
    fill(&spool, 1, 50).await;
    let answer = append(&spool, vec![record(3, "k", "50")], AckLevel::Broker).await;
    assert_eq!(answer[0].level, AckLevel::Disk, "the truth at the deadline");
    assert_eq!(spool.health().spooled_records, 50);
    answer_produce(&broker, &[]);
    drained(&spool).await;
    assert_eq!(firsts(&spool).await.0, (0..=50).collect::<Vec<_>>());
}

/// Free bytes below which the spool of [`open_on`] is full.
const HEADROOM_BYTES: u64 = 1 << 20;

fn open_on(disk: &Arc<Disk>, brokers: String) -> Spool {
    let config = SpoolConfig { ack_deadline: PATIENCE, ..SpoolConfig::default() };
    let journal = JournalConfig { headroom_bytes: HEADROOM_BYTES, ..JournalConfig::new("/data") };
    Spool::open_with(config, journal, connect(brokers), Arc::new(SystemClock), disk.files()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_closes_admission_drains_and_opens_again_in_order() {
    let (broker, disk) = (broker(), Disk::new(1, Faults::default()));
    let spool = open_on(&disk, broker.bootstrap_servers());
    fill(&spool, 0, 20).await;
    drained(&spool).await;
    broker.broker_down(1).unwrap();
    fill(&spool, 20, 50).await;
    disk.set_free(HEADROOM_BYTES - 1);
    for want in [AckLevel::Disk, AckLevel::Broker] {
        assert_eq!(spool.append(vec![record(3, "k", "refused")], want).await, Err(AppendError::Full));
    }
    let health = spool.health();
    assert_eq!((health.admitting, health.disk.as_str(), health.spooled_records), (false, "full", 30));
    broker.broker_up(1).unwrap();
    drained(&spool).await;
    disk.set_free(1 << 30);
    assert!(spool.health().admitting, "opens by itself");
    fill(&spool, 50, 60).await;
    drained(&spool).await;
    assert_eq!(firsts(&spool).await.0, (0..60).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_a_record_that_its_topic_refuses_goes_to_quarantine_and_blocks_nothing() {
    let (broker, disk) = (broker(), Disk::new(1, Faults::default()));
    let spool = open_on(&disk, broker.bootstrap_servers());
    fill(&spool, 0, 1).await;
    drained(&spool).await;
    broker.broker_down(1).unwrap();
    fill(&spool, 1, 4).await;
    disk.set_free(HEADROOM_BYTES - 1);
    // The three together, the first alone, the second alone.
    answer_produce(&broker, &[Answer::TooLarge, Answer::Taken, Answer::TooLarge]);
    broker.broker_up(1).unwrap();
    drained(&spool).await;
    assert_eq!(firsts(&spool).await.0, [0, 1, 3]);
    assert_eq!(spool.health().unpublishable_records, 1);
    let mut kept = Vec::new();
    for partition in (0..8).map(PartitionId) {
        let at = TopicPartition { topic: Topic::Quarantine, partition };
        let end = spool.end_offset(at).await.unwrap();
        kept.extend(read_exactly(&spool, at, Offset(0), usize::try_from(end.0).unwrap()).await);
    }
    let [record] = kept.as_slice() else { panic!("{kept:?}") };
    let value: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
    assert_eq!((&value["reason"]["code"], &value["raw"]), (&"log.record_too_large".into(), &"2".into()));
}

#[test]
fn a_record_comes_out_of_the_spool_as_it_went_in() {
    for partition in [None, Some(PartitionId(0)), Some(PartitionId(63))] {
        let headers = Headers::of([("a", "b")]);
        let (key, value) = (Bytes::from_static(b"k"), Bytes::new());
        let record = NewRecord { topic: Topic::DeadLetter, key, partition, headers, value };
        let entry = encode(record.clone());
        let stamp =
            crate::embedded::Stamp { sequence: 0, offset: 0, appended_at: schemas::time::Timestamp(0) };
        let mut frame = Vec::new();
        entry.write(stamp, 0, &mut frame);
        assert_eq!(decode(Stored::read(&frame.into(), 0).unwrap()), Some(record));
    }
}
