//! When to try again: exponential with jitter, the server's word first, and a breaker behind blockers.
//!
//! **Invariant:** every wait is bounded by [`LONGEST_WAIT_MS`], and no two failures in a row are closer than half a second.

/// First wait after a failure.
const FIRST_WAIT_MS: u64 = 1_000;
/// Longest wait while the breaker is closed.
const USUAL_WAIT_MS: u64 = 60_000;
/// Failures in a row after which the breaker opens.
pub const BREAKER_FAILURES: u32 = 8;
/// Wait between trials while the breaker is open.
const BREAKER_WAIT_MS: u64 = 300_000;
/// No wait is longer, whatever the server says.
pub const LONGEST_WAIT_MS: u64 = 600_000;

/// What is known of the way to the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    /// Failures in a row.
    pub(crate) failures: u32,
    /// Nothing is sent before this instant.
    pub(crate) until: u64,
}

impl Backoff {
    /// A try failed; `asked` is how long the server asked to wait.
    pub(crate) fn failed(&mut self, now: u64, asked: Option<u64>, random: u32) {
        self.failures += 1;
        let own = if self.failures >= BREAKER_FAILURES {
            BREAKER_WAIT_MS
        } else {
            (FIRST_WAIT_MS << (self.failures - 1).min(6)).min(USUAL_WAIT_MS)
        };
        // What the server asked is kept to, plus some spread; one's own wait may be cut to a half.
        let wait = match asked {
            Some(asked) => asked + spread(FIRST_WAIT_MS, random),
            None => own / 2 + spread(own / 2, random),
        };
        self.until = now + wait.min(LONGEST_WAIT_MS);
    }

    /// The server refuses us for a reason that time alone may cure: at once as slow as the breaker.
    pub(crate) fn refused(&mut self, now: u64, random: u32) {
        self.failures = self.failures.max(BREAKER_FAILURES);
        self.failed(now, None, random);
    }

    /// The server took something.
    pub(crate) fn worked(&mut self) {
        self.failures = 0;
        self.until = 0;
    }

    /// The server asks for a pause.
    pub(crate) fn pause(&mut self, now: u64, wait: u64) {
        self.until = self.until.max(now + wait.min(LONGEST_WAIT_MS));
    }

    /// Circumstances have changed: the next try may be made now, but a failure goes on counting.
    pub(crate) fn hurry(&mut self) {
        self.until = 0;
    }

    /// A stored time from before the clock was set back must not hold for ever.
    pub(crate) fn clock(&mut self, now: u64) {
        self.until = self.until.min(now + LONGEST_WAIT_MS);
    }
}

/// A part of `range`, evenly spread.
pub(crate) fn spread(range: u64, random: u32) -> u64 {
    (range * u64::from(random)) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_minutes_behind_a_blocker_cost_at_most_eleven_requests() {
        for random in [0, 1 << 31, u32::MAX] {
            let mut backoff = Backoff::default();
            let (mut now, mut tries) = (0, 0);
            while now < 600_000 {
                tries += 1;
                backoff.failed(now, None, random);
                now = backoff.until;
            }
            assert!(tries <= 11, "{tries} with {random}");
        }
    }

    #[test]
    fn the_server_is_waited_for_but_not_for_ever() {
        let mut backoff = Backoff::default();
        backoff.failed(5, Some(30_000), 0);
        assert_eq!(backoff.until, 30_005);
        backoff.failed(5, Some(u64::MAX / 2), 0);
        assert_eq!(backoff.until, 5 + LONGEST_WAIT_MS);
    }
}
