//! A store in memory, for simulations and benchmarks. It forgets in a crash what was not persisted, as a disk does.
//!
//! **Invariant:** after [`MemoryStore::crash`] it holds what it held at the last `persist`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Pair, Space, StateStore, StoreError, WriteBatch};

type Map = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

#[derive(Debug, Default)]
struct Inner {
    live: Map,
    durable: Map,
    pending: Vec<WriteBatch>,
}

/// The store.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    volatile: bool,
}

impl MemoryStore {
    /// One that keeps no second copy for crashes.
    pub fn volatile() -> Self {
        Self { volatile: true, ..Self::default() }
    }

    /// Loses what was not persisted.
    pub fn crash(&self) {
        let mut inner = self.lock();
        inner.pending.clear();
        inner.live = inner.durable.clone();
    }

    /// Everything in a space.
    pub fn dump(&self, space: Space) -> Vec<Pair> {
        let inner = self.lock();
        inner
            .live
            .iter()
            .filter(|((s, _), _)| *s == space)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(map: &mut Map, batch: WriteBatch) {
    for (space, key, value) in batch.writes {
        match value {
            Some(value) => map.insert((space, key), value),
            None => map.remove(&(space, key)),
        };
    }
}

impl StateStore for MemoryStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().live.get(&(space, key.to_vec())).cloned())
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let inner = self.lock();
        let range = inner.live.range((space, from.to_vec())..(space, to.to_vec()));
        Ok(range.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut inner = self.lock();
        if !self.volatile {
            inner.pending.push(batch.clone());
        }
        write(&mut inner.live, batch);
        Ok(())
    }

    fn persist(&self) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let pending = std::mem::take(&mut inner.pending);
        for batch in pending {
            write(&mut inner.durable, batch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_takes_what_was_not_persisted() {
        let store = MemoryStore::default();
        let put = |key: &str| {
            let mut batch = WriteBatch::default();
            batch.put(Space::Meta, key, "v");
            store.commit(batch).unwrap();
        };
        put("a");
        store.persist().unwrap();
        put("b");
        store.crash();
        assert_eq!(store.dump(Space::Meta), [(b"a".to_vec(), b"v".to_vec())]);
    }
}
