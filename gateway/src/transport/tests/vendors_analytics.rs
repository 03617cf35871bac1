//! Mixpanel's and Amplitude's endpoints as their clients see them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::*;
use crate::testing::NOW;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn logged(stand: &Stand) -> Vec<Value> {
    stand.log.records(Topic::Events).iter().map(value).collect()
}

fn search(id: &str, time: &Value) -> String {
    let properties =
        json!({"token": "wk_dev", "distinct_id": "u1", "$insert_id": id, "time": time, "q": "~~>??"});
    json!([{"event": "search", "properties": properties}]).to_string()
}

#[tokio::test]
async fn mixpanels_data_is_read_in_every_spelling() {
    let stand = stand(GatewayConfig::default());
    let raw = "W3siZXZlbnQiOiJzZWFyY2giLCJwcm9wZXJ0aWVzIjp7InRva2VuIjoid2tfZGV2IiwiZGlzdGluY3RfaWQiOiJ1MSIsIiRpbnNlcnRfaWQiOiJtcC0xIiwidGltZSI6MTcwMDAwMDAwMCwicSI6In5+Pj8/In19XQ==";
    let plain = STANDARD.decode(raw).unwrap();
    let escaped = raw.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let url_safe = URL_SAFE_NO_PAD.encode(&plain);
    let path = "/track?ip=1&verbose=1";
    for data in [raw, &escaped, &url_safe] {
        let answer = ask(&stand, Method::POST, path, &[FORM], format!("data={data}")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json),
            (200, &json!({"status": 1, "error": null})),
            "{data}"
        );
        let answer = ask(&stand, Method::GET, &format!("/track/?verbose=1&data={data}"), &[], "").await;
        assert_eq!(answer.json, json!({"status": 1, "error": null}), "{data}");
    }
    for body in [plain.clone(), gzip(&plain)] {
        let answer = ask(&stand, Method::POST, "/track", &[("content-type", "application/json")], body).await;
        assert_eq!(answer.text, "1");
    }
    assert_eq!(logged(&stand).len(), 1);
    for (id, time) in
        [("a", json!(1_700_000_000_123_u64)), ("b", json!(1_700_000_000.5)), ("c", json!("1700000000"))]
    {
        let data = STANDARD.encode(search(id, &time));
        ask(&stand, Method::POST, path, &[FORM], format!("data={data}")).await;
    }
    let all = logged(&stand);
    assert!(all.iter().all(|event| event["metadata"]["q"] == "~~>??"), "{all:?}");
    let mut times: Vec<_> =
        all.iter().map(|event| event["receipt"]["occurred_at"].as_str().unwrap()).collect();
    times.sort_unstable();
    assert_eq!(
        times,
        [
            "2023-11-14T22:13:20.000Z",
            "2023-11-14T22:13:20.000Z",
            "2023-11-14T22:13:20.123Z",
            "2023-11-14T22:13:20.500Z"
        ]
    );
    for data in ["data=%21%21", "data=W3siZ", "data=", "x=1", ""] {
        let answer = ask(&stand, Method::POST, path, &[FORM], data).await;
        assert_eq!(answer.json["status"], 0, "{data}");
        assert!(answer.json["error"].as_str().is_some_and(|error| !error.is_empty()), "{data}");
        assert_eq!(ask(&stand, Method::POST, "/track", &[FORM], data).await.text, "0");
    }
    assert_eq!(logged(&stand).len(), 4);
}

#[tokio::test]
async fn mixpanels_import_names_what_failed_and_keeps_the_rest() {
    let stand = stand(GatewayConfig::default());
    let good =
        json!({"event": "E", "properties": {"distinct_id": "u", "$insert_id": "1", "time": 1_700_000_000}});
    let bad = json!({"properties": {"distinct_id": "u", "$insert_id": "2", "time": 1_700_000_000}});
    let basic = format!("Basic {}", STANDARD.encode("wk_dev:"));
    let headers = [("authorization", basic.as_str()), ("content-type", "application/x-ndjson")];
    let answer =
        ask(&stand, Method::POST, "/import?strict=1", &headers, gzip(format!("{good}\n{bad}\n").as_bytes()))
            .await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json["num_records_imported"]),
        (400, &json!(1)),
        "{}",
        answer.text
    );
    let failed = &answer.json["failed_records"][0];
    assert_eq!(
        (&failed["index"], &failed["$insert_id"], &failed["field"]),
        (&json!(1), &json!("2"), &json!("event"))
    );
    let answer = ask(&stand, Method::POST, "/import", &headers, format!("[{good}]")).await;
    assert_eq!(answer.json, json!({"code": 200, "num_records_imported": 1, "status": "OK"}));
    let answer = ask(
        &stand,
        Method::POST,
        "/import?verbose=0&api_key=wk_dev",
        &[FORM],
        format!("data={}", STANDARD.encode(format!("[{good}]"))),
    )
    .await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "1"));
    let wrong = ask(&stand, Method::POST, "/import", &[], format!("[{good}]")).await;
    assert_eq!((wrong.status.as_u16(), &wrong.json["status"]), (401, &json!("Unauthorized")));
    assert_eq!(logged(&stand).len(), 1);
}

