//! Compiled JSON Schemas (2020-12), one per event type and version.
//!
//! **Invariant:** a verdict names the pointer from the event's root, the keyword, what was expected and the schema; the
//! sender's value is never echoed. The same event gets the same verdict, whatever order its members are in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jsonschema::Validator;
use serde_json::Value;

use crate::builtin::DOCUMENTS;
use crate::id::EventType;
use crate::reason;
use crate::verdict::{Code, Reason};

/// `product_view@1`: an event type with a schema version.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SchemaId {
    /// The event type.
    pub event_type: EventType,
    /// Its version, from 1.
    pub version: u32,
}

impl std::fmt::Display for SchemaId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.event_type, self.version)
    }
}

/// Every schema the gateway judges by. Clones share the compiled schemas.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    types: Arc<BTreeMap<EventType, BTreeMap<u32, Compiled>>>,
}

#[derive(Debug)]
struct Compiled {
    id: SchemaId,
    document: Value,
    validator: Validator,
}

/// What the registry says of an event's `metadata`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// It fits this schema.
    Valid(SchemaId),
    /// No schema for the type; the key's policy decides.
    UnknownType,
    /// It does not fit, or the pinned version does not exist.
    Invalid(Box<Reason>),
}

/// Why a registry could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A document is not a valid schema.
    #[error("{path}: {message}")]
    Schema {
        /// The path.
        path: String,
        /// What is wrong, with the place.
        message: String,
    },
}

impl Registry {
    /// The schemas of the shop, built into the binary (`schemas/events`).
    ///
    /// # Panics
    /// Never: a test compiles every document.
    #[expect(
        clippy::expect_used,
        reason = "the documents are part of the program; a test compiles each of them"
    )]
    pub fn builtin() -> Self {
        let texts = DOCUMENTS.iter().map(|(event_type, version, text)| {
            let path = format!("schemas/events/{event_type}/{version}.json");
            compile(&path, EventType::new(*event_type), *version, text.as_bytes())
        });
        Self::collect(texts).expect("built-in schemas compile")
    }

    /// Loads `<type>/<version>.json` below `dir`. Folders inside a type's folder (such as `examples`) are passed over.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let mut all = Vec::new();
        for folder in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
            let Some(event_type) = folder.file_name().and_then(|name| name.to_str()) else { continue };
            for file in
                entries(&folder)?.into_iter().filter(|path| path.extension().is_some_and(|it| it == "json"))
            {
                let path = file.display().to_string();
                let version = file.file_stem().and_then(|stem| stem.to_str()).and_then(version_number);
                let Some(version) = version else {
                    let message = "a schema's file is named by its version, such as `1.json`".to_owned();
                    return Err(Error::Schema { path, message });
                };
                let text =
                    std::fs::read(&file).map_err(|source| Error::Read { path: path.clone(), source })?;
                all.push(compile(&path, EventType::new(event_type), version, &text));
            }
        }
        Self::collect(all)
    }

    fn collect(all: impl IntoIterator<Item = Result<Compiled, Error>>) -> Result<Self, Error> {
        let mut types: BTreeMap<EventType, BTreeMap<u32, Compiled>> = BTreeMap::new();
        for compiled in all {
            let compiled = compiled?;
            types.entry(compiled.id.event_type.clone()).or_default().insert(compiled.id.version, compiled);
        }
        Ok(Self { types: Arc::new(types) })
    }

    /// Judges an event's `metadata`; `pinned` is the event's `schema` member (`type@2`, or `2`). The newest version otherwise.
    /// `metadata` is `None` when the event has none: judged as an empty object.
    pub fn judge(&self, event_type: &EventType, pinned: Option<&str>, metadata: Option<&Value>) -> Judgement {
        let Some(versions) = self.types.get(event_type) else { return Judgement::UnknownType };
        let newest = versions.last_key_value().map(|(_, newest)| newest);
        let schema = match pinned {
            None => newest,
            Some(pinned) => pinned_version(event_type, pinned).and_then(|version| versions.get(&version)),
        };
        let Some(schema) = schema else {
            let known: Vec<String> = versions.values().map(|known| format!("`{}`", known.id)).collect();
            let expected = format!("one of {}", known.join(", "));
            return Judgement::Invalid(Box::new(
                Reason::new(Code::SchemaVersionUnknown).at("/schema").expecting(expected),
            ));
        };
        let nothing = Value::Object(serde_json::Map::new());
        let metadata = metadata.unwrap_or(&nothing);
        if schema.validator.is_valid(metadata) {
            return Judgement::Valid(schema.id.clone());
        }
        let mut reason = reason::first(schema.validator.iter_errors(metadata));
        reason.schema = Some(schema.id.to_string());
        Judgement::Invalid(Box::new(reason))
    }

    /// The ids of all schemas, ordered.
    pub fn ids(&self) -> impl Iterator<Item = &SchemaId> {
        self.types.values().flat_map(BTreeMap::values).map(|compiled| &compiled.id)
    }

    /// The document of a schema.
    pub fn document(&self, id: &SchemaId) -> Option<&Value> {
        Some(&self.types.get(&id.event_type)?.get(&id.version)?.document)
    }
}

fn entries(dir: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let read = |source| Error::Read { path: dir.display().to_string(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        paths.push(entry.map_err(read)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn compile(path: &str, event_type: EventType, version: u32, text: &[u8]) -> Result<Compiled, Error> {
    let fault = |message: String| Error::Schema { path: path.to_owned(), message };
    let document: Value = serde_json::from_slice(text).map_err(|error| fault(error.to_string()))?;
    let options = jsonschema::draft202012::options().should_validate_formats(true).offline();
    let validator =
        options.build(&document).map_err(|error| fault(format!("{error} at `{}`", error.instance_path())))?;
    Ok(Compiled { id: SchemaId { event_type, version }, document, validator })
}

/// A version's digits: no sign, no leading zero, not 0.
fn version_number(text: &str) -> Option<u32> {
    (!text.starts_with(['0', '+'])).then(|| text.parse().ok()).flatten()
}

fn pinned_version(event_type: &EventType, pinned: &str) -> Option<u32> {
    match pinned.rsplit_once('@') {
        Some((pinned_type, version)) if pinned_type == event_type.as_str() => version_number(version),
        Some(_) => None,
        None => version_number(pinned),
    }
}

#[cfg(test)]
mod tests;
