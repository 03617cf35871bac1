//! Harness of the black-box tests: starts the real binary and a real broker, drives them as a client would, breaks them, and
//! says from the log alone what the right answer is.
//!
//! **Invariant:** nothing here links to the program under test; whatever a test knows of it came through HTTP, WebSocket, the
//! command line or the files on disk. Only [`faults`] waits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "a harness fails by panicking, reports to the terminal, measures the machine and takes its effort from the environment"
)]

pub mod client;
pub mod corpus;
pub mod cut;
pub mod damage;
pub mod events;
pub mod faults;
pub mod hole;
pub mod kafka;
mod kafka_node;
pub mod leash;
pub mod log;
pub mod oracle;
pub mod raw;
pub mod rivulet;
pub mod sender;
pub mod socket;
pub mod torture;
pub mod volume;
