//! The router as a client sees it, without sockets.

mod excess;
mod keys;
mod openapi;
mod pixel;
mod posthog;
mod streams;
mod vendors;
mod vendors_analytics;

use std::io::Write as _;

use axum::body::Body;
use axum::response::Response;
use broker::log::AppendError;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use schemas::topic::Topic;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::GatewayConfig;
use crate::testing::{Stand, stand, value};

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
    json: Value,
}

impl Answer {
    fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or_default()
    }

    fn statuses(&self) -> Vec<&str> {
        let events = self.json["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        events.iter().map(|verdict| verdict["status"].as_str().unwrap()).collect()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn answer(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status: parts.status, headers: parts.headers, text, json }
}

async fn ask(
    stand: &Stand,
    method: Method,
    uri: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Answer {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(stand.gateway.router().oneshot(request.body(body.into()).unwrap()).await.unwrap()).await
}

const KEY: (&str, &str) = ("authorization", "Bearer wk_dev");
const SECRET: (&str, &str) = ("authorization", "Bearer sk_dev");

async fn send(stand: &Stand, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let headers = [&[KEY], headers].concat();
    ask(stand, Method::POST, "/v1/events", &headers, body).await
}

const EXAMPLE: &str = r#"{"event_id":"123e4567-e89b-12d3-a456-426614174000","event_type":"add_to_cart","user_id":"user_789","timestamp":"2024-04-25T14:23:05.123Z","metadata":{"product_id":"product_456","quantity":2}}"#;
const BAD: &str =
    r#"{"event_type":"add_to_cart","user_id":"u","metadata":{"product_id":"p","quantity":"two"}}"#;
const GOOD: &str = r#"{"event_type":"page_view","user_id":"u","metadata":{}}"#;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn the_example_is_accepted_and_its_repeat_is_a_duplicate() {
    let stand = stand(GatewayConfig::default());
    let first = send(&stand, &[("content-type", "application/json")], EXAMPLE).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let right = json!({"events": [{"event_id": "123e4567-e89b-12d3-a456-426614174000", "status": "accepted", "acked": "disk"}]});
    assert_eq!(first.json, right);
    assert_eq!(first.header("content-type"), Some("application/json"));
    let again = send(&stand, &[], EXAMPLE).await;
    assert_eq!((again.status, again.statuses()), (StatusCode::OK, vec!["duplicate"]));
}

#[tokio::test]
async fn the_status_agrees_with_the_verdicts() {
    let stand = stand(GatewayConfig::default());
    for (body, status, statuses) in [
        (format!("[{GOOD},{GOOD}]"), 200, vec!["accepted", "accepted"]),
        (BAD.to_owned(), 422, vec!["rejected"]),
        (format!("{{\"events\":[{GOOD},{BAD}]}}"), 207, vec!["accepted", "rejected"]),
        (format!("{GOOD}\n{GOOD}\n"), 200, vec!["accepted", "accepted"]),
    ] {
        let answer = send(&stand, &[], body).await;
        assert_eq!((answer.status.as_u16(), answer.statuses()), (status, statuses), "{}", answer.text);
        assert_eq!(answer.header("retry-after"), None);
    }
    stand.log.fail(Some(AppendError::Full));
    let answer = send(&stand, &[], format!("[{GOOD},{BAD}]")).await;
    assert_eq!((answer.status.as_u16(), answer.statuses()), (503, vec!["retry", "retry"]));
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(answer.json["events"][0]["reason"]["code"], "log.full");
    let known = format!("[{EXAMPLE}]");
    stand.log.fail(None);
    send(&stand, &[], known.clone()).await;
    stand.log.fail(Some(AppendError::Full));
    let answer = send(&stand, &[], format!("[{EXAMPLE},{GOOD}]")).await;
    assert_eq!((answer.status.as_u16(), answer.statuses()), (207, vec!["duplicate", "retry"]));
    assert_eq!(answer.header("retry-after"), Some("2"));
    let keyed = ask(
        &stand,
        Method::POST,
        "/v1/events",
        &[("x-write-key", "sk_careful")],
        r#"{"event_type":"odd","user_id":"u"}"#,
    );
    assert_eq!(keyed.await.status, 503);
    stand.log.fail(None);
    let keyed = ask(
        &stand,
        Method::POST,
        "/v1/events",
        &[("x-write-key", "sk_careful")],
        r#"{"event_type":"odd","user_id":"u"}"#,
    );
    let keyed = keyed.await;
    assert_eq!((keyed.status.as_u16(), keyed.statuses()), (422, vec!["quarantined"]));
}

#[tokio::test]
async fn a_request_that_cannot_be_taken_is_refused_as_a_whole_with_code_and_cors() {
    let stand = stand(GatewayConfig::default());
    let many = format!("[{}]", vec!["{}"; 16 * 2_500 + 1].join(","));
    let json = ("content-type", "application/json");
    let big = vec![b' '; 5 << 20];
    #[expect(clippy::type_complexity, reason = "a table: name, headers, body, status, code")]
    let refused: Vec<(&str, Vec<(&str, &str)>, Vec<u8>, u16, &str)> = vec![
        ("truncated", vec![KEY, json], EXAMPLE[..40].into(), 400, "body.syntax"),
        ("truncated array", vec![KEY, json], format!("[{EXAMPLE},").into(), 400, "body.syntax"),
        ("garbage", vec![KEY], b"\xff\xfe\0".to_vec(), 400, "body.syntax"),
        ("nothing", vec![KEY], Vec::new(), 400, "body.empty"),
        ("no events", vec![KEY], b"{\"events\":[]}".to_vec(), 400, "body.empty"),
        ("wrong key", vec![("authorization", "Bearer wk_no"), json], EXAMPLE.into(), 401, "key.unknown"),
        ("no key", vec![json], EXAMPLE.into(), 401, "key.missing"),
        (
            "foreign origin",
            vec![KEY, ("origin", "https://evil.example")],
            EXAMPLE.into(),
            403,
            "key.origin_not_allowed",
        ),
        ("5 MB", vec![KEY], big.clone(), 413, "body.too_large"),
        ("5 MB inflated", vec![KEY, ("content-encoding", "gzip")], gzip(&big), 413, "body.too_large"),
        (
            "gzip that is none",
            vec![KEY, ("content-encoding", "gzip")],
            EXAMPLE.into(),
            400,
            "body.compression",
        ),
        (
            "an unknown encoding",
            vec![KEY, ("content-encoding", "lzma")],
            EXAMPLE.into(),
            415,
            "body.unsupported",
        ),
        (
            "an unknown type",
            vec![KEY, ("content-type", "application/xml")],
            EXAMPLE.into(),
            415,
            "body.unsupported",
        ),
        ("too many", vec![KEY], many.into(), 413, "batch.too_many_events"),
    ];
    for (name, mut headers, body, status, code) in refused {
        if !headers.iter().any(|(name, _)| *name == "origin") {
            headers.push(("origin", "http://localhost:3000"));
        }
        let answer = ask(&stand, Method::POST, "/v1/events", &headers, body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{name}: {}", answer.text);
        assert!(answer.json.get("events").is_none(), "{name}");
        assert_eq!(answer.json["error"]["docs"], format!("docs/errors/{code}.md"), "{name}");
        assert!(answer.header("access-control-allow-origin").is_some_and(|origin| origin != "*"), "{name}");
        assert_eq!(answer.header("vary"), Some("Origin"), "{name}");
    }
    let odd = ask(&stand, Method::POST, "/v1/events?ack=heaven", &[KEY], EXAMPLE).await;
    assert_eq!((odd.status.as_u16(), odd.code()), (400, "request.invalid"));
    let secret = ask(&stand, Method::POST, "/v1/events?key=sk_dev", &[], EXAMPLE).await;
    assert_eq!((secret.status.as_u16(), secret.code()), (401, "key.unknown"));
    assert!(stand.log.records(Topic::Events).is_empty() && stand.log.records(Topic::Quarantine).is_empty());
}

#[tokio::test]
async fn surrogate_halves_are_treated_alike_and_whole_pairs_stay_as_sent() {
    let stand = stand(GatewayConfig::default());
    let titles = [
        r#""ok \ud83d\ude00""#,
        r#""cut \ud83d""#,
        r#""\ude00\ud83d""#,
        r#""literal \\ud83d text""#,
        r#""\n\u0041\ud83d\n""#,
    ];
    let event = |title: &str| {
        format!(r#"{{"event_type":"page_view","user_id":"c01","metadata":{{"title":{title}}}}}"#)
    };
    let answer = send(&stand, &[], format!("[{}]", titles.map(event).join(","))).await;
    assert_eq!(
        answer.statuses(),
        ["accepted", "rejected", "rejected", "accepted", "rejected"],
        "{}",
        answer.text
    );
    for bad in [1, 2, 4] {
        assert_eq!(answer.json["events"][bad]["reason"]["pointer"], "/metadata/title");
    }
    let records = stand.log.records(Topic::Events);
    let holds =
        |record: &broker::log::Record, title: &str| String::from_utf8_lossy(&record.value).contains(title);
    assert!(holds(&records[0], titles[0]) && holds(&records[1], titles[3]));
}

#[tokio::test]
async fn gzip_bodies_are_read_to_their_end_or_refused() {
    let stand = stand(GatewayConfig::default());
    let headers = [("content-type", "application/x-ndjson"), ("content-encoding", "x-gzip")];
    let line = format!("{GOOD}\n");
    let two = [gzip(line.as_bytes()), gzip(line.as_bytes())].concat();
    assert_eq!(send(&stand, &headers, two.clone()).await.statuses(), ["accepted", "accepted"]);
    let cut = two[..two.len() - 9].to_vec();
    let answer = send(&stand, &headers, cut).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "body.compression"));
    assert_eq!(stand.log.records(Topic::Events).len(), 2);
}

#[tokio::test]
async fn a_receipt_says_what_the_gateway_saw() {
    let stand = stand(GatewayConfig::default());
    for planted in [
        r#"{"event_type":"page_view","user_id":"c09","received_at":"1999-01-01T00:00:00Z","source":"admin","ip":"1.2.3.4"}"#.to_owned(),
        r#"{"event_type":"page_view","user_id":"c09","recei\u0076ed_at":"1999"}   "#.to_owned(),
        "[{\"event_type\":\"page_view\",\"user_id\":\"c09\"\n\t}\n]\n".to_owned(),
    ] {
        assert_eq!(send(&stand, &[], planted).await.status, 200);
    }
    for record in stand.log.records(Topic::Events) {
        let receipt = value(&record)["receipt"].clone();
        assert_eq!(receipt["source"], "web");
        assert_eq!(receipt["ip"], "127.0.0.0");
        assert_eq!(receipt["received_at"], crate::testing::NOW.to_string());
    }
    let answer = send(&stand, &[], r#"{"event_type":"page_view","user_id":"u","rec\u0065ipt":{}}"#).await;
    assert_eq!(answer.json["events"][0]["reason"]["code"], "event.reserved_field");
}

#[tokio::test]
async fn a_preflight_mirrors_any_origin_and_wrong_methods_name_the_right_ones() {
    let stand = stand(GatewayConfig::default());
    let preflight = [
        ("origin", "https://any.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let answer = ask(&stand, Method::OPTIONS, "/v1/events", &preflight, Body::empty()).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://any.example"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization,content-type"));
    assert!(answer.headers.get_all("vary").iter().any(|vary| vary == "Origin"));
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
        let answer = ask(&stand, method.clone(), "/v1/events", &[KEY], Body::empty()).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("POST, OPTIONS"), "{method}");
        assert_eq!(answer.text.is_empty(), method == Method::HEAD, "{method}");
    }
    assert_eq!(ask(&stand, Method::POST, "/v1/limits", &[], Body::empty()).await.status, 405);
}

#[tokio::test]
async fn limits_live_ready_and_metrics_answer() {
    let stand = stand(GatewayConfig::default());
    send(&stand, &[], format!("[{GOOD},{BAD}]")).await;
    let limits = ask(&stand, Method::GET, "/v1/limits", &[], Body::empty()).await;
    let right = json!({"event_bytes": 65_536, "batch_bytes": 4_194_304, "batch_events": 2_500, "depth": 32, "ack": "disk"});
    assert_eq!(limits.json, right);
    assert_eq!(ask(&stand, Method::GET, "/live", &[], Body::empty()).await.status, 200);
    let ready = ask(&stand, Method::GET, "/ready", &[], Body::empty()).await;
    assert_eq!(
        (ready.status.as_u16(), &ready.json["status"], &ready.json["disk"]),
        (200, &json!("ready"), &json!("ok"))
    );
    stand.gateway.join_metrics(Arc::new(|| Box::pin(async { "other_total 7\n".to_owned() })));
    let metrics = ask(&stand, Method::GET, "/metrics", &[], Body::empty()).await.text;
    for line in [
        "rivulet_gateway_events_received_total{source=\"web\"} 2\n",
        "rivulet_gateway_events_total{source=\"web\",outcome=\"delivered\"} 1\n",
        "rivulet_gateway_events_total{source=\"web\",outcome=\"rejected\"} 1\n",
        "rivulet_gateway_events_in_flight{source=\"web\"} 0\n",
        "rivulet_gateway_requests_total{status=\"207\"} 1\n",
        "rivulet_gateway_log_admitting 1\n",
        "other_total 7\n# EOF\n",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    assert_eq!(metrics.matches("# EOF").count(), 1);
    stand.log.fail(Some(AppendError::Full));
    let ready = ask(&stand, Method::GET, "/ready", &[], Body::empty()).await;
    assert_eq!((ready.status.as_u16(), &ready.json["status"]), (503, &json!("closed")));
    stand.log.fail(None);
    stand.gateway.drain().await;
    let ready = ask(&stand, Method::GET, "/ready", &[], Body::empty()).await;
    assert_eq!((ready.status.as_u16(), &ready.json["status"]), (503, &json!("draining")));
    let answer = send(&stand, &[], GOOD).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "gateway.draining"));
    assert_eq!(answer.header("retry-after"), Some("2"));
}

#[tokio::test]
async fn the_tail_shows_verdicts_to_secret_keys_only() {
    let stand = stand(GatewayConfig::default());
    let refused = ask(&stand, Method::GET, "/v1/tail", &[KEY], Body::empty()).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (403, "key.secret_required"));
    let request = Request::get("/v1/tail").header(SECRET.0, SECRET.1).body(Body::empty()).unwrap();
    let response = stand.gateway.router().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    send(&stand, &[], format!("[{GOOD},{BAD}]")).await;
    let mut text = String::new();
    while text.matches("event: verdict").count() < 2 {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    assert!(text.contains("\"source\":\"web\",\"event_type\":\"page_view\""), "{text}");
    assert!(text.contains("\"status\":\"rejected\"") && text.contains("/metadata/quantity"), "{text}");
    assert!(!text.contains("two"), "values are not shown: {text}");
    stand.gateway.drain().await;
    let end = tokio::time::timeout(std::time::Duration::from_secs(5), body.collect()).await.unwrap();
    assert!(end.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn a_tail_that_lags_is_told_what_it_lost() {
    let stand = stand(GatewayConfig { tail_backlog: 2, tail_readers: 1, ..GatewayConfig::default() });
    let follow = || Request::get("/v1/tail").header(SECRET.0, SECRET.1).body(Body::empty()).unwrap();
    let mut body = stand.gateway.router().oneshot(follow()).await.unwrap().into_body();
    let second = stand.gateway.router().oneshot(follow()).await.unwrap();
    assert_eq!(second.status(), 503, "the number of followers is bounded");
    send(&stand, &[], format!("[{}]", [GOOD; 5].join(","))).await;
    let mut text = String::new();
    while !text.contains("event: lost") {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    assert!(text.contains("{\"lost\":3}"), "{text}");
}

#[tokio::test]
async fn keys_and_schemas_can_be_exchanged_while_it_runs() {
    let stand = stand(GatewayConfig::default());
    let mut keys = crate::testing::keys();
    keys[0].key = "wk_new".into();
    stand.gateway.set_keys(&keys).unwrap();
    assert_eq!(send(&stand, &[], GOOD).await.status, 401);
    let new = ask(&stand, Method::POST, "/v1/events?key=wk_new", &[], GOOD).await;
    assert_eq!(new.status, 200);
    let record = value(&stand.log.records(Topic::Events)[0]);
    assert_eq!(record["receipt"]["source"], "web", "the source survives the key");
}

#[tokio::test]
async fn sent_at_corrects_times_from_envelope_and_query() {
    let stand = stand(GatewayConfig::default());
    let ahead = crate::testing::NOW.plus_millis(3_600_000);
    let event = format!(
        r#"{{"event_type":"page_view","user_id":"u","timestamp":{}}}"#,
        ahead.plus_millis(-5_000).as_millis()
    );
    send(&stand, &[], format!(r#"{{"sent_at":{},"events":[{event}]}}"#, ahead.as_millis())).await;
    let uri = format!("/v1/events?sent_at={}", ahead.as_millis());
    ask(&stand, Method::POST, &uri, &[KEY], event.clone()).await;
    let right = crate::testing::NOW.plus_millis(-5_000).to_string();
    let records = stand.log.records(Topic::Events);
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!(value(&record)["receipt"]["occurred_at"], right);
    }
}

#[tokio::test]
async fn too_many_bytes_at_once_are_turned_away() {
    let config = GatewayConfig {
        event_bytes: 100,
        batch_bytes: 200,
        // Two bodies, and what the lane leaves to those before it.
        in_flight_bytes: 440,
        ..GatewayConfig::default()
    };
    let stand = stand(config);
    stand.log.hold_back();
    let body = format!("{GOOD}{}", " ".repeat(200 - GOOD.len()));
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let (router, body) = (stand.gateway.router(), body.clone());
            tokio::spawn(async move {
                let request =
                    Request::post("/v1/events").header(KEY.0, KEY.1).body(Body::from(body)).unwrap();
                router.oneshot(request).await.unwrap().status()
            })
        })
        .collect();
    while stand.gateway.ledger().totals("web").in_flight < 2 {
        tokio::task::yield_now().await;
    }
    let answer = send(&stand, &[], GOOD).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "gateway.overloaded"));
    stand.log.let_through(3);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), 200);
    }
    assert_eq!(send(&stand, &[], GOOD).await.status, 200);
}
