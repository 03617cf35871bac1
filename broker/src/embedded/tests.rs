//! The journal on a real disk.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use schemas::header::CE_ID;
use schemas::time::Timestamp;
use tokio::time::timeout;

use super::reader::Reader;
use super::*;
use crate::clock::{SystemClock, TestClock};
use crate::contract::{self, Traits, append, at, read_exactly, record};
use crate::headers::Headers;

fn small(dir: &Path) -> JournalConfig {
    JournalConfig { segment_bytes: 4096, headroom_bytes: 0, ..JournalConfig::new(dir) }
}

fn open(dir: &Path) -> Journal {
    Journal::open(small(dir), Arc::new(SystemClock)).expect("opens")
}

async fn fill(log: &Journal, from: u64, to: u64) {
    for n in from..to {
        let value = format!("{n}:{}", "x".repeat(200));
        append(log, vec![record(0, "k", value)], AckLevel::Disk).await;
    }
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(suffix));
    files.sort();
    files
}

fn number(record: &Record) -> u64 {
    let text = String::from_utf8(record.value.to_vec()).unwrap();
    text.split(':').next().unwrap().parse().unwrap()
}

async fn everything(log: &Journal) -> Vec<u64> {
    let (mut numbers, mut from) = (Vec::new(), log.start_offset(at(0)).await.unwrap());
    loop {
        let limit = ReadLimit { max_wait: Duration::ZERO, ..ReadLimit::default() };
        let records = log.read(at(0), from, limit).await.unwrap();
        let Some(last) = records.last() else { return numbers };
        from = last.offset.next();
        numbers.extend(records.iter().map(number));
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(
        JournalConfig { headroom_bytes: 0, ..JournalConfig::new(dir.path()) },
        Arc::new(SystemClock),
    );
    let journal = journal.unwrap();
    contract::check_all(&journal, Traits::JOURNAL).await;
    contract::check_all(&journal, Traits::JOURNAL).await;
    journal.close().await;
    assert_eq!(journal.append(vec![record(0, "k", "v")], AckLevel::Disk).await, Err(AppendError::Closed));
}

#[tokio::test]
async fn keeps_the_contract_over_many_small_segments_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let journal = open(dir.path());
        contract::check_all(&journal, Traits::JOURNAL).await;
    }
}

#[tokio::test]
async fn a_second_process_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let second = Journal::open(small(dir.path()), Arc::new(SystemClock)).err().unwrap();
    assert!(matches!(second, OpenError::Locked { .. }));
    assert!(second.to_string().contains("--data"), "{second}");
    drop(first);
    open(dir.path());
}

#[tokio::test]
async fn one_fsync_serves_all_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(dir.path()));
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let journal = Arc::clone(&journal);
            tokio::spawn(
                async move { append(&*journal, vec![record(n % 8, "k", "v")], AckLevel::Disk).await },
            )
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap()[0].level, AckLevel::Disk);
    }
    let fsyncs = journal.counters().fsyncs.get();
    assert!(fsyncs < 200, "{fsyncs} fsyncs for 200 appends");
    assert_eq!(journal.counters().appended_records.get(), 200);
}

#[tokio::test]
async fn a_torn_tail_of_any_kind_costs_only_the_torn_record() {
    let frame = u64::try_from(super::format::MIN_FRAME_BYTES + 1 + 3 + 200).unwrap();
    for tear in (1..=64).step_by(7).chain([frame, u64::MAX]) {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path());
        fill(&journal, 10, 15).await;
        drop(journal);
        let last = files(dir.path(), ".segment").pop().unwrap();
        let file = OpenOptions::new().write(true).open(&last).unwrap();
        let size = file.metadata().unwrap().len();
        file.set_len(size.saturating_sub(tear)).unwrap();
        let journal = open(dir.path());
        let kept = everything(&journal).await;
        assert_eq!(kept, if tear == u64::MAX { vec![] } else { vec![10, 11, 12, 13] }, "torn by {tear}");
        if tear < frame {
            assert_eq!(journal.damage()[0].kind, DamageKind::TornTail);
        }
        journal.hold("processor", at(0), Offset(5));
        fill(&journal, 20, 22).await;
        let after = read_exactly(&journal, at(0), Offset(5), 2).await;
        assert_eq!(
            after.iter().map(number).collect::<Vec<_>>(),
            [20, 21],
            "a consumer's position is not used again"
        );
        assert_eq!(after[0].offset, Offset(5));
    }
}

