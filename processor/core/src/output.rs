//! What the step gives back.
//!
//! **Invariant:** everything that leaves a step is here, in the order in which it happened; the step has no other effect than
//! these and the profile it was given.

use schemas::decision::Decision;
use schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::input::Control;
use crate::session::Session;

/// A changed attribute. Values are JSON, absent when there was or is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Such as `counters.product_view`.
    pub name: String,
    /// JSON of the value before.
    pub old: Option<String>,
    /// JSON of the value after.
    pub new: Option<String>,
}

/// What became of an input.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It had its full effect.
    #[default]
    Applied,
    /// So old that its session cannot be told: all but the session took effect.
    Late,
}

/// A session that ended.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SessionClosed {
    /// The session as it stands.
    pub session: Session,
    /// It was closed before, and a late event changed it.
    pub corrected: bool,
    /// When it ended: its last event and the gap.
    pub closed_at: Timestamp,
}

/// Things worth counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Notes {
    /// Keys of counts or windows that made room for newer ones.
    pub evicted_keys: u64,
    /// Things that a profile let go of to stay within its bound as a whole.
    pub given_way: u64,
    /// Amounts with more digits than are summed exactly.
    pub unsummed: u64,
    /// Devices that may not join the user: vouched for by a public key alone, or one too many.
    pub refused_devices: u64,
    /// Aliases that are not vouched for, or name themselves.
    pub refused_aliases: u64,
    /// Traits too large to be kept.
    pub refused_traits: u64,
    /// Events at which rules were not evaluated because a history was on its way; they are when it has come.
    pub deferred_events: u64,
    /// Histories that did not come in time.
    pub histories_missed: u64,
    /// Rules that counted by a field that the event does not have.
    pub absent_keys: u64,
}

/// All of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outputs {
    /// What became of the input.
    pub outcome: Outcome,
    /// What changed in the profile.
    pub changes: Vec<Change>,
    /// What rules decided.
    pub decisions: Vec<Decision>,
    /// Sessions that ended.
    pub closed: Vec<SessionClosed>,
    /// Control records to write.
    pub controls: Vec<Control>,
    /// Things worth counting.
    pub notes: Notes,
}

impl Outputs {
    /// Notes a change, unless nothing changed.
    pub(crate) fn change(&mut self, name: impl Into<String>, old: Option<String>, new: Option<String>) {
        if old != new {
            self.changes.push(Change { name: name.into(), old, new });
        }
    }
}
