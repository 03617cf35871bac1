//! Recorded traces: what an engine was told, and what it said, kept in `traces/`.
//!
//! A line is one step, as JSON: `[input, now, random word, commands]`, input and commands as packed text. `RIVULET_RECORD=1`
//! writes the files anew; a change of them is a change of what the engine does, to be read before it is committed.
//!
//! **Invariant checked:** the same inputs give the same commands, byte for byte, here and in the builds for the browser.

use std::fs;
use std::path::PathBuf;

use sdk_wasm::{Consent, Engine, Greeting, Input, Millis, Priority, Tracked, Verdicts, packed};
use serde_json::{Value, json};

use crate::world::World;

/// One step of an engine.
pub(crate) struct Step {
    pub(crate) input: String,
    pub(crate) now: Millis,
    pub(crate) random: u32,
    pub(crate) commands: String,
}

/// Schedules worth keeping: seed, and steps of misfortune.
const SCHEDULES: [(u64, u32); 3] = [(11, 60), (1_234, 60), (77_001, 60)];
const PURCHASE: &str = "018f15a3-75a3-47ff-bfff-ffffffffffff";
/// Most lines of a schedule that are kept.
const LINES: usize = 240;
const START: Millis = 1_764_000_000_000.0;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("traces").join(format!("{name}.jsonl"))
}

fn lines(steps: &[Step]) -> String {
    let line = |step: &Step| json!([step.input, step.now, step.random, step.commands]).to_string() + "\n";
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
#[expect(clippy::too_many_lines, reason = "one visit from beginning to end")]
fn visit() -> Vec<(Millis, String)> {
    let mut minted = 0;
    let mut event = |kind: &str, metadata: &str| {
        minted += 1;
        let id = if kind == "purchase" {
            PURCHASE.into()
        } else {
            format!("0190a5d5-5a2b-7000-8000-{minted:012x}")
        };
        let json = json!({"event_type": kind, "timestamp": "2026-11-25T04:00:00.000Z"}).to_string();
        let json =
            format!(r#"{},"metadata":{metadata},"context":{{"locale":"de"}}"#, &json[1..json.len() - 1]);
        Tracked { priority: Priority::Normal, id: leak(id), json: leak(json) }
    };
    let limits =
        Greeting { resumed: 0, credit: 2, event_bytes: 65_536, batch_bytes: 4_194_304, batch_events: 2_500 };
    let decision = Input::Decision {
        id: "5b0d5f3e-8a57-5c44-9a3f-d0e694b73e12",
        json: r#"{"decision_id":"5b0d5f3e-8a57-5c44-9a3f-d0e694b73e12","slot":"home_banner","payload":{"title":"é 🐲"}}"#,
    };
    let long = format!(r#"{{"text":"🐲 {}"}}"#, "é".repeat(70_000 / 2));
    let accepted = leak(format!(
        "a\u{1f}{PURCHASE}\u{1f}{{\"event_id\":\"{PURCHASE}\",\"status\":\"accepted\",\"acked\":\"disk\"}}"
    ));
    let purchase_key = leak(format!("e:{PURCHASE}"));
    let mut at = START;
    let mut inputs: Vec<Input<'_>> = vec![
        Input::Restored { key: "a", value: "0190a5d5-5a2b-7000-8000-00000000000a" },
        Input::Restored { key: "u", value: r#""u\"1""# },
        Input::Restored { key: "s", value: "0190a5d5-5a2b-7000-8000-00000000000b 1763999999999" },
        Input::Online(true),
        Input::Start { socket: true, consent: Consent::Pending },
        Input::Track(event("held", "{}")),
        Input::Consent(Consent::Granted),
        Input::Leader(true),
        Input::Restored { key: "d:0190a5d5-5a2b-7000-8000-00000000000d", value: "f 12" },
        Input::Restored { key: "e:0190a5d5-5a2b-7000-8000-00000000000e", value: "no event" },
        Input::SocketOpen,
        Input::Greeted(limits),
        decision,
        decision,
        Input::Heard,
        Input::Pace(2_500.0),
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
        Input::Ack { seq: 1, cumulative: 1, credit: 2, verdicts: Verdicts(Some(accepted)) },
        Input::Refused { code: "key.unknown" },
        Input::PutFailed { key: purchase_key },
        Input::Cleared,
        Input::Stored { key: "u", value: None },
        Input::Stored { key: "d:0190a5d5-5a2b-7000-8000-00000000000c", value: Some("x 3") },
        Input::Identify { user_json: r#""u2""#, event: event("identify", r#"{"traits":{}}"#) },
        Input::SocketClosed,
        Input::Hide { gone: false },
        Input::Show,
        Input::Hide { gone: true },
        Input::Show,
        Input::Timer,
        Input::Reset { device: "0190a5d5-5a2b-7000-8000-00000000000f" },
        Input::Http(sdk_wasm::Answer {
            request: 1,
            status: 413,
            retry_after: 0.0,
            code: "body.too_large",
            verdicts: Verdicts(None),
        }),
        Input::Track(event("after", "{}")),
        Input::Online(false),
        Input::Leader(false),
        Input::Consent(Consent::Denied),
        Input::Track(event("never", "{}")),
        Input::Timer,
    ]);
    let stamp = |input: Input<'_>| {
        at += 997.0;
        (at, packed::write(&input))
    };
    inputs.into_iter().map(stamp).collect()
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn play(inputs: Vec<(Millis, String)>) -> Vec<Step> {
    let mut engine = Engine::default();
    let mut word = 7_u32;
    let mut random = || {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        word
    };
    let mut step = |(now, input): (Millis, String)| {
        let random = random();
        let commands = engine.step_packed(&input, now, random).into_string();
        Step { input, now, random, commands }
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
            let (now, random) = (step[1].as_f64().unwrap(), step[2].as_u64().unwrap());
            let input = step[0].as_str().unwrap();
            let said = engine.step_packed(input, now, u32::try_from(random).unwrap()).into_string();
            assert_eq!(said, step[3].as_str().unwrap(), "{} line {}", path.display(), at + 1);
            ops.extend(input.chars().next());
            ops.extend(
                said.split('\u{1e}')
                    .filter_map(|command| command.chars().next())
                    .map(|op| (op as u8 | 0x80) as char),
            );
        }
    }
    for op in "RSIPXTUZFogaweycdAtnhvLC".chars() {
        assert!(ops.contains(op), "no trace has the input {op}");
    }
    for op in "PDZOSXHTV".chars() {
        assert!(ops.contains((op as u8 | 0x80) as char), "no trace has the command {op}");
    }
}
