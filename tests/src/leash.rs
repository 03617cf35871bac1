//! A child process that cannot outlive the tests, however they end.
//!
//! **Invariant:** when a [`Leash`] is dropped, or the test process dies (its pipe closes), the child dies. Processes are only
//! ever stopped by the id of one that was started here.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::faults::{self, Signal};

/// A child and its guard: a shell that waits for the end of our pipe and then kills the child.
#[derive(Debug)]
pub struct Leash {
    child: Child,
    guard: Option<Child>,
}

impl Leash {
    /// Starts the command. `folder`, if any, goes when the test process goes before the child was stopped.
    pub fn start(command: &mut Command, folder: Option<&Path>) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let guard = Command::new("sh")
            .args(["-c", "read _; kill -9 \"$1\" 2>/dev/null; [ -z \"$2\" ] || rm -rf \"$2\"", "guard"])
            .arg(child.id().to_string())
            .arg(folder.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        Self { child, guard: Some(guard) }
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child's standard output, if it was piped and not yet taken.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it at once and waits for the end.
    pub fn kill(&mut self) {
        self.release();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop and waits; how it ended and how long that took, or nothing if it had to be killed.
    pub async fn terminate(&mut self, within: Duration) -> Option<(ExitStatus, Duration)> {
        let start = Instant::now();
        faults::signal(self.pid(), Signal::Terminate);
        let child = &mut self.child;
        let ended = faults::until(within, async || child.try_wait().ok().flatten());
        let ended = ended.await.map(|status| (status, start.elapsed()));
        self.kill();
        ended
    }

    // The guard must go before the child is waited for: afterwards the id may belong to somebody else.
    fn release(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.kill();
    }
}
