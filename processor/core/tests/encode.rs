//! A profile's stored bytes: what was written once is read for good, and no profile grows without end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod support;

use std::fmt::Write as _;
use std::sync::LazyLock;

use processor_core::enrich::user_agent;
use processor_core::profile::bound::MAX_PROFILE_BYTES;
use processor_core::profile::encode::{self, VERSION, decode, encode};
use processor_core::session::Settings;
use processor_core::*;
use proptest::prelude::*;
use schemas::event::LoggedEvent;
use schemas::json::Limits;
use schemas::receipt::Trust;
use schemas::time::Timestamp;
use support::*;

/// Written by version 1.
const JSON_1: &str = include_str!("fixtures/profile.1.json");
/// Written by version 2, in hexadecimal digits.
const HEX_2: &str = include_str!("fixtures/profile.2.hex");

const RULES: &str = r#"
rules:
  - name: category_interest
    on: product_view
    when: { count: product_view, by: metadata.category, within: 30m, at_least: 2 }
    unless: { event: purchase, within: 1ms }
    cooldown: 24h
    decide: { slot: home_banner }
  - name: reminder
    on: page_view
    when: { count: add_to_cart, within: 24h, at_least: 1 }
    decide: { slot: cart, payload: { url: "{metadata.url}" } }
last_values:
  - { name: order, from: metadata.order }
"#;

