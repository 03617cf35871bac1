//! Puts the pipeline together: log, gateway, processor, and the routes of all of them on one listener.
//!
//! **Invariant:** gateway and processor meet only here and on topics. Stopping goes with the stream: first nothing new is taken,
//! then what was taken is answered and processed, then the log is closed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use broker::clock::{Clock, SystemClock};
use broker::embedded::Journal;
use broker::log::SharedLog;
use gateway::config::KeyKind;
use gateway::{Gateway, GatewayConfig};
use processor::{Processor, ProcessorConfig};
use processor_core::{Model, Ruleset};
use schemas::registry::Registry;

use crate::commands::Role;
use crate::config::Config;
use crate::{assets, demo, fate};

/// The parts that run in this process.
pub(crate) struct Pipeline {
    log: SharedLog,
    gateway: Option<Arc<Gateway>>,
    processor: Option<Arc<Processor>>,
    clock: Arc<dyn Clock>,
    config: Config,
}

/// Where the journal is, below the data folder: the log itself, or the spool in front of Kafka.
pub(crate) fn log_folder(data: &Path) -> PathBuf {
    data.join("log")
}

impl Pipeline {
    /// Opens the log and starts the parts. Works with the broker away.
    pub(crate) fn start(config: Config, role: Role) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        anyhow::ensure!(
            role != Role::Processor || config.kafka.is_some(),
            "the processor alone reads Kafka: add --kafka HOST:PORT, or run `rivulet up` for everything in one process"
        );
        std::fs::create_dir_all(&config.data).with_context(|| format!("cannot make {}", config.data.display()))?;
        let log = open_log(&config, role, &clock)?;
        let processor = match role {
            Role::Gateway => None,
            Role::Both | Role::Processor => Some(start_processor(&config, &log, &clock)?),
        };
        let gateway = match role {
            Role::Processor => None,
            Role::Both | Role::Gateway => Some(start_gateway(&config, &log, &clock)?),
        };
        if let (Some(gateway), Some(processor)) = (&gateway, &processor) {
            let processor = Arc::clone(processor);
            gateway.join_metrics(Arc::new(move || processor.metrics_text()));
        }
        Ok(Self { log, gateway, processor, clock, config })
    }

    /// Every path of this process.
    pub(crate) fn router(&self) -> Router {
        let mut router = Router::new();
        if let Some(processor) = &self.processor {
            router = router.merge(processor.router());
        }
        match &self.gateway {
            Some(gateway) => {
                let fate = fate::Service::new(Arc::clone(gateway), Arc::clone(&self.log), self.processor.clone());
                router = router.merge(gateway.router()).merge(fate.router()).merge(assets::sdk());
            }
            None => router = router.merge(self.health_router()),
        }
        if self.config.demo.enabled && self.gateway.is_some() {
            router = router.merge(assets::demo());
            let secret = self.config.keys.iter().find(|key| key.kind == KeyKind::Secret);
            if let Some(secret) = secret.filter(|_| self.config.listen.ip().is_loopback()) {
                router = router.merge(demo::router(&secret.key, Arc::clone(&self.clock)));
            }
        }
        router
    }

    /// Takes nothing new and answers what is under way.
    pub(crate) async fn drain(&self) {
        if let Some(gateway) = &self.gateway {
            gateway.drain().await;
        }
    }

    /// Processes what was taken, then closes the log. Nothing answered is lost if this is cut short.
    pub(crate) async fn close(&self) {
        if let Some(processor) = &self.processor {
            processor.drain().await;
        }
        self.log.close().await;
    }

    /// `/live`, `/ready` and `/metrics` of a processor that runs without a gateway.
    fn health_router(&self) -> Router {
        use axum::routing::get;
        let Some(processor) = self.processor.clone() else { return Router::new() };
        let log = Arc::clone(&self.log);
        Router::new()
            .route("/live", get(|| async { "ok\n" }))
            .route("/ready", get(move || async move { serde_json::to_string(&log.health()).unwrap_or_default() }))
            .route("/metrics", get(move || async move { processor.metrics_text() + "# EOF\n" }))
    }
}

