//! Torn write × bit flip × truncated file × missing file × no space × errors of reads, writes and fsyncs × power cut or
//! kill -9, many cases from a seed; and an fsync that takes its time.
//!
//! **Invariant:** opening never fails for what the files hold, and needs no space; every acknowledged record whose bytes are
//! intact is read back; what is lost is counted and named by offset; no offset is used again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use schemas::time::Timestamp;
use schemas::topic::Offset;
use schemas::verdict::AckLevel;

use super::format::{Entry, SegmentHeader, Stream};
use super::queue::Room;
use super::recovery::{INDEX_SUFFIX, SEGMENT_SUFFIX, STATE_NAME, scan};
use super::simulated::{Dice, Disk, Faults};
use super::simulation::{Acknowledged, STREAMS, append, stream};
use super::store::Store;
use super::stream::open_store;
use super::{DamageKind, Journal, JournalConfig};
use crate::clock::TestClock;
use crate::contract::{self, at, record};
use crate::log::{AppendError, Log as _};

/// Cases.
const CASES: u64 = 250;

/// A record's place and its value.
type Records = BTreeMap<(u64, u64), Bytes>;

fn config(dice: &mut Dice) -> JournalConfig {
    let verify_bytes = if dice.roll(2) == 0 { 0 } else { u64::MAX };
    JournalConfig { segment_bytes: 4096, verify_bytes, retention_age: None, ..JournalConfig::new("/data") }
}

fn open(disk: &Arc<Disk>, config: &JournalConfig, seed: u64) -> Option<Store> {
    let salt = u32::try_from(seed).unwrap();
    open_store(config.clone(), Arc::new(TestClock::new(Timestamp(1))), disk.files(), salt).ok()
}

/// Everything that can be read.
fn read_all(store: &Store) -> Records {
    let mut records = Records::new();
    for n in 0..STREAMS {
        let mut from = 0;
        loop {
            let more = store.shared().fetch(stream(n), from, 50, 1 << 20).expect("can be read");
            let Some(last) = more.last() else { break };
            from = last.stamp.offset + 1;
            records.extend(more.into_iter().map(|record| ((n, record.stamp.offset), record.value)));
        }
    }
    records
}

fn segments(disk: &Disk, dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = disk.contents(dir);
    files.retain(|path, _| path.to_str().unwrap().ends_with(SEGMENT_SUFFIX));
    files
}

/// Where the frames of all records are.
fn frames(disk: &Arc<Disk>, dir: &Path, salt: u32) -> BTreeMap<(u64, u64), (PathBuf, usize, usize)> {
    let mut frames = BTreeMap::new();
    for path in segments(disk, dir).into_keys() {
        use super::file::FileLayer as _;
        let scanned = scan(disk.files().open(&path).unwrap(), Some(salt), u64::MAX).unwrap();
        for n in 0..STREAMS {
            for spot in scanned.index.find(stream(n), 0, usize::MAX, usize::MAX) {
                let at = usize::try_from(spot.position).unwrap();
                frames.insert((n, spot.offset), (path.clone(), at, spot.bytes));
            }
        }
    }
    frames
}

/// One thing that goes wrong with the files of a journal that is closed.
fn harm(disk: &Disk, dir: &Path, dice: &mut Dice) {
    let all: Vec<PathBuf> = disk.contents(dir).into_keys().collect();
    let of = |suffix: &str| -> Vec<PathBuf> {
        all.iter().filter(|path| path.to_str().unwrap().ends_with(suffix)).cloned().collect()
    };
    let suffix = match dice.roll(10) {
        0 => STATE_NAME,
        1 => INDEX_SUFFIX,
        _ => SEGMENT_SUFFIX,
    };
    let files = of(suffix);
    let Some(path) = files.get(usize::try_from(dice.roll(files.len() as u64)).unwrap()) else { return };
    match dice.roll(4) {
        0 => disk.lose(path),
        1 => disk.damage(path, |bytes| {
            bytes.truncate(usize::try_from(dice.roll(bytes.len() as u64 + 1)).unwrap());
        }),
        _ => disk.damage(path, |bytes| {
            let (at, len) = (dice.roll(bytes.len() as u64), 1 + dice.roll(100));
            let flips =
                bytes.iter_mut().skip(usize::try_from(at).unwrap()).take(usize::try_from(len).unwrap());
            flips.for_each(|byte| *byte = !*byte);
        }),
    }
}

