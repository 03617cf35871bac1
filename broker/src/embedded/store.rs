//! The writer's side of the journal: one write and one fsync for a whole group of batches.
//!
//! **Invariant:** a record is published to readers and answered only after the fsync that covers it; after an error the
//! segment is closed and neither its fsync is repeated nor an offset of the failed group used again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use schemas::time::Timestamp;

use super::file::{FileLayer, StoredFile, replace};
use super::format::{Entry, SegmentHeader, Stamp, State, Stream};
use super::index::{Index, Span, Spot, Summary};
use super::queue::Room;
use super::recovery::{self, Recovered, STATE_NAME};
use super::view::{Active, Segment, Shared, View, locked};
use crate::log::AppendError;

/// How long the writer waits for work before it looks after retention.
pub(crate) const IDLE: Duration = Duration::from_secs(15);
/// What the write buffer keeps between groups.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// Stream and offset given to each record of a batch.
pub(crate) type Places = Vec<(Stream, u64)>;

/// The segment that is written to.
struct Open {
    number: u64,
    file: Arc<dyn StoredFile>,
    bytes: u64,
    first_sequence: u64,
    last_appended_at: Timestamp,
}

/// The writer's state.
pub(crate) struct Store {
    shared: Arc<Shared>,
    open: Option<Open>,
    next: HashMap<Stream, u64>,
    next_sequence: u64,
    /// Every record before this sequence is fsynced or given up.
    synced_before: u64,
    next_number: u64,
    newest: u64,
    buffer: Vec<u8>,
}

