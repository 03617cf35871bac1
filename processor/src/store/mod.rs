//! Where state is kept: spaces of ordered keys, changed by atomic batches.
//!
//! **Invariant:** a batch is there as a whole or not at all, also after a crash; after [`StateStore::persist`] it is there for
//! good. What was not persisted may be gone after a crash, but only from the end: never a batch without those before it.

pub mod disk;
pub mod memory;

/// Spaces of keys. See [`crate::consume::keys`] for their forms.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Space {
    /// Profile key -> profile.
    Profile,
    /// Event id and scope -> where it was applied; and the same by hour, for expiry.
    Dedup,
    /// Partition, time, profile key -> nothing.
    Timer,
    /// Partition, number -> record to append.
    Outbox,
    /// Partition -> next offset, time, ledger.
    Meta,
}

impl Space {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Profile, Self::Dedup, Self::Timer, Self::Outbox, Self::Meta];
}

/// Why the store did not do it. Nothing of the batch was written then.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing failed; may succeed later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// What is stored cannot be read. Never a reason to begin with an empty store.
    #[error("the store holds what this program cannot read: {0}")]
    Unreadable(String),
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Changes that belong together; their keys and values are one piece of memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    /// In order.
    writes: Vec<Write>,
}

/// One change: where its key and its value end in the batch's bytes; without a value it removes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Write {
    space: Space,
    key_end: usize,
    value_end: Option<usize>,
}

impl WriteBatch {
    /// Sets a key.
    pub fn put(&mut self, space: Space, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.put_with(space, key, |bytes| bytes.extend_from_slice(value.as_ref()));
    }

    /// Sets a key to what `write` appends; gives the value's length.
    pub fn put_with(
        &mut self,
        space: Space,
        key: impl AsRef<[u8]>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        self.bytes.extend_from_slice(key.as_ref());
        let key_end = self.bytes.len();
        write(&mut self.bytes);
        let value_end = self.bytes.len();
        self.writes.push(Write { space, key_end, value_end: Some(value_end) });
        value_end.saturating_sub(key_end)
    }

    /// Removes a key.
    pub fn remove(&mut self, space: Space, key: impl AsRef<[u8]>) {
        self.bytes.extend_from_slice(key.as_ref());
        self.writes.push(Write { space, key_end: self.bytes.len(), value_end: None });
    }

    /// How many changes.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The changes in order: keys and their values, `None` to remove.
    pub fn iter(&self) -> impl Iterator<Item = (Space, &[u8], Option<&[u8]>)> {
        let mut start = 0;
        self.writes.iter().map(move |write| {
            let key = self.bytes.get(start..write.key_end).unwrap_or_default();
            let value = write.value_end.map(|end| self.bytes.get(write.key_end..end).unwrap_or_default());
            start = write.value_end.unwrap_or(write.key_end);
            (write.space, key, value)
        })
    }
}

/// A store. Its methods block: they are called off the async runtime.
pub trait StateStore: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Pairs with `from <= key < to` in order, at most `limit`.
    fn scan(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError>;

    /// Writes a batch; others see it at once.
    fn commit(&self, batch: WriteBatch) -> Result<(), StoreError>;

    /// Makes everything committed survive a crash of this machine.
    fn persist(&self) -> Result<(), StoreError>;
}
