//! Compiled JSON Schemas (2020-12), one per event type and version.
//!
//! **Invariant:** a verdict names the pointer from the event's root, the keyword, what was expected and the schema; the
//! sender's value is never echoed. The same event gets the same verdict, whatever order its members are in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jsonschema::Validator;
use serde_json::Value;

mod bounds;
mod bundle;
mod compat;
mod compile;
mod documents;
mod graph;
mod mode;
mod node;
mod pii;
mod version;

use documents::Document;
use node::{Part, ScannedJson};
use version::Pin;

use crate::builtin::DOCUMENTS;
use crate::id::EventType;
use crate::json::Scanned;
use crate::reason;
use crate::verdict::{Code, Reason};

pub use compat::{Comparison, Compatibility, Difference, compare};
pub use compile::FORMATS;
pub use mode::Mode;
pub use pii::{PiiAction, Place, Redaction};
pub use version::Version;

/// `product_view@1`: an event type with a schema version.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SchemaId {
    /// The event type.
    pub event_type: EventType,
    /// Its version.
    pub version: Version,
}

impl std::fmt::Display for SchemaId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.event_type, self.version)
    }
}

/// Every schema the gateway judges by. Clones share the compiled schemas.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    types: Arc<BTreeMap<EventType, BTreeMap<Version, Schema>>>,
    redactions: Arc<BTreeMap<EventType, Redaction>>,
    documents: Arc<[Document]>,
}

/// One compiled schema.
#[derive(Debug)]
pub struct Schema {
    id: SchemaId,
    /// The id's text, made once.
    name: Arc<str>,
    mode: Mode,
    text: Arc<str>,
    /// Which of the registry's documents.
    document: usize,
    /// Judges a tree, and names what is wrong.
    validator: Validator,
    /// The same document, for scanned bytes: says yes or no.
    scanned: Validator<ScannedJson>,
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
        let documents = DOCUMENTS.iter().map(|(event_type, version, text)| {
            let path = format!("schemas/events/{event_type}/{version}.json");
            Document::of_type(&path, EventType::new(*event_type), Version::major(*version), text.as_bytes())
        });
        let documents: Result<Vec<_>, _> = documents.collect();
        documents.and_then(Self::of).expect("built-in schemas compile")
    }

    /// Loads `<type>/<version>.json` below `dir`, and `_<folder>/<name>.json` to refer to. Folders inside those (such as
    /// `examples`) are passed over. Reads the whole folder or fails; nothing is fetched from elsewhere.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        Self::of(documents::read_folder(dir)?)
    }

    fn of(documents: Vec<Document>) -> Result<Self, Error> {
        let compiled = compile::all(&documents)?;
        let mut types: BTreeMap<EventType, BTreeMap<Version, Schema>> = BTreeMap::new();
        for schema in compiled.schemas {
            let SchemaId { event_type, version } = schema.id.clone();
            types.entry(event_type).or_default().insert(version, schema);
        }
        Ok(Self {
            types: Arc::new(types),
            redactions: Arc::new(compiled.redactions),
            documents: documents.into(),
        })
    }

    /// The schema that judges events of a type; `pinned` is the event's `schema` member (`type@2`, `2`, `2.1` or `2.1.3`): the
    /// newest version in that range. The newest of all otherwise. `None` for a type without schema; fails for a version that
    /// does not exist.
    pub fn schema(
        &self,
        event_type: &EventType,
        pinned: Option<&str>,
    ) -> Result<Option<&Schema>, Box<Reason>> {
        let Some(versions) = self.types.get(event_type) else { return Ok(None) };
        let schema = match pinned {
            None => versions.last_key_value().map(|(_, newest)| newest),
            Some(pinned) => pin(event_type, pinned)
                .and_then(|pin| versions.range(pin.range()).next_back())
                .map(|(_, schema)| schema),
        };
        if schema.is_some() {
            return Ok(schema);
        }
        let known: Vec<String> = versions.values().map(|known| format!("`{}`", known.id)).collect();
        let expected = format!("one of {}", known.join(", "));
        Err(Box::new(Reason::new(Code::SchemaVersionUnknown).at("/schema").expecting(expected)))
    }

    /// Judges an event's `metadata` by [`Self::schema`]. `metadata` is `None` when the event has none: judged as an empty object.
    pub fn judge(&self, event_type: &EventType, pinned: Option<&str>, metadata: Option<&Value>) -> Judgement {
        self.judge_by(event_type, pinned, |schema| schema.check(metadata))
    }

    /// The same of scanned bytes, see [`Schema::check_scanned`].
    pub fn judge_scanned(
        &self,
        event_type: &EventType,
        pinned: Option<&str>,
        metadata: Option<Scanned<'_>>,
    ) -> Judgement {
        self.judge_by(event_type, pinned, |schema| schema.check_scanned(metadata))
    }

    fn judge_by(
        &self,
        event_type: &EventType,
        pinned: Option<&str>,
        check: impl FnOnce(&Schema) -> Result<(), Box<Reason>>,
    ) -> Judgement {
        match self.schema(event_type, pinned) {
            Ok(None) => Judgement::UnknownType,
            Ok(Some(schema)) => match check(schema) {
                Ok(()) => Judgement::Valid(schema.id.clone()),
                Err(reason) => Judgement::Invalid(reason),
            },
            Err(reason) => Judgement::Invalid(reason),
        }
    }

    /// Every schema, ordered by type and version.
    pub fn schemas(&self) -> impl Iterator<Item = &Schema> {
        self.types.values().flat_map(BTreeMap::values)
    }

    /// The ids of all schemas, ordered.
    pub fn ids(&self) -> impl Iterator<Item = &SchemaId> {
        self.schemas().map(Schema::id)
    }

    /// The document of a schema.
    pub fn document(&self, id: &SchemaId) -> Option<&Value> {
        let schema = self.types.get(&id.event_type)?.get(&id.version)?;
        self.documents.get(schema.document).map(|document| &document.value)
    }

    /// The marks of personal data of a type, of all its versions.
    pub fn redaction(&self, event_type: &EventType) -> Option<&Redaction> {
        self.redactions.get(event_type)
    }

    /// Whether any type has marks of personal data.
    pub fn redacts(&self) -> bool {
        !self.redactions.is_empty()
    }

    /// Whether any mark asks for a hash, which needs a secret.
    pub fn hashes(&self) -> bool {
        self.redactions.values().any(Redaction::hashes)
    }
}

