//! From the body's bytes to the events in it.
//!
//! **Invariant:** what is wrong with one event costs only that event: nothing here judges one, and of ours nothing looks inside.

pub(crate) mod compression;
pub(crate) mod inflater;
pub(crate) mod native;
pub(crate) mod vendor;
