//! What waits for the writer.
//!
//! **Invariant:** bounded in records and bytes by the permits that every job carries; order is that of `push`.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::format::Entry;
use super::store::Places;
use super::view::locked;
use crate::log::AppendError;

/// Answers a batch.
pub(crate) type Answer = oneshot::Sender<Result<Places, AppendError>>;

/// One batch that waits.
pub(crate) struct Job {
    pub(crate) entries: Vec<Entry>,
    pub(crate) answer: Answer,
    pub(crate) room: Room,
    /// Room in the queue, given back when the job is dropped.
    pub(crate) _queued: [OwnedSemaphorePermit; 2],
}

/// What space on the disk a batch may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// What lies above the headroom.
    Common,
    /// The headroom too: without this batch nothing that is on the disk can go.
    Headroom,
}

/// What the writer is to do.
pub(crate) enum Work {
    /// Write these.
    Write(Vec<Job>),
    /// Look after retention.
    Retain,
    /// Nothing came for a while.
    Idle,
    /// End; nothing waits any more.
    End,
}

/// The queue between appenders and the writer.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    retain: bool,
    closed: bool,
}

impl Queue {
    /// Adds a job; gives it back when the queue is closed.
    pub(crate) fn push(&self, job: Job) -> Result<(), Job> {
        let mut state = locked(&self.state);
        if state.closed {
            return Err(job);
        }
        state.jobs.push(job);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Asks for a look at retention.
    #[cfg(feature = "kafka")]
    pub(crate) fn retain(&self) {
        locked(&self.state).retain = true;
        self.filled.notify_one();
    }

    /// Takes no more jobs; the writer ends when it has done those that wait.
    pub(crate) fn close(&self) {
        locked(&self.state).closed = true;
        self.filled.notify_all();
    }

    pub(crate) fn closed(&self) -> bool {
        locked(&self.state).closed
    }

    /// Waits for work, at most `idle`.
    pub(crate) fn take(&self, idle: Duration) -> Work {
        let quiet = |state: &mut State| state.jobs.is_empty() && !state.closed && !state.retain;
        let state = locked(&self.state);
        let waited =
            self.filled.wait_timeout_while(state, idle, quiet).unwrap_or_else(PoisonError::into_inner);
        let mut state = waited.0;
        if !state.jobs.is_empty() {
            return Work::Write(std::mem::take(&mut state.jobs));
        }
        if std::mem::take(&mut state.retain) {
            return Work::Retain;
        }
        if state.closed { Work::End } else { Work::Idle }
    }
}
