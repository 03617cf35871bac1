//! The way of a refused event: seen, mended, tried again.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use schemas::topic::Topic;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::GatewayConfig;
use crate::testing::{Stand, stand, value};

const BAD: &str = r#"{"event_id":"018f1509-7a4c-7d5e-9f3a-2b1c0d4e5f60","event_type":"add_to_cart","user_id":"u","metadata":{"product_id":"p","quantity":"two","order":18446744073709551617}}"#;
const NAMELESS: &str =
    r#"{"event_type":"add_to_cart","user_id":"u","metadata":{"product_id":"p","quantity":"two"}}"#;

async fn ask(stand: &Stand, method: Method, uri: &str, key: &str, body: Value) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(uri).header("authorization", format!("Bearer {key}"));
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let response = stand.gateway.router().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn get(stand: &Stand, uri: &str) -> Value {
    let (status, body) = ask(stand, Method::GET, uri, "sk_dev", Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

async fn replay(stand: &Stand, body: Value) -> Value {
    let (status, body) = ask(stand, Method::POST, "/v1/quarantine/replay", "sk_dev", body).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

/// Refuses them and gives their places.
async fn refuse(stand: &Stand, events: &[&str]) -> Vec<String> {
    // As text, so that no digit is changed on the way.
    let body = format!("[{}]", events.join(","));
    let request =
        Request::builder().method(Method::POST).uri("/v1/events").header("authorization", "Bearer wk_dev");
    let response = stand.gateway.router().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let listed = get(stand, "/v1/quarantine").await;
    listed["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["at"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn what_was_refused_is_listed_by_reason_and_shown_whole() {
    let stand = stand(GatewayConfig::default());
    let places = refuse(&stand, &[BAD, NAMELESS, r#"{"event_type":"page_view","metadata":{}}"#]).await;
    assert_eq!(places.len(), 3);
    let by_reason = get(&stand, "/v1/quarantine?reason=identity.missing").await;
    assert_eq!(by_reason["records"].as_array().map(Vec::len), Some(1), "{by_reason}");
    assert!(get(&stand, "/v1/quarantine?source=app").await["records"].as_array().unwrap().is_empty());

    let summary = get(&stand, "/v1/quarantine/reasons").await;
    let first = &summary["reasons"][0];
    assert_eq!((&first["count"], &first["code"]), (&json!(2), &json!("schema.invalid")), "{summary}");
    assert_eq!((&first["pointer"], &first["keyword"]), (&json!("/metadata/quantity"), &json!("type")));
    assert_eq!((&first["schema"], &first["source"]), (&json!("add_to_cart@1"), &json!("web")));

    let example = get(&stand, &format!("/v1/quarantine/{}", first["example"].as_str().unwrap())).await;
    assert!(example["raw"].as_str().unwrap().contains("\"two\""), "{example}");
    let one = get(&stand, "/v1/quarantine?limit=1").await;
    let rest = get(&stand, &format!("/v1/quarantine?after={}", one["next"].as_str().unwrap())).await;
    assert_eq!(rest["records"].as_array().map(Vec::len), Some(2), "{rest}");
    assert!(rest["next"].is_null(), "{rest}");
}

#[tokio::test]
async fn a_patched_event_keeps_id_received_time_and_digits_and_counts_once() {
    let stand = stand(GatewayConfig::default());
    let places = refuse(&stand, &[BAD]).await;
    let received_at = get(&stand, &format!("/v1/quarantine/{}", places[0])).await["received_at"].clone();
    let patch = json!([{"op": "replace", "path": "/metadata/quantity", "value": 2}]);
    let dry = replay(&stand, json!({"at": places, "patch": patch, "dry_run": true})).await;
    assert_eq!(dry["events"][0]["status"], "accepted", "{dry}");
    assert_eq!(
        dry["events"][0]["changed"],
        json!([{"pointer": "/metadata/quantity", "before": "\"two\"", "after": "2"}])
    );
    assert!(stand.log.records(Topic::Events).is_empty(), "a dry run takes nothing");

    stand.clock.advance(3_600_000);
    let done = replay(&stand, json!({"at": places, "patch": patch})).await;
    assert_eq!(
        (&done["events"][0]["status"], &done["events"][0]["acked"]),
        (&json!("accepted"), &json!("disk")),
        "{done}"
    );
    let again = replay(&stand, json!({"at": places, "patch": patch})).await;
    assert_eq!(again["events"][0]["status"], "duplicate", "{again}");
    let records = stand.log.records(Topic::Events);
    assert_eq!(records.len(), 1);
    let event = value(&records[0]);
    assert_eq!(event["receipt"]["event_id"], "018f1509-7a4c-7d5e-9f3a-2b1c0d4e5f60");
    assert_eq!(event["receipt"]["received_at"], received_at);
    assert_eq!(event["receipt"]["source"], "web");
    assert!(String::from_utf8_lossy(&records[0].value).contains("18446744073709551617"));
}

#[tokio::test]
async fn what_would_be_refused_again_is_told_and_not_kept_twice() {
    let stand = stand(GatewayConfig::default());
    let places = refuse(&stand, &[BAD]).await;
    let told = replay(&stand, json!({"at": [places[0], "0:999", "99:0"]})).await;
    assert_eq!(told["events"][0]["status"], "rejected", "{told}");
    assert_eq!(told["events"][0]["reason"]["pointer"], "/metadata/quantity", "{told}");
    for missing in [1, 2] {
        assert_eq!(told["events"][missing]["problem"], "no record stands there", "{told}");
    }
    let wrong = replay(&stand, json!({"at": places, "patch": [{"op": "remove", "path": "/nowhere"}]})).await;
    assert_eq!(wrong["events"][0]["problem"], "operation 0: nothing at `/nowhere`", "{wrong}");
    assert_eq!(stand.log.records(Topic::Quarantine).len(), 1);
    assert!(stand.log.records(Topic::Events).is_empty());
}

#[tokio::test]
async fn an_event_that_had_no_id_gets_the_same_one_at_each_replay() {
    let stand = stand(GatewayConfig::default());
    let places = refuse(&stand, &[NAMELESS]).await;
    let body = json!({"at": places, "patch": [{"op": "replace", "path": "/metadata/quantity", "value": 1}]});
    let (one, two) = (replay(&stand, body.clone()).await, replay(&stand, body).await);
    assert_eq!(one["events"][0]["status"], "accepted", "{one}");
    assert_eq!(two["events"][0]["status"], "duplicate", "{two}");
    assert_eq!(one["events"][0]["event_id"], two["events"][0]["event_id"]);
}

#[tokio::test]
async fn only_secret_keys_look_and_wrong_questions_are_answered_with_what_is_right() {
    let stand = stand(GatewayConfig::default());
    for uri in ["/v1/quarantine", "/v1/quarantine/reasons", "/v1/quarantine/0:0"] {
        let (status, body) = ask(&stand, Method::GET, uri, "wk_dev", Value::Null).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::FORBIDDEN, &json!("key.secret_required")),
            "{uri}"
        );
    }
    for body in
        [json!({}), json!({"at": ["x"]}), json!({"at": "0:0"}), json!({"at": [], "dry_run": 1}), json!([1])]
    {
        let (status, answer) =
            ask(&stand, Method::POST, "/v1/quarantine/replay", "sk_dev", body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
    }
    for uri in [
        "/v1/quarantine?reason=nonsense",
        "/v1/quarantine?limit=0",
        "/v1/quarantine?after=x",
        "/v1/quarantine?since=x",
    ] {
        assert_eq!(
            ask(&stand, Method::GET, uri, "sk_dev", Value::Null).await.0,
            StatusCode::BAD_REQUEST,
            "{uri}"
        );
    }
    for uri in ["/v1/quarantine/0:7", "/v1/quarantine/77:0", "/v1/quarantine/x"] {
        assert_eq!(
            ask(&stand, Method::GET, uri, "sk_dev", Value::Null).await.0,
            StatusCode::NOT_FOUND,
            "{uri}"
        );
    }
    let (status, _) = ask(&stand, Method::GET, "/v1/quarantine/replay", "sk_dev", Value::Null).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}
