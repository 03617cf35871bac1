//! Figures instead of adjectives: every one with its command, per core, beside a reference of the same run.

pub(super) mod events;
pub(super) mod fate;
pub(super) mod footprint;
pub(super) mod ingest;
pub(super) mod load;
pub(super) mod overload;
pub(super) mod process;
pub(super) mod reference;
pub(super) mod socket;
pub(super) mod usage;
