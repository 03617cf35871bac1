//! Consuming a partition: read, apply, commit, append what follows from it.
//!
//! One task a partition is its only writer. A batch's effects are committed and fsynced before anything of them leaves and before
//! the log may forget the input; so a crash repeats an output at worst, under the same idempotency key. It starts where the
//! store says.
//!
//! **Invariant:** the store's next offset, profiles, ids, timers and outbox always belong together.

pub(crate) mod batch;
pub(crate) mod cache;
pub(crate) mod decode;
pub(crate) mod keys;
pub mod ledger;
pub(crate) mod outbox;
pub(crate) mod quarantine;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use broker::clock::Clock;
use broker::log::{AppendError, NewRecord, ReadError, ReadLimit, Record, RecordError, SharedLog};
use processor_core::Control;
use schemas::id::EventId;
use schemas::time::Timestamp;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};
use schemas::verdict::{AckLevel, Code, Reason};
use tokio::sync::{Semaphore, watch};

use crate::store::{Space, StateStore, StoreError, WriteBatch};
use crate::telemetry::Telemetry;
use batch::{Effects, Rulebook, Work};
use cache::Caches;
use ledger::PartitionState;

/// Records of a batch.
pub(crate) const BATCH_RECORDS: usize = 500;
/// Bytes of a batch.
const BATCH_BYTES: usize = 4 << 20;
/// How long a read waits at the end of a partition; new records wake it at once.
const READ_WAIT: Duration = Duration::from_millis(500);
/// Outbox records read back at start, at once.
const OUTBOX_CHUNK: usize = 500;
/// Waits between attempts, doubled up to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// Trouble that lasts until the wait is this long is shown in the log.
const TROUBLE_SHOWS: Duration = Duration::from_millis(800);
const LAST_BACKOFF: Duration = Duration::from_secs(2);
/// The name under which the log holds records for us.
const CONSUMER: &str = "processor";

/// What all partitions share.
pub(crate) struct Shared {
    pub(crate) log: SharedLog,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) rulebook: Rulebook,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
    /// Partitions of the log.
    pub(crate) partitions: u32,
    /// Bounds batches worked on at once, and so the threads for blocking calls.
    pub(crate) workers: Semaphore,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// What others may see of a partition.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) state: ArcSwap<PartitionState>,
    pub(crate) in_flight: AtomicU64,
    pub(crate) trouble: ArcSwap<Option<String>>,
}