fn program(rules: &str) -> Program {
    Program {
        rules: Ruleset::parse(rules, "rules.yaml").unwrap(),
        model: Model::parse(br#"{"bias":-2,"features":[{"name":"counter.product_view","weight":0.4}]}"#)
            .unwrap(),
        sessions: Settings::default(),
    }
}

/// A profile with something in every field but the redirect.
fn rich() -> Profile {
    let (program, mut profile) = (program(RULES), user("ü:1"));
    let heads = [
        r#""event_type":"page_view","metadata":{"url":"/?utm_source=mail&utm_campaign=may"}"#,
        r#""event_type":"product_view","metadata":{"category":"shoes","order":9007199254740993}"#,
        r#""event_type":"product_view","metadata":{"category":"shoes"},"context":{"campaign":{"medium":"cpc"}}"#,
        r#""event_type":"purchase","metadata":{"revenue":-0.000000001}"#,
        r#""event_type":"identify","anonymous_id":"a1","metadata":{"traits":{"big":18446744073709551617,"gone":null}}"#,
    ];
    for (n, head) in (0..).zip(heads) {
        let at = NOON + i64::from(n) * 40 * MINUTE / 10;
        let record = bytes(n, at, &format!(r#""user_id":"ü:1",{head}"#), Trust::Public);
        let event = LoggedEvent::read(&record, Limits::default()).unwrap();
        let mut input = EventInput::new(&event);
        input.enrichment.user_agent =
            user_agent::parse("Mozilla/5.0 (X11; Linux x86_64) Chrome/131.0.0.0 Safari/537.36");
        step(&program, &mut profile, Input::Event(&input), Timestamp(at));
    }
    assert!(!profile.decisions.is_empty() && !profile.moments.is_empty() && !profile.awaited.is_empty());
    assert!(profile.user_agent.is_some() && profile.campaign_first != profile.campaign_last);
    profile
}

#[test]
fn a_profile_of_the_version_before_is_read_and_written_as_the_present_one() {
    let old = decode(&[&[1], JSON_1.trim().as_bytes()].concat()).unwrap();
    let mut right = rich();
    // Fields that version 1 did not have begin empty.
    (right.moments, right.awaited, right.deferred) = Default::default();
    assert_eq!(old, right);
    let present = encode(&old);
    assert_eq!((present[0], decode(&present).unwrap()), (VERSION, old));
}

#[test]
fn the_present_version_is_these_bytes() {
    let hex = encode(&rich()).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    assert_eq!(hex, HEX_2.trim(), "another form of bytes is another version");
    let json = serde_json::to_vec(&rich()).unwrap().len();
    assert!(rich().at_most() >= encode::size(&rich()) && user("u").at_most() >= encode::size(&user("u")));
    assert!(hex.len() / 2 * 2 < json, "{} bytes, {json} as JSON", hex.len() / 2);
}

#[test]
fn a_version_to_come_and_damage_are_refused() {
    let whole = encode(&rich());
    for version in [0, VERSION + 1, 255] {
        let other = [&[version], &whole[1..]].concat();
        assert!(matches!(decode(&other), Err(encode::DecodeError::Version(Some(v))) if v == version));
    }
    assert!(matches!(decode(&[]), Err(encode::DecodeError::Version(None))));
    for end in 1..whole.len() {
        assert!(decode(&whole[..end]).is_err(), "cut at {end}");
    }
    assert!(decode(&[&whole[..], &[0]].concat()).is_err());
}

#[test]
fn a_history_travels_as_bytes_and_that_of_the_version_before_is_read() {
    let control =
        Control::Absorb { from: key("anonymous:a1"), into: key("user:u1"), state: Box::new(rich()), hops: 1 };
    let text = serde_json::to_string(&control).unwrap();
    assert_eq!(serde_json::from_str::<Control>(&text).unwrap(), control);
    let old = format!(
        r#"{{"kind":"absorb","from":"anonymous:a1","into":"user:u1","state":{},"hops":1}}"#,
        JSON_1.trim()
    );
    let Control::Absorb { state, .. } = serde_json::from_str(&old).unwrap() else { panic!("{old}") };
    assert_eq!(state.sums, rich().sums);
}

/// Windows by eight fields, with room for two hundred times each.
fn wide() -> Program {
    let rule = |n: usize| {
        format!(
            "  - {{ name: r{n}, on: click, when: {{ count: click, by: metadata.f{n}, within: 24h, at_least: 200 }}, decide: {{ slot: s }} }}\n"
        )
    };
    program(&format!(
        "rules:\n{}last_values:\n  - {{ name: note, from: metadata.note }}\n",
        (0..8).map(rule).collect::<String>()
    ))
}

fn click(n: u32, key: u32) -> Vec<u8> {
    let fields = (0..8).map(|f| format!(r#""f{f}":"{key}""#)).collect::<Vec<_>>().join(",");
    bytes(
        n,
        NOON + i64::from(n),
        &format!(r#""event_type":"click","user_id":"u1","metadata":{{{fields},"note":"{n}"}}"#),
        Trust::Public,
    )
}

#[test]
fn a_profile_stays_within_its_bound_and_what_gives_way_is_counted() {
    let program = wide();
    let mut halves = [0, 1].map(|half| {
        let (mut profile, mut given_way) = (user("u1"), 0);
        for n in 0..1_800 {
            let n = n * 2 + half;
            let out = feed(&program, &mut profile, &click(n, n / 100), NOON + i64::from(n));
            given_way += out.notes.given_way;
            let size = encode::size(&profile);
            assert!(size <= MAX_PROFILE_BYTES && size <= profile.at_most(), "{size} of {n}");
        }
        assert_eq!(encode::size(&profile), encode(&profile).len());
        assert!(given_way > 0, "the bound was not reached");
        assert_eq!(profile.counters.get("click"), Some(1_800), "what is counted stays");
        assert!(profile.windows.cell("click by metadata.f7", "35").is_some(), "the newest key stays");
        assert!(profile.windows.cell("click by metadata.f7", "0").is_none(), "the oldest went");
        profile
    });
    let state = Box::new(halves[1].clone());
    let absorb = Control::Absorb { from: key("anonymous:a1"), into: key("user:u1"), state, hops: 0 };
    let record = serde_json::to_string(&absorb).unwrap();
    assert!(record.len() < 512 << 10, "a history of {} bytes", record.len());
    let out = step(&program, &mut halves[0], Input::Control(&absorb), Timestamp(NOON));
    assert!(out.notes.given_way > 0 && encode::size(&halves[0]) <= MAX_PROFILE_BYTES);
    assert_eq!(halves[0].counters.get("click"), Some(3_600));
}

static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| encode(&rich()));

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_no_profile_or_one(bytes in prop::collection::vec(any::<u8>(), 0..64), version in 1_u8..=VERSION) {
        let _ = decode(&bytes);
        let _ = decode(&[&[version], &bytes[..]].concat());
    }

    #[test]
    fn damaged_bytes_never_panic_and_what_reads_has_one_form(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = WHOLE.clone();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(profile) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&profile)).map(|again| encode(&again)).ok(), Some(encode(&profile)));
        }
    }
}