/// Lives of a journal on a disk that fails, each ended by a power cut or kill -9.
fn lives(
    disk: &Arc<Disk>,
    config: &JournalConfig,
    dice: &mut Dice,
    seed: u64,
    acknowledged: &mut Acknowledged,
) {
    let one_in = |dice: &mut Dice, n: u64| if dice.roll(2) == 0 { n } else { 0 };
    let mut serial = 0;
    for _ in 0..=dice.roll(3) {
        disk.set_faults(Faults { read_fails: one_in(dice, 40), ..Faults::default() });
        let opened = open(disk, config, seed);
        let faults = Faults {
            write_fails: one_in(dice, 9),
            sync_fails: one_in(dice, 9),
            no_space: one_in(dice, 13),
            ..Faults::default()
        };
        // A disk that cannot be read now is opened when it can.
        let Some(mut store) = opened.or_else(|| {
            disk.set_faults(Faults::default());
            open(disk, config, seed)
        }) else {
            panic!("seed {seed}: does not open");
        };
        disk.set_faults(faults);
        for _ in 0..dice.roll(30) {
            append(&mut store, dice, &mut serial, acknowledged);
        }
        if dice.roll(2) == 0 { disk.crash() } else { disk.kill() }
    }
    disk.set_faults(Faults::default());
}

fn flat(acknowledged: &Acknowledged) -> Records {
    let of = |(n, records): (&u64, &Vec<(u64, Bytes)>)| {
        let n = *n;
        records.clone().into_iter().map(move |(offset, value)| ((n, offset), value))
    };
    acknowledged.iter().flat_map(of).collect()
}

fn case(seed: u64) {
    let mut dice = Dice::new(seed);
    let disk = Disk::new(seed ^ 0x5555, Faults::default());
    let config = config(&mut dice);
    let (dir, salt) = (config.dir.clone(), u32::try_from(seed).unwrap());
    let mut acknowledged = Acknowledged::new();
    lives(&disk, &config, &mut dice, seed, &mut acknowledged);
    let before = read_all(&open(&disk, &config, seed).expect("opens"));
    let promised = flat(&acknowledged);
    assert!(
        promised.iter().all(|(at, value)| before.get(at) == Some(value)),
        "seed {seed}: lost without harm"
    );
    disk.kill();

    let all = disk.contents(&dir);
    let (files, frames) = (segments(&disk, &dir), frames(&disk, &dir, salt));
    for _ in 0..=dice.roll(3) {
        harm(&disk, &dir, &mut dice);
    }
    let after = segments(&disk, &dir);
    let state = |files: &BTreeMap<PathBuf, Vec<u8>>| files.get(&dir.join(STATE_NAME)).cloned();
    let state_is_whole = state(&all) == state(&disk.contents(&dir));
    let newest = files.keys().next_back();
    let newest_is_whole = newest.is_none_or(|path| after.get(path) == files.get(path));
    let intact = |at: &(u64, u64)| {
        let (path, from, len) = &frames[at];
        after.get(path).and_then(|bytes| bytes.get(*from..from + len)) == files[path].get(*from..from + len)
    };

    // Opening needs no space.
    disk.set_faults(Faults { no_space: dice.roll(2), ..Faults::default() });
    let mut store = open(&disk, &config, seed).unwrap_or_else(|| panic!("seed {seed}: does not open"));
    disk.set_faults(Faults::default());
    let now = read_all(&store);
    for (at, value) in &before {
        assert!(!intact(at) || now.get(at) == Some(value), "seed {seed}: {at:?} is intact and not read");
    }
    let header = |bytes: &[u8]| SegmentHeader::read(bytes).map(|(header, _)| header);
    let same_header =
        |path: &PathBuf| after.get(path).map(|bytes| header(bytes)) == Some(header(&files[path]));
    // What was never acknowledged may come to light when the header that says so is gone.
    let other = now.iter().find(|(at, value)| before.get(at).is_some_and(|before| before != *value));
    assert_eq!(other, None, "seed {seed}: forged");
    // Segments that are missing at the front look like deleted ones, and without its header nobody knows how the first began.
    let deleted: Vec<&PathBuf> = files.keys().take_while(|path| !same_header(path)).collect();
    let kept = |at: &&(u64, u64)| now.contains_key(at) || deleted.contains(&&frames[at].0);
    let lost: BTreeSet<(u64, u64)> = before.keys().filter(|at| !kept(at)).copied().collect();
    let headers_are_whole = files.keys().all(same_header);
    if newest_is_whole {
        told(&store, &lost, headers_are_whole, seed);
    } else if newest.is_some_and(|path| !same_header(path)) && state_is_whole {
        assert!(!store.shared().damages.lock().unwrap().is_empty(), "seed {seed}: nothing is told");
    }

    let mut serial = 1_000_000;
    let mut fresh = Acknowledged::new();
    while fresh.is_empty() {
        append(&mut store, &mut dice, &mut serial, &mut fresh);
    }
    disk.crash();
    let again = read_all(&open(&disk, &config, seed).expect("opens"));
    for (at, value) in now.iter().chain(&flat(&fresh)) {
        assert_eq!(again.get(at), Some(value), "seed {seed}: {at:?} after going on");
    }
    let used = |at: &(u64, u64)| newest_is_whole && promised.contains_key(at);
    assert!(!flat(&fresh).keys().any(used), "seed {seed}: an offset is used again");
}