/// Why a partition stopped or a batch failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsumeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("reading: {0}")]
    Read(#[from] ReadError),
    #[error("appending: {0}")]
    Append(#[from] AppendError),
    #[error("appending: {0}")]
    Record(#[from] RecordError),
    #[error("the processor is stopping")]
    Stopping,
    #[error("a batch panicked")]
    Panic,
}

/// A partition and its writer.
pub(crate) struct Consumer {
    shared: Arc<Shared>,
    at: TopicPartition,
    state: PartitionState,
    caches: Caches,
    window: Arc<Window>,
    next_timer: Option<Timestamp>,
    /// A tick was appended for what is due, after the record at this offset.
    ticked: Option<Offset>,
    unfinished: bool,
}

impl Consumer {
    pub(crate) fn new(shared: Arc<Shared>, partition: PartitionId, window: Arc<Window>) -> Self {
        let at = TopicPartition { topic: Topic::Events, partition };
        let state = PartitionState::default();
        Self {
            shared,
            at,
            state,
            caches: Caches::default(),
            window,
            next_timer: None,
            ticked: None,
            unfinished: false,
        }
    }

    /// Runs until the processor stops. Trouble is shown and tried again; nothing is skipped.
    pub(crate) async fn run(mut self) {
        let mut backoff = FIRST_BACKOFF;
        let mut recovered = false;
        loop {
            let done = if recovered { self.turn().await } else { self.recover().await };
            match done {
                Ok(()) => {
                    recovered = true;
                    backoff = FIRST_BACKOFF;
                    if self.window.trouble.load().is_some() {
                        self.window.trouble.store(Arc::new(None));
                    }
                }
                Err(ConsumeError::Stopping) => return,
                Err(error) => {
                    // The attempt may have been committed: the store knows, this memory does not.
                    recovered = false;
                    // A new topic or a moved leader is over in a moment; what lasts is told once, not at each try.
                    if (TROUBLE_SHOWS..TROUBLE_SHOWS * 2).contains(&backoff) {
                        tracing::warn!(partition = self.at.partition.0, %error, "partition waits");
                    }
                    self.shared.telemetry.failures.inc();
                    self.window.trouble.store(Arc::new(Some(error.to_string())));
                    if self.pause(backoff).await {
                        return;
                    }
                    backoff = (backoff * 2).min(LAST_BACKOFF);
                }
            }
            if *self.shared.stopping.borrow() {
                return;
            }
        }
    }

    /// Waits; true if the processor stops meanwhile.
    async fn pause(&self, time: Duration) -> bool {
        let mut stopping = self.shared.stopping.clone();
        tokio::time::timeout(time, stopping.wait_for(|stop| *stop)).await.is_ok()
    }

    /// Reads the state, appends what was left in the outbox, and tells the log where it is.
    async fn recover(&mut self) -> Result<(), ConsumeError> {
        let partition = self.at.partition;
        self.caches = Caches::of_one(usize::try_from(self.shared.partitions).unwrap_or(usize::MAX));
        let stored = self.blocking(move |store| {
            // What is read may only be in the system's memory, left by a process that was killed or a failed attempt.
            store.persist()?;
            store.get(Space::Meta, &keys::meta(partition))
        });
        let stored = stored.await??;
        self.state = match stored {
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| StoreError::Unreadable(format!("partition {}: {error}", partition.0)))?,
            None => PartitionState::default(),
        };
        if self.state.next.is_none() {
            self.state.next = Some(self.shared.log.start_offset(self.at).await?);
        }
        loop {
            let (from, to) = (keys::outbox(partition, 0), keys::outbox(partition, u64::MAX));
            let left =
                self.blocking(move |store| store.scan(Space::Outbox, &from, &to, OUTBOX_CHUNK)).await??;
            if left.is_empty() {
                break;
            }
            let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
                let number = key.last_chunk().map(|number| u64::from_be_bytes(*number));
                number
                    .zip(outbox::decode(value))
                    .ok_or_else(|| StoreError::Unreadable("an outbox record".to_owned()))
            };
            let left = left.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            self.drain(left).await?;
        }
        self.publish().await
    }

    /// One batch, or a wait for one.
    async fn turn(&mut self) -> Result<(), ConsumeError> {
        let from = self.state.next.unwrap_or_default();
        let wait = if self.unfinished { Duration::ZERO } else { READ_WAIT };
        let limit = ReadLimit { max_records: BATCH_RECORDS, max_bytes: BATCH_BYTES, max_wait: wait };
        let mut stopping = self.shared.stopping.clone();
        let read = tokio::select! {
            read = self.shared.log.read(self.at, from, limit) => read,
            _ = stopping.wait_for(|stop| *stop) => return Err(ConsumeError::Stopping),
        };
        let records = match read {
            Ok(records) => records,
            Err(ReadError::Expired { start }) => {
                let lost = start.0.saturating_sub(from.0);
                tracing::error!(
                    partition = self.at.partition.0,
                    lost,
                    "records expired before they were processed"
                );
                self.shared.telemetry.expired.inc_by(lost);
                self.state.next = Some(start);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if records.is_empty() && !self.unfinished {
            return self.tick_if_due().await;
        }
        self.window.in_flight.store(u64::try_from(records.len()).unwrap_or_default(), Ordering::Relaxed);
        let done = self.apply(records).await;
        self.window.in_flight.store(0, Ordering::Relaxed);
        done
    }

    /// Applies, commits and appends one batch.
    async fn apply(&mut self, records: Vec<Record>) -> Result<(), ConsumeError> {
        let started = tokio::time::Instant::now();
        let shared = Arc::clone(&self.shared);
        let (partition, state, mut caches) =
            (self.at.partition, self.state.clone(), std::mem::take(&mut self.caches));
        let permit = shared.workers.acquire().await.map_err(|_| ConsumeError::Stopping)?;
        let worker = Arc::clone(&self.shared);
        let work = move || {
            let effects = effects_of(&worker, partition, &state, &mut caches, &records);
            let committed = effects.and_then(|mut effects| {
                worker.store.commit(std::mem::take(&mut effects.writes))?;
                worker.store.persist()?;
                caches.profiles.keep(std::mem::take(&mut effects.profiles));
                Ok(effects)
            });
            (committed, caches)
        };
        let (committed, caches) = tokio::task::spawn_blocking(work).await.map_err(|_| ConsumeError::Panic)?;
        drop(permit);
        self.caches = caches;
        let effects = committed?;
        self.shared.telemetry.batch(started.elapsed(), &self.state.ledger, &effects);
        self.state = effects.state;
        self.unfinished = effects.unfinished;
        self.drain(effects.records).await?;
        let now = self.shared.clock.now();
        effects.decided.iter().for_each(|received| self.shared.telemetry.decided_after(*received, now));
        self.publish().await
    }

    /// Appends records in order until the log has them, then takes them out of the outbox.
    async fn drain(&self, records: Vec<(u64, NewRecord)>) -> Result<(), ConsumeError> {
        if records.is_empty() {
            return Ok(());
        }
        let numbers: Vec<u64> = records.iter().map(|(number, _)| *number).collect();
        let mut left: Vec<NewRecord> = records.into_iter().map(|(_, record)| record).collect();
        let mut backoff = FIRST_BACKOFF;
        while !left.is_empty() {
            let Err(error) = self.append(&mut left).await else { continue };
            tracing::warn!(partition = self.at.partition.0, %error, "outputs wait");
            self.window.trouble.store(Arc::new(Some(error.to_string())));
            if self.pause(backoff).await {
                return Err(ConsumeError::Stopping);
            }
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
        let partition = self.at.partition;
        self.blocking(move |store| {
            let mut trim = WriteBatch::default();
            for number in numbers {
                trim.remove(Space::Outbox, keys::outbox(partition, number));
            }
            store.commit(trim)
        })
        .await?
        .map_err(ConsumeError::from)
    }

    /// Appends what is left and keeps of it what the log does not have yet. What the log will never take is counted and let go.
    async fn append(&self, left: &mut Vec<NewRecord>) -> Result<(), ConsumeError> {
        let answers = self.shared.log.append(left.clone(), AckLevel::Disk).await?;
        let mut waits = Ok(());
        let mut answers = answers.into_iter();
        left.retain(|_| match answers.next() {
            Some(Err(error @ RecordError::Unavailable(_))) => {
                waits = Err(error.into());
                true
            }
            Some(Err(error)) => {
                tracing::error!(partition = self.at.partition.0, %error, "the log does not take an output");
                self.shared.telemetry.refused_outputs.inc();
                false
            }
            Some(Ok(_)) | None => false,
        });
        waits
    }

    /// Shows the state, holds the log, and finds the next timer.
    async fn publish(&mut self) -> Result<(), ConsumeError> {
        let next = self.state.next.unwrap_or_default();
        self.shared.log.hold(CONSUMER, self.at, next);
        self.window.state.store(Arc::new(self.state.clone()));
        let (from, to) = keys::timers_until(self.at.partition, Timestamp(i64::MAX - 1));
        let first = self.blocking(move |store| store.scan(Space::Timer, &from, &to, 1)).await??;
        self.next_timer = first.first().and_then(|(key, _)| keys::read_timer(key)).map(|(due, _)| due);
        Ok(())
    }

    /// In a partition without events time goes on by a control record, once for each place in it.
    async fn tick_if_due(&mut self) -> Result<(), ConsumeError> {
        let now = self.shared.clock.now();
        let next = self.state.next.unwrap_or_default();
        let due = self.next_timer.is_some_and(|due| due <= now) && self.ticked != Some(next);
        if !due {
            return Ok(());
        }
        let id = EventId::control(self.at.topic.name(), self.at.partition.0, next.0, u32::MAX);
        let record = self.shared.rulebook.control_key.write(&Control::Tick, id, now, Some(self.at.partition));
        let answers = self.shared.log.append(vec![record], AckLevel::Disk).await?;
        answers.into_iter().find_map(Result::err).map_or(Ok(()), Err)?;
        self.ticked = Some(next);
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn StateStore) -> T + Send + 'static,
    ) -> Result<T, ConsumeError> {
        let store = Arc::clone(&self.shared.store);
        tokio::task::spawn_blocking(move || work(store.as_ref())).await.map_err(|_| ConsumeError::Panic)
    }
}

/// The effects of a batch. If something in it panics, its records are taken one by one, and the one that panics is put aside.
pub(crate) fn effects_of(
    shared: &Shared,
    partition: PartitionId,
    state: &PartitionState,
    caches: &mut Caches,
    records: &[Record],
) -> Result<Effects, StoreError> {
    let store = shared.store.as_ref();
    let attempt = |caches: &mut Caches, poison: &[Offset]| {
        catch_unwind(AssertUnwindSafe(|| {
            let mut work = Work::new(&shared.rulebook, store, partition, state.clone(), caches);
            for record in records {
                work.take(record, poison.contains(&record.offset))?;
            }
            work.finish()
        }))
    };
    let mut poison = Vec::new();
    loop {
        if let Ok(done) = attempt(caches, &poison) {
            return done;
        }
        caches.clear();
        // The first record whose prefix of the batch panics is the one.
        let panics = |end: usize| {
            catch_unwind(AssertUnwindSafe(|| {
                let mut caches = Caches::default();
                let mut work = Work::new(&shared.rulebook, store, partition, state.clone(), &mut caches);
                records
                    .iter()
                    .take(end)
                    .all(|record| work.take(record, poison.contains(&record.offset)).is_ok())
            }))
            .is_err()
        };
        let Some(bad) = (1..=records.len()).find(|end| panics(*end)).and_then(|end| records.get(end - 1))
        else {
            return Err(StoreError::Unavailable("a batch panicked outside its records".to_owned()));
        };
        tracing::error!(
            partition = partition.0,
            offset = bad.offset.0,
            "a record made the processor panic; it is put aside"
        );
        poison.push(bad.offset);
    }
}

impl Work<'_> {
    fn take(&mut self, record: &Record, poison: bool) -> Result<(), StoreError> {
        if poison {
            let reason = Reason::new(Code::Internal).expecting("a record that the processor can apply");
            self.poisoned(record, &reason);
            return Ok(());
        }
        self.record(record)
    }
}
