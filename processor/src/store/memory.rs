//! A store in memory, for simulations and benchmarks. It forgets in a crash what was not persisted, as a disk does.
//!
//! **Invariant:** after [`MemoryStore::crash`] it holds what it held at the last `persist`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Pair, Space, StateStore, StoreError, WriteBatch};

/// One map a space.
type Map = [BTreeMap<Vec<u8>, Vec<u8>>; Space::ALL.len()];

const fn of(map: &Map, space: Space) -> &BTreeMap<Vec<u8>, Vec<u8>> {
    let [profile, dedup, timer, outbox, meta] = map;
    match space {
        Space::Profile => profile,
        Space::Dedup => dedup,
        Space::Timer => timer,
        Space::Outbox => outbox,
        Space::Meta => meta,
    }
}

const fn of_mut(map: &mut Map, space: Space) -> &mut BTreeMap<Vec<u8>, Vec<u8>> {
    let [profile, dedup, timer, outbox, meta] = map;
    match space {
        Space::Profile => profile,
        Space::Dedup => dedup,
        Space::Timer => timer,
        Space::Outbox => outbox,
        Space::Meta => meta,
    }
}

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
        let Inner { live, durable, pending } = &mut *inner;
        pending.clear();
        live.clone_from(durable);
    }

    /// Everything in a space.
    pub fn dump(&self, space: Space) -> Vec<Pair> {
        of(&self.lock().live, space).iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(map: &mut Map, batch: &WriteBatch) {
    for (space, key, value) in batch.iter() {
        let map = of_mut(map, space);
        match (value, map.get_mut(key)) {
            (Some(value), Some(old)) => {
                old.clear();
                old.extend_from_slice(value);
            }
            (Some(value), None) => drop(map.insert(key.to_vec(), value.to_vec())),
            (None, _) => drop(map.remove(key)),
        }
    }
}

impl StateStore for MemoryStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(of(&self.lock().live, space).get(key).cloned())
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let inner = self.lock();
        let range = of(&inner.live, space).range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        Ok(range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut inner = self.lock();
        if !self.volatile {
            inner.pending.push(batch.clone());
        }
        write(&mut inner.live, &batch);
        Ok(())
    }

    fn persist(&self) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let pending = std::mem::take(&mut inner.pending);
        for batch in pending {
            write(&mut inner.durable, &batch);
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
