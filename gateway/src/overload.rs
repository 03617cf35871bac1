//! What is not taken under load, so that the rest stays quick: the last lane goes first.
//!
//! Load is the worst of three shares of a limit: bytes in work, events that wait for the log, and how late the program does what
//! is due. Late means late all the time: the best of the last few looks counts, so that one pause (a frozen process, a slow disk
//! for a moment) sheds nothing.
//!
//! **Invariant:** nothing of a lane is shed while anything of a later lane is taken on purpose; critical events are never shed here;
//! what is shed is told (`retry`, `gateway.overloaded`) and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::Gateway;
use crate::config::{GatewayConfig, Lane};
use crate::drain::Drain;
use crate::telemetry::{Counter, Gauge};
use crate::transport::body::Budget;

/// How often lateness is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The best of so many looks is how late the program is.
const LOOKS: usize = 3;
/// When it is on time again, lateness fades by this share a look, so that what was shed does not come back at once: a quarter.
const FADES_BY: u64 = 4;
/// Shares are counted in thousandths.
const WHOLE: u64 = 1_000;
/// Load at which the first of a lane is shed, and at which all of it is.
const BEST_EFFORT_RAMP: (u64, u64) = (500, 800);
const NORMAL_RAMP: (u64, u64) = (800, 1_000);
/// The share of the bytes in work that a lane leaves to those before it.
const BEST_EFFORT_LEAVES: usize = 4;
const NORMAL_LEAVES: usize = 16;

/// How loaded the gateway is, and what follows.
#[derive(Debug)]
pub(crate) struct Overload {
    budget: Budget,
    waiting_limit: u64,
    late_limit_micros: u64,
    waiting: AtomicUsize,
    late_micros: AtomicU64,
    lanes: [Shedding; Lane::ALL.len()],
    load_percent: Gauge,
}

/// What is shed of one lane.
#[derive(Debug)]
pub(crate) struct Shedding {
    /// Thousandths of a batch due to be shed: so a share of the batches is, evenly, without chance.
    due: AtomicU64,
    pub(crate) events: Counter,
    pub(crate) requests: Counter,
}

/// Events that wait for the log, until dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    waiting: &'a AtomicUsize,
    events: usize,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.events, Ordering::Relaxed);
    }
}

impl Overload {
    pub(crate) fn new(config: &GatewayConfig, metrics: &crate::telemetry::Metrics, budget: Budget) -> Self {
        Self {
            budget,
            waiting_limit: (config.shed_waiting_events as u64).max(1),
            late_limit_micros: config.shed_late_ms.saturating_mul(1_000).max(1),
            waiting: AtomicUsize::new(0),
            late_micros: AtomicU64::new(0),
            lanes: Lane::ALL.map(|lane| Shedding {
                due: AtomicU64::new(0),
                events: metrics.load.shed_events(lane),
                requests: metrics.load.shed_requests(lane),
            }),
            load_percent: metrics.load.percent.clone(),
        }
    }

    /// Whether a batch of this lane is not to be taken now; counted then.
    pub(crate) fn sheds(&self, lane: Lane, events: usize) -> bool {
        let Some(lane_state) = self.lanes.get(lane as usize) else { return false };
        let share = shed_share(lane, self.load());
        if share == 0 {
            return false;
        }
        let before = lane_state.due.fetch_add(share, Ordering::Relaxed);
        let sheds = before / WHOLE != (before + share) / WHOLE;
        if sheds {
            lane_state.events.inc_by(events as u64);
        }
        sheds
    }

    /// Whether nothing of this lane is taken now, so that its bodies need not even be read; counted then.
    pub(crate) fn refuses(&self, lane: Lane) -> bool {
        let refuses = shed_share(lane, self.load()) >= WHOLE;
        if let Some(lane) = self.lanes.get(lane as usize).filter(|_| refuses) {
            lane.requests.inc();
        }
        refuses
    }

    /// The bytes in work as far as this lane may use them.
    pub(crate) fn budget(&self, lane: Lane) -> Budget {
        self.budget.leaving(match lane {
            Lane::Critical => 0,
            Lane::Normal => self.budget.total() / NORMAL_LEAVES,
            Lane::BestEffort => self.budget.total() / BEST_EFFORT_LEAVES,
        })
    }

