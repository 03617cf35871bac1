//! Each rule of design §3, one by one.

use proptest::prelude::*;
use schemas::event::LoggedEvent;

use super::*;
use crate::authenticate::{Credential, Keys};
use crate::testing::keyring;
use crate::testing::{NOW, TestEntropy, keys};

struct Fixture {
    config: GatewayConfig,
    schemas: Registry,
    keys: Keys,
    entropy: TestEntropy,
    kill: KillRules,
}

impl Fixture {
    fn new() -> Self {
        Self {
            config: GatewayConfig::default(),
            schemas: Registry::builtin(),
            keys: keyring(&keys()).unwrap(),
            entropy: TestEntropy::default(),
            kill: KillRules::default(),
        }
    }

    fn judge_as(&self, key: &str, sent_at: SentAt, event: &[u8]) -> Result<Checked, Refusal> {
        let key = self.keys.admit(&Credential::in_hello(key), None).unwrap();
        let judge = Judge {
            config: &self.config,
            schemas: &self.schemas,
            kill: &self.kill,
            key: &key,
            entropy: &self.entropy,
            received_at: NOW,
            sent_at,
            signals: crate::consent::Signals::default(),
        };
        judge.judge(event, &mut Tape::default())
    }

    fn judge(&self, event: &str) -> Result<Checked, Refusal> {
        self.judge_as("wk_dev", SentAt::Absent, event.as_bytes())
    }
}

/// A custom event of user `u` with these members more.
fn with(members: &str) -> String {
    format!(r#"{{"event_type":"x_custom","user_id":"u",{members}}}"#)
}

fn refused(event: &str) -> (Code, Option<String>) {
    let refusal = Fixture::new().judge(event).expect_err(event);
    assert_eq!(refusal.status, Status::Rejected);
    (refusal.reason.code, refusal.reason.pointer)
}

fn taken(event: &str) -> Checked {
    Fixture::new().judge(event).unwrap_or_else(|refusal| panic!("{event}: {:?}", refusal.reason))
}

fn warnings(checked: &Checked) -> Vec<(&str, Option<&str>)> {
    checked.warnings.iter().map(|warning| (warning.code.as_str(), warning.pointer.as_deref())).collect()
}

#[test]
fn the_example_of_the_design_is_taken_as_it_stands() {
    let event = r#"{"event_id":"123e4567-e89b-12d3-a456-426614174000","event_type":"add_to_cart","user_id":"user_789",
        "timestamp":"2024-04-25T14:23:05.123Z","metadata":{"product_id":"product_456","quantity":2}}"#;
    let checked = taken(event);
    assert_eq!(checked.event_id.to_string(), "123e4567-e89b-12d3-a456-426614174000");
    assert_eq!(checked.schema.as_deref(), Some("add_to_cart@1"));
    assert_eq!(checked.profile.to_string(), "user:user_789");
    assert_eq!(checked.occurred_at.to_string(), "2024-04-25T14:23:05.123Z");
    assert!(checked.warnings.is_empty() && checked.original_event_id.is_none());
}

