//! Recorded traces: what an engine was told, and what it said, kept in `traces/`.
//!
//! A line is one step, as JSON: `[input, now, [four random words], commands]`, input and commands as packed text. `RIVULET_RECORD=1`
//! writes the files anew; a change of them is a change of what the engine does, to be read before it is committed.
//!
//! **Invariant checked:** the same inputs give the same commands, byte for byte, here and in the builds for the browser.

use std::fs;
use std::path::PathBuf;

use sdk_wasm::{Consent, Engine, Entropy, Input, Priority, Tracked, packed};
use serde_json::{Value, json};

use crate::world::World;

/// One step of an engine.
pub(crate) struct Step {
    pub(crate) input: String,
    pub(crate) now: u64,
    pub(crate) entropy: Entropy,
    pub(crate) commands: String,
}

/// Schedules worth keeping: seed, and steps of misfortune.
const SCHEDULES: [(u64, u32); 3] = [(11, 60), (1_234, 60), (77_001, 60)];
/// Most lines of a schedule that are kept.
const LINES: usize = 240;
const START: u64 = 1_764_000_000_000;

/// The text form of an input, as a host writes it.
pub(crate) fn pack(input: &Input<'_>) -> String {
    let flag = |yes: bool| if yes { "1" } else { "0" }.to_owned();
    let (op, fields) = match *input {
        Input::Restored { key, value } => ("R", vec![key.to_owned(), value.to_owned()]),
        Input::Stored { key, value: Some(value) } => ("S", vec![key.to_owned(), value.to_owned()]),
        Input::Stored { key, value: None } => ("S", vec![key.to_owned()]),
        Input::Start { key, sdk, socket, consent } => {
            ("I", vec![key.to_owned(), sdk.to_owned(), flag(socket), choice(consent)])
        }
        Input::PutFailed { key } => ("P", vec![key.to_owned()]),
        Input::Cleared => ("X", vec![]),
        Input::Track(event) => ("T", tracked(&event)),
        Input::Identify { user_json, event } => ("U", [vec![user_json.to_owned()], tracked(&event)].concat()),
        Input::Reset => ("Z", vec![]),
        Input::Flush => ("F", vec![]),
        Input::SocketOpen => ("o", vec![]),
        Input::SocketFrame(text) => ("f", vec![text.to_owned()]),
        Input::SocketClosed => ("c", vec![]),
        Input::Decision(json) => ("d", vec![json.to_owned()]),
        Input::Http(answer) => {
            let wait = answer.retry_after_ms.map_or(String::new(), |wait| wait.to_string());
            ("A", vec![answer.request.to_string(), answer.status.to_string(), wait, answer.body.to_owned()])
        }
        Input::Timer => ("t", vec![]),
        Input::Online(online) => ("n", vec![flag(online)]),
        Input::Hide { gone } => ("h", vec![flag(gone)]),
        Input::Show => ("v", vec![]),
        Input::Leader(leader) => ("L", vec![flag(leader)]),
        Input::Consent(consent) => ("C", vec![choice(consent)]),
    };
    [vec![op.to_owned()], fields].concat().join("\u{1f}")
}

fn choice(consent: Consent) -> String {
    match consent {
        Consent::Granted => "0",
        Consent::Pending => "1",
        Consent::Denied => "2",
    }
    .to_owned()
}

fn tracked(event: &Tracked<'_>) -> Vec<String> {
    let priority = match event.priority {
        Priority::BestEffort => "0",
        Priority::Normal => "1",
        Priority::Critical => "2",
    };
    let id = event.id.map_or(String::new(), |id| format!("{id:?}"));
    let texts = [priority, event.timestamp, event.type_json, event.metadata_json, event.context_json, &id];
    texts.map(str::to_owned).to_vec()
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("traces").join(format!("{name}.jsonl"))
}

fn lines(steps: &[Step]) -> String {
    let line = |step: &Step| json!([step.input, step.now, step.entropy, step.commands]).to_string() + "\n";
    steps.iter().map(line).collect()
}

/// Compares with the file, or writes it.
#[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the tests")]
fn keep(name: &str, steps: &[Step]) {
    let now = lines(steps);
    if std::env::var_os("RIVULET_RECORD").is_some() {
        fs::create_dir_all(file(name).parent().unwrap()).unwrap();
        fs::write(file(name), &now).unwrap();
    }
    let kept = fs::read_to_string(file(name)).unwrap_or_default();
    for (at, (now, kept)) in now.lines().zip(kept.lines()).enumerate() {
        assert_eq!(now, kept, "{name}, line {}: the engine does something else than was recorded", at + 1);
    }
    assert_eq!(now.lines().count(), kept.lines().count(), "{name}: RIVULET_RECORD=1 records it anew");
}

