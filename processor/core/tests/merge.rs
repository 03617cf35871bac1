//! A history that comes after the event it matters for: the decision is made all the same, and once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod support;

use std::collections::{BTreeMap, VecDeque};

use processor_core::session::{Sessions, Settings};
use processor_core::step::HISTORY_DEADLINE_MS;
use processor_core::*;
use proptest::prelude::*;
use schemas::decision::Decision;
use schemas::event::LoggedEvent;
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
    cooldown: 24h
    decide: { slot: home_banner, payload: { title: "Still looking at {category}?" } }
  - name: cart_reminder
    on: page_view
    when: { count: add_to_cart, within: 24h, at_least: 1 }
    unless: { event: purchase, within: 24h }
    cooldown: 4h
    decide: { slot: cart, payload: { page: "{metadata.path}" } }
  - name: checkout_offer
    on: checkout_started
    score_above: 0.6
    decide: { slot: checkout }
"#;
const MODEL: &str = r#"{"bias":-2,"features":[{"name":"counter.product_view","weight":1.5}]}"#;

fn program() -> Program {
    Program {
        rules: Ruleset::parse(RULES, "rules.yaml").unwrap(),
        model: Model::parse(MODEL.as_bytes()).unwrap(),
        sessions: Settings::default(),
    }
}

