//! The processor as a whole: opens the store, starts one consumer a partition, stops them.
//!
//! **Invariant:** a store that cannot be read, or a changed number of partitions, is a start that fails and says why; never a
//! start with an empty store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use broker::clock::Clock;
use broker::log::{ReadError, SharedLog};
use processor_core::session::Settings;
use processor_core::{Model, Program, Ruleset};
use schemas::id::EventId;
use schemas::time::Timestamp;
use schemas::token::Secrets;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::consume::batch::Rulebook;
use crate::consume::ledger::Ledger;
use crate::consume::{Consumer, Shared, Window, keys};
use crate::control::ControlKey;
use crate::serve::{self, Reader};
use crate::store::disk::DiskStore;
use crate::store::{Space, StateStore, StoreError, WriteBatch};
use crate::telemetry::Telemetry;

/// How long a status waits for the ends of all partitions; those not told by then are unknown.
const STATUS_DEADLINE: Duration = Duration::from_secs(1);

/// The demo's rules.
pub const DEMO_RULES: &str = include_str!("../demo/rules.yaml");
/// The demo's model.
pub const DEMO_MODEL: &str = include_str!("../demo/model.json");

/// Batches worked on at once.
const MAX_WORKERS: usize = 4;
/// Where the control key is kept.
const SECRET_FILE: &str = "secret";
/// Bytes of a control key.
const SECRET_BYTES: usize = 32;
/// Where the number of partitions stands.
const PARTITIONS_KEY: &[u8] = b"\0partitions";
/// How long the log may take to say how many partitions it has, at start.
const PARTITIONS_DEADLINE: Duration = Duration::from_mins(1);

/// How the processor is set up.
#[derive(Clone, Debug)]
pub struct ProcessorConfig {
    /// The folder of its state; created if absent.
    pub folder: PathBuf,
    /// How long an event id is remembered, in hours: 1 to 720.
    pub dedup_window_hours: u32,
    /// The longest pause within a session, in minutes: 1 to 1,440.
    pub session_gap_minutes: u32,
    /// Key of control records' MAC, the same for all processors of one log; without it, one is made and kept in the folder.
    pub control_key: Option<ControlKey>,
}

impl ProcessorConfig {
    /// The defaults: 8 days, 30 minutes.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), dedup_window_hours: 192, session_gap_minutes: 30, control_key: None }
    }
}

/// Why the processor does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting out of its range.
    #[error("processor.{name} = {value} is not from {from} to {to}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u32,
        /// Least.
        from: u32,
        /// Most.
        to: u32,
    },
    /// The store does not open.
    #[error("the processor's store: {0}")]
    Store(#[from] StoreError),
    /// The folder or the control key cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// The log does not say how many partitions it has.
    #[error("the log: {0}")]
    Log(#[from] ReadError),
    /// The log has another number of partitions than the state was made with.
    #[error(
        "rivulet.events has {now} partitions, the state was made with {then}: keys would move. Start with an empty state folder, or go back"
    )]
    Partitions {
        /// The number in the store.
        then: u32,
        /// The log's number.
        now: u32,
    },
}

/// Where an event was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Applied {
    /// The partition of its record.
    pub partition: PartitionId,
    /// The offset of its record.
    pub offset: Offset,
    /// When the gateway had it.
    pub received_at: Timestamp,
    /// It was too old for a session.
    pub late: bool,
}

/// How far a partition is.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: PartitionId,
    /// The next record to process.
    pub next_offset: Offset,
    /// The log's end; absent when the log does not answer.
    pub end_offset: Option<Offset>,
    /// Records between them.
    pub lag: Option<u64>,
    /// Records being worked on.
    pub in_flight: u64,
    /// What became of the rest.
    pub ledger: Ledger,
    /// What keeps it from going on.
    pub trouble: Option<String>,
}

/// A running processor.
pub struct Processor {
    shared: Arc<Shared>,
    windows: Vec<Arc<Window>>,
    reader: Arc<Reader>,
    stop: watch::Sender<bool>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor").field("partitions", &self.windows.len()).finish_non_exhaustive()
    }
}

