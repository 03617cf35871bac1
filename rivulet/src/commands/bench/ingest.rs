//! `rivulet bench ingest`: what the gateway costs at each ack level, beside two references, in one run.
//!
//! **Invariant:** every figure of a table is of the same sitting; what Kafka did not get is nobody's: the topic is counted.

use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::load::{self, Load};
use super::usage;
use crate::cli::IngestOptions;
use crate::console::say;

/// The figures of one server; of several runs, the median of each.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    what: &'static str,
    events_per_second: f64,
    cpu_seconds_per_million: f64,
    /// To the bare server that discards.
    ratio_to_discard: Option<f64>,
    /// To the bare server that waits for Kafka, with requests of the same size.
    ratio_to_kafka: Option<f64>,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    resident_mib: f64,
    events: u64,
}

/// One line of the table.
struct Server {
    /// What `--only` calls it.
    word: &'static str,
    what: &'static str,
    kind: Kind,
    /// The level asked for.
    ack: Option<&'static str>,
    needs_kafka: bool,
    /// One event a request, from more connections.
    single: bool,
    /// Over a socket of `rivulet.v1`.
    socket: bool,
    /// Half of the rate that this other line reached, instead of a closed loop.
    half_of: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reference,
    Gateway,
}

const fn server(word: &'static str, what: &'static str, kind: Kind, ack: Option<&'static str>) -> Server {
    Server { word, what, kind, ack, needs_kafka: false, single: false, socket: false, half_of: None }
}

const SERVERS: [Server; 9] = [
    server("discard", "reference: axum, serde_json, jsonschema, discard", Kind::Reference, None),
    Server {
        needs_kafka: true,
        ..server(
            "kafka",
            "reference R: the same, then rdkafka FutureProducer, in Kafka",
            Kind::Reference,
            None,
        )
    },
    server("received", "`rivulet gateway`, ack=received", Kind::Gateway, Some("received")),
    server("disk", "`rivulet gateway`, ack=disk (fsynced)", Kind::Gateway, Some("disk")),
    Server {
        socket: true,
        ..server("socket", "`rivulet gateway`, ack=disk, over WebSockets", Kind::Gateway, Some("disk"))
    },
    Server {
        needs_kafka: true,
        ..server("broker", "`rivulet gateway`, ack=broker (in Kafka)", Kind::Gateway, Some("broker"))
    },
    Server {
        needs_kafka: true,
        single: true,
        ..server("kafka-single", "reference R, one event a request", Kind::Reference, None)
    },
    Server {
        single: true,
        ..server(
            "disk-single",
            "`rivulet gateway`, ack=disk, one event a request",
            Kind::Gateway,
            Some("disk"),
        )
    },
    Server {
        half_of: Some("disk"),
        ..server("disk-half", "`rivulet gateway`, ack=disk, at half of its peak", Kind::Gateway, Some("disk"))
    },
];

/// How long a server may take to listen.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Connections that send single events.
const SINGLE_CONNECTIONS: usize = 128;

