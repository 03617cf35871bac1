//! Whatever comes in: a clear refusal or a verdict, never a fault of ours, and the next event is taken as if nothing had been.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tests::client::{self, Answer, Client};
use tests::events::{self, Random};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::Rivulet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const JSON: (&str, &str) = ("content-type", "application/json");

/// The most memory the program may have needed at its worst moment here.
const PEAK_BELOW_KIB: u64 = 256 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_with_something_wrong_inside_costs_only_itself() {
    let _timed = Timed::new("hostile: events");
    let mut rivulet = Rivulet::up().await;
    let mut random = Random::new(4);
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let with = |metadata: &str| format!(r#"{{"event_type":"x_custom","user_id":"h","metadata":{metadata}}}"#);
    let top = |members: &str| format!(r#"{{"event_type":"x_custom","user_id":"h",{members}}}"#);
    let rejected: Vec<(&str, String, &str)> = vec![
        ("nesting of 100", with(&format!(r#"{{"a":{}}}"#, deep(100))), "json.depth"),
        ("NUL in a name", with(r#"{"a\u0000b":1}"#), "json.control_character"),
        ("number of 400 digits", with(&format!(r#"{{"n":{}}}"#, "9".repeat(400))), "json.number"),
        ("number beyond any double", with(r#"{"n":1e400}"#), "json.number"),
        ("half of a surrogate pair", with(r#"{"s":"\ud83d"}"#), "json.unicode"),
        ("half of a surrogate pair in a name", with(r#"{"\udc00":1}"#), "json.unicode"),
        ("a name twice", with(r#"{"a":1,"a":2}"#), "json.duplicate_name"),
        ("a name twice, once escaped", with(r#"{"a":1,"\u0061":2}"#), "json.duplicate_name"),
        ("a name twice at the top", top(r#""user_id":"other""#), "json.duplicate_name"),
        ("a name twice, deep", with(r#"{"l":[{"x":{"k":null,"k":null}}]}"#), "json.duplicate_name"),
        ("a receipt of its own", top(r#""receipt":{"source":"admin"}"#), "event.reserved_field"),
        ("a receipt, escaped", top(r#""recei\u0070t":{}"#), "event.reserved_field"),
        (
            "a control record",
            r#"{"event_type":"rivulet.merge","user_id":"h"}"#.to_owned(),
            "event.type_reserved",
        ),
        ("nobody", r#"{"event_type":"page_view","metadata":{}}"#.to_owned(), "identity.missing"),
        ("no type", r#"{"user_id":"h"}"#.to_owned(), "event.field_missing"),
        ("an empty type", r#"{"event_type":"","user_id":"h"}"#.to_owned(), "event.field_invalid"),
        ("a type that is a number", r#"{"event_type":7,"user_id":"h"}"#.to_owned(), "event.field_invalid"),
        (
            "a type too long",
            format!(r#"{{"event_type":"{}","user_id":"h"}}"#, "t".repeat(129)),
            "event.field_invalid",
        ),
        ("metadata that is no object", with("[]"), "event.field_invalid"),
        ("a time that is none", top(r#""timestamp":"banana""#), "event.field_invalid"),
        ("a bare number", "7".to_owned(), "event.not_object"),
        ("null", "null".to_owned(), "event.not_object"),
        (
            "larger than an event may be",
            with(&format!(r#"{{"s":"{}"}}"#, "x".repeat(70_000))),
            "event.too_large",
        ),
        ("a literal that is none", with(r#"{"a":nul}"#), "json.syntax"),
        ("a control character in a string", with("{\"a\":\"x\u{1}y\"}"), "json."),
        ("a leading zero", with(r#"{"a":012}"#), "json.syntax"),
        ("an unknown escape", with(r#"{"a":"\q"}"#), "json.syntax"),
        ("a trailing comma", with(r#"{"a":1,}"#), "json.syntax"),
    ];
    for (name, bad, code) in &rejected {
        let good =
            [0, 1].map(|_| events::page_view(&mut random, &events::of_user("hostile-good")).to_string());
        let answer = rivulet.client().send(format!("[{},{bad},{}]", good[0], good[1])).await;
        assert_eq!(answer.status, 207, "{name}: {}", answer.text);
        assert_eq!(answer.statuses(), ["accepted", "rejected", "accepted"], "{name}: {}", answer.text);
        let told = answer.verdicts()[1]["reason"]["code"].as_str().unwrap_or_default();
        assert!(told.starts_with(code), "{name}: expected {code}: {}", answer.text);
        let alone =
            rivulet.client().send_with(&[("content-type", "application/x-ndjson")], bad.clone()).await;
        assert!([400, 413, 422].contains(&alone.status), "{name} alone: {} {}", alone.status, alone.text);
    }
    well(&mut rivulet).await;
    assert_eq!(
        log::events(&rivulet).await.len(),
        rejected.len() * 2 + 1,
        "nothing of the bad ones is on the log"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_but_lawful_events_are_accepted_as_they_are() {
    let _timed = Timed::new("hostile: lawful");
    let mut rivulet = Rivulet::up().await;
    let with =
        |metadata: &str| format!(r#"{{"event_type":"x_custom","user_id":"odd","metadata":{metadata}}}"#);
    let lawful = [
        ("a byte-order mark before the body", format!("\u{feff}{}", with("{}"))),
        ("white space around", format!(" \r\n\t{} \n\n", with("{}"))),
        ("a member nobody knows", r#"{"event_type":"x_custom","user_id":"odd","colour":"blue"}"#.to_owned()),
        ("an empty name", with(r#"{"":1}"#)),
        ("quotes, backslashes, slashes", with(r#"{"a":"\"\\\/\b\f\n\r\t"}"#)),
        ("right-to-left and emoji", with(r#"{"a":"\u202Eevil 👩‍👩‍👧"}"#)),
        ("nesting of 25", with(&format!(r#"{{"a":{}{}}}"#, "[".repeat(25), "]".repeat(25)))),
        ("an id that is a number", r#"{"event_type":"x_custom","user_id":12345,"metadata":{}}"#.to_owned()),
        (
            "an id with colons and blanks",
            r#"{"event_type":"x_custom","user_id":"a:b c/d?e=f","metadata":{}}"#.to_owned(),
        ),
        ("names of prototypes", with(r#"{"__proto__":{"x":1},"constructor":2}"#)),
    ];
    for (name, body) in &lawful {
        let answer = rivulet.client().send(body.clone()).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text);
    }
    assert_eq!(log::events(&rivulet).await.len(), lawful.len());
    well(&mut rivulet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_taken_is_refused_as_a_whole_with_a_code_and_a_way_on() {
    let _timed = Timed::new("hostile: requests");
    let mut rivulet = Rivulet::up().await;
    let client = rivulet.client();
    let good = events::EXAMPLE;
    let gzip = ("content-encoding", "gzip");
    let many = format!("[{}]", vec!["{}"; 2_501].join(","));
    let refused: Vec<(&str, Client, Vec<(&str, &str)>, Vec<u8>, u16, &str)> = vec![
        ("truncated JSON", client.clone(), vec![JSON], good[..40].into(), 400, "body.syntax"),
        ("truncated array", client.clone(), vec![JSON], format!("[{good},").into(), 400, "body.syntax"),
        ("garbage", client.clone(), vec![JSON], b"\xff\xfe\x00".to_vec(), 400, "body.syntax"),
        ("nothing", client.clone(), vec![JSON], Vec::new(), 400, "body.empty"),
        ("an empty array", client.clone(), vec![JSON], b"[]".to_vec(), 400, "body.empty"),
        ("a wrong key", client.with_key("wk_wrong"), vec![JSON], good.into(), 401, "key.unknown"),
        ("no key", client.keyless(), vec![JSON], good.into(), 401, "key.missing"),
        (
            "a foreign origin",
            client.clone(),
            vec![JSON, ("origin", "https://evil.example")],
            good.into(),
            403,
            "key.origin_not_allowed",
        ),
        (
            "a null origin",
            client.clone(),
            vec![JSON, ("origin", "null")],
            good.into(),
            403,
            "key.origin_not_allowed",
        ),
        (
            "an origin that only looks local",
            client.clone(),
            vec![JSON, ("origin", "http://localhost.evil.example")],
            good.into(),
            403,
            "key.origin_not_allowed",
        ),
        ("5 MB", client.clone(), vec![JSON], big(5 << 20), 413, "body.too_large"),
        (
            "5 MB, inflated",
            client.clone(),
            vec![JSON, gzip],
            client::gzip(&big(5 << 20)),
            413,
            "body.too_large",
        ),
        ("a bomb", client.clone(), vec![JSON, gzip], bomb(1 << 30), 413, "body.too_large"),
        ("gzip that is none", client.clone(), vec![JSON, gzip], good.into(), 400, "body.compression"),
        (
            "gzip cut short",
            client.clone(),
            vec![JSON, gzip],
            cut(client::gzip(good.as_bytes()), 9),
            400,
            "body.compression",
        ),
        (
            "an unknown encoding",
            client.clone(),
            vec![JSON, ("content-encoding", "lzma")],
            good.into(),
            415,
            "body.unsupported",
        ),
        (
            "an unknown type",
            client.clone(),
            vec![("content-type", "application/xml")],
            good.into(),
            415,
            "body.unsupported",
        ),
        ("too many events", client.clone(), vec![JSON], many.into(), 413, "batch.too_many_events"),
    ];
    for (name, client, headers, body, status, code) in refused {
        let answer = client.send_with(&headers, body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{name}: {}", answer.text);
        assert!(answer.json.get("events").is_none(), "{name}: no verdicts: {}", answer.text);
        assert!(
            answer.json["error"]["message"].as_str().is_some_and(|text| text.len() > 10),
            "{name}: {}",
            answer.text
        );
        if headers.iter().any(|(header, _)| *header == "origin") {
            assert!(
                answer.header("access-control-allow-origin").is_some(),
                "{name}: a page can read why: {:?}",
                answer.headers
            );
        }
    }
    for (method, path, status) in [
        ("GET", "/v1/events", 405),
        ("PUT", "/v1/events", 405),
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/limits", 405),
    ] {
        let method = method.parse().unwrap();
        let answer = client.request(method, path, &[], None).await.unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
    assert!(log::events(&rivulet).await.is_empty(), "nothing of it is on the log");
    assert!(
        log::cat(&rivulet, "rivulet.quarantine").await.iter().all(|record| !record.line.contains("wk_wrong"))
    );
    well(&mut rivulet).await;
    let peak = rivulet.memory_kib("VmHWM");
    eprintln!("peak {peak} KiB");
    assert!(peak < PEAK_BELOW_KIB, "{peak} KiB at its worst");
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
    let answer = rivulet
        .client()
        .keyless()
        .request(reqwest::Method::OPTIONS, "/v1/events", &preflight, None)
        .await
        .unwrap();
    assert!((200..300).contains(&answer.status), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://any.example"));
    assert!(
        answer
            .headers
            .iter()
            .any(|(name, value)| name == "vary"
                && value.to_lowercase().split(',').any(|v| v.trim() == "origin")),
        "{answer:?}"
    );
    for origin in ["http://localhost:5173", "http://127.0.0.1:1", "http://[::1]:8080", "http://localhost"] {
        let event = events::page_view(&mut Random::new(5), &events::of_user("origin")).to_string();
        let answer = rivulet.client().send_with(&[JSON, ("origin", origin)], event).await;
        assert_eq!(answer.status, 200, "{origin}: {}", answer.text);
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{answer:?}");
    }
    let answer = rivulet.client().get("/v1/profiles/user:origin").await.unwrap();
    assert!([401, 403].contains(&answer.status), "a public key read a profile: {}", answer.text);
    well(&mut rivulet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_http_does_not_reach_the_next_visitor() {
    let _timed = Timed::new("hostile: http");
    let mut rivulet = Rivulet::up().await;
    let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wk_dev\r\ncontent-type: application/json\r\n";
    let broken: Vec<(&str, Vec<u8>)> = vec![
        ("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("a header without an end", format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(200_000)).into()),
        ("two lengths", format!("{head}content-length: 3\r\ncontent-length: 4\r\n\r\n[]]]").into()),
        ("a length that is none", format!("{head}content-length: -1\r\n\r\n").into()),
        (
            "length and chunks",
            format!("{head}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").into(),
        ),
        ("a broken chunk", format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n[]\r\n0\r\n\r\n").into()),
        ("a body cut short", format!("{head}content-length: 100\r\n\r\n[{{\"event_type\":").into()),
        ("NUL in a path", b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
    ];
    for (name, bytes) in broken {
        let mut stream = tokio::net::TcpStream::connect(rivulet.address()).await.unwrap();
        // Whether it is read to the end is the program's choice.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = faults::bounded(name, SOON, stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.starts_with("HTTP/1.1 5") && !answer.starts_with("HTTP/1.1 2"), "{name}: {answer}");
    }
    assert!(log::events(&rivulet).await.is_empty());
    well(&mut rivulet).await;
}

/// Panics unless the program lives and takes the next event.
pub(crate) async fn well(rivulet: &mut Rivulet) {
    let answer: Answer = rivulet
        .client()
        .send(events::page_view(&mut Random::new(6), &events::of_user("well")).to_string())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    rivulet.assert_alive();
    let log = rivulet.stderr();
    assert!(!log.contains("panicked"), "something panicked: {log}");
}

fn big(bytes: usize) -> Vec<u8> {
    let event = json!({ "event_type": "x_custom", "user_id": "h", "metadata": { "s": "x".repeat(1000) } })
        .to_string();
    format!("[{}]", vec![event.as_str(); bytes / event.len() + 1].join(",")).into()
}

fn bomb(bytes: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![b'0'; 1 << 20];
    for _ in 0..bytes / zeros.len() {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

fn cut(mut bytes: Vec<u8>, by: usize) -> Vec<u8> {
    bytes.truncate(bytes.len() - by);
    bytes
}
