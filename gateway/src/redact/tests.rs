//! What remains of an event, and that nothing else of it changes.

use std::sync::Arc;

use broker::clock::TestClock;
use proptest::prelude::*;
use schemas::json::DEEPEST;
use serde_json::{Value, json};

use super::*;
use crate::authenticate::{Credential, Keys};
use crate::config::{KeyConfig, KeyKind, RedactConfig};
use crate::testing::NOW;

const SECRET: &str = "0123456789abcdef";

fn keep_with(pointers: &[(&str, PiiAction)], event: &[u8]) -> Kept {
    let redact = pointers
        .iter()
        .map(|(pointer, action)| RedactConfig { pointer: (*pointer).to_owned(), action: *action });
    let key = KeyConfig { redact: redact.collect(), ..KeyConfig::new("web", "wk_dev", KeyKind::Public) };
    let keys = Keys::new(&[key], Arc::new(TestClock::new(NOW))).unwrap();
    let key = keys.admit(&Credential::in_hello("wk_dev"), None).unwrap();
    let redactor = Redactor {
        schemas: &Registry::builtin(),
        key: &key,
        secret: Some(SECRET),
        limits: Limits { max_depth: DEEPEST },
    };
    redactor.keep(event, Some(&EventType::new("x")), false)
}

fn redact(pointers: &[(&str, PiiAction)], event: &str) -> (String, Vec<String>) {
    match keep_with(pointers, event.as_bytes()) {
        Kept::AsSent => (event.to_owned(), Vec::new()),
        Kept::Redacted { bytes, pointers } => (String::from_utf8(bytes).unwrap(), pointers),
        Kept::DigestOnly => panic!("{event} can be read"),
    }
}

