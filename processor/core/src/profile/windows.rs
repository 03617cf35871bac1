//! The newest event times a key: exact thresholds in O(K) bytes.
//!
//! "At least K within W" holds iff the K-th newest time is inside the half-open window `(t - W, t]`. Times are kept sorted, so a
//! late event stands where it belongs; an event counts once by its id, so same-millisecond events are as many as they are.
//!
//! **Invariant:** a cell holds exactly the K newest (time, event id) of its key that were seen (property test against a full
//! recount), and cells are merged without an order.

use std::collections::BTreeMap;

use schemas::id::EventId;
use schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::{Length, Wire as _, wire};

/// Keys kept a window; the one least recently seen makes room.
pub const MAX_KEYS: usize = 64;

/// The newest times of one key, oldest first. Times are milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cell(Vec<(i64, EventId)>);

wire!(Cell[0]);

impl Cell {
    /// The newest time.
    pub fn newest(&self) -> Option<Timestamp> {
        self.0.last().map(|(at, _)| Timestamp(*at))
    }

    /// The newest event and its time.
    pub fn last(&self) -> Option<(Timestamp, EventId)> {
        self.0.last().map(|(at, id)| (Timestamp(*at), *id))
    }

    /// Of the `k` newest, those at one instant.
    pub fn at(&self, at: Timestamp, k: usize) -> &[(i64, EventId)] {
        let kept = self.0.get(self.0.len().saturating_sub(k)..).unwrap_or(&[]);
        kept.get(kept.partition_point(|(time, _)| *time < at.0)..).unwrap_or(&[])
    }

    /// Whether the event is among those kept.
    pub fn holds(&self, event: EventId) -> bool {
        self.0.iter().rev().any(|(_, id)| *id == event)
    }

    /// The times and ids inside `(t - within, t]`, oldest first, at most the K newest.
    pub fn inside(&self, t: Timestamp, within_ms: i64) -> &[(i64, EventId)] {
        let from = self.0.partition_point(|(at, _)| *at <= t.0.saturating_sub(within_ms));
        let to = self.0.partition_point(|(at, _)| *at <= t.0);
        self.0.get(from..to.max(from)).unwrap_or(&[])
    }

    fn insert(&mut self, at: i64, id: EventId, k: usize) {
        if self.holds(id) {
            return;
        }
        let place = self.0.partition_point(|entry| *entry < (at, id));
        self.0.insert(place, (at, id));
        if self.0.len() > k {
            self.0.drain(..self.0.len() - k);
        }
    }
}

/// The cells of one window.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Window {
    /// Times kept a cell.
    k: usize,
    cells: BTreeMap<String, Cell>,
    #[serde(default)]
    evicted: u64,
}

wire!(Window { k, cells, evicted });

impl Window {
    fn shrink(&mut self) -> u64 {
        let mut gone = 0;
        while self.cells.len() > MAX_KEYS {
            let oldest = self.cells.iter().min_by_key(|(key, cell)| (cell.newest(), key.as_str()));
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
            self.cells.remove(&key);
            gone += 1;
        }
        self.evicted += gone;
        gone
    }
}

/// All windows of a profile, by what they count ([`crate::rules::WindowId`]).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Windows(BTreeMap<String, Window>);

wire!(Windows[0]);

impl Windows {
    /// The cell of a key.
    pub fn cell(&self, window: &str, key: &str) -> Option<&Cell> {
        self.0.get(window)?.cells.get(key)
    }

    /// All cells of a window.
    pub fn cells(&self, window: &str) -> impl Iterator<Item = (&str, &Cell)> {
        self.0
            .get(window)
            .into_iter()
            .flat_map(|window| window.cells.iter())
            .map(|(key, cell)| (key.as_str(), cell))
    }

    /// Counts an event; gives how many keys made room.
    pub(crate) fn insert(&mut self, window: &str, key: &str, at: Timestamp, event: EventId, k: usize) -> u64 {
        if !self.0.contains_key(window) {
            self.0.insert(window.to_owned(), Window::default());
        }
        let Some(window) = self.0.get_mut(window) else { return 0 };
        window.k = window.k.max(k);
        let k = window.k;
        if let Some(cell) = window.cells.get_mut(key) {
            cell.insert(at.0, event, k);
            return 0;
        }
        window.cells.entry(key.to_owned()).or_default().insert(at.0, event, k);
        window.shrink()
    }

