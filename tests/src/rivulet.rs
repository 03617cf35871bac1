//! The program under test: the real binary on a folder of its own.
//!
//! **Invariant:** a test that fails shows the end of what the program wrote on standard error; the program dies with the test.

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::faults::{self, LATER, SOON};
use crate::leash::Leash;
use crate::volume::Volume;

/// What stands before the address in the line the program prints once it listens.
const LISTENING: &str = "listening on ";

/// How much of standard error a failed test shows, in lines.
const SHOWN_LINES: usize = 60;

/// How the program is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--kafka`.
    pub kafka: Option<String>,
    /// The configuration file's text.
    pub config: Option<String>,
    /// Files that the configuration names, relative to the test's folder (`{dir}` in the configuration).
    pub files: Vec<(String, String)>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
}

impl Options {
    /// With one more option by environment, such as `("log", "partitions", "1")`.
    #[must_use]
    pub fn set(mut self, section: &str, option: &str, value: impl std::fmt::Display) -> Self {
        let name = format!("RIVULET__{}__{}", section.to_uppercase(), option.to_uppercase());
        self.env.push((name, format!("{value}")));
        self
    }

    /// With this schema document, such as `page_view/1.json`, and the others so given, instead of the built-in ones.
    #[must_use]
    pub fn schema(mut self, path: &str, document: &Value) -> Self {
        self.files.push((format!("schemas/{path}"), document.to_string()));
        self.env.retain(|(name, _)| name != "RIVULET__SCHEMAS__DIR");
        self.set("schemas", "dir", "{dir}/schemas")
    }

    /// With the demo's keys and these rules instead of the demo's.
    #[must_use]
    pub fn rules(mut self, yaml: &str) -> Self {
        self.files.push(("rules.yaml".to_owned(), yaml.to_owned()));
        self.set("processor", "rules", "{dir}/rules.yaml")
    }
}

/// A running (or stopped) program with its folder.
#[derive(Debug)]
pub struct Rivulet {
    dir: TempDir,
    options: Options,
    process: Option<Leash>,
    address: String,
    volume: Option<Volume>,
    /// From start to the first 200 of `/ready`, of the last start.
    pub ready_after: Duration,
}

impl Rivulet {
    /// Starts it on an empty folder, without a configuration.
    pub async fn up() -> Self {
        Self::with(Options::default()).await
    }

    /// Starts it on an empty folder.
    pub async fn with(options: Options) -> Self {
        let mut rivulet = Self::prepared(options);
        rivulet.start().await;
        rivulet
    }

