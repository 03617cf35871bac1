//! `rivulet kill`: stops events of a running program by rule, and lets them pass again.
//!
//! **Invariant:** what is shown are the rules that are in force after the command.

use std::process::ExitCode;

use serde_json::{Map, Value};

use super::quarantine::{members, text};
use crate::cli::{KillCommand, Running};
use crate::console::{printable, say};

/// Runs one of its commands.
pub(super) async fn run(command: KillCommand) -> anyhow::Result<ExitCode> {
    let (answer, running) = match command {
        KillCommand::List { running } => (running.program().get("/v1/kill").await?, running),
        KillCommand::Remove { name, running } => {
            (running.program().delete(&format!("/v1/kill/{name}")).await?, running)
        }
        KillCommand::Add {
            name,
            action,
            keep,
            source,
            event_type,
            event_id,
            library,
            expires_at,
            no_trace,
            running,
        } => {
            let texts = [
                ("name", Some(name)),
                ("action", Some(action)),
                ("source", source),
                ("event_type", event_type),
                ("event_id", event_id),
                ("library", library),
                ("expires_at", expires_at),
            ];
            let given =
                texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?))));
            let mut rule: Map<String, Value> = given.collect();
            rule.extend(keep.map(|keep| ("keep".to_owned(), Value::from(keep))));
            rule.insert("trace".to_owned(), Value::from(!no_trace));
            let body = Value::Object(rule).to_string();
            (running.program().post("/v1/kill", &body).await?, running)
        }
    };
    show(&answer, &running);
    Ok(ExitCode::SUCCESS)
}

fn show(answer: &Value, running: &Running) {
    if running.json {
        say(&answer.to_string());
        return;
    }
    for rule in members(answer, "rules") {
        let named = ["source", "event_type", "event_id", "library", "keep", "expires_at"];
        let named = named.map(|name| (name, text(rule, name)));
        let named = named.into_iter().filter(|(_, value)| !value.is_empty());
        let named: Vec<String> = named.map(|(name, value)| format!("{name}={value}")).collect();
        say(&printable(&format!(
            "{:>10} stopped  {}  {}  {}",
            text(rule, "stopped"),
            text(rule, "name"),
            text(rule, "action"),
            named.join(" "),
        )));
    }
}
