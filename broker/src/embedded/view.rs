//! What readers and the writer share: segments, ends, holds, damage.
//!
//! **Invariant:** only fsynced records are in the view, so only they are read; the writer alone changes it, except that a
//! hold may raise an end.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use schemas::topic::{Offset, TopicPartition};
use tokio::sync::Notify;

use super::JournalConfig;
use super::file::{FileLayer, StoredFile, read_small};
use super::format::{State, Stored, Stream};
use super::ids::{Ids, ids_name};
use super::index::{Index, Span, Spot, Summary};
use super::recovery;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::log::ReadError;

/// Sealed segments whose index and file are kept open.
const OPEN_SEGMENTS: usize = 3;
/// The largest index file that is believed.
pub(crate) const MAX_INDEX_BYTES: usize = 512 << 20;
/// Neighbouring frames are read together up to this many bytes.
const READ_TOGETHER_BYTES: usize = 1 << 20;
/// Damages that are remembered; later ones are counted only.
const MAX_DAMAGES: usize = 1_000;

/// What kind of damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamageKind {
    /// Bytes inside a segment that are no intact record.
    Corrupted,
    /// The end of the newest segment was not written whole; it is cut off.
    TornTail,
    /// A segment file is gone.
    MissingSegment,
    /// A consumer has seen records that the journal no longer has; their offsets are not used again.
    LostEnd,
}

/// A place where records are lost, or may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// What happened.
    pub kind: DamageKind,
    /// The segment's number.
    pub segment: u64,
    /// First byte of the segment concerned.
    pub from_byte: u64,
    /// The byte behind the last.
    pub to_byte: u64,
    /// Records lost, when that is known.
    pub records: Option<u64>,
    /// Offsets lost, half open, as far as they are known.
    pub offsets: Vec<(TopicPartition, Offset, Offset)>,
}

/// A segment that is not written to any more.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) summary: Summary,
    pub(crate) spans: BTreeMap<Stream, Span>,
}

/// The segment that is written to.
pub(crate) struct Active {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn StoredFile>,
    pub(crate) index: Index,
    pub(crate) bytes: u64,
}

/// What can be read.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) sealed: Vec<Arc<Segment>>,
    pub(crate) active: Option<Active>,
    pub(crate) ends: HashMap<Stream, u64>,
}

/// A sealed segment's file and index.
pub(crate) struct Opened {
    file: Arc<dyn StoredFile>,
    index: Index,
}

/// Shared by the journal's handle, its readers and its writer.
pub(crate) struct Shared {
    pub(crate) config: JournalConfig,
    pub(crate) state: State,
    pub(crate) files: Arc<dyn FileLayer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) view: RwLock<View>,
    pub(crate) damages: Mutex<Vec<Damage>>,
    pub(crate) holds: Mutex<HashMap<(String, Stream), u64>>,
    pub(crate) failing: AtomicBool,
    pub(crate) ids: Ids,
    gaps: HashMap<Stream, u64>,
    opened: Mutex<Vec<(u64, Arc<Opened>)>>,
    bells: Mutex<HashMap<Stream, Arc<Notify>>>,
}

/// Where the next records are.
enum Source {
    Sealed(Arc<Segment>, u64),
    Active(Arc<dyn StoredFile>, Vec<Spot>),
}

impl Shared {
    pub(crate) fn new(
        config: JournalConfig,
        files: Arc<dyn FileLayer>,
        clock: Arc<dyn Clock>,
        recovered: &mut recovery::Recovered,
    ) -> Self {
        let view = View {
            sealed: std::mem::take(&mut recovered.sealed),
            active: None,
            ends: recovered.next.clone(),
        };
        let shared = Self {
            config,
            state: recovered.state,
            files,
            clock,
            counters: Arc::default(),
            view: RwLock::new(view),
            damages: Mutex::default(),
            holds: Mutex::default(),
            failing: AtomicBool::new(false),
            ids: Ids::default(),
            gaps: std::mem::take(&mut recovered.gaps),
            opened: Mutex::default(),
            bells: Mutex::default(),
        };
        for damage in std::mem::take(&mut recovered.damages) {
            shared.note_damage(damage);
        }
        shared
    }

    pub(crate) fn segment_path(&self, number: u64) -> PathBuf {
        self.config.dir.join(recovery::segment_name(number))
    }

