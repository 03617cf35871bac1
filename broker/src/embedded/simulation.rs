//! The journal on a disk that fails, case after case from a seed.
//!
//! **Invariant:** every record that was acknowledged is read back after any number of crashes, in order and once; the same
//! cases on a build without fsync lose records, and that is noticed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use schemas::time::Timestamp;

use super::JournalConfig;
use super::format::{Entry, Stream};
use super::queue::Room;
use super::simulated::{Dice, Disk, Faults};
use super::store::Store;
use super::stream::open_store;
use crate::clock::TestClock;
use crate::headers::Headers;
use crate::log::AppendError;

const CASES: u64 = 200;
pub(super) const STREAMS: u64 = 3;

/// Offset and value of the acknowledged records of each stream.
pub(super) type Acknowledged = BTreeMap<u64, Vec<(u64, Bytes)>>;

pub(super) fn stream(n: u64) -> Stream {
    Stream { topic: 0, partition: u32::try_from(n).unwrap() }
}

fn config(dice: &mut Dice) -> JournalConfig {
    let verify_bytes = if dice.roll(2) == 0 { 0 } else { u64::MAX };
    JournalConfig { segment_bytes: 4096 + dice.roll(8192), verify_bytes, ..JournalConfig::new("/data") }
}

fn open(disk: &Arc<Disk>, config: JournalConfig, seed: u64) -> Store {
    let salt = u32::try_from(seed).unwrap();
    open_store(config, Arc::new(TestClock::new(Timestamp(1))), disk.files(), salt)
        .expect("opens whatever is there")
}

/// Appends a group of one to four batches; on success its records join the acknowledged ones.
pub(super) fn append(store: &mut Store, dice: &mut Dice, serial: &mut u64, acknowledged: &mut Acknowledged) {
    let mut batches = Vec::new();
    for _ in 0..=dice.roll(4) {
        let mut batch = Vec::new();
        for _ in 0..=dice.roll(5) {
            *serial += 1;
            let size = usize::try_from(dice.roll(300)).unwrap();
            let value = Bytes::from(format!("{serial}:{}", "v".repeat(size)));
            let (key, headers) = (Bytes::from_static(b"key"), Headers::new());
            batch.push(Entry { stream: stream(dice.roll(STREAMS)), key, note: None, headers, value });
        }
        batches.push(batch);
    }
    let group: Vec<&[Entry]> = batches.iter().map(Vec::as_slice).collect();
    let Ok(places) = store.commit(&group, Room::Common) else { return };
    for (batch, places) in batches.iter().zip(places) {
        for (entry, (stream, offset)) in batch.iter().zip(places) {
            assert_eq!(entry.stream, stream);
            acknowledged.entry(u64::from(stream.partition)).or_default().push((offset, entry.value.clone()));
        }
    }
}

/// What is wrong with what the store gives back, if anything is.
fn check(store: &Store, acknowledged: &Acknowledged) -> Result<(), String> {
    for (n, right) in acknowledged {
        let (mut from, mut found) = (0, BTreeMap::new());
        loop {
            let records =
                store.shared().fetch(stream(*n), from, 7, 1 << 20).map_err(|error| error.to_string())?;
            let Some(last) = records.last() else { break };
            let next = last.stamp.offset + 1;
            for record in records {
                if record.stamp.offset < from {
                    return Err(format!("stream {n}: offset {} again", record.stamp.offset));
                }
                from = record.stamp.offset + 1;
                found.insert(record.stamp.offset, record.value);
            }
            from = next;
        }
        let (_, end) = store.shared().bounds(stream(*n));
        for (offset, value) in right {
            if found.get(offset) != Some(value) {
                return Err(format!("stream {n}: acknowledged record at {offset} is lost"));
            }
            if *offset >= end {
                return Err(format!("stream {n}: end {end} is before acknowledged {offset}"));
            }
        }
    }
    Ok(())
}

/// Some lives of a journal, with a crash at the end of each.
fn lives(seed: u64, faults: Faults) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let disk = Disk::new(seed ^ 0xabcd, faults);
    let config = config(&mut dice);
    let (mut serial, mut acknowledged) = (0, Acknowledged::new());
    for _ in 0..4 {
        // Opening meets a disk that works: failures then are a matter of trying again.
        disk.set_faults(Faults { sync_is_removed: faults.sync_is_removed, ..Faults::default() });
        let mut store = open(&disk, config.clone(), seed);
        check(&store, &acknowledged)?;
        disk.set_faults(faults);
        for _ in 0..dice.roll(30) {
            append(&mut store, &mut dice, &mut serial, &mut acknowledged);
        }
        check(&store, &acknowledged)?;
        if dice.roll(4) == 0 {
            store.seal();
        }
        disk.crash();
    }
    disk.set_faults(Faults { sync_is_removed: faults.sync_is_removed, ..Faults::default() });
    check(&open(&disk, config, seed), &acknowledged)
}

