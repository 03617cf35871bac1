//! Where on Kafka the records that name an event stand: noted as they are acknowledged.
//!
//! **Invariant:** an aid, never the truth: what it says is checked against the record, what it does not say may be all the same
//! (records of other processes, of the time before, of a disk that was full), and is looked for on Kafka. Bounded by the
//! retention time and by `MAX_RUNS`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use schemas::id::EventId;
use schemas::time::Timestamp;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};

use crate::embedded::file::{FileLayer, StoredFile, read_small};
use crate::embedded::table::{self, Filed, Heading, Table};
use crate::embedded::{Take, locked};
use crate::log::{MAX_SIGHTINGS, NewRecord};
use crate::naming;

/// The file that is added to.
const OPEN_NAME: &str = "places.open";
/// Ends the name of a run: a sorted table.
const RUN_SUFFIX: &str = ".places";
/// First bytes of the open file; the last byte is the version.
const MAGIC: [u8; 8] = *b"RIVPLCS1";
/// Magic, salt, number of the run, checksum.
const HEAD_BYTES: usize = 8 + 4 + 8 + 4;
/// Topic, partition, offset, big-endian.
const WIDTH: usize = 1 + 3 + 8;
/// Entries of a run; so many are held in memory, 24 bytes each.
const RUN_ENTRIES: usize = 1 << 17;
/// Runs that are kept, 2.6 MB each.
const MAX_RUNS: usize = 1 << 10;
/// Acknowledged records that wait to be written; more are not noted.
const MAX_WAITING: usize = 1 << 17;
/// The largest open file that is believed.
const MAX_OPEN_BYTES: usize = 32 << 20;

/// Records under way and acknowledged ones, in memory.
#[derive(Default)]
struct Moving {
    /// By offset in the spool: what the record is filed under, and its topic.
    under_way: HashMap<u64, (u64, Topic)>,
    placed: Vec<Filed<WIDTH>>,
}

/// The open run and the sealed ones.
#[derive(Default)]
struct Kept {
    number: u64,
    open: Vec<Filed<WIDTH>>,
    /// Absent until it is written anew, whole.
    file: Option<Arc<dyn StoredFile>>,
    /// Number and time of the newest entry, oldest first.
    runs: Vec<(u64, Timestamp)>,
}

/// The index.
pub(crate) struct Places {
    dir: PathBuf,
    files: Arc<dyn FileLayer>,
    salt: u32,
    retention: Option<Duration>,
    moving: Mutex<Moving>,
    kept: Mutex<Kept>,
}

