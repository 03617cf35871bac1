//! The socket as the engine sees it.
//!
//! **Invariant:** it saves work and never carries correctness: whatever was on it when it ends waits here again.

use alloc::string::String;
use alloc::vec::Vec;

/// So long a socket may take to open and be greeted before events go by request instead.
pub(crate) const PATIENCE_MS: u64 = 3_000;
/// So long it may take at all.
pub(crate) const OPEN_MS: u64 = 10_000;
/// So long a batch may be unanswered.
pub(crate) const ANSWER_MS: u64 = 15_000;
/// A silent socket is kept open by a ping; proxies cut after about 100 s.
pub(crate) const PING_MS: u64 = 25_000;
/// Longest wait before a socket that once worked is opened again.
const REOPEN_MS: u64 = 60_000;
/// First and longest wait where none ever worked.
const NEVER_FIRST_MS: u64 = 30_000;
const NEVER_MS: u64 = 600_000;

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Phase {
    /// There is none.
    #[default]
    Closed,
    /// Being opened.
    Opening,
    /// Open; the server has not greeted yet.
    Greeting,
    /// Batches may be sent.
    Ready,
}

/// The socket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Socket {
    /// Whether the host has sockets.
    pub(crate) allowed: bool,
    pub(crate) phase: Phase,
    /// When this phase began or, when ready, when the server was last heard.
    pub(crate) since: u64,
    /// When something was last sent.
    pub(crate) sent: u64,
    /// Batches that may be unanswered at once.
    pub(crate) credit: u64,
    /// Batches that are.
    pub(crate) unanswered: Vec<(u64, u64)>,
    /// The number of the next batch.
    pub(crate) next_seq: u64,
    /// To be named at the next greeting.
    pub(crate) session: Option<String>,
    /// Not to be opened before.
    pub(crate) retry_at: u64,
    /// Whether it ever worked on this page.
    pub(crate) worked: bool,
    failures: u32,
}

impl Socket {
    /// It is ready.
    pub(crate) fn greeted(&mut self, now: u64) {
        self.phase = Phase::Ready;
        self.since = now;
        self.sent = now;
        self.worked = true;
        self.failures = 0;
    }

    /// It ended; when it may be tried again.
    pub(crate) fn ended(&mut self, now: u64, random: u32) {
        self.phase = Phase::Closed;
        self.unanswered.clear();
        let shift = self.failures.min(10);
        self.failures += 1;
        let wait = if self.worked {
            (1_000 << shift).min(REOPEN_MS)
        } else {
            (NEVER_FIRST_MS << shift).min(NEVER_MS)
        };
        self.retry_at = now + wait / 2 + crate::backoff::spread(wait / 2, random);
    }

    /// The instant at which this phase has lasted too long.
    pub(crate) fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Closed => None,
            Phase::Opening | Phase::Greeting => Some(self.since + OPEN_MS),
            Phase::Ready => self.unanswered.first().map(|(_, sent)| sent + ANSWER_MS),
        }
    }
}