    /// An empty folder with the program not yet started.
    pub fn prepared(options: Options) -> Self {
        let dir = tempfile::Builder::new().prefix("rivulet-it-").tempdir().expect("a temporary folder");
        for (name, text) in &options.files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("in the test's folder"))
                .expect("the test's folder is writable");
            std::fs::write(path, text).expect("the test's folder is writable");
        }
        Self {
            dir,
            options,
            process: None,
            address: String::new(),
            volume: None,
            ready_after: Duration::ZERO,
        }
    }

    /// Starts it (again) on the same folder and waits until it is ready.
    pub async fn start(&mut self) {
        let start = Instant::now();
        self.spawn();
        let client = self.client();
        let process = self.process.as_mut().expect("just started");
        let ready = faults::until(SOON, async || {
            let ended = process.ended();
            assert!(ended.is_none(), "the program ended before it was ready: {ended:?}");
            client.get("/ready").await.ok().filter(|answer| answer.status == 200)
        });
        let ready = ready.await.is_some();
        self.ready_after = start.elapsed();
        assert!(ready, "/ready did not answer 200 within {SOON:?}");
    }

    /// Starts it and waits only for the line that names its address.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "already running");
        let mut command = self.command();
        command.arg("up").args(["--listen", "127.0.0.1:0", "--data"]).arg(self.data());
        if let Some(kafka) = &self.options.kafka {
            command.args(["--kafka", kafka]);
        }
        if let Some(config) = &self.options.config {
            let path = self.path("rivulet.toml");
            std::fs::write(&path, self.filled(config)).expect("the test's folder is writable");
            command.arg("--config").arg(path);
        }
        let errors =
            File::options().create(true).append(true).open(self.path("stderr.log")).expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut process = Leash::start(&mut command, None);
        let kept = File::options().create(true).append(true).open(self.path("stdout.log"));
        let kept = kept.expect("a log file");
        let told = lines(&mut process, move |line| {
            let _ = writeln!(&kept, "{line}");
            let (_, address) = line.split_once(LISTENING)?;
            let (_, address) = address.split_once("://")?;
            let end = address.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(address.len());
            Some(address[..end].to_owned())
        });
        self.process = Some(process);
        self.address = told.recv_timeout(SOON).expect("the program says where it listens");
    }

    /// Starts another command of the same binary; its lines of output, as they come.
    pub fn follow(&self, arguments: &[&str]) -> (Leash, mpsc::Receiver<String>) {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Leash::start(&mut command, None);
        let lines = lines(&mut process, Some);
        (process, lines)
    }

    /// A client with the public demo key.
    pub fn client(&self) -> Client {
        Client::new(&self.address, "wk_dev")
    }

    /// A client with the secret demo key.
    pub fn secret(&self) -> Client {
        Client::new(&self.address, "sk_dev")
    }

    /// `host:port` that it listens on.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The folder given as `--data`.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A path in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("running").pid()
    }

    /// Changes how the next start is done.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// The broker it uses.
    pub fn kafka(&self) -> Option<&str> {
        self.options.kafka.as_deref()
    }

    /// Panics if it has ended by itself.
    pub fn assert_alive(&mut self) {
        let ended = self.process.as_mut().expect("running").ended();
        assert!(ended.is_none(), "the program ended: {ended:?}");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().expect("running").kill();
    }

    /// SIGTERM; how it ended and how long that took. Panics if it had to be killed.
    pub async fn terminate(&mut self, within: Duration) -> (ExitStatus, Duration) {
        let mut process = self.process.take().expect("running");
        process.terminate(within).await.unwrap_or_else(|| panic!("did not stop within {within:?} of SIGTERM"))
    }

    /// A field of `/proc/PID/status` in KiB, such as `VmRSS`.
    pub fn memory_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("running");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .expect("a field of status");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Runs another command of the same binary and waits for its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        run(self.command().args(arguments)).await
    }

    /// The same with more environment variables.
    pub async fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        run(self.command().envs(variables.iter().copied()).args(arguments)).await
    }

    /// `/metrics`, as text.
    pub async fn metrics(&self) -> String {
        self.client().get("/metrics").await.expect("/metrics answers").text
    }

    /// The sum of all samples of a metric whose line holds each of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Option<u64> {
        sum(&self.metrics().await, name, labels)
    }

    /// The profile, if there is one.
    pub async fn profile(&self, id: &str) -> Option<Value> {
        let answer = self.secret().get(&format!("/v1/profiles/{id}")).await.ok()?;
        (answer.status == 200).then_some(answer.json)
    }

    /// Everything it wrote on standard output so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.path("stdout.log")).unwrap_or_default()
    }

    /// Everything it wrote on standard error so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.path("stderr.log")).unwrap_or_default()
    }

    /// Puts the log on a disk of its own, of this size; whether the system lets us. Before the first start.
    pub fn put_log_on_a_disk_of(&mut self, bytes: u64) -> bool {
        self.volume = Volume::mounted(&self.data().join("log"), bytes);
        self.volume.is_some()
    }

    /// The log's own disk.
    pub fn volume(&self) -> Option<&Volume> {
        self.volume.as_ref()
    }

    fn command(&self) -> Command {
        let mut command = match &self.volume {
            Some(volume) => volume.command(&binary(), self.dir.path()),
            None => Command::new(binary()),
        };
        // The working folder is the test's own: a relative default path cannot reach the repository.
        command.current_dir(self.dir.path());
        for (name, value) in &self.options.env {
            command.env(name, self.filled(value));
        }
        command
    }

    fn filled(&self, text: &str) -> String {
        text.replace("{dir}", &self.dir.path().to_string_lossy())
    }
}

impl Drop for Rivulet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.stderr();
            let lines: Vec<&str> = text.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("--- end of the program's standard error ---\n{}\n---", shown.join("\n"));
        }
    }
}

/// What `pick` makes of a process' lines. Reads to the end, so that it never blocks on a full pipe.
fn lines(
    process: &mut Leash,
    pick: impl Fn(String) -> Option<String> + Send + 'static,
) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    let stdout = process.stdout().expect("piped");
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok).filter_map(pick) {
            let _ = tell.send(line);
        }
    });
    told
}

/// The sum of all samples of a counter in Prometheus text whose line holds each of `labels`.
pub fn sum(metrics: &str, name: &str, labels: &[&str]) -> Option<u64> {
    let samples = metrics.lines().filter(|line| {
        let named = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        named && labels.iter().all(|label| line.contains(label))
    });
    let values: Vec<u64> = samples.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Names the binary under test, for a process that is no test.
pub fn use_binary(path: PathBuf) {
    let _ = BINARY.set(path);
}

/// The binary under test: what was named, else `RIVULET_BIN`, else `rivulet` beside the test's own executable.
pub fn binary() -> PathBuf {
    if let Some(path) = BINARY.get() {
        return path.clone();
    }
    if let Some(path) = std::env::var_os("RIVULET_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test has a path");
    let path = test.parent().and_then(Path::parent).expect("target/debug/deps").join("rivulet");
    assert!(path.exists(), "{} is missing: run `cargo build -p rivulet` first", path.display());
    path
}

/// Runs a command to its end, bounded.
pub async fn run(command: &mut Command) -> Output {
    let mut command = tokio::process::Command::from(std::mem::replace(command, Command::new("true")));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    faults::bounded("the command ends", LATER, command.output()).await.expect("the command starts")
}
