//! What is called compatible is: generated schemas against generated events. And what is not is told where it is.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::super::tests::registry;
use super::*;

fn of(documents: &[(&str, &Value)]) -> Registry {
    let texts: Vec<Vec<u8>> =
        documents.iter().map(|(_, document)| serde_json::to_vec(document).unwrap()).collect();
    let all: Vec<(&str, &str, &[u8])> =
        documents.iter().zip(&texts).map(|((version, _), text)| ("x", *version, text.as_slice())).collect();
    registry(&all).unwrap()
}

fn told(mode: Compatibility, old: &Value, new: &Value) -> Vec<(String, String)> {
    let all = compare(&of(&[("1", old), ("1.1", new)]), None, mode).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].is_broken(), !all[0].differences.is_empty());
    all[0].differences.iter().map(|found| (found.pointer.clone(), found.keyword.clone())).collect()
}

#[test]
fn what_only_widens_is_backward_compatible() {
    let old = json!({"type":"object","required":["id"],"properties":{"id":{"type":"string","maxLength":10},"n":{"type":"integer","minimum":0},
        "kind":{"enum":["a","b"]},"tags":{"type":"array","items":{"type":"string"},"maxItems":3}}});
    for new in [
        json!({}),
        json!({"type":"object","required":["id"],"properties":{"id":{"type":"string","maxLength":20},"n":{"type":"number"},
            "kind":{"enum":["a","b","c"]},"tags":{"type":"array","items":{"type":["string","null"]}}}}),
        json!({"$ref":"#/$defs/all","$defs":{"all":{"properties":{"id":{"maxLength":10}}}}}),
        json!({"anyOf":[{"required":["id"]},{"required":["other"]}]}),
    ] {
        assert_eq!(told(Compatibility::Backward, &old, &new), [], "{new}");
    }
}

#[test]
fn what_breaks_is_named_by_pointer_and_keyword() {
    let old = json!({"properties":{"n":{"type":"integer","minimum":0},"kind":{"enum":["a","b"]},"o":{"properties":{"deep":{"type":["string","null"]}}},
        "list":{"items":{"properties":{"id":{"type":"string"}}}},"text":{"type":"string"}}});
    for (new, pointer, keyword) in [
        (json!({"required":["sku"]}), "/metadata", "required"),
        (json!({"properties":{"n":{"type":"integer","minimum":1}}}), "/metadata/n", "minimum"),
        (json!({"properties":{"n":{"type":"string"}}}), "/metadata/n", "type"),
        (json!({"properties":{"kind":{"enum":["a"]}}}), "/metadata/kind", "enum"),
        (json!({"properties":{"o":{"properties":{"deep":{"type":"string"}}}}}), "/metadata/o/deep", "type"),
        (json!({"properties":{"list":{"items":{"required":["id"]}}}}), "/metadata/list/*", "required"),
        (json!({"properties":{"text":{"type":"string","format":"email"}}}), "/metadata/text", "format"),
        (json!({"properties":{"text":{"type":"string","pattern":"^a"}}}), "/metadata/text", "pattern"),
        (json!({"properties":{"a/b":{"type":"string"}}}), "/metadata/a~1b", "type"),
        (json!({"additionalProperties":false,"properties":{"n":{}}}), "/metadata", "additionalProperties"),
        (json!({"maxProperties":2}), "/metadata", "maxProperties"),
        (
            json!({"$ref":"#/$defs/x","$defs":{"x":{"properties":{"text":{"maxLength":3}}}}}),
            "/metadata/text",
            "maxLength",
        ),
    ] {
        let right = vec![(pointer.to_owned(), keyword.to_owned())];
        assert_eq!(told(Compatibility::Backward, &old, &new), right, "{new}");
        assert_eq!(told(Compatibility::Forward, &new, &old), right, "{new}");
        assert!(!told(Compatibility::Full, &old, &new).is_empty());
        assert!(!told(Compatibility::Full, &new, &old).is_empty());
    }
    let both = compare(
        &of(&[("1", &json!({})), ("1.1", &json!({"required":["sku"]}))]),
        None,
        Compatibility::Backward,
    );
    let found = &both.unwrap()[0].differences[0];
    assert_eq!(found.why, "1 lets `sku` be absent, 1.1.0 requires it");
    assert!(found.advice.contains("major version"));
}

