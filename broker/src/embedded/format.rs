//! Bytes of the journal: segment header, record frame, state file. `docs/journal-format.md` is the specification.
//!
//! **Invariant:** whatever bytes are read, decoding answers with a value that was written or with `None`; a frame is taken
//! only when marker, length, checksum and every inner length agree. Checksums are salted, so that nobody who only chooses
//! keys and values can place bytes in a record that pass for a frame when the journal is searched after damage.

use bytes::Bytes;
use schemas::time::Timestamp;
use schemas::topic::{PartitionId, Topic, TopicPartition};

use crate::headers::{self, Headers};

/// First bytes of a segment; the last byte is the version.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"RIVJSEG1";
/// First bytes of the state file; the last byte is the version.
const STATE_MAGIC: [u8; 8] = *b"RIVJSTA1";
/// First bytes of a frame. `ff` occurs nowhere in UTF-8.
pub(crate) const MARKER: [u8; 4] = [0xff, b'R', b'V', 0xfe];
/// Marker, length, checksum.
pub(crate) const FRAME_HEAD_BYTES: usize = 12;
/// The part of a frame's body before key, headers and value.
const FIXED_BYTES: usize = 8 + 1 + 4 + 8 + 8 + 4 + 2;
/// The smallest frame there is.
pub(crate) const MIN_FRAME_BYTES: usize = FRAME_HEAD_BYTES + FIXED_BYTES;
/// The largest body that is believed; more comes from a damaged length.
pub(crate) const MAX_BODY_BYTES: usize = 64 << 20;
/// The largest segment header that is believed.
pub(crate) const MAX_HEADER_BYTES: usize = 1 << 20;
/// Bytes of the spool's note: topic, whether a partition was chosen, which.
pub(crate) const NOTE_BYTES: usize = 6;
/// The topic number of the spool's only stream, outside [`Topic::ALL`].
pub(crate) const SPOOL_TOPIC: u8 = 255;

/// A topic's number and a partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Stream {
    pub(crate) topic: u8,
    pub(crate) partition: u32,
}

/// A record to write.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) stream: Stream,
    pub(crate) key: Bytes,
    /// A first header without a name: the spool's note.
    pub(crate) note: Option<[u8; NOTE_BYTES]>,
    pub(crate) headers: Headers,
    pub(crate) value: Bytes,
}

/// What the journal adds to a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    pub(crate) appended_at: Timestamp,
}

/// A checked frame, without its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) stream: Stream,
    pub(crate) stamp: Stamp,
    /// Bytes of the whole frame.
    pub(crate) bytes: usize,
}

/// A record read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    pub(crate) stream: Stream,
    pub(crate) stamp: Stamp,
    pub(crate) key: Bytes,
    pub(crate) headers: Headers,
    pub(crate) value: Bytes,
}

/// What stands at the start of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) salt: u32,
    /// Sequence of the first record.
    pub(crate) first_sequence: u64,
    /// Every record before this sequence was fsynced when the segment was made; those of earlier segments from here on were
    /// never acknowledged and do not count.
    pub(crate) synced_before: u64,
    pub(crate) created_at: Timestamp,
    /// The next offset of every stream there was.
    pub(crate) next: Vec<(Stream, u64)>,
}

/// What the state file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State {
    pub(crate) salt: u32,
    pub(crate) partitions: u32,
    /// The newest segment that was ever written to.
    pub(crate) newest: u64,
}

impl Stream {
    pub(crate) fn of(at: TopicPartition) -> Self {
        let topic = Topic::ALL.iter().position(|topic| *topic == at.topic).unwrap_or_default();
        Self { topic: u8::try_from(topic).unwrap_or(SPOOL_TOPIC), partition: at.partition.0 }
    }

    pub(crate) fn place(self) -> Option<TopicPartition> {
        let topic = *Topic::ALL.get(usize::from(self.topic))?;
        Some(TopicPartition { topic, partition: PartitionId(self.partition) })
    }
}

impl Entry {
    /// Bytes of the frame that holds it.
    pub(crate) fn frame_bytes(&self) -> usize {
        let note = if self.note.is_some() { 6 + NOTE_BYTES } else { 0 };
        MIN_FRAME_BYTES + self.key.len() + note + self.headers.as_bytes().len() + self.value.len()
    }

