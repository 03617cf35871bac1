//! A kill rule as it stands in a file and in a request.
//!
//! **Invariant:** a rule that passed [`KillRule::check`] names at least one property of events, so that no slip stops everything.

use schemas::id::EventId;
use schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Rules in force at once.
pub const MAX_KILL_RULES: usize = 100;
/// Longest value of a rule, bytes.
const MAX_VALUE_BYTES: usize = 256;
/// Longest name, bytes.
const MAX_NAME_BYTES: usize = 64;

/// Which events are stopped, and how. All properties that are given must agree.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillRule {
    /// Stands in verdicts and metrics: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// `drop`, `divert` or `sample`.
    pub action: KillAction,
    /// With `sample`: the share that still passes, above 0 and below 1. Which events do depends on their id alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<f64>,
    /// The name of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The event's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// The event's id: a UUID in any spelling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// `context.library`: its name, or name and version with a space between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
    /// From then on the rule does nothing. RFC 3339; absent = until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What is dropped leaves id, length and hash in quarantine, so that `rivulet fate` knows it.
    #[serde(default = "yes")]
    pub trace: bool,
}

/// What becomes of the events that a rule names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KillAction {
    /// They are not kept.
    Drop,
    /// They go to quarantine, from where they can be replayed.
    Divert,
    /// A share of them passes, the others are not kept.
    Sample,
}

impl KillAction {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Divert => "divert",
            Self::Sample => "sample",
        }
    }
}

const fn yes() -> bool {
    true
}

impl KillRule {
    /// Refuses a rule that cannot be meant.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |message: &str| {
            Err(ConfigError::KillRule { name: self.name.clone(), message: message.to_owned() })
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES || !self.name.chars().all(plain) {
            return wrong("a name has 1 to 64 letters, digits, `-`, `_` or `.`");
        }
        let values = [&self.source, &self.event_type, &self.event_id, &self.library];
        if values.iter().all(|value| value.is_none()) {
            return wrong("name at least one of `source`, `event_type`, `event_id`, `library`");
        }
        if values.into_iter().flatten().any(|text| text.is_empty() || text.len() > MAX_VALUE_BYTES) {
            return wrong("values have 1 to 256 bytes");
        }
        if self.event_id.as_ref().is_some_and(|id| EventId::parse(id).is_none()) {
            return wrong("`event_id` is a UUID, as verdicts name it");
        }
        match (self.action, self.keep) {
            (KillAction::Sample, Some(keep)) if keep > 0.0 && keep < 1.0 => Ok(()),
            (KillAction::Sample, _) => wrong("`sample` needs `keep`, a share above 0 and below 1"),
            (_, Some(_)) => wrong("`keep` belongs to `sample`"),
            (_, None) => Ok(()),
        }
    }
}

/// Refuses too many rules, and two of one name.
pub fn check_kill_rules(rules: &[KillRule]) -> Result<(), ConfigError> {
    let wrong = |name: &str, message: String| Err(ConfigError::KillRule { name: name.to_owned(), message });
    for (place, rule) in rules.iter().enumerate() {
        rule.check()?;
        if rules.iter().take(place).any(|earlier| earlier.name == rule.name) {
            return wrong(&rule.name, "is there twice".to_owned());
        }
        if place >= MAX_KILL_RULES {
            return wrong(&rule.name, format!("there are more than {MAX_KILL_RULES} rules"));
        }
    }
    Ok(())
}