impl Places {
    /// Reads what the folder has. Nothing in it makes this fail.
    pub(crate) fn open(
        files: Arc<dyn FileLayer>,
        dir: &Path,
        salt: u32,
        retention: Option<Duration>,
    ) -> Self {
        let mut kept = Kept::default();
        for number in runs(&*files, dir).unwrap_or_default() {
            match open_run(&*files, dir, number) {
                Ok(run) => kept.runs.push((number, newest(&run))),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    let _ = files.remove(&dir.join(run_name(number)));
                }
                Err(_) => {}
            }
        }
        let before = kept.runs.last().map_or(0, |(number, _)| *number);
        kept.number = before.saturating_add(1);
        if let Some((heading, open)) = read_open(&*files, dir) {
            kept.number = kept.number.max(heading.owner[0]);
            kept.open = if heading.salt == salt { open } else { Vec::new() };
        }
        let (dir, moving, kept) = (dir.to_owned(), Mutex::default(), Mutex::new(kept));
        Self { dir, files, salt, retention, moving, kept }
    }

    /// A record goes to the client.
    pub(crate) fn sent(&self, spool_offset: u64, record: &NewRecord) {
        let ce_id = record.headers.get(schemas::header::CE_ID);
        if let Some(event_id) = naming::event_of(record.topic, &record.key, ce_id, &record.value) {
            let under = naming::file_under(event_id, self.salt);
            locked(&self.moving).under_way.insert(spool_offset, (under, record.topic));
        }
    }

    /// It is acknowledged, and stands there.
    pub(crate) fn placed(&self, spool_offset: u64, (partition, offset): (PartitionId, Offset)) {
        let mut moving = locked(&self.moving);
        let Some((under, topic)) = moving.under_way.remove(&spool_offset) else { return };
        if moving.placed.len() < MAX_WAITING {
            moving.placed.push((under, encode(TopicPartition { topic, partition }, offset)));
        }
    }

    /// Nothing is under way any more.
    pub(crate) fn begin(&self) {
        locked(&self.moving).under_way.clear();
    }

    /// Gives the disk what was acknowledged, unless space is short. Not fsynced: what is lost is looked for on Kafka.
    pub(crate) fn write(&self, now: Timestamp, roomy: bool) -> io::Result<()> {
        let mut kept = locked(&self.kept);
        let fresh = std::mem::take(&mut locked(&self.moving).placed);
        if fresh.is_empty() || !roomy {
            return Ok(());
        }
        let from = kept.open.len();
        kept.open.extend(fresh);
        let written = self.append(&mut kept, from);
        if written.is_err() {
            kept.file = None;
        }
        if kept.open.len() >= RUN_ENTRIES {
            self.seal(&mut kept, now)?;
        }
        written
    }

    fn append(&self, kept: &mut Kept, from: usize) -> io::Result<()> {
        let (file, from) = match &kept.file {
            Some(file) => (Arc::clone(file), from),
            None => (self.create(kept.number)?, 0),
        };
        file.append(&block(kept.number, self.salt, kept.open.get(from..).unwrap_or_default()))?;
        kept.file = Some(file);
        Ok(())
    }

    fn create(&self, number: u64) -> io::Result<Arc<dyn StoredFile>> {
        let file = self.files.create(&self.dir.join(OPEN_NAME))?;
        file.append(&head(number, self.salt))?;
        Ok(file)
    }

    fn seal(&self, kept: &mut Kept, now: Timestamp) -> io::Result<()> {
        let (number, path) = (kept.number, self.dir.join(run_name(kept.number)));
        let temporary = self.dir.join(format!("{OPEN_NAME}.tmp"));
        let time = u64::try_from(now.0).unwrap_or_default();
        let heading = Heading { salt: self.salt, owner: [number, time] };
        let mut entries = std::mem::take(&mut kept.open);
        kept.number = kept.number.saturating_add(1);
        kept.file = None;
        let file = self.files.create(&temporary)?;
        let written = table::write(&*file, heading, &mut entries);
        written.and_then(|()| self.files.rename(&temporary, &path))?;
        kept.runs.push((number, now));
        let _ = self.files.remove(&self.dir.join(OPEN_NAME));
        self.retain(kept, now);
        Ok(())
    }

    fn retain(&self, kept: &mut Kept, now: Timestamp) {
        let old = |time: Timestamp| {
            let age = u128::try_from(now.0.saturating_sub(time.0)).unwrap_or_default();
            self.retention.is_some_and(|most| age > most.as_millis())
        };
        let surplus = kept.runs.len().saturating_sub(MAX_RUNS);
        let mut place = 0;
        kept.runs.retain(|(number, time)| {
            place += 1;
            let go = place <= surplus || old(*time);
            if go {
                let _ = self.files.remove(&self.dir.join(run_name(*number)));
            }
            !go
        });
    }

    /// Where the records that name the event stand, as far as is noted.
    pub(crate) fn find(&self, event_id: EventId) -> Vec<(TopicPartition, Offset)> {
        let under = naming::file_under(event_id, self.salt);
        let mut found = Vec::new();
        let runs = {
            let kept = locked(&self.kept);
            take(&kept.open, under, &mut found);
            take(&locked(&self.moving).placed, under, &mut found);
            kept.runs.clone()
        };
        for (number, _) in runs {
            find_in_run(&*self.files, &self.dir, number, event_id, &mut found);
        }
        places(found)
    }
}

/// The same from another process's folder; changes nothing.
pub(crate) fn find_in_folder(
    files: &dyn FileLayer,
    dir: &Path,
    event_id: EventId,
) -> io::Result<Vec<(TopicPartition, Offset)>> {
    let mut found = Vec::new();
    for number in runs(files, dir)? {
        find_in_run(files, dir, number, event_id, &mut found);
    }
    if let Some((heading, open)) = read_open(files, dir) {
        take(&open, naming::file_under(event_id, heading.salt), &mut found);
    }
    Ok(places(found))
}

