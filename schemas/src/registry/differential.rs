//! Scanned bytes against `serde_json`'s tree of them: whatever schema and whatever value, the verdict is the same.

use jsonschema::json::conformance;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::json::{Limits, Tape};

/// The verdicts on `metadata`, read from a tree and from scanned bytes.
fn verdicts(registry: &Registry, event_type: &EventType, metadata: &str) -> Option<(Judgement, Judgement)> {
    let event = format!("{{\"metadata\" : {metadata} }}");
    let mut tape = Tape::default();
    let scanned = tape.object(event.as_bytes(), Limits::default()).ok()?.children().next()?;
    let tree: Value = serde_json::from_str(metadata).unwrap();
    Some((
        registry.judge(event_type, None, Some(&tree)),
        registry.judge_scanned(event_type, None, Some(scanned)),
    ))
}

#[test]
fn scanned_bytes_show_the_validator_what_it_relies_on() {
    let document = conformance::document().to_string();
    let mut tape = Tape::default();
    let scanned = tape.object(document.as_bytes(), Limits::default()).unwrap();
    conformance::assert_conformance::<ScannedJson>(&Part::Scanned(scanned));
    let spelled = r#"{"s\u0074ring":"h\u00e9llo","integer":42,"float":15e-1,"boolean":true,"null":null,"array":[10,20,30],
        "duplicates":[1,{"a":1},{"\u0061":1.0}],"object":{"nested":"val\u0075e"}}"#;
    let scanned = tape.object(spelled.as_bytes(), Limits::default()).unwrap();
    conformance::assert_conformance::<ScannedJson>(&Part::Scanned(scanned));
}

#[test]
fn every_example_gets_the_same_verdict_from_bytes() {
    let registry = Registry::builtin();
    let folder = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("events");
    let mut seen = 0;
    for id in registry.ids() {
        let examples = folder.join(id.event_type.as_str()).join("examples");
        for path in
            ["valid", "invalid"].iter().flat_map(|kind| std::fs::read_dir(examples.join(kind)).unwrap())
        {
            let path = path.unwrap().path();
            let example: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let event = example.get("event").unwrap_or(&example);
            let Some(metadata) = event.get("metadata") else { continue };
            let (tree, bytes) = verdicts(&registry, &id.event_type, &metadata.to_string()).unwrap();
            assert_eq!(tree, bytes, "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen} examples");
}

/// Names, some of them spelled with escapes.
const NAMES: [&str; 6] = ["a", "b", "c\u{e9}", "a/b", "", "long name of a member"];
/// Scalars at the edges, as a sender may spell them.
const SCALARS: [&str; 34] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "1.0",
    "1e2",
    "100",
    "-7",
    "2.5",
    "0.1",
    "0.30000000000000004",
    "9007199254740992",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "1e300",
    "1E-7",
    "1.7976931348623157e308",
    r#""""#,
    r#""a""#,
    r#""\u0061""#,
    r#""aa""#,
    "\"\u{e9}\u{1f600}\"",
    r#""\ud83d\ude00""#,
    r#""a\nb\\""#,
    r#""EUR""#,
    r#""a@example.org""#,
    r#""2024-02-29T12:00:00Z""#,
    r#""123e4567-e89b-12d3-a456-426614174000""#,
    r#""some longer text of more than thirty-two bytes""#,
];

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&NAMES[..]).prop_map(str::to_owned)
}

fn scalar() -> impl Strategy<Value = String> {
    prop::sample::select(&SCALARS[..]).prop_map(str::to_owned)
}

