//! A small disk: a tmpfs in a mount namespace of its own.
//!
//! **Invariant:** it goes with its keeper, however the tests end; nothing is mounted where others see it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::leash::Leash;

/// A mounted disk and the process that keeps it.
#[derive(Debug)]
pub struct Volume {
    keeper: Leash,
    at: PathBuf,
}

impl Volume {
    /// Mounts `bytes` at a folder, which is made. `None` where the system does not let us.
    pub fn mounted(at: &Path, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(at).expect("the test's folder is writable");
        let script = "mount -t tmpfs -o size=\"$2\" tmpfs \"$1\" && echo mounted && exec sleep infinity";
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script, "volume"]).arg(at).arg(bytes.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = Leash::start(&mut command, None);
        let mut word = [0; 7];
        let mounted = keeper.stdout().is_some_and(|mut out| out.read_exact(&mut word).is_ok());
        mounted.then(|| Self { keeper, at: at.to_owned() })
    }

    /// A command that runs a program where the disk is seen, in a folder.
    pub fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.keeper.pid().to_string(), "-U", "-m", "--preserve-credentials"]);
        command.arg(format!("--wd={}", folder.display())).arg(program);
        command
    }

    /// A file on the disk, as it is seen from here.
    pub fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.pid()));
        root.join(self.at.strip_prefix("/").expect("an absolute path")).join(name)
    }

    /// Fills the disk up to the last `keep` bytes with a file of this name.
    pub fn fill(&self, name: &str, total: u64, keep: u64) {
        let used: u64 = std::fs::read_dir(self.path(""))
            .expect("the disk can be listed")
            .map(|entry| {
                entry.expect("an entry").metadata().map_or(0, |meta| meta.len().next_multiple_of(4096))
            })
            .sum();
        let size = usize::try_from(total.saturating_sub(used + keep)).expect("a size");
        std::fs::write(self.path(name), vec![7; size]).expect("the ballast fits");
    }
}
