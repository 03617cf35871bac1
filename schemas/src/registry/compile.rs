//! Compiles documents to validators, with every option of the library in one place.
//!
//! **Invariant:** a pattern costs a bounded time for any text; a document that makes the library panic is refused, not fatal;
//! `format` asserts, and a format that is not checked is refused, because its author believes that it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::json::{Json, SerdeJson};
use jsonschema::{Draft, FancyRegex, PatternOptions, Retrieve, ValidationOptions, Validator};
use referencing::Registry as Resolvable;

use super::documents::Document;
use super::mode::Mode;
use super::node::ScannedJson;
use super::pii::{self, Redaction};
use super::{Error, Schema, bounds, graph};
use crate::id::EventType;

/// The formats that are checked; any other is refused when the document is loaded.
pub const FORMATS: &[&str] = &[
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "iri",
    "iri-reference",
    "json-pointer",
    "regex",
    "relative-json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uri-template",
    "uuid",
];

/// How often a pattern with look-around or back references may turn back, for one text. Others need not: they take linear time.
const MAX_BACKTRACKS: usize = 20_000;
/// Largest compiled pattern, bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// Largest cache of one pattern's states, bytes.
const MAX_PATTERN_CACHE_BYTES: usize = 1 << 20;

/// What a folder of documents comes to.
pub(super) struct Compiled {
    pub(super) schemas: Vec<Schema>,
    pub(super) redactions: BTreeMap<EventType, Redaction>,
}

/// Compiles every document of a type; shared ones are only looked at.
pub(super) fn all(documents: &[Document]) -> Result<Compiled, Error> {
    for document in documents {
        check_document(document)?;
    }
    let resolvable = graph::resolvable(documents)?;
    let graph = graph::build(documents, &resolvable)?;
    bounds::check(&graph)?;
    let redactions = pii::collect(documents, &graph)?;
    let schemas =
        documents.iter().enumerate().filter_map(|(at, document)| one(at, document, &resolvable).transpose());
    Ok(Compiled { schemas: schemas.collect::<Result<_, _>>()?, redactions })
}

/// Against the dialect's own schema, first: what follows reads keywords as if they had the right kinds.
fn check_document(document: &Document) -> Result<(), Error> {
    jsonschema::draft202012::meta::validate(&document.value).map_err(|error| fault(document, &error))
}

fn one(at: usize, document: &Document, resolvable: &Resolvable<'_>) -> Result<Option<Schema>, Error> {
    let Some(id) = document.id.clone() else { return Ok(None) };
    let mode = Mode::of(&document.value)
        .map_err(|message| Error::Schema { path: document.path.clone(), message })?;
    let validator = build::<SerdeJson>(document, resolvable)?;
    let scanned = build::<ScannedJson>(document, resolvable)?;
    let (name, text) = (id.to_string().into(), Arc::clone(&document.text));
    Ok(Some(Schema { id, name, mode, document: at, text, validator, scanned }))
}

/// A validator for one form of JSON.
fn build<F: Json>(document: &Document, resolvable: &Resolvable<'_>) -> Result<Validator<F>, Error> {
    let options = options::<F>().with_registry(resolvable).with_base_uri(document.uri.clone());
    let built = catch_unwind(AssertUnwindSafe(|| options.build(&document.value)));
    let built = built.unwrap_or_else(|_| {
        Err(jsonschema::ValidationError::custom("the validator cannot take this document (it panicked)"))
    });
    built.map_err(|error| fault(document, &error))
}

/// How patterns are compiled.
pub(super) fn patterns() -> PatternOptions<FancyRegex> {
    PatternOptions::fancy_regex()
        .backtrack_limit(MAX_BACKTRACKS)
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_PATTERN_CACHE_BYTES)
}

/// How documents are compiled.
pub(super) fn options<'o, F: Json>() -> ValidationOptions<'o, Arc<dyn Retrieve>, F> {
    jsonschema::options_for::<F>()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .offline()
        .with_pattern_options(patterns())
}

fn fault(document: &Document, error: &jsonschema::ValidationError<'_>) -> Error {
    let mut message = format!("{error} at `{}`", error.instance_path());
    if matches!(error.kind(), ValidationErrorKind::Format { format } if format == "regex") {
        let _ = write!(message, " (or one that needs more than {MAX_PATTERN_BYTES} bytes once compiled)");
    }
    Error::Schema { path: document.path.clone(), message }
}
