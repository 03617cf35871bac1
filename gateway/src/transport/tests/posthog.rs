//! `PostHog`'s endpoints as its clients see them.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use schemas::event::LoggedEvent;
use schemas::json::Limits;

use super::vendors::{logged, post};
use super::*;

fn batch(events: &[Value]) -> Value {
    json!({"api_key": "wk_dev", "batch": events})
}

#[tokio::test]
async fn an_id_that_means_nobody_joins_nobody() {
    let nobodies = [
        json!("undefined"),
        json!("[object Object]"),
        json!("null"),
        json!("NaN"),
        json!("0"),
        json!(0),
        json!(""),
        json!(" "),
        json!("None"),
        json!("00000000-0000-0000-0000-000000000000"),
        Value::Null,
        json!({}),
        json!([]),
    ];
    for nobody in nobodies {
        let stand = stand(GatewayConfig::default());
        let join = |user: &str| json!({"event": "$identify", "distinct_id": user, "properties": {"$anon_distinct_id": nobody}});
        let own = json!({"event": "Viewed", "distinct_id": nobody, "properties": {"$device_id": nobody}});
        let alias = json!({"event": "$create_alias", "distinct_id": "u-C", "properties": {"alias": nobody, "distinct_id": "u-C"}});
        let answer = post(&stand, "/batch/", &[], &batch(&[join("u-A"), join("u-B"), own, alias])).await;
        assert_eq!((answer.status.as_u16(), &answer.json), (200, &json!({"status": "Ok"})), "{nobody}");
        let events = logged(&stand);
        assert_eq!(events.len(), 4, "{nobody}");
        for event in events {
            let text = event.to_string();
            let read = LoggedEvent::read(text.as_bytes(), Limits::default()).unwrap();
            let device = read.anonymous_id.map(|id| id.as_str().to_owned());
            if event["event_type"] == "Viewed" {
                assert!(device.unwrap().starts_with("none:"), "{nobody}");
            } else {
                assert_eq!(device, None, "{nobody}");
            }
        }
    }
}

#[tokio::test]
async fn every_wrapping_of_a_body_gives_the_same_event() {
    let stand = stand(GatewayConfig::default());
    let event = json!({"api_key": "wk_dev", "event": "q", "distinct_id": "u", "uuid": "0190a5b0-0000-7000-8000-000000000001",
        "properties": {"q": "~~>??"}});
    let text = event.to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let escaped = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let (plain, safe, packed) =
        (STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text), STANDARD.encode(&gzip));
    let form = ("content-type", "application/x-www-form-urlencoded");
    let bodies: Vec<(&str, &str, Vec<u8>)> = vec![
        ("/e/", "text/plain", text.clone().into_bytes()),
        ("/i/v0/e/?compression=gzip-js", "text/plain", gzip),
        ("/e/?compression=base64", form.1, format!("data={plain}").into_bytes()),
        ("/track/?ver=1.2", form.1, format!("data={}", escaped(&plain)).into_bytes()),
        ("/capture", form.1, format!("data={safe}").into_bytes()),
        ("/engage/?ver=1", form.1, format!("data={}", escaped(&text)).into_bytes()),
        ("/batch?compression=gzip-js", form.1, format!("data={}", escaped(&packed)).into_bytes()),
        ("/e/?compression=base64", "text/plain", plain.clone().into_bytes()),
        ("/e/", "application/json", format!("[{text}]").into_bytes()),
    ];
    for (path, kind, body) in bodies {
        let answer = ask(&stand, Method::POST, path, &[("content-type", kind)], body).await;
        assert_eq!((answer.status.as_u16(), answer.json), (200, json!({"status": "Ok"})), "{path} {kind}");
    }
    let asked = ask(&stand, Method::GET, &format!("/e/?data={}", escaped(&plain)), &[], "").await;
    assert_eq!(asked.status, 200);
    let events = logged(&stand);
    assert_eq!((events.len(), &events[0]["metadata"]), (1, &json!({"q": "~~>??"})));
    let broken = ask(&stand, Method::POST, "/e/", &[form], "data=%%%").await;
    assert_eq!((broken.status.as_u16(), &broken.json["type"]), (400, &json!("validation_error")));
}

