//! The journal without topics: streams of records, for the embedded log and for the spool.
//!
//! **Invariant:** one writer thread a folder; it ends, and the folder's lock with it, when this is closed or dropped.

use std::hash::{BuildHasher, RandomState};
use std::io;
#[cfg(feature = "kafka")]
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use schemas::id::EventId;
use schemas::verdict::AckLevel;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use super::file::FileLayer;
use super::format::{Entry, State, Stored, Stream};
use super::ids::{self, Keeper};
use super::queue::{Job, Queue, Room, Work};
use super::recovery::{self, LOCK_NAME};
use super::store::{IDLE, Places, Store};
use super::view::{Damage, Shared, locked};
use super::{JournalConfig, OpenError};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::log::{Answers, AppendError, Appended, Health, ReadError, ReadLimit, RecordError};

/// The largest segment and queue: positions in a segment have 32 bits.
const MOST_BYTES: u64 = 1 << 30;
/// The smallest segment.
const LEAST_SEGMENT_BYTES: u64 = 4 << 10;

/// Streams in a folder.
pub(crate) struct Streams {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    room_bytes: Arc<Semaphore>,
    room_records: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// A batch in the writer's queue.
pub(crate) struct Pending {
    /// How many of its records are in the queue.
    taken: usize,
    /// The others, by their place in the batch, rising.
    refused: Vec<(usize, RecordError)>,
    written: oneshot::Receiver<Result<Places, AppendError>>,
}

impl Pending {
    /// How many records are in the queue.
    #[cfg(feature = "kafka")]
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// The answers without waiting for the writer.
    pub(crate) fn received(self) -> Answers {
        merge(vec![Appended { level: AckLevel::Received, at: None }; self.taken], self.refused)
    }

    /// Waits for the fsync. `answer` makes one of each place.
    pub(crate) async fn written<T>(
        self,
        answer: impl Fn((Stream, u64)) -> T,
    ) -> Result<Vec<Result<T, RecordError>>, AppendError> {
        let places = self.written.await.map_err(|_| AppendError::Closed)??;
        Ok(merge(places.into_iter().map(answer), self.refused))
    }
}

impl Streams {
    pub(crate) fn open(
        config: JournalConfig,
        clock: Arc<dyn Clock>,
        files: Arc<dyn FileLayer>,
    ) -> Result<Self, OpenError> {
        let dir = config.dir.clone();
        let failed = |source: io::Error| OpenError::Io { dir: dir.clone(), source };
        let (config, lock) = prepare(config, &*files).map_err(failed)?;
        let Some(lock) = lock else { return Err(OpenError::Locked { dir }) };
        let store = open_store(config, clock, files, fresh_salt()).map_err(failed)?;
        let shared = store.shared();
        let queue = Arc::new(Queue::default());
        let writer = std::thread::Builder::new().name("journal".to_owned()).spawn({
            let queue = Arc::clone(&queue);
            move || {
                let keeper = Keeper::start(store.shared());
                write_all(store, &queue);
                drop(keeper);
                drop(lock);
            }
        });
        Ok(Self {
            room_bytes: Arc::new(Semaphore::new(shared.config.queue_bytes)),
            room_records: Arc::new(Semaphore::new(shared.config.queue_records)),
            shared,
            queue,
            writer: Mutex::new(Some(writer.map_err(failed)?)),
        })
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }

    pub(crate) fn damage(&self) -> Vec<Damage> {
        locked(&self.shared.damages).clone()
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.shared.state.partitions
    }

    #[cfg(feature = "kafka")]
    pub(crate) fn dir(&self) -> &Path {
        &self.shared.config.dir
    }

    #[cfg(feature = "kafka")]
    pub(crate) fn salt(&self) -> u32 {
        self.shared.state.salt
    }

    /// Whether there is more space than what is kept free.
    #[cfg(feature = "kafka")]
    pub(crate) fn roomy(&self) -> bool {
        Store::roomy(&self.shared)
    }

    #[cfg(feature = "kafka")]
    pub(crate) fn files(&self) -> &dyn FileLayer {
        &*self.shared.files
    }

