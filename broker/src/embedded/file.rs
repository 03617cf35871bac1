//! The few things that the journal asks of a file system, so that a test can stand in for a disk that fails.
//!
//! **Invariant:** bytes are safe only after `sync_data` on their file, names only after `sync_dir` on their folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A file system.
pub trait FileLayer: Send + Sync {
    /// Makes the folder and those above it.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Names and sizes of the files in a folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>>;
    /// Makes a new, empty file; one of that name is replaced.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>>;
    /// Cuts a file and makes that safe.
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, replacing the one of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a folder safe.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes free for us on the folder's file system.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Takes the exclusive lock on a file, made if need be, for as long as the answer lives. `None`: somebody else has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>>;
}

/// An open file.
pub trait StoredFile: Send + Sync {
    /// Writes all of `bytes` at the end.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;
    /// Reads into `into` from `at` on; fewer bytes only at the end.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Makes content and length safe.
    fn sync_data(&self) -> io::Result<()>;
    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;
}

/// The machine's file system.
#[derive(Clone, Copy, Default, Debug)]
pub struct RealFiles;

impl FileLayer for RealFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            // A file may go between the two calls; then it is not there.
            if let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) {
                files.push((name, meta.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let _ = std::fs::remove_file(path);
        let file = OpenOptions::new().read(true).append(true).create_new(true).open(path)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl StoredFile for File {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        (&mut &*self).write_all(bytes)
    }

    fn read_at(&self, mut into: &mut [u8], mut at: u64) -> io::Result<usize> {
        let mut read = 0;
        while !into.is_empty() {
            match FileExt::read_at(self, into, at) {
                Ok(0) => break,
                Ok(n) => {
                    read += n;
                    at += n as u64;
                    into = into.get_mut(n..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|meta| meta.len())
    }
}

/// Replaces a small file so that after a crash it is the old or the new one, whole. The caller syncs the folder.
pub(crate) fn replace(files: &dyn FileLayer, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (temporary, path) = (dir.join(format!("{name}.tmp")), dir.join(name));
    let file = files.create(&temporary)?;
    file.append(bytes)?;
    file.sync_data()?;
    files.rename(&temporary, &path)
}

/// Reads a small file whole, at most `max` bytes.
pub(crate) fn read_small(files: &dyn FileLayer, path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let file = files.open(path)?;
    let size = usize::try_from(file.size()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size.min(max)];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}