    /// Whether every length fits its field.
    pub(crate) fn fits(&self) -> bool {
        (self.note.is_none() || self.headers.len() < u16::MAX)
            && self.frame_bytes() - FRAME_HEAD_BYTES <= MAX_BODY_BYTES
    }

    /// Appends the frame to `out`.
    #[expect(clippy::cast_possible_truncation, reason = "`fits` is checked when a record is taken")]
    pub(crate) fn write(&self, stamp: Stamp, salt: u32, out: &mut Vec<u8>) {
        let length = ((self.frame_bytes() - FRAME_HEAD_BYTES) as u32).to_le_bytes();
        out.extend_from_slice(&MARKER);
        out.extend_from_slice(&length);
        let checksum_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let body_at = out.len();
        out.extend_from_slice(&stamp.sequence.to_le_bytes());
        out.push(self.stream.topic);
        out.extend_from_slice(&self.stream.partition.to_le_bytes());
        out.extend_from_slice(&stamp.offset.to_le_bytes());
        out.extend_from_slice(&stamp.appended_at.0.to_le_bytes());
        out.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.headers.len() + u16::from(self.note.is_some())).to_le_bytes());
        out.extend_from_slice(&self.key);
        if let Some(note) = &self.note {
            headers::encode(out, "", note);
        }
        out.extend_from_slice(self.headers.as_bytes());
        out.extend_from_slice(&self.value);
        let checksum = checksum(salt, length, out.get(body_at..).unwrap_or_default());
        if let Some(place) = out.get_mut(checksum_at..body_at) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

impl Head {
    /// The length that the first bytes of a frame claim, head included, if they look like one.
    pub(crate) fn claimed_bytes(bytes: &[u8]) -> Option<usize> {
        let mut take = Take(bytes);
        (take.array::<4>()? == MARKER).then_some(())?;
        let length = take.u32()? as usize;
        (FIXED_BYTES..=MAX_BODY_BYTES).contains(&length).then_some(FRAME_HEAD_BYTES + length)
    }

    /// Checks the frame at the start of `bytes`.
    pub(crate) fn check(bytes: &[u8], salt: u32) -> Option<Self> {
        let frame = bytes.get(..Self::claimed_bytes(bytes)?)?;
        let mut take = Take(frame.get(4..)?);
        let length = take.array::<4>()?;
        let sum = take.u32()?;
        (checksum(salt, length, take.0) == sum).then_some(())?;
        let (stream, stamp) = take.stamp()?;
        Some(Self { stream, stamp, bytes: frame.len() })
    }
}

impl Stored {
    /// Checks and reads the one frame that `frame` is. The parts share its memory.
    pub(crate) fn read(frame: &Bytes, salt: u32) -> Option<Self> {
        let head = Head::check(frame, salt)?;
        let mut take = Take(frame.get(FRAME_HEAD_BYTES..head.bytes)?);
        let (stream, stamp) = take.stamp()?;
        let key_bytes = take.u32()? as usize;
        let count = usize::from(take.u16()?);
        let key = frame.slice_ref(take.bytes(key_bytes)?);
        let from = take.0;
        for _ in 0..count {
            let name_bytes = usize::from(take.u16()?);
            take.bytes(name_bytes)?;
            let value_bytes = take.u32()? as usize;
            take.bytes(value_bytes)?;
        }
        let headers = Headers::read(frame.slice_ref(from.get(..from.len() - take.0.len())?))?;
        Some(Self { stream, stamp, key, headers, value: frame.slice_ref(take.0) })
    }
}