#[tokio::test]
async fn a_tail_of_zeros_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    fill(&journal, 0, 5).await;
    drop(journal);
    let last = files(dir.path(), ".segment").pop().unwrap();
    OpenOptions::new().append(true).open(&last).unwrap().write_all(&[0; 10_000]).unwrap();
    std::fs::write(dir.path().join(super::recovery::segment_name(99)), b"").unwrap();
    let journal = open(dir.path());
    assert_eq!(everything(&journal).await, [0, 1, 2, 3, 4]);
    fill(&journal, 5, 7).await;
    drop(journal);
    assert_eq!(everything(&open(dir.path())).await, [0, 1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_missing_segment_is_a_gap_that_is_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    fill(&journal, 0, 100).await;
    drop(journal);
    let segments = files(dir.path(), ".segment");
    std::fs::remove_file(&segments[2]).unwrap();
    let journal = open(dir.path());
    let kept = everything(&journal).await;
    let damage = journal.damage();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((damage[0].kind, damage[0].segment), (DamageKind::MissingSegment, 3));
    assert_eq!(damage[0].records, Some(100 - kept.len() as u64));
    assert_eq!(journal.health().corrupted_records, 100 - kept.len() as u64);
    let (_, from, to) = damage[0].offsets[0];
    assert!((from.0..to.0).all(|offset| !kept.contains(&offset)));
    assert_eq!(journal.end_offset(at(0)).await.unwrap(), Offset(100));
    let gap = journal.read(at(0), from, ReadLimit::default()).await.unwrap();
    assert_eq!(gap[0].offset, to, "reading inside a gap goes on behind it");
}

#[tokio::test]
async fn offsets_of_the_newest_segment_are_not_used_again_when_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    fill(&journal, 0, 100).await;
    drop(journal);
    std::fs::remove_file(files(dir.path(), ".segment").pop().unwrap()).unwrap();
    for _ in 0..2 {
        let journal = open(dir.path());
        assert_eq!(journal.damage().last().unwrap().kind, DamageKind::MissingSegment);
        assert!(journal.end_offset(at(0)).await.unwrap() >= Offset(100));
        // Who had read all of it knows how much it was.
        let kept = everything(&journal).await.len() as u64;
        journal.hold("processor", at(0), Offset(100));
        assert_eq!(journal.health().corrupted_records, 100 - kept);
        let lost = journal.damage().pop().unwrap();
        assert_eq!(
            (lost.kind, lost.offsets),
            (DamageKind::LostEnd, vec![(at(0), Offset(kept), Offset(100))])
        );
        journal.hold("processor", at(0), Offset(101));
        assert_eq!(journal.health().corrupted_records, 100 - kept, "counted once");
    }
    let journal = open(dir.path());
    fill(&journal, 100, 101).await;
    assert_eq!(everything(&journal).await.last(), Some(&100));
}

#[tokio::test]
async fn a_record_that_rots_while_open_is_left_out_and_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    fill(&journal, 0, 60).await;
    let path = &files(dir.path(), ".segment")[0];
    let mut bytes = std::fs::read(path).unwrap();
    let at_byte = bytes.windows(4).position(|window| window == b"3:xx").unwrap();
    bytes[at_byte] ^= 1;
    std::fs::write(path, bytes).unwrap();
    for _ in 0..2 {
        assert_eq!(everything(&journal).await, (0..60).filter(|n| *n != 3).collect::<Vec<_>>());
    }
    assert_eq!(journal.health().corrupted_records, 1);
    assert_eq!(journal.damage()[0].offsets, [(at(0), Offset(3), Offset(4))]);
}

#[tokio::test]
async fn a_missing_or_wrong_index_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    fill(&journal, 0, 100).await;
    drop(journal);
    for (n, index) in files(dir.path(), ".index").iter().enumerate() {
        match n % 3 {
            0 => std::fs::remove_file(index).unwrap(),
            1 => std::fs::write(index, b"nonsense").unwrap(),
            _ => {}
        }
    }
    let config = JournalConfig { verify_bytes: 0, ..small(dir.path()) };
    let journal = Journal::open(config, Arc::new(SystemClock)).unwrap();
    for index in files(dir.path(), ".index") {
        std::fs::remove_file(index).unwrap();
    }
    assert_eq!(everything(&journal).await, (0..100).collect::<Vec<_>>());
    assert_eq!(journal.damage(), []);
}

#[tokio::test]
async fn retention_deletes_whole_segments_by_size_and_age_but_nothing_held() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::new(Timestamp(0)));
    let config = JournalConfig {
        retention_age: Some(Duration::from_mins(1)),
        retention_bytes: Some(20_000),
        ..small(dir.path())
    };
    let journal = Journal::open(config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    journal.hold("processor", at(0), Offset(0));
    fill(&journal, 0, 200).await;
    assert_eq!(everything(&journal).await.len(), 200, "held");
    journal.hold("processor", at(0), Offset(150));
    fill(&journal, 200, 260).await;
    let start = journal.start_offset(at(0)).await.unwrap();
    assert!((1..=150).contains(&start.0), "{start:?}");
    assert_eq!(journal.read(at(0), Offset(0), ReadLimit::default()).await, Err(ReadError::Expired { start }));
    journal.hold("processor", at(0), Offset(260));
    clock.advance(61_000);
    fill(&journal, 260, 300).await;
    assert!(journal.start_offset(at(0)).await.unwrap().0 >= 240);
    assert!(files(dir.path(), ".segment").len() <= 4);
    drop(journal);
    assert_eq!(everything(&open(dir.path())).await.last(), Some(&299));
}

