//! The socket as the engine sees it.
//!
//! **Invariant:** it saves work and never carries correctness: whatever was on it when it ends waits here again.

use crate::backoff::half_to_whole;
use crate::input::Millis;

/// So long a socket may take to open and be greeted before events go by request instead.
pub(crate) const PATIENCE_MS: Millis = 3_000.0;
/// So long it may take at all.
pub(crate) const OPEN_MS: Millis = 10_000.0;
/// So long a batch may be unanswered.
pub(crate) const ANSWER_MS: Millis = 15_000.0;
/// A silent socket is kept open by a ping; proxies cut after about 100 s.
pub(crate) const PING_MS: Millis = 25_000.0;
/// Longest wait before a socket that once worked is opened again.
const REOPEN_MS: u32 = 60_000;
/// First and longest wait where none ever worked.
const NEVER_FIRST_MS: u32 = 30_000;
const NEVER_MS: u32 = 600_000;

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
    pub(crate) since: Millis,
    /// When something was last sent.
    pub(crate) sent: Millis,
    /// Batches that may be unanswered at once.
    pub(crate) credit: u32,
    /// The number of the next batch.
    pub(crate) next_seq: u32,
    /// Not to be opened before.
    pub(crate) retry_at: Millis,
    /// Whether it ever worked on this page.
    pub(crate) worked: bool,
    failures: u32,
}

impl Socket {
    /// It is ready.
    pub(crate) fn greeted(&mut self, now: Millis) {
        self.phase = Phase::Ready;
        self.since = now;
        self.sent = now;
        self.worked = true;
        self.failures = 0;
    }

    /// It ended; when it may be tried again.
    pub(crate) fn ended(&mut self, now: Millis, random: u32) {
        self.phase = Phase::Closed;
        let (first, longest) = if self.worked { (1_000, REOPEN_MS) } else { (NEVER_FIRST_MS, NEVER_MS) };
        let wait = (first << self.failures.min(10)).min(longest);
        self.failures += 1;
        self.retry_at = now + half_to_whole(wait, random);
    }

    /// Whether it is being opened or greeted.
    pub(crate) fn is_coming(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Greeting)
    }
}