    pub(crate) fn index_path(&self, number: u64) -> PathBuf {
        self.config.dir.join(recovery::index_name(number))
    }

    pub(crate) fn ids_path(&self, number: u64) -> PathBuf {
        self.config.dir.join(ids_name(number))
    }

    /// The oldest offset there is of a stream, and the next one.
    pub(crate) fn bounds(&self, stream: Stream) -> (u64, u64) {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let end = view.ends.get(&stream).copied().unwrap_or_default();
        let sealed = view.sealed.iter().find_map(|segment| segment.spans.get(&stream)).map(|span| span.first);
        let active = || view.active.as_ref()?.index.find(stream, 0, 1, 0).first().map(|spot| spot.offset);
        (sealed.or_else(active).unwrap_or(end), end)
    }

    /// The bell that rings when a stream grows.
    pub(crate) fn bell(&self, stream: Stream) -> Arc<Notify> {
        Arc::clone(locked(&self.bells).entry(stream).or_default())
    }

    /// Wakes who waits for a stream.
    pub(crate) fn ring(&self, streams: impl Iterator<Item = Stream>) {
        let bells = locked(&self.bells);
        for stream in streams {
            if let Some(bell) = bells.get(&stream) {
                bell.notify_waiters();
            }
        }
    }

    /// Counts a damage and remembers it, once.
    pub(crate) fn note_damage(&self, damage: Damage) {
        let mut damages = locked(&self.damages);
        let known = |other: &Damage| {
            (other.kind, other.segment, other.from_byte) == (damage.kind, damage.segment, damage.from_byte)
                && damage.kind != DamageKind::LostEnd
        };
        if damages.iter().any(known) {
            return;
        }
        self.counters.corrupted_records.add(damage.records.unwrap_or_default());
        tracing::warn!(
            kind = ?damage.kind, segment = damage.segment, from_byte = damage.from_byte, to_byte = damage.to_byte,
            records = ?damage.records, "journal is damaged here"
        );
        if damages.len() < MAX_DAMAGES {
            damages.push(damage);
        }
    }

    /// Keeps everything from `from` on. A consumer that begins beyond what there is has seen records that are lost: they are
    /// counted, and their offsets are not used again.
    pub(crate) fn hold(&self, consumer: &str, stream: Stream, from: u64) {
        let begins = locked(&self.holds).insert((consumer.to_owned(), stream), from).is_none();
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let end = view.ends.entry(stream).or_default();
        let known = self.gaps.get(&stream).copied().filter(|_| begins && from <= *end).unwrap_or(*end);
        if from <= known {
            return;
        }
        *end = from.max(*end);
        drop(view);
        let offsets = stream.place().map(|at| (at, Offset(known), Offset(from))).into_iter().collect();
        self.note_damage(Damage {
            kind: DamageKind::LostEnd,
            segment: 0,
            from_byte: 0,
            to_byte: 0,
            records: Some(from - known),
            offsets,
        });
    }

    /// Forgets opened segments, to give their memory back.
    pub(crate) fn forget_opened(&self) {
        locked(&self.opened).clear();
    }

    /// Puts a segment that was just sealed among the opened ones.
    pub(crate) fn remember(&self, number: u64, file: Arc<dyn StoredFile>, index: Index) {
        let mut opened = locked(&self.opened);
        opened.retain(|(other, _)| *other != number);
        opened.truncate(OPEN_SEGMENTS - 1);
        opened.insert(0, (number, Arc::new(Opened { file, index })));
    }

    /// Reads records of a stream from the first at or behind `from` on. Empty when there is none.
    pub(crate) fn fetch(
        &self,
        stream: Stream,
        from: u64,
        take: usize,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        let mut at = from;
        while let Some(source) = self.locate(stream, at, take, max_bytes) {
            let (file, spots, segment, behind) = match source {
                Source::Active(file, spots) => (file, spots, u64::MAX, None),
                Source::Sealed(segment, behind) => match self.open_sealed(&segment) {
                    Ok(opened) => {
                        let spots = opened.index.find(stream, at, take, max_bytes);
                        (Arc::clone(&opened.file), spots, segment.summary.number, Some(behind))
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        at = behind;
                        continue;
                    }
                    Err(error) => return Err(ReadError::Unavailable(error.kind().to_string())),
                },
            };
            let Some(last) = spots.last() else {
                at = behind.unwrap_or(at + 1).max(at + 1);
                continue;
            };
            let records = self.load(&*file, segment, stream, &spots)?;
            if !records.is_empty() {
                self.counters.read_records.add(records.len() as u64);
                return Ok(records);
            }
            at = last.offset + 1;
        }
        Ok(Vec::new())
    }