#[test]
fn what_was_acknowledged_survives_every_crash() {
    for seed in 0..CASES {
        let outcome = lives(seed, Faults::default());
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}

#[test]
fn what_was_acknowledged_survives_crashes_and_failing_writes() {
    for seed in 0..CASES {
        let faults = Faults { write_fails: 9, sync_fails: 9, no_space: 13, ..Faults::default() };
        let outcome = lives(seed, faults);
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}

#[test]
fn a_build_without_fsync_is_found_out() {
    let found =
        (0..50).filter(|seed| lives(*seed, Faults { sync_is_removed: true, ..Faults::default() }).is_err());
    let found = found.count();
    assert!(found > 40, "only {found} of 50 cases noticed the missing fsync");
}

#[test]
fn damage_costs_only_the_damaged_records() {
    for seed in 0..CASES {
        let mut dice = Dice::new(seed);
        let disk = Disk::new(seed, Faults::default());
        let config = JournalConfig { segment_bytes: 4096, verify_bytes: u64::MAX, ..config(&mut dice) };
        let (mut serial, mut acknowledged) = (0, Acknowledged::new());
        let mut store = open(&disk, config.clone(), seed);
        while serial < 200 {
            append(&mut store, &mut dice, &mut serial, &mut acknowledged);
        }
        store.seal();
        let segments = store.shared().view.read().unwrap().sealed.len() as u64;
        drop(store);
        let victim = 1 + dice.roll(segments);
        let path = config.dir.join(super::recovery::segment_name(victim));
        disk.damage(&path, |bytes| {
            let at = usize::try_from(dice.roll(bytes.len() as u64)).unwrap();
            let len = usize::try_from(1 + dice.roll(64)).unwrap();
            let end = (at + len).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte = !*byte);
        });
        let store = open(&disk, config, seed);
        let total: usize = acknowledged.values().map(Vec::len).sum();
        let mut kept = 0;
        for n in 0..STREAMS {
            let records = store.shared().fetch(stream(n), 0, usize::MAX, usize::MAX).unwrap();
            let mut from = records.last().map_or(0, |record| record.stamp.offset + 1);
            let mut all = records;
            while let Some(more) =
                Some(store.shared().fetch(stream(n), from, usize::MAX, usize::MAX).unwrap())
                    .filter(|m| !m.is_empty())
            {
                from = more.last().unwrap().stamp.offset + 1;
                all.extend(more);
            }
            for record in &all {
                assert!(
                    acknowledged[&n].contains(&(record.stamp.offset, record.value.clone())),
                    "seed {seed}: forged"
                );
            }
            kept += all.len();
        }
        // 64 damaged bytes touch at most three frames of 49 bytes and more.
        assert!(total - kept <= 3, "seed {seed}: {} of {total} lost", total - kept);
        let counted = store.shared().counters.corrupted_records.get();
        let named = store.shared().damages.lock().unwrap().len();
        if victim == segments {
            assert!(total == kept || named > 0, "seed {seed}: loss at the end is named");
        } else {
            assert_eq!(counted, (total - kept) as u64, "seed {seed}: counted");
        }
    }
}

#[test]
fn a_full_disk_closes_admission_and_opens_it_again() {
    let disk = Disk::new(1, Faults::default());
    let mut dice = Dice::new(1);
    let mut store = open(&disk, JournalConfig { headroom_bytes: 1000, ..config(&mut dice) }, 1);
    let entry = Entry {
        stream: stream(0),
        key: Bytes::new(),
        note: None,
        headers: Headers::new(),
        value: Bytes::from_static(b"v"),
    };
    disk.set_free(1000);
    assert_eq!(store.commit(&[std::slice::from_ref(&entry)], Room::Common), Err(AppendError::Full));
    let in_headroom = store.commit(&[std::slice::from_ref(&entry)], Room::Headroom);
    assert_eq!(in_headroom, Ok(vec![vec![(stream(0), 0)]]), "what makes room may use the headroom");
    disk.set_free(999);
    assert!(!Store::roomy(&store.shared()));
    disk.set_free(1 << 20);
    assert_eq!(store.commit(&[std::slice::from_ref(&entry)], Room::Common), Ok(vec![vec![(stream(0), 1)]]));
}
