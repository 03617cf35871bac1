//! Names of the topics, and places in them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A topic of the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Topic {
    /// Accepted events and control records, by profile key.
    Events,
    /// What was not accepted: raw bytes and reason, by event id.
    Quarantine,
    /// Profile changes, by profile key.
    Profiles,
    /// Decisions, by profile key.
    Decisions,
    /// Rule definitions by content hash.
    Rules,
    /// Actions that failed for good.
    DeadLetter,
}

impl Topic {
    /// Every topic; the position is the topic's number in the journal's format and never changes.
    pub const ALL: &'static [Self] =
        &[Self::Events, Self::Quarantine, Self::Profiles, Self::Decisions, Self::Rules, Self::DeadLetter];

    /// The name on the broker.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "rivulet.events",
            Self::Quarantine => "rivulet.quarantine",
            Self::Profiles => "rivulet.profiles",
            Self::Decisions => "rivulet.decisions",
            Self::Rules => "rivulet.rules",
            Self::DeadLetter => "rivulet.dead-letter",
        }
    }

    /// The topic of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|topic| topic.name() == name)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A partition of a topic, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

/// A record's place in its partition, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The place after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One partition of one topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// Its partition.
    pub partition: PartitionId,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition.0)
    }
}
