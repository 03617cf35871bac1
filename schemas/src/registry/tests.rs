//! The built-in schemas against their examples, and the registry against documents of its own.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

fn events_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("events")
}

fn json_files(dir: &Path) -> Vec<(PathBuf, Value)> {
    let files = std::fs::read_dir(dir).unwrap();
    files
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()))
        .collect()
}

fn judge_event(registry: &Registry, event: &Value) -> Judgement {
    let event_type = EventType::new(event["event_type"].as_str().unwrap());
    registry.judge(&event_type, None, event.get("metadata"))
}

/// A registry of these types and versions.
pub(super) fn registry(documents: &[(&str, &str, &[u8])]) -> Result<Registry, Error> {
    let read = documents.iter().map(|(event_type, version, text)| {
        let path = format!("events/{event_type}/{version}.json");
        Document::of_type(&path, EventType::new(*event_type), Version::parse(version).unwrap(), text)
    });
    Registry::of(read.collect::<Result<Vec<_>, _>>()?)
}

/// A registry with one schema `probe@1`.
fn probe(document: &Value) -> Registry {
    let text = serde_json::to_vec(document).unwrap();
    registry(&[("probe", "1", &text)]).unwrap()
}

fn fault(registry: &Registry, metadata: &Value) -> (String, String, String) {
    match registry.judge(&EventType::new("probe"), None, Some(metadata)) {
        Judgement::Invalid(reason) => {
            assert_eq!(reason.code, Code::SchemaInvalid);
            assert_eq!(reason.schema.as_deref(), Some("probe@1"));
            (reason.pointer.unwrap(), reason.keyword.unwrap(), reason.expected.unwrap())
        }
        other => panic!("{metadata} is {other:?}"),
    }
}

#[test]
fn the_built_in_table_equals_the_folder() {
    let builtin = Registry::builtin();
    let folder = Registry::load(&events_folder()).unwrap();
    assert!(builtin.ids().eq(folder.ids()), "{:?}", folder.ids().collect::<Vec<_>>());
    for id in folder.ids() {
        assert_eq!(builtin.document(id), folder.document(id), "{id}");
        let document = builtin.document(id).unwrap();
        assert_eq!(document["$id"], format!("urn:rivulet:{}:{}", id.event_type, id.version));
        assert!(document["title"].is_string() && document["description"].is_string(), "{id}");
    }
    assert_eq!(builtin.ids().count(), 13);
}

#[test]
fn each_example_gets_the_verdict_it_names() {
    let registry = Registry::builtin();
    for id in registry.ids() {
        let examples = events_folder().join(id.event_type.as_str()).join("examples");
        let valid = json_files(&examples.join("valid"));
        assert!(valid.len() >= 2, "{id}");
        for (path, event) in valid {
            assert_eq!(judge_event(&registry, &event), Judgement::Valid(id.clone()), "{}", path.display());
        }
        let invalid = json_files(&examples.join("invalid"));
        assert!(invalid.len() >= 3, "{id}");
        for (path, example) in invalid {
            let Judgement::Invalid(reason) = judge_event(&registry, &example["event"]) else {
                panic!("{} is valid", path.display())
            };
            assert_eq!(reason.code, Code::SchemaInvalid, "{}", path.display());
            assert_eq!(reason.pointer.as_deref(), example["pointer"].as_str(), "{}", path.display());
            assert_eq!(reason.keyword.as_deref(), example["keyword"].as_str(), "{}", path.display());
            assert_eq!(reason.schema, Some(id.to_string()));
            assert!(reason.expected.is_some());
        }
    }
}

#[test]
fn the_seed_event_fits_and_two_in_words_does_not() {
    let registry = Registry::builtin();
    let judge = |metadata: &Value| registry.judge(&EventType::new("add_to_cart"), None, Some(metadata));
    assert!(matches!(judge(&json!({"product_id":"product_456","quantity":2})), Judgement::Valid(_)));
    let Judgement::Invalid(reason) = judge(&json!({"product_id":"product_456","quantity":"two"})) else {
        panic!()
    };
    assert_eq!(
        serde_json::to_value(reason).unwrap(),
        json!({"code":"schema.invalid","pointer":"/metadata/quantity","keyword":"type","expected":"an integer",
               "schema":"add_to_cart@1"})
    );
}

