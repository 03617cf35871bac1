//! The command line, and the only place that documents it: `rivulet --help`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::REFERENCE;

/// Carries what a customer does from the page to a decision on that page, and loses none of it.
#[derive(Debug, Parser)]
#[command(name = "rivulet", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How the program reports what it does.
#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// What to log on standard error: a level (error, warn, info, debug) or a filter such as `info,gateway=debug`.
    #[arg(long, global = true, default_value = "info", env = "RIVULET_LOG")]
    pub(crate) log: String,
    /// How log lines look.
    #[arg(long, global = true, default_value = "text", env = "RIVULET_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process: gateway, log, processor, demo shop and console.
    #[command(after_long_help = reference())]
    Up(ServeOptions),
    /// Run the gateway alone: takes events and puts them on the log.
    #[command(after_long_help = reference())]
    Gateway(ServeOptions),
    /// Run the processor alone: reads the log, keeps profiles, decides. Needs Kafka as the log.
    #[command(after_long_help = reference())]
    Processor(ServeOptions),
    /// Work with JSON Schemas.
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Look at the log.
    #[command(subcommand)]
    Log(LogCommand),
    /// Say what became of an event. Looks in a folder's index, or asks a running program; of Kafka alone the topics are read, from the
    /// time in a `UUIDv7` on, and whole if that does not show it. With `--kafka`, `--data` may name the folder of a spool, which knows
    /// the places of what it published.
    Fate(FateOptions),
    /// Look at refused events of a running program, and try them again.
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Follow what a running program answers, event by event, until interrupted.
    Tail(TailOptions),
    /// Stop events of a running program by rule, at once: see "Stop it at three in the morning" in docs/operations.md.
    #[command(subcommand)]
    Kill(KillCommand),
    /// Put this program under load, kill it, freeze it, take its space, and check that nothing that was answered is lost, counted
    /// twice or out of order. Exits 1 and names the seed when a promise is broken.
    Torture(TortureOptions),
    /// Measure: figures per core and ratios against a reference of the same run.
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// The options of the configuration file, below those of the command line.
fn reference() -> String {
    format!("Options of the file at --config, as TOML:\n\n{REFERENCE}")
}

/// Options of the commands that serve. A flag wins over the environment, which wins over the file.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServeOptions {
    /// Address to listen on; port 0 takes a free one. Default: 127.0.0.1:8080.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Folder for the log, the profiles and the spool; made if missing. Default: rivulet-data.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Use Apache Kafka as the log, with a spool on disk in front: host:port, more separated by commas.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka: Option<String>,
    /// TOML file with the configuration. Any option of it can be set as `RIVULET__SECTION__OPTION` in the environment.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Leave out the demo shop, the console and the demo's token service.
    #[arg(long)]
    pub(crate) no_demo: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    /// Check a folder of schemas (`<type>/<version>.json`), their examples and their versions; exits 1 if any is wrong or breaks
    /// what it must not.
    Check(CheckOptions),
    /// Say which events of a log would not fit other schemas, by type, source and library; exits 1 if any.
    WhatIf(WhatIfOptions),
    /// Print types of the events' metadata, from the newest version of each schema.
    Types(TypesOptions),
}

#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// The folder. Default: the schemas built into the program.
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Compare with the schemas of this folder too: those that are published.
    #[arg(long, value_name = "DIR")]
    pub(crate) against: Option<PathBuf>,
    /// What versions of one major number owe each other.
    #[arg(long, value_name = "MODE", default_value = "backward")]
    pub(crate) mode: CompatibilityMode,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What versions of one major number owe each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompatibilityMode {
    /// What fitted the old version fits the new one.
    Backward,
    /// What fits the new version fitted the old one.
    Forward,
    /// Both.
    Full,
}

