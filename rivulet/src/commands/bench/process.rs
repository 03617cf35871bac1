//! `rivulet bench process`: dedup, profile and 20 rules, per core, from memory and with the durable store.

use std::process::ExitCode;

use super::ingest::Folder;
use super::usage;
use crate::cli::{BenchStore, ProcessOptions};
use crate::console::say;

/// Runs the events through the stores and prints the table.
pub(in crate::commands) fn run(options: &ProcessOptions) -> anyhow::Result<ExitCode> {
    let folder = Folder::new()?;
    let cpu = || usage::of(std::process::id()).map(|usage| usage.cpu_seconds);
    let mut figures = Vec::new();
    for store in [BenchStore::Memory, BenchStore::Fjall] {
        if options.store.is_none_or(|only| only == store) {
            let folder = (store == BenchStore::Fjall).then(|| folder.as_path());
            figures.push(processor::bench::run(options.events as u64, folder, cpu)?);
        }
    }
    if options.json {
        say(&serde_json::to_string(&figures)?);
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!(
        "{} events of ~800 bytes, 1% sent twice, {} rules, one thread\n",
        options.events,
        processor::bench::RULES
    ));
    say("| store | events/s a core | CPU s / 1M | seconds | decisions | duplicates | commits |");
    say("|---|---|---|---|---|---|---|");
    for f in figures {
        let cpu = f.cpu_seconds_per_million.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}"));
        say(&format!(
            "| {} | {:.0} | {cpu} | {:.2} | {} | {} | {} |",
            f.store, f.events_per_second, f.seconds, f.decisions, f.duplicates, f.batches
        ));
    }
    Ok(ExitCode::SUCCESS)
}
