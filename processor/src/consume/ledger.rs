//! What a partition knows of itself: where it is, what time it is, and what became of what it consumed.
//!
//! **Invariant:** `consumed = applied + duplicate + late + quarantined + control`, at every commit; records being worked on are in
//! flight and not consumed yet. It is stored in the same batch as the effects it counts.

use schemas::time::Timestamp;
use schemas::topic::Offset;
use serde::{Deserialize, Serialize};

/// Outcomes counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Records read and done with.
    pub consumed: u64,
    /// Events that had their full effect.
    pub applied: u64,
    /// Events whose id was seen in their scope within the window.
    pub duplicate: u64,
    /// Of those, how many had another body.
    pub conflict: u64,
    /// Events too old for a session; all else took effect.
    pub late: u64,
    /// Records put into quarantine.
    pub quarantined: u64,
    /// Control records, those seen before among them.
    pub control: u64,
}

impl Ledger {
    /// Whether it adds up.
    pub const fn balances(&self) -> bool {
        self.consumed == self.applied + self.duplicate + self.late + self.quarantined + self.control
    }

    /// Adds another partition's.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            consumed: self.consumed + other.consumed,
            applied: self.applied + other.applied,
            duplicate: self.duplicate + other.duplicate,
            conflict: self.conflict + other.conflict,
            late: self.late + other.late,
            quarantined: self.quarantined + other.quarantined,
            control: self.control + other.control,
        }
    }
}

/// A partition's state in the store.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PartitionState {
    /// The next record to read; `None` before the first.
    pub(crate) next: Option<Offset>,
    /// The highest `received_at` seen, in milliseconds since 1970.
    pub(crate) now_ms: i64,
    /// The next number in the outbox.
    pub(crate) outbox: u64,
    /// Buckets of dedup ids that ended before this are gone, in milliseconds since 1970.
    pub(crate) swept_ms: i64,
    /// What became of all.
    pub(crate) ledger: Ledger,
}

impl PartitionState {
    pub(crate) const fn now(&self) -> Timestamp {
        Timestamp(self.now_ms)
    }
}
