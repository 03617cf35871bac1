//! Bytes to verdicts and log records: who sent them, what is in them, whether they are right, where they go, what the sender
//! is told.
//!
//! Files in the order in which an event meets them: [`server`] takes connections, `transport` reads requests and frames,
//! [`authenticate`] finds the key, `overload` says whether there is room for its lane, `decode` splits a body into events, `validate` judges each, `hot` finds profiles with too many,
//! `redact` takes personal data out,
//! `route` makes records of them,
//! `pipeline` runs those steps and answers, `ledger` counts, `push` carries decisions back to the page.
//!
//! **Invariant:** n events in, n verdicts out, in the order sent; each event ends in exactly one counted outcome; what a verdict
//! says of safety is never more than the log has said.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "tests fail by panicking"
    )
)]

pub mod config;
pub mod entropy;
pub mod error;

pub mod server;

pub mod transport;

pub mod address;
pub mod authenticate;

mod decode;

mod consent;
mod hot;
mod kill;
mod overload;

mod recent;
mod redact;
mod route;
mod validate;

mod pipeline;

mod discards;
pub mod ledger;
pub mod telemetry;

mod push;

mod drain;

#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use broker::clock::Clock;
use broker::log::SharedLog;
use schemas::frame::Limits;
use schemas::registry::Registry;

use crate::address::Network;
use crate::authenticate::Keys;
pub use crate::config::{ConfigError, GatewayConfig, KeyConfig, KillRule};
use crate::discards::Discards;
use crate::drain::Drain;
use crate::entropy::{Entropy, OsEntropy};
use crate::hot::HotProfiles;
use crate::kill::KillRules;
use crate::ledger::Ledger;
use crate::overload::Overload;
use crate::push::PushHub;
use crate::recent::Recent;
pub use crate::server::{ServerConfig, TlsFiles};
use crate::telemetry::Metrics;
use crate::transport::api::Api;
use crate::transport::body::Budget;
use crate::transport::tail::Tail;

/// The gateway: one value that all requests share.
pub struct Gateway {
    config: GatewayConfig,
    keys: ArcSwap<Keys>,
    kill: ArcSwap<KillRules>,
    trusted: Vec<Network>,
    schemas: ArcSwap<Registry>,
    log: SharedLog,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: Metrics,
    ledger: Ledger,
    discards: Discards,
    recent: Recent,
    push: Arc<PushHub>,
    tail: Tail,
    budget: Budget,
    overload: Overload,
    hot: HotProfiles,
    drain: Arc<Drain>,
}

