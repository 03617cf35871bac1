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

/// Changes that belong together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriteBatch {
    /// In order; `None` removes.
    pub(crate) writes: Vec<(Space, Vec<u8>, Option<Vec<u8>>)>,
}

impl WriteBatch {
    /// Sets a key.
    pub fn put(&mut self, space: Space, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.push((space, key.into(), Some(value.into())));
    }

    /// Removes a key.
    pub fn remove(&mut self, space: Space, key: impl Into<Vec<u8>>) {
        self.writes.push((space, key.into(), None));
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
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