/// What was lost is counted and named.
fn told(store: &Store, lost: &BTreeSet<(u64, u64)>, headers_are_whole: bool, seed: u64) {
    let shared = store.shared();
    let damages = shared.damages.lock().unwrap().clone();
    let counted = shared.counters.corrupted_records.get();
    let lost_count = lost.len() as u64;
    // Without a header, sequences that were given to failed writes count as lost too.
    let right = if headers_are_whole { counted == lost_count } else { counted >= lost_count };
    assert!(right, "seed {seed}: counted {counted}, lost {lost:?}, told {damages:?}");
    for (n, offset) in lost {
        let names = |damage: &super::Damage| {
            damage
                .offsets
                .iter()
                .any(|(at, from, to)| Stream::of(*at) == stream(*n) && (from.0..to.0).contains(offset))
        };
        assert!(damages.iter().any(names), "seed {seed}: {n}/{offset} is not named in {damages:?}");
    }
    assert!(damages.iter().all(|damage| damage.kind != DamageKind::LostEnd), "seed {seed}: {damages:?}");
}

#[test]
fn whatever_goes_wrong_intact_records_are_kept_and_lost_ones_counted_and_named() {
    for seed in 0..CASES {
        case(seed);
    }
}

#[test]
fn a_full_disk_still_deletes_and_admission_opens_by_itself() {
    for seed in 0..20 {
        let (mut dice, disk) = (Dice::new(seed), Disk::new(seed, Faults::default()));
        let config =
            JournalConfig { retention_bytes: Some(10_000), headroom_bytes: 1_000, ..config(&mut dice) };
        let mut store = open(&disk, &config, seed).unwrap();
        let (mut serial, mut acknowledged) = (0, Acknowledged::new());
        store.shared().hold("processor", stream(0), 0);
        while store.shared().view.read().unwrap().sealed.len() < 9 {
            append(&mut store, &mut dice, &mut serial, &mut acknowledged);
        }
        // Not a byte can be written, and fresh files cannot be made safe.
        disk.set_free(0);
        disk.set_faults(Faults { no_space: 1, ..Faults::default() });
        let entry = Entry {
            stream: stream(0),
            key: Bytes::new(),
            note: None,
            headers: crate::headers::Headers::new(),
            value: Bytes::from_static(b"v"),
        };
        assert_eq!(
            store.commit(&[std::slice::from_ref(&entry)], Room::Common),
            Err(AppendError::Full),
            "seed {seed}"
        );
        store.shared().hold("processor", stream(0), u64::MAX >> 1);
        store.retain();
        let left = store.shared().view.read().unwrap().sealed.len();
        assert!(left < 9, "seed {seed}: {left} segments are left");
        assert_eq!(segments(&disk, &config.dir).len(), left + 1, "seed {seed}: files are deleted");
        drop(store);
        disk.kill();
        let mut store = open(&disk, &config, seed).expect("opens without space");
        disk.set_free(1 << 30);
        disk.set_faults(Faults::default());
        assert!(
            store.commit(&[std::slice::from_ref(&entry)], Room::Common).is_ok(),
            "seed {seed}: admission is open again"
        );
    }
}

#[tokio::test]
async fn a_slow_fsync_answers_nobody_early_and_then_serves_all_who_waited() {
    let disk = Disk::new(1, Faults::default());
    let (config, clock) = (JournalConfig::new("/data"), Arc::new(TestClock::new(Timestamp(1))));
    let journal = Arc::new(Journal::open_with(config, clock, disk.files()).unwrap());
    let append = |n: u32| {
        let journal = Arc::clone(&journal);
        async move { contract::append(&*journal, vec![record(n % 8, "k", "v")], AckLevel::Disk).await }
    };
    append(0).await;
    disk.hold_syncs(true);
    let waits: Vec<_> = (1..=80).map(|n| tokio::spawn(append(n))).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(waits.iter().all(|wait| !wait.is_finished()), "nobody is answered before the fsync ends");
    assert_eq!(journal.end_offset(at(1)).await, Ok(Offset(0)), "and nothing of it is read");
    let fsyncs = journal.counters().fsyncs.get();
    disk.hold_syncs(false);
    for wait in waits {
        assert_eq!(wait.await.unwrap()[0].level, AckLevel::Disk);
    }
    assert_eq!(journal.end_offset(at(1)).await, Ok(Offset(10)));
    let more = journal.counters().fsyncs.get() - fsyncs;
    assert!(more <= 3, "{more} fsyncs for those who waited");
    journal.close().await;
}
