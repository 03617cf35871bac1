//! The gateway's metrics.
//!
//! **Invariant:** labels come from configuration and from closed sets, never from what a client sends, so their number is bounded.

mod load;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use broker::log::{Health, SharedLog};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric as _, LabelValueEncoder,
};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use schemas::registry::Mode;

use crate::config::KillRule;
use crate::consent::Objected;

pub(crate) use self::load::LoadMetrics;
pub use self::load::{HOT_PROFILE_EVENTS, HOTTEST_PROFILE_EVENTS, LOAD_PERCENT, SHED_EVENTS, SHED_REQUESTS};

/// A count that only grows.
pub type Counter = prometheus_client::metrics::counter::Counter;
/// A level that rises and falls.
pub type Gauge = prometheus_client::metrics::gauge::Gauge;

/// Events that came in, by source (suffix `_total`).
pub const EVENTS_RECEIVED: &str = "rivulet_gateway_events_received";
/// Events answered, by source and outcome (suffix `_total`).
pub const EVENTS: &str = "rivulet_gateway_events";
/// Events not yet answered, by source.
pub const EVENTS_IN_FLIGHT: &str = "rivulet_gateway_events_in_flight";
/// Requests to `/v1/events` answered, by status (suffix `_total`).
pub const REQUESTS: &str = "rivulet_gateway_requests";
/// Bytes of bodies and frames, as sent (suffix `_total`).
pub const RECEIVED_BYTES: &str = "rivulet_gateway_received_bytes";
/// Time from handing a batch to the log until its answer.
pub const APPEND_SECONDS: &str = "rivulet_gateway_append_seconds";
/// Sockets of `/v1/stream` that are open.
pub const SOCKETS: &str = "rivulet_gateway_sockets";
/// Decisions written to sockets (suffix `_total`).
pub const DECISIONS_PUSHED: &str = "rivulet_gateway_decisions_pushed";
/// Decisions given up because their page did not take them (suffix `_total`).
pub const DECISIONS_DROPPED: &str = "rivulet_gateway_decisions_dropped";
/// Events whose handling panicked; each is a fault of ours (suffix `_total`).
pub const PANICS: &str = "rivulet_gateway_panics";
/// Attempts to take over a changed keys file, by result: `taken` or `broken` (suffix `_total`). `broken` rising: mend the file.
pub const KEYS_RELOADS: &str = "rivulet_gateway_keys_reloads";
/// 1 while the keys in force are older than the keys file, which is broken.
pub const KEYS_STALE: &str = "rivulet_gateway_keys_stale";
/// Events that kill rules have stopped, by rule and action (suffix `_total`).
pub const STOPPED_EVENTS: &str = "rivulet_gateway_killed_events";
/// 1 while the kill rules in force are older than their file, which is broken.
pub const KILL_STALE: &str = "rivulet_gateway_kill_rules_stale";
/// Events whose person objected to being measured and whose key honours that, by source, cause and what was done (suffix `_total`).
pub const OBJECTED_EVENTS: &str = "rivulet_gateway_objected_events";
/// Verdicts that followers of `/v1/tail` lost because they read too slowly (suffix `_total`).
pub const TAIL_LOST: &str = "rivulet_gateway_tail_lost_entries";
/// Events by how they fitted their schema (suffix `_total`).
pub const SCHEMA_EVENTS: &str = "rivulet_gateway_schema_events";
/// Times the schemas were read again, by whether they could be used (suffix `_total`).
pub const SCHEMA_RELOADS: &str = "rivulet_gateway_schema_reloads";
/// Whether the folder of schemas is broken and older ones are in use: 1 or 0.
pub const SCHEMAS_STALE: &str = "rivulet_gateway_schemas_stale";
/// Whether the log takes records: 1 or 0.
pub const LOG_ADMITTING: &str = "rivulet_gateway_log_admitting";
/// Records that wait for the broker.
pub const SPOOLED_RECORDS: &str = "rivulet_gateway_spooled_records";
/// Bytes that wait for the broker.
pub const SPOOLED_BYTES: &str = "rivulet_gateway_spooled_bytes";
/// Records accepted since the start that were too large for their topic; each is in quarantine (suffix `_total`).
pub const UNPUBLISHABLE_RECORDS: &str = "rivulet_gateway_unpublishable_records";

/// Upper bounds of the histogram's buckets, seconds.
const BUCKETS: [f64; 12] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];

/// How an event ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// On the log.
    Delivered,
    /// Was on the log already.
    Duplicate,
    /// Kept aside.
    Quarantined,
    /// Refused.
    Rejected,
    /// Not taken, told so.
    Discarded,
}

impl Outcome {
    /// Every outcome; the position is the discriminant.
    pub const ALL: [Self; 5] =
        [Self::Delivered, Self::Duplicate, Self::Quarantined, Self::Rejected, Self::Discarded];
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let word = match self {
            Self::Delivered => "delivered",
            Self::Duplicate => "duplicate",
            Self::Quarantined => "quarantined",
            Self::Rejected => "rejected",
            Self::Discarded => "discarded",
        };
        word.encode(encoder)
    }
}

