//! `rivulet bench overload`: what is asked of a program that has far too much to do.
//!
//! First what it sustains is found; then so many times that is offered, nearly all of it best-effort, while idle sockets, slow
//! senders and decompression bombs take what they can.
//!
//! **Invariant:** critical latency counts from the moment a batch was due; memory is the highest that the kernel saw. What could
//! not be offered because the machine has no more is told, not assumed.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tests::client::gzip;
use tests::rivulet::{Options, Rivulet, sum, use_binary};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::load::{self, Answered, Load};
use crate::cli::OverloadOptions;
use crate::console::say;

/// Events in a batch.
const BATCH: usize = 50;
/// Connections of each kind of load.
const SUSTAINING: usize = 32;
const CRITICAL: usize = 8;
const NORMAL: usize = 32;
const BEST_EFFORT: usize = 256;
/// Of the sustained rate: critical events, normal events; the rest of what is offered is best-effort.
const CRITICAL_SHARE: f64 = 0.1;
const NORMAL_SHARE: f64 = 0.4;
/// What a bomb inflates to, bytes.
const BOMB_BYTES: usize = 16 << 20;
/// A slow sender's bytes a second.
const SLOW_BYTES: usize = 10;
/// Requests that a connection has ready: few, because there are many connections.
const PREPARED: usize = 2;

/// The keys, one a lane.
const KEYS: &str = "\
[[keys]]\nname = \"critical\"\nkey = \"sk_critical\"\nkind = \"secret\"\nlane = \"critical\"\n\
[[keys]]\nname = \"normal\"\nkey = \"sk_normal\"\nkind = \"secret\"\n\
[[keys]]\nname = \"best-effort\"\nkey = \"sk_best_effort\"\nkind = \"secret\"\nlane = \"best_effort\"\n";

/// What came of one lane.
#[derive(Debug, Serialize)]
struct Lane {
    name: &'static str,
    offered_per_second: f64,
    taken_per_second: f64,
    shed_percent: f64,
    p50_ms: f64,
    p99_ms: f64,
    counted_shed_events: u64,
    counted_shed_requests: u64,
}

/// The whole of it.
#[derive(Debug, Serialize)]
struct Figures {
    sustained_per_second: f64,
    asked_times: u32,
    offered_times: f64,
    idle_sockets: usize,
    slow_senders: usize,
    bombs: usize,
    bombs_taken: usize,
    resident_max_mib: u64,
    lanes: Vec<Lane>,
}

