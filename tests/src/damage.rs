//! What crashes and disks do to the files of a journal.
//!
//! **Invariant:** the program is not running while its files are damaged.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// What is done to the newest segments.
#[derive(Debug)]
pub enum Damage {
    /// The last event loses so many bytes at its end, and everything behind it is gone.
    Cut(u64),
    /// The last event is gone with everything behind it, as if it had never been written.
    CutRecord,
    /// The last segment loses all bytes.
    Empty,
    /// So many zeros follow the last record.
    ZerosBehind(u64),
    /// The last bytes of the last event, and everything behind it, become zeros.
    ZerosOver(u64),
    /// The newest segment but one is deleted.
    RemoveFinished,
    /// One byte in the middle of a finished segment is changed.
    Flip,
    /// The state file is deleted.
    RemoveState,
    /// The index files are deleted.
    RemoveIndexes,
    /// The state file of another moment is put in place.
    PutState(PathBuf),
    /// What the processor keeps is deleted.
    RemoveProcessor,
}

/// How a record begins, by `docs/journal-format.md`.
const MARKER: [u8; 4] = [0xff, b'R', b'V', 0xfe];
/// Marker, length, checksum.
const HEAD_BYTES: u64 = 12;
/// Where a record's topic stands, behind head and sequence.
const TOPIC_AT: usize = 20;
/// The topic of events.
const EVENTS: u8 = 0;
/// The shortest record.
const FRAME_BYTES: usize = 47;

impl Damage {
    /// How many events it may cost at most, and whether it may leave a hole rather than a shorter end.
    pub fn costs(&self) -> (usize, bool) {
        match self {
            // A record of an event is larger than 64 bytes, and than half of 700, with a profile change before it.
            Self::Cut(bytes) => (if *bytes <= 64 { 1 } else { 2 }, false),
            Self::ZerosOver(_) | Self::CutRecord => (1, false),
            Self::Empty => (300, false),
            Self::ZerosBehind(_)
            | Self::RemoveState
            | Self::RemoveIndexes
            | Self::PutState(_)
            | Self::RemoveProcessor => (0, false),
            Self::RemoveFinished => (299, true),
            Self::Flip => (1, true),
        }
    }

    /// Whether a start has something to tell of it, when it has cost so many events.
    pub fn is_named(&self, lost: usize) -> bool {
        match self {
            // Only a reader who had read the record can know of it, and readers read events.
            Self::CutRecord => lost > 0,
            Self::RemoveState | Self::RemoveIndexes | Self::RemoveProcessor => false,
            // An older one names a segment that is there.
            Self::PutState(path) => path.to_string_lossy().contains("newer"),
            _ => true,
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

/// Where the last event stands; segments behind the one that holds it are removed.
fn last_event(segments: &[PathBuf]) -> (File, std::ops::Range<u64>) {
    for path in segments.iter().rev() {
        let bytes = std::fs::read(path).unwrap();
        let event = (0..bytes.len().saturating_sub(FRAME_BYTES))
            .rev()
            .find(|at| bytes[*at..].starts_with(&MARKER) && bytes[at + TOPIC_AT] == EVENTS);
        if let Some(start) = event {
            let length = u32::from_le_bytes(bytes[start + 4..start + 8].try_into().unwrap());
            let end = start as u64 + HEAD_BYTES + u64::from(length);
            let file = File::options().write(true).read(true).open(path).unwrap();
            return (file, start as u64..end);
        }
        std::fs::remove_file(path).unwrap();
    }
    panic!("no event in any segment");
}

/// Does the damage.
pub fn apply(folder: &Path, damage: &Damage) {
    let segments = segments(folder);
    let last = segments.last().unwrap();
    let open = || File::options().write(true).read(true).open(last).unwrap();
    let length = std::fs::metadata(last).unwrap().len();
    match damage {
        Damage::Cut(bytes) => {
            let (file, event) = last_event(&segments);
            file.set_len(event.end.saturating_sub(*bytes)).unwrap();
        }
        Damage::CutRecord => {
            let (file, event) = last_event(&segments);
            file.set_len(event.start).unwrap();
        }
        Damage::Empty => open().set_len(0).unwrap(),
        Damage::ZerosBehind(bytes) => open().set_len(length + bytes).unwrap(),
        Damage::ZerosOver(bytes) => {
            let (file, event) = last_event(&segments);
            let from = event.end - bytes;
            let length = file.metadata().unwrap().len();
            file.write_all_at(&vec![0; usize::try_from(length - from).unwrap()], from).unwrap();
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
        Damage::PutState(path) => {
            std::fs::copy(path, folder.join("journal.state")).unwrap();
        }
        Damage::RemoveProcessor => {
            let data = folder.parent().expect("the log is below the data folder");
            std::fs::remove_dir_all(data.join("processor")).unwrap();
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
