//! Rules: read from YAML, checked and compiled once, evaluated at each event.
//!
//! **Invariant:** a rule set that loads cannot fail later: evaluating an event that lacks a field, or has it in another kind, is
//! "does not fire".

pub mod compile;
pub mod evaluate;
pub mod parse;

pub use compile::{Rule, Ruleset};
pub use parse::RulesError;

/// What a window counts: an event type, by key or not. Rules that count alike share a window.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WindowId(String);

impl WindowId {
    /// The window of events of a type, by the value at a path if there is one.
    pub fn new(event_type: &str, by: Option<&crate::fields::Path>) -> Self {
        Self(by.map_or_else(|| event_type.to_owned(), |by| format!("{event_type} by {by}")))
    }

    /// Its name in the profile.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
