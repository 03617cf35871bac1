//! Events that wait for their verdict.
//!
//! **Invariant:** together they never hold more than [`QUEUE_BYTES`]; what goes for lack of room is of the lowest rank, oldest
//! first, and counted.

use alloc::string::String;
use alloc::vec::Vec;

use crate::id::EventId;
use crate::input::Priority;

/// Most bytes of events, in memory and in storage.
pub const QUEUE_BYTES: usize = 1 << 20;
/// Events that found no verdict for so long are discarded: the server forgets their ids.
pub const EXPIRE_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// What an event costs besides its text: key and bookkeeping.
const ENTRY_BYTES: usize = 64;

/// Where an event is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flight {
    /// Waiting here.
    Here,
    /// On the socket, in the batch of this number.
    Socket(u64),
    /// In the request of this number.
    Http(u32),
}

/// An event that waits.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: EventId,
    pub(crate) json: String,
    pub(crate) priority: Priority,
    pub(crate) flight: Flight,
    /// Not in storage: only this tab knows it.
    pub(crate) volatile: bool,
    /// Not to be sent before.
    pub(crate) not_before: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.json.len() + ENTRY_BYTES
    }
}

/// All that wait, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    entries: Vec<Entry>,
    bytes: usize,
    /// How many were discarded for lack of room, age or size.
    pub(crate) discarded: u64,
}

impl Queue {
    /// Adds an event, unless it is there. Returns the ids that had to go, perhaps its own.
    pub(crate) fn add(&mut self, entry: Entry) -> Vec<EventId> {
        let mut gone = Vec::new();
        if self.find(entry.id).is_some() {
            return gone;
        }
        self.bytes += entry.bytes();
        self.entries.push(entry);
        while self.bytes > QUEUE_BYTES {
            let least = self.entries.iter().enumerate().filter(|(_, entry)| entry.flight == Flight::Here);
            // `min_by_key` takes the first of equals, which is the oldest.
            let Some((at, _)) = least.min_by_key(|(_, entry)| entry.priority) else { break };
            let entry = self.entries.remove(at);
            self.bytes -= entry.bytes();
            self.discarded += 1;
            gone.push(entry.id);
        }
        gone
    }

    /// Takes an event out.
    pub(crate) fn remove(&mut self, id: EventId) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        let entry = self.entries.remove(at);
        self.bytes -= entry.bytes();
        Some(entry)
    }

    pub(crate) fn find(&mut self, id: EventId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn clear(&mut self) -> Vec<Entry> {
        self.bytes = 0;
        core::mem::take(&mut self.entries)
    }

    /// Brings back what is in flight where `lost` says so; nothing of it is sent before `not_before`.
    pub(crate) fn release(&mut self, not_before: u64, lost: impl Fn(Flight) -> bool) {
        for entry in &mut self.entries {
            if entry.flight != Flight::Here && lost(entry.flight) {
                entry.flight = Flight::Here;
                entry.not_before = not_before;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Mint;

    #[test]
    fn room_is_made_by_the_lowest_rank_oldest_first() {
        let mut mint = Mint::default();
        let mut queue = Queue::default();
        let mut ids = Vec::new();
        for at in 0..5_u32 {
            let id = mint.next(1, [at; 4]);
            ids.push(id);
            let priority = if at == 1 || at == 2 { Priority::BestEffort } else { Priority::Normal };
            let entry = Entry {
                id,
                json: "x".repeat(QUEUE_BYTES / 3 - 100),
                priority,
                flight: Flight::Here,
                volatile: false,
                not_before: 0,
            };
            let gone = queue.add(entry);
            let right: &[EventId] = match at {
                3 => &ids[1..2],
                4 => &ids[2..3],
                _ => &[],
            };
            assert_eq!(gone, right, "after {at}");
            assert!(queue.bytes() <= QUEUE_BYTES);
        }
        assert_eq!(queue.discarded, 2);
    }
}
