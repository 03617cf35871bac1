//! What the step takes: an event, a timer, or a control record.
//!
//! **Invariant:** an input holds everything the step may know; nothing is looked up elsewhere.

use schemas::event::LoggedEvent;
use schemas::id::ProfileKey;
use serde::{Deserialize, Serialize};

use crate::enrich::{Enrichment, campaign};
use crate::fields::Fields;
use crate::profile::Profile;

/// How often a record may be sent on from one merged profile to another. Then the last one keeps it: nothing is lost when
/// two merges crossed each other.
pub const MAX_HOPS: u8 = 8;

/// One input of the step.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// An event of this profile.
    Event(&'a EventInput<'a>),
    /// Time has come to something this profile waits for.
    Timer,
    /// A control record of this profile.
    Control(&'a Control),
}

/// An event, its fields and what enrichment found.
#[derive(Debug)]
pub struct EventInput<'a> {
    /// The event.
    pub event: &'a LoggedEvent<'a>,
    /// Its values.
    pub fields: Fields<'a>,
    /// What the request told.
    pub enrichment: Enrichment,
    /// How often it was sent on already.
    pub hops: u8,
}

impl<'a> EventInput<'a> {
    /// Scans the event's fields and reads its campaign. The user agent is the caller's to add, from its cache.
    pub fn new(event: &'a LoggedEvent<'a>) -> Self {
        let fields = Fields::of(event);
        let campaign = campaign::of(&fields);
        Self { event, fields, enrichment: Enrichment { user_agent: None, campaign }, hops: 0 }
    }
}

/// A control record: written by one profile's step, read back by another's.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Control {
    /// To `from`: hand over what you hold to `into`, and send on what comes later.
    Merge {
        /// The profile that ends.
        from: ProfileKey,
        /// The profile that goes on.
        into: ProfileKey,
    },
    /// To `into`: this is what `from` held.
    Absorb {
        /// Where it comes from.
        from: ProfileKey,
        /// Whose it is now.
        into: ProfileKey,
        /// What was held.
        #[serde(with = "crate::profile::encode::base64_text")]
        state: Box<Profile>,
        /// How often it was sent on already.
        hops: u8,
    },
    /// To `into`: an event that came to `from` after the merge.
    Forward {
        /// Where it came to.
        from: ProfileKey,
        /// Whose it is now.
        into: ProfileKey,
        /// The record's value.
        event: String,
        /// How often it was sent on already.
        hops: u8,
    },
    /// Nobody's: time goes on in a partition without events.
    Tick,
}

impl Control {
    /// The record's event type.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::Merge { .. } => "rivulet.merge",
            Self::Absorb { .. } | Self::Forward { .. } => "rivulet.absorb",
            Self::Tick => "rivulet.tick",
        }
    }

    /// Whose profile it acts on.
    pub const fn subject(&self) -> Option<&ProfileKey> {
        match self {
            Self::Merge { from, .. } => Some(from),
            Self::Absorb { into, .. } | Self::Forward { into, .. } => Some(into),
            Self::Tick => None,
        }
    }
}
