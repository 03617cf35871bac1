//! A decision as it stands on `rivulet.decisions` and reaches the page.

use serde::{Deserialize, Serialize};

use crate::id::{DecisionId, EventId, ProfileKey};
use crate::time::Timestamp;

/// What a rule decided for somebody. JSON field names are those of the record's value.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// v5(rule, version, subject, trigger).
    pub decision_id: DecisionId,
    /// The rule's name.
    pub rule: String,
    /// The rule's version: hash of its content.
    pub version: String,
    /// Whose profile fired it, as `user:…` or `anonymous:…`.
    pub subject: ProfileKey,
    /// The place on the page that it fills.
    pub slot: String,
    /// The event that fired it.
    pub trigger: EventId,
    /// The intent score at that moment, 0 to 1.
    pub score: f64,
    /// What to show, from the rule's file.
    pub payload: serde_json::Value,
    /// Facts that made it fire, name and value, for the explanation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
    /// When it was decided: the partition's own time, not a wall clock.
    pub decided_at: Timestamp,
    /// After this instant it must not be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// One fact behind a decision.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Fact {
    /// Such as `product_view.category=shoes within 30m`.
    pub name: String,
    /// Such as `3`.
    pub value: serde_json::Value,
    /// The events counted, newest last, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventId>,
}
