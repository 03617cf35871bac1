//! From the validator's errors to one [`Reason`].
//!
//! **Invariant:** the words come from the schema, never from the value that was sent; which error is told depends on the value
//! and the schema alone, not on the order of members.

use std::fmt::Write as _;

use jsonschema::error::{TypeKind, ValidationErrorKind as Fault};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use crate::verdict::{Code, Reason};

/// Longest text of `expected`, in bytes; a schema with a huge `enum` does not make huge verdicts.
const MAX_EXPECTED_BYTES: usize = 300;
/// Most errors of one event that are looked at; a sender could otherwise make a million of them.
const MAX_ERRORS: usize = 64;

/// The most telling of some errors: the deepest, then a wrong type before a missing property before the rest.
pub(crate) fn first<'e>(errors: impl Iterator<Item = ValidationError<'e>>) -> Reason {
    let worst = errors.take(MAX_ERRORS).min_by_key(|error| {
        let path = error.instance_path().as_str();
        let depth = path.bytes().filter(|byte| *byte == b'/').count();
        (
            std::cmp::Reverse(depth),
            rank(error.kind()),
            path.to_owned(),
            error.schema_path().as_str().to_owned(),
        )
    });
    let Some(error) = worst else { return Reason::new(Code::SchemaInvalid).at("/metadata") };
    let keyword = keyword(&error);
    let mut expected = match keyword.as_str() {
        "additionalProperties" | "unevaluatedProperties" => {
            "no properties beside those of the schema".to_owned()
        }
        _ => expected(error.kind()),
    };
    if expected.len() > MAX_EXPECTED_BYTES {
        expected.truncate(expected.floor_char_boundary(MAX_EXPECTED_BYTES));
        expected.push('…');
    }
    let mut reason = Reason::new(Code::SchemaInvalid).expecting(expected);
    reason.pointer = Some(format!("/metadata{}", error.instance_path()));
    reason.keyword = Some(keyword);
    reason
}

fn rank(fault: &Fault) -> u8 {
    match fault {
        Fault::Type { .. } => 0,
        Fault::Required { .. } => 1,
        Fault::AdditionalProperties { .. }
        | Fault::UnevaluatedProperties { .. }
        | Fault::UnevaluatedItems { .. } => 4,
        Fault::AnyOf { .. }
        | Fault::OneOfNotValid { .. }
        | Fault::OneOfMultipleValid { .. }
        | Fault::Not { .. } => 3,
        _ => 2,
    }
}

/// The keyword as the schema has it. A `false` schema has none of its own: then the last word of the place that holds it.
fn keyword(error: &ValidationError<'_>) -> String {
    match error.kind() {
        Fault::FalseSchema => {
            let names = ["properties", "patternProperties", "dependentSchemas", "$defs"];
            let place: Vec<&str> = error.schema_path().as_str().rsplit('/').take(2).collect();
            match place.as_slice() {
                [_, above] if names.contains(above) => (*above).to_owned(),
                [last, ..] if !last.is_empty() => (*last).to_owned(),
                _ => "false".to_owned(),
            }
        }
        // The validator reports both keywords as one kind of error.
        Fault::Required { .. } if last_keyword(error) == Some("dependentRequired") => {
            "dependentRequired".to_owned()
        }
        fault => fault.keyword().to_owned(),
    }
}

fn last_keyword<'e>(error: &'e ValidationError<'_>) -> Option<&'e str> {
    let mut place = error.schema_path().as_str().rsplit('/');
    place.find(|word| matches!(*word, "required" | "dependentRequired"))
}

fn expected(fault: &Fault) -> String {
    match fault {
        Fault::Type { kind: TypeKind::Single(one) } => type_in_words(*one).to_owned(),
        Fault::Type { kind: TypeKind::Multiple(many) } => {
            let words: Vec<&str> = many.iter().map(type_in_words).collect();
            words.join(" or ")
        }
        Fault::Required { property } => format!("the property `{}`", property.as_str().unwrap_or_default()),
        Fault::AdditionalItems { .. } | Fault::UnevaluatedItems { .. } => {
            "no items beside those of the schema".to_owned()
        }
        Fault::AnyOf { .. } => "a value that fits at least one of the schema's alternatives".to_owned(),
        Fault::OneOfNotValid { .. } | Fault::OneOfMultipleValid { .. } => {
            "a value that fits exactly one of the schema's alternatives".to_owned()
        }
        Fault::Not { .. } | Fault::FalseSchema => "something that the schema does not forbid".to_owned(),
        Fault::Constant { expected_value } => format!("{expected_value}"),
        Fault::Enum { options } => one_of(options),
        Fault::Minimum { limit } => format!("a number that is at least {limit}"),
        Fault::Maximum { limit } => format!("a number that is at most {limit}"),
        Fault::ExclusiveMinimum { limit } => format!("a number greater than {limit}"),
        Fault::ExclusiveMaximum { limit } => format!("a number less than {limit}"),
        Fault::MultipleOf { multiple_of } => format!("a multiple of {multiple_of}"),
        Fault::MinLength { limit } => format!("at least {limit} characters"),
        Fault::MaxLength { limit } => format!("at most {limit} characters"),
        Fault::MinItems { limit } => format!("at least {limit} items"),
        Fault::MaxItems { limit } => format!("at most {limit} items"),
        Fault::MinProperties { limit } => format!("at least {limit} properties"),
        Fault::MaxProperties { limit } => format!("at most {limit} properties"),
        Fault::UniqueItems => "items that differ from each other".to_owned(),
        Fault::Contains => "an item that fits the schema of `contains`".to_owned(),
        Fault::Pattern { pattern } => format!("text that matches `{pattern}`"),
        Fault::BacktrackLimitExceeded { .. } | Fault::RegexEngineFailure { .. } => {
            "text that can be matched with the schema's pattern in bounded time".to_owned()
        }
        Fault::Format { format } => format!("text of the format `{format}`"),
        Fault::PropertyNames { .. } => "property names that fit the schema of `propertyNames`".to_owned(),
        Fault::ContentEncoding { content_encoding } => format!("text in the encoding `{content_encoding}`"),
        Fault::ContentMediaType { content_media_type } => {
            format!("text of the media type `{content_media_type}`")
        }
        Fault::FromUtf8 { .. } => "encoded text that is UTF-8".to_owned(),
        Fault::AdditionalProperties { .. }
        | Fault::UnevaluatedProperties { .. }
        | Fault::Custom { .. }
        | Fault::Referencing(_) => "a value that fits the schema".to_owned(),
    }
}

fn type_in_words(json: JsonType) -> &'static str {
    match json {
        JsonType::Array => "an array",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "an integer",
        JsonType::Null => "null",
        JsonType::Number => "a number",
        JsonType::Object => "an object",
        JsonType::String => "a string",
    }
}

fn one_of(options: &Value) -> String {
    let mut words = String::from("one of ");
    for (position, option) in options.as_array().into_iter().flatten().enumerate() {
        let _ = write!(words, "{}{option}", if position == 0 { "" } else { ", " });
        if words.len() > MAX_EXPECTED_BYTES {
            break;
        }
    }
    words
}