#[tokio::test]
async fn a_reader_without_the_lock_follows_a_running_writer() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let mut reader = Reader::open(dir.path()).unwrap().partition(at(0), Offset(5));
    let mut seen = Vec::new();
    for round in 0..10 {
        fill(&journal, round * 10, round * 10 + 10).await;
        while let Some(record) = reader.next_record().unwrap() {
            seen.push(number(&record));
        }
    }
    assert_eq!(seen, (5..100).collect::<Vec<_>>());
    let last = files(dir.path(), ".segment").pop().unwrap();
    OpenOptions::new().append(true).open(&last).unwrap().write_all(&[0xff, b'R', b'V', 0xfe, 9]).unwrap();
    let all =
        Reader::open(dir.path()).unwrap().topic(contract::TOPIC).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(all.len(), 100);
    assert_eq!(all[99].key, Bytes::from_static(b"k"));
}

fn event(n: u64) -> EventId {
    EventId::v7(n, &[7; 10])
}

async fn append_events(log: &Journal, from: u64, to: u64) {
    for n in from..to {
        let headers = Headers::of([(CE_ID, event(n).to_string())]);
        let record = NewRecord { topic: Topic::Events, headers, ..record(0, "k", "x".repeat(300)) };
        append(log, vec![record], AckLevel::Disk).await;
    }
}

async fn offsets(log: &Journal, n: u64) -> Vec<u64> {
    let found = log.find(event(n)).await.unwrap();
    assert!(found.iter().all(|sighting| sighting.published && sighting.record.event_id() == Some(event(n))));
    found.into_iter().map(|sighting| sighting.record.offset.0).collect()
}

#[tokio::test]
async fn an_event_is_found_at_once_after_a_restart_and_from_outside() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..3 {
        let journal = open(dir.path());
        for n in 0..40 {
            append_events(&journal, n, n + 1).await;
            let right: Vec<u64> = (0..=life).map(|life| life * 40 + n).collect();
            assert_eq!(offsets(&journal, n).await, right, "found as soon as it is answered");
            let outside = find_in_folder(dir.path(), event(n)).unwrap();
            assert_eq!(outside.iter().map(|record| record.offset.0).collect::<Vec<_>>(), right);
        }
        assert_eq!(offsets(&journal, 99).await, [0_u64; 0]);
        journal.close().await;
        let (segments, indices) = (files(dir.path(), ".segment"), files(dir.path(), ".ids"));
        assert_eq!(segments.len(), indices.len(), "a journal that is closed has an index for each segment");
    }
    let (segments, indices) = (files(dir.path(), ".segment"), files(dir.path(), ".ids"));
    // Missing, damaged, and without its segment.
    std::fs::remove_file(&indices[0]).unwrap();
    std::fs::write(&indices[1], b"nonsense").unwrap();
    std::fs::remove_file(&segments[2]).unwrap();
    let gone = Reader::open(dir.path()).unwrap().map(|record| record.unwrap().offset.0).collect::<Vec<_>>();
    let journal = open(dir.path());
    for n in 0..40 {
        let right: Vec<u64> =
            (0..3).map(|life| life * 40 + n).filter(|offset| gone.contains(offset)).collect();
        assert_eq!(offsets(&journal, n).await, right);
        let outside = find_in_folder(dir.path(), event(n)).unwrap();
        assert_eq!(outside.iter().map(|record| record.offset.0).collect::<Vec<_>>(), right);
    }
    let made = async {
        while !indices[0].exists()
            || std::fs::read(&indices[1]).unwrap() == b"nonsense"
            || indices[2].exists()
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), made)
        .await
        .expect("index files are made anew, those of no segment removed");
}

#[tokio::test]
async fn the_index_of_a_deleted_segment_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { retention_bytes: Some(20_000), ..small(dir.path()) };
    for life in 0..2 {
        let journal = Journal::open(config.clone(), Arc::new(SystemClock)).unwrap();
        append_events(&journal, life * 100, life * 100 + 100).await;
        journal.close().await;
    }
    let names = |suffix: &str| -> Vec<String> {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        files(dir.path(), suffix).into_iter().map(stem).collect()
    };
    assert!(names(".segment").len() < 10);
    let (segments, indices) = (names(".segment"), names(".ids"));
    assert!(
        !indices.is_empty() && indices.iter().all(|name| segments.contains(name)),
        "{indices:?} {segments:?}"
    );
}
