//! How much a source may send: a token bucket for the second, a count for the day.
//!
//! The count is kept in memory: a restart begins the day anew.
//!
//! **Invariant:** over any time `t` no more than `burst + rate × t` events are granted, and no more than the day's quota from
//! midnight to midnight, UTC; a clock that steps back grants nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::time::Timestamp;
use schemas::verdict::{Code, Reason};

use crate::config::KeyConfig;

/// The bucket counts thousandths of an event, so that a millisecond's worth is a whole number.
const MILLI: u64 = 1_000;
const DAY_MS: i64 = 86_400_000;

/// What a source may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Allowance {
    /// Events a second, and at once.
    rate: Option<(u64, u64)>,
    /// Events a day.
    day: Option<u64>,
}

/// What a source has sent; kept across a change of keys.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Thousandths of events in the bucket, and as of when; absent before the first event: the bucket is full.
    bucket: Option<(u64, Timestamp)>,
    /// Number of the day since 1970.
    day: i64,
    /// Events granted that day.
    used: u64,
}

/// How many of some events are granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Grant {
    pub(crate) events: usize,
    /// Why the rest is not.
    pub(crate) refused: Option<Reason>,
}

impl Allowance {
    pub(crate) fn of(config: &KeyConfig) -> Self {
        let rate = config.events_per_second.map(u64::from);
        let rate = rate.map(|rate| (rate, config.burst_events.map_or(rate, u64::from)));
        Self { rate, day: config.events_per_day }
    }

    fn reason(&self, code: Code) -> Reason {
        let reason = Reason::new(code);
        match (code, self.rate, self.day) {
            (Code::RateExceeded, Some((rate, burst)), _) => {
                reason.expecting(format!("at most {rate} events a second, {burst} at once"))
            }
            (Code::QuotaExceeded, _, Some(day)) => {
                reason.expecting(format!("at most {day} events a day (UTC)"))
            }
            _ => reason,
        }
    }
}

impl Meter {
    /// Grants the first so many of `events`, and books them.
    pub(crate) fn take(&self, allowance: &Allowance, events: usize, now: Timestamp) -> Grant {
        let mut grant = Grant { events, refused: None };
        if allowance.rate.is_none() && allowance.day.is_none() {
            return grant;
        }
        let mut state = self.state();
        state.pass_time(allowance, now);
        let asked = u64::try_from(events).unwrap_or(u64::MAX);
        let by_day = allowance.day.map_or(asked, |day| day.saturating_sub(state.used).min(asked));
        let by_rate = state.bucket.map_or(asked, |(level, _)| (level / MILLI).min(asked));
        let granted = by_day.min(by_rate);
        state.used = state.used.saturating_add(granted);
        if let Some((level, _)) = &mut state.bucket {
            *level = level.saturating_sub(granted * MILLI);
        }
        if granted < asked {
            let code = if by_day < by_rate { Code::QuotaExceeded } else { Code::RateExceeded };
            grant = Grant {
                events: usize::try_from(granted).unwrap_or(events),
                refused: Some(allowance.reason(code)),
            };
        }
        grant
    }

    /// How long until `events` more would be granted, or as many as ever are at once.
    pub(crate) fn wait(&self, allowance: &Allowance, events: usize, now: Timestamp) -> Duration {
        let mut state = self.state();
        state.pass_time(allowance, now);
        if allowance.day.is_some_and(|day| state.used >= day) {
            let left = DAY_MS - now.as_millis().rem_euclid(DAY_MS);
            return Duration::from_millis(left.unsigned_abs());
        }
        let (Some((rate, burst)), Some((level, _))) = (allowance.rate, state.bucket) else {
            return Duration::ZERO;
        };
        let wanted = u64::try_from(events).unwrap_or(u64::MAX).min(burst).saturating_mul(MILLI);
        Duration::from_millis(wanted.saturating_sub(level).div_ceil(rate.max(1)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pass_time(&mut self, allowance: &Allowance, now: Timestamp) {
        let day = now.as_millis().div_euclid(DAY_MS);
        if day != self.day {
            (self.day, self.used) = (day, 0);
        }
        self.bucket = allowance.rate.map(|(rate, burst)| {
            let full = burst.saturating_mul(MILLI);
            let (level, since) = self.bucket.unwrap_or((full, now));
            let passed = now.as_millis().saturating_sub(since.as_millis()).max(0).unsigned_abs();
            (level.saturating_add(passed.saturating_mul(rate)).min(full), now)
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_714_054_990_000);

    fn allowance(rate: Option<(u64, u64)>, day: Option<u64>) -> Allowance {
        Allowance { rate, day }
    }

    fn granted(meter: &Meter, allowance: &Allowance, events: usize, after_ms: i64) -> (usize, Option<Code>) {
        let grant = meter.take(allowance, events, NOW.plus_millis(after_ms));
        (grant.events, grant.refused.map(|reason| reason.code))
    }

    #[test]
    fn a_burst_is_granted_at_once_and_then_the_rate() {
        let (meter, ten) = (Meter::default(), allowance(Some((10, 20)), None));
        assert_eq!(granted(&meter, &ten, 25, 0), (20, Some(Code::RateExceeded)));
        assert_eq!(granted(&meter, &ten, 1, 99), (0, Some(Code::RateExceeded)));
        assert_eq!(granted(&meter, &ten, 1, 100), (1, None));
        assert_eq!(meter.wait(&ten, 5, NOW.plus_millis(100)), Duration::from_millis(500));
        assert_eq!(meter.wait(&ten, 1_000, NOW.plus_millis(100)), Duration::from_secs(2), "a burst at most");
        assert_eq!(granted(&meter, &ten, 5, 600), (5, None));
        assert_eq!(granted(&meter, &ten, 1, -3_600_000), (0, Some(Code::RateExceeded)), "back in time");
    }

    #[test]
    fn a_days_quota_ends_at_midnight_utc() {
        let (meter, hundred) = (Meter::default(), allowance(None, Some(100)));
        assert_eq!(granted(&meter, &hundred, 60, 0), (60, None));
        assert_eq!(granted(&meter, &hundred, 60, 1), (40, Some(Code::QuotaExceeded)));
        let wait = meter.wait(&hundred, 1, NOW);
        assert_eq!((NOW.as_millis() + i64::try_from(wait.as_millis()).unwrap()) % DAY_MS, 0);
        assert_eq!(granted(&meter, &hundred, 60, i64::try_from(wait.as_millis()).unwrap()), (60, None));
        assert_eq!(granted(&Meter::default(), &allowance(None, None), 9, 0), (9, None));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            rate in 1_u64..50, burst in 1_u64..50, asks in prop::collection::vec((0_i64..500, 0_usize..30), 1..60),
        ) {
            let (meter, limit) = (Meter::default(), allowance(Some((rate, burst)), None));
            let (mut at, mut total) = (0, 0);
            for (pause, events) in asks {
                at += pause;
                total += granted(&meter, &limit, events, at).0;
                let most = burst * MILLI + rate * at.unsigned_abs();
                prop_assert!(total as u64 * MILLI <= most, "{total} events within {at} ms");
            }
        }
    }
}