    fn locate(&self, stream: Stream, at: u64, take: usize, max_bytes: usize) -> Option<Source> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        // Newest first: readers are mostly near the end.
        let mut found = None;
        for segment in view.sealed.iter().rev() {
            if let Some(span) = segment.spans.get(&stream) {
                if span.end <= at {
                    break;
                }
                found = Some(Source::Sealed(Arc::clone(segment), span.end));
            }
        }
        found.or_else(|| {
            let active = view.active.as_ref()?;
            let spots = active.index.find(stream, at, take, max_bytes);
            (!spots.is_empty()).then(|| Source::Active(Arc::clone(&active.file), spots))
        })
    }

    fn open_sealed(&self, segment: &Segment) -> io::Result<Arc<Opened>> {
        let number = segment.summary.number;
        {
            let mut opened = locked(&self.opened);
            if let Some(place) = opened.iter().position(|(other, _)| *other == number) {
                let entry = opened.remove(place);
                let found = Arc::clone(&entry.1);
                opened.insert(0, entry);
                return Ok(found);
            }
        }
        let file = self.files.open(&self.segment_path(number))?;
        let stored = read_small(&*self.files, &self.index_path(number), MAX_INDEX_BYTES).ok();
        let index =
            stored.and_then(|bytes| Index::read(&bytes)).filter(|(summary, _)| *summary == segment.summary);
        let index = if let Some((_, index)) = index {
            index
        } else {
            let scanned =
                recovery::scan(Arc::clone(&file), Some(self.state.salt), segment.summary.end_sequence)?;
            let _ = recovery::write_index(&*self.files, &self.config.dir, &segment.summary, &scanned.index);
            scanned.index
        };
        self.remember(number, Arc::clone(&file), index);
        locked(&self.opened)
            .iter()
            .find(|(other, _)| *other == number)
            .map(|(_, opened)| Arc::clone(opened))
            .ok_or_else(|| io::ErrorKind::Interrupted.into())
    }

    /// Reads frames; neighbours in one go. Frames that are no longer what was written are counted and left out.
    fn load(
        &self,
        file: &dyn StoredFile,
        segment: u64,
        stream: Stream,
        spots: &[Spot],
    ) -> Result<Vec<Stored>, ReadError> {
        let mut records = Vec::with_capacity(spots.len());
        for run in spots.chunk_by(|a, b| a.position + a.bytes as u64 == b.position) {
            let mut rest = run;
            while let Some(first) = rest.first() {
                let mut bytes = 0;
                let together = rest.iter().take_while(|spot| {
                    let fits = bytes == 0 || bytes + spot.bytes <= READ_TOGETHER_BYTES;
                    bytes += if fits { spot.bytes } else { 0 };
                    fits
                });
                let (now, later) = rest.split_at(together.count());
                rest = later;
                let mut block = vec![0; bytes];
                // A short or failed read leaves zeros, which are no frame: the record counts as damaged.
                if let Err(error) = file.read_at(&mut block, first.position) {
                    return Err(ReadError::Unavailable(error.kind().to_string()));
                }
                let mut block = Bytes::from(block);
                for spot in now {
                    let frame = block.split_to(spot.bytes);
                    match Stored::read(&frame, self.state.salt) {
                        Some(stored) if stored.stamp.offset == spot.offset && stored.stream == stream => {
                            records.push(stored);
                        }
                        _ => self.note_unreadable(segment, stream, *spot),
                    }
                }
            }
        }
        Ok(records)
    }

    fn note_unreadable(&self, segment: u64, stream: Stream, spot: Spot) {
        let place = stream.place().map(|at| (at, Offset(spot.offset), Offset(spot.offset + 1)));
        self.note_damage(Damage {
            kind: DamageKind::Corrupted,
            segment,
            from_byte: spot.position,
            to_byte: spot.position + spot.bytes as u64,
            records: Some(1),
            offsets: place.into_iter().collect(),
        });
    }

    pub(crate) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }
}

/// The guard, also when a holder panicked: everything here stays whole between two statements.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
