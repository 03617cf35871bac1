//! What the step promises: order does not matter, edges are where the documents say, numbers keep their digits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod support;

use std::collections::BTreeMap;

use processor_core::input::MAX_HOPS;
use processor_core::profile::encode;
use processor_core::profile::view::difference;
use processor_core::session::Settings;
use processor_core::*;
use proptest::prelude::*;
use schemas::event::LoggedEvent;
use schemas::id::ProfileKey;
use schemas::json::Limits;
use schemas::receipt::Trust;
use schemas::time::Timestamp;
use support::*;

const RULES: &str = r#"
rules:
  - name: category_interest
    on: product_view
    when: { count: product_view, by: metadata.category, within: 30m, at_least: 3 }
    unless: { event: purchase, within: 30m }
    decide: { slot: home_banner, payload: { title: "Still looking at {category}?", n: 1 } }
  - name: order_twice
    on: product_view
    when: { count: product_view, by: metadata.order, within: 30m, at_least: 2 }
    decide: { slot: order, payload: { order: "{order}" } }
  - name: once_a_day
    on: click
    cooldown: 24h
    decide: { slot: click }
last_values:
  - { name: order, from: metadata.order }
"#;
const MODEL: &str = r#"{"bias":-2,"features":[{"name":"counter.product_view","weight":0.4,"max":10},
    {"name":"session.events","weight":0.1},{"name":"window.category_interest","weight":0.2}]}"#;

fn program() -> Program {
    Program {
        rules: Ruleset::parse(RULES, "rules.yaml").unwrap(),
        model: Model::parse(MODEL.as_bytes()).unwrap(),
        sessions: Settings::default(),
    }
}

