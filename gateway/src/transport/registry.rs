//! `GET /v1/schemas` and `GET /v1/schemas/{type}/{version}`: the schemas in force.
//!
//! **Invariant:** for secret keys alone: schemas tell what is personal and what is only observed, which is nobody's business who has
//! a page's key. A document is served as it was written.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use schemars::JsonSchema;
use schemas::id::EventType;
use schemas::registry::{Registry, Schema};
use schemas::verdict::Code;
use serde::Serialize;

use super::api::{Access, Answer, Content, Operation, Parameter, Verb, shape};
use super::errors;
use crate::Gateway;
use crate::error::RequestError;

pub(crate) const LIST: Operation = Operation {
    method: Verb::Get,
    path: "/v1/schemas",
    summary: "The schemas in force.",
    access: Access::SecretKey,
    parameters: &[],
    body: &[],
    answers: &[Answer::ok("Each type and version.", &[Content::json(shape::<All>)])],
    errors: &[],
};

pub(crate) const DOCUMENT: Operation = Operation {
    path: "/v1/schemas/{event_type}/{version}",
    summary: "One schema.",
    parameters: &[
        Parameter { name: "event_type", place: "path", about: "The type.", shape: shape::<EventType> },
        Parameter {
            name: "version",
            place: "path",
            about: "A version, a range such as `1` or `1.2`, or `latest`.",
            shape: shape::<String>,
        },
    ],
    answers: &[Answer::ok("The document as it was written.", &[Content::other("application/schema+json")])],
    errors: &[Code::SchemaUnknown, Code::SchemaVersionUnknown, Code::NotFound],
    ..LIST
};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Schemas")]
struct All {
    schemas: Vec<Entry>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SchemaEntry")]
struct Entry {
    /// `type@version`.
    schema: String,
    r#type: EventType,
    version: String,
    /// What events are judged by unless they pin another.
    newest: bool,
    /// What happens to events that do not fit.
    mode: String,
    /// Personal data is replaced or dropped by it.
    redacts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<serde_json::Value>,
}

/// Names the version that was meant by `latest` or a range.
const SCHEMA_HEADER: HeaderName = HeaderName::from_static("x-schema");
/// Stands for the newest version.
const LATEST: &str = "latest";

/// Every schema: type, version, what happens to events that do not fit.
pub(crate) async fn list(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, RequestError> {
    gateway.keys().authenticate_secret(&headers, &uri)?;
    let registry = gateway.schemas.load();
    let all = All { schemas: registry.schemas().map(|schema| entry(&registry, schema)).collect() };
    Ok(errors::json(StatusCode::OK, serde_json::to_vec(&all).unwrap_or_default()))
}

fn entry(registry: &Registry, schema: &Schema) -> Entry {
    let id = schema.id();
    let newest = registry.schema(&id.event_type, None).ok().flatten();
    let document = registry.document(id);
    Entry {
        schema: id.to_string(),
        r#type: id.event_type.clone(),
        version: id.version.to_string(),
        newest: newest.is_some_and(|newest| newest.id() == id),
        mode: schema.mode().to_string(),
        redacts: registry.redaction(&id.event_type).is_some(),
        title: document.and_then(|document| document.get("title")).cloned(),
    }
}

/// One document. `{version}` is a version, a range such as `1` or `1.2`, or `latest`.
pub(crate) async fn document(
    State(gateway): State<Arc<Gateway>>,
    Path((event_type, version)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, RequestError> {
    gateway.keys().authenticate_secret(&headers, &uri)?;
    let registry = gateway.schemas.load();
    let pinned = (version != LATEST).then_some(version.as_str());
    let found = registry.schema(&EventType::new(event_type), pinned).map_err(|_| {
        RequestError::new(Code::SchemaVersionUnknown, "No such version of this type; see GET /v1/schemas.")
    })?;
    let schema = found.ok_or_else(|| {
        RequestError::new(Code::SchemaUnknown, "No schema for this type; see GET /v1/schemas.")
    })?;
    let mut response = errors::json(StatusCode::OK, schema.text().as_bytes().to_vec());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/schema+json"));
    if let Ok(name) = HeaderValue::from_str(&schema.id().to_string()) {
        response.headers_mut().insert(SCHEMA_HEADER, name);
    }
    Ok(response)
}