/// How an event fitted its schema.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fit {
    /// It fits.
    Fits,
    /// It does not.
    Unfit,
    /// It was not among the sample.
    Unjudged,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct FitLabel {
    schema: String,
    mode: &'static str,
    fit: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ReloadLabel {
    result: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct SourceLabel {
    source: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OutcomeLabel {
    source: String,
    outcome: Outcome,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RuleLabel {
    rule: String,
    action: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ObjectionLabel {
    source: String,
    cause: &'static str,
    action: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// Another part's metrics as text, asked at each scrape.
pub type Joined = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

/// Handles of all metrics; clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    joined: Arc<Mutex<Vec<Joined>>>,
    received: Family<SourceLabel, Counter>,
    outcomes: Family<OutcomeLabel, Counter>,
    in_flight: Family<SourceLabel, Gauge>,
    requests: Family<StatusLabel, Counter>,
    keys_reloads: Family<ResultLabel, Counter>,
    keys_stale: Gauge,
    schema_events: Family<FitLabel, Counter>,
    schema_reloads: Family<ReloadLabel, Counter>,
    schemas_stale: Gauge,
    stopped: Family<RuleLabel, Counter>,
    kill_stale: Gauge,
    objected: Family<ObjectionLabel, Counter>,
    pub(crate) load: LoadMetrics,
    pub(crate) received_bytes: Counter,
    pub(crate) append_seconds: Histogram,
    pub(crate) sockets: Gauge,
    pub(crate) decisions_pushed: Counter,
    pub(crate) decisions_dropped: Counter,
    pub(crate) panics: Counter,
    pub(crate) tail_lost: Counter,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn new(log: &SharedLog) -> Self {
        let mut registry = Registry::default();
        let received = Family::<SourceLabel, Counter>::default();
        let outcomes = Family::<OutcomeLabel, Counter>::default();
        let in_flight = Family::<SourceLabel, Gauge>::default();
        let requests = Family::<StatusLabel, Counter>::default();
        let keys_reloads = Family::<ResultLabel, Counter>::default();
        let keys_stale = Gauge::default();
        let (schema_events, schema_reloads) = (Family::default(), Family::<ReloadLabel, Counter>::default());
        for result in ["ok", "failed"] {
            drop(schema_reloads.get_or_create(&ReloadLabel { result }));
        }
        let schemas_stale = Gauge::default();
        let stopped = Family::<RuleLabel, Counter>::default();
        let kill_stale = Gauge::default();
        let objected = Family::<ObjectionLabel, Counter>::default();
        let load = LoadMetrics::register(&mut registry);
        let received_bytes = Counter::default();
        let append_seconds = Histogram::new(BUCKETS);
        let sockets = Gauge::default();
        let decisions_pushed = Counter::default();
        let decisions_dropped = Counter::default();
        let panics = Counter::default();
        let tail_lost = Counter::default();
        registry.register(EVENTS_RECEIVED, "Events that came in", received.clone());
        registry.register(EVENTS, "Events answered, by outcome", outcomes.clone());
        registry.register(EVENTS_IN_FLIGHT, "Events not yet answered", in_flight.clone());
        registry.register(REQUESTS, "Requests to /v1/events answered, by status", requests.clone());
        registry.register(RECEIVED_BYTES, "Bytes of bodies and frames, as sent", received_bytes.clone());
        registry.register(APPEND_SECONDS, "Time until the log answers a batch", append_seconds.clone());
        registry.register(SOCKETS, "Open sockets of /v1/stream", sockets.clone());
        registry.register(DECISIONS_PUSHED, "Decisions written to sockets", decisions_pushed.clone());
        registry.register(DECISIONS_DROPPED, "Decisions given up", decisions_dropped.clone());
        registry.register(PANICS, "Events whose handling panicked", panics.clone());
        registry.register(KEYS_RELOADS, "Changed keys files, by result", keys_reloads.clone());
        registry.register(KEYS_STALE, "Whether the keys file is broken", keys_stale.clone());
        registry.register(SCHEMA_EVENTS, "Events by how they fitted their schema", schema_events.clone());
        registry.register(SCHEMA_RELOADS, "Times the schemas were read again", schema_reloads.clone());
        registry.register(SCHEMAS_STALE, "Whether older schemas are in use", schemas_stale.clone());
        registry.register(STOPPED_EVENTS, "Events that kill rules have stopped", stopped.clone());
        registry.register(KILL_STALE, "Whether the file of kill rules is broken", kill_stale.clone());
        registry.register(OBJECTED_EVENTS, "Events whose person objected", objected.clone());
        registry.register(TAIL_LOST, "Verdicts that slow followers lost", tail_lost.clone());
        registry.register_collector(Box::new(LogHealth(Arc::clone(log))));
        Self {
            registry: Arc::new(registry),
            joined: Arc::default(),
            received,
            outcomes,
            in_flight,
            requests,
            keys_reloads,
            keys_stale,
            schema_events,
            schema_reloads,
            schemas_stale,
            stopped,
            kill_stale,
            objected,
            load,
            received_bytes,
            append_seconds,
            sockets,
            decisions_pushed,
            decisions_dropped,
            panics,
            tail_lost,
        }
    }

    pub(crate) fn received(&self, source: &str) -> Counter {
        self.received.get_or_create(&SourceLabel { source: source.to_owned() }).clone()
    }

    pub(crate) fn in_flight(&self, source: &str) -> Gauge {
        self.in_flight.get_or_create(&SourceLabel { source: source.to_owned() }).clone()
    }

    pub(crate) fn outcome(&self, source: &str, outcome: Outcome) -> Counter {
        self.outcomes.get_or_create(&OutcomeLabel { source: source.to_owned(), outcome }).clone()
    }

    /// Events of a schema that fitted so.
    pub(crate) fn fitted(&self, schema: &str, mode: Mode, fit: Fit) -> Counter {
        let fit = match fit {
            Fit::Fits => "fits",
            Fit::Unfit => "unfit",
            Fit::Unjudged => "unjudged",
        };
        let label = FitLabel { schema: schema.to_owned(), mode: mode.as_str(), fit };
        self.schema_events.get_or_create(&label).clone()
    }

    /// Counts that the schemas were read again; says whether they could be used.
    pub(crate) fn reloaded(&self, usable: bool) {
        let result = if usable { "ok" } else { "failed" };
        self.schema_reloads.get_or_create(&ReloadLabel { result }).inc();
        self.schemas_stale.set(i64::from(!usable));
    }

    /// Events that a kill rule has stopped.
    pub(crate) fn stopped(&self, rule: &str, action: &'static str) -> Counter {
        self.stopped.get_or_create(&RuleLabel { rule: rule.to_owned(), action }).clone()
    }

    /// Events whose person objected.
    pub(crate) fn objected(&self, source: &str, objected: Objected) -> Counter {
        let action = if objected.drops { "drop" } else { "anonymise" };
        let label = ObjectionLabel { source: source.to_owned(), cause: objected.cause.as_str(), action };
        self.objected.get_or_create(&label).clone()
    }

    /// Drops the counts of rules that are gone, so that their number stays bounded.
    pub(crate) fn forget_stopped<'r>(&self, old: impl Iterator<Item = &'r KillRule>, new: &[KillRule]) {
        for KillRule { name, action, .. } in old {
            if !new.iter().any(|rule| rule.name == *name && rule.action == *action) {
                self.stopped.remove(&RuleLabel { rule: name.clone(), action: action.as_str() });
            }
        }
    }

    /// Notes whether changed kill rules could be used.
    pub(crate) fn kill_reloaded(&self, taken: bool) {
        self.kill_stale.set(i64::from(!taken));
    }

    pub(crate) fn answered(&self, status: http::StatusCode) {
        self.requests.get_or_create(&StatusLabel { status: status.as_u16() }).inc();
    }

    pub(crate) fn keys_reloaded(&self, taken: bool) {
        let result = if taken { "taken" } else { "broken" };
        self.keys_reloads.get_or_create(&ResultLabel { result }).inc();
        self.keys_stale.set(i64::from(!taken));
    }

    pub(crate) fn join(&self, other: Joined) {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).push(other);
    }

    /// The gateway's own metrics.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        if encode_registry(&mut text, &self.registry).is_err() {
            tracing::error!("metrics cannot be written");
        }
        text
    }

    /// Everybody's metrics, a whole answer to a scrape.
    pub(crate) async fn render_all(&self) -> String {
        let mut text = self.render();
        let joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for other in joined {
            text.push_str(&other().await);
        }
        text.push_str("# EOF\n");
        text
    }
}

/// The log's state, asked at each scrape.
struct LogHealth(SharedLog);

impl std::fmt::Debug for LogHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogHealth")
    }
}

impl Collector for LogHealth {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Health { admitting, spooled_records, spooled_bytes, unpublishable_records, .. } = self.0.health();
        for (name, help, value) in [
            (LOG_ADMITTING, "Whether the log takes records", u64::from(admitting)),
            (SPOOLED_RECORDS, "Records that wait for the broker", spooled_records),
            (SPOOLED_BYTES, "Bytes that wait for the broker", spooled_bytes),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let counter = ConstCounter::new(unpublishable_records);
        let help = "Records accepted that were too large for their topic and are in quarantine";
        let descriptor =
            encoder.encode_descriptor(UNPUBLISHABLE_RECORDS, help, None, counter.metric_type())?;
        counter.encode(descriptor)
    }
}