/// Runs every server in turn, as often as asked, and prints the table.
pub(in crate::commands) async fn run(options: IngestOptions) -> anyhow::Result<ExitCode> {
    for word in &options.only {
        ensure!(SERVERS.iter().any(|server| server.word == word), "no server is called `{word}`");
    }
    let wanted: Vec<&Server> = SERVERS
        .iter()
        .filter(|server| options.only.is_empty() || options.only.iter().any(|word| word == server.word))
        .filter(|server| !server.needs_kafka || options.kafka.is_some())
        .collect();
    let mut runs: Vec<Vec<Figures>> = wanted.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.runs.max(1) {
        for (place, server) in wanted.iter().enumerate() {
            let rate = server.half_of.and_then(|word| {
                let other = wanted.iter().position(|server| server.word == word)?;
                Some(runs.get(other)?.last()?.events_per_second / 2.0)
            });
            let figures = measure(&options, server, rate).await?;
            if let Some(runs) = runs.get_mut(place) {
                runs.push(figures);
            }
        }
    }
    let mut all: Vec<Figures> = runs.iter().filter_map(|runs| medians(runs)).collect();
    let cost = |word: &str| {
        let place = wanted.iter().position(|server| server.word == word)?;
        Some(all.get(place)?.cpu_seconds_per_million.max(1e-9))
    };
    let (discard, kafka, single) = (cost("discard"), cost("kafka"), cost("kafka-single"));
    for (figures, server) in all.iter_mut().zip(&wanted) {
        let ratio = |base: Option<f64>| base.map(|base| figures.cpu_seconds_per_million / base);
        figures.ratio_to_discard = ratio(discard);
        figures.ratio_to_kafka = ratio(if server.single { single } else { kafka });
    }
    if options.json {
        say(&serde_json::to_string(&all)?);
    } else {
        print_table(&options, &all);
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(options: &IngestOptions, server: &Server, rate: Option<f64>) -> anyhow::Result<Figures> {
    let what = server.what;
    let folder = Folder::new()?;
    let kafka = options.kafka.as_deref().filter(|_| server.needs_kafka);
    let mut arguments = match server.kind {
        Kind::Reference => vec!["bench", "reference"],
        Kind::Gateway => vec!["gateway", "--no-demo", "--listen", "127.0.0.1:0", "--data", folder.path()?],
    };
    if let Some(kafka) = kafka {
        arguments.extend(["--kafka", kafka]);
    }
    let (mut child, address) = start(&arguments).await.with_context(|| format!("starting {what}"))?;
    let pid = child.id().context("the server has ended")?;
    let load = |seconds: f64, seed| Load {
        address,
        key: "sk_dev",
        prepared: load::PREPARED_REQUESTS,
        may_refuse: false,
        ack: server.ack,
        socket: server.socket,
        connections: if server.single { SINGLE_CONNECTIONS } else { options.connections },
        batch: if server.single { 1 } else { options.batch },
        rate,
        duration: Duration::from_secs_f64(seconds),
        seed,
    };
    let seconds = options.seconds.max(1) as f64;
    load::run(&load(seconds / 10.0, 1)).await.with_context(|| format!("warming up {what}"))?;
    let counted = records(kafka, server.kind).await;
    let before = usage::of(pid).context("no figures of the server's process")?;
    let answered = load::run(&load(seconds, 2)).await.with_context(|| format!("measuring {what}"))?;
    let after = usage::of(pid).context("no figures of the server's process")?;
    if let (Some(before), Some(after)) = (counted, records(kafka, server.kind).await) {
        let written = after.saturating_sub(before);
        ensure!(written >= answered.events, "{what}: {} acknowledged, {written} in Kafka", answered.events);
    }
    child.kill().await.context("stopping the server")?;
    Ok(Figures {
        what,
        events_per_second: answered.rate(),
        cpu_seconds_per_million: (after.cpu_seconds - before.cpu_seconds)
            / (answered.events.max(1) as f64 / 1e6),
        ratio_to_discard: None,
        ratio_to_kafka: None,
        p50_ms: answered.percentile_ms(0.5),
        p99_ms: answered.percentile_ms(0.99),
        p999_ms: answered.percentile_ms(0.999),
        resident_mib: after.resident_mib,
        events: answered.events,
    })
}

/// How many records the server's topic has had.
#[cfg(feature = "kafka")]
async fn records(kafka: Option<&str>, kind: Kind) -> Option<u64> {
    let topic = match kind {
        Kind::Reference => super::reference::TOPIC,
        Kind::Gateway => schemas::topic::Topic::Events.name(),
    };
    broker::kafka::bare::records(kafka?, topic).await
}

#[cfg(not(feature = "kafka"))]
async fn records(_kafka: Option<&str>, _kind: Kind) -> Option<u64> {
    None
}

/// The median of each figure over the runs of one server.
fn medians(runs: &[Figures]) -> Option<Figures> {
    let median = |of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Some(Figures {
        events_per_second: median(|f| f.events_per_second),
        cpu_seconds_per_million: median(|f| f.cpu_seconds_per_million),
        p50_ms: median(|f| f.p50_ms),
        p99_ms: median(|f| f.p99_ms),
        p999_ms: median(|f| f.p999_ms),
        resident_mib: median(|f| f.resident_mib),
        ..runs.last()?.clone()
    })
}

/// Starts this program again as a server and waits for the line that names its address.
pub(super) async fn start(arguments: &[&str]) -> anyhow::Result<(Child, SocketAddr)> {
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
    let IngestOptions { connections, batch, seconds, runs, .. } = options;
    say(&format!(
        "{connections} connections, closed loop, batches of {batch} events of ~800 bytes, {seconds} s each, median of {runs}; \
         CPU of the server process alone\n"
    ));
    say("| server | events/s | CPU s / 1M | x discard | x R | p50 ms | p99 ms | p99.9 ms | RSS MiB |");
    say("|---|---|---|---|---|---|---|---|---|");
    for f in all {
        let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        say(&format!(
            "| {} | {:.0} | {:.2} | {} | {} | {:.1} | {:.1} | {:.1} | {:.0} |",
            f.what,
            f.events_per_second,
            f.cpu_seconds_per_million,
            ratio(f.ratio_to_discard),
            ratio(f.ratio_to_kafka),
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

    pub(super) fn path(&self) -> anyhow::Result<&str> {
        self.0.to_str().context("the temporary folder's path is not UTF-8")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
