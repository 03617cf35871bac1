//! Looks an event up: in the ids held in memory, in the index files, and where there is none, in the segments.
//!
//! **Invariant:** a record is given back only after its own bytes were checked and name the event; in a folder that another
//! process writes, nothing is changed.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use schemas::id::EventId;

use super::{Filed, event_of_frame, open_table, read_ids};
use crate::embedded::file::{FileLayer, RealFiles, StoredFile, read_small};
use crate::embedded::format::{Head, State, Stored};
use crate::embedded::recovery::{STATE_NAME, header, segment_name, segments};
use crate::embedded::view::{Segment, Shared, locked};
use crate::log::MAX_SIGHTINGS;
use crate::naming;

/// Segments that one thread looks into; more are shared out, so that a disk that seeks is asked for several at once.
const SEGMENTS_A_THREAD: usize = 32;
/// Threads that look at once.
const MAX_THREADS: usize = 8;
/// Read of a frame first; most are no longer.
const FRAME_READ_BYTES: usize = 4096;

/// One segment to look into.
struct Place<'a> {
    files: &'a dyn FileLayer,
    dir: &'a Path,
    salt: u32,
    number: u64,
    bytes: u64,
    /// Records from this sequence on were never acknowledged.
    limit: u64,
}

/// The records of a journal that name the event, oldest first.
pub(crate) fn in_view(shared: &Shared, event_id: EventId) -> io::Result<Vec<Stored>> {
    let (sealed, active) = {
        let view = shared.view.read().unwrap_or_else(PoisonError::into_inner);
        let active =
            view.active.as_ref().map(|active| (Arc::clone(&active.file), active.number, active.bytes));
        (view.sealed.clone(), active)
    };
    let mut found = share_out(&sealed, |segment| look_into(shared, segment, event_id))?;
    if let Some((file, number, bytes)) = active {
        let salt = shared.state.salt;
        let (mut positions, covered) =
            held(shared, number, naming::file_under(event_id, salt)).unwrap_or_default();
        read_ids(Arc::clone(&file), salt, (covered, bytes), u64::MAX, |other, at| {
            if other == event_id && positions.len() < MAX_SIGHTINGS {
                positions.push(at);
            }
            ControlFlow::Continue(())
        })?;
        positions.retain(|at| u64::from(*at) < bytes);
        found.extend(load(&*file, salt, &positions, event_id)?);
    }
    found.truncate(MAX_SIGHTINGS);
    Ok(found)
}

