//! When to try again: exponential with jitter, the server's word first, and a breaker behind blockers.
//!
//! **Invariant:** every wait is bounded by [`LONGEST_WAIT_MS`], and no two failures in a row are closer than half a second.

use crate::input::Millis;
use crate::packed::whole;

/// First wait after a failure.
const FIRST_WAIT_MS: u32 = 1_000;
/// Longest wait while the breaker is closed.
const USUAL_WAIT_MS: u32 = 60_000;
/// Failures in a row after which the breaker opens.
pub const BREAKER_FAILURES: u32 = 8;
/// Wait between trials while the breaker is open.
const BREAKER_WAIT_MS: u32 = 300_000;
/// No wait is longer, whatever the server says.
pub const LONGEST_WAIT_MS: Millis = 600_000.0;

/// What is known of the way to the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    /// Failures in a row.
    pub(crate) failures: u32,
    /// Nothing is sent before this instant.
    pub(crate) until: Millis,
}

impl Backoff {
    /// A try failed; `asked` is how long the server asked to wait, 0 if it did not.
    pub(crate) fn failed(&mut self, now: Millis, asked: Millis, random: u32) {
        self.failures += 1;
        // What the server asked is kept to, plus some spread; one's own wait may be cut to a half.
        let wait = if asked > 0.0 {
            asked + spread(FIRST_WAIT_MS, random)
        } else if self.failures >= BREAKER_FAILURES {
            half_to_whole(BREAKER_WAIT_MS, random)
        } else {
            half_to_whole((FIRST_WAIT_MS << (self.failures - 1).min(6)).min(USUAL_WAIT_MS), random)
        };
        self.until = now + bounded(wait);
    }

    /// The server refuses us for a reason that time alone may cure: at once as slow as the breaker.
    pub(crate) fn refused(&mut self, now: Millis, random: u32) {
        self.failures = self.failures.max(BREAKER_FAILURES);
        self.failed(now, 0.0, random);
    }

    /// The server took something.
    pub(crate) fn worked(&mut self) {
        self.failures = 0;
        self.until = 0.0;
    }

    /// The server asks for a pause.
    pub(crate) fn pause(&mut self, now: Millis, wait: Millis) {
        self.until = later(self.until, now + bounded(wait));
    }
}

fn bounded(wait: Millis) -> Millis {
    sooner(wait, LONGEST_WAIT_MS)
}

/// The sooner of two instants. (`f64::min` looks for numbers that are none.)
pub(crate) fn sooner(one: Millis, other: Millis) -> Millis {
    if one < other { one } else { other }
}

/// The later of two instants.
pub(crate) fn later(one: Millis, other: Millis) -> Millis {
    if one > other { one } else { other }
}

/// A part of `range`, evenly spread.
fn spread(range: u32, random: u32) -> Millis {
    f64::from(whole(f64::from(random) * f64::from(range) / 4_294_967_296.0))
}

/// Between half of `range` and all of it.
pub(crate) fn half_to_whole(range: u32, random: u32) -> Millis {
    f64::from(range / 2) + spread(range / 2, random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_minutes_behind_a_blocker_cost_at_most_eleven_requests() {
        for random in [0, 1 << 31, u32::MAX] {
            let mut backoff = Backoff::default();
            let (mut now, mut tries) = (0.0, 0);
            while now < 600_000.0 {
                tries += 1;
                backoff.failed(now, 0.0, random);
                now = backoff.until;
            }
            assert!(tries <= 11, "{tries} with {random}");
        }
    }

    #[test]
    fn the_server_is_waited_for_but_not_for_ever() {
        let mut backoff = Backoff::default();
        backoff.failed(5.0, 30_000.0, 0);
        assert!((backoff.until - 30_005.0).abs() < 1e-6);
        backoff.failed(5.0, 1e15, 0);
        assert!((backoff.until - 5.0 - LONGEST_WAIT_MS).abs() < 1e-6);
    }
}
