//! The scanner and the splitter against `serde_json` and against each other.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn scan(text: &str) -> Result<Vec<Member<'_>>, Error> {
    object(text.as_bytes(), Limits::default())
}

fn fault(bytes: &[u8]) -> (&'static str, String) {
    let error = object(bytes, Limits::default()).expect_err(&String::from_utf8_lossy(bytes));
    assert!(error.at <= bytes.len(), "{error}");
    (error.code.as_str(), error.pointer)
}

fn events(body: &str) -> Vec<&str> {
    match split(body.as_bytes(), 100) {
        Ok(Body::Many { events, .. }) => {
            events.into_iter().map(|event| std::str::from_utf8(event).unwrap()).collect()
        }
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn members_keep_their_bytes_and_decode_their_names() {
    let members = scan(
        " { \"a\" : 1.50 ,\"\\u0062\\n\"\t:\r\n[ 1, {\"x\":2} ] , \"\":\"\\u00e9\",\"t\":true,\"n\":null,\"o\":{}} ",
    );
    // A name may not hold a line feed, however spelled.
    assert_eq!(members.unwrap_err().code, Code::JsonControlCharacter);
    let members = scan(" { \"a\" : 1.50 ,\"\\u0062\"\t:\r\n[ 1, {\"x\":2} ] , \"\":\"\\u00e9\",\"t\":true,\"n\":null,\"o\":{}} ").unwrap();
    let seen: Vec<_> =
        members.iter().map(|m| (m.name.as_ref(), std::str::from_utf8(m.value).unwrap(), m.kind)).collect();
    assert_eq!(
        seen,
        [
            ("a", "1.50", Kind::Number),
            ("b", "[ 1, {\"x\":2} ]", Kind::Array),
            ("", "\"\\u00e9\"", Kind::String),
            ("t", "true", Kind::Boolean),
            ("n", "null", Kind::Null),
            ("o", "{}", Kind::Object),
        ]
    );
    assert_eq!(members[2].text().as_deref(), Some("é"));
    assert_eq!(members[0].text(), None);
    assert_eq!(scan("{}").unwrap(), []);
}

#[test]
fn faults_name_their_code_and_the_innermost_place() {
    let deep = format!("{{\"m\":{}1{}}}", "[".repeat(40), "]".repeat(40));
    let digits = format!("{{\"m\":{{\"n\":[0,{}]}}}}", "9".repeat(400));
    let cases: &[(&str, &str, &str)] = &[
        (r#"{"m":{"t":"cut \ud83d"}}"#, "json.unicode", "/m/t"),
        (r#"{"m":{"t":"\ude00\ud83d"}}"#, "json.unicode", "/m/t"),
        (r#"{"m":{"t":"\n\u0041\ud83d\n"}}"#, "json.unicode", "/m/t"),
        (r#"{"m":{"t":"\ud83d\u0041"}}"#, "json.unicode", "/m/t"),
        (r#"{"m":{"\ud83d":1}}"#, "json.unicode", "/m"),
        (r#"{"a":1,"a":2}"#, "json.duplicate_name", "/a"),
        (r#"{"received_at":1,"recei\u0076ed_at":2}"#, "json.duplicate_name", "/received_at"),
        (r#"{"m":[{},{"a/b":{"x~":1,"y":[],"x~":1}}]}"#, "json.duplicate_name", "/m/1/a~1b/x~0"),
        (&deep, "json.depth", &format!("/m{}", "/0".repeat(31))),
        (&digits, "json.number", "/m/n/1"),
        (r#"{"m":{"q":1e400}}"#, "json.number", "/m/q"),
        (r#"{"m":{"q":-1e400}}"#, "json.number", "/m/q"),
        (r#"{"m":{"a\u0000b":1}}"#, "json.control_character", "/m"),
        ("{\"m\":{\"a\0b\":1}}", "json.control_character", "/m"),
        (r#"{"m":{"\u007f":1}}"#, "json.control_character", "/m"),
        ("{\"m\":{\"\u{85}\":1}}", "json.control_character", "/m"),
        ("{\"m\":\"a\nb\"}", "json.syntax", "/m"),
        ("{\"m\":\"a\0b\"}", "json.syntax", "/m"),
        (r#"{"m":"\x41"}"#, "json.syntax", "/m"),
        (r#"{"m":"\u12g4"}"#, "json.syntax", "/m"),
        (r#"{"m":"#, "json.syntax", "/m"),
        (r#"{"m":"abc"#, "json.syntax", "/m"),
        (r#"{"m":{"a":1"#, "json.syntax", "/m"),
        (r#"{"m":[1,2"#, "json.syntax", "/m"),
        (r#"{"m":[1,]}"#, "json.syntax", "/m/1"),
        (r#"{"m":01}"#, "json.syntax", ""),
        (r#"{"m":1.}"#, "json.syntax", "/m"),
        (r#"{"m":+1}"#, "json.syntax", "/m"),
        (r#"{"m":NaN}"#, "json.syntax", "/m"),
        (r#"{"m":-}"#, "json.syntax", "/m"),
        (r#"{"m":tru}"#, "json.syntax", "/m"),
        (r#"{"m":1,}"#, "json.syntax", ""),
        (r#"{"m" 1}"#, "json.syntax", "/m"),
        (r"{m:1}", "json.syntax", ""),
        (r#"{"m":1} x"#, "json.syntax", ""),
        (r#"{"m":1}}"#, "json.syntax", ""),
        ("", "json.syntax", ""),
        ("  ", "json.syntax", ""),
        ("[1,2]", "event.not_object", ""),
        ("null", "event.not_object", ""),
        ("\"text\"", "event.not_object", ""),
        ("12", "event.not_object", ""),
        ("[1,", "json.syntax", "/1"),
        ("\u{feff}{}", "json.syntax", ""),
    ];
    for (text, code, pointer) in cases {
        assert_eq!(fault(text.as_bytes()), (*code, (*pointer).to_owned()), "{text}");
    }
}

#[test]
fn bytes_that_are_no_utf8_are_told_where_they_stand() {
    for bytes in [&b"\xF0\x9F\x98"[..], b"ok \xFF", b"\xC0\x80", b"\xED\xA0\x80", b"a\\n\xE2\x82"] {
        let event = [b"{\"a\":1,\"metadata\":{\"title\":\"", bytes, b"\"},\"b\":2}"].concat();
        assert_eq!(fault(&event), ("json.unicode", "/metadata/title".to_owned()));
        let event = [b"{\"a\":1,\"metadata\":{\"", bytes, b"\":1}}"].concat();
        assert_eq!(fault(&event), ("json.unicode", "/metadata".to_owned()));
    }
    assert_eq!(fault(b"{\"a\":\xFF}"), ("json.unicode", "/a".to_owned()));
    assert_eq!(fault(b"\xFF\xFE{}"), ("json.unicode", String::new()));
}

#[test]
fn whole_pairs_escaped_backslashes_and_big_numbers_are_fine() {
    for text in [
        r#"{"t":"ok \ud83d\ude00"}"#,
        r#"{"t":"literal \\ud83d text"}"#,
        r#"{"t":"\u0000"}"#,
        r#"{"order":9007199254740993,"big":18446744073709551617,"f":9007199254740991.0,"z":-0.0,"e":1e2,"s":0.1}"#,
        r#"{"n":1e308,"m":1.7976931348623157e308,"k":1e-400,"z":0e9999999999}"#,
        r#"{"a":{"a":{"a":1}},"b":{"a":1}}"#,
        r#"{"$serde_json::private::Number":"7"}"#,
    ] {
        scan(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        serde_json::from_str::<Value>(text).unwrap();
    }
}

#[test]
fn depth_counts_the_outermost_object() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert!(scan(&nested(32)).is_ok());
    assert!(scan(&nested(33)).is_err());
    let unbounded = Limits { max_depth: usize::MAX };
    assert!(object(nested(DEEPEST).as_bytes(), unbounded).is_ok());
    assert!(serde_json::from_str::<Value>(&nested(DEEPEST)).is_ok());
    assert!(object(nested(DEEPEST + 1).as_bytes(), unbounded).is_err());
    assert!(object("[".repeat(1 << 20).as_bytes(), unbounded).is_err());
}

#[test]
fn a_name_is_found_twice_among_many_too() {
    for count in [1, 15, 16, 17, 18, 400] {
        let mut names: Vec<String> = (0..count).map(|n| format!("\"name{n}\":{n}")).collect();
        assert_eq!(scan(&format!("{{{}}}", names.join(","))).unwrap().len(), count);
        for twice in [0, count / 2, count - 1] {
            names.push(format!("\"n\\u0061me{twice}\":0"));
            assert_eq!(
                fault(format!("{{{}}}", names.join(",")).as_bytes()).0,
                "json.duplicate_name",
                "{count} {twice}"
            );
            names.pop();
        }
    }
}

#[test]
fn a_body_is_one_event_an_array_or_an_envelope() {
    assert_eq!(
        split(b"\xEF\xBB\xBF {\"event_type\":\"x\",\"events\":[1]} ", 9),
        Ok(Body::One(b"{\"event_type\":\"x\",\"events\":[1]}"))
    );
    for one in [
        "{}",
        r#"{"events":{}}"#,
        r#"{"events":[1],"event_type":"x"}"#,
        r#"{"event":[1]}"#,
        "{",
        r#"{"a"#,
        r#"{"a":[}"#,
    ] {
        assert_eq!(split(one.as_bytes(), 9), Ok(Body::One(one.as_bytes())), "{one}");
    }
    assert_eq!(events("[]"), [""; 0]);
    assert_eq!(
        events("\u{feff}[ {\"a\":\"]},\\\"\"} ,\n2 , [3,[4]],\"x\"]\n"),
        [r#"{"a":"]},\""}"#, "2", "[3,[4]]", "\"x\""]
    );
    for body in [
        r#"{"sent_at":17,"events":[{"a":1},{}],"x":[{}]}"#,
        r#"{"\u0065vents":[{"a":1},{}],"sent_at":17,"x":[{}]}"#,
    ] {
        let Ok(Body::Many { events, envelope }) = split(body.as_bytes(), 9) else { panic!("{body}") };
        assert_eq!(events, [&b"{\"a\":1}"[..], b"{}"]);
        let names: Vec<_> =
            envelope.iter().map(|member| (member.name.as_ref(), member.value, member.kind)).collect();
        assert_eq!(names, [("sent_at", &b"17"[..], Kind::Number), ("x", b"[{}]", Kind::Array)]);
    }
}

#[test]
fn a_body_that_cannot_be_split_is_refused() {
    for (body, code) in [
        ("", Code::BodyEmpty),
        (" \n", Code::BodyEmpty),
        ("\u{feff}", Code::BodyEmpty),
        ("hello", Code::BodySyntax),
        ("12", Code::BodySyntax),
        ("[{},{}", Code::BodySyntax),
        ("[{\"a\":\"", Code::BodySyntax),
        ("[{}] x", Code::BodySyntax),
        (r#"{"events":[{}"#, Code::BodySyntax),
        (r#"{"events":[{}]"#, Code::BodySyntax),
        (r#"{"events":[{}],"events":[{}]}"#, Code::BodySyntax),
        (r#"{"events":[{}],"sent_at":x}"#, Code::BodySyntax),
        (r#"{"events":[{}],"sent_at":1,"sent_at":2}"#, Code::BodySyntax),
        ("[1,2,3,4,5,6,7,8,9,10]", Code::BatchTooManyEvents),
    ] {
        assert_eq!(split(body.as_bytes(), 9).map_err(|error| error.code), Err(code), "{body}");
    }
}

#[test]
fn a_broken_event_costs_only_itself() {
    for broken in [
        r#"{"a":}"#,
        r#"{"a":1e400}"#,
        r#"{"a" 1}"#,
        r#"{"a":]}"#,
        r#"{"a":[}"#,
        r#"{"a":{"b":[1}"#,
        r#"{"a":{"b":1}"#,
        "}",
        "nul",
        "",
        r#"{"t":"\ud83d"}"#,
        "{\"t\":\"\0\"}",
    ] {
        let body = format!(r#"[{{"n":1}},{broken},{{"n":2}}]"#);
        assert_eq!(events(&body), [r#"{"n":1}"#, broken, r#"{"n":2}"#], "{body}");
        let body = format!(r#"{{"sent_at":1,"events":[{{"n":1}},{broken},{{"n":2}}]}}"#);
        assert_eq!(events(&body), [r#"{"n":1}"#, broken, r#"{"n":2}"#], "{body}");
    }
    for last in [r#"{"a":]}"#, r#"{"a":[}"#, r#"{"a":{"b":1}"#] {
        assert_eq!(events(&format!(r#"[{{"n":1}},{last}]"#)), [r#"{"n":1}"#, last]);
        assert_eq!(events(&format!(r#"{{"events":[{{"n":1}},{last}]}}"#)), [r#"{"n":1}"#, last]);
    }
}

#[test]
fn bodies_of_nothing_but_brackets_are_split_in_linear_time() {
    let size = 2 << 20;
    for body in [
        "[".repeat(size) + &"}".repeat(size),
        "[".to_owned() + &"{".repeat(size) + &"]".repeat(size),
        "[{,".repeat(size / 3),
    ] {
        // A quadratic pass would take hours here.
        let _ = split(body.as_bytes(), usize::MAX);
    }
}

#[test]
fn lines_skip_blanks_returns_and_a_byte_order_mark() {
    let found: Vec<&[u8]> = lines(b"\xEF\xBB\xBF{\"a\":1}\r\n\n  \n{\"b\":2}\n\xF0\x9F").collect();
    assert_eq!(found, [&b"{\"a\":1}"[..], b"{\"b\":2}", b"\xF0\x9F"]);
    assert_eq!(lines(b"").count(), 0);
}

/// JSON as a sender might write it: odd names, escapes, numbers of every size.
pub(crate) fn json_text(depth: u32) -> impl Strategy<Value = String> {
    let string = prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        r"[a-e~/é🐲]{0,9}".prop_map(|text| format!("\"{text}\"")),
        r#"(\\u00[0-9a-fA-F]{2}|\\ud83d\\ude0[0-9]|\\["\\/bfnrt]|[ -!#-Z]){0,6}"#
            .prop_map(|text| format!("\"{text}\"")),
    ];
    let leaf = prop_oneof![
        string,
        r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?",
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("null".to_owned()),
    ];
    leaf.prop_recursive(depth, 48, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(|items| format!("[{}]", items.join(" ,"))),
            object_text(inner),
        ]
    })
}

fn object_text(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let name = prop_oneof![
        r"[a-e]{1,3}",
        Just("\\u0061".to_owned()),
        r"[f-z ~/é🐲]{0,6}",
        Just("events".to_owned())
    ];
    prop::collection::vec((name, value), 0..20).prop_map(|members| {
        let members: Vec<_> =
            members.into_iter().map(|(name, value)| format!(" \"{name}\": {value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

/// Text that is nearly JSON: valid text with some bytes changed, taken out or put in.
fn damaged_text() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec(
        (
            any::<prop::sample::Index>(),
            0..3_u8,
            prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\u0e"[..])],
        ),
        0..4,
    );
    (object_text(json_text(3)), changes).prop_map(|(text, changes)| {
        let mut bytes = text.into_bytes();
        for (index, change, byte) in changes {
            let at = index.index(bytes.len() + 1);
            match change {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ if at < bytes.len() => bytes[at] = byte,
                _ => {}
            }
        }
        bytes
    })
}

fn agrees_with_serde_json(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(members) = object(bytes, Limits { max_depth: DEEPEST }) else { return Ok(()) };
    let tree: Value =
        serde_json::from_slice(bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let tree = tree.as_object().ok_or_else(|| TestCaseError::fail("not an object"))?;
    prop_assert_eq!(tree.len(), members.len());
    for member in &members {
        let value: Value = serde_json::from_slice(member.value).unwrap();
        prop_assert_eq!(tree.get(member.name.as_ref()), Some(&value));
        let kind = match value {
            Value::Object(_) => Kind::Object,
            Value::Array(_) => Kind::Array,
            Value::String(_) => Kind::String,
            Value::Number(_) => Kind::Number,
            Value::Bool(_) => Kind::Boolean,
            Value::Null => Kind::Null,
        };
        prop_assert_eq!(member.kind, kind);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_serde_json_reads_to_the_same_members(bytes in damaged_text()) {
        agrees_with_serde_json(&bytes)?;
    }

    #[test]
    fn what_serde_json_writes_is_accepted(names in prop::collection::btree_map("[a-z~/\u{7f}-\u{10f}]{0,9}", json_text(2), 0..30)) {
        // Through a tree, so that every name is there once, and refused numbers and names are left out.
        let tree: Value = names.iter().filter_map(|(name, text)| Some((name.clone(), serde_json::from_str(text).ok()?))).collect::<serde_json::Map<_, _>>().into();
        let text = serde_json::to_vec(&tree).unwrap();
        match object(&text, Limits { max_depth: DEEPEST }) {
            Ok(members) => prop_assert_eq!(members.len(), tree.as_object().unwrap().len()),
            Err(error) => prop_assert_eq!(error.code, Code::JsonControlCharacter, "{}", error),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        agrees_with_serde_json(&bytes)?;
        let _ = split(&bytes, 10);
        let _ = lines(&bytes).count();
    }

    #[test]
    fn arbitrary_brackets_never_panic(text in "[\\[\\]{}\",: \\\\a1]{0,60}") {
        agrees_with_serde_json(text.as_bytes())?;
        let _ = split(text.as_bytes(), 10);
    }

    #[test]
    fn a_joined_array_is_split_into_its_elements(elements in prop::collection::vec(json_text(3), 0..12), space in "[ \t\r\n]{0,2}") {
        let body = format!("{space}[{space}{}{space}]{space}", elements.join(&format!("{space},{space}")));
        prop_assert_eq!(events(&body), elements.iter().map(String::as_str).collect::<Vec<_>>());
        let body = format!("{{\"sent_at\":1,\"events\":[{}]{space}}}", elements.join(","));
        prop_assert_eq!(events(&body), elements);
    }

    #[test]
    fn plain_runs_end_at_the_first_special_byte(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x18..0x28_u8, Just(0x5c)], 0..40)) {
        let expected = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(bytes.len());
        prop_assert_eq!(plain(&bytes), expected);
    }
}
