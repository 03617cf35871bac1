//! Where the records of a stream stand in one segment.
//!
//! **Invariant:** entries of a stream rise in offset; an index file that is cut, changed or belongs to another state of its
//! segment reads as `None` and is made anew from the segment.

use std::collections::BTreeMap;

use schemas::time::Timestamp;

use super::format::{Stream, Take};

/// First bytes of an index file; the last byte is the version.
const INDEX_MAGIC: [u8; 8] = *b"RIVJIDX1";

/// One record: offset above the stream's base, position and length of its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    above: u32,
    position: u32,
    bytes: u32,
}

/// A record's frame in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spot {
    pub(crate) offset: u64,
    pub(crate) position: u64,
    pub(crate) bytes: usize,
}

/// Offsets of a stream in a segment, half open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) end: u64,
}

/// The index of one segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Index {
    streams: BTreeMap<Stream, (u64, Vec<Entry>)>,
}

/// What is known of a whole segment besides its index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Summary {
    pub(crate) number: u64,
    /// Bytes of the segment file that this describes.
    pub(crate) bytes: u64,
    pub(crate) first_sequence: u64,
    /// The sequence behind the last record.
    pub(crate) end_sequence: u64,
    pub(crate) last_appended_at: Timestamp,
}

impl Index {
    /// Whether [`Self::push`] can take this offset: it must not lie too far from the stream's first.
    pub(crate) fn takes(&self, stream: Stream, offset: u64) -> bool {
        self.streams.get(&stream).is_none_or(|(base, _)| u32::try_from(offset.saturating_sub(*base)).is_ok())
    }

    /// The streams that have records here.
    pub(crate) fn streams(&self) -> impl Iterator<Item = Stream> {
        self.streams.keys().copied()
    }

    /// Adds a record behind the others of its stream. One that does not rise or fit is left out.
    pub(crate) fn push(&mut self, stream: Stream, spot: Spot) {
        let (base, entries) = self.streams.entry(stream).or_insert_with(|| (spot.offset, Vec::new()));
        let above = spot.offset.checked_sub(*base).and_then(|above| u32::try_from(above).ok());
        let rises = |above: u32| entries.last().is_none_or(|last| last.above < above);
        if let (Some(above), Ok(position), Ok(bytes)) =
            (above, u32::try_from(spot.position), u32::try_from(spot.bytes))
            && rises(above)
        {
            entries.push(Entry { above, position, bytes });
        }
    }

    /// Records of a stream at or behind `offset`, until `take` records or `max_bytes`; always one, if there is one.
    pub(crate) fn find(&self, stream: Stream, offset: u64, take: usize, max_bytes: usize) -> Vec<Spot> {
        let Some((base, entries)) = self.streams.get(&stream) else { return Vec::new() };
        let start = entries.partition_point(|entry| base + u64::from(entry.above) < offset);
        let mut bytes = 0;
        let spots = entries.get(start..).unwrap_or_default().iter().take(take.max(1)).map(|entry| Spot {
            offset: base + u64::from(entry.above),
            position: u64::from(entry.position),
            bytes: entry.bytes as usize,
        });
        spots
            .take_while(|spot| {
                let fits = bytes == 0 || bytes + spot.bytes <= max_bytes;
                bytes += spot.bytes;
                fits
            })
            .collect()
    }

    /// What offsets each stream has here.
    pub(crate) fn spans(&self) -> BTreeMap<Stream, Span> {
        let span = |(base, entries): &(u64, Vec<Entry>)| {
            let last = entries.last()?;
            Some(Span { first: *base, end: base + u64::from(last.above) + 1 })
        };
        self.streams.iter().filter_map(|(stream, content)| Some((*stream, span(content)?))).collect()
    }

    /// Frees what the vectors hold in advance.
    pub(crate) fn shrink(&mut self) {
        for (_, entries) in self.streams.values_mut() {
            entries.shrink_to_fit();
        }
    }

    /// The index file's bytes.
    pub(crate) fn write(&self, summary: &Summary) -> Vec<u8> {
        let mut out = INDEX_MAGIC.to_vec();
        for number in [summary.number, summary.bytes, summary.first_sequence, summary.end_sequence] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&summary.last_appended_at.0.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.streams.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (stream, (base, entries)) in &self.streams {
            out.push(stream.topic);
            out.extend_from_slice(&stream.partition.to_le_bytes());
            out.extend_from_slice(&base.to_le_bytes());
            out.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
            for entry in entries {
                for number in [entry.above, entry.position, entry.bytes] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Reads an index file.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Summary, Self)> {
        let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        (Take(sum).u32()? == crc32c::crc32c(content)).then_some(())?;
        let mut take = Take(content);
        (take.array::<8>()? == INDEX_MAGIC).then_some(())?;
        let summary = Summary {
            number: take.u64()?,
            bytes: take.u64()?,
            first_sequence: take.u64()?,
            end_sequence: take.u64()?,
            last_appended_at: Timestamp(take.i64()?),
        };
        let mut index = Self::default();
        for _ in 0..take.u32()? {
            let (stream, base, count) = (take.stream()?, take.u64()?, take.u32()? as usize);
            let mut entries = Vec::with_capacity(count.min(take.0.len() / 12));
            for _ in 0..count {
                entries.push(Entry { above: take.u32()?, position: take.u32()?, bytes: take.u32()? });
            }
            index.streams.insert(stream, (base, entries));
        }
        Some((summary, index))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: Stream = Stream { topic: 0, partition: 3 };

    fn index(gaps: &[u32]) -> Index {
        let mut index = Index::default();
        let (mut offset, mut position) = (7, 100);
        for gap in gaps {
            index.push(STREAM, Spot { offset, position, bytes: 50 });
            offset += 1 + u64::from(*gap);
            position += 50;
        }
        index
    }

    proptest! {
        #[test]
        fn an_index_file_reads_back_and_a_changed_one_does_not(gaps in prop::collection::vec(0_u32..5, 0..50), at: prop::sample::Index, flip in 1_u8..) {
            let index = index(&gaps);
            let summary = Summary { number: 1, bytes: 2, first_sequence: 3, end_sequence: 4, last_appended_at: Timestamp(5) };
            let mut bytes = index.write(&summary);
            prop_assert_eq!(Index::read(&bytes), Some((summary, index)));
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(Index::read(&bytes), None);
            prop_assert_eq!(Index::read(&bytes[..at]), None);
        }

        #[test]
        fn find_gives_what_a_scan_of_all_records_would(gaps in prop::collection::vec(0_u32..5, 0..50), from in 0_u64..300, take in 1_usize..9, max_bytes in 0_usize..400) {
            let index = index(&gaps);
            let all = index.find(STREAM, 0, usize::MAX, usize::MAX);
            prop_assert_eq!(all.len(), gaps.len());
            let right: Vec<_> = all.into_iter().filter(|spot| spot.offset >= from).take(take.min((max_bytes / 50).max(1))).collect();
            prop_assert_eq!(index.find(STREAM, from, take, max_bytes), right);
        }
    }
}
