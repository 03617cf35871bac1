//! Runs programs in the workspace and says what is going on: one line before, one line after with the time it took.
//!
//! **Invariant:** a program that fails is an error that names its command line.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Tests that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many passed.
    pub(crate) passed: u64,
    /// How many failed.
    pub(crate) failed: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// Where Cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The Cargo that runs us.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program that starts in the workspace's folder.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Announces a step, does it, and says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {what}");
    let start = Instant::now();
    let result = work().with_context(|| format!("{what} failed"))?;
    println!("    {what}: done in {}", seconds(start.elapsed()));
    Ok(result)
}

/// Says that a step has nothing to do.
pub(crate) fn skip(what: &str, why: &str) {
    println!("==> {what}: {why}");
}

/// Runs it with our terminal and waits.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if status.success() { Ok(()) } else { bail!("`{}` ended with {status}", line(command)) }
}

/// Runs it and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` ended with {}: {}",
            line(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a test program, passes on what it says, and counts its tests. A failure is in the second value, so that the count of
/// a failed run is not lost.
pub(crate) fn run_tests(command: &mut Command) -> (Tally, Result<()>) {
    let mut tally = Tally::default();
    let result = run_tests_into(command, &mut tally);
    (tally, result)
}

fn run_tests_into(command: &mut Command, tally: &mut Tally) -> Result<()> {
    let text = line(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{text}`"))?;
    if let Some(stdout) = child.stdout.take() {
        for said in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let said = String::from_utf8_lossy(&said);
            println!("{said}");
            *tally += counted(&said);
        }
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { bail!("`{text}` ended with {status}") }
}

/// What one line of `cargo test` or `node --test` says about the number of tests.
fn counted(line: &str) -> Tally {
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let line = line.trim();
    if let Some(result) = line.strip_prefix("test result: ") {
        let before = |word| {
            result.split_once(word).and_then(|(text, _)| text.rsplit(' ').find(|part| !part.is_empty()))
        };
        return Tally { passed: number(before("passed")), failed: number(before("failed")) };
    }
    let summary = line.strip_prefix("# ").or_else(|| line.strip_prefix("ℹ "));
    Tally {
        passed: number(summary.and_then(|text| text.strip_prefix("pass "))),
        failed: number(summary.and_then(|text| text.strip_prefix("fail "))),
    }
}

/// Whether the program can be found.
pub(crate) fn exists(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// A time for people: `0.4 s`, `12 s`, `3 min 5 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole >= 60 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else if whole >= 10 {
        format!("{whole} s")
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    if bytes >= 10 * MIB {
        format!("{} MiB", bytes / MIB)
    } else if bytes >= 10 * KIB {
        format!("{} KiB", bytes / KIB)
    } else {
        format!("{bytes} bytes")
    }
}

/// The bytes of the files in a folder; 0 if there is none.
pub(crate) fn folder_size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_size(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_cargo_and_node_are_counted() {
        let cargo = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(counted(cargo), Tally { passed: 12, failed: 3 });
        assert_eq!(counted("# pass 7"), Tally { passed: 7, failed: 0 });
        assert_eq!(counted("ℹ fail 2"), Tally { passed: 0, failed: 2 });
        assert_eq!(counted("# pass on the left"), Tally::default());
        assert_eq!(counted("test a_name ... ok"), Tally::default());
    }

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 5 s");
        assert_eq!(size(512), "512 bytes");
        assert_eq!(size(20 << 20), "20 MiB");
    }

    #[test]
    fn a_program_that_fails_is_named() {
        let error = run(command("cargo").arg("no-such-command-of-cargo").stderr(Stdio::null())).unwrap_err();
        assert!(error.to_string().contains("no-such-command-of-cargo"), "{error}");
    }
}