impl Store {
    pub(crate) fn new(shared: Arc<Shared>, recovered: Recovered) -> Self {
        Self {
            newest: shared.state.newest,
            shared,
            open: None,
            next: recovered.next,
            next_sequence: recovered.next_sequence,
            synced_before: recovered.synced_before,
            next_number: recovered.next_number,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Writes and fsyncs a group of batches. All are answered alike.
    pub(crate) fn commit(&mut self, group: &[&[Entry]], room: Room) -> Result<Vec<Places>, AppendError> {
        let bytes: u64 =
            group.iter().flat_map(|batch| batch.iter()).map(|entry| entry.frame_bytes() as u64).sum();
        if bytes == 0 {
            return Ok(group.iter().map(|_| Places::new()).collect());
        }
        if room == Room::Common {
            self.admit(bytes)?;
        }
        self.roll(group, bytes).map_err(|error| self.refuse(&error))?;
        #[expect(clippy::disallowed_methods, reason = "the disk itself is measured")]
        let started = Instant::now();
        let (places, spots) = self.encode(group);
        let Some(open) = self.open.as_mut() else { return Err(AppendError::Closed) };
        if let Err(error) = open.file.append(&self.buffer).and_then(|()| open.file.sync_data()) {
            let refused = self.refuse(&error);
            self.abandon();
            return Err(refused);
        }
        open.bytes += bytes;
        self.synced_before = self.next_sequence;
        self.shared.set_failing(false);
        let counters = &self.shared.counters;
        counters.fsyncs.add(1);
        counters.fsync_seconds.observe(started.elapsed());
        counters.appended_records.add(spots.len() as u64);
        counters.appended_bytes.add(bytes);
        self.publish(&spots);
        Ok(places)
    }

    /// Takes note of the ids of the group that was just committed, once its appenders have their answers.
    pub(crate) fn note(&self, group: &[Vec<Entry>]) {
        let Some(open) = &self.open else { return };
        let bytes: u64 = group.iter().flatten().map(|entry| entry.frame_bytes() as u64).sum();
        self.shared.ids.note(open.number, open.bytes.saturating_sub(bytes), self.shared.state.salt, group);
    }

    /// Seals the segment that is written to, so that the next one begins a new file.
    pub(crate) fn seal(&mut self) {
        let Some(open) = self.open.take() else { return };
        let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
        let Some(mut active) = view.active.take() else { return };
        active.index.shrink();
        let spans = active.index.spans();
        self.shared.ids.seal(open.number, active.bytes);
        let summary = Summary {
            number: open.number,
            bytes: open.file.size().unwrap_or(open.bytes),
            first_sequence: open.first_sequence,
            end_sequence: self.synced_before.max(open.first_sequence),
            last_appended_at: open.last_appended_at,
        };
        view.sealed.push(Arc::new(Segment { summary: summary.clone(), spans }));
        drop(view);
        let _ = recovery::write_index(&*self.shared.files, &self.shared.config.dir, &summary, &active.index);
        self.shared.remember(open.number, active.file, active.index);
    }

    /// Deletes the oldest segments as far as age, size and holds allow.
    pub(crate) fn retain(&mut self) {
        while let Some(number) = self.deletable() {
            let shared = &self.shared;
            {
                let mut view = shared.view.write().unwrap_or_else(PoisonError::into_inner);
                view.sealed.retain(|segment| segment.summary.number != number);
            }
            let _ = shared.files.remove(&shared.index_path(number));
            let _ = shared.files.remove(&shared.ids_path(number));
            if let Err(error) = shared.files.remove(&shared.segment_path(number)) {
                tracing::warn!(segment = number, error = %error.kind(), "an old segment could not be deleted");
            }
            // One after the other, so that a crash leaves no gap in the middle.
            let _ = shared.files.sync_dir(&shared.config.dir);
            shared.counters.deleted_segments.add(1);
        }
    }

    fn deletable(&self) -> Option<u64> {
        let config = &self.shared.config;
        let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
        let oldest = view.sealed.first()?;
        let total: u64 = view.sealed.iter().map(|segment| segment.summary.bytes).sum();
        let total = total + view.active.as_ref().map_or(0, |active| active.bytes);
        let age = self.shared.clock.now().0.saturating_sub(oldest.summary.last_appended_at.0);
        let old = config
            .retention_age
            .is_some_and(|most| u128::try_from(age).is_ok_and(|age| age >= most.as_millis()));
        let large = config.retention_bytes.is_some_and(|most| total > most);
        let holds = locked(&self.shared.holds);
        let held = holds
            .iter()
            .any(|((_, stream), from)| oldest.spans.get(stream).is_some_and(|span| span.end > *from));
        ((old || large) && !held).then_some(oldest.summary.number)
    }

    fn admit(&self, bytes: u64) -> Result<(), AppendError> {
        let free = self.shared.files.free_bytes(&self.shared.config.dir);
        if free.is_ok_and(|free| free < self.shared.config.headroom_bytes.saturating_add(bytes)) {
            self.shared.counters.refused_full.add(1);
            return Err(AppendError::Full);
        }
        Ok(())
    }

    fn refuse(&self, error: &io::Error) -> AppendError {
        self.shared.counters.disk_errors.add(1);
        self.shared.set_failing(true);
        tracing::error!(error = %error, "writing the journal failed; the segment is closed");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::Full,
            kind => AppendError::Unavailable(kind.to_string()),
        }
    }

    /// Gives the segment up after an error. What was fsynced before stays readable.
    fn abandon(&mut self) {
        self.seal();
    }

    /// Sees to it that a segment is open that can take the group.
    fn roll(&mut self, group: &[&[Entry]], bytes: u64) -> io::Result<()> {
        if let Some(open) = &self.open {
            let config = &self.shared.config;
            let full =
                open.last_appended_at != Timestamp(i64::MIN) && open.bytes + bytes > config.segment_bytes;
            if full || !self.indexable(group) {
                self.seal();
                self.retain();
            }
        }
        if self.open.is_none() {
            self.create()?;
        }
        Ok(())
    }

    fn indexable(&self, group: &[&[Entry]]) -> bool {
        let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
        let Some(active) = &view.active else { return true };
        let records: usize = group.iter().map(|batch| batch.len()).sum();
        active.index.streams().all(|stream| {
            let next = self.next.get(&stream).max(view.ends.get(&stream)).copied().unwrap_or_default();
            active.index.takes(stream, next + records as u64)
        })
    }

    fn create(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let (files, dir) = (&*shared.files, shared.config.dir.as_path());
        let number = self.next_number;
        self.next_number += 1;
        for (stream, end) in &shared.view.read().unwrap_or_else(PoisonError::into_inner).ends {
            let next = self.next.entry(*stream).or_default();
            *next = (*next).max(*end);
        }
        let next: BTreeMap<Stream, u64> = self.next.iter().map(|(stream, next)| (*stream, *next)).collect();
        let header = SegmentHeader {
            number,
            salt: shared.state.salt,
            first_sequence: self.next_sequence,
            synced_before: self.synced_before,
            created_at: shared.clock.now(),
            next: next.into_iter().collect(),
        };
        let bytes = header.write();
        let path = shared.segment_path(number);
        let file = files.create(&path)?;
        let safe = file.append(&bytes).and_then(|()| file.sync_data()).and_then(|()| files.sync_dir(dir));
        // Only then the state names it, so that a segment which the state names was really there.
        let safe = safe.and_then(|()| self.write_state(files, number));
        if let Err(error) = safe {
            let _ = files.remove(&path);
            return Err(error);
        }
        self.newest = number;
        let bytes = bytes.len() as u64;
        self.open = Some(Open {
            number,
            file: Arc::clone(&file),
            bytes,
            first_sequence: self.next_sequence,
            last_appended_at: Timestamp(i64::MIN),
        });
        self.shared.ids.open(number, bytes);
        let active = Active { number, file, index: Index::default(), bytes };
        shared.view.write().unwrap_or_else(PoisonError::into_inner).active = Some(active);
        Ok(())
    }

    fn write_state(&self, files: &dyn FileLayer, newest: u64) -> io::Result<()> {
        let dir = self.shared.config.dir.as_path();
        replace(files, dir, STATE_NAME, &State { newest, ..self.shared.state }.write())?;
        files.sync_dir(dir)
    }

    /// Gives every record its offset and puts the group's frames into the buffer.
    fn encode(&mut self, group: &[&[Entry]]) -> (Vec<Places>, Vec<(Stream, Spot)>) {
        let now = self.shared.clock.now();
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        let start = self.open.as_mut().map_or(0, |open| {
            open.last_appended_at = now;
            open.bytes
        });
        // A hold may have raised an end.
        for (stream, end) in &self.shared.view.read().unwrap_or_else(PoisonError::into_inner).ends {
            let next = self.next.entry(*stream).or_default();
            *next = (*next).max(*end);
        }
        let mut spots = Vec::with_capacity(group.iter().map(|batch| batch.len()).sum());
        let mut places = Vec::with_capacity(group.len());
        for batch in group {
            let mut given = Places::with_capacity(batch.len());
            for entry in *batch {
                let next = self.next.entry(entry.stream).or_default();
                let stamp = Stamp { sequence: self.next_sequence, offset: *next, appended_at: now };
                let position = start + self.buffer.len() as u64;
                entry.write(stamp, self.shared.state.salt, &mut self.buffer);
                spots.push((entry.stream, Spot { offset: *next, position, bytes: entry.frame_bytes() }));
                given.push((entry.stream, *next));
                *next += 1;
                self.next_sequence += 1;
            }
            places.push(given);
        }
        (places, spots)
    }

    fn publish(&self, spots: &[(Stream, Spot)]) {
        let mut touched: BTreeMap<Stream, Span> = BTreeMap::new();
        {
            let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
            let View { active, ends, .. } = &mut *view;
            if let (Some(active), Some(open)) = (active.as_mut(), &self.open) {
                active.bytes = open.bytes;
                for (stream, spot) in spots {
                    active.index.push(*stream, *spot);
                }
            }
            for (stream, spot) in spots {
                touched.insert(*stream, Span { first: spot.offset, end: spot.offset + 1 });
            }
            for (stream, span) in &touched {
                let end = ends.entry(*stream).or_default();
                *end = (*end).max(span.end);
            }
        }
        self.shared.ring(touched.into_keys());
    }

    /// Free space is back, or was never short.
    pub(crate) fn roomy(shared: &Shared) -> bool {
        shared.files.free_bytes(&shared.config.dir).is_ok_and(|free| free >= shared.config.headroom_bytes)
    }

    /// What happens between groups when nothing is to be written.
    pub(crate) fn idle(&mut self) {
        self.retain();
        self.shared.forget_opened();
        self.shared.ids.ring();
        self.buffer = Vec::new();
        if self.shared.failing.load(Ordering::Relaxed) {
            tracing::debug!("the journal has not written since its last failure");
        }
    }
}
