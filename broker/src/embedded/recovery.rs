//! Finds out at open what the folder holds, and mends it without human help.
//!
//! **Invariant:** every intact record that was acknowledged is kept; what is lost is counted and named; an offset that may
//! have been used is not used again; no content of the folder makes opening fail.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use schemas::time::Timestamp;
use schemas::topic::{Offset, TopicPartition};

use super::JournalConfig;
use super::file::{FileLayer, StoredFile, read_small};
use super::format::{MIN_FRAME_BYTES, SegmentHeader, State, Stream};
use super::index::{Index, Span, Spot, Summary};
use super::scan::{Found, Scanner};
use super::view::{Damage, DamageKind, MAX_INDEX_BYTES, Segment};

/// Name of the state file.
pub(crate) const STATE_NAME: &str = "journal.state";
/// Name of the lock file.
pub(crate) const LOCK_NAME: &str = "journal.lock";
/// How often a read is tried at open before its file counts as unreadable.
const READ_TRIES: u32 = 5;
/// Ends the name of a segment file.
pub(crate) const SEGMENT_SUFFIX: &str = ".segment";
/// Ends the name of an index file.
pub(crate) const INDEX_SUFFIX: &str = ".index";

/// What the folder holds.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) sealed: Vec<Arc<Segment>>,
    pub(crate) next: HashMap<Stream, u64>,
    /// Where a stream's records end, when its next offset lies behind a gap that nobody knows the use of.
    pub(crate) gaps: HashMap<Stream, u64>,
    pub(crate) next_number: u64,
    pub(crate) next_sequence: u64,
    /// Every sequence before this one is accounted for.
    pub(crate) synced_before: u64,
    pub(crate) damages: Vec<Damage>,
}

/// What one segment holds.
pub(crate) struct Scanned {
    pub(crate) index: Index,
    pub(crate) bytes: u64,
    first_sequence: Option<u64>,
    end_sequence: u64,
    last_appended_at: Option<Timestamp>,
    holes: Vec<Hole>,
    tail: Option<u64>,
}

/// Damaged bytes of a segment with records behind them.
struct Hole {
    bytes: (u64, u64),
    /// Records lost, by the sequences around it.
    records: u64,
    /// Offsets lost, half open, by the next record of the stream.
    offsets: Vec<(Stream, u64, u64)>,
}

/// The walk over all segments.
struct Walk<'a> {
    files: &'a dyn FileLayer,
    dir: &'a Path,
    now: Timestamp,
    recovered: Recovered,
    /// The sequence that comes next, once one is known.
    expected: Option<u64>,
    /// No sequence below this one is free.
    floor: u64,
    previous: Option<u64>,
}

pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:020}{SEGMENT_SUFFIX}")
}

pub(crate) fn index_name(number: u64) -> String {
    format!("{number:020}{INDEX_SUFFIX}")
}

/// Offsets of a partition, half open.
type LostOffsets = (TopicPartition, Offset, Offset);

fn lost(stream: Stream, from: u64, to: u64) -> Option<LostOffsets> {
    Some((stream.place().filter(|_| from < to)?, Offset(from), Offset(to)))
}

/// Tries again what may fail for a moment.
fn patiently<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..READ_TRIES {
        match read() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(error = %error.kind(), "reading the journal failed; trying again");
            }
            outcome => return outcome,
        }
    }
    read()
}