#[tokio::test]
async fn version_one_has_a_result_for_each_event() {
    let stand = stand(GatewayConfig::default());
    let ids = ["0190a5b0-0000-7000-8000-000000000001", "0190a5b0-0000-7000-8000-000000000002"];
    let body = json!({"created_at": "2024-04-25T14:23:05Z", "batch": [
        {"event": "Viewed", "uuid": ids[0], "distinct_id": "u", "session_id": "s-1", "options": {"process_person_profile": false}, "properties": {}},
        {"event": "", "uuid": ids[1], "distinct_id": "u", "properties": {}},
    ]});
    let library = ("posthog-sdk-info", "posthog-go/1.2");
    let answer = post(&stand, "/i/v1/analytics/events", &[KEY, library], &body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json["results"][ids[0]], json!({"result": "ok"}));
    assert_eq!(answer.json["results"][ids[1]]["result"], "drop");
    let event = &logged(&stand)[0];
    assert_eq!((&event["session_id"], &event["anonymous_id"]), (&json!("s-1"), &json!("u")));
    assert_eq!(event["context"]["library"], json!({"name": "posthog-go", "version": "1.2"}));
    let wrong = post(&stand, "/i/v1/analytics/events", &[("authorization", "Bearer nope")], &body).await;
    assert_eq!((wrong.status.as_u16(), &wrong.json["code"]), (401, &json!("invalid_api_key")));
}

#[tokio::test]
async fn an_offset_tells_how_long_ago_an_event_was() {
    let stand = stand(GatewayConfig::default());
    let late = json!({"event": "late", "distinct_id": "u", "offset": 5_000.5});
    let timed = json!({"event": "timed", "distinct_id": "u", "timestamp": "2024-04-25T14:00:00Z"});
    let skewed = json!({"api_key": "wk_dev", "sent_at": "2024-04-25T14:00:07Z", "batch": [timed, late]});
    post(&stand, "/batch", &[], &skewed).await;
    for event in logged(&stand) {
        let (at, received) = (&event["receipt"]["occurred_at"], &event["receipt"]["received_at"]);
        let [at, received] =
            [at, received].map(|at| schemas::time::Timestamp::parse(at.as_str().unwrap()).unwrap());
        let expected = if event["event_type"] == "late" { 5_000 } else { 7_000 };
        assert_eq!(received.as_millis() - at.as_millis(), expected, "{event}");
    }
    assert_eq!(logged(&stand).len(), 2);
}

#[tokio::test]
async fn what_pages_load_at_their_start_is_valid_and_needs_a_key() {
    let stand = stand(GatewayConfig::default());
    let token = json!({"token": "wk_dev", "distinct_id": "u"});
    let flags = post(&stand, "/flags/?v=2", &[], &token).await;
    assert_eq!((flags.status.as_u16(), &flags.json["flags"]), (200, &json!({})));
    let decide = post(&stand, "/decide/?v=3", &[], &token).await;
    assert_eq!((decide.status.as_u16(), &decide.json["featureFlags"]), (200, &json!({})));
    let config = ask(&stand, Method::GET, "/array/wk_dev/config", &[], "").await;
    assert_eq!((&config.json["token"], &config.json["sessionRecording"]), (&json!("wk_dev"), &json!(false)));
    let script = ask(&stand, Method::GET, "/array/wk_dev/config.js", &[], "").await;
    assert_eq!(script.header("content-type"), Some("application/javascript"));
    assert!(script.text.contains("_POSTHOG_REMOTE_CONFIG[\"wk_dev\"]={config:{"), "{}", script.text);
    assert_eq!(ask(&stand, Method::GET, "/array/nope/config", &[], "").await.status, 401);
    assert_eq!(post(&stand, "/flags/?v=2", &[], &json!({})).await.status, 401);
    let lost = ask(&stand, Method::POST, "/i/v7/e", &[], "").await;
    assert_eq!((lost.status.as_u16(), lost.text.contains("/i/v0/e/")), (404, true));
}