fn start_gateway(config: &Config, log: &SharedLog, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<Gateway>> {
    let registry = match &config.schemas.dir {
        Some(dir) => Registry::load(dir).context("the schemas cannot be used")?,
        None => Registry::builtin(),
    };
    let edge = GatewayConfig { keys: config.keys.clone(), ..config.gateway.clone() };
    Ok(Gateway::new(edge, Arc::clone(log), Arc::new(registry), Arc::clone(clock))?)
}

fn start_processor(config: &Config, log: &SharedLog, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<Processor>> {
    let section = &config.processor;
    let rules = match &section.rules {
        Some(path) => read(path)?,
        None => processor::demo::RULES.to_owned(),
    };
    let rules = Ruleset::parse(&rules).with_context(|| format!("in {}", name(section.rules.as_deref(), "the demo's rules")))?;
    let model = match &section.model {
        Some(path) => read(path)?,
        None => processor::demo::MODEL.to_owned(),
    };
    let model = Model::parse(&model).with_context(|| format!("in {}", name(section.model.as_deref(), "the demo's model")))?;
    let secrets = config.keys.iter().filter(|key| key.kind == KeyKind::Secret).map(|key| key.key.clone()).collect();
    let settings = ProcessorConfig {
        dedup_window: Duration::from_secs(section.dedup_window_hours * 3600),
        session_gap: Duration::from_secs(section.session_gap_minutes * 60),
        ..ProcessorConfig::new(config.data.join("processor"))
    };
    let started = Processor::start(settings, Arc::clone(log), Arc::new(rules), Arc::new(model), secrets, Arc::clone(clock));
    Ok(Arc::new(started.context("the processor cannot start")?))
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn name(path: Option<&Path>, built_in: &str) -> String {
    path.map_or_else(|| built_in.to_owned(), |path| path.display().to_string())
}

#[cfg(feature = "kafka")]
mod kafka {
    //! Apache Kafka as the log.

    use broker::kafka::{KafkaConfig, KafkaLog};
    use broker::spool::{Spool, SpoolConfig};

    use super::{Arc, Clock, Config, Duration, Role, SharedLog};
    use crate::config::KafkaSection;

    /// The spool in front of Kafka; a processor alone appends to Kafka itself.
    pub(super) fn open(
        config: &Config,
        section: &KafkaSection,
        role: Role,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<SharedLog> {
        let settings = KafkaConfig {
            partitions: section.partitions,
            replication: section.replication,
            ack_deadline: Duration::from_millis(section.ack_deadline_ms),
            ..KafkaConfig::new(&section.brokers)
        };
        let kafka = KafkaLog::connect(settings, Arc::clone(clock))?;
        if role == Role::Processor {
            return Ok(Arc::new(kafka));
        }
        let spool = SpoolConfig { ack_deadline: Duration::from_millis(section.ack_deadline_ms), ..SpoolConfig::default() };
        Ok(Arc::new(Spool::open(spool, config.journal("log"), kafka, Arc::clone(clock))?))
    }

    /// Kafka for reading alone: makes no topics.
    pub(crate) fn reader(brokers: &str) -> anyhow::Result<KafkaLog> {
        let settings = KafkaConfig { create_topics: false, ..KafkaConfig::new(brokers) };
        Ok(KafkaLog::connect(settings, Arc::new(broker::clock::SystemClock))?)
    }
}

#[cfg(feature = "kafka")]
pub(crate) use kafka::reader as kafka_reader;

/// Opens the log that the configuration names.
#[cfg(feature = "kafka")]
fn open_log(config: &Config, role: Role, clock: &Arc<dyn Clock>) -> anyhow::Result<SharedLog> {
    match &config.kafka {
        Some(section) => kafka::open(config, section, role, clock),
        None => Ok(Arc::new(Journal::open(config.journal("log"), Arc::clone(clock))?)),
    }
}
