//! Which records name an event: an index beside every sealed segment, made off the ack path.
//!
//! **Invariant:** the answer is that of reading every segment, whatever the index files hold: one that is missing, damaged or
//! of another state of its segment is passed over and made anew. The index is not needed for anything else, and is not
//! written while space is short.

mod find;
mod keep;
#[cfg(test)]
mod simulation;
pub(crate) mod table;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use schemas::header::CE_ID;
use schemas::id::EventId;
use schemas::topic::Topic;

pub(crate) use self::find::{in_folder, in_view};
pub(crate) use self::keep::Keeper;
use self::table::{Heading, Table};
use super::file::{FileLayer, StoredFile};
use super::format::{Entry, FRAME_HEAD_BYTES, NOTE_BYTES, SPOOL_TOPIC, Take};
use super::scan::{Found, Scanner};
use super::view::locked;
use crate::naming;

/// Ends the name of an index file.
pub(crate) const IDS_SUFFIX: &str = ".ids";
/// Bytes of an entry besides its number: the record's position.
const WIDTH: usize = 4;
/// Records of the open segment whose ids are held in memory, 16 bytes each; the rest is read when it is asked for.
const MAX_OPEN_RECORDS: usize = 1 << 19;
/// Sealed segments whose ids wait in memory to be written; those of older ones are read back.
const MAX_WAITING_SEGMENTS: usize = 4;

/// The number that a record is filed under, and its position in the segment.
type Filed = (u64, u32);

/// Ids of the segment that is written to.
#[derive(Default)]
struct Recent {
    segment: u64,
    /// Everything before this position is held.
    covered: u64,
    filed: Vec<Filed>,
}

#[derive(Default)]
struct Held {
    recent: Recent,
    /// Sealed, whole, and not yet written.
    waiting: VecDeque<(u64, Arc<Vec<Filed>>)>,
    /// Segments whose index file was found good.
    good: HashSet<u64>,
    rung: bool,
}

/// What a journal holds of its ids in memory.
#[derive(Default)]
pub(crate) struct Ids {
    held: Mutex<Held>,
    bell: Condvar,
    stop: AtomicBool,
}

impl Ids {
    /// A new segment is written to, from `position` on.
    pub(crate) fn open(&self, segment: u64, position: u64) {
        locked(&self.held).recent = Recent { segment, covered: position, filed: Vec::new() };
    }

    /// Takes note of a group that was written at `position`.
    pub(crate) fn note(&self, segment: u64, mut position: u64, salt: u32, group: &[Vec<Entry>]) {
        let mut held = locked(&self.held);
        let recent = &mut held.recent;
        if recent.segment != segment || recent.covered != position {
            return;
        }
        for entry in group.iter().flatten() {
            if let (Some(event_id), Ok(at)) = (event_of_entry(entry), u32::try_from(position)) {
                if recent.filed.len() >= MAX_OPEN_RECORDS {
                    return;
                }
                recent.filed.push((naming::file_under(event_id, salt), at));
            }
            position += entry.frame_bytes() as u64;
            recent.covered = position;
        }
    }

    /// The segment that was written to is sealed, with records up to `end`.
    pub(crate) fn seal(&self, segment: u64, end: u64) {
        let mut held = locked(&self.held);
        let recent = std::mem::take(&mut held.recent);
        if recent.segment == segment && recent.covered == end {
            held.waiting.push_back((segment, Arc::new(recent.filed)));
            if held.waiting.len() > MAX_WAITING_SEGMENTS {
                held.waiting.pop_front();
            }
        }
        drop(held);
        self.ring();
    }

    /// Has the keeper look for what is to be done.
    pub(crate) fn ring(&self) {
        locked(&self.held).rung = true;
        self.bell.notify_all();
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn doubt(&self, segment: u64) {
        if locked(&self.held).good.remove(&segment) {
            self.ring();
        }
    }
}

pub(crate) fn ids_name(segment: u64) -> String {
    format!("{segment:020}{IDS_SUFFIX}")
}

/// The good index of a segment of this size, if there is one.
fn open_table(
    files: &dyn FileLayer,
    dir: &Path,
    salt: u32,
    segment: u64,
    bytes: u64,
) -> io::Result<Table<WIDTH>> {
    let table = Table::open(files.open(&dir.join(ids_name(segment)))?)?;
    let right = table.heading == Heading { salt, owner: [segment, bytes] };
    if right { Ok(table) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Reads the ids of the records between two positions, of those before the sequence `limit`. `Interrupted` when `each` breaks.
fn read_ids(
    file: Arc<dyn StoredFile>,
    salt: u32,
    (from, to): (u64, u64),
    limit: u64,
    mut each: impl FnMut(EventId, u32) -> ControlFlow<()>,
) -> io::Result<()> {
    let (mut scanner, _) = Scanner::open(file, Some(salt))?;
    scanner.within(from, to);
    while let Some(found) = scanner.next()? {
        let Found::Record { position, head } = found else { continue };
        if head.stamp.sequence >= limit {
            continue;
        }
        let event_id = event_of_frame(scanner.frame_bytes(position, &head)?);
        if let (Some(event_id), Ok(at)) = (event_id, u32::try_from(position))
            && each(event_id, at).is_break()
        {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    Ok(())
}

/// In a spool the first header says which topic a record is for.
fn topic_of(stream_topic: u8, first_header: Option<&[u8]>) -> Option<Topic> {
    let number = if stream_topic == SPOOL_TOPIC { *first_header?.first()? } else { stream_topic };
    Topic::ALL.get(usize::from(number)).copied()
}

fn event_of_entry(entry: &Entry) -> Option<EventId> {
    let topic = topic_of(entry.stream.topic, entry.note.as_ref().map(<[u8; NOTE_BYTES]>::as_slice))?;
    naming::event_of(topic, &entry.key, entry.headers.get(CE_ID), &entry.value)
}

/// The same of a checked frame, without copying it.
fn event_of_frame(frame: &[u8]) -> Option<EventId> {
    let mut take = Take(frame.get(FRAME_HEAD_BYTES..)?);
    let (stream, _) = take.stamp()?;
    let key_bytes = take.u32()? as usize;
    let count = take.u16()?;
    let key = take.bytes(key_bytes)?;
    let (mut first, mut ce_id) = (None, None);
    for _ in 0..count {
        let name_bytes = usize::from(take.u16()?);
        let name = take.bytes(name_bytes)?;
        let value_bytes = take.u32()? as usize;
        let value = take.bytes(value_bytes)?;
        first = first.or(Some(value));
        if name == CE_ID.as_bytes() {
            ce_id = ce_id.or(Some(value));
        }
    }
    naming::event_of(topic_of(stream.topic, first)?, key, ce_id, take.0)
}
