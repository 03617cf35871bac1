//! `rivulet bench footprint`: what the gateway holds in memory, idle and under what makes memory grow, and what a broker that is
//! away costs those who only wait for the disk.
//!
//! **Invariant:** every figure stands beside its goal; a line whose load was not answered in full fails the run.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::net::TcpStream;

use super::ingest::{Folder, start};
use super::load::{self, Load};
use super::{socket, usage};
use crate::cli::FootprintOptions;
use crate::console::say;

/// Nothing listens here, so the broker is away.
const NO_BROKER: &str = "127.0.0.1:1";
/// How long a server may settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);
/// How long one piece of load lasts.
const PIECE: Duration = Duration::from_secs(4);
/// Connections and batch of the load, as in `bench ingest`.
const CONNECTIONS: usize = 32;
const BATCH: usize = 50;
/// Events a second at which latencies are compared: far below what saturates two cores.
const RATE: f64 = 20_000.0;

/// One line of the table.
#[derive(Debug, Serialize)]
struct Line {
    what: String,
    figure: f64,
    unit: &'static str,
    goal: Option<f64>,
}

/// Measures each in turn and prints the table.
pub(in crate::commands) async fn run(options: FootprintOptions) -> anyhow::Result<ExitCode> {
    let mut lines = Vec::new();
    sockets(options.sockets, &mut lines).await.context("measuring WebSockets")?;
    let away = spool(options.events, &mut lines).await.context("measuring a full spool")?;
    if let Some(kafka) = &options.kafka {
        let there = latency(kafka).await.context("measuring with the broker")?;
        lines.push(line("p99 of ack=disk, broker there", there, "ms", None));
        lines.push(line("p99 of ack=disk, broker away", away, "ms", Some(2.0 * there)));
    } else {
        lines.push(line("p99 of ack=disk, broker away", away, "ms", None));
    }
    if options.json {
        say(&serde_json::to_string(&lines)?);
        return Ok(ExitCode::SUCCESS);
    }
    say("| what | figure | unit | goal, less than |\n|---|---|---|---|");
    for Line { what, figure, unit, goal } in &lines {
        let goal = goal.map_or_else(|| "–".to_owned(), |goal| format!("{goal:.1}"));
        say(&format!("| {what} | {figure:.1} | {unit} | {goal} |"));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(what: impl Into<String>, figure: f64, unit: &'static str, goal: Option<f64>) -> Line {
    Line { what: what.into(), figure, unit, goal }
}

/// Memory of a process that has settled, MiB.
async fn resident(pid: Option<u32>) -> anyhow::Result<f64> {
    tokio::time::sleep(SETTLE).await;
    let used = pid.and_then(usage::of).context("this system does not tell what a process uses")?;
    Ok(used.resident_mib)
}

async fn sockets(count: usize, lines: &mut Vec<Line>) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let (child, address) =
        start(&["gateway", "--no-demo", "--listen", "127.0.0.1:0", "--data", folder.path()?]).await?;
    lines.push(line("RSS, idle", resident(child.id()).await?, "MiB", Some(50.0)));
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.context("cannot connect")?;
        socket::greet(&mut stream, address).await?;
        open.push(stream);
    }
    let resident = resident(child.id()).await?;
    lines.push(line(format!("RSS, {count} WebSockets open"), resident, "MiB", Some(300.0)));
    Ok(())
}

fn load(address: std::net::SocketAddr, rate: Option<f64>, seed: u64) -> Load {
    Load {
        address,
        key: "sk_dev",
        prepared: load::PREPARED_REQUESTS,
        may_refuse: false,
        ack: Some("disk"),
        socket: false,
        connections: CONNECTIONS,
        batch: BATCH,
        rate,
        duration: PIECE,
        seed,
    }
}

/// Fills the spool of a gateway without broker; gives the latency at a moderate rate before.
async fn spool(events: u64, lines: &mut Vec<Line>) -> anyhow::Result<f64> {
    let folder = Folder::new()?;
    let arguments =
        ["gateway", "--no-demo", "--listen", "127.0.0.1:0", "--data", folder.path()?, "--kafka", NO_BROKER];
    let (child, address) = start(&arguments).await?;
    let answered = load::run(&load(address, Some(RATE), 1)).await?;
    let p99 = answered.percentile_ms(0.99);
    let (mut spooled, mut seed) = (answered.events, 1);
    while spooled < events {
        seed += 1;
        spooled += load::run(&load(address, None, seed)).await?.events;
    }
    let resident = resident(child.id()).await?;
    lines.push(line(format!("RSS, {spooled} events spooled"), resident, "MiB", Some(256.0)));
    Ok(p99)
}

/// The same latency with a broker.
async fn latency(kafka: &str) -> anyhow::Result<f64> {
    let folder = Folder::new()?;
    let arguments =
        ["gateway", "--no-demo", "--listen", "127.0.0.1:0", "--data", folder.path()?, "--kafka", kafka];
    let (_child, address) = start(&arguments).await?;
    Ok(load::run(&load(address, Some(RATE), 1)).await?.percentile_ms(0.99))
}