#[test]
fn a_raised_major_version_may_break_and_a_published_one_may_not_change() {
    let (open, strict) = (json!({}), json!({"required":["sku"]}));
    let raised = compare(&of(&[("1", &open), ("2", &strict)]), None, Compatibility::Full).unwrap();
    assert!(raised[0].allowed && !raised[0].is_broken() && !raised[0].differences.is_empty());

    let published = of(&[("1", &open), ("1.1", &open)]);
    let broken = |now: &Registry| -> Vec<(String, Option<String>)> {
        let all = compare(now, Some(&published), Compatibility::Backward).unwrap();
        all.into_iter().filter(Comparison::is_broken).map(|it| (it.from, it.to)).collect()
    };
    assert_eq!(broken(&published), []);
    let noted = json!({"title":"now with a title","x-mode":"observe","$comment":"…"});
    assert_eq!(broken(&of(&[("1", &noted), ("1.1", &open)])), []);
    assert_eq!(broken(&of(&[("1", &open), ("1.1", &strict)])).len(), 2, "changed, and no longer as 1");
    assert_eq!(broken(&of(&[("1", &open)])), [("x@1.1.0".to_owned(), None)]);
    assert_eq!(
        broken(&of(&[("1", &open), ("1.1", &open), ("1.2", &strict)])),
        [("x@1.1.0".to_owned(), Some("x@1.2.0".to_owned()))]
    );
    assert_eq!(broken(&of(&[("1", &open), ("1.1", &open), ("2", &strict)])), []);
}

#[test]
fn recursive_schemas_are_compared_too() {
    let tree = |leaf: Value| json!({"$defs":{"node":{"type":"object","properties":{"next":{"$ref":"#/$defs/node"},"n":leaf}}},"$ref":"#/$defs/node"});
    assert_eq!(
        told(Compatibility::Full, &tree(json!({"type":"integer"})), &tree(json!({"type":"integer"}))),
        []
    );
    assert!(
        !told(Compatibility::Backward, &tree(json!({"type":"integer"})), &tree(json!({"type":"string"})))
            .is_empty()
    );
}

