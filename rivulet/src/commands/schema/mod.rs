//! `rivulet schema`: are the schemas right, are they compatible with what was published, what would they break, what are their types.

mod typescript;
mod what_if;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use schemas::id::EventType;
use schemas::registry::{Comparison, Judgement, Registry, compare};
use serde_json::{Value, json};

use crate::cli::{CheckOptions, TypesOptions};
use crate::console::{complain, printable, say};
use crate::schema_folder;

pub(super) use what_if::run as what_if;

/// Checks a folder, or the built-in schemas: documents, examples, versions. Exits 0 only when every document compiled, every example
/// was judged as written beside it, and no version breaks what it must not.
pub(super) fn check(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    let dir = options.dir.as_deref();
    let registry = schema_folder::load(dir)?;
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
    let published = options.against.as_deref().map(Registry::load).transpose();
    let published = published.context("the schemas to compare with cannot be used")?;
    let comparisons = compare(&registry, published.as_ref(), options.mode.into())?;
    let broken = comparisons.iter().filter(|comparison| comparison.is_broken()).count();
    if options.json {
        let schemas: Vec<String> = registry.ids().map(ToString::to_string).collect();
        say(&json!({"schemas": schemas, "examples": examples, "wrong": wrong, "broken": broken, "comparisons": comparisons}).to_string());
    } else {
        for id in registry.ids() {
            say(&printable(&id.to_string()));
        }
        for (place, keyword) in registry.unknown_keywords()? {
            say(&printable(&format!("note: {place}: `{keyword}` is no keyword and checks nothing")));
        }
        comparisons.iter().for_each(show);
        let count = registry.ids().count();
        say(&format!("{count} schemas, {examples} examples, {wrong} wrong, {broken} broken"));
    }
    Ok(if wrong + broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(comparison: &Comparison) {
    if comparison.differences.is_empty() {
        return;
    }
    let to = comparison.to.as_deref().unwrap_or("nothing");
    let verdict = if comparison.is_broken() { "BROKEN" } else { "breaks, as its major version says" };
    say(&printable(&format!("{} -> {to}: {verdict}", comparison.from)));
    for found in &comparison.differences {
        say(&printable(&format!("  {}  {}  {}  {}", found.breaks, found.pointer, found.keyword, found.why)));
        if comparison.is_broken() {
            say(&printable(&format!("      {}", found.advice)));
        }
    }
}

/// Prints types for the newest version of each event type.
pub(super) fn types(options: &TypesOptions) -> anyhow::Result<ExitCode> {
    let registry = schema_folder::load(options.dir.as_deref())?;
    say(typescript::generate(&registry.bundles()?).trim_end());
    Ok(ExitCode::SUCCESS)
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
