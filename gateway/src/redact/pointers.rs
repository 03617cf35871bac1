//! The values that a key redacts, by JSON pointer.
//!
//! **Invariant:** no pointer names what an event is identified or routed by: a copy of that stands in the record's key and headers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemas::registry::PiiAction;

use crate::config::RedactConfig;

/// Members that are copied elsewhere, or that the gateway reads by.
const ROUTING: &[&str] =
    &["event_id", "event_type", "user_id", "anonymous_id", "timestamp", "schema", "receipt"];
/// Stands for any member or item.
const ANY: &str = "*";
/// Most steps of a pointer.
const MAX_STEPS: usize = 32;

/// A tree of pointers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pointers {
    action: Option<PiiAction>,
    members: BTreeMap<String, Pointers>,
    any: Option<Box<Pointers>>,
}

impl Pointers {
    /// Reads a key's entries; says what is wrong with one.
    pub(crate) fn new(entries: &[RedactConfig]) -> Result<Self, Cow<'static, str>> {
        let mut root = Self::default();
        for RedactConfig { pointer, action } in entries {
            let steps = steps(pointer).map_err(Cow::Owned)?;
            let mut place = &mut root;
            for step in steps {
                place = if step == ANY {
                    place.any.get_or_insert_default()
                } else {
                    place.members.entry(step).or_default()
                };
            }
            place.action = place.action.max(Some(*action));
        }
        Ok(root)
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn hashes(&self) -> bool {
        let below = self.members.values().chain(self.any.as_deref());
        self.action == Some(PiiAction::Hash) || below.into_iter().any(Self::hashes)
    }

    pub(super) const fn action(&self) -> Option<PiiAction> {
        self.action
    }

    pub(super) fn step<'p>(&'p self, name: &str) -> impl Iterator<Item = &'p Self> + use<'p> {
        self.members.get(name).into_iter().chain(self.any.as_deref())
    }
}

fn steps(pointer: &str) -> Result<Vec<String>, String> {
    let wrong = |why: &str| Err(format!("`redact` pointer `{pointer}` {why}"));
    let Some(path) = pointer.strip_prefix('/') else {
        return wrong("must begin with `/`, such as `/metadata/email`");
    };
    let steps: Vec<String> = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    if steps.len() > MAX_STEPS {
        return wrong("has more than 32 steps");
    }
    match steps.first().map(String::as_str) {
        Some(first) if ROUTING.contains(&first) => wrong(
            "names what the event is identified or routed by, of which copies are kept; leave it out at the sender",
        ),
        Some(ANY) => wrong("must begin with a member's name"),
        _ => Ok(steps),
    }
}
