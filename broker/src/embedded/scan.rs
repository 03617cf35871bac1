//! Reads a segment from front to back and finds its way past damage.
//!
//! **Invariant:** every intact frame is found, whatever stands between; memory stays at one window or one frame.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::file::StoredFile;
use super::format::{FRAME_HEAD_BYTES, Head, MARKER, MAX_HEADER_BYTES, SegmentHeader};

/// How much is read at once.
const WINDOW_BYTES: usize = 256 << 10;

/// What stands at a place of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// An intact record.
    Record {
        /// Where its frame begins.
        position: u64,
        /// What it is.
        head: Head,
    },
    /// Bytes that are no record, with a record behind them.
    Damage {
        /// First byte.
        from: u64,
        /// The byte behind the last.
        to: u64,
    },
    /// Bytes that are no record, and nothing behind them.
    Tail {
        /// First byte.
        from: u64,
    },
}

/// A piece of a file in memory.
struct Window {
    file: Arc<dyn StoredFile>,
    start: u64,
    held: Vec<u8>,
    size: u64,
}

/// Goes through one segment.
pub(crate) struct Scanner {
    window: Window,
    position: u64,
    salt: u32,
}

impl Window {
    /// Up to `want` bytes at `at`; fewer only at the end of the file.
    fn get(&mut self, at: u64, want: usize) -> io::Result<&[u8]> {
        let held_end = self.start + self.held.len() as u64;
        let want_end = (at + want as u64).min(self.size);
        if at < self.start || want_end > held_end {
            let fill = usize::try_from(self.size.saturating_sub(at))
                .unwrap_or(usize::MAX)
                .min(want.max(WINDOW_BYTES));
            self.held.resize(fill, 0);
            self.held.shrink_to(WINDOW_BYTES);
            let read = self.file.read_at(&mut self.held, at)?;
            self.held.truncate(read);
            self.start = at;
        }
        let skip = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        let rest = self.held.get(skip..).unwrap_or_default();
        Ok(rest.get(..want).unwrap_or(rest))
    }
}

impl Scanner {
    /// Reads the header. Without a readable one the search for records begins at byte 0, with `salt` if it is known.
    pub(crate) fn open(
        file: Arc<dyn StoredFile>,
        salt: Option<u32>,
    ) -> io::Result<(Self, Option<SegmentHeader>)> {
        let size = file.size()?;
        let mut window = Window { file, start: 0, held: Vec::new(), size };
        let mut header = SegmentHeader::read(window.get(0, WINDOW_BYTES)?);
        if header.is_none() && size > WINDOW_BYTES as u64 {
            header = SegmentHeader::read(window.get(0, MAX_HEADER_BYTES)?);
        }
        let position = header.as_ref().map_or(0, |(_, bytes)| *bytes as u64);
        let header = header.map(|(header, _)| header);
        let salt = header.as_ref().map(|header| header.salt).or(salt).unwrap_or_default();
        Ok((Self { window, position, salt }, header))
    }

    /// The segment's size when it was opened.
    pub(crate) fn size(&self) -> u64 {
        self.window.size
    }

    /// Looks again how large the file is, for a segment that grows.
    pub(crate) fn grow(&mut self) -> io::Result<()> {
        self.window.size = self.window.file.size()?;
        Ok(())
    }

    /// Looks between two positions only; the header is passed over in any case.
    pub(crate) fn within(&mut self, from: u64, to: u64) {
        self.position = self.position.max(from);
        self.window.size = self.window.size.min(to);
    }

    /// What comes next; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Found>> {
        let from = self.position;
        if from >= self.window.size {
            return Ok(None);
        }
        if let Some(head) = self.check(from)? {
            self.position = from + head.bytes as u64;
            return Ok(Some(Found::Record { position: from, head }));
        }
        let found = self.resynchronise(from)?;
        self.position = found.unwrap_or(self.window.size);
        Ok(Some(found.map_or(Found::Tail { from }, |to| Found::Damage { from, to })))
    }

    /// Goes back to a place, to read it again.
    pub(crate) fn rewind(&mut self, position: u64) {
        self.position = position;
        self.window.held.clear();
        self.window.start = position;
    }

    /// The bytes of a frame that [`Self::next`] has found.
    pub(crate) fn frame(&mut self, position: u64, head: &Head) -> io::Result<Bytes> {
        Ok(Bytes::copy_from_slice(self.frame_bytes(position, head)?))
    }

    /// The same without a copy.
    pub(crate) fn frame_bytes(&mut self, position: u64, head: &Head) -> io::Result<&[u8]> {
        self.window.get(position, head.bytes)
    }

    /// The frame's salt.
    pub(crate) fn salt(&self) -> u32 {
        self.salt
    }

    fn check(&mut self, at: u64) -> io::Result<Option<Head>> {
        let Some(bytes) = Head::claimed_bytes(self.window.get(at, FRAME_HEAD_BYTES)?) else {
            return Ok(None);
        };
        if at + bytes as u64 > self.window.size {
            return Ok(None);
        }
        Ok(Head::check(self.window.get(at, bytes)?, self.salt))
    }

    /// The next intact frame behind `from`: where the damaged frame says it ends, else wherever a marker stands.
    fn resynchronise(&mut self, from: u64) -> io::Result<Option<u64>> {
        if let Some(bytes) = Head::claimed_bytes(self.window.get(from, FRAME_HEAD_BYTES)?) {
            let behind = from + bytes as u64;
            if behind < self.window.size && self.check(behind)?.is_some() {
                return Ok(Some(behind));
            }
        }
        let mut at = from + 1;
        while at < self.window.size {
            let bytes = self.window.get(at, WINDOW_BYTES / 2)?;
            if bytes.is_empty() {
                break;
            }
            let Some(skip) = bytes.iter().position(|byte| *byte == MARKER[0]) else {
                at += bytes.len() as u64;
                continue;
            };
            at += skip as u64;
            if self.check(at)?.is_some() {
                return Ok(Some(at));
            }
            at += 1;
        }
        Ok(None)
    }
}