impl From<CompatibilityMode> for schemas::registry::Compatibility {
    fn from(mode: CompatibilityMode) -> Self {
        match mode {
            CompatibilityMode::Backward => Self::Backward,
            CompatibilityMode::Forward => Self::Forward,
            CompatibilityMode::Full => Self::Full,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct WhatIfOptions {
    #[command(flatten)]
    pub(crate) place: LogPlace,
    /// Folder of the schemas to try.
    #[arg(long, value_name = "DIR")]
    pub(crate) schemas: PathBuf,
    /// Look at what was received in this time alone: a number with s, m, h or d. Default: the whole log.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TypesOptions {
    /// The folder. Default: the schemas built into the program.
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The language.
    #[arg(long, value_name = "LANG", default_value = "ts")]
    pub(crate) lang: Language,
}

/// The language of generated types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// TypeScript.
    Ts,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Print records as JSON, one a line: topic, partition, offset, key, headers, value.
    Cat(CatOptions),
}

/// Where a log is.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogPlace {
    /// Folder of the embedded log; the program may be running on it.
    #[arg(long, value_name = "DIR", default_value = "rivulet-data")]
    pub(crate) data: PathBuf,
    /// Kafka instead of a folder: host:port, more separated by commas.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CatOptions {
    #[command(flatten)]
    pub(crate) place: LogPlace,
    /// Topic to print, such as `rivulet.events` or `rivulet.quarantine`.
    #[arg(long, value_name = "TOPIC", default_value = "rivulet.events")]
    pub(crate) topic: String,
    /// Print this partition alone.
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// Start at this offset of each partition, or of one: `--from 100`, `--from 3=250,7=90`.
    #[arg(long, value_name = "[PARTITION=]OFFSET", value_delimiter = ',')]
    pub(crate) from: Vec<StartAt>,
    /// Go on printing as records come, until interrupted.
    #[arg(long)]
    pub(crate) follow: bool,
}

/// One value of `--from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartAt {
    /// The partition meant; each, if none is named.
    pub(crate) partition: Option<u32>,
    pub(crate) offset: u64,
}

impl std::str::FromStr for StartAt {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (partition, offset) = match text.split_once('=') {
            Some((partition, offset)) => (Some(partition.parse()?), offset),
            None => (None, text),
        };
        Ok(Self { partition, offset: offset.parse()? })
    }
}

#[derive(Debug, Args)]
pub(crate) struct FateOptions {
    /// The event's id: a UUID in any spelling.
    #[arg(value_name = "EVENT_ID")]
    pub(crate) event_id: String,
    #[command(flatten)]
    pub(crate) place: LogPlace,
    /// Ask a running program instead, such as `http://127.0.0.1:8080`; it also knows what the processor did.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    #[command(flatten)]
    pub(crate) secret: SecretKey,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a running program asks for before it tells anything.
#[derive(Clone, Debug, Args)]
pub(crate) struct SecretKey {
    /// A secret key of the program at `--url`.
    #[arg(
        long,
        value_name = "KEY",
        default_value = "sk_dev",
        env = "RIVULET_SECRET_KEY",
        hide_env_values = true
    )]
    pub(crate) key: String,
}