fn places(mut found: Vec<[u8; WIDTH]>) -> Vec<(TopicPartition, Offset)> {
    found.sort_unstable();
    found.dedup();
    found.iter().filter_map(decode).take(MAX_SIGHTINGS).collect()
}

fn take(entries: &[Filed<WIDTH>], under: u64, found: &mut Vec<[u8; WIDTH]>) {
    let room = MAX_SIGHTINGS.saturating_sub(found.len());
    found.extend(entries.iter().filter(|entry| entry.0 == under).map(|entry| entry.1).take(room));
}

/// A run that is damaged here says nothing.
fn find_in_run(
    files: &dyn FileLayer,
    dir: &Path,
    number: u64,
    event_id: EventId,
    found: &mut Vec<[u8; WIDTH]>,
) {
    let Ok(run) = open_run(files, dir, number) else { return };
    let under = naming::file_under(event_id, run.heading.salt);
    found.extend(run.find(under, MAX_SIGHTINGS.saturating_sub(found.len())).unwrap_or_default());
}

fn run_name(number: u64) -> String {
    format!("{number:020}{RUN_SUFFIX}")
}

fn runs(files: &dyn FileLayer, dir: &Path) -> io::Result<Vec<u64>> {
    let number = |(name, _): (String, u64)| name.strip_suffix(RUN_SUFFIX)?.parse().ok();
    let mut numbers: Vec<u64> = files.list(dir)?.into_iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn open_run(files: &dyn FileLayer, dir: &Path, number: u64) -> io::Result<Table<WIDTH>> {
    let run = Table::open(files.open(&dir.join(run_name(number)))?)?;
    if run.heading.owner[0] == number { Ok(run) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn newest(run: &Table<WIDTH>) -> Timestamp {
    Timestamp(i64::try_from(run.heading.owner[1]).unwrap_or(i64::MAX))
}

fn encode(at: TopicPartition, offset: Offset) -> [u8; WIDTH] {
    let topic = Topic::ALL.iter().position(|topic| *topic == at.topic).and_then(|n| u8::try_from(n).ok());
    let [_, p1, p2, p3] = at.partition.0.to_be_bytes();
    let [o1, o2, o3, o4, o5, o6, o7, o8] = offset.0.to_be_bytes();
    [topic.unwrap_or(u8::MAX), p1, p2, p3, o1, o2, o3, o4, o5, o6, o7, o8]
}

fn decode(place: &[u8; WIDTH]) -> Option<(TopicPartition, Offset)> {
    let [topic, p1, p2, p3, offset @ ..] = *place;
    let topic = *Topic::ALL.get(usize::from(topic))?;
    let partition = PartitionId(u32::from_be_bytes([0, p1, p2, p3]));
    Some((TopicPartition { topic, partition }, Offset(u64::from_be_bytes(offset))))
}

fn head(number: u64, salt: u32) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&salt.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

/// Count, checksum begun with that of the head, entries.
fn block(number: u64, salt: u32, entries: &[Filed<WIDTH>]) -> Vec<u8> {
    let mut content = Vec::with_capacity(entries.len() * (8 + WIDTH));
    for (under, place) in entries {
        content.extend_from_slice(&under.to_le_bytes());
        content.extend_from_slice(place);
    }
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = count.to_vec();
    out.extend_from_slice(&block_sum(&head(number, salt), count, &content).to_le_bytes());
    out.extend_from_slice(&content);
    out
}

fn block_sum(head: &[u8], count: [u8; 4], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(head), &count), content)
}

/// The open file up to what was not written whole.
fn read_open(files: &dyn FileLayer, dir: &Path) -> Option<(Heading, Vec<Filed<WIDTH>>)> {
    parse_open(&read_small(files, &dir.join(OPEN_NAME), MAX_OPEN_BYTES).ok()?)
}

fn parse_open(bytes: &[u8]) -> Option<(Heading, Vec<Filed<WIDTH>>)> {
    let (start, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let mut take = Take(start.get(MAGIC.len()..)?);
    let (salt, number) = (take.u32()?, take.u64()?);
    (head(number, salt) == start).then_some(())?;
    let (mut entries, mut rest) = (Vec::new(), Take(rest));
    while let Some(content) = next_block(start, &mut rest) {
        let mut take = Take(content);
        while let (Some(under), Some(place)) = (take.u64(), take.array()) {
            entries.push((under, place));
        }
    }
    Some((Heading { salt, owner: [number, 0] }, entries))
}

/// The content of the next whole block.
fn next_block<'a>(head: &[u8], rest: &mut Take<'a>) -> Option<&'a [u8]> {
    let (count, sum) = (rest.array::<4>()?, rest.u32()?);
    let content = rest.bytes((u32::from_le_bytes(count) as usize).checked_mul(8 + WIDTH)?)?;
    (block_sum(head, count, content) == sum).then_some(content)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use schemas::header::CE_ID;

    use super::*;
    use crate::embedded::file::RealFiles;

    fn event(n: u64) -> EventId {
        EventId::v7(n, &[3; 10])
    }

    fn record(n: u64) -> NewRecord {
        let headers = crate::headers::Headers::of([(CE_ID, event(n).to_string())]);
        NewRecord { topic: Topic::Events, key: Bytes::new(), partition: None, headers, value: Bytes::new() }
    }

    fn open(dir: &Path, retention: Option<Duration>) -> Places {
        Places::open(Arc::new(RealFiles), dir, 5, retention)
    }

    fn place(n: u64) -> (TopicPartition, Offset) {
        let partition = PartitionId(u32::try_from(n % 64).unwrap());
        (TopicPartition { topic: Topic::Events, partition }, Offset(n))
    }

    fn note(places: &Places, numbers: std::ops::Range<u64>) {
        for n in numbers {
            places.sent(n, &record(n));
            places.placed(n, (place(n).0.partition, place(n).1));
        }
    }

    #[test]
    fn what_was_acknowledged_is_found_before_and_after_it_is_written_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        for life in 0..3_u64 {
            let places = open(dir.path(), None);
            for round in 0..3 {
                let from = life * 300 + round * 100;
                note(&places, from..from + 100);
                assert_eq!(places.find(event(from)), [place(from)]);
                places.write(Timestamp(1), true).unwrap();
            }
            for n in 0..(life + 1) * 300 {
                assert_eq!(places.find(event(n)), [place(n)]);
                assert_eq!(find_in_folder(&RealFiles, dir.path(), event(n)).unwrap(), [place(n)]);
            }
            assert_eq!(places.find(event(9_999)), []);
        }
        // A torn end costs what was written last.
        let path = dir.path().join(OPEN_NAME);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let places = open(dir.path(), None);
        assert_eq!(places.find(event(0)), [place(0)]);
        assert_eq!(places.find(event(899)), []);
        note(&places, 900..901);
        places.write(Timestamp(1), true).unwrap();
        let places = open(dir.path(), None);
        assert_eq!([places.find(event(0)), places.find(event(900))], [[place(0)], [place(900)]]);
    }

    #[test]
    fn a_full_run_is_sealed_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let hour = Duration::from_hours(1);
        let places = open(dir.path(), Some(hour));
        let run = RUN_ENTRIES as u64;
        for round in 0..3 {
            note(&places, round * run..(round + 1) * run);
            places.write(Timestamp(i64::try_from(round).unwrap() * 2_000_000), true).unwrap();
        }
        let found = |n: u64| places.find(event(n)) == [place(n)];
        assert_eq!(
            [found(7), found(run + 7), found(3 * run - 1)],
            [false, true, true],
            "the first is too old"
        );
        let after = open(dir.path(), Some(hour));
        assert_eq!(after.find(event(2 * run)), [place(2 * run)]);
        assert_eq!(runs(&RealFiles, dir.path()).unwrap(), [2, 3]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, byte: u8) {
            let _ = parse_open(&bytes);
            let entries: Vec<Filed<WIDTH>> = (0..9).map(|n| (n, encode(place(n).0, place(n).1))).collect();
            let mut whole = head(3, 4);
            whole.extend(block(3, 4, &entries));
            whole.extend(block(3, 4, &entries));
            prop_assert_eq!(parse_open(&whole).unwrap().1.len(), 18);
            let at = at.index(whole.len());
            whole[at] = byte;
            let read = parse_open(&whole).map_or(0, |(_, entries)| entries.len());
            prop_assert!(read == 0 || read == 9 || read == 18);
        }
    }
}
