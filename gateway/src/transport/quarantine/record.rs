//! A record of `rivulet.quarantine`, read back, and the way over all of them.
//!
//! **Invariant:** a record that is none of ours is passed over and counted, never an error.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::log::{ReadError, ReadLimit, Record, SharedLog};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use schemas::id::{EventId, SourceName};
use schemas::json;
use schemas::time::Timestamp;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};
use schemas::verdict::{Reason, Status};
use serde::{Deserialize, Serialize, Serializer};

/// Records in one read of the log.
const READ_RECORDS: usize = 500;
/// Bytes in one read of the log.
const READ_BYTES: usize = 4 << 20;

/// Where a record of the topic stands, as `partition:offset`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) partition: u32,
    pub(super) offset: u64,
}

impl Place {
    pub(super) const FIRST: Self = Self { partition: 0, offset: 0 };

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (partition, offset) = text.split_once(':')?;
        Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
    }

    fn topic_partition(self) -> TopicPartition {
        TopicPartition { topic: Topic::Quarantine, partition: PartitionId(self.partition) }
    }
}

impl JsonSchema for Place {
    fn schema_name() -> Cow<'static, str> {
        "Place".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]{1,9}:[0-9]{1,18}$"})
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is kept of a refused event; written by [`crate::route::quarantine_record`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Kept {
    #[serde(default)]
    pub(super) event_id: Option<EventId>,
    pub(super) received_at: Timestamp,
    pub(super) source: SourceName,
    pub(super) status: Status,
    pub(super) reason: Reason,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw_base64: Option<String>,
    /// Where personal data was replaced or dropped in `raw`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    redacted: Vec<String>,
    /// Nothing was kept, because what is personal in it could not be told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    withheld: bool,
    /// Of the whole event as it came.
    length: usize,
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sent_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user_agent: Option<String>,
}

impl Kept {
    /// The event's bytes; `None` if only a part of them, or nothing, was kept.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let bytes = match (&self.raw, &self.raw_base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(coded)) => STANDARD.decode(coded).ok()?,
            (None, None) => return None,
        };
        // A redacted event has another length; one that was cut is no object any more.
        let limits = json::Limits { max_depth: json::DEEPEST };
        let is_whole =
            bytes.len() == self.length || (!self.redacted.is_empty() && json::object(&bytes, limits).is_ok());
        is_whole.then_some(bytes)
    }
}

/// A record with its place.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[schemars(rename = "QuarantineRecord")]
pub(super) struct Found {
    pub(super) at: Place,
    #[serde(flatten)]
    pub(super) kept: Kept,
}

impl Found {
    fn of(record: &Record) -> Option<Self> {
        let kept = serde_json::from_slice(&record.value).ok()?;
        Some(Self { at: Place { partition: record.at.partition.0, offset: record.offset.0 }, kept })
    }
}

/// The record at a place, if it is there.
pub(super) async fn read_one(log: &SharedLog, at: Place) -> Result<Option<Found>, ReadError> {
    if at.partition >= log.partitions(Topic::Quarantine).await? {
        return Ok(None);
    }
    let limit = ReadLimit { max_records: 1, max_bytes: READ_BYTES, max_wait: Duration::ZERO };
    match log.read(at.topic_partition(), Offset(at.offset), limit).await {
        Ok(records) => Ok(records.iter().find(|record| record.offset.0 == at.offset).and_then(Found::of)),
        Err(ReadError::Expired { .. } | ReadError::BeyondEnd { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Walks over the topic, partition by partition, from `from` on.
pub(super) struct Walk<'a> {
    log: &'a SharedLog,
    partitions: u32,
    next: Place,
    read: VecDeque<Record>,
    /// Records looked at.
    pub(super) scanned: usize,
}

impl<'a> Walk<'a> {
    pub(super) async fn from(log: &'a SharedLog, from: Place) -> Result<Self, ReadError> {
        let partitions = log.partitions(Topic::Quarantine).await?;
        Ok(Self { log, partitions, next: from, read: VecDeque::new(), scanned: 0 })
    }

    /// The next record that can be read; `None` at the end of the topic.
    pub(super) async fn next(&mut self) -> Result<Option<Found>, ReadError> {
        loop {
            while let Some(record) = self.read.pop_front() {
                self.scanned += 1;
                self.next.offset = record.offset.0 + 1;
                if let Some(found) = Found::of(&record) {
                    return Ok(Some(found));
                }
            }
            if self.next.partition >= self.partitions {
                return Ok(None);
            }
            self.fill().await?;
        }
    }

    /// Where to go on.
    pub(super) fn position(&self) -> Option<Place> {
        (self.next.partition < self.partitions).then_some(self.next)
    }

    async fn fill(&mut self) -> Result<(), ReadError> {
        let at = self.next.topic_partition();
        let end = self.log.end_offset(at).await?;
        if self.next.offset >= end.0 {
            self.next = Place { partition: self.next.partition + 1, offset: 0 };
            return Ok(());
        }
        let limit = ReadLimit { max_records: READ_RECORDS, max_bytes: READ_BYTES, ..ReadLimit::default() };
        match self.log.read(at, Offset(self.next.offset), limit).await {
            Ok(records) if records.is_empty() => {
                self.next = Place { partition: self.next.partition + 1, offset: 0 };
            }
            Ok(records) => self.read.extend(records),
            Err(ReadError::Expired { start }) => self.next.offset = start.0,
            Err(ReadError::BeyondEnd { .. }) => {
                self.next = Place { partition: self.next.partition + 1, offset: 0 };
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// An id for an event that has none: the same at each replay.
pub(super) fn id_at(at: Place) -> EventId {
    EventId::control(Topic::Quarantine.name(), at.partition, at.offset, 0)
}

/// A JSON answer's body.
pub(super) fn body(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
