//! The journal: the log on this machine's disk.
//!
//! **Invariant:** an append answered `disk` survives a crash of the machine; readers see nothing that would not.
//!
//! [`format`](self) of the bytes: `docs/journal-format.md`. One thread writes ([`store`]); readers share its [`view`];
//! [`recovery`] makes both from a folder's content; [`reader`] reads a folder that somebody else writes.

pub mod file;
mod format;
mod ids;
mod index;
#[cfg(test)]
mod matrix;
mod queue;
pub mod reader;
mod recovery;
mod scan;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod simulation;
mod store;
mod stream;
#[cfg(test)]
mod tests;
mod view;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemas::id::EventId;
use schemas::partition;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};
use schemas::verdict::AckLevel;

#[cfg(all(test, feature = "kafka"))]
pub(crate) use self::format::Stamp;
pub(crate) use self::format::{Entry, Stored, Stream};
#[cfg(feature = "kafka")]
pub(crate) use self::format::{NOTE_BYTES, SPOOL_TOPIC, Take};
#[cfg(feature = "kafka")]
pub(crate) use self::ids::{in_folder, table};
pub(crate) use self::queue::Room;
pub(crate) use self::stream::Streams;
#[cfg(feature = "kafka")]
pub(crate) use self::view::locked;
pub use self::view::{Damage, DamageKind};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::log::{
    Answers, AppendError, Appended, Health, Log, LogFuture, NewRecord, ReadError, ReadLimit, Record,
    RecordError, Sighting,
};

/// How a journal is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalConfig {
    /// The folder; made if need be, used by one process at a time.
    pub dir: PathBuf,
    /// Partitions of every topic. Fixed when the folder is first used. 8.
    pub partitions: u32,
    /// A segment that would grow beyond this is sealed and the next one begun, in bytes, at most 1 GiB. 64 MiB.
    pub segment_bytes: u64,
    /// Segments whose newest record is older are deleted. 7 days; `None` keeps them.
    pub retention_age: Option<Duration>,
    /// The oldest segments are deleted while all together are larger, in bytes. `None` (the default) keeps them.
    pub retention_bytes: Option<u64>,
    /// Appends are refused while the disk has less free space, in bytes. 256 MiB.
    pub headroom_bytes: u64,
    /// The largest record, framing included, in bytes. 1 MiB.
    pub record_max_bytes: usize,
    /// What may wait for the writer, in bytes, at most 1 GiB; appends wait for room. 32 MiB.
    pub queue_bytes: usize,
    /// What may wait for the writer, in records. 65,536.
    pub queue_records: usize,
    /// At open the newest segments are read and checked up to this many bytes, older ones when they are read. 128 MiB.
    pub verify_bytes: u64,
}

impl JournalConfig {
    /// The defaults, in this folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            partitions: 8,
            segment_bytes: 64 << 20,
            retention_age: Some(Duration::from_hours(7 * 24)),
            retention_bytes: None,
            headroom_bytes: 256 << 20,
            record_max_bytes: 1 << 20,
            queue_bytes: 32 << 20,
            queue_records: 65_536,
            verify_bytes: 128 << 20,
        }
    }
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the folder.
    #[error(
        "`{}` is in use by another process: stop that one, or give this one another folder with --data", dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder cannot be used.
    #[error("`{}` cannot be used as a journal: {source}", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The records in a journal's folder that name an event, oldest first, at most 1,000. Takes no lock and changes nothing, so
/// that the folder may be another process's.
pub fn find_in_folder(dir: &Path, event_id: EventId) -> io::Result<Vec<Record>> {
    let record = |stored: Stored| stored.stream.place().map(|at| stored.into_record(at));
    Ok(ids::in_folder(dir, event_id)?.into_iter().filter_map(record).collect())
}

/// The log on this machine's disk.
pub struct Journal {
    streams: Streams,
}

impl Journal {
    /// Opens the folder, mends what a crash left, and starts the writer.
    pub fn open(config: JournalConfig, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_with(config, clock, Arc::new(file::RealFiles))
    }

