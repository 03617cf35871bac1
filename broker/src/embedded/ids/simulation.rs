//! The index of event ids on a disk that loses, tears and mixes up its files, case after case from a seed.
//!
//! **Invariant:** whatever becomes of the index files, an event is found where it was written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use schemas::header::CE_ID;
use schemas::id::EventId;
use schemas::time::Timestamp;

use super::{IDS_SUFFIX, in_view, keep};
use crate::clock::TestClock;
use crate::embedded::JournalConfig;
use crate::embedded::file::FileLayer;
use crate::embedded::format::{Entry, Stream};
use crate::embedded::queue::Room;
use crate::embedded::simulated::{Dice, Disk, Faults};
use crate::embedded::store::Store;
use crate::embedded::stream::open_store;
use crate::headers::Headers;

const CASES: u64 = 40;
const EVENTS: u64 = 40;

/// Where each event was written: topic and offset.
type Written = BTreeMap<EventId, Vec<(Stream, u64)>>;

fn event(n: u64) -> EventId {
    EventId::v7(n, &[u8::try_from(n % 251).unwrap(); 10])
}

fn config() -> JournalConfig {
    JournalConfig { segment_bytes: 4096, verify_bytes: 0, retention_age: None, ..JournalConfig::new("/data") }
}

fn open(disk: &Arc<Disk>) -> Store {
    open_store(config(), Arc::new(TestClock::new(Timestamp(1))), disk.files(), 77).unwrap()
}

/// A record that names the event in one of the three ways, or none.
fn entry(dice: &mut Dice, event: EventId) -> Entry {
    let topic = u8::try_from(dice.roll(4)).unwrap();
    let text = event.to_string();
    let ce_id = Headers::of([(CE_ID, &text)]);
    let (key, headers, value) = match topic {
        1 => (text, Headers::new(), "{}".to_owned()),
        3 => ("user".to_owned(), Headers::new(), format!(r#"{{"rule":"r","trigger":"{text}"}}"#)),
        _ => ("user".to_owned(), ce_id, "{}".to_owned()),
    };
    Entry {
        stream: Stream { topic, partition: 0 },
        key: key.into(),
        note: None,
        headers,
        value: value.into(),
    }
}

/// Appends some batches; whether the ids are noted at once is left to chance.
fn append(store: &mut Store, dice: &mut Dice, written: &mut Written) {
    for _ in 0..dice.roll(40) {
        let of: Vec<EventId> = (0..=dice.roll(4)).map(|_| event(dice.roll(EVENTS))).collect();
        let batch: Vec<Entry> = of.iter().map(|event| entry(dice, *event)).collect();
        let Ok(places) = store.commit(&[&batch], Room::Common) else { continue };
        if dice.roll(8) > 0 {
            store.note(&[batch]);
        }
        for (event, (stream, offset)) in of.iter().zip(places.into_iter().flatten()) {
            if stream.topic != 2 {
                written.entry(*event).or_default().push((stream, offset));
            }
        }
    }
}

fn index_files(disk: &Arc<Disk>) -> Vec<PathBuf> {
    let names = disk.files().list(&config().dir).unwrap().into_iter().map(|(name, _)| name);
    names.filter(|name| name.ends_with(IDS_SUFFIX)).map(|name| config().dir.join(name)).collect()
}

/// Loses, cuts, changes or mixes up index files.
fn spoil(disk: &Arc<Disk>, dice: &mut Dice) {
    let files = index_files(disk);
    for path in &files {
        match dice.roll(6) {
            0 => disk.files().remove(path).unwrap(),
            1 => disk.damage(path, |bytes| bytes.truncate(usize::try_from(dice.roll(9_000)).unwrap())),
            2 => disk.damage(path, |bytes| {
                let at = usize::try_from(dice.roll(bytes.len() as u64)).unwrap();
                bytes[at..].iter_mut().take(9).for_each(|byte| *byte = !*byte);
            }),
            3 => {
                let other = &files[usize::try_from(dice.roll(files.len() as u64)).unwrap()];
                if let Ok(file) = disk.files().open(other) {
                    let mut stale = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
                    file.read_at(&mut stale, 0).unwrap();
                    disk.damage(path, |bytes| *bytes = stale);
                }
            }
            _ => {}
        }
    }
}

fn check(store: &Store, written: &Written, seed: u64) {
    for n in 0..EVENTS {
        let found = in_view(&store.shared(), event(n)).unwrap();
        let found: Vec<_> = found.iter().map(|stored| (stored.stream, stored.stamp.offset)).collect();
        let right = written.get(&event(n)).cloned().unwrap_or_default();
        assert_eq!(found, right, "seed {seed}, event {n}");
    }
}

#[test]
fn an_event_is_found_whatever_becomes_of_the_index() {
    for seed in 0..CASES {
        let mut dice = Dice::new(seed);
        let disk = Disk::new(seed, Faults::default());
        let mut written = Written::new();
        for _ in 0..3 {
            let mut store = open(&disk);
            check(&store, &written, seed);
            append(&mut store, &mut dice, &mut written);
            check(&store, &written, seed);
            keep::catch_up(&store.shared());
            spoil(&disk, &mut dice);
            check(&store, &written, seed);
            keep::catch_up(&store.shared());
            check(&store, &written, seed);
            let sealed = store.shared().view.read().unwrap().sealed.len();
            assert_eq!(index_files(&disk).len(), sealed, "seed {seed}: each sealed segment has its index");
            disk.crash();
        }
    }
}
