//! Files that are read again when they change.
//!
//! They are looked at twice a second, by content: that sees an editor's rename, a mounted secret's swapped link and a restored backup
//! alike.
//!
//! **Invariant:** a change is told when two looks in a row saw the same, so that a file which is just being written is not taken in
//! half; each state is told once.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::time::Duration;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Largest file, bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 4 << 20;

/// Some files, and what they held when last told.
#[derive(Debug)]
pub(crate) struct Watch {
    paths: Vec<PathBuf>,
    told: Option<Vec<String>>,
    seen: Option<Vec<String>>,
}

impl Watch {
    /// Watches files whose present content is known.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let told = read(&paths).ok();
        Self { paths, seen: told.clone(), told }
    }

    /// Waits for the next change: the content of each file, or why they cannot be read.
    pub(crate) async fn changed(&mut self) -> io::Result<Vec<String>> {
        loop {
            tokio::time::sleep(LOOK).await;
            let paths = self.paths.clone();
            let found = tokio::task::spawn_blocking(move || read(&paths)).await;
            let found = found.unwrap_or_else(|error| Err(io::Error::other(error)));
            let content = found.as_ref().ok();
            let settled = content == self.seen.as_ref();
            let news = content != self.told.as_ref();
            self.seen = content.cloned();
            if settled && news {
                self.told.clone_from(&self.seen);
                return found;
            }
        }
    }
}

fn read(paths: &[PathBuf]) -> io::Result<Vec<String>> {
    paths.iter().map(text).collect()
}

/// The text of a file, which must not be huge.
pub(crate) fn text(path: &PathBuf) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_told_once_it_has_settled_and_so_is_a_loss() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let mut watch = Watch::new(vec![path.clone()]);
        std::fs::write(&path, "two").unwrap();
        assert_eq!(watch.changed().await.unwrap(), ["two"]);
        std::fs::remove_file(&path).unwrap();
        assert!(watch.changed().await.is_err());
        std::fs::write(&path, "two").unwrap();
        assert_eq!(watch.changed().await.unwrap(), ["two"]);
    }
}