#[test]
fn a_pinned_version_is_the_one_judged_by() {
    let document = |required: &str| serde_json::to_vec(&json!({"required": [required]})).unwrap();
    let registry = registry(&[
        ("probe", "1", &document("a")),
        ("probe", "2", &document("b")),
        ("probe", "2.1.0", &document("b1")),
        ("probe", "2.1.1", &document("b2")),
        ("probe", "2.10.0", &document("b10")),
        ("probe", "10", &document("c")),
    ]);
    let registry = registry.unwrap();
    let judge = |pinned, metadata: &Value| registry.judge(&EventType::new("probe"), pinned, Some(metadata));
    for (pinned, fits, by) in [
        (Some("probe@1"), "a", "probe@1"),
        (Some("1"), "a", "probe@1"),
        (Some("1.0"), "a", "probe@1"),
        (Some("2.0.0"), "b", "probe@2"),
        (Some("probe@2"), "b10", "probe@2.10.0"),
        (Some("2.1"), "b2", "probe@2.1.1"),
        (Some("2.1.0"), "b1", "probe@2.1.0"),
        (None, "c", "probe@10"),
        (Some("10"), "c", "probe@10"),
    ] {
        let Judgement::Valid(id) = judge(pinned, &json!({fits: 1})) else { panic!("{pinned:?}") };
        assert_eq!(id.to_string(), by, "{pinned:?}");
        assert!(matches!(judge(pinned, &json!({"z": 1})), Judgement::Invalid(_)), "{pinned:?}");
    }
    for pinned in [
        "probe@3",
        "3",
        "2.2",
        "2.1.2",
        "other@1",
        "",
        "@",
        "probe@",
        "probe@01",
        "+1",
        "-1",
        "99999999999",
        "1.",
        "2.1.1.0",
    ] {
        let Judgement::Invalid(reason) = judge(Some(pinned), &json!({"c": 1})) else { panic!("{pinned:?}") };
        assert_eq!(
            (reason.code, reason.pointer.as_deref()),
            (Code::SchemaVersionUnknown, Some("/schema")),
            "{pinned:?}"
        );
        let expected =
            "one of `probe@1`, `probe@2`, `probe@2.1.0`, `probe@2.1.1`, `probe@2.10.0`, `probe@10`";
        assert_eq!(reason.expected.as_deref(), Some(expected));
    }
    assert_eq!(registry.judge(&EventType::new("nothing"), Some("nothing@1"), None), Judgement::UnknownType);
}

#[test]
fn metadata_that_is_absent_is_judged_as_empty() {
    let registry = Registry::builtin();
    assert!(matches!(registry.judge(&EventType::new("page_view"), None, None), Judgement::Valid(_)));
    let Judgement::Invalid(reason) = registry.judge(&EventType::new("product_view"), None, None) else {
        panic!()
    };
    assert_eq!((reason.pointer.as_deref(), reason.keyword.as_deref()), (Some("/metadata"), Some("required")));
    assert_eq!(reason.expected.as_deref(), Some("the property `product_id`"));
}

