//! Promises to users, checked on the real binary from outside: one file a promise.
//!
//! **Invariant:** each test starts its own program on an empty folder; no test knows more than a user can see, but for `contract`,
//! which runs the suite that every log keeps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::large_futures,
    clippy::disallowed_methods,
    clippy::type_complexity,
    clippy::too_many_lines,
    reason = "tests fail by panicking, report to the terminal, and read best as one story with its table of inputs"
)]

mod accept;
mod cli;
mod compression;
mod configuration;
mod consent;
mod contract;
mod crash;
mod drain;
mod edge;
mod hostile;
mod identity;
mod kafka;
mod keys;
mod kill;
mod ledger;
mod numbers;
mod openapi;
mod operators;
mod overload;
mod privacy;
mod quarantine;
mod readiness;
mod reads;
mod receipts;
mod recovery;
mod schema_commands;
mod schemas;
mod sessions;
mod silence;
mod space;
mod spool_position;
mod text;
mod times;
mod tls;
mod websocket;
mod websocket_cuts;
mod windows;
