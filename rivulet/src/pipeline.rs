//! Puts the pipeline together: log, gateway, processor, and the routes of all of them on one listener.
//!
//! **Invariant:** gateway and processor meet only here and on topics. Stopping goes with the stream: first nothing new is taken,
//! then what was taken is answered and processed, then the log is closed. A part that can never run ends the program.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use broker::clock::{Clock, SystemClock};
use broker::embedded::Journal;
use broker::log::SharedLog;
use gateway::error::RequestError;
use gateway::transport::api::{Access, Answer, Content, Operation, Parameter, Verb, shape};
use gateway::transport::errors::not_found;
use gateway::transport::{cors, methods};
use gateway::{Gateway, GatewayConfig};
use processor::control::ControlKey;
use processor::{Processor, ProcessorConfig, StartError};
use processor_core::{Model, Ruleset};
use schemas::token::Secrets;
use schemas::verdict::Code;
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use crate::commands::Role;
use crate::config::{Config, keys};
use crate::{assets, demo, fate, kill, schema_folder};

/// The parts that run in this process.
pub(crate) struct Pipeline {
    role: Role,
    log: SharedLog,
    gateway: Option<Arc<Gateway>>,
    kill: Option<kill::Service>,
    processor: ProcessorCell,
    /// Why the processor will never start, once that is known.
    failure: Mutex<Option<oneshot::Receiver<anyhow::Error>>>,
    clock: Arc<dyn Clock>,
    /// The secret keys in force, for whoever reads profiles or mints the demo's tokens.
    secrets: Secrets,
    config: Config,
}

/// The processor, once it runs. With Kafka it starts as soon as the broker answers; the gateway does not wait for that.
pub(crate) type ProcessorCell = Arc<OnceLock<Arc<Processor>>>;

/// What is said of a processor that will never start; the reason follows.
const CANNOT_START: &str = "the processor cannot start";

/// How long to wait before the processor's start is tried again, while the broker is away.
const START_RETRY: Duration = Duration::from_secs(1);

/// Where the journal is, below the data folder: the log itself, or the spool in front of Kafka.
pub(crate) fn log_folder(data: &Path) -> PathBuf {
    data.join("log")
}