    /// Counts events as waiting for the log.
    pub(crate) fn wait(&self, events: usize) -> Waiting<'_> {
        self.waiting.fetch_add(events, Ordering::Relaxed);
        Waiting { waiting: &self.waiting, events }
    }

    /// In thousandths of what is too much.
    fn load(&self) -> u64 {
        let share = |of: u64, limit: u64| of.saturating_mul(WHOLE) / limit;
        let bytes = share(self.budget.used() as u64, (self.budget.total() as u64).max(1));
        let waiting = share(self.waiting.load(Ordering::Relaxed) as u64, self.waiting_limit);
        let late = share(self.late_micros.load(Ordering::Relaxed), self.late_limit_micros);
        bytes.max(waiting).max(late)
    }

    fn note_late(&self, late: Duration) {
        let late = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        let faded = self.late_micros.load(Ordering::Relaxed);
        let faded = faded - faded / FADES_BY;
        // What has nearly faded is nothing.
        let faded = if faded < self.late_limit_micros / 100 { 0 } else { faded };
        self.late_micros.store(late.max(faded), Ordering::Relaxed);
        self.load_percent.set(i64::try_from(self.load() / 10).unwrap_or(i64::MAX));
    }
}

/// Looks at how late the program is, until the gateway drains.
pub(crate) fn watch(gateway: &Arc<Gateway>, drain: &Arc<Drain>) {
    let (gateway, drain) = (Arc::downgrade(gateway), Arc::clone(drain));
    tokio::spawn(async move {
        let mut looks = [Duration::ZERO; LOOKS];
        for place in (0..LOOKS).cycle() {
            let late = tokio::select! {
                late = lateness() => late,
                () = drain.begun() => return,
            };
            let Some(gateway) = gateway.upgrade() else { return };
            if let Some(look) = looks.get_mut(place) {
                *look = late;
            }
            gateway.overload.note_late(looks.iter().min().copied().unwrap_or_default());
        }
    });
}

/// How late a task is that goes the way of a request: its time comes, another thread answers it.
async fn lateness() -> Duration {
    let due = Instant::now() + LOOK_EVERY;
    tokio::time::sleep_until(due).await;
    let _ = tokio::task::spawn_blocking(|| ()).await;
    Instant::now().saturating_duration_since(due)
}

/// Thousandths of a lane's batches that are shed at a load in thousandths.
fn shed_share(lane: Lane, load: u64) -> u64 {
    let (from, to) = match lane {
        Lane::Critical => return 0,
        Lane::Normal => NORMAL_RAMP,
        Lane::BestEffort => BEST_EFFORT_RAMP,
    };
    (load.saturating_sub(from).saturating_mul(WHOLE) / (to - from)).min(WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stand;

    #[test]
    fn best_effort_is_gone_before_the_first_normal_event_is_shed_and_critical_stays() {
        for load in 0..3_000 {
            let [critical, normal, best_effort] = Lane::ALL.map(|lane| shed_share(lane, load));
            assert_eq!(critical, 0);
            assert!(normal == 0 || best_effort == WHOLE, "at {load}");
            assert!(best_effort <= WHOLE && normal <= WHOLE);
        }
        assert_eq!(Lane::ALL.map(|lane| shed_share(lane, 650)), [0, 0, 500]);
        assert_eq!(Lane::ALL.map(|lane| shed_share(lane, 900)), [0, 500, WHOLE]);
    }

    #[tokio::test]
    async fn each_measure_alone_sheds_a_share_evenly_and_counts_it() {
        let stand =
            stand(GatewayConfig { shed_waiting_events: 100, shed_late_ms: 100, ..GatewayConfig::default() });
        let overload = &stand.gateway.overload;
        assert!(!overload.sheds(Lane::BestEffort, 5));
        let waiting = overload.wait(65);
        let shed = (0..10).filter(|_| overload.sheds(Lane::BestEffort, 5)).count();
        assert_eq!(
            (shed, overload.sheds(Lane::Normal, 5), overload.sheds(Lane::Critical, 5)),
            (5, false, false)
        );
        drop(waiting);
        overload.note_late(Duration::from_millis(100));
        assert!(overload.refuses(Lane::BestEffort) && overload.refuses(Lane::Normal));
        assert!(!overload.refuses(Lane::Critical));
        for _ in 0..30 {
            overload.note_late(Duration::ZERO);
        }
        assert!(!overload.refuses(Lane::BestEffort), "on time again");
        let all = overload.budget(Lane::Critical).take(overload.budget.total() * 9 / 10).unwrap();
        assert!(overload.refuses(Lane::BestEffort) && !overload.refuses(Lane::Normal));
        assert!(
            overload.budget(Lane::Normal).take(overload.budget.total() / 10).is_none(),
            "left to critical"
        );
        drop(all);
        let text = stand.gateway.metrics_text();
        assert!(text.contains("rivulet_gateway_shed_events_total{lane=\"best_effort\"} 25"), "{text}");
        assert!(text.contains("rivulet_gateway_shed_requests_total{lane=\"normal\"} 1"), "{text}");
    }
}
