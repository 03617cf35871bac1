//! Events that wait for their verdict.
//!
//! **Invariant:** together they never hold more than [`QUEUE_BYTES`], but for what is on its way; what goes for lack of room is of
//! the lowest rank, oldest first.

use alloc::string::String;
use alloc::vec::Vec;

use crate::event;
use crate::input::{Millis, Priority};

/// Most bytes of events, in memory and in storage.
pub const QUEUE_BYTES: usize = 1 << 20;
/// Events that found no verdict for so long are discarded: the server forgets their ids.
pub const EXPIRE_MS: Millis = 7.0 * 24.0 * 60.0 * 60.0 * 1000.0;
/// What an event costs besides its text: key and bookkeeping.
const ENTRY_BYTES: usize = 64;

/// Where an event is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flight {
    /// Waiting here.
    Here,
    /// On the socket, in the batch of this number.
    Socket(u32),
    /// In the request of this number.
    Http(u32),
}

/// An event that waits.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) json: String,
    pub(crate) priority: Priority,
    /// When it was tracked.
    pub(crate) made: Millis,
    pub(crate) flight: Flight,
    /// Not in storage: only this tab knows it.
    pub(crate) volatile: bool,
    /// Not to be sent before.
    pub(crate) not_before: Millis,
}

impl Entry {
    pub(crate) fn id(&self) -> &str {
        event::id(&self.json)
    }

    fn bytes(&self) -> usize {
        self.json.len() + ENTRY_BYTES
    }
}

/// All that wait, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) entries: Vec<Entry>,
    pub(crate) bytes: usize,
}

impl Queue {
    /// Where the event of this id stands.
    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.id() == id)
    }

    pub(crate) fn add(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push(entry);
    }

    /// Takes an event out.
    pub(crate) fn take(&mut self, at: usize) -> Option<Entry> {
        let entry = take_at(&mut self.entries, at)?;
        self.bytes -= entry.bytes();
        Some(entry)
    }

    /// What has to go for lack of room.
    pub(crate) fn least(&self) -> Option<usize> {
        if self.bytes <= QUEUE_BYTES {
            return None;
        }
        let mut least = None;
        for (at, entry) in self.entries.iter().enumerate() {
            let lower = least.is_none_or(|(_, priority)| entry.priority < priority);
            if entry.flight == Flight::Here && lower {
                least = Some((at, entry.priority));
            }
        }
        least.map(|(at, _)| at)
    }

    /// How many are on this flight.
    pub(crate) fn count(&self, flight: Flight) -> usize {
        self.entries.iter().filter(|entry| entry.flight == flight).count()
    }

    /// Brings back what is on this flight.
    pub(crate) fn release(&mut self, flight: Flight) {
        for entry in &mut self.entries {
            if entry.flight == flight {
                entry.flight = Flight::Here;
            }
        }
    }
}

/// Takes an element out and keeps the order of the rest. (`Vec::remove` brings the standard library's formatting along, to say how it
/// panics.)
pub(crate) fn take_at<T>(list: &mut Vec<T>, at: usize) -> Option<T> {
    let mut rest = list.iter_mut().skip(at);
    let mut place = rest.next()?;
    for next in rest {
        core::mem::swap(place, next);
        place = next;
    }
    list.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_by_the_lowest_rank_oldest_first() {
        let mut queue = Queue::default();
        for at in 0..5_u32 {
            let priority = if at == 1 || at == 2 { Priority::BestEffort } else { Priority::Normal };
            let mut json = alloc::format!("{at}");
            json.push_str(&"x".repeat(QUEUE_BYTES / 3 - 100));
            queue.add(Entry {
                json,
                priority,
                made: 0.0,
                flight: Flight::Here,
                volatile: false,
                not_before: 0.0,
            });
            let gone =
                queue.least().and_then(|at| queue.take(at)).map(|entry| String::from(&entry.json[..1]));
            let right = match at {
                3 => Some("1"),
                4 => Some("2"),
                _ => None,
            };
            assert_eq!(gone.as_deref(), right, "after {at}");
            assert!(queue.bytes <= QUEUE_BYTES);
        }
    }
}
