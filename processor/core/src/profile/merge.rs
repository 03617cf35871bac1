//! Two profiles become one.
//!
//! **Invariant:** commutative and, while no cap is reached, associative: counters and sums add, times are the first and last,
//! values are the latest by (time, event id), windows keep the newest of both, sessions that touch become one.

use schemas::time::Timestamp;

use super::{
    MAX_AWAITED, MAX_CATEGORIES, MAX_DECISIONS, MAX_DEVICES, MAX_EVENT_TYPES, Profile, keep_earliest,
    keep_latest, keep_latest_in,
};
use crate::output::Notes;
use crate::session::Settings;

impl Profile {
    /// Takes another profile's state in; this one's key and redirect stay.
    pub fn absorb(&mut self, settings: Settings, other: &Self, notes: &mut Notes) {
        self.traits.merge(&other.traits);
        self.last_values.merge(&other.last_values);
        let before = self.counters.evicted()
            + self.categories.evicted()
            + other.counters.evicted()
            + other.categories.evicted();
        self.counters.merge(&other.counters, MAX_EVENT_TYPES);
        self.categories.merge(&other.categories, MAX_CATEGORIES);
        notes.evicted_keys += self.counters.evicted() + self.categories.evicted() - before;
        for (name, sum) in &other.sums {
            let mine = self.sums.entry(name.clone()).or_default();
            *mine = mine.plus(*sum);
        }
        self.first_seen = [self.first_seen, other.first_seen].into_iter().flatten().min();
        self.last_seen = self.last_seen.max(other.last_seen);
        for (device, at) in &other.devices {
            if self.devices.len() < MAX_DEVICES || self.devices.contains_key(device) {
                self.devices.entry(device.clone()).and_modify(|mine| *mine = (*at).min(*mine)).or_insert(*at);
            }
        }
        notes.evicted_keys += self.windows.merge(&other.windows);
        for (event_type, moment) in &other.moments {
            keep_latest_in(&mut self.moments, event_type, moment.clone());
        }
        for (from, since) in other.awaited.iter().filter(|(from, _)| **from != self.key) {
            if self.awaited.len() < MAX_AWAITED || self.awaited.contains_key(from) {
                let first = |mine: &mut Timestamp| *mine = (*since).min(*mine);
                self.awaited.entry(from.clone()).and_modify(first).or_insert(*since);
            }
        }
        self.defer(other.deferred.iter().copied());
        for (rule, at) in &other.cooldowns {
            self.cooldowns.entry(rule.clone()).and_modify(|mine| *mine = (*at).max(*mine)).or_insert(*at);
        }
        self.sessions.merge(settings, &other.sessions);
        self.decisions.extend(other.decisions.iter().cloned());
        self.decisions.sort_by_key(|decision| (decision.decided_at, decision.decision_id));
        self.decisions.dedup_by_key(|decision| decision.decision_id);
        self.decisions.drain(..self.decisions.len().saturating_sub(MAX_DECISIONS));
        if let Some(user_agent) = &other.user_agent {
            keep_latest(&mut self.user_agent, user_agent.clone());
        }
        if let Some(campaign) = &other.campaign_first {
            keep_earliest(&mut self.campaign_first, campaign.clone());
        }
        if let Some(campaign) = &other.campaign_last {
            keep_latest(&mut self.campaign_last, campaign.clone());
        }
    }
}