/// The records in a folder that name the event, oldest first. Takes no lock and changes nothing.
pub(crate) fn in_folder(dir: &Path, event_id: EventId) -> io::Result<Vec<Stored>> {
    let files = &RealFiles;
    let state = read_small(files, &dir.join(STATE_NAME), 4096).ok().and_then(|bytes| State::read(&bytes));
    let all = segments(files, dir)?;
    let of_headers =
        || all.iter().find_map(|(number, _)| header(files, dir, *number)).map(|header| header.salt);
    let salt = state.map(|state| state.salt).or_else(of_headers).unwrap_or_default();
    let places: Vec<(Place<'_>, Option<u64>)> = all
        .iter()
        .enumerate()
        .map(|(at, (number, bytes))| {
            let next = all.get(at + 1).map(|(number, _)| *number);
            (Place { files, dir, salt, number: *number, bytes: *bytes, limit: u64::MAX }, next)
        })
        .collect();
    let mut found = share_out(&places, |(place, next)| {
        if let Some(positions) = place.indexed(event_id) {
            return place.load(&positions, event_id);
        }
        let next = next.and_then(|next| header(files, dir, next));
        let limit = next.map_or(u64::MAX, |next| next.synced_before);
        Place { limit, ..*place }.read(event_id)
    })?;
    found.truncate(MAX_SIGHTINGS);
    Ok(found)
}

/// Does the work for each item, several at once if there are many; the answers keep the order of the items.
fn share_out<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> io::Result<Vec<Stored>> + Sync,
) -> io::Result<Vec<Stored>> {
    let threads = items.len().div_ceil(SEGMENTS_A_THREAD).clamp(1, MAX_THREADS);
    let in_turn = |items: &[T]| {
        let mut found = Vec::new();
        for item in items {
            match work(item) {
                Ok(more) => found.extend(more),
                // Deleted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    };
    if threads == 1 {
        return in_turn(items);
    }
    std::thread::scope(|scope| {
        let parts = items.chunks(items.len().div_ceil(threads));
        let running: Vec<_> = parts.map(|part| scope.spawn(|| in_turn(part))).collect();
        let mut found = Vec::new();
        for part in running {
            found.extend(part.join().map_err(|_| io::Error::other("a look-up has failed"))??);
        }
        Ok(found)
    })
}

fn look_into(shared: &Shared, segment: &Segment, event_id: EventId) -> io::Result<Vec<Stored>> {
    let summary = &segment.summary;
    let place = Place {
        files: &*shared.files,
        dir: &shared.config.dir,
        salt: shared.state.salt,
        number: summary.number,
        bytes: summary.bytes,
        limit: summary.end_sequence,
    };
    if let Some((positions, _)) = held(shared, place.number, naming::file_under(event_id, place.salt)) {
        return place.load(&positions, event_id);
    }
    if let Some(positions) = place.indexed(event_id) {
        return place.load(&positions, event_id);
    }
    shared.ids.doubt(place.number);
    place.read(event_id)
}

/// Positions held in memory of what is filed under a number, and up to where the segment is held.
fn held(shared: &Shared, segment: u64, under: u64) -> Option<(Vec<u32>, u64)> {
    let hits = |filed: &[Filed]| {
        filed.iter().filter(|filed| filed.0 == under).map(|filed| filed.1).take(MAX_SIGHTINGS).collect()
    };
    let held = locked(&shared.ids.held);
    if held.recent.segment == segment {
        return Some((hits(&held.recent.filed), held.recent.covered));
    }
    let waiting = held.waiting.iter().find(|(number, _)| *number == segment);
    let filed = waiting.map(|(_, filed)| Arc::clone(filed))?;
    drop(held);
    Some((hits(&filed), u64::MAX))
}

impl Place<'_> {
    /// By the index; `None` without a good one.
    fn indexed(&self, event_id: EventId) -> Option<Vec<u32>> {
        let table = open_table(self.files, self.dir, self.salt, self.number, self.bytes).ok()?;
        let found = table.find(naming::file_under(event_id, self.salt), MAX_SIGHTINGS).ok()?;
        Some(found.into_iter().map(u32::from_be_bytes).collect())
    }

    fn file(&self) -> io::Result<Arc<dyn StoredFile>> {
        self.files.open(&self.dir.join(segment_name(self.number)))
    }

    fn load(&self, positions: &[u32], event_id: EventId) -> io::Result<Vec<Stored>> {
        if positions.is_empty() {
            Ok(Vec::new())
        } else {
            load(&*self.file()?, self.salt, positions, event_id)
        }
    }

    /// By reading the segment.
    fn read(&self, event_id: EventId) -> io::Result<Vec<Stored>> {
        let (file, mut positions) = (self.file()?, Vec::new());
        let whole = (0, file.size()?);
        read_ids(Arc::clone(&file), self.salt, whole, self.limit, |other, at| {
            if other == event_id && positions.len() < MAX_SIGHTINGS {
                positions.push(at);
            }
            ControlFlow::Continue(())
        })?;
        load(&*file, self.salt, &positions, event_id)
    }
}

/// The records at these positions that name the event.
fn load(file: &dyn StoredFile, salt: u32, positions: &[u32], event_id: EventId) -> io::Result<Vec<Stored>> {
    let mut found = Vec::with_capacity(positions.len());
    for at in positions {
        let mut bytes = vec![0; FRAME_READ_BYTES];
        let read = file.read_at(&mut bytes, u64::from(*at))?;
        let Some(claimed) = Head::claimed_bytes(bytes.get(..read).unwrap_or_default()) else { continue };
        if claimed > read {
            bytes.resize(claimed, 0);
            file.read_at(&mut bytes, u64::from(*at))?;
        }
        bytes.truncate(claimed);
        if Head::check(&bytes, salt).is_some() && event_of_frame(&bytes) == Some(event_id) {
            found.extend(Stored::read(&Bytes::from(bytes), salt));
        }
    }
    Ok(found)
}