/// Numbers and sizes of the segments in a folder, oldest first.
pub(crate) fn segments(files: &dyn FileLayer, dir: &Path) -> io::Result<Vec<(u64, u64)>> {
    let parse =
        |(name, bytes): (String, u64)| Some((name.strip_suffix(SEGMENT_SUFFIX)?.parse().ok()?, bytes));
    let mut numbers: Vec<(u64, u64)> = files.list(dir)?.into_iter().filter_map(parse).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads the whole segment. Records from `limit` on were never acknowledged and are left out.
pub(crate) fn scan(file: Arc<dyn StoredFile>, salt: Option<u32>, limit: u64) -> io::Result<Scanned> {
    let (mut scanner, header) = Scanner::open(file, salt)?;
    let mut content = Scanned {
        first_sequence: header.as_ref().map(|header| header.first_sequence),
        end_sequence: header.as_ref().map_or(0, |header| header.first_sequence),
        bytes: scanner.size(),
        index: Index::default(),
        last_appended_at: None,
        holes: Vec::new(),
        tail: None,
    };
    let mut hole = None;
    // Without a header nothing is known of a stream before its first record.
    let new_stream = header.is_some().then_some(0);
    let mut next: HashMap<Stream, u64> = header.map(|header| header.next).into_iter().flatten().collect();
    while let Some(found) = scanner.next()? {
        match found {
            Found::Record { position, head } => {
                let sequence = head.stamp.sequence;
                if sequence >= limit {
                    continue;
                }
                if let Some(bytes) = hole.take() {
                    let expected = content.first_sequence.map_or(sequence, |_| content.end_sequence);
                    let records = sequence.saturating_sub(expected);
                    content.holes.push(Hole { bytes, records, offsets: Vec::new() });
                }
                let (stream, offset) = (head.stream, head.stamp.offset);
                let expected = next.insert(stream, offset + 1).or(new_stream).unwrap_or(offset);
                if let Some(hole) = content.holes.last_mut().filter(|_| expected < offset) {
                    hole.offsets.push((stream, expected, offset));
                }
                content.first_sequence.get_or_insert(sequence);
                content.end_sequence = content.end_sequence.max(sequence + 1);
                content.last_appended_at = Some(head.stamp.appended_at);
                content
                    .index
                    .push(head.stream, Spot { offset: head.stamp.offset, position, bytes: head.bytes });
            }
            Found::Damage { from, to } => hole = Some((hole.map_or(from, |(start, _)| start), to)),
            Found::Tail { from } => content.tail = Some(from),
        }
    }
    content.index.shrink();
    Ok(content)
}

/// Writes a segment's index file. It is not fsynced: a broken one is made anew.
pub(crate) fn write_index(
    files: &dyn FileLayer,
    dir: &Path,
    summary: &Summary,
    index: &Index,
) -> io::Result<()> {
    files.create(&dir.join(index_name(summary.number)))?.append(&index.write(summary))
}

/// Reads the folder. `fresh` is the state of a folder that has none yet.
pub(crate) fn recover(
    files: &dyn FileLayer,
    config: &JournalConfig,
    now: Timestamp,
    fresh: State,
) -> io::Result<Recovered> {
    let dir = config.dir.as_path();
    let segments = segments(files, dir)?;
    let stored = patiently(|| read_small(files, &dir.join(STATE_NAME), 4096));
    let stored = stored.ok().and_then(|bytes| State::read(&bytes));
    let headers: Vec<Option<SegmentHeader>> =
        segments.iter().map(|(number, _)| header(files, dir, *number)).collect();
    let salt =
        stored.map(|state| state.salt).or_else(|| headers.iter().flatten().map(|header| header.salt).next());
    let state = State { salt: salt.unwrap_or(fresh.salt), ..stored.unwrap_or(fresh) };
    let recovered = Recovered {
        state,
        sealed: Vec::new(),
        next: HashMap::new(),
        gaps: HashMap::new(),
        next_number: 1,
        next_sequence: 0,
        synced_before: 0,
        damages: Vec::new(),
    };
    let mut walk = Walk { files, dir, now, recovered, expected: None, floor: 0, previous: None };
    let mut newer_bytes: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
    for (place, ((number, bytes), header)) in segments.iter().zip(&headers).enumerate() {
        let verify = newer_bytes <= config.verify_bytes;
        newer_bytes = newer_bytes.saturating_sub(*bytes);
        let limit = headers
            .get(place + 1..)
            .unwrap_or_default()
            .iter()
            .flatten()
            .map(|next| next.synced_before)
            .next();
        let last = place + 1 == segments.len();
        walk.segment(*number, *bytes, header.as_ref(), limit.unwrap_or(u64::MAX), verify, last);
    }
    let newest = walk.previous.unwrap_or_default();
    walk.end(newest, config.segment_bytes);
    Ok(walk.recovered)
}

/// The header of a segment, if it has a readable one.
pub(crate) fn header(files: &dyn FileLayer, dir: &Path, number: u64) -> Option<SegmentHeader> {
    let open = || Scanner::open(files.open(&dir.join(segment_name(number)))?, None);
    patiently(open).ok()?.1.filter(|header| header.number == number)
}

impl Walk<'_> {
    fn segment(
        &mut self,
        number: u64,
        bytes: u64,
        header: Option<&SegmentHeader>,
        limit: u64,
        verify: bool,
        last: bool,
    ) {
        let trusted = if verify || last { None } else { self.trusted(number, bytes) };
        if let Some((summary, index)) = trusted {
            self.enter(number, header, summary.first_sequence, &index.spans());
            self.expected = Some(summary.end_sequence);
            self.keep(summary, index.spans());
            return;
        }
        let path = self.dir.join(segment_name(number));
        let salt = Some(self.recovered.state.salt);
        let scanned = match patiently(|| scan(self.files.open(&path)?, salt, limit)) {
            Ok(scanned) => scanned,
            Err(error) => {
                tracing::error!(segment = number, error = %error.kind(), "a segment cannot be read");
                self.damage(DamageKind::Corrupted, number, (0, bytes), None);
                // What the newest holds is not known then: as if it were gone.
                if !last {
                    self.previous = Some(number);
                }
                return;
            }
        };
        let spans = scanned.index.spans();
        if spans.is_empty() && last {
            // Nothing was ever acknowledged here that could still be read.
            if let Some(header) = header {
                self.enter(number, Some(header), header.first_sequence, &spans);
            }
            self.tail(number, &scanned, header);
            let _ = self.files.remove(&path);
            let _ = self.files.remove(&self.dir.join(index_name(number)));
            let _ = self.files.sync_dir(self.dir);
            // One that the state names had a header, made safe before: what it held is gone.
            if header.is_some() || number > self.recovered.state.newest {
                self.previous = Some(number);
            }
            return;
        }
        let first_sequence = scanned.first_sequence.unwrap_or(scanned.end_sequence);
        self.enter(number, header, first_sequence, &spans);
        for hole in &scanned.holes {
            self.damage(DamageKind::Corrupted, number, hole.bytes, Some(hole.records));
            if let Some(damage) = self.recovered.damages.last_mut() {
                damage.offsets =
                    hole.offsets.iter().filter_map(|(s, from, to)| lost(*s, *from, *to)).collect();
            }
        }
        self.expected = Some(scanned.end_sequence);
        self.leave(number, &scanned, spans, last, header);
    }

    /// Takes a scanned segment's records over, and cuts or names what stands behind them.
    fn leave(
        &mut self,
        number: u64,
        scanned: &Scanned,
        spans: BTreeMap<Stream, Span>,
        last: bool,
        header: Option<&SegmentHeader>,
    ) {
        let mut bytes = scanned.bytes;
        if last {
            self.tail(number, scanned, header);
            if let Some(tail) = scanned.tail
                && self.files.truncate(&self.dir.join(segment_name(number)), tail).is_ok()
            {
                bytes = tail;
            }
        } else if let Some(tail) = scanned.tail {
            // How many records it held is known from the next segment's header.
            self.damage(DamageKind::Corrupted, number, (tail, bytes), None);
        }
        let summary = Summary {
            number,
            bytes,
            first_sequence: scanned.first_sequence.unwrap_or(scanned.end_sequence),
            end_sequence: scanned.end_sequence,
            last_appended_at: scanned.last_appended_at.unwrap_or(self.now),
        };
        let _ = write_index(self.files, self.dir, &summary, &scanned.index);
        self.keep(summary, spans);
    }

    fn trusted(&self, number: u64, bytes: u64) -> Option<(Summary, Index)> {
        let stored = read_small(self.files, &self.dir.join(index_name(number)), MAX_INDEX_BYTES).ok()?;
        Index::read(&stored).filter(|(summary, _)| summary.number == number && summary.bytes == bytes)
    }

    /// Counts what is missing between the segment before and this one, and learns the next offsets.
    fn enter(
        &mut self,
        number: u64,
        header: Option<&SegmentHeader>,
        first_sequence: u64,
        spans: &BTreeMap<Stream, Span>,
    ) {
        self.floor = self.floor.max(first_sequence);
        let synced = header.map_or(first_sequence, |header| header.synced_before);
        let lost = self.expected.map_or(0, |expected| synced.saturating_sub(expected));
        let starts: Vec<(Stream, u64)> = match header {
            Some(header) => header.next.clone(),
            None => spans.iter().map(|(stream, span)| (*stream, span.first)).collect(),
        };
        let absent = self.previous.map_or(number..number, |previous| previous + 1..number);
        if lost > 0 {
            let offsets = self.unseen(&starts);
            if absent.is_empty() {
                self.blame_previous(number, lost, offsets);
            } else {
                self.damage(DamageKind::MissingSegment, absent.start, (0, 0), Some(lost));
                if let Some(damage) = self.recovered.damages.last_mut() {
                    damage.offsets = offsets;
                }
            }
        } else if let Some(previous) = self.previous {
            // A tail that held nothing acknowledged is no loss.
            let harmless = |damage: &Damage| damage.segment == previous && damage.records.is_none();
            self.recovered.damages.retain(|damage| !harmless(damage));
            // The last record of a stream in a hole is known to be missing from here.
            let unseen = self.unseen(&starts);
            let named =
                |damage: &Damage| damage.offsets.iter().map(|(_, from, to)| to.0 - from.0).sum::<u64>();
            let hole = |damage: &&mut Damage| damage.records.is_some_and(|lost| named(damage) < lost);
            if let Some(damage) = self.recovered.damages.iter_mut().rev().find(hole) {
                damage.offsets.extend(unseen);
            }
        }
        for (stream, next) in starts {
            let known = self.recovered.next.entry(stream).or_default();
            *known = (*known).max(next);
        }
    }

    /// Offsets between those seen and those with which a segment starts.
    fn unseen(&self, starts: &[(Stream, u64)]) -> Vec<LostOffsets> {
        let known = |stream: &Stream| self.recovered.next.get(stream).copied().unwrap_or_default();
        starts.iter().filter_map(|(stream, start)| lost(*stream, known(stream), *start)).collect()
    }

    fn blame_previous(&mut self, number: u64, lost: u64, offsets: Vec<LostOffsets>) {
        let previous = self.previous.unwrap_or(number);
        let open = |damage: &&mut Damage| damage.segment == previous && damage.records.is_none();
        if let Some(damage) = self.recovered.damages.iter_mut().rev().find(open) {
            damage.records = Some(lost);
            damage.offsets = offsets;
        } else {
            self.damage(DamageKind::Corrupted, previous, (0, 0), Some(lost));
            if let Some(damage) = self.recovered.damages.last_mut() {
                damage.offsets = offsets;
            }
        }
    }

    fn keep(&mut self, summary: Summary, spans: BTreeMap<Stream, Span>) {
        for (stream, span) in &spans {
            let next = self.recovered.next.entry(*stream).or_default();
            *next = (*next).max(span.end);
        }
        self.previous = Some(summary.number);
        self.recovered.sealed.push(Arc::new(Segment { summary, spans }));
    }

    fn tail(&mut self, number: u64, scanned: &Scanned, header: Option<&SegmentHeader>) {
        // A file whose making was cut short has no header and no record.
        let from = scanned.tail.unwrap_or(scanned.bytes);
        if from < scanned.bytes && (header.is_some() || !scanned.index.spans().is_empty()) {
            self.damage(DamageKind::TornTail, number, (from, scanned.bytes), None);
        }
    }

    fn damage(&mut self, kind: DamageKind, segment: u64, bytes: (u64, u64), records: Option<u64>) {
        let (from_byte, to_byte) = bytes;
        self.recovered.damages.push(Damage {
            kind,
            segment,
            from_byte,
            to_byte,
            records,
            offsets: Vec::new(),
        });
    }

    fn end(&mut self, newest: u64, segment_bytes: u64) {
        let expected = self.expected.unwrap_or(self.floor);
        self.recovered.synced_before = expected;
        self.recovered.next_sequence = expected.max(self.floor);
        self.recovered.next_number = newest.max(self.recovered.state.newest) + 1;
        if newest < self.recovered.state.newest {
            // The newest segment is gone, and with it the knowledge which offsets were used: step over all it can have held.
            self.damage(DamageKind::MissingSegment, self.recovered.state.newest, (0, 0), None);
            let most = segment_bytes / MIN_FRAME_BYTES as u64 + 1;
            self.recovered.next_sequence += most;
            self.recovered.gaps = self.recovered.next.clone();
            for next in self.recovered.next.values_mut() {
                *next += most;
            }
        }
    }
}
