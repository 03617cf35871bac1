//! Last values by name, as the JSON that was sent.
//!
//! **Invariant:** the value of the latest event by (time, event id) stays, whatever the order of arrival; digits stay as sent.

use std::collections::BTreeMap;

use schemas::json::{Kind, Member};
use schemas::receipt::Receipt;
use serde::{Deserialize, Serialize};

use super::{Dated, keep_latest_in};
use crate::codec::wire;
use crate::fields::{self, cut};
use crate::output::Outputs;

/// Names kept; the one written longest ago makes room.
pub const MAX_TRAITS: usize = 64;
/// Longest JSON of a value, in bytes; longer ones are not kept.
pub const MAX_TRAIT_BYTES: usize = 1024;
/// Longest name, in bytes; longer ones are cut.
pub(super) const MAX_NAME_BYTES: usize = 128;

/// Names and their last values.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Traits(BTreeMap<String, Dated<String>>);

wire!(Traits[0]);

impl Traits {
    /// Names and JSON, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        // A `null` stays as the latest value, so that an older one does not come back, but there is nothing to show.
        self.0
            .iter()
            .filter(|(_, dated)| dated.value != "null")
            .map(|(name, dated)| (name.as_str(), dated.value.as_str()))
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The JSON of a value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|dated| dated.value.as_str()).filter(|json| *json != "null")
    }

    /// Sets a value from an event, unless a later event set it already.
    pub(crate) fn set(
        &mut self,
        group: &str,
        name: &str,
        member: &Member<'_>,
        receipt: &Receipt,
        out: &mut Outputs,
    ) {
        let name = cut(name, MAX_NAME_BYTES);
        let json = fields::raw(member).filter(|json| json.len() <= MAX_TRAIT_BYTES);
        let Some(json) = json else {
            out.notes.refused_traits += 1;
            return;
        };
        let json = if member.kind == Kind::Null { "null" } else { json };
        let new = Dated { at: receipt.occurred_at, event: receipt.event_id, value: json.to_owned() };
        let old = self.get(name).map(str::to_owned);
        keep_latest_in(&mut self.0, name, new);
        out.change(format!("{group}.{name}"), old, self.get(name).map(str::to_owned));
        self.shrink(|gone, old| out.change(format!("{group}.{gone}"), old, None));
    }

    /// Takes another profile's values in.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, dated) in &other.0 {
            keep_latest_in(&mut self.0, name, dated.clone());
        }
        self.shrink(|_, _| ());
    }

    fn shrink(&mut self, mut gone: impl FnMut(String, Option<String>)) {
        while self.0.len() > MAX_TRAITS {
            let Some((name, old)) = self.forget_oldest() else { return };
            gone(name, old);
        }
    }

    /// Forgets the value written longest ago; gives its name, and its JSON if there was something to show.
    pub(crate) fn forget_oldest(&mut self) -> Option<(String, Option<String>)> {
        let oldest = self.0.iter().min_by_key(|(name, dated)| (dated.order(), name.as_str()));
        let name = oldest.map(|(name, _)| name.clone())?;
        let (name, old) = self.0.remove_entry(&name)?;
        Some((name, Some(old.value).filter(|json| json != "null")))
    }
}
