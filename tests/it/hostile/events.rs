//! Events with something wrong inside, and events that only look so.

use std::collections::HashMap;

use serde_json::Value;
use tests::client::{Answer, Client};
use tests::corpus::{self, Case};
use tests::events::{self, Random, of_user};
use tests::faults::Timed;
use tests::log;
use tests::rivulet::Rivulet;
use tests::socket::Socket;

use super::{all, slim, well};
use crate::accept::Kept;

const JSON: (&str, &str) = ("content-type", "application/json");
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

/// The event of a case: given whole, or as a part of an event that is otherwise right.
fn event(case: &Case) -> Vec<u8> {
    let around = |before: &str, inside: Vec<u8>| [before.as_bytes(), &inside, b"}"].concat();
    let part = |member: &str| case.bytes(member);
    let whole = part("event");
    let metadata =
        || part("metadata").map(|it| around(r#"{"event_type":"x_custom","user_id":"odd","metadata":"#, it));
    let members = || part("members").map(|it| around(r#"{"event_type":"x_custom","user_id":"odd","#, it));
    whole.or_else(metadata).or_else(members).unwrap_or_else(|| panic!("{} has no event", case.name))
}

/// Panics unless the middle one of three is rejected by the case's code and place, and its neighbours are accepted.
fn judge(case: &Case, form: &str, verdicts: &Value) {
    let name = &case.name;
    let status = |place: usize| verdicts[place]["status"].as_str().unwrap_or("none");
    let statuses = [status(0), status(1), status(2)];
    assert_eq!(statuses, ["accepted", "rejected", "accepted"], "{name}, {form}: {verdicts}");
    let reason = &verdicts[1]["reason"];
    let code = reason["code"].as_str().unwrap_or_default();
    assert!(code.starts_with(case.text("code").unwrap()), "{name}, {form}: {verdicts}");
    if let Some(pointer) = case.text("pointer") {
        assert_eq!(reason["pointer"], pointer, "{name}, {form}: {verdicts}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_with_something_wrong_inside_costs_only_itself() {
    let _timed = Timed::new("hostile: events");
    let mut rivulet = Rivulet::up().await;
    let known = ["event", "metadata", "members", "code", "pointer", "only_lines"];
    let cases = corpus::load("events.toml", "event", "name", &known);
    let mut random = Random::new(4);
    let (client, address) = (rivulet.client(), rivulet.address().to_owned());
    let tries = cases.iter().map(|case| {
        let good: Vec<String> =
            (0..6).map(|_| events::page_view(&mut random, &of_user("hostile-good")).to_string()).collect();
        let (client, address) = (client.clone(), address.clone());
        async move { try_event(case, &good, &client, &address).await }
    });
    let tries: Vec<_> = tries.collect();
    let accepted: usize = all(tries).await.iter().sum();
    well(&mut rivulet).await;

    let records = log::events(&rivulet).await;
    assert_eq!(records.len(), accepted + 1, "nothing of the bad ones is on the log");
    let kept = Kept::read(&rivulet).await;
    for case in &cases {
        assert!(kept.has(&event(case)), "{}: its bytes are not in quarantine", case.name);
    }
    eprintln!("{} events refused", cases.len());
    slim(&rivulet);
}

/// Sends a case in every form that can carry it; how many neighbours were accepted.
async fn try_event(case: &Case, good: &[String], client: &Client, address: &str) -> usize {
    let bad = event(case);
    let mut accepted = 0;
    if !case.flag("only_lines", false) {
        let array = [b"[", good[0].as_bytes(), b",", &bad, b",", good[1].as_bytes(), b"]"].concat();
        let answer = client.send_with(&[JSON], array).await;
        assert_eq!(answer.status, 207, "{}: {}", case.name, answer.text);
        judge(case, "array", &answer.json["events"]);
        accepted += 2;
        if let Ok(text) = std::str::from_utf8(&bad) {
            let (mut socket, _) = Socket::hello(address, None).await;
            let batch = format!(r#"{{"type":"batch","seq":1,"events":[{},{text},{}]}}"#, good[2], good[3]);
            assert!(socket.raw(tokio_tungstenite::tungstenite::Message::text(batch)).await);
            judge(case, "socket", &socket.expect("ack").await["events"]);
            accepted += 2;
        }
    }
    if !bad.contains(&b'\n') {
        let lines = [good[4].as_bytes(), b"\n", &bad, b"\n", good[5].as_bytes()].concat();
        let answer: Answer = client.send_with(&[LINES], lines).await;
        assert_eq!(answer.status, 207, "{}: {}", case.name, answer.text);
        judge(case, "lines", &answer.json["events"]);
        accepted += 2;
        let alone = client.send_with(&[LINES], bad).await;
        assert_eq!(alone.status, 422, "{} alone: {}", case.name, alone.text);
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_but_lawful_events_are_accepted_as_they_are() {
    let _timed = Timed::new("hostile: lawful");
    let mut rivulet = Rivulet::up().await;
    let cases = corpus::load("lawful.toml", "event", "name", &["event", "metadata", "members", "warning"]);
    for case in &cases {
        let answer = rivulet.client().send(event(case)).await;
        assert_eq!(answer.statuses(), ["accepted"], "{}: {}", case.name, answer.text);
        if let Some(warning) = case.text("warning") {
            let warned = answer.verdicts()[0]["warnings"].to_string();
            assert!(warned.contains(warning), "{}: {}", case.name, answer.text);
        }
    }
    let records = log::events(&rivulet).await;
    assert_eq!(records.len(), cases.len());
    for case in &cases {
        let event = String::from_utf8(event(case)).unwrap();
        let body = event.trim_end().strip_suffix('}').unwrap().trim_end();
        // A record is printed on one line: white space between two members may be another there.
        let found = |record: &log::Record| record.line.contains(body) || body.contains('\n');
        assert!(records.iter().any(found), "{}: not as sent: {body}", case.name);
    }
    well(&mut rivulet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_of_any_type_is_somebody_or_nobody_or_refused_and_the_same_for_devices() {
    let _timed = Timed::new("hostile: ids");
    let mut rivulet = Rivulet::up().await;
    let cases = corpus::load("ids.toml", "id", "value", &["who", "code"]);
    let mut expected: HashMap<String, Vec<u8>> = HashMap::new();
    for member in ["user_id", "anonymous_id"] {
        let other = if member == "user_id" { "anonymous_id" } else { "user_id" };
        for case in &cases {
            let name = format!("{member}: {}", &case.name[..case.name.len().min(60)]);
            let value = String::from_utf8(corpus::expand(&case.name)).unwrap();
            let alone = format!(r#"{{"event_type":"x_custom","{member}":{value}}}"#);
            let with = format!(r#"{{"event_type":"x_custom","{member}":{value},"{other}":"somebody-else"}}"#);
            let [alone, with] = [rivulet.client().send(alone).await, rivulet.client().send(with).await];
            let nobody = case.text("who") == Some("nobody");
            match (case.text("code"), nobody) {
                (Some(code), _) => {
                    for answer in [alone, with] {
                        assert_eq!(answer.verdicts()[0]["reason"]["code"], code, "{name}: {}", answer.text);
                        assert_eq!(answer.verdicts()[0]["reason"]["pointer"], format!("/{member}"), "{name}");
                    }
                }
                (None, true) => {
                    let reason = &alone.verdicts()[0]["reason"];
                    assert_eq!(reason["code"], "identity.missing", "{name}: {}", alone.text);
                    assert_eq!(with.statuses(), ["accepted"], "{name}: {}", with.text);
                    let warned = with.verdicts()[0]["warnings"].to_string();
                    assert!(value == "null" || warned.contains("identity.nobody"), "{name}: {}", with.text);
                    expected.insert(id(&with), b"somebody-else".to_vec());
                }
                (None, false) => {
                    assert_eq!(alone.statuses(), ["accepted"], "{name}: {}", alone.text);
                    expected.insert(id(&alone), case.bytes("who").unwrap());
                }
            }
        }
    }
    let records = log::events(&rivulet).await;
    for (id, who) in &expected {
        let record = log::find(&records, id).unwrap();
        assert_eq!(record.key.as_bytes(), who, "{}", record.line);
    }
    well(&mut rivulet).await;
}

fn id(answer: &Answer) -> String {
    answer.verdicts()[0]["event_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_may_ask_first_and_only_allowed_pages_get_through() {
    let _timed = Timed::new("hostile: origins");
    let mut rivulet = Rivulet::up().await;
    let preflight = [
        ("origin", "https://any.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let options = reqwest::Method::OPTIONS;
    let answer = rivulet.client().keyless().request(options, "/v1/events", &preflight, None).await.unwrap();
    assert!((200..300).contains(&answer.status), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://any.example"));
    let varies = |(name, value): &(String, String)| {
        name == "vary" && value.to_lowercase().split(',').any(|v| v.trim() == "origin")
    };
    assert!(answer.headers.iter().any(varies), "{answer:?}");
    for origin in ["http://localhost:5173", "http://127.0.0.1:1", "http://[::1]:8080", "http://localhost"] {
        let event = events::page_view(&mut Random::new(5), &of_user("origin")).to_string();
        let answer = rivulet.client().send_with(&[JSON, ("origin", origin)], event).await;
        assert_eq!(answer.status, 200, "{origin}: {}", answer.text);
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{answer:?}");
    }
    let answer = rivulet.client().get("/v1/profiles/user:origin").await.unwrap();
    assert_eq!(answer.status, 403, "a public key read a profile: {}", answer.text);
    well(&mut rivulet).await;
}
