//! `rivulet fate EVENT_ID`: from a folder, from Kafka, or from a running program.

use std::process::ExitCode;

use anyhow::Context as _;
use broker::embedded::find_in_folder;
use broker::log::Sighting;
use broker::spool;
use schemas::id::EventId;
use serde_json::Value;

use crate::cli::{FateOptions, LogPlace};
use crate::console::{printable, say};
use crate::fate::{self, Fate, Outcome};
use crate::pipeline;

use super::ask::Program;

/// Prints the fate; exits 1 when nothing names the event.
pub(super) async fn run(options: FateOptions) -> anyhow::Result<ExitCode> {
    let event_id = EventId::parse(&options.event_id).context("an event id is a UUID")?;
    let fate = match &options.url {
        Some(url) => Program { url, key: &options.secret.key }.get(&format!("/v1/fate/{event_id}")).await?,
        None => serde_json::to_value(read(&options.place, event_id).await?)?,
    };
    if options.json {
        say(&fate.to_string());
    } else {
        explain(&fate);
    }
    let known = fate.get("outcome").and_then(Value::as_str) != Some("unknown");
    Ok(if known { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// From Kafka, with the help of a spool's folder if there is one, or from a folder alone.
async fn read(place: &LogPlace, event_id: EventId) -> anyhow::Result<Fate> {
    let dir = pipeline::log_folder(&place.data);
    let Some(brokers) = &place.kafka else {
        let find = move || -> anyhow::Result<Fate> {
            let found = find_in_folder(&dir, event_id);
            let records = found.with_context(|| format!("no log in {}", dir.display()))?;
            let stands = |record| Sighting { record, published: true };
            let mut found: Vec<Sighting> = records.into_iter().map(stands).collect();
            let (waiting, places) = spool::find_in_folder(&dir, event_id)?;
            found.extend(waiting);
            Ok(Fate::of(event_id, &found).standing(&places))
        };
        return tokio::task::spawn_blocking(find).await?;
    };
    let kafka = pipeline::kafka_reader(brokers)?;
    let look = move || spool::find_in_folder(&dir, event_id).unwrap_or_default();
    let (mut found, places) = tokio::task::spawn_blocking(look).await?;
    found.extend(kafka.fetch(places).await?.into_iter().map(|record| Sighting { record, published: true }));
    let fate = Fate::of(event_id, &found);
    if fate.outcome == Outcome::Unknown { fate::search(&kafka, event_id).await } else { Ok(fate) }
}

fn explain(fate: &Value) {
    let text = |value: &Value, name: &str| {
        value.get(name).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
    };
    say(&printable(&format!(
        "{}: {}",
        text(fate, "event_id").unwrap_or_default(),
        text(fate, "outcome").unwrap_or_default()
    )));
    for seen in fate.get("records").and_then(Value::as_array).into_iter().flatten() {
        let detail = text(seen, "detail").map_or_else(String::new, |detail| format!("  {detail}"));
        say(&printable(&format!(
            "  {} in {}, partition {}, offset {}{detail}",
            text(seen, "role").unwrap_or_default(),
            text(seen, "topic").unwrap_or_default(),
            text(seen, "partition").unwrap_or_default(),
            text(seen, "offset").unwrap_or_default(),
        )));
    }
    if let Some(processor) = fate.get("processor") {
        say(&printable(&format!("  processor: {processor}")));
    }
}