#[tokio::test]
async fn mixpanels_people_groups_and_merges_arrive() {
    let stand = stand(GatewayConfig::default());
    let update = json!([{"$token": "wk_dev", "$distinct_id": "u", "$set": {"plan": "pro"}, "$add": {"n": 1}}, {"$token": "wk_dev", "$distinct_id": "u", "$unset": ["a"]}]);
    ask(&stand, Method::POST, "/engage#profile-set", &[], update.to_string()).await;
    let group = json!({"$token": "wk_dev", "$group_key": "company", "$group_id": "g", "$set": {"name": "I"}});
    ask(&stand, Method::POST, "/groups/", &[], group.to_string()).await;
    let alias = json!({"event": "$create_alias", "properties": {"token": "wk_dev", "distinct_id": "$device:d", "alias": "u"}});
    ask(&stand, Method::POST, "/track", &[], alias.to_string()).await;
    let view = json!({"event": "View", "properties": {"token": "wk_dev", "distinct_id": "$device:d", "$device_id": "d"}});
    let image = ask(&stand, Method::POST, "/track?img=1", &[], view.to_string()).await;
    assert_eq!(image.header("content-type"), Some("image/gif"));
    let all = logged(&stand);
    let of = |name: &str| all.iter().find(|event| event["event_type"] == name).unwrap();
    assert_eq!(of("people:$set")["metadata"], json!({"plan": "pro"}));
    assert_eq!(
        (&of("people:$add")["user_id"], &of("people:$add")["metadata"]),
        (&json!("u"), &json!({"n": 1}))
    );
    assert_eq!(of("people:$unset")["metadata"], json!({"$unset": ["a"]}));
    assert_eq!(of("group:$set")["context"]["group_id"], "g");
    let merged = of("$create_alias");
    assert_eq!(
        (&merged["user_id"], &merged["anonymous_id"], &merged["metadata"]["previous_id"]),
        (&json!("u"), &json!("d"), &json!("d"))
    );
    assert_eq!((&of("View")["anonymous_id"], of("View").get("user_id")), (&json!("d"), None));
    let to = ask(
        &stand,
        Method::GET,
        &format!(
            "/track?data={}&redirect=https%3A%2F%2Fshop.example%2F",
            URL_SAFE_NO_PAD.encode(view.to_string())
        ),
        &[],
        "",
    )
    .await;
    assert_eq!((to.status.as_u16(), to.header("location")), (302, Some("https://shop.example/")));
}

fn amplitude(events: &[Value]) -> String {
    json!({"api_key": "wk_dev", "events": events}).to_string()
}

#[tokio::test]
async fn amplitude_is_told_which_events_fail_and_what_it_sends_again_is_no_second_event() {
    let stand = stand(GatewayConfig::default());
    let good = json!({"event_type": "E", "user_id": "u", "insert_id": "1", "time": 1_700_000_000_000_u64});
    let unnamed = json!({"event_type": "E", "device_id": "d", "time": 1_700_000_000_001_u64});
    let nameless = json!({"user_id": "u"});
    for path in ["/2/httpapi", "/batch"] {
        let body = amplitude(&[good.clone(), nameless.clone(), unnamed.clone()]);
        let answer = ask(&stand, Method::POST, path, &[], body).await;
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (400, &json!(400)));
        assert_eq!(answer.json["events_with_missing_fields"], json!({"event_type": [1]}), "{}", answer.text);
    }
    let body = amplitude(&[good, unnamed]);
    let answer =
        ask(&stand, Method::POST, "/2/httpapi", &[("content-type", "text/plain")], body.clone()).await;
    assert_eq!((answer.status.as_u16(), &answer.json["events_ingested"]), (200, &json!(2)));
    assert_eq!(answer.json["payload_size_bytes"], body.len());
    assert!(answer.json["server_upload_time"].is_u64());
    assert_eq!(logged(&stand).len(), 2);
}