    /// Takes another profile's windows in.
    pub(crate) fn merge(&mut self, other: &Self) -> u64 {
        let mut gone = 0;
        for (name, theirs) in &other.0 {
            let mine = self.0.entry(name.clone()).or_default();
            mine.k = mine.k.max(theirs.k);
            mine.evicted += theirs.evicted;
            for (key, cell) in &theirs.cells {
                let place = mine.cells.entry(key.clone()).or_default();
                for (at, id) in &cell.0 {
                    place.insert(*at, *id, mine.k);
                }
            }
            gone += mine.shrink();
        }
        gone
    }

    /// No less than the bytes of all, if a key with its cell's length takes `key` at most and an event of it `event`.
    pub(super) fn at_most(&self, key: usize, event: usize) -> usize {
        /// Three integers and the length of the name.
        const WINDOW: usize = 40;
        let window = |(name, window): (&String, &Window)| {
            WINDOW + name.len() + window.cells.len().saturating_mul(key + window.k * event)
        };
        self.0.iter().map(window).fold(0, usize::saturating_add)
    }

    /// Forgets the keys least recently seen, over all windows, until `excess` bytes are free; gives how many keys.
    pub(crate) fn give_way(&mut self, excess: usize) -> u64 {
        let cells = self.0.iter().flat_map(|(name, window)| {
            let cell =
                |(key, cell): (&String, &Cell)| (cell.newest(), name.clone(), key.clone(), length(cell));
            window.cells.iter().map(cell)
        });
        let mut cells: Vec<_> = cells.collect();
        cells.sort();
        let (mut free, mut gone) = (0, 0);
        for (_, name, key, bytes) in cells {
            if free >= excess {
                break;
            }
            self.0.get_mut(&name).map(|window| window.cells.remove(&key));
            free += bytes + key.len();
            gone += 1;
        }
        self.0.retain(|_, window| !window.cells.is_empty());
        gone
    }

    /// Drops windows that no rule counts by any more.
    pub(crate) fn retain(&mut self, used: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| used(name));
    }
}

fn length(cell: &Cell) -> usize {
    let mut length = Length::default();
    cell.put(&mut length);
    length.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HALF_HOUR: i64 = 30 * 60_000;

    fn id(n: usize) -> EventId {
        EventId::from_bytes(u128::try_from(n).unwrap().to_be_bytes())
    }

    proptest! {
        #[test]
        fn the_k_newest_equal_a_full_recount(
            times in prop::collection::vec(0_i64..4_000_000, 1..40),
            k in 1_usize..6,
            split in 0_usize..40,
        ) {
            let (mut one, mut two) = (Windows::default(), Windows::default());
            for (n, at) in times.iter().enumerate() {
                let target = if n < split { &mut one } else { &mut two };
                target.insert("w", "k", Timestamp(*at), id(n), k);
            }
            let mut both = two.clone();
            one.merge(&two);
            both.merge(&one);
            prop_assert_eq!(&both, &one, "merging twice or the other way changes nothing");
            let newest = *times.iter().max().unwrap();
            let recount = times.iter().filter(|at| **at > newest - HALF_HOUR).count();
            let inside = one.cell("w", "k").unwrap().inside(Timestamp(newest), HALF_HOUR).len();
            prop_assert_eq!(inside, recount.min(k));
        }
    }

    #[test]
    fn an_event_exactly_as_old_as_the_window_does_not_count() {
        let mut windows = Windows::default();
        for (n, at) in [0, 0, HALF_HOUR].into_iter().enumerate() {
            windows.insert("w", "k", Timestamp(at), id(n), 3);
        }
        let cell = windows.cell("w", "k").unwrap();
        assert_eq!(cell.inside(Timestamp(HALF_HOUR), HALF_HOUR).len(), 1);
        assert_eq!(cell.inside(Timestamp(HALF_HOUR - 1), HALF_HOUR).len(), 2);
    }

    #[test]
    fn keys_are_capped() {
        let mut windows = Windows::default();
        let gone: u64 =
            (0..MAX_KEYS + 3).map(|n| windows.insert("w", &n.to_string(), Timestamp(5), id(n), 1)).sum();
        assert_eq!((gone, windows.cells("w").count()), (3, MAX_KEYS));
    }
}
