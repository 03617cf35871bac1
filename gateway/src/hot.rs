//! Profiles with far more events than others, found while they pass: a space-saving sketch a window, and what its key wants done.
//!
//! The sketch (Metwally et al., 2005) counts a bounded number of profiles; who is new takes the place of the one with fewest, with
//! its count as possible error. Whoever has more than 1/n of all events is among the n. A profile is counted by source, so that
//! nobody's events are held back for what another source sends in their name.
//!
//! **Invariant:** memory is bounded; what is done to a profile rests on the events that it is sure to have had, never on the error;
//! a profile's events keep their key, and so their partition, whatever is done.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use schemas::id::ProfileKey;
use schemas::json::{self, Limits};
use schemas::time::Timestamp;
use schemas::verdict::{Code, Reason};
use serde::Serialize;

use crate::authenticate::Key;
use crate::config::{self, GatewayConfig};
use crate::telemetry::{Gauge, Metrics};

/// Told of a coalesced event.
pub(crate) const WARN_COALESCED: &str = "profile.coalesced";
/// Profiles that are told of a window.
const TOLD_PROFILES: usize = 20;
/// What differs between events that say the same.
const OWN_MEMBERS: [&str; 2] = ["event_id", "timestamp"];

/// Counts profiles' events, window by window.
#[derive(Debug)]
pub(crate) struct HotProfiles {
    window_ms: i64,
    tracked: usize,
    hasher: RandomState,
    state: Mutex<State>,
    metrics: Metrics,
    hottest: Gauge,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the window since 1970.
    window: i64,
    sketch: Sketch,
    /// Events counted in the window.
    events: u64,
    last: Window,
}

/// Counts of the profiles with most events.
#[derive(Debug, Default)]
struct Sketch {
    places: HashMap<u64, usize>,
    slots: Vec<Slot>,
    /// No slot has fewer; and where one was found last.
    least: u64,
    at: usize,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    told: Told,
}

/// What is told of one profile.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "HotProfile")]
pub(crate) struct Told {
    /// The key's name.
    source: String,
    /// `user:…` or `anonymous:…`.
    profile: String,
    /// At most so many events.
    events: u64,
    /// So many fewer at most.
    error: u64,
}

/// What is told of a window.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "HotWindow")]
pub(crate) struct Window {
    /// All events, of whatever profile.
    events: u64,
    /// The hottest first.
    profiles: Vec<Told>,
}

impl HotProfiles {
    pub(crate) fn new(config: &GatewayConfig, metrics: &Metrics) -> Self {
        Self {
            window_ms: i64::from(config.hot_window_s) * 1_000,
            tracked: config.hot_profiles_tracked,
            hasher: RandomState::new(),
            state: Mutex::default(),
            metrics: metrics.clone(),
            hottest: metrics.load.hottest_profile.clone(),
        }
    }

    /// Counts the events of a batch, and says which of them are beyond what the key expects of one profile.
    pub(crate) fn note(
        &self,
        key: &Key,
        now: Timestamp,
        profiles: &mut dyn Iterator<Item = Option<&ProfileKey>>,
    ) -> Vec<bool> {
        let limit = key.policy.hot.map(|(rate, _)| u64::from(rate) * self.window_ms.unsigned_abs() / 1_000);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.pass_time(now.as_millis().div_euclid(self.window_ms), &self.hottest);
        let beyond = profiles.map(|profile| {
            let Some(profile) = profile else { return false };
            state.events += 1;
            let hash = self.hasher.hash_one((&key.source, profile));
            let sure = state
                .sketch
                .count(hash, self.tracked, || (key.source.as_str().to_owned(), profile.to_string()));
            limit.is_some_and(|limit| sure > limit)
        });
        let beyond: Vec<bool> = beyond.collect();
        drop(state);
        let hot = beyond.iter().filter(|beyond| **beyond).count();
        if let Some((_, action)) = key.policy.hot.filter(|_| hot > 0) {
            self.metrics.load.hot(key.source.as_str(), action).inc_by(hot as u64);
        }
        beyond
    }

    /// The last whole window and the present one.
    pub(crate) fn windows(&self, now: Timestamp) -> [Window; 2] {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.pass_time(now.as_millis().div_euclid(self.window_ms), &self.hottest);
        [state.last.clone(), state.told()]
    }

    /// Until the counts begin anew.
    pub(crate) fn window_left(&self, now: Timestamp) -> Duration {
        Duration::from_millis((self.window_ms - now.as_millis().rem_euclid(self.window_ms)).unsigned_abs())
    }

    /// Number of the window.
    pub(crate) const fn window(&self, now: Timestamp) -> i64 {
        now.as_millis().div_euclid(self.window_ms)
    }
}

