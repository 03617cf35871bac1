//! The contract that every log keeps.
//!
//! **Invariant:** records of one partition keep the order in which `append` was called for them; an offset names one record
//! for ever; a reader sees only records that survive a crash of this machine.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemas::id::EventId;
use schemas::time::Timestamp;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};
use schemas::verdict::AckLevel;
use serde::Serialize;

use crate::headers::Headers;

/// A future of the contract: boxed, so that logs can be chosen at run time.
pub type LogFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A log shared by whoever reads and appends.
pub type SharedLog = Arc<dyn Log>;

/// A record to append.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRecord {
    /// Where to.
    pub topic: Topic,
    /// Its partition is [`schemas::partition::for_key`] of this, unless `partition` says otherwise.
    pub key: Bytes,
    /// A partition chosen by the caller (control records).
    pub partition: Option<PartitionId>,
    /// Headers, in order.
    pub headers: Headers,
    /// The value.
    pub value: Bytes,
}

/// A record read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where it stands.
    pub at: TopicPartition,
    /// Its place there.
    pub offset: Offset,
    /// When it was appended, by the log's clock.
    pub appended_at: Timestamp,
    /// Its key.
    pub key: Bytes,
    /// Its headers, in order.
    pub headers: Headers,
    /// Its value; empty for a tombstone.
    pub value: Bytes,
}

impl Record {
    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name)
    }
}

/// What became of one appended record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The level reached. Never higher than the truth.
    pub level: AckLevel,
    /// Where it stands, when that is known: not yet for a record in the spool.
    pub at: Option<(PartitionId, Offset)>,
}

/// How much one read returns and how long it waits.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Most records.
    pub max_records: usize,
    /// Most bytes of keys and values; at least one record is returned however large it is.
    pub max_bytes: usize,
    /// How long to wait for the first record at the end of the partition.
    pub max_wait: Duration,
}

impl Default for ReadLimit {
    fn default() -> Self {
        Self { max_records: 500, max_bytes: 4 << 20, max_wait: Duration::from_millis(500) }
    }
}

/// One answer for each record of a batch, in order.
pub type Answers = Vec<Result<Appended, RecordError>>;

/// Why one record of a batch was not appended. It costs none of its neighbours.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// It is larger than the log takes, and always will be.
    #[error("the record has {bytes} bytes, the log takes {max}")]
    TooLarge {
        /// Its size with what the log puts around it, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// Its topic has no such partition.
    #[error("there is no partition {}", .0.0)]
    NoPartition(PartitionId),
    /// The broker did not acknowledge it; it may be written all the same. May succeed later.
    #[error("the record is not known to be written: {0}")]
    Unavailable(String),
}

/// Why a batch was not appended. Nothing of it is on the log then, as far as is known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk is near full; admission opens by itself when space is there again.
    #[error("the log is near full")]
    Full,
    /// Writing failed or the broker did not answer; may succeed later.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// The log is shutting down.
    #[error("the log is closed")]
    Closed,
}

/// Why a read failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// Records before `start` are gone by retention; go on there.
    #[error("offset is before the log's start {}", start.0)]
    Expired {
        /// The first offset there is.
        start: Offset,
    },
    /// The log has fewer records than that; it was replaced or lost its end.
    #[error("offset is beyond the log's end {}", end.0)]
    BeyondEnd {
        /// The next offset to be written.
        end: Offset,
    },
    /// Reading failed; may succeed later.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// The log is shutting down.
    #[error("the log is closed")]
    Closed,
}

/// The log's state for `/ready` and metrics.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Health {
    /// Whether `append` takes records now.
    pub admitting: bool,
    /// State of the disk part: `ok`, `full`, `failing`.
    pub disk: String,
    /// State of the broker: `ok`, `down`, or `none` when there is none.
    pub broker: String,
    /// Records that wait in the spool for the broker.
    pub spooled_records: u64,
    /// Bytes that wait in the spool for the broker.
    pub spooled_bytes: u64,
    /// Records lost to damage since start, by recovery.
    pub corrupted_records: u64,
    /// Records taken since start that their topic would not take for their size; they are in quarantine.
    pub unpublishable_records: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

/// Records that one look-up names.
pub const MAX_SIGHTINGS: usize = 1_000;

/// A record that names an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// The record.
    pub record: Record,
    /// Whether it stands where `record` says. If not, it waits in the spool: its offset is that in the spool, and its
    /// partition is not chosen yet.
    pub published: bool,
}

/// A log of topics with partitions.
pub trait Log: Send + Sync + 'static {
    /// Appends a batch in order and answers when `want` is reached, or with the highest level that was reached by the log's own
    /// deadline. One answer a record, in order: a record that is refused for a reason of its own is left out, the others are
    /// appended, on this machine all or none of them.
    fn append(&self, batch: Vec<NewRecord>, want: AckLevel) -> LogFuture<'_, Result<Answers, AppendError>>;

    /// Reads from an offset on. Waits up to `limit.max_wait` at the end, then returns an empty list.
    fn read(
        &self,
        at: TopicPartition,
        from: Offset,
        limit: ReadLimit,
    ) -> LogFuture<'_, Result<Vec<Record>, ReadError>>;

    /// The records that name an event (itself, its copy in quarantine, a decision that it triggered), oldest first in each
    /// partition, at most [`MAX_SIGHTINGS`].
    fn find(&self, event_id: EventId) -> LogFuture<'_, Result<Vec<Sighting>, ReadError>>;

    /// The oldest offset that can be read.
    fn start_offset(&self, at: TopicPartition) -> LogFuture<'_, Result<Offset, ReadError>>;

    /// The offset that the next readable record will have.
    fn end_offset(&self, at: TopicPartition) -> LogFuture<'_, Result<Offset, ReadError>>;

    /// How many partitions the topic has.
    fn partitions(&self, topic: Topic) -> LogFuture<'_, Result<u32, ReadError>>;

    /// Keeps everything from `from` on: `consumer` has not yet processed it. Retention never passes the lowest hold.
    fn hold(&self, consumer: &str, at: TopicPartition, from: Offset);

    /// The state for operators.
    fn health(&self) -> Health;

    /// Takes no more appends, answers those under way, and gives the disk what it has.
    fn close(&self) -> LogFuture<'_, ()>;
}