#[test]
fn members_are_dropped_with_one_comma_each_and_nothing_else_changes() {
    use PiiAction::Drop;
    for (event, right) in [
        (r#"{"metadata":{"a":1,"b":2,"c":3}}"#, r#"{"metadata":{"b":2}}"#),
        (r#"{"metadata":{"a":1,"c":3,"b":2}}"#, r#"{"metadata":{"b":2}}"#),
        (r#"{"metadata":{"b":2,"a":1,"c":{"x":[1,"}"]}}}"#, r#"{"metadata":{"b":2}}"#),
        (r#"{"metadata":{"a":1,"c":2}}"#, r#"{"metadata":{}}"#),
        (
            r#"{"metadata":{ "a" : 1 , "b" : 9007199254740993 , "c" : 3 } , "z":-0.0}"#,
            r#"{"metadata":{ "b" : 9007199254740993 } , "z":-0.0}"#,
        ),
        ("{\"metadata\":{\"\\u0061\":\"x\",\"b\":\"\\\"\"}}", "{\"metadata\":{\"b\":\"\\\"\"}}"),
        (r#"{"metadata":{"b":{"a":1}}}"#, r#"{"metadata":{"b":{"a":1}}}"#),
        (r#" {"metadata" : null, "a":1}"#, r#" {"metadata" : null, "a":1}"#),
    ] {
        let (kept, pointers) = redact(&[("/metadata/a", Drop), ("/metadata/c", Drop)], event);
        assert_eq!(kept, right);
        assert_eq!(pointers.is_empty(), kept == event);
    }
    let (kept, _) = redact(&[("/context", Drop)], r#"{"context":{"ip":1},"metadata":{}}"#);
    assert_eq!(kept, r#"{"metadata":{}}"#);
}

#[test]
fn values_are_hashed_by_their_text_and_masked_whatever_they_are() {
    let hash = |value: &str| {
        let (kept, _) =
            redact(&[("/metadata/a", PiiAction::Hash)], &format!(r#"{{"metadata":{{"a":{value}}}}}"#));
        serde_json::from_str::<Value>(&kept).unwrap()["metadata"]["a"].clone()
    };
    assert_eq!(hash("\"jo@shop.example\""), hash("\"jo\\u0040shop.example\""));
    assert_ne!(hash("\"jo@shop.example\""), hash("\"Jo@shop.example\""));
    assert!(hash("[1,2]").as_str().unwrap().starts_with("hmac-sha256:"));
    assert_eq!(hash("null"), Value::Null);
    let again = hash("\"jo@shop.example\"").to_string();
    assert_eq!(hash(&again).to_string(), again, "an event out of quarantine");
    let (kept, pointers) = redact(
        &[("/metadata/list/*/mail", PiiAction::Mask), ("/metadata/list/0", PiiAction::Drop)],
        r#"{"metadata":{"list":[{"mail":"x"}, {"mail":["x",{"y":1}],"n":1e2}, 7]}}"#,
    );
    assert_eq!(kept, r#"{"metadata":{"list":[null, {"mail":"***","n":1e2}, 7]}}"#);
    assert_eq!(pointers, ["/metadata/list/0", "/metadata/list/1/mail"]);
}

#[test]
fn what_cannot_be_read_keeps_nothing_and_routing_cannot_be_redacted() {
    let mask = [("/metadata/a", PiiAction::Mask)];
    for event in [&b"{\"metadata\":{\"a\":\"x\""[..], b"\xff", b"", br#"{"metadata":{"a":1,"a":2}}"#, b"[]"] {
        assert_eq!(keep_with(&mask, event), Kept::DigestOnly);
    }
    for pointer in ["metadata/a", "", "/user_id", "/event_id/x", "/receipt/ip", "/*/a", "/timestamp"] {
        let entry = RedactConfig { pointer: pointer.to_owned(), action: PiiAction::Drop };
        assert!(Pointers::new(&[entry]).is_err(), "{pointer}");
    }
}

/// JSON text with white space and escapes as a sender may write them.
fn text(depth: u32) -> impl Strategy<Value = String> {
    let space = || prop::sample::select(vec!["", " ", "\n", "\t "]);
    let name = || prop::sample::select(vec!["a", "b", "\\u0061b", "c\\\"", "é"]);
    let leaf = prop::sample::select(vec![
        "1",
        "-0.0",
        "\"secret\"",
        "\"s\\u0065cret\"",
        "null",
        "true",
        "\"}],{\"",
        "{}",
        "[]",
        "12345678901234567890",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(depth, 24, 4, move |inner| {
        let member = (name(), space(), space(), inner.clone(), space());
        prop_oneof![
            prop::collection::vec(member, 0..4).prop_map(|members| {
                let mut seen = std::collections::HashSet::new();
                let members = members.into_iter().filter(|(name, ..)| seen.insert(*name));
                let members: Vec<String> =
                    members.map(|(name, a, b, value, c)| format!("{a}\"{name}\"{b}:{a}{value}{c}")).collect();
                format!("{{{}}}", members.join(","))
            }),
            (prop::collection::vec(inner, 0..3), space())
                .prop_map(|(items, space)| format!("[{space}{}]", items.join(&format!("{space},")))),
        ]
    })
}

/// The same on a tree.
fn plainly(value: &mut Value, path: &[&str], action: PiiAction) {
    let Some((step, rest)) = path.split_first() else { return };
    let replace = |value: &mut Value| {
        if !value.is_null() {
            *value = json!("***");
        }
    };
    match value {
        Value::Object(members) => {
            let names: Vec<String> =
                members.keys().filter(|name| *step == "*" || name == step).cloned().collect();
            for name in names {
                if !rest.is_empty() {
                    plainly(&mut members[&name], rest, action);
                } else if action == PiiAction::Drop {
                    members.remove(&name);
                } else {
                    replace(&mut members[&name]);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in
                items.iter_mut().enumerate().filter(|(index, _)| *step == "*" || index.to_string() == *step)
            {
                let _ = index;
                if !rest.is_empty() {
                    plainly(item, rest, action);
                } else if action == PiiAction::Drop {
                    *item = Value::Null;
                } else {
                    replace(item);
                }
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_are_spliced_read_as_a_tree_that_was_changed(
        value in text(4),
        path in prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "c\"", "é", "*", "0", "1"]), 1..4),
        action in prop::sample::select(vec![PiiAction::Mask, PiiAction::Drop]),
    ) {
        let event = format!("{{\"n\":1.50,\"metadata\":{value}}}");
        prop_assume!(json::object(event.as_bytes(), Limits { max_depth: DEEPEST }).is_ok());
        let pointer = format!("/metadata/{}", path.join("/"));
        let (kept, pointers) = redact(&[(&pointer, action)], &event);
        let read: Value = serde_json::from_str(&kept).map_err(|error| TestCaseError::fail(format!("{error}: {kept}")))?;
        let mut right: Value = serde_json::from_str(&event).unwrap();
        let steps: Vec<&str> = ["metadata"].into_iter().chain(path.iter().copied()).collect();
        plainly(&mut right, &steps, action);
        prop_assert_eq!(&read, &right, "{} of {}", pointer, event);
        let untouched = kept.starts_with("{\"n\":1.50,");
        prop_assert!(untouched);
        prop_assert_eq!(pointers.is_empty(), kept == event);
    }
}
