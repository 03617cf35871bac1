//! The folder of schemas: read at the start, and again when it has changed.
//!
//! **Invariant:** schemas are replaced all at once or not at all; a folder that is broken, empty or half-written leaves those in
//! force, and is told once for each change of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use gateway::Gateway;
use schemas::registry::Registry;

/// Most files whose change is noticed; a registry has fewer documents.
const MAX_FILES: usize = 50_000;
/// How deep below the folder documents and their links stand.
const MAX_DEPTH: usize = 3;

/// Reads the folder; the built-in schemas without one.
pub(crate) fn load(dir: Option<&Path>) -> anyhow::Result<Registry> {
    let Some(dir) = dir else { return Ok(Registry::builtin()) };
    let registry = Registry::load(dir).context("the schemas cannot be used")?;
    anyhow::ensure!(
        registry.ids().next().is_some(),
        "the schemas cannot be used: {} holds none",
        dir.display()
    );
    Ok(registry)
}

/// Looks at the folder every so often and gives the gateway what has changed, until the gateway is gone.
pub(crate) fn watch(dir: PathBuf, every: Duration, gateway: &Arc<Gateway>) {
    if every.is_zero() {
        return;
    }
    let gateway = Arc::downgrade(gateway);
    tokio::spawn(async move {
        let mut watched = Watched { used: fingerprint(dir.clone()).await, pending: None };
        loop {
            tokio::time::sleep(every).await;
            let now = fingerprint(dir.clone()).await;
            if !watched.settled(now) {
                continue;
            }
            let read = dir.clone();
            let loaded = tokio::task::spawn_blocking(move || load(Some(&read))).await;
            // What changed while it was read is read again.
            if fingerprint(dir.clone()).await != watched.used {
                watched.used = None;
                continue;
            }
            let Some(gateway) = Weak::upgrade(&gateway) else { return };
            apply(&gateway, &dir, loaded.map_err(anyhow::Error::from).flatten());
        }
    });
}

fn apply(gateway: &Gateway, dir: &Path, loaded: anyhow::Result<Registry>) {
    let dir = dir.display();
    let schemas = loaded.map(Arc::new).inspect_err(|_| gateway.keep_schemas());
    let used = schemas.and_then(|schemas| {
        let count = schemas.ids().count();
        gateway.set_schemas(schemas)?;
        Ok(count)
    });
    match used {
        Ok(schemas) => tracing::info!(%dir, schemas, "the schemas were read again and are in force"),
        Err(error) => {
            let error = format!("{error:#}");
            tracing::error!(%dir, error, "the schemas have changed and cannot be used; those before stay in force");
        }
    }
}

/// What the folder looked like.
struct Watched {
    /// When it was last read; `None` if that was no whole reading.
    used: Option<Fingerprint>,
    /// A moment ago, if it had changed.
    pending: Option<Fingerprint>,
}

impl Watched {
    /// Whether the folder has changed and then stood still for one look, so that a copy under way is not read half-way.
    fn settled(&mut self, now: Option<Fingerprint>) -> bool {
        if now.is_none() || now == self.used {
            self.pending = None;
            return false;
        }
        if self.pending != now {
            self.pending = now;
            return false;
        }
        self.used = self.pending.take();
        true
    }
}

/// Path, size and time of change of every file.
type Fingerprint = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

async fn fingerprint(dir: PathBuf) -> Option<Fingerprint> {
    tokio::task::spawn_blocking(move || {
        let mut found = Fingerprint::new();
        collect(&dir, 0, &mut found);
        found
    })
    .await
    .ok()
}

/// A folder that cannot be read looks empty: that is a change too, and reading it says what is wrong.
fn collect(dir: &Path, depth: usize, found: &mut Fingerprint) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        // Follows links, so that a link that now leads elsewhere is seen by what it leads to.
        let Ok(about) = std::fs::metadata(&path) else { continue };
        if found.len() >= MAX_FILES {
            return;
        }
        if about.is_dir() && depth < MAX_DEPTH {
            collect(&path, depth + 1, found);
        }
        if about.is_file() {
            found.insert(path, (about.len(), about.modified().ok()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(size: u64) -> Fingerprint {
        BTreeMap::from([(PathBuf::from("a/1.json"), (size, None))])
    }

    #[test]
    fn a_change_is_read_once_it_stands_still() {
        let mut watched = Watched { used: Some(looks(1)), pending: None };
        assert!(!watched.settled(Some(looks(1))), "nothing changed");
        assert!(!watched.settled(Some(looks(2))), "just changed");
        assert!(!watched.settled(Some(looks(3))), "still changing");
        assert!(watched.settled(Some(looks(3))));
        assert!(!watched.settled(Some(looks(3))), "read already");
        assert!(!watched.settled(Some(looks(2))));
        assert!(!watched.settled(Some(looks(3))), "changed back before it was read");
        assert!(!watched.settled(None), "cannot be looked at");
        watched.used = None;
        assert!(!watched.settled(Some(looks(3))));
        assert!(watched.settled(Some(looks(3))), "what was not read whole is read again");
    }

    #[test]
    fn the_fingerprint_sees_files_through_links() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("one", "{}"), ("two", "{ }")] {
            let folder = dir.path().join(name).join("x");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("1.json"), text).unwrap();
        }
        let link = dir.path().join("schemas");
        let look = || {
            let mut found = Fingerprint::new();
            collect(&link, 0, &mut found);
            found
        };
        std::os::unix::fs::symlink(dir.path().join("one"), &link).unwrap();
        let before = look();
        assert_eq!(before.len(), 1);
        std::fs::remove_file(&link).unwrap();
        assert!(look().is_empty());
        std::os::unix::fs::symlink(dir.path().join("two"), &link).unwrap();
        assert_ne!(before, look());
    }
}