impl Processor {
    /// Opens the store in `config.folder` and starts. `secrets` are the secret keys that may read profiles and mint tokens.
    pub async fn start(
        config: ProcessorConfig,
        log: SharedLog,
        rules: Arc<Ruleset>,
        model: Arc<Model>,
        secrets: Secrets,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let folder = config.folder.clone();
        let opened = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
            std::fs::create_dir_all(&folder).map_err(|error| StartError::File(folder.clone(), error))?;
            Ok((DiskStore::open(&folder.join("store"))?, secret(&folder)))
        });
        let (store, kept) =
            opened.await.map_err(|_| StoreError::Unavailable("opening it panicked".to_owned()))??;
        let config = match config.control_key {
            Some(_) => config,
            None => ProcessorConfig { control_key: Some(kept?), ..config },
        };
        Self::start_with(config, Arc::new(store), log, rules, model, secrets, clock).await
    }

    /// Starts with a store that is open already; `config.folder` is not used.
    pub async fn start_with(
        config: ProcessorConfig,
        store: Arc<dyn StateStore>,
        log: SharedLog,
        rules: Arc<Ruleset>,
        model: Arc<Model>,
        secrets: Secrets,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        within("dedup_window_hours", config.dedup_window_hours, 1, 720)?;
        within("session_gap_minutes", config.session_gap_minutes, 1, 1_440)?;
        let partitions = partitions(&log).await?;
        let checked = Arc::clone(&store);
        let check = tokio::task::spawn_blocking(move || same_partitions(checked.as_ref(), partitions));
        check.await.map_err(|_| StoreError::Unavailable("reading it panicked".to_owned()))??;
        let sessions =
            Settings { gap_ms: i64::from(config.session_gap_minutes) * 60_000, ..Settings::default() };
        let program = Program { rules: (*rules).clone(), model: (*model).clone(), sessions };
        let control_key = config.control_key.unwrap_or_else(|| ControlKey::new(Vec::new()));
        let dedup_window_ms = i64::from(config.dedup_window_hours) * 3_600_000;
        let (stop, stopping) = watch::channel(false);
        let reader = Reader { store: Arc::clone(&store), partitions, secrets, clock: Arc::clone(&clock) };
        let shared = Arc::new(Shared {
            log,
            store,
            rulebook: Rulebook { program, control_key, dedup_window_ms },
            clock,
            telemetry: Telemetry::new(),
            partitions,
            workers: Semaphore::new(MAX_WORKERS),
            stopping,
        });
        let windows: Vec<Arc<Window>> = (0..partitions).map(|_| Arc::default()).collect();
        let mut tasks = JoinSet::new();
        for (partition, window) in (0..partitions).zip(&windows) {
            tasks.spawn(Consumer::new(Arc::clone(&shared), PartitionId(partition), Arc::clone(window)).run());
        }
        Ok(Self { shared, windows, reader: Arc::new(reader), stop, tasks: tokio::sync::Mutex::new(tasks) })
    }

    /// `GET /v1/profiles/{id}`.
    pub fn router(&self) -> Router {
        serve::router(Arc::clone(&self.reader))
    }

    /// Stops consuming, lets batches under way be committed, and makes the store safe. Outputs that the log did not take yet stay in
    /// the outbox.
    pub async fn drain(&self) {
        self.stop.send_replace(true);
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
        let store = Arc::clone(&self.shared.store);
        match tokio::task::spawn_blocking(move || store.persist()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the store was not made safe at the end"),
            Err(_) => tracing::error!("the store was not made safe at the end"),
        }
    }

    /// How far each partition is.
    pub async fn status(&self) -> Vec<PartitionStatus> {
        // One deadline for all partitions: with the broker away each question would wait for its own.
        let deadline = tokio::time::Instant::now() + STATUS_DEADLINE;
        let mut all = Vec::with_capacity(self.windows.len());
        for (partition, window) in (0..).map(PartitionId).zip(&self.windows) {
            let state = window.state.load();
            let next_offset = state.next.unwrap_or_default();
            let at = TopicPartition { topic: Topic::Events, partition };
            let asked = tokio::time::timeout_at(deadline, self.shared.log.end_offset(at)).await;
            let end_offset = asked.ok().and_then(Result::ok);
            let lag = end_offset.map(|end| end.0.saturating_sub(next_offset.0));
            if let Some(lag) = lag {
                self.shared.telemetry.lag(partition.0, lag);
            }
            all.push(PartitionStatus {
                partition,
                next_offset,
                end_offset,
                lag,
                in_flight: window.in_flight.load(Ordering::Relaxed),
                ledger: state.ledger,
                trouble: window.trouble.load().as_ref().clone(),
            });
        }
        all
    }

    /// What became of everything consumed, all partitions together.
    pub fn ledger(&self) -> Ledger {
        self.windows.iter().fold(Ledger::default(), |sum, window| sum.plus(window.state.load().ledger))
    }

    /// Where an event was applied, if it was within the dedup window; once for each key and source that used the id.
    pub async fn was_applied(&self, event_id: EventId) -> Result<Vec<Applied>, StoreError> {
        let store = Arc::clone(&self.shared.store);
        let found = tokio::task::spawn_blocking(move || {
            let (from, to) = keys::dedup_of(event_id);
            store.scan(Space::Dedup, &from, &to, 16)
        });
        let found = found.await.map_err(|_| StoreError::Unavailable("reading panicked".to_owned()))??;
        let applied = |(_, value): &(Vec<u8>, Vec<u8>)| {
            let keys::Seen { received_at, partition, offset, late, .. } = keys::Seen::read(value)?;
            Some(Applied { partition, offset, received_at, late })
        };
        Ok(found.iter().filter_map(applied).collect())
    }

    /// The metrics as `OpenMetrics` text without the end mark.
    pub async fn metrics(&self) -> String {
        self.status().await;
        self.shared.telemetry.text()
    }
}

