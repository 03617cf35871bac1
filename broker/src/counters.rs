//! Plain counters of a log, for whoever exports metrics.
//!
//! **Invariant:** counters only rise; reading them takes no lock and stops nobody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the time histograms' buckets, in seconds; the last bucket has none.
pub const SECONDS_BOUNDS: [f64; 12] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// A rising number.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

/// A histogram of durations over [`SECONDS_BOUNDS`].
#[derive(Default, Debug)]
pub struct Seconds {
    buckets: [AtomicU64; SECONDS_BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

/// What a log counts from its start on. Fields that a log has no use for stay 0.
#[derive(Default, Debug)]
pub struct Counters {
    /// Records written and fsynced.
    pub appended_records: Counter,
    /// Bytes written and fsynced, framing included.
    pub appended_bytes: Counter,
    /// Group commits: one write and one fsync each.
    pub fsyncs: Counter,
    /// How long they took.
    pub fsync_seconds: Seconds,
    /// Writes or fsyncs that failed; each closes a segment.
    pub disk_errors: Counter,
    /// Batches refused because the disk was near full.
    pub refused_full: Counter,
    /// Records lost to damage, found since start.
    pub corrupted_records: Counter,
    /// Segments deleted by retention.
    pub deleted_segments: Counter,
    /// Records read.
    pub read_records: Counter,
    /// Records taken into the spool.
    pub spooled_records: Counter,
    /// Records acknowledged by the broker.
    pub published_records: Counter,
    /// Deliveries to the broker that failed and are repeated.
    pub produce_errors: Counter,
    /// Records that the topic will never take.
    pub unpublishable_records: Counter,
    /// Waiters for `broker` that were answered `disk` at their deadline.
    pub broker_deadlines: Counter,
    /// New producer clients after a fatal error.
    pub producer_restarts: Counter,
}

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Seconds {
    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket =
            SECONDS_BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(SECONDS_BOUNDS.len());
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts per bucket, not cumulative; one more than there are bounds.
    pub fn buckets(&self) -> [u64; SECONDS_BOUNDS.len() + 1] {
        std::array::from_fn(|n| self.buckets.get(n).map_or(0, |count| count.load(Ordering::Relaxed)))
    }

    /// All durations together, in seconds.
    pub fn sum(&self) -> f64 {
        self.sum_micros.load(Ordering::Relaxed) as f64 / 1e6
    }
}
