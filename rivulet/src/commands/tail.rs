//! `rivulet tail`: the verdicts of a running program as it gives them.
//!
//! **Invariant:** what was lost because this reads too slowly is said.

use std::ops::ControlFlow;
use std::process::ExitCode;

use serde_json::Value;

use super::quarantine::text;
use crate::cli::TailOptions;
use crate::console::{printable, say};

/// Follows until interrupted, until `--count`, or until the program stops.
pub(super) async fn run(options: TailOptions) -> anyhow::Result<ExitCode> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in [
        ("source", &options.source),
        ("event_type", &options.event_type),
        ("outcome", &options.outcome),
        ("reason", &options.reason),
        ("user_id", &options.user),
        ("anonymous_id", &options.anonymous),
        ("library", &options.library),
    ] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let path = format!("/v1/tail?{}", query.finish());
    let mut seen = 0;
    let show = |line: &str| {
        let Some(Ok(entry)) = line.strip_prefix("data: ").map(serde_json::from_str::<Value>) else {
            return ControlFlow::Continue(());
        };
        let is_read = show(&entry, options.running.json);
        seen += u64::from(entry.get("lost").is_none());
        if !is_read || options.count.is_some_and(|count| seen >= count) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    options.running.program().follow(&path, show).await?;
    Ok(ExitCode::SUCCESS)
}

/// `false` when nobody reads any more.
fn show(entry: &Value, json: bool) -> bool {
    if json {
        return say(&entry.to_string());
    }
    if let Some(lost) = entry.get("lost") {
        return say(&format!("({lost} more were answered than could be shown)"));
    }
    let reason = entry.get("reason").unwrap_or(&Value::Null);
    say(&printable(&format!(
        "{}  {}  {}  {}  {}{}  {} {}",
        text(entry, "received_at"),
        text(entry, "source"),
        text(entry, "event_type"),
        text(entry, "event_id"),
        text(entry, "status"),
        entry.get("acked").and_then(Value::as_str).map_or_else(String::new, |level| format!(" {level}")),
        text(reason, "code"),
        text(reason, "pointer"),
    )))
}
