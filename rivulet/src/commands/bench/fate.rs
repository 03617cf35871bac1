//! `rivulet bench fate`: how long an event is looked for among many, and what its index costs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use broker::clock::SystemClock;
use broker::embedded::{Journal, JournalConfig, find_in_folder};
use broker::headers::Headers;
use broker::log::{Log as _, NewRecord};
use bytes::Bytes;
use schemas::header;
use schemas::id::EventId;
use schemas::topic::Topic;
use schemas::verdict::AckLevel;
use serde::Serialize;

use super::events::Generator;
use super::ingest::Folder;
use super::usage::{self, Usage};
use crate::cli::FateBenchOptions;
use crate::console::say;

/// Records a batch.
const BATCH: usize = 4_000;
/// Bytes of a value. Smaller than a real event, so that ten million fit a common disk.
const VALUE_BYTES: usize = 150;
/// Segments a quarter of the default, so that as many records are in one as are of real events in one of the default size.
const SEGMENT_BYTES: u64 = 16 << 20;
/// The id's time of the first event, ms since 1970.
const BEGIN: u64 = 1_700_000_000_000;
/// Ends the name of an index file.
const IDS: &str = ".ids";
/// How long index files are waited for.
const PATIENCE: Duration = Duration::from_mins(30);
/// How often it is looked whether they are there.
const LOOK: Duration = Duration::from_millis(50);

/// Times of one kind of look-up, ms.
#[derive(Debug, Serialize)]
struct Times {
    what: &'static str,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    events: u64,
    segments: usize,
    append_events_per_second: f64,
    append_cpu_seconds_per_million: f64,
    rebuild_cpu_seconds_per_million: f64,
    index_mib_per_million: f64,
    resident_mib_open: f64,
    resident_mib_after_lookups: f64,
    lookups: Vec<Times>,
}

/// Fills a journal, looks events up in it, removes the index and has it made anew.
pub(in crate::commands) async fn run(options: FateBenchOptions) -> anyhow::Result<ExitCode> {
    let folder = Folder::new()?;
    let dir = folder.as_path();
    let config =
        JournalConfig { segment_bytes: SEGMENT_BYTES, retention_age: None, ..JournalConfig::new(dir) };
    let (mut generator, mut sample) = (Generator::new(options.seed), Vec::new());
    let (before, started) = (used()?, now());
    let journal = Journal::open(config.clone(), Arc::new(SystemClock))?;
    fill(&journal, options.events, options.lookups, &mut generator, &mut sample).await?;
    journal.close().await;
    let (seconds, after) = (started.elapsed().as_secs_f64(), used()?);
    let millions = options.events as f64 / 1e6;

    let journal = Journal::open(config, Arc::new(SystemClock))?;
    indexed(dir).await?;
    let resident_mib_open = used()?.resident_mib;
    let unknown: Vec<EventId> = sample.iter().map(|_| generator.event_id(BEGIN)).collect();
    let mut lookups = Vec::new();
    for (what, ids, there) in
        [("known id, in the program", &sample, 1), ("unknown id, in the program", &unknown, 0)]
    {
        let mut times = Vec::with_capacity(ids.len());
        for id in ids {
            let started = now();
            let found = journal.find(*id).await?;
            times.push(started.elapsed());
            anyhow::ensure!(found.len() == there, "{id} was found {} times", found.len());
        }
        lookups.push(summary(what, times));
    }
    let resident_mib_after_lookups = used()?.resident_mib;
    for (what, ids, there) in
        [("known id, from the folder", &sample, 1), ("unknown id, from the folder", &unknown, 0)]
    {
        let mut times = Vec::with_capacity(ids.len());
        for id in ids {
            let started = now();
            let found = find_in_folder(dir, *id)?;
            times.push(started.elapsed());
            anyhow::ensure!(found.len() == there, "{id} was found {} times", found.len());
        }
        lookups.push(summary(what, times));
    }
    let files = sizes(dir)?;
    let index_bytes: u64 = files.iter().filter(|(name, _)| name.ends_with(IDS)).map(|(_, bytes)| bytes).sum();
    let segments = files.keys().filter(|name| name.ends_with(".segment")).count();
    let rebuild = rebuild(dir, &journal, sample.first().copied().context("no look-ups")?).await?;
    journal.close().await;
    report(
        &options,
        &Figures {
            events: options.events,
            segments,
            append_events_per_second: options.events as f64 / seconds,
            append_cpu_seconds_per_million: (after.cpu_seconds - before.cpu_seconds) / millions,
            rebuild_cpu_seconds_per_million: rebuild / millions,
            index_mib_per_million: index_bytes as f64 / f64::from(1 << 20) / millions,
            resident_mib_open,
            resident_mib_after_lookups,
            lookups,
        },
    )
}