impl Schema {
    /// Its name.
    pub const fn id(&self) -> &SchemaId {
        &self.id
    }

    /// Its name as text, `type@version`.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What happens to events that do not fit.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The document as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Judges an event's `metadata`; `None` is judged as an empty object.
    pub fn check(&self, metadata: Option<&Value>) -> Result<(), Box<Reason>> {
        let nothing = Value::Object(serde_json::Map::new());
        let metadata = metadata.unwrap_or(&nothing);
        if self.validator.is_valid(metadata) {
            return Ok(());
        }
        let mut reason = reason::first(self.validator.iter_errors(metadata));
        reason.schema = Some(self.name.to_string());
        Err(Box::new(reason))
    }

    /// The same of scanned bytes. A tree is made of them only to say what is wrong, so the verdict is [`Self::check`]'s.
    pub fn check_scanned(&self, metadata: Option<Scanned<'_>>) -> Result<(), Box<Reason>> {
        let Some(metadata) = metadata else { return self.check(None) };
        if self.scanned.is_valid(Part::Scanned(metadata)) {
            return Ok(());
        }
        match serde_json::from_str(metadata.raw()) {
            Ok(tree) => self.check(Some(&tree)),
            Err(_) => Err(Box::new(Reason::new(Code::SchemaInvalid).at("/metadata"))),
        }
    }
}

fn pin(event_type: &EventType, pinned: &str) -> Option<Pin> {
    match pinned.rsplit_once('@') {
        Some((pinned_type, version)) if pinned_type == event_type.as_str() => Pin::parse(version),
        Some(_) => None,
        None => Pin::parse(pinned),
    }
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod folders;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
