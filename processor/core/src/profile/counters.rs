//! Counts by key, with a cap on the number of keys.
//!
//! **Invariant:** at most `cap` keys; the one least recently seen makes room, and that is counted.

use std::collections::BTreeMap;

use schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::wire;

/// A count and when it last grew, in event time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Count {
    n: u64,
    /// Milliseconds since 1970.
    at: i64,
}

wire!(Count { n, at });

/// Counts by key.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    map: BTreeMap<String, Count>,
    /// Keys that made room.
    #[serde(default)]
    evicted: u64,
}

wire!(Counts { map, evicted });

impl Counts {
    /// The count of a key.
    pub fn get(&self, key: &str) -> Option<u64> {
        self.map.get(key).map(|count| count.n)
    }

    /// Keys and counts, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.map.iter().map(|(key, count)| (key.as_str(), count.n))
    }

    /// How many keys are kept.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// How many keys made room.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Adds to a key; gives the key that made room, if one did.
    pub(crate) fn add(&mut self, key: &str, n: u64, at: Timestamp, cap: usize) -> Option<(String, u64)> {
        if let Some(count) = self.map.get_mut(key) {
            count.n = count.n.saturating_add(n);
            count.at = count.at.max(at.0);
            return None;
        }
        self.map.insert(key.to_owned(), Count { n, at: at.0 });
        self.shrink(cap, Some(key))
    }

    /// Adds another profile's counts.
    pub(crate) fn merge(&mut self, other: &Self, cap: usize) {
        for (key, count) in &other.map {
            let mine = self.map.entry(key.clone()).or_insert(Count { n: 0, at: count.at });
            mine.n = mine.n.saturating_add(count.n);
            mine.at = mine.at.max(count.at);
        }
        self.evicted += other.evicted;
        while self.map.len() > cap {
            self.shrink(cap, None);
        }
    }

    /// One key makes room if there are too many: the least recently seen, but not `spare`.
    fn shrink(&mut self, cap: usize, spare: Option<&str>) -> Option<(String, u64)> {
        if self.map.len() <= cap {
            return None;
        }
        self.forget_oldest(spare)
    }

    /// Forgets the key least recently seen, but not `spare`.
    pub(crate) fn forget_oldest(&mut self, spare: Option<&str>) -> Option<(String, u64)> {
        let others = self.map.iter().filter(|(key, _)| Some(key.as_str()) != spare);
        let key = others.min_by_key(|(key, count)| (count.at, key.as_str())).map(|(key, _)| key.clone())?;
        self.evicted += 1;
        self.map.remove_entry(&key).map(|(key, count)| (key, count.n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_seen_key_makes_room_and_is_counted() {
        let mut counts = Counts::default();
        for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
            assert_eq!(counts.add(key, 1, Timestamp(i64::try_from(n).unwrap()), 3), None);
        }
        counts.add("a", 1, Timestamp(9), 3);
        assert_eq!(counts.add("d", 1, Timestamp(10), 3), Some(("b".to_owned(), 1)));
        assert_eq!((counts.get("a"), counts.get("b"), counts.evicted()), (Some(2), None, 1));
    }
}