    /// The same on another file layer.
    pub fn open_with(
        config: JournalConfig,
        clock: Arc<dyn Clock>,
        files: Arc<dyn file::FileLayer>,
    ) -> Result<Self, OpenError> {
        Ok(Self { streams: Streams::open(config, clock, files)? })
    }

    /// What the journal counts.
    pub fn counters(&self) -> Arc<Counters> {
        self.streams.counters()
    }

    /// Damage found since the journal was opened, at most 1,000 places.
    pub fn damage(&self) -> Vec<Damage> {
        self.streams.damage()
    }

    /// Partitions of every topic.
    pub fn partition_count(&self) -> u32 {
        self.streams.partitions()
    }

    fn entry(&self, record: NewRecord) -> Result<Entry, RecordError> {
        let count = self.streams.partitions();
        let partition = record.partition.unwrap_or_else(|| partition::for_key(&record.key, count));
        if partition.0 >= count {
            return Err(RecordError::NoPartition(partition));
        }
        let stream = Stream::of(TopicPartition { topic: record.topic, partition });
        Ok(Entry { stream, key: record.key, note: None, headers: record.headers, value: record.value })
    }

    fn stream(&self, at: TopicPartition) -> Result<Stream, ReadError> {
        if at.partition.0 >= self.streams.partitions() {
            return Err(ReadError::Unavailable(format!("no partition {}", at.partition.0)));
        }
        Ok(Stream::of(at))
    }
}

impl Log for Journal {
    fn append(&self, batch: Vec<NewRecord>, want: AckLevel) -> LogFuture<'_, Result<Answers, AppendError>> {
        Box::pin(async move {
            let entries = batch.into_iter().map(|record| self.entry(record)).collect();
            let pending = self.streams.append(entries, Room::Common).await?;
            if want == AckLevel::Received {
                return Ok(pending.received());
            }
            let place = |(stream, offset): (Stream, u64)| Appended {
                level: AckLevel::Disk,
                at: Some((PartitionId(stream.partition), Offset(offset))),
            };
            pending.written(place).await
        })
    }

    fn read(
        &self,
        at: TopicPartition,
        from: Offset,
        limit: ReadLimit,
    ) -> LogFuture<'_, Result<Vec<Record>, ReadError>> {
        Box::pin(async move {
            let stored = self.streams.read(self.stream(at)?, from.0, limit).await?;
            Ok(stored.into_iter().map(|stored| stored.into_record(at)).collect())
        })
    }

    fn find(&self, event_id: EventId) -> LogFuture<'_, Result<Vec<Sighting>, ReadError>> {
        Box::pin(async move {
            let sighting = |stored: Stored| {
                let at = stored.stream.place()?;
                Some(Sighting { record: stored.into_record(at), published: true })
            };
            Ok(self.streams.find(event_id).await?.into_iter().filter_map(sighting).collect())
        })
    }

    fn start_offset(&self, at: TopicPartition) -> LogFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async move { Ok(Offset(self.streams.bounds(self.stream(at)?).0)) })
    }

    fn end_offset(&self, at: TopicPartition) -> LogFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async move { Ok(Offset(self.streams.bounds(self.stream(at)?).1)) })
    }

    fn partitions(&self, _topic: Topic) -> LogFuture<'_, Result<u32, ReadError>> {
        Box::pin(async move { Ok(self.streams.partitions()) })
    }

    /// A hold beyond the end tells of records that the journal has lost; the end moves there, so that their offsets are not
    /// given to other records. So hold before anything is appended.
    fn hold(&self, consumer: &str, at: TopicPartition, from: Offset) {
        self.streams.hold(consumer, Stream::of(at), from.0);
    }

    fn health(&self) -> Health {
        self.streams.health()
    }

    fn close(&self) -> LogFuture<'_, ()> {
        Box::pin(self.streams.close())
    }
}

impl Stored {
    pub(crate) fn into_record(self, at: TopicPartition) -> Record {
        Record {
            at,
            offset: Offset(self.stamp.offset),
            appended_at: self.stamp.appended_at,
            key: self.key,
            headers: self.headers,
            value: self.value,
        }
    }
}
