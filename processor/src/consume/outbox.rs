//! Records that wait in the store until the log has them.
//!
//! **Invariant:** what was committed to the outbox is appended at least once and in order; each carries its idempotency key.

use broker::headers::Headers;
use broker::log::NewRecord;
use bytes::Bytes;
use processor_core::output::SessionClosed;
use processor_core::profile::view::{ObjectWriter, to_json};
use processor_core::{Change, Outputs};
use schemas::header;
use schemas::id::{EventId, ProfileKey};
use schemas::time::Timestamp;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};

use crate::control::ControlKey;

/// What gave rise to a record, for its idempotency key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cause {
    pub(crate) at: TopicPartition,
    pub(crate) offset: Offset,
    /// The event, if it was one.
    pub(crate) event: Option<EventId>,
    /// The partition's time.
    pub(crate) now: Timestamp,
}

impl Cause {
    /// The id of the `n`-th record of this cause.
    pub(crate) fn id(&self, n: u32) -> EventId {
        EventId::control(self.at.topic.name(), self.at.partition.0, self.offset.0, n)
    }
}

/// The records of a step's outputs: sessions that ended, changes, decisions, control records.
pub(crate) fn records(
    out: &Outputs,
    key: &ProfileKey,
    cause: Cause,
    control_key: &ControlKey,
) -> Vec<NewRecord> {
    let mut records: Vec<NewRecord> =
        out.closed.iter().map(|closed| session_closed(closed, key, cause.at.partition)).collect();
    let mut n = 0;
    if !out.changes.is_empty() {
        records.push(changes(&out.changes, key, cause, n));
        n += 1;
    }
    for decision in &out.decisions {
        let id = decision.decision_id.to_string();
        records.push(output(Topic::Decisions, key, &id, to_json(decision)));
    }
    for control in &out.controls {
        records.push(control_key.write(control, cause.id(n), cause.now, None));
        n += 1;
    }
    records
}

/// What a change takes beside its name and values.
const CHANGE_BYTES: usize = 32;
/// What a record of changes takes beside them and its key.
const ENVELOPE_BYTES: usize = 256;

fn changes(changes: &[Change], key: &ProfileKey, cause: Cause, n: u32) -> NewRecord {
    let change = |object: ObjectWriter, Change { name, old, new }: &Change| {
        let [old, new] = [old, new].map(|json| json.as_deref().unwrap_or("null"));
        object.text("name", name).raw("old", old).raw("new", new)
    };
    let position = ObjectWriter::default()
        .text("topic", cause.at.topic.name())
        .value("partition", &cause.at.partition)
        .value("offset", &cause.offset)
        .end();
    let room = changes.iter().map(|change| {
        let length = |json: &Option<String>| json.as_ref().map_or(4, String::len);
        change.name.len() + length(&change.old) + length(&change.new) + CHANGE_BYTES
    });
    let value = ObjectWriter::with_room(room.sum::<usize>() + key.id.len() + ENVELOPE_BYTES)
        .value("profile", key)
        .value("cause", &cause.event)
        .raw("position", &position)
        .value("at", &cause.now)
        .objects("changes", changes, change)
        .end();
    output(Topic::Profiles, key, &cause.id(n).to_string(), value)
}

/// Its id depends on the session alone: it may be told by the next event or by a timer, whichever is first.
fn session_closed(closed: &SessionClosed, key: &ProfileKey, partition: PartitionId) -> NewRecord {
    let session = &closed.session;
    let cause = format!("session\0{key}\0{}\0{}", session.id, session.started_at.0);
    let at = u64::try_from(closed.closed_at.0).unwrap_or_default();
    let id = EventId::control(&cause, partition.0, at, u32::try_from(session.events).unwrap_or(u32::MAX));
    let value = ObjectWriter::default()
        .value("profile", key)
        .value("type", "session.closed")
        .raw("session", &session.attribute())
        .value("corrected", &closed.corrected)
        .value("closed_at", &closed.closed_at)
        .end();
    output(Topic::Profiles, key, &id.to_string(), value)
}

/// A record of ours to a topic, by profile key.
fn output(topic: Topic, key: &ProfileKey, id: &str, value: String) -> NewRecord {
    NewRecord {
        topic,
        key: Bytes::copy_from_slice(key.record_key().as_bytes()),
        partition: None,
        headers: Headers::of([
            (header::CONTENT_TYPE, header::CONTENT_TYPE_JSON),
            (header::IDEMPOTENCY_KEY, id),
        ]),
        value: Bytes::from(value),
    }
}

/// A record as the store keeps it: topic, partition, then each part with its length.
pub(crate) fn encode(record: &NewRecord, bytes: &mut Vec<u8>) {
    bytes.reserve(record.key.len() + record.value.len() + 128);
    let topic =
        Topic::ALL.iter().position(|topic| *topic == record.topic).and_then(|at| u8::try_from(at).ok());
    bytes.push(topic.unwrap_or(u8::MAX));
    let partition = record.partition.map_or(u32::MAX, |partition| partition.0);
    bytes.extend_from_slice(&partition.to_be_bytes());
    let mut part = |data: &[u8]| {
        bytes.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(data);
    };
    part(&record.key);
    part(&record.value);
    for (name, value) in &record.headers {
        part(name.as_bytes());
        part(value);
    }
}

/// Reads it back.
pub(crate) fn decode(bytes: &[u8]) -> Option<NewRecord> {
    let (topic, rest) = bytes.split_first()?;
    let (partition, rest) = rest.split_first_chunk()?;
    let partition = u32::from_be_bytes(*partition);
    let mut parts = Vec::new();
    let mut rest = rest;
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk()?;
        let (data, tail) = tail.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        parts.push(Bytes::copy_from_slice(data));
        rest = tail;
    }
    let (key, parts) = parts.split_first()?;
    let (value, parts) = parts.split_first()?;
    Some(NewRecord {
        topic: *Topic::ALL.get(usize::from(*topic))?,
        key: key.clone(),
        partition: (partition != u32::MAX).then_some(PartitionId(partition)),
        headers: Headers::of(parts.chunks(2).map(header).collect::<Option<Vec<_>>>()?),
        value: value.clone(),
    })
}

fn header(pair: &[Bytes]) -> Option<(&str, &Bytes)> {
    match pair {
        [name, value] => Some((std::str::from_utf8(name).ok()?, value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_read_back_and_odd_bytes_do_not_panic(
            topic in 0_usize..6, partition in proptest::option::of(0_u32..9), key in ".*",
            value in prop::collection::vec(any::<u8>(), 0..50), headers in prop::collection::vec((".*", ".*"), 0..3), any in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let record = NewRecord {
                topic: Topic::ALL[topic],
                key: Bytes::from(key),
                partition: partition.map(PartitionId),
                headers: Headers::of(headers),
                value: Bytes::from(value),
            };
            let mut bytes = Vec::new();
            encode(&record, &mut bytes);
            prop_assert_eq!(decode(&bytes), Some(record));
            let _ = decode(&any);
        }
    }
}