#[test]
fn an_id_is_minted_read_in_any_spelling_or_derived() {
    let minted = taken(&with(r#""metadata":{}"#)).event_id;
    assert_eq!(minted.as_bytes()[6] >> 4, 7, "version 7");
    assert_ne!(
        minted,
        Fixture::new()
            .judge_as("wk_dev", SentAt::Absent, b"{}")
            .err()
            .map_or(minted, |_| EventId::from_bytes([0; 16]))
    );
    let spelled = taken(&with(r#""event_id":"{123E4567-E89B-12D3-A456-426614174000}""#));
    assert_eq!(spelled.event_id.to_string(), "123e4567-e89b-12d3-a456-426614174000");
    let foreign = taken(&with(r#""event_id":"order-1001""#));
    assert_eq!(foreign.event_id, EventId::foreign(&schemas::id::SourceName::new("web"), None, "order-1001"));
    assert_eq!(foreign.original_event_id.as_deref(), Some("order-1001"));
    assert_eq!(warnings(&foreign), [(WARN_FOREIGN_ID, Some("/event_id"))]);
    for value in ["7", "{}", "true", "\"\"", "\" \""] {
        let right = (Code::EventFieldInvalid, Some("/event_id".to_owned()));
        assert_eq!(refused(&with(&format!("\"event_id\":{value}"))), right, "{value}");
    }
    assert_eq!(refused(&with(r#""event_id":"a\u0000b""#)).0, Code::JsonControlCharacter);
    assert!(taken(&with(r#""event_id":null"#)).original_event_id.is_none());
}

#[test]
fn a_type_is_one_to_128_bytes_without_our_prefix() {
    let of_type = |value: &str| format!(r#"{{"event_type":{value},"user_id":"u"}}"#);
    let at = Some("/event_type".to_owned());
    assert_eq!(refused(r#"{"user_id":"u"}"#), (Code::EventFieldMissing, at.clone()));
    for value in ["7", "\"\"", &format!("\"{}\"", "é".repeat(65))] {
        assert_eq!(refused(&of_type(value)), (Code::EventFieldInvalid, at.clone()), "{value}");
    }
    assert_eq!(refused(&of_type("\"rivulet.merge\"")), (Code::EventTypeReserved, at.clone()));
    assert_eq!(refused(&of_type("\"rivulet\\u002emerge\"")), (Code::EventTypeReserved, at.clone()));
    assert_eq!(refused(&of_type("\"a\\u0000\"")), (Code::JsonControlCharacter, at));
    assert_eq!(taken(&of_type(&format!("\"{}\"", "é".repeat(64)))).event_type.as_str().len(), 128);
}

#[test]
fn ids_that_mean_nobody_count_as_absent_with_a_warning() {
    let of = |members: &str| format!(r#"{{"event_type":"x_custom",{members}}}"#);
    for nobody in ["\"null\"", "\" \"", "0", "\"[object Object]\"", "[]", "{}", "true", "\"\""] {
        let checked = taken(&of(&format!(r#""user_id":{nobody},"anonymous_id":"a""#)));
        assert_eq!(checked.profile.to_string(), "anonymous:a", "{nobody}");
        assert_eq!(warnings(&checked), [(WARN_NOBODY, Some("/user_id"))], "{nobody}");
    }
    assert!(warnings(&taken(&of(r#""user_id":null,"anonymous_id":"a""#))).is_empty());
    assert_eq!(refused(&of(r#""user_id":"undefined","anonymous_id":0"#)), (Code::IdentityMissing, None));
    assert_eq!(refused(r#"{"event_type":"x_custom"}"#).0, Code::IdentityMissing);
    assert_eq!(taken(&of(r#""user_id":12345"#)).profile.to_string(), "user:12345");
    let digits = taken(&of(r#""user_id":9007199254740993"#)).profile.to_string();
    assert_eq!(digits, "user:9007199254740993");
}

#[test]
fn ids_hold_no_control_characters_and_at_most_512_bytes() {
    for member in ["user_id", "anonymous_id"] {
        let of = |id: &str| format!(r#"{{"event_type":"x_custom","{member}":"{id}"}}"#);
        let at = Some(format!("/{member}"));
        assert_eq!(refused(&of("a\\u0000b")), (Code::JsonControlCharacter, at.clone()));
        assert_eq!(refused(&of("a\\nb")), (Code::JsonControlCharacter, at.clone()));
        assert_eq!(refused(&of(&"x".repeat(513))), (Code::EventFieldInvalid, at));
        assert_eq!(taken(&of(&"x".repeat(512))).profile.id.len(), 512);
    }
}

#[test]
fn a_time_is_read_corrected_by_the_senders_clock_and_never_lies_in_the_future() {
    let at = |value: &str| with(&format!("\"timestamp\":{value}"));
    assert_eq!(taken(&with(r#""metadata":{}"#)).occurred_at, NOW);
    assert_eq!(taken(&at("1711845000")).occurred_at.to_string(), "2024-03-31T00:30:00.000Z");
    for value in ["0", "-1", "\"2024-02-30T00:00:00Z\"", "\"\"", "true", "{}", "\"275760-09-13T00:00:00Z\""] {
        let right = (Code::EventFieldInvalid, Some("/timestamp".to_owned()));
        assert_eq!(refused(&at(value)), right, "{value}");
    }
    let hour = 3_600_000;
    let clamped = taken(&at(&NOW.plus_millis(hour).as_millis().to_string()));
    assert_eq!(clamped.occurred_at, NOW.plus_millis(60_000));
    assert_eq!(clamped.clamped_from, Some(NOW.plus_millis(hour)));
    assert_eq!(warnings(&clamped), [(WARN_CLAMPED, Some("/timestamp"))]);
    assert!(taken(&at(&NOW.plus_millis(60_000).as_millis().to_string())).clamped_from.is_none());

    let fixture = Fixture::new();
    let fast = at(&NOW.plus_millis(hour - 5_000).as_millis().to_string());
    let sent_at = SentAt::At(NOW.plus_millis(hour));
    let checked = fixture.judge_as("wk_dev", sent_at, fast.as_bytes()).unwrap();
    assert_eq!(checked.occurred_at, NOW.plus_millis(-5_000));
    let checked = fixture.judge_as("wk_dev", SentAt::Unreadable, at("1711845000").as_bytes()).unwrap();
    assert_eq!(checked.occurred_at.to_string(), "2024-03-31T00:30:00.000Z");
    assert_eq!(warnings(&checked), [(WARN_SENT_AT, Some("/timestamp"))]);
    // A correction that would move the time out of what is believed is not made.
    let checked =
        fixture.judge_as("wk_dev", SentAt::At(Timestamp(253_402_300_799_000)), at("1711845000").as_bytes());
    assert_eq!(checked.unwrap().occurred_at.to_string(), "2024-03-31T00:30:00.000Z");
}

#[test]
fn unknown_members_are_kept_with_a_warning_and_receipt_is_refused_in_any_spelling() {
    let checked = taken(&with(r#""received_at":"1999-01-01T00:00:00Z","source":"admin","a/b~":1"#));
    let right = [
        (WARN_UNKNOWN_FIELD, Some("/received_at")),
        (WARN_UNKNOWN_FIELD, Some("/source")),
        (WARN_UNKNOWN_FIELD, Some("/a~1b~0")),
    ];
    assert_eq!(warnings(&checked), right);
    for name in ["receipt", "rec\\u0065ipt", "Receipt", "RECEIPT"] {
        let right = (Code::EventReservedField, Some("/receipt".to_owned()));
        assert_eq!(refused(&with(&format!("\"{name}\":{{}}"))), right, "{name}");
    }
    assert!(warnings(&taken(&with(r#""metadata":{"receipt":1}"#))).is_empty());
    let many: Vec<String> = (0..20).map(|n| format!("\"m{n}\":1")).collect();
    assert_eq!(taken(&with(&many.join(","))).warnings.len(), MAX_WARNINGS);
}

#[test]
fn members_of_the_wrong_kind_are_refused_by_pointer() {
    for (name, value) in [
        ("metadata", "[]"),
        ("metadata", "\"x\""),
        ("context", "1"),
        ("consent", "true"),
        ("session_id", "{}"),
        ("session_id", "12"),
        ("schema", "[]"),
    ] {
        let right = (Code::EventFieldInvalid, Some(format!("/{name}")));
        assert_eq!(refused(&with(&format!("\"{name}\":{value}"))), right, "{name}: {value}");
    }
    taken(&with(r#""metadata":null,"context":null,"consent":null,"session_id":null,"schema":null"#));
}

#[test]
fn json_faults_are_named_with_their_place() {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let too_large = with(&format!("\"metadata\":{{\"s\":\"{}\"}}", "x".repeat(70_000)));
    for (event, code) in [
        (with(&format!("\"metadata\":{{\"a\":{deep}}}")), Code::JsonDepth),
        (with(r#""metadata":{"a":1,"\u0061":2}"#), Code::JsonDuplicateName),
        (with(&format!("\"metadata\":{{\"n\":{}}}", "9".repeat(400))), Code::JsonNumber),
        (with(r#""metadata":{"n":1e400}"#), Code::JsonNumber),
        (with(r#""metadata":{"s":"\ud83d"}"#), Code::JsonUnicode),
        (with(r#""metadata":{"a\u0000b":1}"#), Code::JsonControlCharacter),
        (with(r#""metadata":{"a":nul}"#), Code::JsonSyntax),
        ("7".to_owned(), Code::EventNotObject),
        (too_large, Code::EventTooLarge),
    ] {
        assert_eq!(refused(&event).0, code, "{event:.80}");
    }
}

#[test]
fn a_refused_event_names_its_id_even_when_it_cannot_be_scanned() {
    let id = "123e4567-e89b-12d3-a456-426614174000";
    let fixture = Fixture::new();
    let large = format!(r#"{{"event_id":"{id}","x":"{}"}}"#, "x".repeat(70_000));
    for event in
        [format!(r#"{{"event_id":"{id}","x":nul}}"#), large, format!(r#"{{"x":1,"x":1,"event_id":"{id}"}}"#)]
    {
        let refusal = fixture.judge(&event).unwrap_err();
        assert_eq!(refusal.event_id.unwrap().to_string(), id);
    }
    let foreign = fixture.judge(r#"{"event_id":"o-1","x":nul}"#).unwrap_err().event_id;
    assert_eq!(foreign, Some(taken(&with(r#""event_id":"o-1""#)).event_id));
    assert_eq!(fixture.judge("nul").unwrap_err().event_id, None);
}

#[test]
fn a_schema_judges_metadata_and_its_verdict_names_the_field() {
    let cart = |metadata: &str, more: &str| {
        format!(r#"{{"event_type":"add_to_cart","user_id":"u","metadata":{metadata}{more}}}"#)
    };
    let refusal = Fixture::new().judge(&cart(r#"{"product_id":"p","quantity":"two"}"#, "")).unwrap_err();
    assert_eq!(refusal.reason.code, Code::SchemaInvalid);
    assert_eq!(refusal.reason.pointer.as_deref(), Some("/metadata/quantity"));
    assert_eq!(refusal.reason.keyword.as_deref(), Some("type"));
    assert_eq!(refusal.reason.schema.as_deref(), Some("add_to_cart@1"));
    assert!(refusal.event_type.is_some());
    let good = r#"{"product_id":"p","quantity":2}"#;
    for pinned in ["\"add_to_cart@1\"", "\"1\"", "1"] {
        let checked = taken(&cart(good, &format!(",\"schema\":{pinned}")));
        assert_eq!(checked.schema.as_deref(), Some("add_to_cart@1"), "{pinned}");
    }
    assert_eq!(refused(&cart(good, r#","schema":"add_to_cart@999""#)).0, Code::SchemaVersionUnknown);
}

#[test]
fn a_type_without_schema_is_up_to_the_key() {
    let fixture = Fixture::new();
    let event = br#"{"event_type":"unheard_of","user_id":"u"}"#;
    let outcome = |key| {
        let judged = fixture.judge_as(key, SentAt::Absent, event);
        judged.map(|checked| checked.schema).map_err(|refusal| (refusal.status, refusal.reason.code))
    };
    assert_eq!(outcome("wk_dev"), Ok(None));
    assert_eq!(outcome("sk_careful"), Err((Status::Quarantined, Code::SchemaUnknown)));
    assert_eq!(outcome("sk_strict"), Err((Status::Rejected, Code::SchemaUnknown)));
    let refusal = fixture.judge_as("sk_strict", SentAt::Absent, br#"{"event_type":"signup","user_id":"u"}"#);
    assert_eq!(refusal.unwrap_err().reason.code, Code::EventTypeNotAllowed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_and_what_is_taken_is_read_back_the_same(
        bytes: Vec<u8>,
        id in "[^\"\\\\\\p{C}]{1,20}",
        time in "[0-9TZ:.+ -]{0,24}",
        value in "(null|true|1e3|\"x\"|\\{\\}|\\[1\\])",
    ) {
        let fixture = Fixture::new();
        let _ = fixture.judge_as("wk_dev", SentAt::Absent, &bytes);
        let event = format!(
            r#" {{"event_type":"x_custom","user_id":"{id}","anonymous_id":{value},"timestamp":"{time}","more":{value}}} "#
        );
        if let Ok(checked) = fixture.judge(&event) {
            let receipt = schemas::receipt::Receipt {
                event_id: checked.event_id,
                received_at: NOW,
                occurred_at: checked.occurred_at,
                source: schemas::id::SourceName::new("web"),
                schema: None,
                trust: schemas::receipt::Trust::Public,
                ip: None,
                user_agent: None,
                original_event_id: None,
                clamped_from: checked.clamped_from,
                schema_fault: None,
                redacted: Vec::new(),
            };
            let record = receipt.splice(event.as_bytes());
            let logged = LoggedEvent::read(&record, json::Limits::default()).unwrap();
            prop_assert_eq!(logged.profile_key(), Some(checked.profile));
            prop_assert!(checked.occurred_at <= NOW.plus_millis(FUTURE_TOLERANCE_MS));
        }
    }
}