#[test]
fn lengths_and_patterns_count_code_points_however_they_are_spelled() {
    let registry = probe(&json!({"properties":{
        "q":{"maxLength":4,"pattern":"^[^ ]*$"},
        "tag":{"pattern":"^🐲*$"},
    }}));
    let judge = |text: &str| {
        registry.judge(&EventType::new("probe"), None, Some(&serde_json::from_str(text).unwrap()))
    };
    for text in [
        r#"{"q":"😀😀😀😀"}"#,
        r#"{"q":"\ud83d\ude00\ud83d\ude00\ud83d\ude00\ud83d\ude00"}"#,
        r#"{"q":"éééé"}"#,
        r#"{"tag":""}"#,
        r#"{"tag":"🐲🐲"}"#,
        r#"{"tag":"\ud83d\udc32🐲"}"#,
    ] {
        assert!(matches!(judge(text), Judgement::Valid(_)), "{text}");
    }
    for (text, keyword) in [
        (r#"{"q":"e\u0301e\u0301e"}"#, "maxLength"),
        ("{\"q\":\"e\u{301}e\u{301}e\"}", "maxLength"),
        ("{\"q\":\"👨\u{200d}👩\u{200d}👧\u{200d}👦\"}", "maxLength"),
        (r#"{"tag":"🐲x"}"#, "pattern"),
        (r#"{"tag":"\ud83d\udc32x"}"#, "pattern"),
    ] {
        let Judgement::Invalid(reason) = judge(text) else { panic!("{text}") };
        assert_eq!(reason.keyword.as_deref(), Some(keyword), "{text}");
    }
}

#[test]
fn a_reason_names_place_keyword_and_expectation_in_the_schemas_words() {
    let registry = probe(&json!({
        "properties": {
            "a": {"type": ["string", "null"]}, "b": {"enum": ["x", "y"]}, "c": {"anyOf": [{"type": "string"}, {"minimum": 3}]},
            "d": {"oneOf": [{"type": "number"}, {"type": "integer"}]}, "e": {"additionalProperties": false},
            "f": {"unevaluatedProperties": false, "properties": {"x": {}}}, "g": false, "h": {"format": "date-time"},
            "i": {"minLength": 2}, "j": {"const": 5}, "k": {"not": {"type": "string"}}, "l": {"items": {"required": ["id"]}},
            "a/b~c": {"type": "string"}, "m": {"propertyNames": {"maxLength": 2}}, "n": {"contains": {"const": 1}},
        }
    }));
    for (metadata, pointer, keyword, expected) in [
        (json!({"a": 1}), "/metadata/a", "type", "null or a string"),
        (json!({"b": "secret"}), "/metadata/b", "enum", "one of \"x\", \"y\""),
        (json!({"c": 1}), "/metadata/c", "anyOf", "at least one"),
        (json!({"d": 1}), "/metadata/d", "oneOf", "exactly one"),
        (json!({"d": "secret"}), "/metadata/d", "oneOf", "exactly one"),
        (json!({"e": {"secret": 1}}), "/metadata/e", "additionalProperties", "no properties beside"),
        (json!({"f": {"secret": 1}}), "/metadata/f", "unevaluatedProperties", "no properties beside"),
        (json!({"g": "secret"}), "/metadata/g", "properties", "does not forbid"),
        (json!({"h": "secret"}), "/metadata/h", "format", "`date-time`"),
        (json!({"i": "s"}), "/metadata/i", "minLength", "at least 2 characters"),
        (json!({"j": "secret"}), "/metadata/j", "const", "5"),
        (json!({"k": "secret"}), "/metadata/k", "not", "does not forbid"),
        (json!({"l": [{"id": 1}, {"secret": 1}]}), "/metadata/l/1", "required", "the property `id`"),
        (json!({"a/b~c": 1}), "/metadata/a~1b~0c", "type", "a string"),
        (json!({"m": {"secret": 1}}), "/metadata/m", "propertyNames", "property names"),
        (json!({"n": ["secret"]}), "/metadata/n", "contains", "`contains`"),
    ] {
        let (found_pointer, found_keyword, found_expected) = fault(&registry, &metadata);
        assert_eq!((found_pointer.as_str(), found_keyword.as_str()), (pointer, keyword), "{metadata}");
        assert!(found_expected.contains(expected), "{metadata}: {found_expected}");
        assert!(!found_expected.contains("secret"), "{metadata}: {found_expected}");
    }
}

#[test]
fn of_several_faults_the_deepest_is_told_and_always_the_same() {
    let registry = probe(
        &json!({"required":["id"],"properties":{"z":{"properties":{"n":{"type":"integer"}}},"b":{"type":"string"},
        "c":{"minLength":9}}}),
    );
    assert_eq!(fault(&registry, &json!({"z":{"n":"x"},"b":1})).0, "/metadata/z/n");
    assert_eq!(fault(&registry, &json!({"c":"x","b":1})).0, "/metadata/b");
}

#[test]
fn an_object_with_a_magic_name_stays_an_object() {
    // Fails when some package of the build turns on serde_json's `arbitrary_precision` or `raw_value`: a sender could then
    // forge numbers and raw text (serde-rs/json#1170).
    for (text, name) in [
        (r#"{"$serde_json::private::Number":"7"}"#, "$serde_json::private::Number"),
        (r#"{"$serde_json::private::RawValue":"[1]"}"#, "$serde_json::private::RawValue"),
    ] {
        let value: Value = serde_json::from_slice(text.as_bytes()).unwrap();
        assert!(value.as_object().is_some_and(|object| object.contains_key(name)), "{value}");
        let registry = probe(&json!({"properties":{"order":{"type":"integer"}}}));
        assert_eq!(fault(&registry, &json!({"order": value})).1, "type");
    }
}