impl SegmentHeader {
    pub(crate) fn write(&self) -> Vec<u8> {
        let length = 8 + 4 + 8 + 4 + 8 + 8 + 8 + 4 + self.next.len() * 13 + 4;
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.first_sequence.to_le_bytes());
        out.extend_from_slice(&self.synced_before.to_le_bytes());
        out.extend_from_slice(&self.created_at.0.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.next.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (stream, next) in &self.next {
            out.push(stream.topic);
            out.extend_from_slice(&stream.partition.to_le_bytes());
            out.extend_from_slice(&next.to_le_bytes());
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Reads the header at the start of `bytes`, and its length.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut take = Take(bytes);
        (take.array::<8>()? == SEGMENT_MAGIC).then_some(())?;
        let length = take.u32()? as usize;
        let (content, sum) = bytes.get(..length)?.split_at_checked(length.checked_sub(4)?)?;
        (Take(sum).u32()? == crc32c::crc32c(content)).then_some(())?;
        let mut take = Take(content.get(12..)?);
        let mut header = Self {
            number: take.u64()?,
            salt: take.u32()?,
            first_sequence: take.u64()?,
            synced_before: take.u64()?,
            created_at: Timestamp(take.i64()?),
            next: Vec::new(),
        };
        for _ in 0..take.u32()? {
            header.next.push((take.stream()?, take.u64()?));
        }
        Some((header, length))
    }
}

impl State {
    pub(crate) fn write(self) -> Vec<u8> {
        let mut out = STATE_MAGIC.to_vec();
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.partitions.to_le_bytes());
        out.extend_from_slice(&self.newest.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        (Take(sum).u32()? == crc32c::crc32c(content)).then_some(())?;
        let mut take = Take(content);
        (take.array::<8>()? == STATE_MAGIC).then_some(())?;
        Some(Self { salt: take.u32()?, partitions: take.u32()?, newest: take.u64()? })
    }
}

fn checksum(salt: u32, length: [u8; 4], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &length), body)
}

/// Reads from the front of a slice; `None` when there is too little.
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn stream(&mut self) -> Option<Stream> {
        Some(Stream { topic: self.u8()?, partition: self.u32()? })
    }

    pub(crate) fn stamp(&mut self) -> Option<(Stream, Stamp)> {
        let sequence = self.u64()?;
        let stream = self.stream()?;
        let stamp = Stamp { sequence, offset: self.u64()?, appended_at: Timestamp(self.i64()?) };
        Some((stream, stamp))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Entry> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..80).prop_map(Bytes::from);
        let headers = prop::collection::vec(("[a-z_]{0,12}", bytes()), 0..5);
        (any::<u8>(), any::<u32>(), bytes(), headers, bytes()).prop_map(
            |(topic, partition, key, headers, value)| Entry {
                stream: Stream { topic, partition },
                key,
                note: None,
                headers: Headers::of(headers),
                value,
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(entry in entries(), sequence: u64, offset: u64, at: i64, salt: u32) {
            let stamp = Stamp { sequence, offset, appended_at: Timestamp(at) };
            let mut out = Vec::new();
            entry.write(stamp, salt, &mut out);
            prop_assert_eq!(out.len(), entry.frame_bytes());
            let stored = Stored::read(&Bytes::from(out), salt).unwrap();
            prop_assert_eq!(stored.stamp, stamp);
            prop_assert_eq!((stored.stream, stored.key, stored.headers, stored.value), (entry.stream, entry.key, entry.headers, entry.value));
        }

        #[test]
        fn a_changed_byte_or_another_salt_is_noticed(entry in entries(), at: prop::sample::Index, flip in 1_u8.., salt: u32) {
            let stamp = Stamp { sequence: 1, offset: 2, appended_at: Timestamp(3) };
            let mut out = Vec::new();
            entry.write(stamp, salt, &mut out);
            prop_assert!(Head::check(&out, salt ^ 1).is_none());
            let at = at.index(out.len());
            out[at] ^= flip;
            prop_assert!(Stored::read(&Bytes::from(out), salt).is_none());
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), salt: u32) {
            let _ = Head::check(&bytes, salt);
            let _ = SegmentHeader::read(&bytes);
            let _ = State::read(&bytes);
            let _ = Stored::read(&Bytes::from(bytes), salt);
        }

        #[test]
        fn a_header_reads_back(number: u64, salt: u32, next in prop::collection::vec((any::<u8>(), any::<u32>(), any::<u64>()), 0..20)) {
            let next = next.into_iter().map(|(topic, partition, next)| (Stream { topic, partition }, next)).collect();
            let header = SegmentHeader { number, salt, first_sequence: 4, synced_before: 3, created_at: Timestamp(9), next };
            let bytes = header.write();
            prop_assert_eq!(SegmentHeader::read(&bytes), Some((header, bytes.len())));
            let state = State { salt, partitions: 8, newest: number };
            prop_assert_eq!(State::read(&state.write()), Some(state));
        }
    }
}
