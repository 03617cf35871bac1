//! Which event a record names: itself, the one that was refused, the one that triggered a decision.
//!
//! **Invariant:** one answer for every reader and for the index; a record that names no event, or in no readable way, names none.

use schemas::header::CE_ID;
use schemas::id::EventId;
use schemas::topic::Topic;
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::log::Record;

/// The part of a decision that says what triggered it.
#[derive(Deserialize)]
struct Decision<'a> {
    #[serde(borrow)]
    trigger: std::borrow::Cow<'a, str>,
}

/// The event that a record of this topic names. `ce_id` is the value of the header of that name.
pub(crate) fn event_of(topic: Topic, key: &[u8], ce_id: Option<&[u8]>, value: &[u8]) -> Option<EventId> {
    match topic {
        Topic::Events => parse(ce_id?),
        Topic::Quarantine => parse(key),
        Topic::Decisions => {
            let decision: Decision<'_> = serde_json::from_slice(value).ok()?;
            EventId::parse(&decision.trigger)
        }
        Topic::Profiles | Topic::Rules | Topic::DeadLetter => None,
    }
}

fn parse(bytes: &[u8]) -> Option<EventId> {
    EventId::parse(std::str::from_utf8(bytes).ok()?)
}

impl Record {
    /// The event that this record names: an accepted event itself, the one in quarantine, or the one that triggered a decision.
    pub fn event_id(&self) -> Option<EventId> {
        event_of(self.at.topic, &self.key, self.header(CE_ID), &self.value)
    }
}

/// The number under which an index files an event. Salted, so that nobody can choose ids that fall on one number.
pub(crate) fn file_under(event_id: EventId, salt: u32) -> u64 {
    xxh3_64_with_seed(event_id.as_bytes(), u64::from(salt))
}
