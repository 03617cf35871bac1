//! Reads a journal's folder without its lock, also while another process writes it.
//!
//! **Invariant:** reads only; a torn tail, a growing segment and one that is deleted meanwhile end or shorten the answer but
//! never make it fail.

use std::io;
use std::path::{Path, PathBuf};

use schemas::topic::{Offset, TopicPartition};

use super::file::{FileLayer, RealFiles, read_small};
use super::format::{State, Stored, Stream};
use super::recovery::{STATE_NAME, segment_name, segments};
use super::scan::{Found, Scanner};
use crate::log::Record;

/// Goes through all records of a folder in the order in which they were written.
pub struct Reader {
    dir: PathBuf,
    only: Option<Stream>,
    topic: Option<u8>,
    from: u64,
    salt: Option<u32>,
    current: Option<(u64, Scanner)>,
    done: Option<u64>,
}

impl Reader {
    /// All records of all topics.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let state =
            read_small(&RealFiles, &dir.join(STATE_NAME), 4096).ok().and_then(|bytes| State::read(&bytes));
        segments(&RealFiles, dir)?;
        let salt = state.map(|state| state.salt);
        Ok(Self { dir: dir.to_owned(), only: None, topic: None, from: 0, salt, current: None, done: None })
    }

    /// Only records of one topic, of all its partitions.
    #[must_use]
    pub fn topic(mut self, topic: schemas::topic::Topic) -> Self {
        let at = TopicPartition { topic, partition: schemas::topic::PartitionId(0) };
        self.topic = Some(Stream::of(at).topic);
        self
    }

    /// Only records of one partition, from an offset on.
    #[must_use]
    pub fn partition(mut self, at: TopicPartition, from: Offset) -> Self {
        self.only = Some(Stream::of(at));
        self.from = from.0;
        self
    }

    /// The next record; `None` at the present end. Asking again later goes on there.
    pub fn next_record(&mut self) -> io::Result<Option<Record>> {
        loop {
            if self.current.is_none() && !self.advance()? {
                return Ok(None);
            }
            let Some((number, scanner)) = self.current.as_mut() else { return Ok(None) };
            let number = *number;
            match scanner.next()? {
                Some(Found::Record { position, head }) => {
                    let frame = scanner.frame(position, &head)?;
                    let Some(stored) = Stored::read(&frame, scanner.salt()) else { continue };
                    if let Some(record) = self.wanted(stored) {
                        return Ok(Some(record));
                    }
                }
                Some(Found::Damage { .. }) => {}
                Some(Found::Tail { from }) => {
                    // Perhaps it is being written: look again from there, later.
                    if self.newer(number)?.is_some() {
                        self.leave(number);
                    } else {
                        if let Some((_, scanner)) = self.current.as_mut() {
                            scanner.rewind(from);
                            scanner.grow()?;
                        }
                        return Ok(None);
                    }
                }
                None => {
                    let newer = self.newer(number)?;
                    if let Some((_, scanner)) = self.current.as_mut() {
                        let size = scanner.size();
                        scanner.grow()?;
                        if scanner.size() > size {
                            continue;
                        }
                    }
                    if newer.is_none() {
                        return Ok(None);
                    }
                    self.leave(number);
                }
            }
        }
    }

    fn wanted(&self, stored: Stored) -> Option<Record> {
        let stream = stored.stream;
        if self.topic.is_some_and(|topic| topic != stream.topic) {
            return None;
        }
        if self.only.is_some_and(|only| only != stream || stored.stamp.offset < self.from) {
            return None;
        }
        Some(stored.into_record(stream.place()?))
    }

    fn leave(&mut self, number: u64) {
        self.done = Some(number);
        self.current = None;
    }

    fn newer(&self, number: u64) -> io::Result<Option<u64>> {
        Ok(segments(&RealFiles, &self.dir)?.into_iter().map(|(other, _)| other).find(|other| *other > number))
    }

    /// Opens the next segment, if there is one.
    fn advance(&mut self) -> io::Result<bool> {
        loop {
            let next = match self.done {
                None => segments(&RealFiles, &self.dir)?.first().map(|(number, _)| *number),
                Some(done) => self.newer(done)?,
            };
            let Some(number) = next else { return Ok(false) };
            let opened = RealFiles.open(&self.dir.join(segment_name(number)));
            match opened.and_then(|file| Scanner::open(file, self.salt)) {
                Ok((scanner, header)) => {
                    if header.is_none() && self.newer(number)?.is_none() && scanner.size() == 0 {
                        return Ok(false);
                    }
                    self.salt = self.salt.or(header.map(|header| header.salt));
                    self.current = Some((number, scanner));
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.done = Some(number),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Iterator for Reader {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}
