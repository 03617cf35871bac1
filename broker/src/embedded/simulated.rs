//! A disk in memory that fails as disks do.
//!
//! **Invariant:** after [`Disk::crash`] there is nothing but what was synced, plus, at will, pieces of what was not.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::file::{FileLayer, StoredFile};
use super::view::locked;

/// A small seeded generator (xorshift64*), so that a case can be run again.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % below.max(1)
    }
}

/// What goes wrong, one in so many; 0 never.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Faults {
    pub(crate) write_fails: u64,
    pub(crate) sync_fails: u64,
    pub(crate) no_space: u64,
    pub(crate) read_fails: u64,
    /// A build whose fsync does nothing.
    pub(crate) sync_is_removed: bool,
}

#[derive(Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
}

pub(crate) struct Disk {
    state: Mutex<State>,
    released: Condvar,
}

struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    dice: Dice,
    faults: Faults,
    free: u64,
    /// Raised by a crash; handles of the time before are dead.
    generation: u64,
    /// Fsyncs wait while this is set.
    held: bool,
}

struct Handle {
    disk: Arc<Disk>,
    inode: usize,
    generation: u64,
}

/// The file layer of one process; dead after a crash.
pub(crate) struct SimulatedFiles {
    disk: Arc<Disk>,
    generation: u64,
}

impl Disk {
    pub(crate) fn new(seed: u64, faults: Faults) -> Arc<Self> {
        let state = State {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            dice: Dice::new(seed),
            faults,
            free: 1 << 40,
            generation: 0,
            held: false,
        };
        Arc::new(Self { state: Mutex::new(state), released: Condvar::new() })
    }

    pub(crate) fn files(self: &Arc<Self>) -> Arc<SimulatedFiles> {
        Arc::new(SimulatedFiles { disk: Arc::clone(self), generation: locked(&self.state).generation })
    }

    pub(crate) fn set_free(&self, bytes: u64) {
        locked(&self.state).free = bytes;
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        locked(&self.state).faults = faults;
    }

    /// The power goes. Of what was not synced, a random piece may have reached the disk, or zeros in its place.
    pub(crate) fn crash(&self) {
        let mut state = locked(&self.state);
        let State { inodes, names, durable_names, dice, generation, .. } = &mut *state;
        *generation += 1;
        for inode in inodes.iter_mut() {
            let unsynced = inode.content.len().saturating_sub(inode.durable.len());
            let mut after = inode.durable.clone();
            match dice.roll(4) {
                0 if unsynced > 0 => {
                    let keep = usize::try_from(dice.roll(unsynced as u64 + 1)).unwrap();
                    after.extend_from_slice(&inode.content[inode.durable.len()..inode.durable.len() + keep]);
                }
                1 if unsynced > 0 => after.resize(inode.content.len(), 0),
                _ => {}
            }
            inode.content.clone_from(&after);
            inode.durable = after;
        }
        *names = durable_names.clone();
    }

    /// The process is killed: what it wrote is there, but its handles are dead.
    pub(crate) fn kill(&self) {
        let mut state = locked(&self.state);
        state.generation += 1;
        state.durable_names = state.names.clone();
        state.inodes.iter_mut().for_each(|inode| inode.durable.clone_from(&inode.content));
    }

    /// Lets fsyncs wait, or go on.
    pub(crate) fn hold_syncs(&self, held: bool) {
        locked(&self.state).held = held;
        self.released.notify_all();
    }

    /// What the files in a folder hold.
    pub(crate) fn contents(&self, dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = locked(&self.state);
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        inside.map(|(path, inode)| (path.clone(), state.inodes[*inode].content.clone())).collect()
    }

    /// A file is gone.
    pub(crate) fn lose(&self, path: &Path) {
        let mut state = locked(&self.state);
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    pub(crate) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = locked(&self.state);
        let inode = state.names[path];
        change(&mut state.inodes[inode].content);
        state.inodes[inode].durable = state.inodes[inode].content.clone();
    }
}

impl State {
    fn alive(&self, generation: u64) -> io::Result<()> {
        if self.generation == generation { Ok(()) } else { Err(io::Error::other("the machine has crashed")) }
    }

    fn strikes(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.dice.roll(one_in) == 0
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl SimulatedFiles {
    fn handle(&self, inode: usize) -> Arc<dyn StoredFile> {
        Arc::new(Handle { disk: Arc::clone(&self.disk), inode, generation: self.generation })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = locked(&self.disk.state);
        state.alive(self.generation)?;
        act(&mut state)
    }
}

impl FileLayer for SimulatedFiles {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        self.with(|state| {
            let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
            let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            Ok(inside.map(|(path, inode)| (name(path), state.inodes[*inode].content.len() as u64)).collect())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let inode = self.with(|state| {
            state.inodes.push(Inode::default());
            let inode = state.inodes.len() - 1;
            state.names.insert(path.to_owned(), inode);
            Ok(inode)
        })?;
        Ok(self.handle(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let inode = self.with(|state| state.find(path))?;
        Ok(self.handle(inode))
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.with(|state| {
            let inode = state.find(path)?;
            state.inodes[inode].content.truncate(usize::try_from(len).unwrap());
            state.inodes[inode].durable = state.inodes[inode].content.clone();
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.with(|state| state.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|state| {
            let inode = state.find(from)?;
            state.names.remove(from);
            state.names.insert(to.to_owned(), inode);
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.with(|state| {
            if state.faults.sync_is_removed {
                return Ok(());
            }
            if state.strikes(state.faults.sync_fails) {
                return Err(io::Error::other("injected"));
            }
            state.durable_names.retain(|path, _| path.parent() != Some(dir));
            let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
            let inside: Vec<_> = inside.map(|(path, inode)| (path.clone(), *inode)).collect();
            state.durable_names.extend(inside);
            Ok(())
        })
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        self.with(|state| Ok(state.free))
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Send>>> {
        Ok(Some(Box::new(())))
    }
}

impl StoredFile for Handle {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = locked(&self.disk.state);
        state.alive(self.generation)?;
        let no_space = state.faults.no_space;
        let fails = state.faults.write_fails;
        let error = if state.strikes(no_space) {
            io::ErrorKind::StorageFull
        } else if state.strikes(fails) {
            io::ErrorKind::Other
        } else {
            state.inodes[self.inode].content.extend_from_slice(bytes);
            return Ok(());
        };
        // A torn write: some of it is there.
        let keep = usize::try_from(state.dice.roll(bytes.len() as u64 + 1)).unwrap();
        state.inodes[self.inode].content.extend_from_slice(&bytes[..keep]);
        Err(error.into())
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = locked(&self.disk.state);
        state.alive(self.generation)?;
        let fails = state.faults.read_fails;
        if state.strikes(fails) {
            return Err(io::Error::other("injected"));
        }
        let content = &state.inodes[self.inode].content;
        let at = usize::try_from(at).unwrap().min(content.len());
        let count = into.len().min(content.len() - at);
        into[..count].copy_from_slice(&content[at..at + count]);
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = locked(&self.disk.state);
        let state = self.disk.released.wait_while(state, |state| state.held);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.alive(self.generation)?;
        if state.faults.sync_is_removed {
            return Ok(());
        }
        let fails = state.faults.sync_fails;
        if state.strikes(fails) {
            return Err(io::Error::other("injected"));
        }
        let inode = &mut state.inodes[self.inode];
        inode.durable.clone_from(&inode.content);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let state = locked(&self.disk.state);
        state.alive(self.generation)?;
        Ok(state.inodes[self.inode].content.len() as u64)
    }
}