impl Gateway {
    /// A gateway that writes to `log`, judges by `schemas` and tells the time by `clock`. Must be called within a Tokio runtime:
    /// it starts the task that reads decisions for open pages.
    pub fn new(
        config: GatewayConfig,
        log: SharedLog,
        schemas: Arc<Registry>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, ConfigError> {
        Self::with_entropy(config, log, schemas, clock, Arc::new(OsEntropy))
    }

    /// The same with randomness passed in.
    pub fn with_entropy(
        config: GatewayConfig,
        log: SharedLog,
        schemas: Arc<Registry>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>, ConfigError> {
        config.check()?;
        let keys = Keys::new(&config.keys, Arc::clone(&clock))?;
        check_secret(&config, &keys, &schemas)?;
        let trusted = config.trusted_proxies.iter().filter_map(|text| Network::parse(text)).collect();
        let metrics = Metrics::new(&log);
        let drain = Arc::new(Drain::default());
        let push = Arc::new(PushHub::new(&config, &metrics));
        push::subscribe(&push, &log, &drain);
        for key in &config.keys {
            drop(metrics.load.hot(&key.name, key.hot_profiles));
        }
        let budget = Budget::new(config.in_flight_bytes);
        let gateway = Arc::new(Self {
            keys: ArcSwap::from_pointee(keys),
            kill: ArcSwap::default(),
            trusted,
            schemas: ArcSwap::new(schemas),
            log,
            clock,
            entropy,
            ledger: Ledger::new(&metrics),
            discards: Discards::default(),
            recent: Recent::new(config.recent_ids),
            push,
            tail: Tail::new(&config),
            overload: Overload::new(&config, &metrics, budget.clone()),
            hot: HotProfiles::new(&config, &metrics),
            budget,
            drain,
            metrics,
            config,
        });
        overload::watch(&gateway, &gateway.drain);
        Ok(gateway)
    }

    /// Every path of the gateway, to which others may add theirs.
    pub fn api(self: &Arc<Self>) -> Api<()> {
        transport::api(self)
    }

    /// Every path of the gateway, ready to be served.
    pub fn router(self: &Arc<Self>) -> Router {
        self.api().serve(self)
    }

    /// Replaces the keys, for all requests from now on and for open sockets. A fault in any entry leaves all as they were, and is
    /// counted; what sources have sent so far stays counted towards rate and quota.
    pub fn set_keys(&self, keys: &[KeyConfig]) -> Result<(), ConfigError> {
        let next = self.keys.load().replaced_by(keys);
        let next =
            next.and_then(|next| check_secret(&self.config, &next, &self.schemas.load()).map(|()| next));
        self.metrics.keys_reloaded(next.is_ok());
        self.keys.store(Arc::new(next?));
        Ok(())
    }

    /// Replaces the kill rules, for all events that are judged from now on. A fault in any leaves all as they were.
    pub fn set_kill_rules(&self, rules: &[KillRule]) -> Result<(), ConfigError> {
        let next = KillRules::new(rules, &self.metrics);
        self.metrics.kill_reloaded(next.is_ok());
        let next = next?;
        let old = self.kill.swap(Arc::new(next));
        self.metrics.forget_stopped(old.counts().map(|(rule, _)| rule), rules);
        Ok(())
    }

    /// Notes that new kill rules could not be read, and that the old ones stay.
    pub fn keep_kill_rules(&self) {
        self.metrics.kill_reloaded(false);
    }

    /// The kill rules in force, and how many events each has stopped since the start.
    pub fn kill_rules(&self) -> Vec<(KillRule, u64)> {
        self.kill.load().counts().map(|(rule, count)| (rule.clone(), count)).collect()
    }

    /// Counts that new keys were to be had and could not be read.
    pub fn note_broken_keys(&self) {
        self.metrics.keys_reloaded(false);
    }

    /// The keys in force, for whoever guards other paths by them.
    pub fn keys(&self) -> Arc<Keys> {
        self.keys.load_full()
    }

    /// Replaces the schemas for all events that are judged from now on. Fails, and keeps the old ones, if they cannot be used.
    pub fn set_schemas(&self, schemas: Arc<Registry>) -> Result<(), ConfigError> {
        let usable = check_secret(&self.config, &self.keys.load(), &schemas);
        self.metrics.reloaded(usable.is_ok());
        if usable.is_ok() {
            self.schemas.store(schemas);
        }
        usable
    }

    /// Notes that new schemas could not be read, and that the old ones stay.
    pub fn keep_schemas(&self) {
        self.metrics.reloaded(false);
    }

    /// What came in and what became of it, per source.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The gateway's metrics in the text format of `OpenMetrics`, without its last line (`# EOF`).
    pub fn metrics_text(&self) -> String {
        self.metrics.render()
    }

    /// Lets `/metrics` show the text of another part behind the gateway's own; same format, without `# EOF`.
    pub fn join_metrics(&self, other: telemetry::Joined) {
        self.metrics.join(other);
    }

    /// What clients are told at `/v1/limits` and in `hello`.
    pub fn limits(&self) -> Limits {
        Limits {
            event_bytes: self.config.event_bytes,
            batch_bytes: self.config.batch_bytes,
            batch_events: self.config.batch_events,
            depth: self.config.depth,
            ack: self.config.ack,
        }
    }

    /// Takes nothing new, answers what is under way, closes the sockets and tails. Ends at the latest after the configured time.
    /// The log is closed by whoever opened it, after this.
    pub async fn drain(&self) {
        self.drain.begin();
        let limit = Duration::from_millis(self.config.drain_timeout_ms);
        if tokio::time::timeout(limit, self.drain.idle()).await.is_err() {
            tracing::warn!(under_way = self.drain.under_way(), "drain timed out with work under way");
        }
    }
}

/// A hash without a secret could be undone by trying what is likely.
fn check_secret(config: &GatewayConfig, keys: &Keys, schemas: &Registry) -> Result<(), ConfigError> {
    if config.pii_secret.is_some() {
        return Ok(());
    }
    if let Some(source) = keys.hashing() {
        return Err(ConfigError::PiiSecret { what: format!("key `{source}`") });
    }
    if schemas.hashes() {
        return Err(ConfigError::PiiSecret { what: "`x-pii` of a schema".to_owned() });
    }
    Ok(())
}
