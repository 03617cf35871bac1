//! The shape of an event, and of a body of them.
//!
//! **Invariant:** the members are those that the contract names.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use schemas::event::KNOWN_MEMBERS;
use schemas::frame::Discarded;
use serde_json::{Map, Value, json};

/// An event as a client sends it.
pub(crate) struct Event;

impl JsonSchema for Event {
    fn schema_name() -> Cow<'static, str> {
        "Event".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let properties: Map<String, Value> =
            KNOWN_MEMBERS.iter().map(|name| ((*name).to_owned(), member(name))).collect();
        json_schema!({
            "type": "object",
            "description": "What happened. `metadata` is judged by the JSON Schema of the `event_type` (GET /v1/schemas).",
            "properties": properties,
            "required": ["event_type"],
            "anyOf": [
                {"required": ["user_id"], "properties": {"user_id": {"not": {"type": "null"}}}},
                {"required": ["anonymous_id"], "properties": {"anonymous_id": {"not": {"type": "null"}}}},
            ],
        })
    }
}

/// Anything that the contract comes to name later is described as an object of the sender's until somebody says more.
fn member(name: &str) -> Value {
    match name {
        "event_id" => {
            json!({"type": "string", "description": "Any UUID; minted if it is absent.", "format": "uuid"})
        }
        "event_type" => json!({"type": "string", "minLength": 1, "maxLength": 128}),
        "user_id" | "anonymous_id" => {
            json!({"type": ["string", "number", "null"], "description": "An id that means nobody counts as absent.", "minLength": 1})
        }
        "timestamp" => json!({"description": "RFC 3339, or milliseconds since 1970.", "anyOf": [
            {"type": "string", "format": "date-time"},
            {"type": "integer", "minimum": 946_684_800_000_i64, "maximum": 253_402_207_200_999_i64},
        ]}),
        "session_id" => json!({"type": "string"}),
        "schema" => json!({"type": "string", "description": "A pinned version of the type's schema."}),
        _ => json!({"type": "object"}),
    }
}

/// A body of `POST /v1/events`.
pub(crate) struct Events;

impl JsonSchema for Events {
    fn schema_name() -> Cow<'static, str> {
        "Events".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let event = generator.subschema_for::<Event>();
        let discarded = generator.subschema_for::<Discarded>();
        let events = json!({"type": "array", "items": event, "minItems": 1});
        json_schema!({"oneOf": [
            event,
            events,
            {"type": "object", "required": ["events"], "not": {"required": ["event_type"]}, "properties": {
                "events": events,
                "sent_at": {"description": "When the client sends, by its own clock.", "anyOf": [
                    {"type": "string", "format": "date-time"}, {"type": "integer"},
                ]},
                "user_token": {"type": "string", "description": "Vouches for the user."},
                "discarded": {"type": "array", "items": discarded},
            }},
        ]})
    }
}