impl Pipeline {
    /// Opens the log and starts the parts. Works with the broker away.
    pub(crate) async fn start(config: Config, role: Role) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        anyhow::ensure!(
            role != Role::Processor || config.kafka.is_some(),
            "the processor alone reads Kafka: add --kafka HOST:PORT, or run `rivulet up` for everything in one process"
        );
        std::fs::create_dir_all(&config.data)
            .with_context(|| format!("cannot make {}", config.data.display()))?;
        let log = open_log(&config, role, &clock)?;
        let processor = ProcessorCell::default();
        let secrets = Secrets::new(gateway::authenticate::secrets(&config.keys));
        let failure = match role {
            Role::Gateway => None,
            Role::Both | Role::Processor => {
                start_processor(&config, &secrets, &log, &clock, &processor).await?
            }
        };
        let gateway = match role {
            Role::Processor => None,
            Role::Both | Role::Gateway => Some(start_gateway(&config, &log, &clock)?),
        };
        let kill = gateway.as_ref().map(|gateway| kill::Service::start(gateway, config.kill_file()));
        let kill = kill.transpose().context("in the kill rules")?;
        if let Some(gateway) = &gateway {
            let processor = Arc::clone(&processor);
            gateway.join_metrics(Arc::new(move || Box::pin(processor_metrics(Arc::clone(&processor)))));
        }
        if let Some(path) = &config.keys_file {
            tokio::spawn(keys::follow(path.clone(), gateway.as_ref().map(Arc::downgrade), secrets.clone()));
        }
        let failure = Mutex::new(failure);
        Ok(Self { role, log, gateway, kill, processor, failure, clock, secrets, config })
    }

    /// Every path of this process.
    pub(crate) fn router(&self) -> Router {
        let mut router = Router::new();
        match &self.gateway {
            Some(gateway) => {
                let fate = fate::Service::new(
                    Arc::clone(gateway),
                    Arc::clone(&self.log),
                    Arc::clone(&self.processor),
                );
                let mut api = gateway.api().merge(fate.api());
                if self.role == Role::Both {
                    api = api.describe(PROFILE);
                }
                router = router.merge(api.serve(gateway)).merge(assets::sdk());
            }
            None => router = router.merge(self.health_router()),
        }
        if let Some(kill) = &self.kill {
            router = router.merge(kill.clone().router());
        }
        if self.config.demo.enabled && self.gateway.is_some() {
            router = router.merge(assets::demo());
            if self.config.listen.ip().is_loopback() {
                router = router.merge(demo::router(self.secrets.clone(), Arc::clone(&self.clock)));
            }
        }
        router = router.fallback(|| async { not_found() });
        if self.role == Role::Gateway {
            return methods::wrap(router);
        }
        let parts = Parts { processor: Arc::clone(&self.processor), others: router };
        methods::wrap(Router::new().fallback(dispatch).with_state(parts))
    }

    /// Waits until a part turns out to be unable to run, with the reason. To be awaited once.
    pub(crate) async fn failed(&self) -> anyhow::Error {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failure {
            Some(failure) => match failure.await {
                Ok(error) => error,
                Err(_) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// Takes nothing new and answers what is under way.
    pub(crate) async fn drain(&self) {
        if let Some(gateway) = &self.gateway {
            gateway.drain().await;
        }
    }

    /// Processes what was taken, then closes the log. Nothing answered is lost if this is cut short.
    pub(crate) async fn close(&self) {
        if let Some(processor) = self.processor.get() {
            processor.drain().await;
        }
        self.log.close().await;
    }

    /// `/live`, `/ready` and `/metrics` of a processor that runs without a gateway.
    fn health_router(&self) -> Router {
        let (log, processor) = (Arc::clone(&self.log), Arc::clone(&self.processor));
        let ready = move || async move { serde_json::to_string(&log.health()).unwrap_or_default() };
        let metrics = move || async move { processor_metrics(processor).await + "# EOF\n" };
        Router::new()
            .route("/live", get(|| async { "ok\n" }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
    }
}

/// Who answers a request: the processor may start later than the rest.
#[derive(Clone)]
struct Parts {
    processor: ProcessorCell,
    others: Router,
}

/// What the processor serves.
const PROFILE: Operation = Operation {
    method: Verb::Get,
    path: "/v1/profiles/{id}",
    summary: "What is known of somebody.",
    access: Access::SecretKeyOrToken,
    parameters: &[Parameter {
        name: "id",
        place: "path",
        about: "`user:x`, `anonymous:x`, or a bare id.",
        shape: shape::<String>,
    }],
    body: &[],
    answers: &[Answer::ok("The profile.", &[Content::other("application/json")])],
    errors: &[Code::NotFound, Code::LogUnavailable],
};

/// Where the processor's own paths are.
const PROFILES: &str = "/v1/profiles/";

async fn dispatch(State(parts): State<Parts>, request: Request) -> Response {
    if !request.uri().path().starts_with(PROFILES) {
        return parts.others.oneshot(request).await.into_response();
    }
    match parts.processor.get() {
        // A shop's page is of another origin than this program, and reads its visitor's profile with a token.
        Some(processor) => {
            let routes = Router::new().fallback_service(processor.router());
            cors::wrap(routes).oneshot(request).await.into_response()
        }
        None => {
            RequestError::new(Code::LogUnavailable, "The processor waits for the broker; ask again later.")
                .into_response()
        }
    }
}

async fn processor_metrics(processor: ProcessorCell) -> String {
    match processor.get() {
        Some(processor) => processor.metrics().await,
        None => String::new(),
    }
}

fn start_gateway(config: &Config, log: &SharedLog, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<Gateway>> {
    let registry = schema_folder::load(config.schemas.dir.as_deref())?;
    let edge = GatewayConfig { keys: config.keys.clone(), ..config.gateway.clone() };
    let gateway = Gateway::new(edge, Arc::clone(log), Arc::new(registry), Arc::clone(clock))?;
    if let Some(dir) = &config.schemas.dir {
        schema_folder::watch(dir.clone(), Duration::from_millis(config.schemas.reload_ms), &gateway);
    }
    Ok(gateway)
}

/// Starts the processor: at once on the embedded log, else when the broker answers. What then makes it impossible is told
/// through the answer.
async fn start_processor(
    config: &Config,
    secrets: &Secrets,
    log: &SharedLog,
    clock: &Arc<dyn Clock>,
    cell: &ProcessorCell,
) -> anyhow::Result<Option<oneshot::Receiver<anyhow::Error>>> {
    let section = &config.processor;
    let rules = match &section.rules {
        Some(path) => read(path)?,
        None => processor::DEMO_RULES.to_owned(),
    };
    let rules = Ruleset::parse(&rules, &name(section.rules.as_deref(), "the demo's rules"))?;
    let model = match &section.model {
        Some(path) => read(path)?,
        None => processor::DEMO_MODEL.to_owned(),
    };
    let model = Model::parse(model.as_bytes())
        .with_context(|| format!("in {}", name(section.model.as_deref(), "the demo's model")))?;
    let settings = ProcessorConfig {
        dedup_window_hours: section.dedup_window_hours,
        session_gap_minutes: section.session_gap_minutes,
        control_key: section.control_key.as_ref().map(|key| ControlKey::new(key.as_str())),
        ..ProcessorConfig::new(config.data.join("processor"))
    };
    let (rules, model) = (Arc::new(rules), Arc::new(model));
    let secrets = secrets.clone();
    let (log, clock, cell) = (Arc::clone(log), Arc::clone(clock), Arc::clone(cell));
    let start = move || {
        Processor::start(
            settings.clone(),
            Arc::clone(&log),
            Arc::clone(&rules),
            Arc::clone(&model),
            secrets.clone(),
            Arc::clone(&clock),
        )
    };
    if config.kafka.is_none() {
        let _ = cell.set(Arc::new(start().await.context(CANNOT_START)?));
        return Ok(None);
    }
    let (tell, failure) = oneshot::channel();
    tokio::spawn(async move {
        loop {
            match start().await {
                Ok(processor) => {
                    let _ = cell.set(Arc::new(processor));
                    return;
                }
                // The broker is away, or does not have the topics yet.
                Err(StartError::Log(error)) => tracing::info!(%error, "the processor waits for the broker"),
                Err(error) => {
                    let _ = tell.send(anyhow::Error::new(error).context(CANNOT_START));
                    return;
                }
            }
            tokio::time::sleep(START_RETRY).await;
        }
    });
    Ok(Some(failure))
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
        let spool = SpoolConfig {
            ack_deadline: Duration::from_millis(section.ack_deadline_ms),
            ..SpoolConfig::default()
        };
        Ok(Arc::new(Spool::open(spool, config.journal("log"), kafka, Arc::clone(clock))?))
    }

    /// What is fetched of a partition in advance when a whole topic is read, bytes. Partitions are read one after another, and
    /// each fetch may wait behind one of those already read to their end.
    const WHOLE_TOPIC_FETCH_BYTES: u32 = 8 << 20;

    /// How long a command that reads waits for a partition whose leader moves, or whose broker starts again.
    const READ_PATIENCE: Duration = Duration::from_mins(1);

    /// Kafka for reading alone: makes no topics.
    pub(crate) fn reader(brokers: &str) -> anyhow::Result<KafkaLog> {
        let settings = KafkaConfig {
            create_topics: false,
            fetch_bytes: WHOLE_TOPIC_FETCH_BYTES,
            read_patience: READ_PATIENCE,
            ..KafkaConfig::new(brokers)
        };
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