fn within(name: &'static str, value: u32, from: u32, to: u32) -> Result<(), StartError> {
    if (from..=to).contains(&value) { Ok(()) } else { Err(StartError::Setting { name, value, from, to }) }
}

/// The log's number of partitions; a broker that is away is waited for.
async fn partitions(log: &SharedLog) -> Result<u32, ReadError> {
    let deadline = tokio::time::Instant::now() + PARTITIONS_DEADLINE;
    loop {
        match log.partitions(Topic::Events).await {
            Err(ReadError::Unavailable(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            answer => return answer,
        }
    }
}

fn same_partitions(store: &dyn StateStore, now: u32) -> Result<(), StartError> {
    let Some(stored) = store.get(Space::Meta, PARTITIONS_KEY)? else {
        let mut batch = WriteBatch::default();
        batch.put(Space::Meta, PARTITIONS_KEY, now.to_be_bytes());
        store.commit(batch)?;
        return Ok(store.persist()?);
    };
    let then = stored.try_into().map(u32::from_be_bytes);
    let then = then.map_err(|_| StoreError::Unreadable("the number of partitions".to_owned()))?;
    if then == now { Ok(()) } else { Err(StartError::Partitions { then, now }) }
}

/// Reads the control key, or makes one.
fn secret(folder: &Path) -> Result<ControlKey, StartError> {
    let path = folder.join(SECRET_FILE);
    let failed = |error| StartError::File(path.clone(), error);
    match std::fs::read(&path) {
        Ok(bytes) if bytes.len() >= SECRET_BYTES => return Ok(ControlKey::new(bytes)),
        Ok(_) => {
            let short = std::io::Error::new(std::io::ErrorKind::InvalidData, "the control key is cut short");
            return Err(failed(short));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    write_secret(folder, &path, &bytes).map_err(failed)?;
    Ok(ControlKey::new(bytes))
}

/// Written aside, fsynced and renamed, so that a crash leaves a whole key or none; readable by the owner alone.
fn write_secret(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let aside = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_rules_and_model_load() {
        let rules = Ruleset::parse(DEMO_RULES, "rules.yaml").unwrap();
        assert!(
            rules.rules().iter().any(|rule| rule.name == "category_interest" && rule.slot == "home_banner")
        );
        Model::parse(DEMO_MODEL.as_bytes()).unwrap();
    }

    #[test]
    fn the_control_key_is_made_once_and_a_short_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        secret(folder.path()).unwrap();
        let bytes = std::fs::read(folder.path().join(SECRET_FILE)).unwrap();
        secret(folder.path()).unwrap();
        assert_eq!(std::fs::read(folder.path().join(SECRET_FILE)).unwrap(), bytes);
        std::fs::write(folder.path().join(SECRET_FILE), "x").unwrap();
        assert!(secret(folder.path()).is_err());
    }
}
