//! What the processor counts and measures.
//!
//! **Invariant:** no label holds anything that a sender wrote; every value is a number (never NaN).

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use schemas::time::Timestamp;

use crate::consume::batch::Effects;
use crate::consume::ledger::Ledger;

/// An outcome as a label.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Word {
    kind: &'static str,
}

/// A partition as a label.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Partition {
    partition: u32,
}

/// All metrics.
#[derive(Debug)]
pub(crate) struct Telemetry {
    registry: Arc<Registry>,
    records: Family<Word, Counter>,
    conflicts: Counter,
    notes: Family<Word, Counter>,
    decisions: Counter,
    outputs: Counter,
    batches: Histogram,
    latency: Histogram,
    lag: Family<Partition, Gauge>,
    pub(crate) failures: Counter,
    pub(crate) expired: Counter,
    pub(crate) refused_outputs: Counter,
}

impl Telemetry {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("rivulet_processor");
        let seconds = || Histogram::new(exponential_buckets(0.000_5, 2.0, 16));
        let mut all = Self {
            registry: Arc::default(),
            records: Family::default(),
            conflicts: Counter::default(),
            notes: Family::default(),
            decisions: Counter::default(),
            outputs: Counter::default(),
            batches: seconds(),
            latency: seconds(),
            lag: Family::default(),
            failures: Counter::default(),
            expired: Counter::default(),
            refused_outputs: Counter::default(),
        };
        registry.register("records", "Records done with, by outcome", all.records.clone());
        registry.register("conflicts", "Duplicates with another body than the first", all.conflicts.clone());
        registry.register(
            "notes",
            "Things dropped or refused by a bound or rule, by kind",
            all.notes.clone(),
        );
        registry.register("decisions", "Decisions made", all.decisions.clone());
        registry.register("outputs", "Records put into the outbox", all.outputs.clone());
        registry.register_with_unit(
            "batch",
            "From read to fsync of a batch",
            Unit::Seconds,
            all.batches.clone(),
        );
        registry.register_with_unit(
            "decision_latency",
            "From received to decision on the log",
            Unit::Seconds,
            all.latency.clone(),
        );
        registry.register("lag_records", "Records not yet processed", all.lag.clone());
        registry.register("failures", "Attempts that failed and are tried again", all.failures.clone());
        registry.register(
            "expired_records",
            "Records gone by retention before they were processed",
            all.expired.clone(),
        );
        registry.register(
            "refused_outputs",
            "Outputs that the log will never take",
            all.refused_outputs.clone(),
        );
        all.registry = Arc::new(registry);
        all
    }

    /// Counts a batch: what the ledger grew by, and what came out.
    pub(crate) fn batch(&self, took: Duration, before: &Ledger, effects: &Effects) {
        let after = &effects.state.ledger;
        let grown = [
            ("applied", after.applied - before.applied),
            ("duplicate", after.duplicate - before.duplicate),
            ("late", after.late - before.late),
            ("quarantined", after.quarantined - before.quarantined),
            ("control", after.control - before.control),
        ];
        for (kind, n) in grown {
            self.records.get_or_create(&Word { kind }).inc_by(n);
        }
        self.conflicts.inc_by(after.conflict - before.conflict);
        let notes = effects.notes;
        let kinds = [
            ("evicted_keys", notes.evicted_keys),
            ("unsummed", notes.unsummed),
            ("refused_devices", notes.refused_devices),
            ("refused_aliases", notes.refused_aliases),
            ("refused_traits", notes.refused_traits),
            ("given_way", notes.given_way),
            ("absent_keys", notes.absent_keys),
            ("deferred_events", notes.deferred_events),
            ("histories_missed", notes.histories_missed),
        ];
        for (kind, n) in kinds.into_iter().filter(|(_, n)| *n > 0) {
            self.notes.get_or_create(&Word { kind }).inc_by(n);
        }
        self.decisions.inc_by(effects.decisions);
        self.outputs.inc_by(u64::try_from(effects.records.len()).unwrap_or_default());
        self.batches.observe(took.as_secs_f64());
    }

    pub(crate) fn decided_after(&self, received: Timestamp, now: Timestamp) {
        let millis = now.as_millis().saturating_sub(received.as_millis()).max(0);
        self.latency.observe(millis as f64 / 1_000.0);
    }

    pub(crate) fn lag(&self, partition: u32, records: u64) {
        self.lag.get_or_create(&Partition { partition }).set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// The metrics as text, without the end mark, so that another registry's can be joined.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode_registry(&mut text, &self.registry);
        text
    }
}
