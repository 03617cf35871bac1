//! `rivulet quarantine`: refused events of a running program, looked at and tried again.
//!
//! **Invariant:** nothing is taken without being asked for; what cannot be taken is named with its reason, and the exit code says
//! that something was left.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::ask::Program;
use crate::cli::{QuarantineCommand, Refused, Running};
use crate::console::{printable, say};

/// Places in one request to try again.
const REPLAYED_AT_ONCE: usize = 200;
/// Records asked for at once.
const LISTED_AT_ONCE: usize = 1_000;

/// Before the first record.
const START: &str = "0:0";

/// Runs one of its commands.
pub(super) async fn run(command: QuarantineCommand) -> anyhow::Result<ExitCode> {
    match command {
        QuarantineCommand::Reasons { refused, running } => reasons(&refused, &running).await,
        QuarantineCommand::List { refused, limit, running } => list(&refused, limit, &running).await,
        QuarantineCommand::Show { at, running } => show(&at, &running).await,
        QuarantineCommand::Replay { at, refused, patch, dry_run, running } => {
            let patch = patch.map(|file| {
                let text = std::fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                // Read for its errors alone: it is sent as it stands, with its digits.
                serde_json::from_str::<Value>(&text)
                    .with_context(|| format!("{} is no JSON", file.display()))?;
                anyhow::Ok(text)
            });
            let patch = patch.transpose()?;
            let all = at.is_empty();
            anyhow::ensure!(
                !all || refused.reason.is_some() || refused.source.is_some() || refused.since.is_some(),
                "name the events to try again: their places, or --reason, --source, --since"
            );
            let at = if all { places(&refused, &running).await? } else { at };
            replay(&at, patch.as_deref(), dry_run, &running).await
        }
    }
}

impl Running {
    pub(super) fn program(&self) -> Program<'_> {
        Program { url: &self.url, key: &self.secret.key }
    }
}

impl Refused {
    /// The filter as query parameters, behind `?`.
    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("reason", &self.reason), ("source", &self.source), ("since", &self.since)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }
}

async fn reasons(refused: &Refused, running: &Running) -> anyhow::Result<ExitCode> {
    let mut after = String::from(START);
    loop {
        let path = format!("/v1/quarantine/reasons?after={after}&{}", refused.query());
        let answer = running.program().get(&path).await?;
        if running.json {
            say(&answer.to_string());
        } else {
            for group in members(&answer, "reasons") {
                let pointer = text(group, "pointer");
                say(&printable(&format!(
                    "{:>8}  {}  {pointer} {}  {}  from {}, last {}, such as {}",
                    text(group, "count"),
                    text(group, "code"),
                    text(group, "keyword"),
                    text(group, "schema"),
                    text(group, "source"),
                    text(group, "last"),
                    text(group, "example"),
                )));
            }
        }
        match answer.get("next").and_then(Value::as_str) {
            Some(next) => next.clone_into(&mut after),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

async fn list(refused: &Refused, limit: usize, running: &Running) -> anyhow::Result<ExitCode> {
    for record in records(refused, limit, running).await? {
        if running.json {
            say(&record.to_string());
            continue;
        }
        let reason = record.get("reason").unwrap_or(&Value::Null);
        say(&printable(&format!(
            "{:>10}  {}  {}  {} {} {}",
            text(&record, "at"),
            text(&record, "received_at"),
            text(&record, "source"),
            text(reason, "code"),
            text(reason, "pointer"),
            text(reason, "schema"),
        )));
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(at: &str, running: &Running) -> anyhow::Result<ExitCode> {
    let record = running.program().get(&format!("/v1/quarantine/{at}")).await?;
    say(&if running.json { record.to_string() } else { printable_json(&record)? });
    Ok(ExitCode::SUCCESS)
}

fn printable_json(value: &Value) -> anyhow::Result<String> {
    let pretty = serde_json::to_string_pretty(value)?;
    Ok(pretty.lines().map(printable).collect::<Vec<_>>().join("\n"))
}

async fn places(refused: &Refused, running: &Running) -> anyhow::Result<Vec<String>> {
    let records = records(refused, usize::MAX, running).await?;
    Ok(records.iter().map(|record| text(record, "at")).collect())
}

async fn records(refused: &Refused, limit: usize, running: &Running) -> anyhow::Result<Vec<Value>> {
    let mut records = Vec::new();
    let mut after = String::from(START);
    while records.len() < limit {
        let count = LISTED_AT_ONCE.min(limit - records.len());
        let path = format!("/v1/quarantine?limit={count}&after={after}&{}", refused.query());
        let answer = running.program().get(&path).await?;
        records.extend(members(&answer, "records").cloned());
        match answer.get("next").and_then(Value::as_str) {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    Ok(records)
}

async fn replay(
    places: &[String],
    patch: Option<&str>,
    dry_run: bool,
    running: &Running,
) -> anyhow::Result<ExitCode> {
    let (mut taken, mut left) = (0_usize, 0_usize);
    for some in places.chunks(REPLAYED_AT_ONCE) {
        let mut body = format!("{{\"at\":{},\"dry_run\":{dry_run}", json!(some));
        if let Some(patch) = patch {
            body.push_str(",\"patch\":");
            body.push_str(patch);
        }
        body.push('}');
        let answer = running.program().post("/v1/quarantine/replay", &body).await?;
        for event in members(&answer, "events") {
            let good = matches!(event.get("status").and_then(Value::as_str), Some("accepted" | "duplicate"));
            if good {
                taken += 1;
            } else {
                left += 1;
            }
            if running.json {
                say(&event.to_string());
            } else {
                explain(event);
            }
        }
    }
    if !running.json {
        let would = if dry_run { "would be taken" } else { "taken" };
        say(&format!("{taken} {would}, {left} left in quarantine"));
    }
    Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn explain(event: &Value) {
    let reason = event.get("reason").unwrap_or(&Value::Null);
    say(&printable(&format!(
        "{:>10}  {}{}  {} {}",
        text(event, "at"),
        text(event, "status"),
        text(event, "problem"),
        text(reason, "code"),
        text(reason, "pointer"),
    )));
    for change in members(event, "changed") {
        let [pointer, before, after] = ["pointer", "before", "after"].map(|name| text(change, name));
        say(&printable(&format!("            {pointer}: {before} -> {after}")));
    }
}

pub(super) fn members<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// A member as text; nothing for nothing.
pub(super) fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
