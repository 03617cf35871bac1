//! The table as `OpenAPI` 3.1.
//!
//! **Invariant:** every status, code and limit in it is asked of the types and constants that the handlers use.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use schemas::verdict::Code;
use serde_json::{Map, Value, json};

use super::{Access, Content, Operation, Verb};
use crate::config::GatewayConfig;
use crate::error::RequestError;

/// Why a whole request was refused.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `errors::object` writes")]
struct Failure {
    error: FailureDetail,
}

#[derive(JsonSchema)]
#[schemars(rename = "Error")]
#[expect(dead_code, reason = "describes what `errors::object` writes")]
struct FailureDetail {
    /// Stable.
    code: Code,
    /// What to do next.
    message: String,
    /// Its page.
    docs: String,
    /// Of 413: the most that is taken, in bytes (`body.too_large`) or events (`batch.too_many_events`).
    #[schemars(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    /// Of 413: what was announced, or seen until the limit was passed.
    #[schemars(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    /// Of `batch.too_many_events`: the place of the first event that did not fit, from 0.
    #[schemars(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

/// The document.
pub(super) fn write(operations: &[Operation], config: &GatewayConfig) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        let name = match operation.method {
            Verb::Get => "get",
            Verb::Post => "post",
        };
        let described = describe(operation, &mut generator);
        paths.entry(operation.path).or_default().insert(name.to_owned(), described);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Rivulet",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Events in, a verdict for each back. Codes are explained in docs/errors.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The user is the key."},
                "header": {"type": "apiKey", "in": "header", "name": "X-Write-Key"},
                "query": {"type": "apiKey", "in": "query", "name": "key", "description": "Public keys alone."},
            },
        },
        "x-limits": {
            "event_bytes": config.event_bytes,
            "batch_bytes": config.batch_bytes,
            "batch_events": config.batch_events,
            "body_events": config.body_events(),
            "depth": config.depth,
        },
    })
}

fn describe(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut described = Map::new();
    described.insert("summary".to_owned(), operation.summary.into());
    let parameters: Vec<Value> = operation
        .parameters
        .iter()
        .map(|parameter| {
            json!({
                "name": parameter.name,
                "in": parameter.place,
                "required": parameter.place == "path",
                "description": parameter.about,
                "schema": (parameter.shape)(generator),
            })
        })
        .collect();
    described.insert("parameters".to_owned(), parameters.into());
    described.insert("security".to_owned(), security(operation.access));
    if !operation.body.is_empty() {
        let content = content(operation.body, generator);
        described.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    described.insert("responses".to_owned(), answers(operation, generator));
    described.into()
}

fn security(access: Access) -> Value {
    match access {
        Access::Everybody => json!([]),
        Access::AnyKey => json!([{"bearer": []}, {"basic": []}, {"header": []}, {"query": []}]),
        Access::SecretKey => json!([{"bearer": []}, {"basic": []}, {"header": []}]),
        Access::SecretKeyOrToken => json!([{"bearer": []}]),
    }
}

fn content(contents: &[Content], generator: &mut SchemaGenerator) -> Value {
    let described = contents.iter().map(|content| {
        let described = content.shape.map_or_else(|| json!({}), |shape| json!({"schema": shape(generator)}));
        (content.media_type.to_owned(), described)
    });
    Value::Object(described.collect())
}

/// By status: an answer of the operation, a refusal of the whole request, or either.
fn answers(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut refusals: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in operation.access.errors().iter().chain(operation.errors) {
        let codes = refusals.entry(RequestError::new(*code, "").status().as_u16()).or_default();
        if !codes.contains(code) {
            codes.push(*code);
        }
    }
    let mut answers = Map::new();
    for answer in operation.answers {
        let mut contents = content(answer.content, generator);
        let mut about = answer.about.to_owned();
        if let Some(codes) = refusals.remove(&answer.status.as_u16()) {
            about = format!("{about} Or `error`: {}.", names(&codes));
            let refusal = generator.subschema_for::<Failure>();
            let known = contents.pointer("/application~1json/schema").cloned();
            let either = known.map_or_else(|| json!(refusal), |known| json!({"anyOf": [known, refusal]}));
            if let Some(contents) = contents.as_object_mut() {
                contents.insert("application/json".to_owned(), json!({"schema": either}));
            }
        }
        answers.insert(answer.status.as_str().to_owned(), json!({"description": about, "content": contents}));
    }
    for (status, codes) in refusals {
        let failure = content(&[Content::json(super::shape::<Failure>)], generator);
        let about = format!("`error`: {}.", names(&codes));
        answers.insert(status.to_string(), json!({"description": about, "content": failure}));
    }
    answers.into()
}

fn names(codes: &[Code]) -> String {
    codes.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(", ")
}
