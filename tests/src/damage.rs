//! What crashes and disks do to the files of a journal.
//!
//! **Invariant:** the program is not running while its files are damaged.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// What is done to the newest segments.
#[derive(Debug)]
pub enum Damage {
    /// The last segment loses so many bytes at its end.
    Cut(u64),
    /// The last segment loses all bytes.
    Empty,
    /// So many zeros follow the last record.
    ZerosBehind(u64),
    /// The last bytes of the last segment become zeros.
    ZerosOver(u64),
    /// The newest segment but one is deleted.
    RemoveFinished,
    /// One byte in the middle of a finished segment is changed.
    Flip,
    /// The state file is deleted.
    RemoveState,
    /// The index files are deleted.
    RemoveIndexes,
}

impl Damage {
    /// How many events it may cost at most, and whether it may leave a hole rather than a shorter end.
    pub const fn costs(&self) -> (usize, bool) {
        match self {
            // A record of an event is larger than 64 bytes, and than half of 700.
            Self::Cut(bytes) => (if *bytes <= 64 { 1 } else { 2 }, false),
            Self::ZerosOver(_) => (1, false),
            Self::Empty => (300, false),
            Self::ZerosBehind(_) | Self::RemoveState | Self::RemoveIndexes => (0, false),
            Self::RemoveFinished => (299, true),
            Self::Flip => (1, true),
        }
    }
}

/// The folder that holds the segments.
pub fn journal(data: &Path) -> PathBuf {
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        if !segments(&folder).is_empty() {
            return folder;
        }
        let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        folders.extend(entries.filter(|path| path.is_dir()));
    }
    panic!("no segments below {}", data.display());
}

/// The segments, oldest first.
pub fn segments(folder: &Path) -> Vec<PathBuf> {
    with_extension(folder, "segment")
}

fn with_extension(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    found.sort();
    found
}

/// Does the damage.
pub fn apply(folder: &Path, damage: &Damage) {
    let segments = segments(folder);
    let last = segments.last().unwrap();
    let open = || File::options().write(true).read(true).open(last).unwrap();
    let length = std::fs::metadata(last).unwrap().len();
    match damage {
        Damage::Cut(bytes) => open().set_len(length.saturating_sub(*bytes)).unwrap(),
        Damage::Empty => open().set_len(0).unwrap(),
        Damage::ZerosBehind(bytes) => open().set_len(length + bytes).unwrap(),
        Damage::ZerosOver(bytes) => {
            let bytes = (*bytes).min(length);
            open().write_all_at(&vec![0; usize::try_from(bytes).unwrap()], length - bytes).unwrap();
        }
        Damage::RemoveFinished => std::fs::remove_file(&segments[segments.len() - 2]).unwrap(),
        Damage::Flip => {
            let middle = &segments[segments.len() / 2 - 1];
            let file = File::options().write(true).read(true).open(middle).unwrap();
            let at = file.metadata().unwrap().len() / 2;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
        }
        Damage::RemoveState => {
            let state: Vec<PathBuf> = with_extension(folder, "state");
            assert!(!state.is_empty(), "no state file");
            for path in state {
                std::fs::remove_file(path).unwrap();
            }
        }
        Damage::RemoveIndexes => {
            for path in with_extension(folder, "index") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

/// Copies a folder with everything in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