/// A value's text, with names that occur once.
fn instance() -> impl Strategy<Value = String> {
    let spelled = |name: &String, escape: bool| match (escape, name.strip_prefix('a')) {
        (true, Some(rest)) => format!("\"\\u0061{rest}\""),
        _ => format!("\"{name}\""),
    };
    scalar().prop_recursive(3, 24, 5, move |inner| {
        let members = prop::collection::btree_map(name(), (inner.clone(), any::<bool>()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            members.prop_map(move |members| {
                let members: Vec<String> = members
                    .iter()
                    .rev()
                    .map(|(name, (value, escape))| format!("{}: {value}", spelled(name, *escape)))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn value() -> impl Strategy<Value = Value> {
    instance().prop_map(|text| serde_json::from_str(&text).unwrap())
}

/// One keyword with its value.
fn keyword(inner: impl Strategy<Value = Value> + Clone + 'static) -> impl Strategy<Value = (String, Value)> {
    let schemas = || prop::collection::vec(inner.clone(), 1..3);
    let by_name = || prop::collection::btree_map(name(), inner.clone(), 0..4);
    let limit = || {
        prop::sample::select(vec![
            json!(0),
            json!(1),
            json!(2.5),
            json!(100),
            json!(9_007_199_254_740_993_u64),
        ])
    };
    let count = || (0_u64..4).prop_map(Value::from);
    let types = ["object", "array", "string", "number", "integer", "boolean", "null"];
    let names = || prop::collection::btree_set(name(), 0..3);
    let schema_keywords = [
        "additionalProperties",
        "propertyNames",
        "items",
        "contains",
        "not",
        "if",
        "then",
        "else",
        "unevaluatedProperties",
        "unevaluatedItems",
    ];
    let pair = |keyword: &'static str| move |value: Value| (keyword.to_owned(), value);
    prop_oneof![
        3 => prop::sample::select(types.to_vec()).prop_map(Value::from).prop_map(pair("type")),
        1 => prop::collection::btree_set(prop::sample::select(types.to_vec()), 1..4).prop_map(|types| ("type".to_owned(), json!(types))),
        2 => prop::collection::vec(value(), 1..4).prop_map(|values| ("enum".to_owned(), json!(values))),
        1 => value().prop_map(pair("const")),
        2 => (prop::sample::select(vec!["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]), limit())
            .prop_map(|(keyword, limit)| (keyword.to_owned(), if keyword == "multipleOf" && limit == json!(0) { json!(0.1) } else { limit })),
        2 => (prop::sample::select(vec!["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"]), count())
            .prop_map(|(keyword, count)| (keyword.to_owned(), count)),
        1 => prop::sample::select(vec!["^[A-Z]{3}$", "a", "^.$", "\\d"]).prop_map(Value::from).prop_map(pair("pattern")),
        1 => prop::sample::select(vec!["email", "date-time", "uuid", "uri", "ipv4"]).prop_map(Value::from).prop_map(pair("format")),
        1 => any::<bool>().prop_map(Value::from).prop_map(pair("uniqueItems")),
        2 => names().prop_map(|names| ("required".to_owned(), json!(names))),
        1 => (name(), names()).prop_map(|(name, names)| ("dependentRequired".to_owned(), json!({ name: names }))),
        4 => by_name().prop_map(|schemas| ("properties".to_owned(), json!(schemas))),
        1 => by_name().prop_map(|schemas| ("dependentSchemas".to_owned(), json!(schemas))),
        1 => inner.clone().prop_map(|schema| ("patternProperties".to_owned(), json!({"^a": schema}))),
        2 => (prop::sample::select(schema_keywords.to_vec()), inner.clone()).prop_map(|(keyword, schema)| (keyword.to_owned(), schema)),
        1 => schemas().prop_map(|schemas| ("prefixItems".to_owned(), json!(schemas))),
        1 => (prop::sample::select(vec!["allOf", "anyOf", "oneOf"]), schemas()).prop_map(|(keyword, schemas)| (keyword.to_owned(), json!(schemas))),
        1 => Just(("$ref".to_owned(), json!("#/$defs/shared"))),
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![4 => Just(json!({})), 1 => Just(json!(true)), 1 => Just(json!(false))];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop::collection::vec(keyword(inner), 1..4)
            .prop_map(|keywords| Value::Object(keywords.into_iter().collect()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_schema_gives_bytes_and_tree_the_same_verdict(
        schema in schema(),
        shared in prop::sample::select(vec![json!({"type": "string"}), json!({"minimum": 2}), json!({"required": ["a"]})]),
        values in prop::collection::vec(instance(), 1..12),
    ) {
        let document = json!({"allOf": [schema], "$defs": {"shared": shared}});
        let probe = EventType::new("probe");
        let Ok(registry) = super::tests::registry(&[("probe", "1", document.to_string().as_bytes())]) else {
            return Err(TestCaseError::reject("the registry refuses the document"));
        };
        for value in &values {
            let Some((tree, bytes)) = verdicts(&registry, &probe, value) else { continue };
            prop_assert_eq!(tree, bytes, "{} by {}", value, document);
        }
    }

    #[test]
    fn what_the_tape_holds_is_what_serde_json_reads(text in crate::json::tests::json_text(4)) {
        let event = format!("{{\"m\":{text}}}");
        let mut tape = Tape::default();
        if let Ok(scanned) = tape.object(event.as_bytes(), Limits::default()) {
            let tree: Value = serde_json::from_str(&event).unwrap();
            prop_assert_eq!(rebuilt(&Part::Scanned(scanned)), tree);
        }
    }
}

/// A tree of what the validator is shown.
fn rebuilt(part: &Part<'_>) -> Value {
    use jsonschema::json::{Array as _, Node as _, Object as _};
    if let Some(object) = part.as_object() {
        let members: serde_json::Map<String, Value> =
            object.members().map(|(name, member)| (name.into_owned(), rebuilt(&member))).collect();
        assert_eq!(members.len(), jsonschema::json::Object::len(&object));
        return Value::Object(members);
    }
    if let Some(array) = part.as_array() {
        let elements: Vec<Value> = array.elements().map(|element| rebuilt(&element)).collect();
        assert_eq!(elements.len(), jsonschema::json::Array::len(&array));
        return Value::Array(elements);
    }
    let string = part.as_string().map(|text| Value::String(text.into_owned()));
    let scalar =
        string.or_else(|| part.as_boolean().map(Value::Bool)).or_else(|| part.as_number().map(Value::Number));
    scalar.unwrap_or(Value::Null)
}
