//! Waiting and breaking: the only place where a test lets time pass or a signal goes out.
//!
//! **Invariant:** every wait has a deadline and ends by a condition; a pause is only ever part of a fault ("the broker is away
//! for ten seconds"), never a guess at how long something takes.

use std::future::Future;
use std::process::Command;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// The deadline for whatever should take a moment: generous, because the machine may be busy.
pub const SOON: Duration = Duration::from_secs(30);

/// The deadline for whatever has to start a JVM or catch up with a backlog.
pub const LATER: Duration = Duration::from_secs(90);

/// A signal for a process.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// Please stop.
    Terminate,
    /// Stop at once, without a last word.
    Kill,
    /// Freeze.
    Stop,
    /// Thaw.
    Continue,
}

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: Signal) {
    let name = match signal {
        Signal::Terminate => "-TERM",
        Signal::Kill => "-KILL",
        Signal::Stop => "-STOP",
        Signal::Continue => "-CONT",
    };
    // The process may be gone already; whoever cares waits for its end.
    let _ = Command::new("kill").arg(name).arg(pid.to_string()).stderr(std::process::Stdio::null()).status();
}

/// Looks until `look` finds something; panics with `what` at the deadline.
pub async fn eventually<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    match until(within, &mut look).await {
        Some(found) => found,
        None => panic!("not within {within:?}: {what}"),
    }
}

/// Looks until `look` finds something or the deadline passes.
pub async fn until<T>(within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Awaits `future`; panics with `what` at the deadline.
pub async fn bounded<T>(what: &str, within: Duration, future: impl Future<Output = T>) -> T {
    let value = tokio::time::timeout(within, future).await;
    value.unwrap_or_else(|_| panic!("not within {within:?}: {what}"))
}

/// Lets a fault last.
pub async fn lasting(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Runs `future` for as long as the fault lasts, then drops it.
pub async fn during<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, future).await.ok()
}

/// A number from the environment: how hard a test tries.
pub fn effort(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Prints how long a test took when dropped.
#[derive(Debug)]
pub struct Timed {
    name: &'static str,
    start: Instant,
}

impl Timed {
    /// Starts the watch.
    pub fn new(name: &'static str) -> Self {
        Self { name, start: Instant::now() }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        eprintln!("{} took {:.1} s", self.name, self.start.elapsed().as_secs_f64());
    }
}
