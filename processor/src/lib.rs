//! Log records to profiles and reactions: the shell around [`processor_core`].
//!
//! [`consume`] takes records from the log, [`store`] keeps state, [`control`] tells our own records from forged ones, [`serve`]
//! lets profiles be read, [`telemetry`] counts. [`Processor`] starts and stops all of it.
//!
//! **Invariant:** each event has its effect once, whatever crashes (within the dedup window); each output leaves at least once,
//! under an idempotency key.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

pub mod bench;
pub mod consume;
pub mod control;
mod processor;
mod serve;
pub mod store;
mod telemetry;

pub use consume::ledger::Ledger;
pub use processor::{
    Applied, DEMO_MODEL, DEMO_RULES, PartitionStatus, Processor, ProcessorConfig, StartError,
};
pub use processor_core::{Model, Ruleset};
