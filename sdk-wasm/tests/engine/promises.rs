//! What the engine promises, one case a promise.

use sdk_wasm::{Command, Consent, Delivery, Engine, EventId, Input, Priority, Tracked};

const START: u64 = 1_764_000_000_000;

/// An engine that has started and leads, without socket.
fn started(consent: Consent) -> Engine {
    let mut engine = Engine::default();
    engine.step(Input::Start { key: "wk", sdk: "test", socket: false, consent }, START, [1; 4]);
    engine.step(Input::Leader(true), START, [2; 4]);
    engine
}

fn event(id: Option<EventId>) -> Tracked<'static> {
    Tracked {
        priority: Priority::Normal,
        timestamp: "2026-11-25T04:00:00.000Z",
        type_json: "\"purchase\"",
        metadata_json: "{}",
        context_json: "{}",
        id,
    }
}

/// The bodies sent by a step.
fn bodies(commands: &sdk_wasm::Commands) -> Vec<String> {
    let body = |command| match command {
        Command::SendHttp { body, .. } => Some(body.to_owned()),
        _ => None,
    };
    commands.iter().filter_map(body).collect()
}

#[test]
fn an_id_that_the_page_brings_twice_is_one_event_with_one_verdict() {
    let id = EventId::parse("018f15a3-75a3-47ff-bfff-ffffffffffff");
    let mut engine = started(Consent::Granted);
    let first = engine.step(Input::Track(event(id)), START + 1, [3; 4]);
    assert_eq!(bodies(&first).len(), 1);
    let answer =
        |request, body| Input::Http(sdk_wasm::Answer { request, status: 200, retry_after_ms: None, body });
    for at in 2..4 {
        let again = engine.step(Input::Track(event(id)), START + at, [4; 4]);
        assert!(again.iter().any(|command| command == Command::Tracked(id.unwrap())), "the id is told again");
        assert!(
            bodies(&again).is_empty() && !again.iter().any(|command| matches!(command, Command::Put { .. }))
        );
        let verdict =
            r#"{"events":[{"event_id":"018f15a3-75a3-47ff-bfff-ffffffffffff","status":"accepted"}]}"#;
        let told = engine.step(answer(1, verdict), START + at, [5; 4]);
        let verdicts =
            told.iter().filter(|command| matches!(command, Command::Deliver(Delivery::Verdict, _))).count();
        assert_eq!(verdicts, usize::from(at == 2), "the second call has no verdict of its own");
    }
}

#[test]
fn a_decision_is_told_once_whichever_way_it_comes() {
    let decision = r#"{"decision_id":"5b0d5f3e-8a57-5c44-9a3f-d0e694b73e12","slot":"s"}"#;
    let mut engine = started(Consent::Granted);
    for (at, right) in [(0, 1), (1, 0)] {
        let told = engine.step(Input::Decision(decision), START + at, [3; 4]);
        assert_eq!(
            told.iter().filter(|command| matches!(command, Command::Deliver(Delivery::Decision, _))).count(),
            right
        );
    }
}

#[test]
fn without_consent_nothing_is_stored_or_sent() {
    for consent in [Consent::Pending, Consent::Denied] {
        let mut engine = started(consent);
        let commands = engine.step(Input::Track(event(None)), START + 1, [3; 4]);
        for command in commands.iter() {
            assert!(
                matches!(command, Command::Deliver(..) | Command::Tracked(_)),
                "{consent:?}: {command:?}"
            );
        }
    }
}
