//! Reads schema documents: the folder's layout, and what a document must be before anything is compiled.
//!
//! **Invariant:** a document that is read is one JSON object of bounded size and depth, with each name once; no file is read
//! that is no ordinary file, so a folder cannot make the program wait or fill its memory.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::version::Version;
use super::{Error, SchemaId};
use crate::id::EventType;
use crate::json;

/// Largest document, bytes.
pub(super) const MAX_DOCUMENT_BYTES: u64 = 1 << 20;
/// Deepest nesting of a document.
pub(super) const MAX_DOCUMENT_DEPTH: usize = 64;
/// Most documents of a registry.
pub(super) const MAX_DOCUMENTS: usize = 10_000;
/// Folders that begin so hold documents to refer to, no event types.
const SHARED_PREFIX: char = '_';
/// Where documents are, for references from one to another: `<BASE><folder>/<file>`.
pub(super) const BASE: &str = "rivulet:///";
/// The only dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A document, not yet compiled.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// For messages.
    pub(super) path: String,
    /// Where other documents find it.
    pub(super) uri: String,
    /// What it judges; `None` for a shared one.
    pub(super) id: Option<SchemaId>,
    /// As written.
    pub(super) text: Arc<str>,
    /// As read.
    pub(super) value: Value,
}

impl Document {
    /// The document that judges a type.
    pub(super) fn of_type(
        path: &str,
        event_type: EventType,
        version: Version,
        text: &[u8],
    ) -> Result<Self, Error> {
        let uri = uri(event_type.as_str(), &format!("{version}.json"));
        Self::parse(path, uri, Some(SchemaId { event_type, version }), text)
    }

    fn parse(path: &str, uri: String, id: Option<SchemaId>, text: &[u8]) -> Result<Self, Error> {
        let fault = |message: String| Error::Schema { path: path.to_owned(), message };
        json::object(text, json::Limits { max_depth: MAX_DOCUMENT_DEPTH })
            .map_err(|error| fault(format!("not one JSON object: {error}")))?;
        let value: Value = serde_json::from_slice(text).map_err(|error| fault(error.to_string()))?;
        let dialect = value.get("$schema").map_or(Some(DIALECT), Value::as_str);
        if dialect.map(|uri| uri.trim_end_matches('#')) != Some(DIALECT) {
            return Err(fault(format!("`$schema` must be `{DIALECT}`, or left out")));
        }
        let text = std::str::from_utf8(text).map_err(|error| fault(error.to_string()))?;
        Ok(Self { path: path.to_owned(), uri, id, text: text.into(), value })
    }
}

/// Reads `<type>/<version>.json` and `_<folder>/<any name>.json` below `dir`, ordered. Folders inside those (such as `examples`)
/// and names that begin with a dot are passed over.
pub(super) fn read_folder(dir: &Path) -> Result<Vec<Document>, Error> {
    let mut all = Vec::new();
    for folder in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
        let name = file_name(&folder)?;
        for file in
            entries(&folder)?.into_iter().filter(|path| path.extension().is_some_and(|it| it == "json"))
        {
            if file.is_dir() {
                continue;
            }
            let path = file.display().to_string();
            let fault = |message: String| Error::Schema { path: path.clone(), message };
            let file_name = file_name(&file)?;
            let text = read(&file, &path)?;
            if name.starts_with(SHARED_PREFIX) {
                all.push(Document::parse(&path, uri(&name, &file_name), None, &text)?);
            } else {
                let version = file_name.strip_suffix(".json").and_then(Version::parse).ok_or_else(|| {
                    fault(
                        "a schema's file is named by its version, such as `1.json` or `1.2.0.json`"
                            .to_owned(),
                    )
                })?;
                all.push(Document::of_type(&path, EventType::new(name.clone()), version, &text)?);
            }
            if all.len() > MAX_DOCUMENTS {
                return Err(fault(format!("more than {MAX_DOCUMENTS} documents")));
            }
        }
    }
    Ok(all)
}

fn read(file: &Path, path: &str) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    // Asked before it is opened: opening a pipe would wait for a writer.
    let about = std::fs::metadata(file).map_err(failed)?;
    if !about.is_file() || about.len() > MAX_DOCUMENT_BYTES {
        let message = format!("not an ordinary file of at most {MAX_DOCUMENT_BYTES} bytes");
        return Err(Error::Schema { path: path.to_owned(), message });
    }
    std::fs::read(file).map_err(failed)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = |source| Error::Read { path: dir.display().to_string(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> Result<String, Error> {
    path.file_name().and_then(|name| name.to_str()).map(str::to_owned).ok_or_else(|| Error::Schema {
        path: path.display().to_string(),
        message: "the name is not UTF-8".to_owned(),
    })
}

/// Names may hold anything that a file's name may; a URI may not.
fn uri(folder: &str, file: &str) -> String {
    let mut uri = BASE.to_owned();
    for (place, part) in [folder, file].into_iter().enumerate() {
        if place > 0 {
            uri.push('/');
        }
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                uri.push(char::from(byte));
            } else {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}