#[derive(Clone, Debug)]
enum Sent {
    /// By the device alone.
    Device(&'static str),
    /// By the person, after signing in.
    Person(&'static str),
    /// Both: the one joins the other.
    Both(&'static str),
}

const VIEW: &str = r#""event_type":"product_view","metadata":{"category":"shoes"}"#;
const HATS: &str = r#""event_type":"product_view","metadata":{"category":"hats"}"#;
const CART: &str = r#""event_type":"add_to_cart","metadata":{}"#;
const PAGE: &str = r#""event_type":"page_view","metadata":{"path":"/p/7"}"#;
const BOUGHT: &str = r#""event_type":"purchase","metadata":{"revenue":1.5}"#;
const CHECKOUT: &str = r#""event_type":"checkout_started","metadata":{}"#;
const SIGN_IN: &str = r#""event_type":"identify","metadata":{"traits":{"plan":"pro"}}"#;

/// What stands in a partition.
enum Record {
    Event(Vec<u8>),
    Control(Control),
}

/// Two partitions, one of the device and one of the person; control records go through them too.
#[derive(Default)]
struct World {
    queues: [VecDeque<Record>; 2],
    now: [i64; 2],
    profiles: BTreeMap<String, Profile>,
    decisions: Vec<Decision>,
}

impl World {
    fn send(&mut self, n: usize, sent: &Sent) {
        self.put(u32::try_from(n).unwrap(), NOON + i64::try_from(n).unwrap() * 1_000, sent);
    }

    fn put(&mut self, n: u32, at: i64, sent: &Sent) {
        let (ids, head, queue) = match sent {
            Sent::Device(head) => (r#""anonymous_id":"a1""#, head, 0),
            Sent::Person(head) => (r#""user_id":"u1""#, head, 1),
            Sent::Both(head) => (r#""user_id":"u1","anonymous_id":"a1""#, head, 1),
        };
        let record = bytes(n, at, &format!("{ids},{head}"), Trust::Public);
        self.queues[queue].push_back(Record::Event(record));
    }

    fn process(&mut self, program: &Program, queue: usize) {
        let Some(record) = self.queues[queue].pop_front() else { return };
        let mut run = |key: &schemas::id::ProfileKey, input: Input<'_>, now: i64| {
            let profile = self.profiles.entry(key.to_string()).or_insert_with(|| Profile::new(key.clone()));
            step(program, profile, input, Timestamp(now))
        };
        let now = &mut self.now[queue];
        let out = match &record {
            Record::Event(bytes) => {
                let event = LoggedEvent::read(bytes, Limits::default()).unwrap();
                *now = event.receipt.received_at.0.max(*now);
                run(&event.profile_key().unwrap(), Input::Event(&EventInput::new(&event)), *now)
            }
            Record::Control(control) => run(control.subject().unwrap(), Input::Control(control), *now),
        };
        self.decisions.extend(out.decisions);
        for control in out.controls {
            let queue = usize::from(control.subject().unwrap().id == "u1");
            self.queues[queue].push_back(Record::Control(control));
        }
    }

    /// Sends the script in its order; `choices` says what happens between: another event, or a record of either partition.
    fn run(script: &[Sent], choices: &[u8]) -> Self {
        let program = program();
        let mut world = Self { now: [NOON; 2], ..Self::default() };
        let mut next = 0;
        for choice in choices {
            match choice % 3 {
                0 if next < script.len() => {
                    world.send(next, &script[next]);
                    next += 1;
                }
                1 => world.process(&program, 0),
                _ => world.process(&program, 1),
            }
        }
        (next..script.len()).for_each(|n| world.send(n, &script[n]));
        while world.queues.iter().any(|queue| !queue.is_empty()) {
            world.process(&program, 0);
            world.process(&program, 1);
        }
        world
    }

    fn decided(&self, rule: &str) -> Vec<&Decision> {
        self.decisions.iter().filter(|decision| decision.rule == rule).collect()
    }
}

impl World {
    /// Events of one instant, which have an order by id alone.
    fn at_once(script: &[Sent]) -> Self {
        let mut world = Self { now: [NOON; 2], ..Self::default() };
        let ids = [9, 8, 3, 1];
        for (n, sent) in ids.into_iter().zip(script) {
            world.put(n, NOON, sent);
        }
        for queue in [1, 1, 0, 0, 0, 1] {
            world.process(&program(), queue);
        }
        world
    }
}

/// All that the person's profile must hold in the end, sessions' ids and what was decided on the way apart.
fn facts(profile: &Profile) -> Profile {
    let mut facts = profile.clone();
    (facts.sessions, facts.score) = (Sessions::default(), None);
    (facts.decisions, facts.cooldowns) = (Vec::new(), BTreeMap::new());
    (facts.awaited, facts.deferred) = (BTreeMap::new(), Vec::new());
    facts
}

#[test]
fn a_view_judged_before_the_devices_history_came_is_judged_again() {
    let script = [Sent::Device(VIEW), Sent::Device(VIEW), Sent::Both(SIGN_IN), Sent::Person(VIEW)];
    // The person's partition is read to its end before the device's hears of the merge; and the other way round.
    for choices in [vec![0, 0, 1, 1, 0, 0, 2, 2], vec![0, 0, 1, 1, 0, 2, 1, 2, 0, 2], vec![]] {
        let world = World::run(&script, &choices);
        let decided = world.decided("category_interest");
        assert_eq!(decided.len(), 1, "{choices:?}");
        assert_eq!((decided[0].trigger, decided[0].subject.to_string()), (id(3), "user:u1".to_owned()));
        assert_eq!(decided[0].facts[0].events, [id(0), id(1), id(3)]);
        assert_eq!(decided[0].payload["title"], "Still looking at shoes?");
    }
}

#[test]
fn of_events_at_one_instant_the_one_that_waited_is_the_trigger() {
    let script = [Sent::Device(VIEW), Sent::Device(VIEW), Sent::Both(SIGN_IN), Sent::Person(VIEW)];
    let world = World::at_once(&script);
    assert_eq!(
        world.decided("category_interest").iter().map(|decision| decision.trigger).collect::<Vec<_>>(),
        [id(1)]
    );
    assert!(world.profiles["user:u1"].deferred.is_empty());
}

#[test]
fn what_the_device_bought_silences_a_rule_although_the_views_are_the_persons() {
    let views = [Sent::Person(VIEW), Sent::Person(VIEW), Sent::Person(VIEW)];
    let script = [&[Sent::Device(BOUGHT), Sent::Both(SIGN_IN)][..], &views].concat();
    for choices in [vec![], vec![0, 0, 0, 0, 0, 2, 2, 2, 2, 2]] {
        assert!(World::run(&script, &choices).decisions.is_empty(), "{choices:?}");
    }
}

#[test]
fn rules_that_count_something_else_or_nothing_are_judged_again_too() {
    let script = [
        Sent::Device(CART),
        Sent::Device(VIEW),
        Sent::Device(VIEW),
        Sent::Both(SIGN_IN),
        Sent::Person(PAGE),
        Sent::Person(CHECKOUT),
    ];
    let world = World::run(&script, &[0, 0, 0, 1, 1, 1, 0, 0, 0, 2, 2, 2, 2]);
    let [cart, checkout] = ["cart_reminder", "checkout_offer"].map(|rule| world.decided(rule));
    assert_eq!(cart.iter().map(|decision| decision.trigger).collect::<Vec<_>>(), [id(4)]);
    assert_eq!(cart[0].payload["page"], "/p/7", "the trigger's own fields fill the payload");
    assert_eq!(checkout.iter().map(|decision| decision.trigger).collect::<Vec<_>>(), [id(5)]);
    assert!(checkout[0].score > 0.6);
}

#[test]
fn a_history_that_does_not_come_is_waited_for_until_the_deadline() {
    let (program, mut person) = (program(), user("u1"));
    let head = |head: &str| format!(r#""user_id":"u1",{head}"#);
    feed(
        &program,
        &mut person,
        &bytes(1, NOON, &format!(r#""anonymous_id":"a1",{}"#, head(SIGN_IN)), Trust::Public),
        NOON,
    );
    for n in 2..5 {
        let out = feed(&program, &mut person, &bytes(n, NOON, &head(VIEW), Trust::Public), NOON);
        assert_eq!((out.decisions.len(), out.notes.deferred_events), (0, 1));
    }
    let due = Timestamp(NOON + HISTORY_DEADLINE_MS);
    assert_eq!(person.next_timer(&program), Some(due));
    assert!(step(&program, &mut person, Input::Timer, Timestamp(due.0 - 1)).decisions.is_empty());
    let mut late = person.clone();
    let out = step(&program, &mut person, Input::Timer, due);
    assert_eq!((out.decisions.len(), out.notes.histories_missed), (1, 1));
    assert_eq!(out.decisions[0].trigger, id(4));
    // A timer that comes late, or another event first, decides the same.
    let out = feed(&program, &mut late, &bytes(9, NOON, &head(HATS), Trust::Public), due.0 + 5_000);
    assert_eq!(
        out.decisions,
        step(&program, &mut person.clone(), Input::Timer, due)
            .decisions
            .iter()
            .chain(&out.decisions)
            .cloned()
            .collect::<Vec<_>>()
    );
    assert_eq!((out.decisions.len(), out.decisions[0].decided_at), (1, due));
}

fn device() -> impl Strategy<Value = Sent> {
    prop_oneof![Just(VIEW), Just(VIEW), Just(HATS), Just(CART), Just(PAGE), Just(CHECKOUT)]
        .prop_map(Sent::Device)
}

fn person() -> impl Strategy<Value = Sent> {
    let head = prop_oneof![Just(VIEW), Just(VIEW), Just(HATS), Just(CART), Just(PAGE), Just(CHECKOUT)];
    (head, 0_u8..4).prop_map(|(head, by)| match by {
        0 => Sent::Device(head),
        1 => Sent::Both(head),
        _ => Sent::Person(head),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_any_order_of_arrival_each_rule_decides_once_and_the_facts_are_the_same(
        before in prop::collection::vec(device(), 0..6),
        after in prop::collection::vec(person(), 0..6),
        choices in prop::collection::vec(0_u8..3, 0..60),
        bought in prop::option::of(any::<bool>()),
    ) {
        let mut script = before;
        script.extend((bought == Some(false)).then_some(Sent::Device(BOUGHT)));
        let signed_in = script.len();
        script.push(Sent::Both(SIGN_IN));
        script.extend(after);
        let world = World::run(&script, &choices);
        // The same events, all known to be the person's from the start.
        let (program, mut person) = (program(), user("u1"));
        let mut ideal: Vec<Decision> = Vec::new();
        for (n, sent) in script.iter().enumerate() {
            let (Sent::Device(head) | Sent::Person(head) | Sent::Both(head)) = sent;
            let ids = if matches!(sent, Sent::Both(_)) { r#""user_id":"u1","anonymous_id":"a1""# } else { r#""user_id":"u1""# };
            let at = NOON + i64::try_from(n).unwrap() * 1_000;
            let record = bytes(u32::try_from(n).unwrap(), at, &format!("{ids},{head}"), Trust::Public);
            ideal.extend(feed(&program, &mut person, &record, at).decisions);
            person.awaited.clear();
        }
        let mine = &world.profiles["user:u1"];
        prop_assert!(mine.awaited.is_empty());
        let mut right = facts(&person);
        // Which joining event named the device first is a fact too, but who asked does not see the device's own events as sign-ins.
        right.devices.clone_from(&mine.devices);
        prop_assert_eq!(facts(mine), right);
        // What the device sends after signing in comes late by a detour; a rule that waits for one type and counts another
        // is not evaluated again at each late event, with or without a merge.
        let late = script[signed_in..].iter().any(|sent| matches!(sent, Sent::Device(_)) || matches!(sent, Sent::Person(CART) | Sent::Both(CART)));
        for rule in ["category_interest", "cart_reminder"].into_iter().take(if late { 1 } else { 2 }) {
            let right = ideal.iter().filter(|decision| decision.rule == rule).count();
            prop_assert_eq!(world.decided(rule).len(), right, "{} in {:?}", rule, script);
        }
    }
}