/// One visit with everything that the schedules have not: inputs beside the time at which they come.
fn visit() -> Vec<(u64, String)> {
    let event = |kind: &str, metadata: &str| Tracked {
        priority: Priority::Normal,
        timestamp: "2026-11-25T04:00:00.000Z",
        type_json: Box::leak(json!(kind).to_string().into_boxed_str()),
        metadata_json: Box::leak(metadata.to_owned().into_boxed_str()),
        context_json: r#"{"locale":"de"}"#,
        id: sdk_wasm::EventId::parse("018f15a3-75a3-47ff-bfff-ffffffffffff").filter(|_| kind == "purchase"),
    };
    let hello = r#"{"type":"hello","session":"s1","resumed":0,"credit":2,"server_time":1,"limits":{"event_bytes":65536,"batch_bytes":4194304,"batch_events":2500,"depth":32,"ack":"disk"}}"#;
    let decision = r#"{"decision_id":"5b0d5f3e-8a57-5c44-9a3f-d0e694b73e12","slot":"home_banner","payload":{"title":"é 🐲"}}"#;
    let pushed = format!(r#"{{"type":"decision","decision":{decision}}}"#);
    let long = format!(r#"{{"text":"🐲 {}"}}"#, "é".repeat(70_000 / 2));
    let mut at = 0;
    let mut inputs: Vec<Input<'_>> = vec![
        Input::Restored { key: "a", value: "0190a5d5-5a2b-7000-8000-00000000000a" },
        Input::Restored { key: "u", value: r#""u\"1""# },
        Input::Restored { key: "s", value: "0190a5d5-5a2b-7000-8000-00000000000b 1763999999999" },
        Input::Online(true),
        Input::Start { key: "wk_dev", sdk: "trace", socket: true, consent: Consent::Pending },
        Input::Track(event("held", "{}")),
        Input::Consent(Consent::Granted),
        Input::Leader(true),
        Input::SocketOpen,
        Input::SocketFrame(hello),
        Input::SocketFrame(&pushed),
        Input::SocketFrame(&pushed),
        Input::Decision(decision),
        Input::SocketFrame("<html>"),
        Input::SocketFrame(r#"{"type":"pace","retry_after_ms":2500}"#),
    ];
    for n in 0..30 {
        let metadata = format!(r#"{{"n":{n},"x":"{}"}}"#, "é🐲".repeat(n));
        inputs.push(Input::Track(event("product_view", &metadata)));
    }
    inputs.extend([
        Input::Track(event("purchase", r#"{"total":12.5}"#)),
        Input::Track(event("purchase", r#"{"total":12.5}"#)),
        Input::Track(event("large", &long)),
        Input::Flush,
        Input::Timer,
        Input::SocketFrame(r#"{"type":"ack","seq":1,"cumulative":1,"credit":2,"server_time":2,"events":[{"event_id":"018f15a3-75a3-47ff-bfff-ffffffffffff","status":"accepted","acked":"disk"}]}"#),
        Input::PutFailed { key: "e:018f15a3-75a3-47ff-bfff-ffffffffffff" },
        Input::Cleared,
        Input::Stored { key: "u", value: None },
        Input::Identify { user_json: r#""u2""#, event: event("identify", r#"{"traits":{}}"#) },
        Input::SocketClosed,
        Input::Hide { gone: false },
        Input::Show,
        Input::Hide { gone: true },
        Input::Show,
        Input::Timer,
        Input::Reset,
        Input::Track(event("after", "{}")),
        Input::Online(false),
        Input::Leader(false),
        Input::Consent(Consent::Denied),
        Input::Track(event("never", "{}")),
        Input::Timer,
    ]);
    let mut stamped = Vec::new();
    for input in inputs {
        at += 997;
        stamped.push((START + at, pack(&input)));
    }
    stamped
}

fn play(inputs: Vec<(u64, String)>) -> Vec<Step> {
    let mut engine = Engine::default();
    let mut word = 7_u32;
    let mut random = || {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        word
    };
    let mut step = |(now, input): (u64, String)| {
        let entropy = [random(), random(), random(), random()];
        let commands = packed::step(&mut engine, &input, now, entropy);
        Step { input, now, entropy, commands }
    };
    inputs.into_iter().map(&mut step).collect()
}

#[test]
fn the_engine_does_what_was_recorded() {
    keep("visit", &play(visit()));
    for (seed, misfortunes) in SCHEDULES {
        let mut world = World::new(seed);
        for _ in 0..misfortunes {
            world.misfortune();
        }
        world.heal();
        let steps = &world.record[..world.record.len().min(LINES)];
        keep(&format!("schedule-{seed}"), steps);
    }
}

#[test]
fn what_was_recorded_is_replayed_byte_for_byte() {
    let mut ops = String::new();
    for entry in fs::read_dir(file("visit").parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        let mut engine = Engine::default();
        for (at, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let step: Value = serde_json::from_str(line).unwrap();
            let words: Entropy = serde_json::from_value(step[2].clone()).unwrap();
            let input = step[0].as_str().unwrap();
            let said = packed::step(&mut engine, input, step[1].as_u64().unwrap(), words);
            assert_eq!(said, step[3].as_str().unwrap(), "{} line {}", path.display(), at + 1);
            ops.extend(input.chars().next());
            ops.extend(
                said.split('\u{1e}')
                    .filter_map(|command| command.chars().next())
                    .map(|op| (op as u8 | 0x80) as char),
            );
        }
    }
    for op in "RSIPXTUZFofcdAtnhvLC".chars() {
        assert!(ops.contains(op), "no trace has the input {op}");
    }
    for op in "PDOSXHTVI".chars() {
        assert!(ops.contains((op as u8 | 0x80) as char), "no trace has the command {op}");
    }
}