/// The running program to ask.
#[derive(Clone, Debug, Args)]
pub(crate) struct Running {
    /// Where it is.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) secret: SecretKey,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which refused events.
#[derive(Clone, Debug, Args)]
pub(crate) struct Refused {
    /// Those refused for this reason: a code of docs/errors, such as `schema.invalid`.
    #[arg(long, value_name = "CODE")]
    pub(crate) reason: Option<String>,
    /// Those of this source: the name of a key.
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Those received from this instant on, such as `2026-01-31T12:00:00Z`.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// Group refused events by reason, place and source, the most frequent first.
    Reasons {
        #[command(flatten)]
        refused: Refused,
        #[command(flatten)]
        running: Running,
    },
    /// List refused events.
    List {
        #[command(flatten)]
        refused: Refused,
        /// Most events.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        running: Running,
    },
    /// Show one refused event with its raw bytes.
    Show {
        /// Its place, `partition:offset`, as the list names it.
        #[arg(value_name = "AT")]
        at: String,
        #[command(flatten)]
        running: Running,
    },
    /// Try refused events again, under their old id and received time; exits 1 if one is refused again.
    Replay {
        /// Their places; without any, all that the filters name.
        #[arg(value_name = "AT")]
        at: Vec<String>,
        #[command(flatten)]
        refused: Refused,
        /// A JSON Patch (RFC 6902) to apply to each first.
        #[arg(long, value_name = "FILE")]
        patch: Option<PathBuf>,
        /// Say what would happen and what the patch changes, and take nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        running: Running,
    },
}

/// Which events to follow; all that is given must agree.
#[derive(Debug, Args)]
pub(crate) struct TailOptions {
    /// Of this source: the name of a key.
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Of this type.
    #[arg(long, value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// Answered so: accepted, duplicate, quarantined, rejected or retry.
    #[arg(long, value_name = "WORD")]
    pub(crate) outcome: Option<String>,
    /// Refused for this reason: a code of docs/errors.
    #[arg(long, value_name = "CODE")]
    pub(crate) reason: Option<String>,
    /// About this user.
    #[arg(long, value_name = "ID")]
    pub(crate) user: Option<String>,
    /// About this device.
    #[arg(long, value_name = "ID")]
    pub(crate) anonymous: Option<String>,
    /// Of this library, by name or "name version".
    #[arg(long, value_name = "TEXT")]
    pub(crate) library: Option<String>,
    /// End after so many events.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) running: Running,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KillCommand {
    /// List the rules in force, and how many events each has stopped.
    List {
        #[command(flatten)]
        running: Running,
    },
    /// Add a rule in front of the others, or replace the one of that name.
    Add {
        /// Letters, digits, `-`, `_` or `.`; senders and metrics see it.
        #[arg(value_name = "NAME")]
        name: String,
        /// `drop`, `divert` (to quarantine, to be replayed later) or `sample` (with --keep).
        #[arg(long, value_name = "WORD", default_value = "divert")]
        action: String,
        /// The share that still passes under `sample`, such as 0.1.
        #[arg(long, value_name = "SHARE")]
        keep: Option<f64>,
        /// Events of this source: the name of a key.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// Events of this type.
        #[arg(long, value_name = "TYPE")]
        event_type: Option<String>,
        /// The event of this id.
        #[arg(long, value_name = "UUID")]
        event_id: Option<String>,
        /// Events of this library, by name or "name version".
        #[arg(long, value_name = "TEXT")]
        library: Option<String>,
        /// The rule ends then, such as `2026-01-31T12:00:00Z`.
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        /// Leave nothing of dropped events: `rivulet fate` will not know them.
        #[arg(long)]
        no_trace: bool,
        #[command(flatten)]
        running: Running,
    },
    /// Remove a rule.
    Remove {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        running: Running,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Events per second, CPU-seconds per million and latency of `POST /v1/events`, beside a bare axum server.
    Ingest(IngestOptions),
    /// Ten times what this program sustains, with idle sockets, slow senders and decompression bombs beside it: memory, and
    /// latency and what was shed by lane. Exits 1 beyond the limits.
    Overload(OverloadOptions),
    /// Events per second and core through dedup, profile and 20 rules.
    Process(ProcessOptions),
    /// Time of `rivulet fate` among many events, and what its index costs.
    Fate(FateBenchOptions),
    /// Memory of the gateway: idle, with many sockets open, with a full spool; and latency while the broker is away.
    Footprint(FootprintOptions),
    /// The reference servers of `ingest`: parse and validate, then discard or wait for Kafka.
    #[command(hide = true)]
    Reference(ReferenceOptions),
}

#[derive(Debug, Args)]
pub(crate) struct ReferenceOptions {
    /// Send what is valid to this Kafka and answer when it has it: host:port.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct IngestOptions {
    /// Seconds to measure each server, after a tenth of that to warm up.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Keep-alive connections, each sending its next batch when the last is answered.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) connections: usize,
    /// Events in a batch.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) batch: usize,
    /// Times that every server is measured, in turn; the table shows medians.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) runs: usize,
    /// Measure these servers only, of: discard, kafka, received, disk, socket, broker, kafka-single, disk-single, disk-half.
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Measure what needs Kafka too, with this one: host:port.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where `bench process` keeps state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum BenchStore {
    /// In memory.
    Memory,
    /// On disk, with one fsync a batch.
    Fjall,
}

#[derive(Debug, Args)]
pub(crate) struct OverloadOptions {
    /// Seconds of overload, after half of that to find what is sustained.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Times the sustained rate that is offered.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) times: u32,
    /// Sockets that send nothing.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub(crate) idle: usize,
    /// Senders of 10 bytes a second.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) slow: usize,
    /// Bodies that inflate to far more than they are.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) bombs: usize,
    /// Most memory, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub(crate) memory: u64,
    /// Slowest answer to one in a hundred critical batches, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 250)]
    pub(crate) p99: u64,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FootprintOptions {
    /// Sockets of `rivulet.v1` to open; each side needs a file descriptor for each.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) sockets: usize,
    /// Events to put into the spool while the broker is away; about 1.5 kB of the temporary folder's disk each.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) events: u64,
    /// Compare the latency of `disk` while the broker is away with that while this one answers: host:port.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProcessOptions {
    /// Events to process.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) events: usize,
    /// One store alone; both without it.
    #[arg(long, value_enum)]
    pub(crate) store: Option<BenchStore>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FateBenchOptions {
    /// Events in the log; about 330 bytes of the temporary folder's disk each.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) events: u64,
    /// Events to look up, as many again that are not there.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) lookups: u64,
    /// Seed of the events.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TortureOptions {
    /// Seed of the load and of the faults.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Seeds to run, from the first on.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) count: u64,
    /// Faults in each run.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) rounds: u64,
    /// Put this Kafka behind it: host:port.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka: Option<String>,
}
