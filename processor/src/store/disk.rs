//! The store on disk, by fjall.
//!
//! fjall's commits reach the operating system, not the disk, until `persist(SyncAll)`; keyspaces are created once, at opening.
//! Caches are small on purpose: the whole program stays below 64 MB when idle.
//!
//! **Invariant:** one process at a time (fjall locks the folder); a folder of another format is refused, never overwritten.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Pair, Space, StateStore, StoreError, WriteBatch};

/// Blocks kept in memory.
const CACHE_BYTES: u64 = 8 << 20;
/// Memtables of the two large spaces.
const LARGE_MEMTABLE_BYTES: u64 = 4 << 20;
/// Memtables of the others.
const SMALL_MEMTABLE_BYTES: u64 = 1 << 20;
/// Journals on disk before memtables are flushed: fjall's least.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Open files.
const MAX_FILES: usize = 64;
/// Format of keys and values in the folder.
const FORMAT: &[u8] = b"rivulet-state-1";
/// Where the format stands.
const FORMAT_KEY: &[u8] = b"\0format";

/// The store.
pub struct DiskStore {
    database: Database,
    spaces: [Keyspace; 5],
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskStore").finish_non_exhaustive()
    }
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

impl DiskStore {
    /// Opens or creates the store in a folder.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let database = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(MAX_FILES))
            .open()
            .map_err(unavailable)?;
        let open = |name: &str, memtable: u64| {
            database
                .keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(memtable))
                .map_err(unavailable)
        };
        let spaces = [
            open("profile", LARGE_MEMTABLE_BYTES)?,
            open("dedup", LARGE_MEMTABLE_BYTES)?,
            open("timer", SMALL_MEMTABLE_BYTES)?,
            open("outbox", SMALL_MEMTABLE_BYTES)?,
            open("meta", SMALL_MEMTABLE_BYTES)?,
        ];
        let store = Self { database, spaces };
        match store.get(Space::Meta, FORMAT_KEY)? {
            Some(format) if format == FORMAT => {}
            Some(_) => {
                return Err(StoreError::Unreadable(
                    "the folder has the format of another version".to_owned(),
                ));
            }
            None => {
                let mut batch = WriteBatch::default();
                batch.put(Space::Meta, FORMAT_KEY, FORMAT);
                store.commit(batch)?;
                store.persist()?;
            }
        }
        Ok(store)
    }

    fn space(&self, space: Space) -> &Keyspace {
        let [profile, dedup, timer, outbox, meta] = &self.spaces;
        match space {
            Space::Profile => profile,
            Space::Dedup => dedup,
            Space::Timer => timer,
            Space::Outbox => outbox,
            Space::Meta => meta,
        }
    }
}

impl StateStore for DiskStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.space(space).get(key).map_err(unavailable)?.map(|value| value.to_vec()))
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let pair = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner().map_err(unavailable)?;
            Ok((key.to_vec(), value.to_vec()))
        };
        self.space(space).range(from..to).take(limit).map(pair).collect()
    }

    fn commit(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut writes = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), batch.len());
        for (space, key, value) in batch.iter() {
            match value {
                Some(value) => writes.insert(self.space(space), key, value),
                None => writes.remove(self.space(space), key),
            }
        }
        writes.commit().map_err(unavailable)
    }

    fn persist(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncAll).map_err(unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_after_reopening_in_order_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        {
            let store = DiskStore::open(folder.path()).unwrap();
            let mut batch = WriteBatch::default();
            for n in 0_u8..10 {
                batch.put(Space::Timer, [1, n], [n]);
            }
            batch.put(Space::Timer, [2, 0], [9]);
            batch.remove(Space::Timer, [1, 3]);
            store.commit(batch).unwrap();
            store.persist().unwrap();
        }
        let store = DiskStore::open(folder.path()).unwrap();
        let found = store.scan(Space::Timer, &[1, 2], &[2], 3).unwrap();
        assert_eq!(found.iter().map(|(key, _)| key[1]).collect::<Vec<_>>(), [2, 4, 5]);
        assert_eq!(store.get(Space::Timer, &[1, 3]).unwrap(), None);
        assert_eq!(store.scan(Space::Timer, &[1], &[2], 99).unwrap().len(), 9);
        assert!(store.scan(Space::Profile, &[0], &[255], 9).unwrap().is_empty());
    }

    #[test]
    fn a_folder_of_another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        {
            let store = DiskStore::open(folder.path()).unwrap();
            let mut batch = WriteBatch::default();
            batch.put(Space::Meta, FORMAT_KEY, "rivulet-state-0");
            store.commit(batch).unwrap();
            store.persist().unwrap();
        }
        assert!(matches!(DiskStore::open(folder.path()), Err(StoreError::Unreadable(_))));
    }
}
