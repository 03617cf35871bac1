//! Requests that cannot be taken, and some that only look so.

use tests::client::{self, Answer};
use tests::corpus::{self, Case};
use tests::events::{self, Random, of_user};
use tests::faults::Timed;
use tests::log;
use tests::rivulet::Rivulet;

use super::{all, slim, well};

const KNOWN: [&str; 13] = [
    "body", "method", "path", "key", "type", "headers", "encode", "encoding", "cut", "behind", "status",
    "code", "statuses",
];

/// The body of a case, and what `Content-Encoding` says.
fn body(case: &Case, random: &mut Random) -> (Vec<u8>, String) {
    let mut body = corpus::expand_with(case.text("body").unwrap(), |mark| {
        assert_eq!(mark, "good");
        events::page_view(random, &of_user("hostile")).to_string().into()
    });
    for encoding in case.texts("encode") {
        body = match encoding {
            "gzip" => client::gzip(&body),
            "deflate" => client::zlib(&body),
            "br" => client::brotli(&body),
            "zstd" => client::zstd(&body),
            _ => panic!("{}: {encoding}?", case.name),
        };
    }
    let cut = usize::try_from(case.number("cut").unwrap_or(0)).unwrap();
    body.truncate(body.len() - cut);
    body.extend(case.bytes("behind").unwrap_or_default());
    (body, case.text("encoding").map_or_else(|| case.texts("encode").join(", "), str::to_owned))
}

async fn send(case: &Case, body: Vec<u8>, encoding: &str, rivulet: &Rivulet) -> Answer {
    let mut headers = case.pairs("headers");
    let content_type = case.text("type").unwrap_or("application/json");
    for (name, value) in [("content-type", content_type), ("content-encoding", encoding)] {
        if !value.is_empty() {
            headers.push((name, value));
        }
    }
    let key = case.bytes("key").map_or_else(|| "wk_dev".to_owned(), |key| String::from_utf8(key).unwrap());
    let client = if key.is_empty() { rivulet.client().keyless() } else { rivulet.client().with_key(&key) };
    let method = case.text("method").unwrap_or("POST").parse().unwrap();
    let path = case.text("path").unwrap_or("/v1/events");
    client
        .request(method, path, &headers, Some(body))
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", case.name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_taken_is_refused_as_a_whole_with_a_code_and_a_way_on() {
    let _timed = Timed::new("hostile: requests");
    let mut rivulet = Rivulet::up().await;
    let cases = corpus::load("requests.toml", "request", "name", &KNOWN);
    let mut random = Random::new(50);
    // All of it first: to compress takes a while, and nothing may hold up a body that is under way.
    let prepared: Vec<_> = cases.iter().map(|case| (case, body(case, &mut random))).collect();
    let program = &rivulet;
    let tries = prepared.into_iter().map(|(case, (body, encoding))| async move {
        let answer = send(case, body, &encoding, program).await;
        judge(case, &answer);
        answer.verdicts().len()
    });
    let accepted: usize = all(tries).await.iter().sum();
    assert_eq!(log::events(&rivulet).await.len(), accepted, "nothing of what was refused is on the log");
    let kept = log::cat(&rivulet, "rivulet.quarantine").await;
    assert!(kept.is_empty(), "bodies refused as a whole are not kept: {kept:?}");
    well(&mut rivulet).await;
    eprintln!("{} requests", cases.len());
    slim(&rivulet);
}

fn judge(case: &Case, answer: &Answer) {
    let name = &case.name;
    let statuses = case.texts("statuses");
    if !statuses.is_empty() {
        assert_eq!((answer.status, answer.statuses()), (200, statuses), "{name}: {}", answer.text);
        return;
    }
    let right = (u16::try_from(case.number("status").unwrap()).unwrap(), case.text("code").unwrap());
    assert_eq!((answer.status, answer.code()), right, "{name}: {}", answer.text);
    assert!(answer.json.get("events").is_none(), "{name}: no verdicts: {}", answer.text);
    let message = answer.json["error"]["message"].as_str().unwrap_or_default();
    assert!(message.len() > 10 && message.ends_with(['.', ')']), "{name}: says what to do: {}", answer.text);
    assert_eq!(answer.json["error"]["docs"], format!("docs/errors/{}.md", right.1), "{name}");
    let vary = answer.headers.iter().any(|(header, value)| header == "vary" && value.contains("Origin"));
    assert!(vary || answer.status == 404, "{name}: {:?}", answer.headers);
    for (header, value) in case.pairs("headers") {
        if header == "origin" {
            let told = answer.header("access-control-allow-origin");
            assert_eq!(told, Some(value), "{name}: a page can read why: {:?}", answer.headers);
        }
    }
}