#[tokio::test]
async fn amplitudes_refusals_are_those_its_clients_know() {
    let stand = stand(GatewayConfig::default());
    let event = json!({"event_type": "E", "user_id": "u", "insert_id": "1"});
    let wrong = amplitude(std::slice::from_ref(&event)).replace("wk_dev", "wk_wrong");
    let wrong = ask(&stand, Method::POST, "/2/httpapi", &[], wrong).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.json["error"].as_str().unwrap().starts_with("Invalid API key"));
    let missing =
        ask(&stand, Method::POST, "/2/httpapi", &[], json!({"events": [event], "options": {}}).to_string())
            .await;
    assert_eq!(missing.json["missing_field"], "api_key", "{}", missing.text);
    for body in ["", "[", "{}", "x", "{\"api_key\":\"wk_dev\"}"] {
        let answer = ask(&stand, Method::POST, "/2/httpapi", &[], body).await;
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (400, &json!(400)), "{body}");
    }
    let large = ask(&stand, Method::POST, "/2/httpapi", &[], "x".repeat(5 << 20)).await;
    assert_eq!((large.status.as_u16(), &large.json["code"]), (413, &json!(413)));
    stand.log.fail(Some(AppendError::Full));
    let busy = ask(&stand, Method::POST, "/2/httpapi", &[], amplitude(&[event])).await;
    assert_eq!(
        (busy.status.as_u16(), busy.header("retry-after"), &busy.json["code"]),
        (503, Some("2"), &json!(503))
    );
}

#[tokio::test]
async fn amplitudes_forms_and_older_phones_are_understood() {
    let stand = stand(GatewayConfig::default());
    let post = async |path: &str, pairs: &[(&str, String)]| {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        ask(&stand, Method::POST, path, &[FORM], body).await
    };
    let key = ("api_key", "wk_dev".to_owned());
    let who = json!([{"user_id": "u", "device_id": "d", "user_properties": {"$set": {"plan": "pro"}}}]);
    let group = json!({"group_type": "company", "group_value": "g", "group_properties": {"n": 1}});
    let old = json!([{"event_type": "Old", "device_id": "d", "uuid": "x", "timestamp": NOW.as_millis() - 5_000_000, "session_id": 7, "library": {"name": "amplitude-android"}, "os_name": "android"}]);
    for (path, pairs) in [
        ("/identify", vec![key.clone(), ("identification", who.to_string())]),
        ("/groupidentify", vec![key.clone(), ("identification", group.to_string())]),
        (
            "/httpapi",
            vec![key, ("event", json!({"event_type": "Form", "user_id": "u", "price": 9.5}).to_string())],
        ),
        (
            "/",
            vec![
                ("client", "wk_dev".to_owned()),
                ("e", old.to_string()),
                ("upload_time", (NOW.as_millis() - 3_600_000).to_string()),
            ],
        ),
    ] {
        let answer = post(path, &pairs).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "success"), "{path}");
    }
    let all = logged(&stand);
    let of = |name: &str| all.iter().find(|event| event["event_type"] == name).unwrap();
    assert_eq!(of("$identify")["metadata"], json!({"$set": {"plan": "pro"}}));
    assert_eq!(of("$groupidentify")["context"]["groups"], json!({"company": "g"}));
    assert_eq!(of("Form")["metadata"], json!({"price": 9.5}));
    let old = of("Old");
    assert_eq!((&old["session_id"], &old["context"]["os"]), (&json!("7"), &json!({"name": "android"})));
    // Its clock was an hour behind.
    assert_eq!(old["receipt"]["occurred_at"], json!(NOW.plus_millis(3_600_000 - 5_000_000)));
}

#[tokio::test]
async fn amplitudes_clocks_are_corrected_from_a_minute_on() {
    let stand = stand(GatewayConfig::default());
    let at = NOW.as_millis() - 100_000;
    for (id, off, right) in [("a", 59_000, at), ("b", 61_000, at + 61_000)] {
        let event = json!({"event_type": id, "user_id": "u", "insert_id": id, "time": at});
        let sent = NOW.plus_millis(-off);
        let body = json!({"api_key": "wk_dev", "events": [event], "client_upload_time": sent});
        assert_eq!(ask(&stand, Method::POST, "/2/httpapi", &[], body.to_string()).await.status, 200);
        let all = logged(&stand);
        let event = all.iter().find(|event| event["event_type"] == id).unwrap();
        assert_eq!(event["receipt"]["occurred_at"], json!(NOW.plus_millis(right - NOW.as_millis())));
    }
}
