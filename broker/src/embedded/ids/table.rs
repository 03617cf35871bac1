//! A sorted table of numbers in a file: found by one page or two, held in memory by none.
//!
//! **Invariant:** each page carries its own checksum, bound to this file and to its place; whatever bytes the file holds, a
//! look-up answers what was written or fails, and ends. `docs/journal-format.md` is the specification.

use std::io;
use std::sync::Arc;

use crate::embedded::file::StoredFile;
use crate::embedded::format::Take;

/// First bytes of a table; the last byte is the version.
const MAGIC: [u8; 8] = *b"RIVJIDS1";
/// Heading and pages have this size.
const PAGE_BYTES: usize = 4096;
/// A page's checksum.
const SUM_BYTES: usize = 4;
/// Bytes of the number that an entry is filed under.
const NUMBER_BYTES: usize = 8;
/// Pages that are written at once.
const PAGES_TOGETHER: usize = 64;
/// Pages tried around the place where an evenly spread number should stand, before the range is halved.
const GUESSES: u32 = 4;

/// What a table is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Heading {
    /// The salt of its numbers.
    pub(crate) salt: u32,
    /// What it belongs to: for a segment its number and its size in bytes.
    pub(crate) owner: [u64; 2],
}

/// An entry: the number it is filed under, and what stands there.
pub(crate) type Filed<const W: usize> = (u64, [u8; W]);

/// An open table whose entries have `W` bytes besides their number.
pub(crate) struct Table<const W: usize> {
    file: Arc<dyn StoredFile>,
    pub(crate) heading: Heading,
    count: u64,
    /// The heading's checksum, with which those of the pages begin.
    sum: u32,
}

const fn entries_per_page(width: usize) -> usize {
    (PAGE_BYTES - SUM_BYTES) / (NUMBER_BYTES + width)
}

/// Writes a table into an empty file. The entries are sorted on the way.
pub(crate) fn write<const W: usize>(
    file: &dyn StoredFile,
    heading: Heading,
    entries: &mut [Filed<W>],
) -> io::Result<()> {
    entries.sort_unstable();
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&heading.salt.to_le_bytes());
    out.extend_from_slice(&u32::try_from(W).unwrap_or(u32::MAX).to_le_bytes());
    for number in [heading.owner[0], heading.owner[1], entries.len() as u64] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let sum = crc32c::crc32c(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out.resize(PAGE_BYTES, 0);
    for (number, entries) in entries.chunks(entries_per_page(W)).enumerate() {
        let start = out.len();
        out.extend_from_slice(&[0; SUM_BYTES]);
        for (number, rest) in entries {
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(rest);
        }
        out.resize(start + PAGE_BYTES, 0);
        let checksum = page_sum(sum, number as u64, out.get(start + SUM_BYTES..).unwrap_or_default());
        if let Some(place) = out.get_mut(start..start + SUM_BYTES) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
        if out.len() >= PAGES_TOGETHER * PAGE_BYTES {
            file.append(&out)?;
            out.clear();
        }
    }
    if out.is_empty() { Ok(()) } else { file.append(&out) }
}

fn page_sum(heading: u32, number: u64, content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(heading, &number.to_le_bytes()), content)
}

