//! Remembers from which inputs something was built, so that what is unchanged is not built again.
//!
//! **Invariant:** a step is skipped only if every input has the same name and bytes as when its outputs were made, and every
//! output is there.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::step;

/// Folders that are never inputs.
const NOT_INPUTS: &[&str] = &["node_modules", "dist", "build", "target"];

/// What one step reads and writes, relative to the workspace.
#[derive(Debug)]
pub(crate) struct Stamp {
    /// Names the step.
    pub(crate) name: &'static str,
    /// Files and folders that it reads.
    pub(crate) inputs: &'static [&'static str],
    /// Files that it writes.
    pub(crate) outputs: &'static [&'static str],
}

impl Stamp {
    /// Whether the outputs are those of the inputs as they are.
    pub(crate) fn is_fresh(&self) -> bool {
        self.outputs.iter().all(|output| step::root().join(output).exists())
            && std::fs::read_to_string(self.path()).is_ok_and(|stored| stored == self.fingerprint())
    }

    /// Notes that the outputs were just made.
    pub(crate) fn renew(&self) -> Result<()> {
        let path = self.path();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, self.fingerprint()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn path(&self) -> PathBuf {
        step::target_dir().join("xtask-stamps").join(self.name)
    }

    fn fingerprint(&self) -> String {
        let mut hash = Fnv::default();
        for input in self.inputs {
            hash.add_path(&step::root().join(input), input);
        }
        format!("{:016x}", hash.0)
    }
}

/// FNV-1a, 64 bits: enough to notice a change, and the same on every version of Rust.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn add_path(&mut self, path: &Path, name: &str) {
        self.add(name.as_bytes());
        self.add(&[0]);
        if path.is_dir() {
            let mut entries: Vec<String> = std::fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|entry| !NOT_INPUTS.contains(&entry.as_str()))
                .collect();
            entries.sort();
            for entry in entries {
                self.add_path(&path.join(&entry), &entry);
            }
        } else if let Ok(bytes) = std::fs::read(path) {
            self.add(&bytes.len().to_le_bytes());
            self.add(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dir: &Path) -> u64 {
        let mut hash = Fnv::default();
        hash.add_path(dir, "inputs");
        hash.0
    }

    #[test]
    fn a_changed_byte_or_name_changes_the_fingerprint_and_built_folders_do_not() {
        let dir = std::env::temp_dir().join(format!("xtask-stamp-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("src")).unwrap();
        std::fs::write(dir.join("src/a"), "one").unwrap();
        let first = of(&dir);
        std::fs::create_dir_all(dir.join("node_modules")).unwrap();
        std::fs::write(dir.join("node_modules/x"), "x").unwrap();
        assert_eq!(of(&dir), first);
        std::fs::write(dir.join("src/a"), "two").unwrap();
        assert_ne!(of(&dir), first);
        std::fs::rename(dir.join("src/a"), dir.join("src/b")).unwrap();
        std::fs::write(dir.join("src/b"), "one").unwrap();
        assert_ne!(of(&dir), first);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
