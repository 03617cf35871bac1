//! `rivulet schema check`: are the schemas valid, and do their examples end as they say?
//!
//! **Invariant:** exits 0 only when every document compiled and every example was judged as written beside it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use schemas::id::EventType;
use schemas::registry::{Judgement, Registry};
use serde_json::Value;

use crate::console::{complain, say};

/// Checks a folder, or the built-in schemas.
pub(super) fn check(dir: Option<&Path>) -> anyhow::Result<ExitCode> {
    let registry = match dir {
        Some(dir) => Registry::load(dir).context("the schemas cannot be used")?,
        None => Registry::builtin(),
    };
    let mut wrong = 0_usize;
    let mut examples = 0_usize;
    for folder in dir.map(example_folders).transpose()?.unwrap_or_default() {
        for (path, valid) in folder {
            examples += 1;
            if let Err(error) = check_example(&registry, &path, valid) {
                wrong += 1;
                complain(&error.context(path.display().to_string()));
            }
        }
    }
    for id in registry.ids() {
        say(&id.to_string());
    }
    say(&format!("{} schemas, {examples} examples, {wrong} wrong", registry.ids().count()));
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Examples = Vec<(std::path::PathBuf, bool)>;

/// `<type>/examples/{valid,invalid}/*.json` below the folder.
fn example_folders(dir: &Path) -> anyhow::Result<Vec<Examples>> {
    let mut found = Vec::new();
    for event_type in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let examples = event_type?.path().join("examples");
        for (name, valid) in [("valid", true), ("invalid", false)] {
            let Ok(files) = std::fs::read_dir(examples.join(name)) else { continue };
            let paths = files.filter_map(|file| Some(file.ok()?.path()));
            found.push(
                paths
                    .filter(|path| path.extension().is_some_and(|end| end == "json"))
                    .map(|path| (path, valid))
                    .collect(),
            );
        }
    }
    Ok(found)
}

fn check_example(registry: &Registry, path: &Path, valid: bool) -> anyhow::Result<()> {
    let example: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let event = if valid { &example } else { example.get("event").context("has no `event`")? };
    let event_type = event.get("event_type").and_then(Value::as_str).context("has no `event_type`")?;
    let pinned = event.get("schema").and_then(Value::as_str);
    match registry.judge(&EventType::new(event_type), pinned, event.get("metadata")) {
        Judgement::Valid(_) if valid => Ok(()),
        Judgement::Valid(id) => anyhow::bail!("fits {id}, but stands among the invalid ones"),
        Judgement::UnknownType => anyhow::bail!("no schema for `{event_type}`"),
        Judgement::Invalid(reason) if valid => {
            anyhow::bail!("does not fit: {}", serde_json::to_string(&reason)?)
        }
        Judgement::Invalid(reason) => {
            for (name, found) in [("pointer", &reason.pointer), ("keyword", &reason.keyword)] {
                let expected = example.get(name).and_then(Value::as_str);
                anyhow::ensure!(
                    expected == found.as_deref(),
                    "fails by {name} {found:?}, but {expected:?} is written beside it"
                );
            }
            Ok(())
        }
    }
}
