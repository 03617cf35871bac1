//! The spool against the client library's broker in memory, which can be switched off. `tests/it` has a real one.

use std::path::Path;

use tokio::time::Instant;

use super::*;
use crate::clock::SystemClock;
use crate::contract::{self, Traits, append, at, read_exactly, record};
use crate::kafka::tests::{broker, connect};

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

#[test]
fn a_record_comes_out_of_the_spool_as_it_went_in() {
    for partition in [None, Some(PartitionId(0)), Some(PartitionId(63))] {
        let headers = vec![("a".to_owned(), Bytes::from_static(b"b"))];
        let (key, value) = (Bytes::from_static(b"k"), Bytes::new());
        let record = NewRecord { topic: Topic::DeadLetter, key, partition, headers, value };
        let Entry { stream, key, headers, value } = encode(record.clone());
        let stamp =
            crate::embedded::Stamp { sequence: 0, offset: 0, appended_at: schemas::time::Timestamp(0) };
        assert_eq!(decode(Stored { stream, stamp, key, headers, value }), Some(record));
    }
}
