//! What is kept about somebody.
//!
//! **Invariant:** bounded: every map has a cap, and what made room is counted. While no cap is reached, the state after a set
//! of events does not depend on the order in which they came (session ids, which name the first event seen, apart).

pub mod bound;
pub mod counters;
pub mod encode;
pub mod merge;
pub mod traits;
pub mod view;
pub mod windows;

use std::collections::BTreeMap;

use schemas::decision::Decision;
use schemas::event::LoggedEvent;
use schemas::id::{AnonymousId, EventId, ProfileKey};
use schemas::json::Kind;
use schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::{Reader, Sink, Wire, wire};
use crate::enrich::{Campaign, UserAgent};
use crate::fields::{self, Fields};
use crate::number::Decimal;
use crate::output::Outputs;
use crate::session::Sessions;

pub use counters::Counts;
pub use traits::Traits;
pub use windows::Windows;

/// Devices kept a user; one more may not join.
pub const MAX_DEVICES: usize = 32;
/// Decisions kept a profile, the newest.
pub const MAX_DECISIONS: usize = 8;
/// Profiles whose history is waited for at once.
pub const MAX_AWAITED: usize = 32;
/// Events remembered that wait for a history, the newest.
const MAX_DEFERRED: usize = 32;
/// Event types counted a profile.
pub const MAX_EVENT_TYPES: usize = 128;
/// Categories counted a profile.
pub const MAX_CATEGORIES: usize = 64;

/// A decision as the profile remembers it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Decided {
    /// Its id.
    pub decision_id: schemas::id::DecisionId,
    /// The rule.
    pub rule: String,
    /// The slot.
    pub slot: String,
    /// The event that fired it.
    pub trigger: EventId,
    /// When.
    pub decided_at: Timestamp,
}

wire!(Decided { decision_id, rule, slot, trigger, decided_at });

impl From<&Decision> for Decided {
    fn from(decision: &Decision) -> Self {
        Self {
            decision_id: decision.decision_id,
            rule: decision.rule.clone(),
            slot: decision.slot.clone(),
            trigger: decision.trigger,
            decided_at: decision.decided_at,
        }
    }
}

/// A value with the event that gave it: the latest (or, for a first value, the earliest) by (time, event id) stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dated<T> {
    /// When the event happened.
    pub at: Timestamp,
    /// The event.
    pub event: EventId,
    /// The value.
    pub value: T,
}

impl<T: Wire> Wire for Dated<T> {
    fn put(&self, out: &mut impl Sink) {
        let Self { at, event, value } = self;
        at.put(out);
        event.put(out);
        value.put(out);
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self { at: Wire::take(from)?, event: Wire::take(from)?, value: Wire::take(from)? })
    }
}

impl<T> Dated<T> {
    const fn order(&self) -> (Timestamp, EventId) {
        (self.at, self.event)
    }
}

/// The newest event of a type, with the values that rules need to be evaluated at it again, by path.
pub type Moment = Dated<BTreeMap<String, String>>;

/// Puts `new` in place if it is later; true if it did.
pub(crate) fn keep_latest<T>(place: &mut Option<Dated<T>>, new: Dated<T>) -> bool {
    let wins = place.as_ref().is_none_or(|old| new.order() > old.order());
    if wins {
        *place = Some(new);
    }
    wins
}

/// Puts `new` under a name if it is later than what is there.
pub(crate) fn keep_latest_in<T>(map: &mut BTreeMap<String, Dated<T>>, name: &str, new: Dated<T>) {
    match map.get_mut(name) {
        Some(old) if old.order() >= new.order() => {}
        Some(old) => *old = new,
        None => drop(map.insert(name.to_owned(), new)),
    }
}

/// Puts `new` in place if it is earlier; true if it did.
pub(crate) fn keep_earliest<T>(place: &mut Option<Dated<T>>, new: Dated<T>) -> bool {
    let wins = place.as_ref().is_none_or(|old| new.order() < old.order());
    if wins {
        *place = Some(new);
    }
    wins
}

/// A profile.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// Whose.
    pub key: ProfileKey,
    /// Handed over to this one by a merge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<ProfileKey>,
    /// What `identify` events said.
    #[serde(default)]
    pub traits: Traits,
    /// The last values that the rules file asks to keep.
    #[serde(default)]
    pub last_values: Traits,
    /// How many events of each type.
    #[serde(default)]
    pub counters: Counts,
    /// How many events with each `metadata.category`.
    #[serde(default)]
    pub categories: Counts,
    /// Sums by name, exact.
    #[serde(default)]
    pub sums: BTreeMap<String, Decimal>,
    /// The earliest event's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Timestamp>,
    /// The latest event's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// The devices that joined, with the time of the event that joined each.
    #[serde(default)]
    pub devices: BTreeMap<String, Timestamp>,
    /// Newest event times for the rules.
    #[serde(default)]
    pub windows: Windows,
    /// The newest event of each type that rules are evaluated at without counting it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub moments: BTreeMap<String, Moment>,
    /// Profiles that were asked for their history, and when. Nothing is decided until it is there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub awaited: BTreeMap<ProfileKey, Timestamp>,
    /// The last events at which rules were not evaluated because of that, as they came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deferred: Vec<EventId>,
    /// When each rule last fired, by the time it was evaluated at.
    #[serde(default)]
    pub cooldowns: BTreeMap<String, Timestamp>,
    /// Sessions.
    #[serde(default)]
    pub sessions: Sessions,
    /// The last decisions, oldest first.
    #[serde(default)]
    pub decisions: Vec<Decided>,
    /// The latest browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<Dated<UserAgent>>,
    /// The campaign of the earliest event that had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign_first: Option<Dated<Campaign>>,
    /// The campaign of the latest event that had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign_last: Option<Dated<Campaign>>,
    /// The intent score after the last input.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "bits")]
    pub score: Option<f64>,
}

