//! What the engine promises, one case a promise.

use sdk_wasm::{
    Answer, Command, Commands, Consent, Delivery, Engine, Input, Millis, Priority, Tracked, Verdicts,
};

const START: Millis = 1_764_000_000_000.0;
const ID: &str = "018f15a3-75a3-77ff-bfff-ffffffffffff";

/// An engine that has started and leads, without socket.
fn started(consent: Consent) -> Engine {
    let mut engine = Engine::default();
    engine.step(&Input::Start { socket: false, consent }, START, 1);
    engine.step(&Input::Leader(true), START, 2);
    engine
}

fn event<'a>(id: &'a str, json: &'a str) -> Input<'a> {
    Input::Track(Tracked { priority: Priority::Normal, id, json })
}

fn small(id: &str) -> Input<'_> {
    event(id, r#""event_type":"purchase","metadata":{}"#)
}

/// An answer that accepts the event of this id, or without one says nothing.
fn answer(request: u32, id: Option<&str>) -> Input<'static> {
    let text = id.map(|id| format!("a\u{1f}{id}\u{1f}{{\"event_id\":\"{id}\",\"status\":\"accepted\"}}"));
    let verdicts = Verdicts(text.map(|text| &*Box::leak(text.into_boxed_str())));
    Input::Http(Answer {
        request,
        status: if id.is_some() { 200 } else { 0 },
        retry_after: 0.0,
        code: "",
        verdicts,
    })
}

/// The bodies sent by a step, with the numbers of their requests.
fn bodies(commands: &Commands) -> Vec<(u32, String)> {
    let body = |command| match command {
        Command::SendHttp { request, body, .. } => Some((request, body.to_owned())),
        _ => None,
    };
    commands.iter().filter_map(body).collect()
}

fn told(commands: &Commands, kind: Delivery) -> usize {
    commands.iter().filter(|command| matches!(command, Command::Deliver(other, _) if *other == kind)).count()
}

fn id(n: u32) -> String {
    format!("018f15a3-75a3-77ff-bfff-{n:012x}")
}

#[test]
fn an_id_that_the_page_brings_twice_is_one_event_with_one_verdict() {
    let mut engine = started(Consent::Granted);
    assert_eq!(bodies(&engine.step(&small(ID), START + 1.0, 3)).len(), 1);
    for verdicts in [1, 0] {
        let again = engine.step(&small(ID), START + 2.0, 4);
        assert_eq!(again.iter().count(), 0, "{}", again.as_str());
        let answered = engine.step(&answer(1, Some(ID)), START + 3.0, 5);
        assert_eq!(told(&answered, Delivery::Verdict), verdicts);
    }
}

#[test]
fn a_decision_is_told_once_whichever_way_it_comes() {
    let decision = Input::Decision { id: ID, json: r#"{"slot":"s"}"# };
    let mut engine = started(Consent::Granted);
    assert_eq!(told(&engine.step(&decision, START, 3), Delivery::Decision), 1);
    assert_eq!(told(&engine.step(&decision, START, 4), Delivery::Decision), 0);
}

#[test]
fn without_consent_nothing_is_stored_or_sent() {
    for consent in [Consent::Pending, Consent::Denied] {
        let mut engine = started(consent);
        let commands = engine.step(&small(ID), START + 1.0, 3);
        for command in commands.iter() {
            assert!(matches!(command, Command::Deliver(..) | Command::Purge), "{consent:?}: {command:?}");
        }
    }
}

#[test]
fn an_event_whose_own_id_is_old_is_not_old_itself() {
    let mut engine = started(Consent::Granted);
    let old = "00000000-0000-7000-8000-000000000001";
    assert_eq!(bodies(&engine.step(&small(old), START + 1.0, 3)).len(), 1);
}

#[test]
fn what_is_lost_is_reported_with_the_next_batches_until_one_is_answered() {
    let mut engine = started(Consent::Granted);
    engine.step(&Input::Online(false), START, 0);
    let metadata = format!(r#""event_type":"view","metadata":{{"x":"{}"}}"#, "y".repeat(10_000));
    for n in 0..150 {
        engine.step(&event(&id(n), &metadata), START + 1.0, 3);
    }
    let stored = engine.step(&event(&id(150), &metadata), START + 1.0, 3);
    let report = stored.iter().find_map(|command| match command {
        Command::Put { key, value } if key.starts_with("d:") => Some((key.to_owned(), value.to_owned())),
        _ => None,
    });
    let (key, value) = report.expect("a report is stored");
    assert_eq!(key, format!("d:{}", id(0)), "it has the id of the first that was lost");
    let lost: u32 = value.strip_prefix("f ").unwrap().parse().unwrap();
    assert!(lost > 40, "{value}");

    let sent = bodies(&engine.step(&Input::Online(true), START + 2.0, 3));
    let right = format!(r#""discarded":[{{"id":"{}","code":"queue.full","events":{lost}}}]"#, id(0));
    assert!(sent[0].1.contains(&right), "{}", &sent[0].1[..200]);
    // No answer: it goes again.
    engine.step(&answer(sent[0].0, None), START + 3.0, 3);
    let sent = bodies(&engine.step(&Input::Timer, START + 60_000.0, 3));
    assert!(sent[0].1.contains(&right));
    let first = sent[0].1.split("\"event_id\":\"").nth(1).unwrap()[..36].to_owned();
    let done = engine.step(&answer(sent[0].0, Some(&first)), START + 61_000.0, 3);
    assert!(done.iter().any(|command| command == Command::Del { key: &key }), "it is forgotten");
    let sent = bodies(&engine.step(&Input::Timer, START + 200_000.0, 3));
    assert!(!sent.is_empty() && !sent[0].1.contains("discarded"));
}

#[test]
fn what_found_no_verdict_for_seven_days_is_discarded_and_told() {
    let mut engine = started(Consent::Granted);
    engine.step(&Input::Online(false), START, 0);
    engine.step(&small(ID), START + 1.0, 3);
    let week = 7.0 * 24.0 * 3_600_000.0;
    assert_eq!(told(&engine.step(&Input::Timer, START + week, 0), Delivery::Error), 0);
    let gone = engine.step(&Input::Timer, START + week + 2.0, 0);
    assert!(gone.iter().any(|command| command == Command::Del { key: &format!("e:{ID}") }));
    assert_eq!(told(&gone, Delivery::Error), 1);
}
