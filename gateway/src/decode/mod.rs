//! From the body's bytes to the events in it.
//!
//! **Invariant:** nothing here looks inside an event: what is wrong with one event costs only that event.

pub(crate) mod compression;
pub(crate) mod native;