// A new field goes to the end, with a new version of the format: see `encode`.
wire!(Profile {
    key,
    redirect,
    traits,
    last_values,
    counters,
    categories,
    sums,
    first_seen,
    last_seen,
    devices,
    windows,
    moments,
    awaited,
    deferred,
    cooldowns,
    sessions,
    decisions,
    user_agent,
    campaign_first,
    campaign_last,
    score,
});

impl Profile {
    /// Nothing known yet.
    pub fn new(key: ProfileKey) -> Self {
        Self {
            key,
            redirect: None,
            traits: Traits::default(),
            last_values: Traits::default(),
            counters: Counts::default(),
            categories: Counts::default(),
            sums: BTreeMap::new(),
            first_seen: None,
            last_seen: None,
            devices: BTreeMap::new(),
            windows: Windows::default(),
            moments: BTreeMap::new(),
            awaited: BTreeMap::new(),
            deferred: Vec::new(),
            cooldowns: BTreeMap::new(),
            sessions: Sessions::default(),
            decisions: Vec::new(),
            user_agent: None,
            campaign_first: None,
            campaign_last: None,
            score: None,
        }
    }

    /// Adds the event's facts: counts, sums, times. Windows, sessions and scores are the step's.
    pub(crate) fn observe(&mut self, event: &LoggedEvent<'_>, fields: &Fields<'_>, out: &mut Outputs) {
        let at = event.receipt.occurred_at;
        let event_type = fields::bounded(event.event_type.as_str().to_owned());
        count(&mut self.counters, "counters", &event_type, at, MAX_EVENT_TYPES, out);
        if let Some(category) = fields.meta("category").and_then(fields::key) {
            count(&mut self.categories, "categories", &category, at, MAX_CATEGORIES, out);
        }
        if event.event_type.as_str() == "purchase" {
            self.add_revenue(fields, out);
        }
        let first = self.first_seen.map_or(at, |old| old.min(at));
        let last = self.last_seen.map_or(at, |old| old.max(at));
        for (name, old, new) in [("first_seen", self.first_seen, first), ("last_seen", self.last_seen, last)]
        {
            if old != Some(new) {
                out.change(name, json_time(old), json_time(Some(new)));
            }
        }
        (self.first_seen, self.last_seen) = (Some(first), Some(last));
    }

    /// Sets traits from `identify`: the members of `metadata.traits` if that is an object, else those of `metadata`.
    pub(crate) fn set_traits(&mut self, event: &LoggedEvent<'_>, fields: &Fields<'_>, out: &mut Outputs) {
        if event.event_type.as_str() != "identify" {
            return;
        }
        let inner = fields.meta("traits").filter(|member| member.kind == Kind::Object).map(fields::children);
        for member in inner.as_deref().unwrap_or_else(|| fields.metadata()) {
            self.traits.set("traits", &member.name, member, &event.receipt, out);
        }
    }

    /// The device joined this user already.
    pub fn has_device(&self, device: &AnonymousId) -> bool {
        self.devices.contains_key(device.as_str())
    }

    /// Revenue of a purchase: `metadata.revenue`, else `total`, else `value`, else `price` times `quantity` (1 if absent).
    /// Currencies are not converted: a shop with several sends one of them.
    fn add_revenue(&mut self, fields: &Fields<'_>, out: &mut Outputs) {
        let named = ["revenue", "total", "value"].into_iter().find(|name| fields.meta(name).is_some());
        let amount = match named {
            Some(name) => fields.decimal(name),
            None if fields.meta("price").is_some() => {
                let one = Decimal::parse("1");
                let quantity =
                    if fields.meta("quantity").is_some() { fields.decimal("quantity") } else { one };
                fields.decimal("price").zip(quantity).and_then(|(price, quantity)| price.times(quantity))
            }
            None => return,
        };
        let Some(amount) = amount else {
            out.notes.unsummed += 1;
            return;
        };
        let old = self.sums.get("revenue").copied();
        let new = old.unwrap_or_default().plus(amount);
        self.sums.insert("revenue".to_owned(), new);
        out.change("sums.revenue", old.map(|sum| sum.to_string()), Some(new.to_string()));
    }

    /// Rules are to be evaluated at this event when the history is there.
    pub(crate) fn defer(&mut self, events: impl IntoIterator<Item = EventId>) {
        self.deferred.extend(events);
        self.deferred.drain(..self.deferred.len().saturating_sub(MAX_DEFERRED));
    }

    pub(crate) fn remember(&mut self, decision: Decided) {
        self.decisions.push(decision);
        if self.decisions.len() > MAX_DECISIONS {
            self.decisions.remove(0);
        }
    }
}

/// A double by its bits: the JSON reader may be off by one in the last place.
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(score: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        score.map(f64::to_bits).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(f64::from_bits))
    }
}

fn count(counts: &mut Counts, group: &str, key: &str, at: Timestamp, cap: usize, out: &mut Outputs) {
    let old = counts.get(key);
    let evicted = counts.add(key, 1, at, cap);
    if let Some((gone, count)) = evicted {
        out.notes.evicted_keys += 1;
        out.change(format!("{group}.{gone}"), Some(count.to_string()), None);
    }
    let new = counts.get(key);
    out.change(format!("{group}.{key}"), old.map(|n| n.to_string()), new.map(|n| n.to_string()));
}

/// A time as JSON.
pub(crate) fn json_time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| format!("\"{at}\""))
}
