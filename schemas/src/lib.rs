//! The event contract: what an event is, what its sender is told, what stands on the log.
//!
//! Everything of ours may depend on this crate, and it depends on nothing of ours. It has no I/O, no clock, no threads and
//! no randomness: whoever calls it passes them in.
//!
//! Modules are declared in the order in which an event meets them: [`json`] finds the events in a body, [`id`], [`time`] and
//! [`event`] say what they are, [`registry`] judges them, [`verdict`] and [`frame`] tell the sender, [`receipt`],
//! [`header`], [`topic`] and [`partition`] put them on the log, [`decision`] is what comes back. `token` is how a
//! server vouches for a page.
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

extern crate alloc;

pub mod wire;

#[cfg(feature = "std")]
pub mod json;

#[cfg(feature = "std")]
pub mod id;
#[cfg(feature = "std")]
pub mod time;

#[cfg(feature = "std")]
pub mod event;

#[cfg(feature = "validator")]
mod builtin;
#[cfg(feature = "validator")]
mod reason;
#[cfg(feature = "validator")]
pub mod registry;

#[cfg(feature = "std")]
pub mod frame;
#[cfg(feature = "std")]
pub mod verdict;

#[cfg(feature = "std")]
pub mod header;
#[cfg(feature = "std")]
pub mod partition;
#[cfg(feature = "std")]
pub mod receipt;
#[cfg(feature = "std")]
pub mod topic;

#[cfg(feature = "std")]
pub mod decision;

#[cfg(feature = "token")]
pub mod token;

#[cfg(feature = "describe")]
mod describe;