impl<const W: usize> Table<W> {
    /// Reads the heading. `InvalidData` when this is no table of ours, or is not whole.
    pub(crate) fn open(file: Arc<dyn StoredFile>) -> io::Result<Self> {
        let mut head = [0; PAGE_BYTES];
        let read = file.read_at(&mut head, 0)?;
        let parsed = head.get(..read).and_then(Self::heading).ok_or(io::ErrorKind::InvalidData)?;
        let (heading, count, sum) = parsed;
        let table = Self { file, heading, count, sum };
        let bytes = table.pages().checked_add(1).and_then(|pages| pages.checked_mul(PAGE_BYTES as u64));
        if bytes == Some(table.file.size()?) { Ok(table) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn heading(bytes: &[u8]) -> Option<(Heading, u64, u32)> {
        let mut take = Take(bytes);
        (take.array::<8>()? == MAGIC).then_some(())?;
        let salt = take.u32()?;
        (usize::try_from(take.u32()?).ok()? == W).then_some(())?;
        let owner = [take.u64()?, take.u64()?];
        let count = take.u64()?;
        let sum = crc32c::crc32c(bytes.get(..bytes.len().checked_sub(take.0.len())?)?);
        (take.u32()? == sum).then_some((Heading { salt, owner }, count, sum))
    }

    fn pages(&self) -> u64 {
        self.count.div_ceil(entries_per_page(W) as u64)
    }

    /// The entries of a page, rising; never none.
    fn page(&self, number: u64) -> io::Result<Vec<Filed<W>>> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let mut bytes = [0; PAGE_BYTES];
        let at = number.checked_add(1).and_then(|page| page.checked_mul(PAGE_BYTES as u64));
        if self.file.read_at(&mut bytes, at.ok_or_else(damaged)?)? < PAGE_BYTES {
            return Err(damaged());
        }
        let mut take = Take(&bytes);
        let sum = take.u32().ok_or_else(damaged)?;
        if sum != page_sum(self.sum, number, take.0) {
            return Err(damaged());
        }
        let per_page = entries_per_page(W);
        let before = number.checked_mul(per_page as u64).and_then(|before| self.count.checked_sub(before));
        let here = usize::try_from(before.ok_or_else(damaged)?).unwrap_or(usize::MAX).min(per_page);
        let entry = |take: &mut Take<'_>| Some((take.u64()?, take.array()?));
        let entries: Option<Vec<_>> = (0..here).map(|_| entry(&mut take)).collect();
        entries.filter(|entries| !entries.is_empty()).ok_or_else(damaged)
    }

    /// What is filed under a number, at most `most` entries. `InvalidData` when a page that matters is damaged.
    pub(crate) fn find(&self, number: u64, most: usize) -> io::Result<Vec<[u8; W]>> {
        let (mut low, mut high) = (0, self.pages());
        let mut guess = u64::try_from((u128::from(number) * u128::from(high)) >> 64).unwrap_or(0);
        let mut guesses = 0;
        while low < high {
            guesses += 1;
            let at = if guesses <= GUESSES { guess.clamp(low, high - 1) } else { low.midpoint(high) };
            let entries = self.page(at)?;
            let (first, last) = (entries.first().map(|entry| entry.0), entries.last().map(|entry| entry.0));
            if first > Some(number) {
                high = at;
                guess = at.saturating_sub(1);
            } else if last < Some(number) {
                low = at + 1;
                guess = low;
            } else {
                return self.gather(number, at, &entries, most);
            }
        }
        Ok(Vec::new())
    }

    /// The entries under a number on this page and, where they reach its edges, on its neighbours.
    fn gather(&self, number: u64, at: u64, here: &[Filed<W>], most: usize) -> io::Result<Vec<[u8; W]>> {
        let take = |entries: &[Filed<W>], found: &mut Vec<[u8; W]>| {
            let same = entries.iter().filter(|entry| entry.0 == number).map(|entry| entry.1);
            let room = most.saturating_sub(found.len());
            found.extend(same.take(room));
        };
        let reaches = |edge: Option<&Filed<W>>| edge.is_some_and(|entry| entry.0 == number);
        let mut found = Vec::new();
        take(here, &mut found);
        let (mut page, mut on) = (at, reaches(here.first()));
        while on && page > 0 && found.len() < most {
            page -= 1;
            let entries = self.page(page)?;
            take(&entries, &mut found);
            on = reaches(entries.first());
        }
        (page, on) = (at + 1, reaches(here.last()));
        while on && page < self.pages() && found.len() < most {
            let entries = self.page(page)?;
            take(&entries, &mut found);
            on = reaches(entries.last());
            page += 1;
        }
        found.sort_unstable();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::embedded::file::FileLayer;
    use crate::embedded::simulated::{Disk, Faults};

    const HEADING: Heading = Heading { salt: 7, owner: [3, 4_096] };

    /// A file with these bytes.
    fn file(bytes: &[u8]) -> Arc<dyn StoredFile> {
        let file = Disk::new(1, Faults::default()).files().create(Path::new("/t")).unwrap();
        file.append(bytes).unwrap();
        file
    }

    fn written(entries: &[Filed<4>]) -> Vec<u8> {
        let file = file(&[]);
        write(&*file, HEADING, &mut entries.to_vec()).unwrap();
        let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn right(entries: &[Filed<4>], number: u64) -> Vec<[u8; 4]> {
        let mut right: Vec<[u8; 4]> =
            entries.iter().filter(|entry| entry.0 == number).map(|entry| entry.1).collect();
        right.sort_unstable();
        right
    }

    /// Spread over all numbers, crowded into few, or the same one over and over.
    fn entries() -> impl Strategy<Value = Vec<Filed<4>>> {
        let number = prop_oneof![3 => any::<u64>(), 2 => 0_u64..50, 1 => Just(u64::MAX)];
        prop_oneof![
            prop::collection::vec((number, any::<[u8; 4]>()), 0..1_500),
            prop::collection::vec((Just(9_u64), any::<[u8; 4]>()), 0..2_000),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn every_entry_is_found_and_nothing_else(entries in entries(), other: u64, most in 1_usize..9) {
            let table = Table::<4>::open(file(&written(&entries))).unwrap();
            prop_assert_eq!(table.heading, HEADING);
            for number in entries.iter().map(|entry| entry.0).take(25).chain([other, 0, u64::MAX]) {
                prop_assert_eq!(table.find(number, usize::MAX).unwrap(), right(&entries, number));
                let few = table.find(number, most).unwrap();
                prop_assert_eq!(few.len(), right(&entries, number).len().min(most));
            }
        }

        #[test]
        fn a_damaged_table_answers_right_or_not_at_all(
            entries in entries(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = written(&entries);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let Ok(table) = Table::<4>::open(file(&bytes)) else { return Ok(()) };
            for number in entries.iter().map(|entry| entry.0).take(25) {
                if let Ok(found) = table.find(number, usize::MAX) {
                    prop_assert_eq!(found, right(&entries, number));
                }
            }
        }

        /// Bytes by somebody who knows the checksums.
        #[test]
        fn a_hostile_table_ends_every_look_up(count: u64, pages in prop::collection::vec(prop::collection::vec(any::<u8>(), PAGE_BYTES - SUM_BYTES), 0..6), number: u64) {
            let mut bytes = written(&[]);
            let count = if pages.is_empty() { count } else { pages.len() as u64 * entries_per_page(4) as u64 };
            bytes[32..40].copy_from_slice(&count.to_le_bytes());
            let sum = crc32c::crc32c(&bytes[..40]);
            bytes[40..44].copy_from_slice(&sum.to_le_bytes());
            for (at, page) in pages.iter().enumerate() {
                bytes.extend_from_slice(&page_sum(sum, at as u64, page).to_le_bytes());
                bytes.extend_from_slice(page);
            }
            if let Ok(table) = Table::<4>::open(file(&bytes)) {
                let _ = table.find(number, usize::MAX);
                let _ = table.find(u64::from_le_bytes(pages.first().map_or([0; 8], |page| page[..8].try_into().unwrap())), 3);
            }
        }

        #[test]
        fn any_bytes_are_no_table_or_one_that_can_be_asked(bytes in prop::collection::vec(any::<u8>(), 0..9_000), number: u64) {
            if let Ok(table) = Table::<4>::open(file(&bytes)) {
                let _ = table.find(number, 10);
            }
        }
    }
}
