//! Documents that are broken or keep a validator busy, and events made for that.

#![expect(clippy::disallowed_methods, reason = "the time that a judgement takes is what is measured")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::tests::registry;
use super::*;

/// Far more than a bounded judgement takes, even without optimisation on a busy machine; far less than an unbounded one.
const LONG: Duration = Duration::from_secs(20);

fn judge(registry: &Registry, metadata: &Value) -> Option<Box<Reason>> {
    match registry.judge(&EventType::new("x"), None, Some(metadata)) {
        Judgement::Valid(_) => None,
        Judgement::Invalid(reason) => Some(reason),
        Judgement::UnknownType => panic!("x is known"),
    }
}

fn one(document: &Value) -> Result<Registry, Error> {
    registry(&[("x", "1", &serde_json::to_vec(document).unwrap())])
}

fn refused(document: &Value) -> String {
    one(document).expect_err(&document.to_string()).to_string()
}

/// `{"a":{"a":…}}` around a value.
fn nested(depth: usize, value: Value) -> Value {
    (0..depth).fold(value, |inner, _| json!({"a": inner}))
}

#[test]
fn a_broken_document_is_refused_at_load_with_its_path_and_what_is_wrong() {
    let deep = format!("{}{}", r#"{"not":"#.repeat(80), "{}".to_owned() + &"}".repeat(80));
    for (text, word) in [
        (r#"{"type":"strin"}"#, "type"),
        (r#"{"properties":{"a":{"pattern":"("}}}"#, "("),
        (r#"{"properties":{"a":{"pattern":"(a{1000}){1000}"}}}"#, "bytes once compiled"),
        (r#"{"patternProperties":{"[":{}}}"#, "["),
        (r#"{"$ref":"https://elsewhere.example/x.json"}"#, "elsewhere.example"),
        (r##"{"$ref":"#/$defs/absent"}"##, "absent"),
        (r#"{"$ref":"../no_such_type/1.json"}"#, "no_such_type"),
        (r#"{"type":"#, "json.syntax"),
        (r#"{"type":"object","type":"string"}"#, "json.duplicate_name"),
        (r#"{"maximum":1e999}"#, "json.number"),
        (r"[]", "event.not_object"),
        ("true", "event.not_object"),
        (&deep, "json.depth"),
        (r#"{"$schema":"http://json-schema.org/draft-07/schema#"}"#, "2020-12"),
        (r#"{"properties":{"a":{"format":"e-mail"}}}"#, "e-mail"),
        (r#"{"properties":{"a":{"$id":"inner.json"}}}"#, "`$id`"),
        (r##"{"$dynamicRef":"#a"}"##, "$dynamicRef"),
        (r#"{"properties":[]}"#, "properties"),
        (r#"{"items":[{}]}"#, "items"),
        (r#"{"required":["a","a"]}"#, "required"),
    ] {
        let error = registry(&[("x", "1", text.as_bytes())]).expect_err(text).to_string();
        assert!(error.contains("events/x/1.json") && error.contains(word), "{text}: {error}");
        assert!(!error.contains("panicked"), "{text}: {error}");
    }
    assert!(matches!(Registry::load(Path::new("no/such/folder")), Err(Error::Read { .. })));
}

#[test]
fn a_document_that_never_ends_is_refused_before_it_is_used() {
    for (document, word) in [
        (json!({"$ref": "#"}), "never ends"),
        (json!({"allOf": [{"anyOf": [{"$ref": "#"}]}]}), "never ends"),
        (json!({"if": {"$ref": "#/$defs/a"}, "$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}}), "never ends"),
        (json!({"dependentSchemas": {"k": {"$ref": "#"}}}), "never ends"),
        // Each level is judged twice by itself: 2^32 judgements of an event of 200 bytes.
        (
            json!({"oneOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}, "maxProperties": 5}]}),
            "twice as long",
        ),
        (
            json!({"properties": {"a": {"$ref": "#"}}, "patternProperties": {"^a": {"$ref": "#"}}}),
            "twice as long",
        ),
        (json!({"items": {"$ref": "#"}, "contains": {"$ref": "#"}}), "twice as long"),
    ] {
        let error = refused(&document);
        assert!(error.contains("events/x/1.json") && error.contains(word), "{document}: {error}");
    }
    let doubling = (0..13).map(|n| {
        let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
        (format!("d{n}"), json!({"allOf": [next, next]}))
    });
    let mut defs: serde_json::Map<String, Value> = doubling.collect();
    defs.insert("d13".to_owned(), json!({"type": "object"}));
    assert!(refused(&json!({"$ref": "#/$defs/d0", "$defs": defs})).contains("subschemas"));
    let chain = (0..5_000).map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)})));
    let mut defs: serde_json::Map<String, Value> = chain.collect();
    defs.insert("d5000".to_owned(), json!({"type": "object"}));
    assert!(refused(&json!({"$ref": "#/$defs/d0", "$defs": defs})).contains("chain"));
    // The same along members: no event of allowed depth gets there, but the compiler would.
    let chain = (0..5_000)
        .map(|n| (format!("d{n}"), json!({"properties": {"a": {"$ref": format!("#/$defs/d{}", n + 1)}}})));
    let mut defs: serde_json::Map<String, Value> = chain.collect();
    defs.insert("d5000".to_owned(), json!({"type": "object"}));
    assert!(refused(&json!({"$ref": "#/$defs/d0", "$defs": defs})).contains("chain"));
}

#[test]
fn trees_are_described_by_recursion_and_a_bad_leaf_is_found_quickly() {
    let tree = json!({"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}, "n": {"type": "integer"}}});
    let alternatives = json!({
        "$defs": {"node": {"oneOf": [{"type": "string"}, {"properties": {"a": {"$ref": "#/$defs/node"}, "n": {"type": "integer"}},
            "type": "object", "unevaluatedProperties": false}]}},
        "$ref": "#/$defs/node"
    });
    let list = json!({"properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "array", "items": {"$ref": "#"}}]}, "n": {"type": "integer"}}});
    let tuple = json!({"properties": {"a": {"prefixItems": [{"$ref": "#"}, {"$ref": "#"}], "items": {"$ref": "#"}}, "n": {"type": "integer"}}});
    for document in [tree, alternatives, list, tuple] {
        let registry = one(&document).unwrap_or_else(|error| panic!("{document}: {error}"));
        let start = Instant::now();
        assert_eq!(judge(&registry, &nested(30, json!({"n": 1}))), None, "{document}");
        judge(&registry, &nested(30, json!({"n": "x"})));
        judge(&registry, &nested(30, json!({"z": [[]], "n": null})));
        assert!(start.elapsed() < LONG, "{document}: {:?}", start.elapsed());
    }
}

#[test]
fn the_deepest_event_through_the_longest_chain_fits_the_stack_of_a_worker() {
    let long = (0..12)
        .fold(json!({"properties": {"a": {"$ref": "#/$defs/n"}}}), |inner, _| json!({"allOf": [inner]}));
    let registry = one(&json!({"$defs": {"n": long}, "$ref": "#/$defs/n"})).unwrap();
    let worker = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || judge(&registry, &nested(100, json!({"n": 1}))).is_none());
    assert!(worker.unwrap().join().unwrap());
}

#[test]
fn a_pattern_takes_bounded_time_for_any_text() {
    let text = "a".repeat(60_000);
    for pattern in [
        r"^(a+)+$",
        r"^(a+)+b$",
        r"^(?=(a+)+$)b",
        r"^(a|aa)+(?!x)y$",
        r"(a*)*\1b",
        r"^(?!.*foo).*$",
        r"(?:a?){300}b",
        r"(a|b|ab)*c(?=d)",
        r"(?:x{0,100}a?){60}z",
        r"^(([a-z])+.)+[A-Z]([a-z])+$",
        r"(.*)*(?<!q)\1\1z",
    ] {
        let registry = one(&json!({"properties": {"t": {"pattern": pattern}}})).unwrap();
        let names = one(&json!({"patternProperties": {pattern: false}})).unwrap();
        let start = Instant::now();
        if let Some(reason) = judge(&registry, &json!({"t": text})) {
            assert_eq!(reason.keyword.as_deref(), Some("pattern"), "{pattern}");
        }
        judge(&names, &json!({text.clone(): 1}));
        assert!(start.elapsed() < LONG, "{pattern}: {:?}", start.elapsed());
    }
}

#[test]
fn large_lists_and_numbers_at_the_edge_are_judged_in_bounded_time_without_a_panic() {
    let start = Instant::now();
    let registry = one(&json!({"properties": {"t": {"uniqueItems": true}, "n": {"multipleOf": 1e-300}, "m": {"multipleOf": 0.01},
        "i": {"type": "integer", "maximum": 9_007_199_254_740_992_i64}, "c": {"const": 9_007_199_254_740_993_i64}}}))
    .unwrap();
    let numbers: Vec<Value> = (0..15_000).map(Value::from).collect();
    let objects: Vec<Value> = (0..5_000).map(|n| json!({"a": [n]})).collect();
    assert_eq!(judge(&registry, &json!({"t": numbers})), None);
    assert_eq!(judge(&registry, &json!({"t": objects})), None);
    for text in [
        "1e308",
        "-1e308",
        "5e-324",
        "-0.0",
        "18446744073709551615",
        "-9223372036854775808",
        "123456789012345678901234567890",
    ] {
        let number: Value = serde_json::from_str(text).unwrap();
        judge(&registry, &json!({"n": number, "m": number, "i": number, "c": number}));
    }
    // Digits beyond 2^53 are not the same number.
    for (text, fits) in [("9007199254740993", true), ("9007199254740992", false), ("9007199254740994", false)]
    {
        let number: Value = serde_json::from_str(text).unwrap();
        assert_eq!(judge(&registry, &json!({"c": number})).is_none(), fits, "{text}");
    }
    for (text, fits) in [
        ("9007199254740992", true),
        ("9007199254740993", false),
        ("9007199254740991.0", true),
        ("1e2", true),
        ("-0.0", true),
        ("0.1", false),
    ] {
        let number: Value = serde_json::from_str(text).unwrap();
        assert_eq!(judge(&registry, &json!({"i": number})).is_none(), fits, "{text}");
    }
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
}

#[test]
fn every_format_of_the_list_refuses_what_it_should() {
    for (format, good, bad) in [
        ("date", "2024-02-29", "2024-02-30"),
        ("date-time", "2024-04-25T14:23:05.123Z", "2024-04-25 14:23"),
        ("duration", "P1DT12H", "1 day"),
        ("email", "jo@shop.example", "jo at shop"),
        ("hostname", "shop.example", "-shop-.example"),
        ("ipv4", "203.0.113.9", "203.0.113.256"),
        ("ipv6", "2001:db8::7", "2001:db8::7::"),
        ("iri", "https://shop.example/é", "not an iri"),
        ("iri-reference", "/é", "\\é"),
        ("json-pointer", "/a~1b", "a/b"),
        ("regex", "^[a-z]+$", "("),
        ("relative-json-pointer", "1/a", "/a"),
        ("time", "14:23:05Z", "25:00:00Z"),
        ("uri", "https://shop.example/a", "shop.example/a b"),
        ("uri-reference", "../a", "a b"),
        ("uri-template", "/p/{id}", "/p/{id"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567e89b12d3a456426614174000"),
    ] {
        assert!(FORMATS.contains(&format), "{format}");
        let registry = one(&json!({"properties": {"t": {"format": format}}})).unwrap();
        assert_eq!(judge(&registry, &json!({"t": good})), None, "{format}: {good}");
        let reason = judge(&registry, &json!({"t": bad})).unwrap_or_else(|| panic!("{format}: {bad}"));
        assert_eq!(reason.keyword.as_deref(), Some("format"));
        assert_eq!(judge(&registry, &json!({"t": 1})), None, "{format} is about text");
    }
    assert_eq!(FORMATS.len(), 17);
    for unknown in ["idn-email", "idn-hostname", "phone", "DATE", "unknown"] {
        assert!(refused(&json!({"properties": {"t": {"format": unknown}}})).contains(unknown), "{unknown}");
    }
}