#[expect(clippy::disallowed_methods, reason = "the machine itself is measured")]
fn now() -> Instant {
    Instant::now()
}

fn used() -> anyhow::Result<Usage> {
    usage::of(std::process::id()).context("this system does not tell what a process uses")
}

/// Appends the events and keeps every n-th id.
async fn fill(
    journal: &Journal,
    events: u64,
    lookups: u64,
    generator: &mut Generator,
    sample: &mut Vec<EventId>,
) -> anyhow::Result<()> {
    let every = (events / lookups.max(1)).max(1);
    let value = Bytes::from("x".repeat(VALUE_BYTES));
    let mut batch = Vec::with_capacity(BATCH);
    for n in 0..events {
        let id = generator.event_id(BEGIN + n);
        if n % every == 0 {
            sample.push(id);
        }
        let headers = Headers::of([
            (header::CE_SPEC_VERSION, header::SPEC_VERSION),
            (header::CE_ID, id.encode(&mut [0; 36])),
            (header::CE_TYPE, "product_view"),
        ]);
        let key = Bytes::from(format!("user_{}", generator.below(50_000)));
        batch.push(NewRecord { topic: Topic::Events, key, partition: None, headers, value: value.clone() });
        if batch.len() == BATCH || n + 1 == events {
            journal.append(std::mem::take(&mut batch), AckLevel::Disk).await?;
        }
    }
    Ok(())
}

fn sizes(dir: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        sizes.insert(entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len());
    }
    Ok(sizes)
}

/// Waits until each segment has its index.
async fn indexed(dir: &Path) -> anyhow::Result<()> {
    let started = now();
    loop {
        let files = sizes(dir)?;
        let count = |suffix: &str| files.keys().filter(|name| name.ends_with(suffix)).count();
        if count(IDS) >= count(".segment") {
            return Ok(());
        }
        anyhow::ensure!(started.elapsed() < PATIENCE, "the index is not made within {PATIENCE:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Processor seconds of making every index file from its segment.
async fn rebuild(dir: &Path, journal: &Journal, any: EventId) -> anyhow::Result<f64> {
    for name in sizes(dir)?.keys().filter(|name| name.ends_with(IDS)) {
        std::fs::remove_file(dir.join(name))?;
    }
    let before = used()?;
    // Finds that they are gone; the time of this one look-up, which reads the segments, is taken off.
    journal.find(any).await?;
    let asked = used()?;
    indexed(dir).await?;
    anyhow::ensure!(asked.cpu_seconds >= before.cpu_seconds, "time went back");
    Ok(used()?.cpu_seconds - asked.cpu_seconds)
}

fn summary(what: &'static str, mut times: Vec<Duration>) -> Times {
    times.sort_unstable();
    let at = |hundredth: usize| {
        let place = (times.len().saturating_sub(1)) * hundredth / 100;
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    Times { what, p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
}

fn report(options: &FateBenchOptions, figures: &Figures) -> anyhow::Result<ExitCode> {
    if options.json {
        say(&serde_json::to_string(figures)?);
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("{} events in {} segments\n", figures.events, figures.segments));
    say("| look-up | p50 ms | p99 ms | max ms |");
    say("|---|---|---|---|");
    for Times { what, p50_ms, p99_ms, max_ms } in &figures.lookups {
        say(&format!("| {what} | {p50_ms:.2} | {p99_ms:.2} | {max_ms:.2} |"));
    }
    say("\n| cost | |\n|---|---|");
    say(&format!(
        "| appending, with the index, CPU s / 1M | {:.2} |",
        figures.append_cpu_seconds_per_million
    ));
    say(&format!(
        "| making a lost index anew, CPU s / 1M | {:.2} |",
        figures.rebuild_cpu_seconds_per_million
    ));
    say(&format!("| index on disk, MiB / 1M | {:.1} |", figures.index_mib_per_million));
    say(&format!("| RSS with the journal open, MiB | {:.0} |", figures.resident_mib_open));
    say(&format!("| RSS after the look-ups, MiB | {:.0} |", figures.resident_mib_after_lookups));
    Ok(ExitCode::SUCCESS)
}
