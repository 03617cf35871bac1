//! The forms of keys and small values in the store.
//!
//! **Invariant:** keys of one partition are neighbours in order of time or number; integers are big-endian.

use schemas::id::{EventId, ProfileKey, ProfileKind, SourceName};
use schemas::time::Timestamp;
use schemas::topic::{Offset, PartitionId};
use sha2::{Digest, Sha256};

/// First byte of dedup entries by id.
const BY_ID: u8 = 0;
/// First byte of dedup entries by hour.
const BY_HOUR: u8 = 1;
/// Milliseconds of a dedup bucket.
pub(crate) const BUCKET_MS: i64 = 3_600_000;

/// `profile`: kind, id.
pub(crate) fn profile(key: &ProfileKey) -> Vec<u8> {
    let kind = if key.kind == ProfileKind::User { b'u' } else { b'a' };
    [&[kind], key.id.as_bytes()].concat()
}

/// `meta`: the partition's state.
pub(crate) fn meta(partition: PartitionId) -> Vec<u8> {
    [&b"p"[..], &partition.0.to_be_bytes()].concat()
}

/// `timer`: partition, time, profile.
pub(crate) fn timer(partition: PartitionId, due: Timestamp, key: &ProfileKey) -> Vec<u8> {
    [&partition.0.to_be_bytes()[..], &sortable(due.0), key.to_string().as_bytes()].concat()
}

/// The timers of a partition up to and including `now`.
pub(crate) fn timers_until(partition: PartitionId, now: Timestamp) -> (Vec<u8>, Vec<u8>) {
    let prefix = partition.0.to_be_bytes();
    (prefix.to_vec(), [&prefix[..], &sortable(now.0.saturating_add(1))].concat())
}

/// Time and profile of a timer's key.
pub(crate) fn read_timer(key: &[u8]) -> Option<(Timestamp, ProfileKey)> {
    let due = i64::from_be_bytes(key.get(4..12)?.try_into().ok()?);
    let text = std::str::from_utf8(key.get(12..)?).ok()?;
    Some((Timestamp(due ^ i64::MIN), ProfileKey::parse(text)?))
}

/// `outbox`: partition, number.
pub(crate) fn outbox(partition: PartitionId, number: u64) -> Vec<u8> {
    [&partition.0.to_be_bytes()[..], &number.to_be_bytes()].concat()
}

/// A negative time stands before a positive one.
fn sortable(value: i64) -> [u8; 8] {
    (value ^ i64::MIN).to_be_bytes()
}

/// What an event id is unique within.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Scope([u8; 16]);

impl Scope {
    /// The scope of a client's events: profile key and source.
    pub(crate) fn of(key: &ProfileKey, source: &SourceName) -> Self {
        let kind = if key.kind == ProfileKind::User { "user:" } else { "anonymous:" };
        // The text form of the key, without making it.
        Self(digest(&[kind.as_bytes(), key.id.as_bytes(), b"\0", source.as_str().as_bytes()]))
    }

    /// The scope of control records.
    pub(crate) fn control() -> Self {
        Self([0; 16])
    }
}

/// The first 16 bytes of SHA-256.
pub(crate) fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let full = hash.finalize();
    let mut half = [0; 16];
    half.iter_mut().zip(full).for_each(|(to, from)| *to = from);
    half
}

/// `dedup`: by id and scope.
pub(crate) fn dedup(id: EventId, scope: Scope) -> Vec<u8> {
    [&[BY_ID], &id.as_bytes()[..], &scope.0].concat()
}

/// All scopes of an id.
pub(crate) fn dedup_of(id: EventId) -> (Vec<u8>, Vec<u8>) {
    let from = dedup(id, Scope([0; 16]));
    let mut to = dedup(id, Scope([0xff; 16]));
    to.push(0);
    (from, to)
}

/// `dedup`: the same by partition and hour; ends with the key by id.
pub(crate) fn bucket(partition: PartitionId, at: Timestamp, by_id: &[u8]) -> Vec<u8> {
    [&[BY_HOUR], &partition.0.to_be_bytes()[..], &sortable(at.0.div_euclid(BUCKET_MS)), by_id].concat()
}

/// The buckets of a partition whose hour ended before `before`.
pub(crate) fn buckets_before(partition: PartitionId, before: Timestamp) -> (Vec<u8>, Vec<u8>) {
    let prefix = [&[BY_HOUR], &partition.0.to_be_bytes()[..]].concat();
    let to = [&prefix[..], &sortable(before.0.div_euclid(BUCKET_MS))].concat();
    (prefix, to)
}

/// The key by id at the end of a bucket's key.
pub(crate) fn by_id_of_bucket(key: &[u8]) -> Option<&[u8]> {
    key.get(13..)
}

/// Where an event was applied first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) received_at: Timestamp,
    pub(crate) body: [u8; 16],
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) late: bool,
}

impl Seen {
    pub(crate) fn write(&self) -> Vec<u8> {
        let Self { received_at, body, partition, offset, late } = self;
        [
            &received_at.0.to_be_bytes()[..],
            body,
            &partition.0.to_be_bytes(),
            &offset.0.to_be_bytes(),
            &[u8::from(*late)],
        ]
        .concat()
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (received_at, rest) = bytes.split_first_chunk()?;
        let (body, rest) = rest.split_first_chunk()?;
        let (partition, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        Some(Self {
            received_at: Timestamp(i64::from_be_bytes(*received_at)),
            body: *body,
            partition: PartitionId(u32::from_be_bytes(*partition)),
            offset: Offset(u64::from_be_bytes(*offset)),
            late: *rest.first()? != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_keys_read_back_and_sort_by_time() {
        let seen = Seen {
            received_at: Timestamp(5),
            body: [7; 16],
            partition: PartitionId(3),
            offset: Offset(9),
            late: true,
        };
        assert_eq!(Seen::read(&seen.write()), Some(seen));
        assert_eq!(Seen::read(&[1, 2]), None);
        for text in ["user:a:b", "anonymous:x"] {
            let key = ProfileKey::parse(text).unwrap();
            let written = digest(&[text.as_bytes(), b"\0web"]);
            assert_eq!(
                Scope::of(&key, &SourceName::new("web")),
                Scope(written),
                "stored ids are known by it"
            );
        }
        let key = ProfileKey::parse("user:a:b").unwrap();
        let one = timer(PartitionId(1), Timestamp(-5), &key);
        let two = timer(PartitionId(1), Timestamp(5), &key);
        assert!(one < two);
        assert_eq!(read_timer(&two), Some((Timestamp(5), key)));
        let (from, to) = timers_until(PartitionId(1), Timestamp(5));
        assert!(from < one && two < to);
        let by_id = dedup(EventId::from_bytes([1; 16]), Scope::control());
        let bucket = bucket(PartitionId(2), Timestamp(BUCKET_MS), &by_id);
        assert_eq!(by_id_of_bucket(&bucket), Some(&by_id[..]));
        let (from, to) = buckets_before(PartitionId(2), Timestamp(2 * BUCKET_MS));
        assert!(from < bucket && bucket < to);
    }
}