/// Why an event of a hot profile is not taken now.
pub(crate) fn limited(policy: (u32, config::HotProfiles)) -> Reason {
    Reason::new(Code::ProfileHot).expecting(format!("at most {} events a second of one profile", policy.0))
}

/// What an event says beside its id and time, so that events that say the same can be told; nothing of what is no event.
pub(crate) fn saying(event: &[u8], depth: usize) -> Vec<u8> {
    let mut said = Vec::with_capacity(event.len());
    for member in json::object(event, Limits { max_depth: depth }).unwrap_or_default() {
        if !OWN_MEMBERS.contains(&member.name.as_ref()) {
            said.extend_from_slice(member.name.as_bytes());
            said.push(0);
            said.extend_from_slice(member.value);
            said.push(0);
        }
    }
    said
}

impl State {
    fn pass_time(&mut self, window: i64, hottest: &Gauge) {
        if window == self.window {
            return;
        }
        self.last = if window == self.window.saturating_add(1) { self.told() } else { Window::default() };
        let most = self.last.profiles.first().map_or(0, |told| told.events);
        hottest.set(i64::try_from(most).unwrap_or(i64::MAX));
        (self.window, self.events, self.sketch) = (window, 0, Sketch::default());
    }

    fn told(&self) -> Window {
        let mut profiles: Vec<Told> = self.sketch.slots.iter().map(|slot| slot.told.clone()).collect();
        profiles.sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.profile.cmp(&b.profile)));
        profiles.truncate(TOLD_PROFILES);
        Window { events: self.events, profiles }
    }
}

impl Sketch {
    /// Counts one event; says how many the profile has had for sure.
    fn count(&mut self, hash: u64, tracked: usize, name: impl FnOnce() -> (String, String)) -> u64 {
        if let Some(slot) = self.places.get(&hash).and_then(|place| self.slots.get_mut(*place)) {
            slot.told.events += 1;
            return slot.told.events - slot.told.error;
        }
        let (source, profile) = name();
        let full = self.slots.len() >= tracked;
        let error = if full { self.find_least() } else { 0 };
        let slot = Slot { hash, told: Told { source, profile, events: error + 1, error } };
        if full {
            if let Some(place) = self.slots.get_mut(self.at) {
                self.places.remove(&place.hash);
                *place = slot;
                self.places.insert(hash, self.at);
            }
        } else {
            self.places.insert(hash, self.slots.len());
            self.slots.push(slot);
        }
        1
    }

    /// Goes to a slot with the fewest events; says how many it has. Counts only rise, so the search goes on where it ended.
    fn find_least(&mut self) -> u64 {
        loop {
            let from = self.at;
            let order = (from..self.slots.len()).chain(0..from);
            let found = order
                .filter_map(|place| Some((place, self.slots.get(place)?.told.events)))
                .find(|(_, events)| *events <= self.least);
            if let Some((place, _)) = found {
                self.at = place;
                return self.least;
            }
            let least = self.slots.iter().map(|slot| slot.told.events).min();
            let Some(least) = least else { return 0 };
            self.least = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(sketch: &mut Sketch, profile: u64, tracked: usize) -> u64 {
        sketch.count(profile, tracked, || ("web".to_owned(), profile.to_string()))
    }

    #[test]
    fn events_that_differ_by_id_and_time_alone_say_the_same() {
        let [one, other] = ["1", "2"].map(|n| {
            saying(
                format!(r#"{{"event_id":"{n}","event_type":"a","timestamp":{n},"metadata":{{"x":1}}}}"#)
                    .as_bytes(),
                32,
            )
        });
        assert_eq!(one, other);
        assert_ne!(one, saying(br#"{"event_type":"a","metadata":{"x":2}}"#, 32));
    }

    proptest! {
        #[test]
        fn counts_bound_the_truth_from_both_sides_and_whoever_has_more_than_a_share_is_found(
            events in prop::collection::vec(0_u64..40, 1..400), tracked in 1_usize..12,
        ) {
            let mut sketch = Sketch::default();
            let mut truth: HashMap<u64, u64> = HashMap::new();
            for profile in &events {
                let sure = count(&mut sketch, *profile, tracked);
                let true_count = truth.entry(*profile).or_default();
                *true_count += 1;
                prop_assert!(sure <= *true_count);
            }
            prop_assert!(sketch.slots.len() <= tracked);
            let total: u64 = sketch.slots.iter().map(|slot| slot.told.events).sum();
            prop_assert_eq!(total, events.len() as u64);
            for slot in &sketch.slots {
                let true_count = truth[&slot.hash];
                prop_assert!(slot.told.events >= true_count && slot.told.events - slot.told.error <= true_count);
            }
            for (profile, count) in truth {
                let among = sketch.slots.iter().any(|slot| slot.hash == profile);
                prop_assert!(among || count * tracked as u64 <= events.len() as u64);
            }
        }
    }
}