    /// Puts a batch into the writer's queue, waiting for room. Entries refused already, and those too large, are left out of
    /// it and answered in their places.
    pub(crate) async fn append(
        &self,
        batch: Vec<Result<Entry, RecordError>>,
        room: Room,
    ) -> Result<Pending, AppendError> {
        let config = &self.shared.config;
        let (mut bytes, mut refused) = (0, Vec::new());
        let mut entries = Vec::with_capacity(batch.len());
        for (index, entry) in batch.into_iter().enumerate() {
            match entry.and_then(|entry| fitting(entry, config.record_max_bytes)) {
                Ok((entry, size)) => {
                    entries.push(entry);
                    bytes += size;
                }
                Err(error) => refused.push((index, error)),
            }
        }
        let taken = entries.len();
        // A batch larger than the queue takes all of it.
        let bytes = u32::try_from(bytes.min(config.queue_bytes)).unwrap_or(u32::MAX);
        let records = u32::try_from(entries.len().min(config.queue_records)).unwrap_or(u32::MAX);
        let closed = |_| AppendError::Closed;
        let room_records =
            Arc::clone(&self.room_records).acquire_many_owned(records).await.map_err(closed)?;
        let room_bytes = Arc::clone(&self.room_bytes).acquire_many_owned(bytes).await.map_err(closed)?;
        let (answer, written) = oneshot::channel();
        let job = Job { entries, answer, room, _queued: [room_records, room_bytes] };
        self.queue.push(job).map_err(|_| AppendError::Closed)?;
        Ok(Pending { taken, refused, written })
    }

    /// The largest record that is taken, framing included, in bytes.
    #[cfg(feature = "kafka")]
    pub(crate) fn record_max_bytes(&self) -> usize {
        self.shared.config.record_max_bytes
    }

