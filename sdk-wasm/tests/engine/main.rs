//! The engine from outside: schedules of misfortune, and recorded traces. The same traces are replayed by the builds for the
//! browser (`js/test/engine.test.mjs`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod promises;
mod simulation;
mod traces;
mod world;