/// Runs it, prints the table, and judges.
pub(in crate::commands) async fn run(options: OverloadOptions) -> anyhow::Result<ExitCode> {
    use_binary(std::env::current_exe().context("this program does not know where it is")?);
    let rivulet = Rivulet::with(Options { config: Some(KEYS.to_owned()), ..Options::default() }).await;
    let address: SocketAddr = rivulet.address().parse().context("the program's address")?;
    let overload = Duration::from_secs(options.seconds.max(1));
    let sustained =
        load::run(&Load { connections: SUSTAINING, ..lane_load(address, "sk_normal", overload / 2) }).await?;
    let figures = flood(&rivulet, address, &options, sustained.rate(), overload).await?;
    print(&options, &figures)?;
    let critical = figures.lanes.first().context("a lane")?;
    let held = critical.p99_ms <= options.p99 as f64
        && critical.shed_percent == 0.0
        && figures.resident_max_mib <= options.memory
        && figures.bombs_taken == 0;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lane_load(address: SocketAddr, key: &'static str, duration: Duration) -> Load {
    Load {
        address,
        key,
        prepared: PREPARED,
        may_refuse: true,
        ack: Some("disk"),
        socket: false,
        connections: 1,
        batch: BATCH,
        rate: None,
        duration,
        seed: key.len() as u64,
    }
}

async fn flood(
    rivulet: &Rivulet,
    address: SocketAddr,
    options: &OverloadOptions,
    sustained: f64,
    duration: Duration,
) -> anyhow::Result<Figures> {
    let mut nuisance = JoinSet::new();
    let idle = open(address, options.idle).await;
    let slow = open(address, options.slow).await;
    let (idle_sockets, slow_senders) = (idle.len(), slow.len());
    for stream in slow {
        nuisance.spawn(trickle(stream, address));
    }
    let bomb = bomb(address);
    let mut bombs = JoinSet::new();
    for _ in 0..options.bombs {
        let bomb = bomb.clone();
        bombs.spawn(async move { explode(address, &bomb).await.unwrap_or(false) });
    }
    let at =
        |key, connections, rate| Load { connections, rate: Some(rate), ..lane_load(address, key, duration) };
    let times = f64::from(options.times);
    let loads = [
        at("sk_critical", CRITICAL, sustained * CRITICAL_SHARE),
        at("sk_normal", NORMAL, sustained * NORMAL_SHARE),
        at("sk_best_effort", BEST_EFFORT, sustained * (times - CRITICAL_SHARE - NORMAL_SHARE)),
    ];
    let [critical, normal, best_effort] = loads;
    let answered = tokio::try_join!(load::run(&critical), load::run(&normal), load::run(&best_effort))?;
    let mut bombs_taken = 0;
    while let Some(done) = bombs.join_next().await {
        bombs_taken += usize::from(done.unwrap_or(false));
    }
    nuisance.shutdown().await;
    drop(idle);
    let metrics = rivulet.metrics().await;
    let lanes: Vec<Lane> = ["critical", "normal", "best_effort"]
        .into_iter()
        .zip([&answered.0, &answered.1, &answered.2])
        .map(|(lane, answered)| of_lane(lane, answered, &metrics))
        .collect();
    let offered: f64 = lanes.iter().map(|lane| lane.offered_per_second).sum();
    Ok(Figures {
        sustained_per_second: sustained,
        asked_times: options.times,
        offered_times: offered / sustained.max(1.0),
        idle_sockets,
        slow_senders,
        bombs: options.bombs,
        bombs_taken,
        resident_max_mib: rivulet.memory_kib("VmHWM") / 1024,
        lanes,
    })
}

fn of_lane(lane: &'static str, answered: &Answered, metrics: &str) -> Lane {
    let seconds = answered.elapsed.as_secs_f64().max(1e-9);
    let all = (answered.events + answered.refused) as f64;
    let counted = |name| sum(metrics, name, &[&format!("lane=\"{lane}\"")]).unwrap_or_default();
    Lane {
        name: lane,
        offered_per_second: all / seconds,
        taken_per_second: answered.events as f64 / seconds,
        shed_percent: answered.refused as f64 * 100.0 / all.max(1.0),
        p50_ms: answered.percentile_ms(0.5),
        p99_ms: answered.percentile_ms(0.99),
        counted_shed_events: counted("rivulet_gateway_shed_events_total"),
        counted_shed_requests: counted("rivulet_gateway_shed_requests_total"),
    }
}

/// As many connections as the system lets us have, at most `count`.
async fn open(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        let Ok(stream) = TcpStream::connect(address).await else { break };
        streams.push(stream);
    }
    streams
}

/// A body that comes very slowly.
async fn trickle(mut stream: TcpStream, address: SocketAddr) {
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer sk_best_effort\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n["
    );
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        if stream.write_all(&[b' '; SLOW_BYTES]).await.is_err() {
            return;
        }
    }
}

fn bomb(address: SocketAddr) -> Vec<u8> {
    let body = gzip(&vec![b' '; BOMB_BYTES]);
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer sk_normal\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

/// Whether the bomb was taken for a good body.
async fn explode(address: SocketAddr, bomb: &[u8]) -> anyhow::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bomb).await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 2"))
}

fn print(options: &OverloadOptions, figures: &Figures) -> anyhow::Result<()> {
    ensure!(!figures.lanes.is_empty(), "nothing was measured");
    if options.json {
        say(&serde_json::to_string(figures)?);
        return Ok(());
    }
    say(&format!(
        "sustained {:.0} events/s; offered {:.1} times that ({} asked), beside {} idle sockets, {} slow senders, {} bombs ({} taken)",
        figures.sustained_per_second,
        figures.offered_times,
        figures.asked_times,
        figures.idle_sockets,
        figures.slow_senders,
        figures.bombs,
        figures.bombs_taken,
    ));
    say(&format!("most memory: {} MiB (limit {})\n", figures.resident_max_mib, options.memory));
    say("| lane | offered/s | taken/s | shed % | p50 ms | p99 ms | shed events | refused requests |");
    say("|---|---|---|---|---|---|---|---|");
    for lane in &figures.lanes {
        say(&format!(
            "| {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {} | {} |",
            lane.name,
            lane.offered_per_second,
            lane.taken_per_second,
            lane.shed_percent,
            lane.p50_ms,
            lane.p99_ms,
            lane.counted_shed_events,
            lane.counted_shed_requests,
        ));
    }
    Ok(())
}
