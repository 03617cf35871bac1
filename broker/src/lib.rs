//! The log: append a batch and be told how safe it is, read a partition from an offset, know where it ends.
//!
//! [`log`] is the contract. [`embedded`] keeps it in a journal on this machine, `kafka` on Apache Kafka, and `spool` puts
//! the journal in front of Kafka, so that a broker that is down changes no answer. [`clock`] is the only place that asks for
//! the time of day.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

pub mod clock;
pub mod counters;
pub mod headers;
pub mod log;
mod naming;

pub mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "kafka")]
pub mod spool;

#[cfg(any(test, feature = "contract"))]
pub mod contract;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