fn view(n: u32, at: i64, category: &str) -> Vec<u8> {
    let head =
        format!(r#""event_type":"product_view","user_id":"u1","metadata":{{"category":"{category}"}}"#);
    bytes(n, at, &head, Trust::Public)
}

fn decisions_of(times: &[i64]) -> Vec<schemas::decision::Decision> {
    let (program, mut profile) = (program(), user("u1"));
    let mut decisions = Vec::new();
    for (n, at) in times.iter().enumerate() {
        let n = u32::try_from(n).unwrap();
        decisions.extend(feed(&program, &mut profile, &view(n, NOON + at, "shoes"), NOON + at).decisions);
    }
    decisions
}

#[test]
fn the_third_view_within_thirty_minutes_decides_and_lists_what_it_counted() {
    for (times, fires) in [
        (vec![0, 0, 30 * MINUTE - 1], 1),
        (vec![0, 0, 30 * MINUTE], 0),
        (vec![0, 0, 30 * MINUTE + 1], 0),
        (vec![0, 0, 0], 1),
        (vec![30 * MINUTE - 1, 0, 0], 1),
        (vec![0, 1, 2, 3], 2),
    ] {
        let decisions = decisions_of(&times);
        assert_eq!(decisions.len(), fires, "{times:?}");
        for decision in decisions {
            assert_eq!(decision.payload["title"], "Still looking at shoes?");
            let fact = &decision.facts[0];
            assert_eq!(
                (fact.name.as_str(), fact.events.len()),
                ("product_view.category=shoes within 30m", 3)
            );
            assert_eq!(fact.value, serde_json::json!(3));
            assert!(fact.events.contains(&decision.trigger));
        }
    }
}

#[test]
fn a_purchase_silences_the_rule_and_a_late_view_of_old_does_not_wake_it() {
    let (program, mut profile) = (program(), user("u1"));
    let purchase = bytes(
        9,
        NOON,
        r#""event_type":"purchase","user_id":"u1","metadata":{"price":19.99,"quantity":3}"#,
        Trust::Public,
    );
    feed(&program, &mut profile, &purchase, NOON);
    assert_eq!(profile.sums["revenue"].to_string(), "59.97");
    for n in 0..4 {
        assert!(
            feed(&program, &mut profile, &view(n, NOON + MINUTE, "shoes"), NOON + MINUTE)
                .decisions
                .is_empty()
        );
    }
    let later = NOON + 100 * MINUTE;
    let fired: usize =
        (10..13).map(|n| feed(&program, &mut profile, &view(n, later, "shoes"), later).decisions.len()).sum();
    assert_eq!(fired, 1);
    assert!(feed(&program, &mut profile, &view(20, NOON - MINUTE, "shoes"), later).decisions.is_empty());
}

#[test]
fn a_cooldown_ends_exactly_when_it_says() {
    let (program, mut profile) = (program(), user("u1"));
    let click = |n, at| bytes(n, at, r#""event_type":"click","user_id":"u1""#, Trust::Public);
    let day = 24 * 60 * MINUTE;
    let fired: Vec<usize> = [0, 1, day - 1, day, day + 1]
        .into_iter()
        .enumerate()
        .map(|(n, at)| {
            feed(&program, &mut profile, &click(u32::try_from(n).unwrap(), NOON + at), NOON + at)
                .decisions
                .len()
        })
        .collect();
    assert_eq!(fired, [1, 0, 0, 1, 0]);
}

#[test]
fn numbers_beyond_a_double_keep_their_digits_everywhere() {
    let (program, mut profile) = (program(), user("u1"));
    let view = |n, order: &str| {
        bytes(
            n,
            NOON,
            &format!(
                r#""event_type":"product_view","user_id":"u1","metadata":{{"order":{order},"big":18446744073709551617}}"#
            ),
            Trust::Public,
        )
    };
    assert!(feed(&program, &mut profile, &view(1, "9007199254740992"), NOON).decisions.is_empty());
    assert!(feed(&program, &mut profile, &view(2, "9007199254740993"), NOON).decisions.is_empty());
    let decisions = feed(&program, &mut profile, &view(3, "9007199254740993"), NOON).decisions;
    assert_eq!(decisions.len(), 1);
    assert_eq!(decisions[0].payload["order"], "9007199254740993");
    let identify = r#""event_type":"identify","user_id":"u1","metadata":{"traits":{"big":18446744073709551617,"forged":{"$serde_json::private::Number":"7"}}}"#;
    feed(&program, &mut profile, &bytes(4, NOON, identify, Trust::Public), NOON);
    let view = profile.to_view("null");
    assert!(view.contains(r#""last":{"order":9007199254740993}"#), "{view}");
    assert!(
        view.contains(r#""big":18446744073709551617"#)
            && view.contains(r#"{"$serde_json::private::Number":"7"}"#),
        "{view}"
    );
    serde_json::from_str::<serde_json::Value>(&view).unwrap();
}

#[test]
fn absent_and_odd_fields_do_not_fire_and_do_not_panic() {
    let (program, mut profile) = (program(), user("u1"));
    for (n, metadata) in [
        "{}",
        r#"{"category":null}"#,
        r#"{"category":[]}"#,
        r#"{"category":{"a":1}}"#,
        r#"{"category":""}"#,
        "7",
    ]
    .into_iter()
    .enumerate()
    {
        let head = format!(r#""event_type":"product_view","user_id":"u1","metadata":{metadata}"#);
        for k in 0..4 {
            let n = u32::try_from(n).unwrap() * 10 + k;
            assert!(
                feed(&program, &mut profile, &bytes(n, NOON, &head, Trust::Public), NOON)
                    .decisions
                    .is_empty()
            );
        }
    }
    assert_eq!(profile.counters.get("product_view"), Some(24));
}

fn identify(n: u32, user: &str, device: &str, trust: Trust) -> Vec<u8> {
    let head = format!(
        r#""event_type":"identify","user_id":"{user}","anonymous_id":"{device}","metadata":{{"traits":{{"plan":"pro"}}}}"#
    );
    bytes(n, NOON, &head, trust)
}

#[test]
fn a_public_key_joins_the_first_device_only() {
    let (program, mut profile) = (program(), user("u1"));
    let out = feed(&program, &mut profile, &identify(1, "u1", "a1", Trust::Public), NOON);
    assert_eq!(out.controls.len(), 1);
    let again = feed(&program, &mut profile, &identify(2, "u1", "a1", Trust::Public), NOON);
    assert!(again.controls.is_empty(), "once a user and device");
    let other = feed(&program, &mut profile, &identify(3, "u1", "a2", Trust::Public), NOON);
    assert!(other.controls.is_empty() && other.notes.refused_devices == 1);
    assert_eq!(profile.counters.get("identify"), Some(3));
    assert_eq!(feed(&program, &mut profile, &identify(4, "u1", "a2", Trust::Token), NOON).controls.len(), 1);
    assert!(
        feed(&program, &mut profile, &identify(5, "u1", "none:x", Trust::Secret), NOON).controls.is_empty()
    );
}

#[test]
fn aliases_need_more_than_a_public_key() {
    let (program, mut profile) = (program(), user("new"));
    let head = r#""event_type":"alias","user_id":"new","metadata":{"previous_id":"old"}"#;
    assert!(feed(&program, &mut profile, &bytes(1, NOON, head, Trust::Public), NOON).controls.is_empty());
    let out = feed(&program, &mut profile, &bytes(2, NOON, head, Trust::Secret), NOON);
    assert!(
        matches!(&out.controls[0], Control::Merge { from, into } if from.id == "old" && into.id == "new")
    );
}

/// Delivers control records until there are none.
fn settle(program: &Program, profiles: &mut BTreeMap<String, Profile>, mut controls: Vec<Control>) {
    let mut rounds = 0;
    while let Some(control) = controls.pop() {
        let key = control.subject().unwrap().clone();
        let profile = profiles.entry(key.to_string()).or_insert_with(|| Profile::new(key));
        controls.extend(step(program, profile, Input::Control(&control), Timestamp(NOON)).controls);
        rounds += 1;
        assert!(rounds < 200, "control records go round in a circle");
    }
}

#[test]
fn what_the_device_did_before_and_after_belongs_to_the_user() {
    let program = program();
    let mut profiles = BTreeMap::new();
    let mut device = Profile::new(ProfileKey::parse("anonymous:a1").unwrap());
    let anonymous = |n| {
        bytes(
            n,
            NOON + i64::from(n),
            r#""event_type":"product_view","anonymous_id":"a1","metadata":{"category":"shoes"}"#,
            Trust::Public,
        )
    };
    feed(&program, &mut device, &anonymous(1), NOON);
    feed(&program, &mut device, &anonymous(2), NOON);
    let mut person = user("u1");
    let controls = feed(&program, &mut person, &identify(9, "u1", "a1", Trust::Public), NOON).controls;
    profiles.insert("anonymous:a1".to_owned(), device);
    profiles.insert("user:u1".to_owned(), person);
    settle(&program, &mut profiles, controls);
    let device = profiles.get_mut("anonymous:a1").unwrap();
    assert_eq!(
        (device.counters.get("product_view"), &device.redirect),
        (None, &ProfileKey::parse("user:u1"))
    );
    let out = feed(&program, device, &anonymous(3), NOON);
    assert!(out.decisions.is_empty() && out.controls.len() == 1);
    let Control::Forward { .. } = &out.controls[0] else { panic!("{:?}", out.controls) };
    let user = profiles.get_mut("user:u1").unwrap();
    let fired = step(&program, user, Input::Control(&out.controls[0]), Timestamp(NOON)).decisions;
    assert_eq!(
        fired.iter().map(|d| (d.subject.to_string(), d.trigger)).collect::<Vec<_>>(),
        [("user:u1".to_owned(), id(3))]
    );
    assert_eq!(user.counters.get("product_view"), Some(3));
    assert_eq!(user.sessions.list().len(), 1);
    assert_eq!(user.sessions.list()[0].events, 4);
}

#[test]
fn crossed_merges_end_and_lose_nothing() {
    let program = program();
    let mut profiles = BTreeMap::new();
    for name in ["a", "b"] {
        let mut profile = user(name);
        feed(
            &program,
            &mut profile,
            &bytes(
                u32::from(name.as_bytes()[0]),
                NOON,
                r#""event_type":"click","user_id":"x""#,
                Trust::Public,
            ),
            NOON,
        );
        profiles.insert(format!("user:{name}"), profile);
    }
    let key = |name: &str| ProfileKey::parse(&format!("user:{name}")).unwrap();
    settle(
        &program,
        &mut profiles,
        vec![
            Control::Merge { from: key("a"), into: key("b") },
            Control::Merge { from: key("b"), into: key("a") },
        ],
    );
    let clicks: u64 = profiles.values().filter_map(|profile| profile.counters.get("click")).sum();
    assert_eq!(clicks, 2);
    let mut profile = user("c");
    profile.redirect = Some(key("d"));
    let click = bytes(1, NOON, r#""event_type":"click","user_id":"c""#, Trust::Public);
    let event = LoggedEvent::read(&click, Limits::default()).unwrap();
    let mut input = EventInput::new(&event);
    input.hops = MAX_HOPS;
    step(&program, &mut profile, Input::Event(&input), Timestamp(NOON));
    assert_eq!((profile.redirect, profile.counters.get("click")), (None, Some(1)));
}

fn any_event() -> impl Strategy<Value = (i64, String)> {
    let kind = prop_oneof![
        "[abc]".prop_map(|c| format!(
            r#""event_type":"product_view","metadata":{{"category":"{c}","order":900719925474099{c}}}"#
        )
        .replace("900719925474099a", "9007199254740992")
        .replace("900719925474099b", "9007199254740993")
        .replace("900719925474099c", "1e2")),
        (1_u32..1_000_000).prop_map(|n| format!(
            r#""event_type":"purchase","metadata":{{"revenue":{}.{:02}}}"#,
            n / 100,
            n % 100
        )),
        (0_u8..3, 0_u32..50)
            .prop_map(|(name, v)| format!(r#""event_type":"identify","metadata":{{"t{name}":{v}}}"#)),
        Just(r#""event_type":"page_view","metadata":{"url":"/?utm_source=s1"}"#.to_owned()),
        Just(r#""event_type":"click","context":{"campaign":{"source":"s2"}}"#.to_owned()),
    ];
    ((0_i64..300).prop_map(|minute| NOON + minute * MINUTE / 2), kind)
}

/// All but what names the first event seen, what was decided on the way, and what was told of it.
fn facts(profile: &Profile) -> Profile {
    let mut facts = profile.clone();
    (facts.sessions, facts.score) = (processor_core::session::Sessions::default(), None);
    (facts.decisions, facts.cooldowns) = (Vec::new(), BTreeMap::new());
    (facts.awaited, facts.deferred) = (BTreeMap::new(), Vec::new());
    facts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_order_of_arrival_does_not_change_the_facts(
        events in prop::collection::vec(any_event(), 1..40).prop_flat_map(|events| {
            let order: Vec<usize> = (0..events.len()).collect();
            (Just(events), Just(order).prop_shuffle(), 0_usize..40)
        }),
    ) {
        let (events, order, split) = events;
        let program = program();
        let record = |n: usize| bytes(u32::try_from(n).unwrap(), events[n].0, &format!(r#""user_id":"u1",{}"#, events[n].1), Trust::Public);
        let (mut straight, mut shuffled, mut half) = (user("u1"), user("u1"), user("u1"));
        for (n, event) in events.iter().enumerate() {
            let before = straight.attributes();
            let out = feed(&program, &mut straight, &record(n), event.0);
            let mut told = out.changes;
            told.sort_by(|a, b| a.name.cmp(&b.name));
            prop_assert_eq!(told, difference(&before, &straight.attributes()), "what is told is what changed");
            let decoded = encode::decode(&encode::encode(&straight)).unwrap();
            prop_assert_eq!(&decoded, &straight);
        }
        for n in &order {
            feed(&program, &mut shuffled, &record(*n), NOON);
        }
        prop_assert_eq!(facts(&shuffled), facts(&straight));
        let spans = |profile: &Profile| profile.sessions.list().iter().map(|s| (s.started_at, s.last_at, s.events)).collect::<Vec<_>>();
        prop_assert_eq!(spans(&shuffled), spans(&straight));
        // Two profiles that saw a part each and are merged know as much.
        let mut first = user("u1");
        for (n, event) in events.iter().enumerate() {
            feed(&program, if n < split { &mut first } else { &mut half }, &record(n), event.0);
        }
        first.absorb(program.sessions, &half, &mut processor_core::output::Notes::default());
        prop_assert_eq!(facts(&first), facts(&straight));
        prop_assert_eq!(spans(&first), spans(&straight));
    }
}
