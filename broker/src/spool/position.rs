//! The file that remembers how far the spool is published.
//!
//! **Invariant:** it is replaced whole; a missing, damaged or old one costs repetitions, never a record.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use schemas::topic::{PartitionId, Topic, TopicPartition};

use crate::embedded::file::{FileLayer, read_small, replace};
use crate::embedded::{Stream, Take};

/// The file's name in the spool's folder.
pub(crate) const NAME: &str = "spool.position";
/// First bytes of the file; the last byte is the version.
const MAGIC: [u8; 8] = *b"RIVPOSN1";
/// The largest file that is believed.
const MAX_BYTES: usize = 4 << 20;

/// Positions, as offsets in the spool.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Position {
    /// Everything before this is published.
    pub(crate) low: u64,
    /// Behind the last published record of partitions that are ahead of `low`.
    pub(crate) ahead: Vec<(TopicPartition, u64)>,
    /// Partition counts that `ahead` was written under.
    pub(crate) counts: Vec<(Topic, u32)>,
}

impl Position {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.low.to_le_bytes());
        let mut places: Vec<(Stream, u64)> =
            self.ahead.iter().map(|(at, end)| (Stream::of(*at), *end)).collect();
        places.sort_unstable();
        let count = |(topic, count): &(Topic, u32)| {
            (Stream::of(TopicPartition { topic: *topic, partition: PartitionId(0) }), u64::from(*count))
        };
        let counts: Vec<(Stream, u64)> = self.counts.iter().map(count).collect();
        for list in [places, counts] {
            out.extend_from_slice(&u32::try_from(list.len()).unwrap_or(u32::MAX).to_le_bytes());
            for (stream, number) in list {
                out.push(stream.topic);
                out.extend_from_slice(&stream.partition.to_le_bytes());
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        (Take(sum).u32()? == crc32c::crc32c(content)).then_some(())?;
        let mut take = Take(content);
        (take.array::<8>()? == MAGIC).then_some(())?;
        let mut position = Self { low: take.u64()?, ..Self::default() };
        for _ in 0..take.u32()? {
            let (stream, end) = (take.stream()?, take.u64()?);
            position.ahead.push((stream.place()?, end));
        }
        for _ in 0..take.u32()? {
            let (stream, count) = (take.stream()?, take.u64()?);
            position.counts.push((stream.place()?.topic, u32::try_from(count).ok()?));
        }
        Some(position)
    }

    pub(crate) fn load(files: &dyn FileLayer, dir: &Path) -> Option<Self> {
        Self::read(&read_small(files, &dir.join(NAME), MAX_BYTES).ok()?)
    }

    pub(crate) fn store(&self, files: &dyn FileLayer, dir: &Path) -> io::Result<()> {
        replace(files, dir, NAME, &self.write())
    }

    /// `ahead` as a map, if it was written under these partition counts.
    pub(crate) fn ahead_under(&self, counts: &[(Topic, u32)]) -> Option<HashMap<TopicPartition, u64>> {
        let same =
            |(topic, count): &(Topic, u32)| counts.iter().all(|(other, now)| other != topic || now == count);
        self.counts.iter().all(same).then(|| self.ahead.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_position_reads_back_and_a_changed_one_does_not(low: u64, ends in prop::collection::vec((0_u32..9, any::<u64>()), 0..9), at: prop::sample::Index, flip in 1_u8..) {
            let place = |(partition, end): (u32, u64)| (TopicPartition { topic: Topic::Decisions, partition: PartitionId(partition) }, end);
            let mut ahead: Vec<_> = ends.into_iter().map(place).collect();
            ahead.sort_unstable();
            let position = Position { low, ahead, counts: vec![(Topic::Events, 64)] };
            let mut bytes = position.write();
            prop_assert_eq!(Position::read(&bytes), Some(position));
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(Position::read(&bytes), None);
            prop_assert_eq!(Position::read(&bytes[..at]), None);
        }
    }
}
