//! What load does, as metrics: what is shed by lane, and hot profiles.
//!
//! **Invariant:** no label and no value names a profile.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Counter, Gauge};
use crate::config::{HotProfiles, Lane};

/// Events told to come again later because of load, by lane (suffix `_total`).
pub const SHED_EVENTS: &str = "rivulet_gateway_shed_events";
/// Requests refused unread because of load, by lane (suffix `_total`).
pub const SHED_REQUESTS: &str = "rivulet_gateway_shed_requests";
/// The worst of bytes in work, events that wait for the log, and lateness, percent of its limit.
pub const LOAD_PERCENT: &str = "rivulet_gateway_load_percent";
/// Events of the profile that had most in the last whole window.
pub const HOTTEST_PROFILE_EVENTS: &str = "rivulet_gateway_hottest_profile_events";
/// Events of hot profiles, by source and what was done (suffix `_total`).
pub const HOT_PROFILE_EVENTS: &str = "rivulet_gateway_hot_profile_events";
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct LaneLabel {
    lane: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct HotLabel {
    source: String,
    action: &'static str,
}

/// Handles of the metrics of load; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadMetrics {
    shed_events: Family<LaneLabel, Counter>,
    shed_requests: Family<LaneLabel, Counter>,
    hot_events: Family<HotLabel, Counter>,
    pub(crate) percent: Gauge,
    pub(crate) hottest_profile: Gauge,
}

impl LoadMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register(SHED_EVENTS, "Events shed because of load", new.shed_events.clone());
        registry.register(
            SHED_REQUESTS,
            "Requests refused unread because of load",
            new.shed_requests.clone(),
        );
        registry.register(LOAD_PERCENT, "Load in percent of what is too much", new.percent.clone());
        registry.register(
            HOTTEST_PROFILE_EVENTS,
            "Events of the hottest profile",
            new.hottest_profile.clone(),
        );
        registry.register(HOT_PROFILE_EVENTS, "Events of hot profiles", new.hot_events.clone());
        new
    }

    pub(crate) fn shed_events(&self, lane: Lane) -> Counter {
        self.shed_events.get_or_create(&LaneLabel { lane: lane.as_str() }).clone()
    }

    pub(crate) fn shed_requests(&self, lane: Lane) -> Counter {
        self.shed_requests.get_or_create(&LaneLabel { lane: lane.as_str() }).clone()
    }

    pub(crate) fn hot(&self, source: &str, action: HotProfiles) -> Counter {
        let label = HotLabel { source: source.to_owned(), action: action.as_str() };
        self.hot_events.get_or_create(&label).clone()
    }
}