/// Schemas over few names and values, so that they meet.
fn schema() -> impl Strategy<Value = Value> {
    let types = prop::sample::subsequence(
        vec!["string", "integer", "number", "null", "boolean", "object", "array"],
        1..4,
    );
    let leaf = prop_oneof![
        Just(json!(true)),
        Just(json!(false)),
        types.prop_map(|types| json!({"type": types})),
        prop::collection::vec(value(), 1..4).prop_map(|mut values| {
            values.dedup();
            json!({"enum": values})
        }),
        value().prop_map(|value| json!({"const": value})),
        (0..4_i64, 0..4_i64).prop_map(|(low, high)| json!({"minimum": low, "exclusiveMaximum": high})),
        (0..3_u64, 0..4_u64)
            .prop_map(|(low, high)| json!({"type": "string", "minLength": low, "maxLength": high})),
        prop::sample::select(vec!["^a", "b$", "^[ab]*$", "é"])
            .prop_map(|pattern| json!({"pattern": pattern})),
        (1..4_u64).prop_map(|of| json!({"type": "integer", "multipleOf": of})),
        Just(json!({"format": "date"})),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let some_name = || prop::sample::select(vec!["a", "b", "ab", "c"]);
        let named = prop::collection::btree_map(some_name().prop_map(str::to_owned), inner.clone(), 0..3);
        let list = prop::collection::vec(inner.clone(), 1..3);
        let required = prop::sample::subsequence(vec!["a", "b", "ab"], 0..3);
        prop_oneof![
            (named.clone(), required.clone())
                .prop_map(|(properties, required)| json!({"properties": properties, "required": required})),
            (named.clone(), inner.clone()).prop_map(
                |(properties, rest)| json!({"properties": properties, "additionalProperties": rest})
            ),
            (inner.clone(), inner.clone()).prop_map(
                |(one, rest)| json!({"patternProperties": {"^a": one}, "additionalProperties": rest})
            ),
            (list.clone(), inner.clone())
                .prop_map(|(first, rest)| json!({"prefixItems": first, "items": rest})),
            (inner.clone(), 0..3_u64)
                .prop_map(|(items, most)| json!({"type": "array", "items": items, "maxItems": most})),
            inner.clone().prop_map(|inner| json!({"contains": inner})),
            Just(json!({"uniqueItems": true})),
            (0..2_u64, 0..3_u64).prop_map(|(low, high)| json!({"minProperties": low, "maxProperties": high})),
            required.prop_map(|names| json!({"dependentRequired": {"a": names}})),
            inner.clone().prop_map(|inner| json!({"dependentSchemas": {"a": inner}})),
            inner.clone().prop_map(|inner| json!({"propertyNames": inner})),
            list.clone().prop_map(|list| json!({"allOf": list})),
            list.clone().prop_map(|list| json!({"anyOf": list})),
            list.prop_map(|list| json!({"oneOf": list})),
            inner.clone().prop_map(|inner| json!({"not": inner})),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| json!({"if": a, "then": b, "else": c})),
            (named, inner.clone()).prop_map(
                |(properties, rest)| json!({"properties": properties, "unevaluatedProperties": rest})
            ),
            inner.prop_map(|inner| json!({"$defs": {"d": inner}, "$ref": "#/$defs/d"})),
        ]
    })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1..5_i64).prop_map(Value::from),
        prop::sample::select(vec![0.5, 1.0, 2.5, -0.0]).prop_map(Value::from),
        prop::sample::select(vec!["", "a", "b", "ab", "é", "aab", "2024-01-01"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        let names = prop::sample::select(vec!["a", "b", "ab", "c"]).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(names, inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// The second grows out of the first by one edit, or has nothing to do with it.
fn schemas() -> impl Strategy<Value = (Value, Value)> {
    let under = |schema: Value| json!({"properties": {"a": schema}, "type": "object"});
    (schema(), schema(), 0..6_u8).prop_map(move |(one, other, edit)| match edit {
        0 => (under(one), under(other)),
        1 => (under(one.clone()), under(json!({"anyOf": [one, other]}))),
        2 => (under(json!({"allOf": [one, other]})), under(one)),
        3 => (under(one.clone()), under(json!({"not": {"not": one}}))),
        4 => (
            json!({"required": ["a"], "properties": {"a": one, "b": other}}),
            json!({"properties": {"a": one}}),
        ),
        _ => (one, other),
    })
}

fn fits(registry: &Registry, version: &str, metadata: &Value) -> bool {
    let schema = registry.schema(&EventType::new("x"), Some(version)).unwrap().unwrap();
    schema.check(Some(metadata)).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_called_compatible_is(
        (old, new) in schemas(),
        events in prop::collection::vec(prop::collection::btree_map(prop::sample::select(vec!["a", "b", "ab", "c"]), value(), 0..4), 40),
    ) {
        let texts = [serde_json::to_vec(&old).unwrap(), serde_json::to_vec(&new).unwrap()];
        // What bounds or the dialect refuse is no candidate.
        let Ok(registry) = registry(&[("x", "1", &texts[0]), ("x", "1.1", &texts[1])]) else { return Ok(()) };
        let backward = told_of(&registry, Compatibility::Backward);
        let forward = told_of(&registry, Compatibility::Forward);
        for event in events {
            let event = json!(event);
            let (in_old, in_new) = (fits(&registry, "1.0.0", &event), fits(&registry, "1.1.0", &event));
            prop_assert!(!backward || !in_old || in_new, "backward: {old} to {new}: {event}");
            prop_assert!(!forward || !in_new || in_old, "forward: {old} to {new}: {event}");
        }
    }
}

fn told_of(registry: &Registry, mode: Compatibility) -> bool {
    compare(registry, None, mode).unwrap().iter().all(|comparison| comparison.differences.is_empty())
}

#[test]
fn the_generated_schemas_are_often_proven_compatible_so_the_property_says_something() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut proven, mut tried) = (0, 0);
    for _ in 0..60 {
        let (old, new) = schemas().new_tree(&mut runner).unwrap().current();
        let texts = [serde_json::to_vec(&old).unwrap(), serde_json::to_vec(&new).unwrap()];
        let Ok(registry) = registry(&[("x", "1", &texts[0]), ("x", "1.1", &texts[1])]) else { continue };
        tried += 1;
        proven += usize::from(told_of(&registry, Compatibility::Backward));
    }
    assert!(tried > 40 && proven * 4 > tried, "{proven} of {tried}");
}
