//! The pure step: rules, profile, input, now -> outputs.
//!
//! [`step::step`] is all that the processor, a replay, a test oracle and other hosts run. It has no I/O, no clock, no threads and
//! no randomness; arithmetic on scores is `+ - * /` and `libm`.
//!
//! **Invariant:** same program, same profile, same input, same `now` -> same bytes out, on any host.
//!
//! Modules are declared in the order in which an event meets them: [`codec`] is how values become bytes, [`number`] and [`fields`] read those of an event, [`enrich`] adds
//! what the request tells, [`input`] is what the step takes, [`profile`] and [`session`] what it keeps, [`score`] and
//! [`rules`] what it concludes, [`output`] what it gives back, [`step`] the step itself.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

pub(crate) mod codec;

pub mod fields;
pub mod number;

pub mod enrich;
pub mod input;

pub mod profile;
pub mod session;

pub mod rules;
pub mod score;

pub mod output;
pub mod step;

pub use input::{Control, EventInput, Input};
pub use output::{Change, Outcome, Outputs};
pub use profile::Profile;
pub use rules::Ruleset;
pub use score::Model;
pub use step::{Program, step};
