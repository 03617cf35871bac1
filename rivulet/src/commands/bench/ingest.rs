//! `rivulet bench ingest`: what the gateway costs at each ack level, beside the reference, in one run.

use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::load::{self, Load};
use super::usage;
use crate::cli::IngestOptions;
use crate::console::say;

/// The figures of one server at one ack level.
#[derive(Debug, Serialize)]
struct Figures {
    what: String,
    events_per_second: f64,
    cpu_seconds_per_million: f64,
    ratio_to_reference: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    resident_mib: f64,
    events: u64,
}

/// How long a server may take to listen.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Runs every server in turn and prints the table.
pub(in crate::commands) async fn run(options: IngestOptions) -> anyhow::Result<ExitCode> {
    let reference =
        measure(&options, "reference: axum, serde_json, jsonschema, discard", "", &["bench", "reference"])
            .await?;
    let base = reference.cpu_seconds_per_million;
    let mut all = vec![reference];
    for level in ["received", "disk"] {
        let folder = Folder::new()?;
        let arguments = ["gateway", "--no-demo", "--listen", "127.0.0.1:0", "--data", folder.path()?];
        all.push(
            measure(&options, &format!("rivulet gateway, ack={level}"), &format!("ack={level}"), &arguments)
                .await?,
        );
    }
    if let Some(kafka) = &options.kafka {
        let folder = Folder::new()?;
        let arguments =
            ["gateway", "--no-demo", "--listen", "127.0.0.1:0", "--kafka", kafka, "--data", folder.path()?];
        all.push(measure(&options, "rivulet gateway, ack=broker (Kafka)", "ack=broker", &arguments).await?);
    }
    for figures in &mut all {
        figures.ratio_to_reference = figures.cpu_seconds_per_million / base.max(1e-9);
    }
    if options.json {
        say(&serde_json::to_string(&all)?);
    } else {
        print_table(&options, &all);
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    options: &IngestOptions,
    what: &str,
    query: &str,
    arguments: &[&str],
) -> anyhow::Result<Figures> {
    let (mut server, address) = start(arguments).await.with_context(|| format!("starting {what}"))?;
    let pid = server.id().context("the server has ended")?;
    let load = |seconds: f64, seed| Load {
        address,
        query: query.to_owned(),
        connections: options.connections,
        batch: options.batch,
        duration: Duration::from_secs_f64(seconds),
        seed,
    };
    let seconds = options.seconds.max(1) as f64;
    load::run(&load(seconds / 10.0, 1)).await.with_context(|| format!("warming up {what}"))?;
    let before = usage::of(pid).context("no figures of the server's process")?;
    let answered = load::run(&load(seconds, 2)).await.with_context(|| format!("measuring {what}"))?;
    let after = usage::of(pid).context("no figures of the server's process")?;
    server.kill().await.context("stopping the server")?;
    Ok(Figures {
        what: what.to_owned(),
        events_per_second: answered.rate(),
        cpu_seconds_per_million: (after.cpu_seconds - before.cpu_seconds)
            / (answered.events.max(1) as f64 / 1e6),
        ratio_to_reference: 1.0,
        p50_ms: answered.percentile_ms(0.5),
        p99_ms: answered.percentile_ms(0.99),
        p999_ms: answered.percentile_ms(0.999),
        resident_mib: after.resident_mib,
        events: answered.events,
    })
}

/// Starts this program again as a server and waits for the line that names its address.
async fn start(arguments: &[&str]) -> anyhow::Result<(Child, SocketAddr)> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let mut child = Command::new(program)
        .args(["--log", "warn"])
        .args(arguments)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start this program again")?;
    let stdout = child.stdout.take().context("no output to read the address from")?;
    let mut lines = BufReader::new(stdout).lines();
    let address = tokio::time::timeout(START_DEADLINE, async {
        while let Some(line) = lines.next_line().await? {
            if let Some(address) = line.strip_prefix("listening on http://") {
                return Ok(address.trim().parse()?);
            }
        }
        bail!("the server ended before it listened")
    });
    let address = address.await.context("the server did not listen in time")??;
    // Its later lines are read and dropped, so that it never waits for a reader.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((child, address))
}

fn print_table(options: &IngestOptions, all: &[Figures]) {
    say(&format!(
        "{} connections, closed loop, batches of {} events of ~800 bytes, {} s each; CPU of the server process alone\n",
        options.connections, options.batch, options.seconds
    ));
    say("| server | events/s | CPU s / 1M | x reference | p50 ms | p99 ms | p99.9 ms | RSS MiB |");
    say("|---|---|---|---|---|---|---|---|");
    for f in all {
        say(&format!(
            "| {} | {:.0} | {:.2} | {:.2} | {:.1} | {:.1} | {:.1} | {:.0} |",
            f.what,
            f.events_per_second,
            f.cpu_seconds_per_million,
            f.ratio_to_reference,
            f.p50_ms,
            f.p99_ms,
            f.p999_ms,
            f.resident_mib
        ));
    }
}

/// A fresh folder in the temporary folder, removed at the end.
pub(super) struct Folder(std::path::PathBuf);

impl Folder {
    pub(super) fn new() -> anyhow::Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("rivulet-bench-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn as_path(&self) -> &std::path::Path {
        &self.0
    }

    fn path(&self) -> anyhow::Result<&str> {
        self.0.to_str().context("the temporary folder's path is not UTF-8")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