    /// Reads a stream from an offset on; waits at its end.
    pub(crate) async fn read(
        &self,
        stream: Stream,
        from: u64,
        limit: ReadLimit,
    ) -> Result<Vec<Stored>, ReadError> {
        let deadline = Instant::now() + limit.max_wait;
        let bell = self.shared.bell(stream);
        loop {
            let rung = bell.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            let (start, end) = self.shared.bounds(stream);
            if from < start {
                return Err(ReadError::Expired { start: schemas::topic::Offset(start) });
            }
            if from > end {
                return Err(ReadError::BeyondEnd { end: schemas::topic::Offset(end) });
            }
            if from < end {
                let shared = Arc::clone(&self.shared);
                let fetch = move || shared.fetch(stream, from, limit.max_records, limit.max_bytes);
                let records = tokio::task::spawn_blocking(fetch).await.map_err(|_| ReadError::Closed)??;
                if !records.is_empty() {
                    return Ok(records);
                }
            }
            if timeout_at(deadline, rung).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    /// The records that name an event, oldest first.
    pub(crate) async fn find(&self, event_id: EventId) -> Result<Vec<Stored>, ReadError> {
        let shared = Arc::clone(&self.shared);
        let find = move || ids::in_view(&shared, event_id);
        let found = tokio::task::spawn_blocking(find).await.map_err(|_| ReadError::Closed)?;
        found.map_err(|error| ReadError::Unavailable(error.kind().to_string()))
    }

    /// The oldest offset there is, and the next one.
    pub(crate) fn bounds(&self, stream: Stream) -> (u64, u64) {
        self.shared.bounds(stream)
    }

    pub(crate) fn hold(&self, consumer: &str, stream: Stream, from: u64) {
        self.shared.hold(consumer, stream, from);
    }

    #[cfg(feature = "kafka")]
    /// Asks the writer to delete what is free to go.
    pub(crate) fn retain(&self) {
        self.queue.retain();
    }

    pub(crate) fn health(&self) -> Health {
        let roomy = Store::roomy(&self.shared);
        let failing = self.shared.failing.load(Ordering::Relaxed);
        let disk = if !roomy {
            "full"
        } else if failing {
            "failing"
        } else {
            "ok"
        };
        let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
        let sealed: u64 = view.sealed.iter().map(|segment| segment.summary.bytes).sum();
        Health {
            admitting: roomy && !self.queue.closed(),
            disk: disk.to_owned(),
            broker: "none".to_owned(),
            spooled_records: 0,
            spooled_bytes: 0,
            corrupted_records: self.shared.counters.corrupted_records.get(),
            unpublishable_records: 0,
            disk_bytes: sealed + view.active.as_ref().map_or(0, |active| active.bytes),
        }
    }

    pub(crate) async fn close(&self) {
        self.queue.close();
        self.room_bytes.close();
        self.room_records.close();
        let writer = locked(&self.writer).take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = locked(&self.writer).take() {
            let _ = writer.join();
        }
    }
}

/// The entry with its size, unless that is too large.
fn fitting(entry: Entry, max: usize) -> Result<(Entry, usize), RecordError> {
    let bytes = entry.frame_bytes();
    if bytes > max || !entry.fits() { Err(RecordError::TooLarge { bytes, max }) } else { Ok((entry, bytes)) }
}

/// Puts the refused back into their places between those taken.
fn merge<T>(
    taken: impl IntoIterator<Item = T>,
    refused: Vec<(usize, RecordError)>,
) -> Vec<Result<T, RecordError>> {
    let mut answers: Vec<_> = taken.into_iter().map(Ok).collect();
    for (place, error) in refused {
        // Places rise, so everything before this one is there.
        answers.insert(place.min(answers.len()), Err(error));
    }
    answers
}

/// Makes the folder, takes its lock and puts the numbers into their ranges.
fn prepare(
    mut config: JournalConfig,
    files: &dyn FileLayer,
) -> io::Result<(JournalConfig, Option<Box<dyn Send>>)> {
    files.create_dir_all(&config.dir)?;
    config.segment_bytes = config.segment_bytes.clamp(LEAST_SEGMENT_BYTES, MOST_BYTES);
    let most = usize::try_from(MOST_BYTES).unwrap_or(usize::MAX);
    config.queue_bytes = config.queue_bytes.clamp(1, most.min(Semaphore::MAX_PERMITS));
    config.queue_records = config.queue_records.clamp(1, most.min(Semaphore::MAX_PERMITS));
    config.partitions = config.partitions.max(1);
    let lock = files.lock(&config.dir.join(LOCK_NAME))?;
    Ok((config, lock))
}

/// Recovers the folder. Without a thread, for tests too.
pub(crate) fn open_store(
    config: JournalConfig,
    clock: Arc<dyn Clock>,
    files: Arc<dyn FileLayer>,
    salt: u32,
) -> io::Result<Store> {
    let fresh = State { salt, partitions: config.partitions, newest: 0 };
    let mut recovered = recovery::recover(&*files, &config, clock.now(), fresh)?;
    if recovered.state.partitions != config.partitions {
        let (kept, asked) = (recovered.state.partitions, config.partitions);
        tracing::warn!(kept, asked, "a journal's partition count is fixed when it is made; keeping it");
    }
    let shared = Arc::new(Shared::new(config, files, clock, &mut recovered));
    Ok(Store::new(shared, recovered))
}

/// A number that senders cannot know. The standard library's hasher keys are random for every process.
#[expect(clippy::cast_possible_truncation, reason = "any 32 bits will do")]
fn fresh_salt() -> u32 {
    RandomState::new().hash_one(LOCK_NAME) as u32
}

fn write_all(mut store: Store, queue: &Queue) {
    loop {
        match queue.take(IDLE) {
            Work::Write(jobs) => {
                let group: Vec<&[Entry]> = jobs.iter().map(|job| job.entries.as_slice()).collect();
                match store.commit(&group, Room::Common) {
                    Ok(places) => {
                        let mut group = Vec::with_capacity(jobs.len());
                        for (job, places) in jobs.into_iter().zip(places) {
                            let _ = job.answer.send(Ok(places));
                            group.push(job.entries);
                        }
                        store.note(&group);
                    }
                    Err(error) => jobs.into_iter().for_each(|job| fail(&mut store, job, &error)),
                }
            }
            Work::Retain => store.retain(),
            Work::Idle => store.idle(),
            Work::End => {
                store.seal();
                return;
            }
        }
    }
}

/// Answers a batch whose group was not written; one that makes room is written all the same.
fn fail(store: &mut Store, job: Job, error: &AppendError) {
    if *error != AppendError::Full || job.room != Room::Headroom {
        let _ = job.answer.send(Err(error.clone()));
        return;
    }
    let written = store.commit(&[&job.entries], Room::Headroom);
    let noted = written.is_ok();
    let _ = job.answer.send(written.map(|places| places.concat()));
    if noted {
        store.note(&[job.entries]);
    }
}
