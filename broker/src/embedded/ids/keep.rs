//! The thread that makes index files: of segments that were sealed, and of those that a start finds without one.
//!
//! **Invariant:** it never stands between an appender and its answer; an index file appears under its name whole, by rename.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::table::{self, Filed, Heading};
use super::{IDS_SUFFIX, Ids, WIDTH, ids_name, open_table, read_ids};
use crate::embedded::recovery::{INDEX_SUFFIX, SEGMENT_SUFFIX};
use crate::embedded::store::Store;
use crate::embedded::view::{Segment, Shared, locked};
use crate::naming;

/// How long a sealed segment rests first: that of a spool is often deleted by then, and the fsyncs of a burst go first.
const REST: Duration = Duration::from_secs(1);
/// The longest pause after a segment that was read back; it is as long as the reading took, so that a start leaves half a core.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// What an index file is called until it is whole.
const TEMPORARY_SUFFIX: &str = ".ids.tmp";

/// Stops and joins the thread when dropped.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(crate) fn start(shared: Arc<Shared>) -> Self {
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("journal-ids".to_owned()).spawn(move || {
            remove_orphans(&of_thread);
            of_thread.ids.ring();
            while of_thread.ids.wait(REST) {
                catch_up(&of_thread);
            }
            write_waiting(&of_thread);
        });
        if let Err(error) = &thread {
            tracing::warn!(%error, "no index of event ids is made; looking an event up reads the segments");
        }
        Self { shared, thread: thread.ok() }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.ids.stop.store(true, Ordering::Release);
        // Under the lock, so that the thread is either before its look or already waits.
        self.shared.ids.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Ids {
    /// Waits until there may be something to do, and then for `rest`; `false` when it is time to stop.
    fn wait(&self, rest: Duration) -> bool {
        let held = locked(&self.held);
        let held = self.bell.wait_while(held, |held| !held.rung && !self.stops());
        let mut held = held.unwrap_or_else(PoisonError::into_inner);
        held.rung = false;
        drop(held);
        self.pause(rest)
    }

    /// Lets time pass; `false` when it is time to stop.
    fn pause(&self, time: Duration) -> bool {
        let held = self.bell.wait_timeout_while(locked(&self.held), time, |_| !self.stops());
        drop(held.unwrap_or_else(PoisonError::into_inner));
        !self.stops()
    }
}

/// Makes every index file that is missing or wrong.
pub(super) fn catch_up(shared: &Shared) {
    write_waiting(shared);
    for segment in sealed(shared) {
        let number = segment.summary.number;
        if is_good(shared, &segment) {
            continue;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the work itself is measured, to rest as long as it took"
        )]
        let started = Instant::now();
        let outcome = if Store::roomy(shared) { rebuild(shared, &segment) } else { return };
        if let Err(error) = outcome
            && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Interrupted)
        {
            tracing::warn!(segment = number, error = %error.kind(), "the index of event ids could not be made");
        }
        if !shared.ids.pause(started.elapsed().min(LONGEST_PAUSE)) {
            return;
        }
    }
}

/// Writes those that wait in memory.
fn write_waiting(shared: &Shared) {
    let waiting = locked(&shared.ids.held).waiting.clone();
    for (number, filed) in waiting {
        let segment = sealed(shared).into_iter().find(|segment| segment.summary.number == number);
        if let Some(segment) = segment
            && Store::roomy(shared)
        {
            let entries = filed.iter().map(|(under, at)| (*under, at.to_be_bytes())).collect();
            let _ = write(shared, &segment, entries);
        }
        locked(&shared.ids.held).waiting.retain(|(other, _)| *other != number);
    }
}

fn sealed(shared: &Shared) -> Vec<Arc<Segment>> {
    let view = shared.view.read().unwrap_or_else(PoisonError::into_inner);
    let sealed = view.sealed.clone();
    drop(view);
    let there: HashSet<u64> = sealed.iter().map(|segment| segment.summary.number).collect();
    locked(&shared.ids.held).good.retain(|number| there.contains(number));
    sealed
}

fn is_good(shared: &Shared, segment: &Segment) -> bool {
    let summary = &segment.summary;
    if locked(&shared.ids.held).good.contains(&summary.number) {
        return true;
    }
    let dir = &shared.config.dir;
    let table = open_table(&*shared.files, dir, shared.state.salt, summary.number, summary.bytes);
    table.is_ok() && locked(&shared.ids.held).good.insert(summary.number)
}

fn rebuild(shared: &Shared, segment: &Segment) -> io::Result<()> {
    let (summary, salt) = (&segment.summary, shared.state.salt);
    let file = shared.files.open(&shared.segment_path(summary.number))?;
    let mut entries = Vec::new();
    read_ids(file, salt, (0, summary.bytes), summary.end_sequence, |event_id, at| {
        entries.push((naming::file_under(event_id, salt), at.to_be_bytes()));
        if shared.ids.stops() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    write(shared, segment, entries)
}

fn write(shared: &Shared, segment: &Segment, mut entries: Vec<Filed<WIDTH>>) -> io::Result<()> {
    let (files, dir, summary) = (&*shared.files, &shared.config.dir, &segment.summary);
    let temporary = dir.join(format!("{:020}{TEMPORARY_SUFFIX}", summary.number));
    let path = dir.join(ids_name(summary.number));
    let heading = Heading { salt: shared.state.salt, owner: [summary.number, summary.bytes] };
    // Not fsynced: what a crash leaves of it is noticed by its checksums.
    let file = files.create(&temporary)?;
    let written = table::write(&*file, heading, &mut entries).and_then(|()| files.rename(&temporary, &path));
    if written.is_err() {
        let _ = files.remove(&temporary);
        return written;
    }
    // The segment may have been deleted meanwhile.
    if sealed(shared).iter().all(|other| other.summary.number != summary.number) {
        let _ = files.remove(&path);
        return Ok(());
    }
    locked(&shared.ids.held).good.insert(summary.number);
    Ok(())
}

/// Removes index files whose segment is gone, and such as were not finished.
fn remove_orphans(shared: &Shared) {
    let (files, dir) = (&*shared.files, &shared.config.dir);
    let Ok(names) = files.list(dir) else { return };
    let segments: HashSet<&str> =
        names.iter().filter_map(|(name, _)| name.strip_suffix(SEGMENT_SUFFIX)).collect();
    for (name, _) in &names {
        let of = name.strip_suffix(IDS_SUFFIX).or_else(|| name.strip_suffix(INDEX_SUFFIX));
        if name.ends_with(TEMPORARY_SUFFIX) || of.is_some_and(|of| !segments.contains(of)) {
            let _ = files.remove(&dir.join(name));
        }
    }
}
