//! `rivulet bench process`: dedup, profile and 20 rules, per core, from memory and with the durable store.

use std::process::ExitCode;

use super::ingest::Folder;
use crate::cli::ProcessOptions;
use crate::console::say;

/// Runs the events through both stores and prints the table.
pub(in crate::commands) fn run(options: &ProcessOptions) -> anyhow::Result<ExitCode> {
    let folder = Folder::new()?;
    let figures = processor::bench::run(options.events as u64, Some(folder.as_path()))?;
    if options.json {
        say(&serde_json::to_string(&figures)?);
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!(
        "{} events of ~800 bytes, 1% sent twice, {} rules, one thread\n",
        options.events,
        processor::bench::RULES
    ));
    say("| store | events/s a core | seconds | decisions | duplicates | commits |");
    say("|---|---|---|---|---|---|");
    for f in figures {
        say(&format!(
            "| {} | {:.0} | {:.2} | {} | {} | {} |",
            f.store, f.events_per_second, f.seconds, f.decisions, f.duplicates, f.batches
        ));
    }
    Ok(ExitCode::SUCCESS)
}
