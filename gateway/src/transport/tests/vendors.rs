//! Other vendors' endpoints as their clients see them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// Basic authentication with a key as user.
fn basic(key: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{key}:")))
}

pub(super) async fn post(stand: &Stand, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    ask(stand, Method::POST, path, headers, body.to_string()).await
}

pub(super) fn logged(stand: &Stand) -> Vec<Value> {
    stand.log.records(Topic::Events).iter().map(value).collect()
}

fn track(id: &Value, event: &str) -> Value {
    json!({"type": "track", "event": event, "userId": "u-1", "messageId": id})
}

#[tokio::test]
async fn an_id_counts_within_its_source_and_no_id_is_an_id_of_its_own() {
    let stand = stand(GatewayConfig::default());
    let (one, two) = (basic("wk_dev"), basic("sk_dev"));
    for key in [&one, &two, &one] {
        let order = track(&json!("order-1001"), "Order Completed");
        let answer = post(&stand, "/v1/track", &[("authorization", key)], &order).await;
        assert_eq!(answer.json, json!({"success": true}));
    }
    assert_eq!(logged(&stand).len(), 2);
    for id in [json!("ajs-next-0123"), json!(7)] {
        for _ in 0..2 {
            post(&stand, "/v1/track", &[("authorization", &one)], &track(&id, "Viewed")).await;
        }
    }
    assert_eq!(logged(&stand).len(), 4);
    for (n, id) in [json!(""), json!(null), json!(" ")].iter().enumerate() {
        for event in ["A", "B"] {
            post(&stand, "/v1/track", &[("authorization", &one)], &track(id, event)).await;
        }
        assert_eq!(logged(&stand).len(), 6 + 2 * n);
    }
}

#[tokio::test]
async fn nobody_gets_no_profile_of_others() {
    let stand = stand(GatewayConfig::default());
    for nobody in
        [json!("undefined"), json!("[object Object]"), json!(0), json!(""), json!(null), json!({}), json!([])]
    {
        let event = json!({"type": "track", "event": "Viewed", "userId": nobody, "anonymousId": nobody});
        let answer = post(&stand, "/v1/t/", &[("authorization", &basic("wk_dev"))], &event).await;
        assert_eq!(answer.status, 200, "{nobody}: {}", answer.text);
    }
    for event in logged(&stand) {
        let id = event["receipt"]["event_id"].as_str().unwrap();
        assert_eq!(event["anonymous_id"], format!("none:{id}"));
    }
    assert_eq!(logged(&stand).len(), 7);
}

#[tokio::test]
async fn clocks_are_corrected_where_the_vendor_does_and_a_repeat_is_one_event() {
    let stand = stand(GatewayConfig::default());
    let late = |sent_at: &str| {
        json!({
            "batch": [{"type": "track", "event": "E", "userId": "u", "messageId": "m-1", "timestamp": "2024-04-25T13:00:00Z"}],
            "sentAt": sent_at, "writeKey": "wk_dev",
        })
    };
    for sent_at in ["2024-04-25T13:23:10Z", "2024-04-25T13:23:11Z"] {
        assert_eq!(post(&stand, "/v1/b", &[], &late(sent_at)).await.status, 200);
    }
    let mut rudder = late("2024-04-25T13:23:10Z");
    rudder["batch"][0]["channel"] = json!("server");
    rudder["batch"][0]["messageId"] = json!("m-2");
    assert_eq!(post(&stand, "/v1/batch", &[], &rudder).await.text, "OK");
    let times: Vec<_> = logged(&stand).iter().map(|event| event["receipt"]["occurred_at"].clone()).collect();
    assert_eq!(times, ["2024-04-25T14:00:00.000Z", "2024-04-25T13:00:00.000Z"]);
}

#[tokio::test]
async fn refusals_are_said_in_the_vendors_form() {
    let stand = stand(GatewayConfig::default());
    let good = track(&json!("a"), "Viewed");
    let nameless = json!({"type": "track", "userId": "u"});
    for (path, headers, body, status) in [
        ("/v1/track", vec![], json!({"type": "track"}), 401),
        ("/v1/track", vec![("authorization", basic("wk_wrong"))], good.clone(), 401),
        ("/v1/track", vec![("authorization", basic("wk_dev"))], nameless.clone(), 400),
        ("/v1/batch", vec![("authorization", basic("wk_dev"))], json!({"batch": [good, nameless]}), 200),
        ("/v1/batch", vec![("authorization", basic("wk_dev"))], json!({"batch": []}), 200),
        ("/v1/traxk", vec![], json!({}), 404),
        ("/api/s/s2s/odd/track", vec![], json!({}), 404),
    ] {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = post(&stand, path, &headers, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {}", answer.text);
    }
    let wrong = post(
        &stand,
        "/v1/batch",
        &[("authorization", &basic("wk_wrong")), ("anonymousid", "eA==")],
        &json!({}),
    )
    .await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.header("content-type")),
        (401, Some("text/plain; charset=utf-8"))
    );
    let jitsu = post(&stand, "/api/s/track", &[("x-write-key", "wk_wrong:secret")], &json!({})).await;
    assert_eq!((jitsu.status.as_u16(), &jitsu.json["ok"]), (401, &json!(false)));
    let large = "x".repeat(5 << 20);
    let large = ask(&stand, Method::POST, "/v1/batch", &[], large).await;
    assert_eq!((large.status.as_u16(), &large.json["success"]), (413, &json!(false)));
    let get = ask(&stand, Method::GET, "/v1/batch", &[], "").await;
    assert_eq!((get.status.as_u16(), get.header("allow")), (405, Some("POST, OPTIONS")));
}

#[tokio::test]
async fn what_is_temporary_says_when_to_come_back() {
    let stand = stand(GatewayConfig::default());
    stand.log.fail(Some(AppendError::Full));
    for (path, key) in [("/v1/batch", basic("wk_dev")), ("/api/s/track", basic("wk_dev"))] {
        let answer = post(&stand, path, &[("authorization", &key)], &track(&json!("a"), "Viewed")).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("2")), "{path}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_ask_with_their_cookies() {
    let stand = stand(GatewayConfig::default());
    let origin = ("origin", "http://localhost:3000");
    let asked = [
        origin,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let preflight = ask(&stand, Method::OPTIONS, "/v1/t", &asked, "").await;
    assert_eq!(preflight.status, 204);
    let beacon = ask(
        &stand,
        Method::POST,
        "/beacon/v1/batch?writeKey=wk_dev",
        &[origin, ("content-type", "text/plain")],
        json!({"batch": [track(&json!("b"), "Viewed")]}).to_string(),
    )
    .await;
    assert_eq!((beacon.status.as_u16(), beacon.text.as_str()), (200, "OK"));
    for answer in [preflight, beacon] {
        assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    }
}

#[tokio::test]
async fn clients_find_the_configuration_they_start_with() {
    let stand = stand(GatewayConfig::default());
    let settings =
        ask(&stand, Method::GET, "/v1/projects/wk_dev/settings", &[("host", "t.shop.example")], "").await;
    assert_eq!(settings.json["integrations"]["Segment.io"]["apiHost"], "t.shop.example/v1");
    assert_eq!(settings.header("cache-control"), Some("private, max-age=300"));
    let wrong = ask(&stand, Method::GET, "/v1/projects/wk_wrong/settings", &[], "").await;
    assert_eq!(wrong.status, 401);
    let source = ask(&stand, Method::GET, "/sourceConfig/?writeKey=wk_dev&p=web", &[], "").await;
    assert_eq!((source.status.as_u16(), &source.json["source"]["enabled"]), (200, &json!(true)));
    assert_eq!(ask(&stand, Method::GET, "/sourceConfig", &[], "").await.status, 401);
}

#[tokio::test]
async fn addresses_in_the_context_are_cut_like_those_of_connections() {
    let stand = stand(GatewayConfig::default());
    let mut event = track(&json!("a"), "Viewed");
    event["context"] =
        json!({"ip": "203.0.113.9", "userAgent": "UA", "consent": {"categoryPreferences": {"ads": false}}});
    event["properties"] = json!({"big": 12_345_678_901_234_567_890_u64, "n": 1});
    post(&stand, "/v1/track", &[("authorization", &basic("wk_dev"))], &event).await;
    let event = &logged(&stand)[0];
    assert_eq!(event["context"], json!({"vendor": "segment", "ip": "203.0.113.0", "user_agent": "UA"}));
    assert_eq!(event["consent"], json!({"ads": false}));
    assert_eq!(event["metadata"]["big"], json!(12_345_678_901_234_567_890_u64));
}

#[tokio::test]
async fn a_broken_event_costs_only_itself_and_gzip_needs_no_header() {
    let stand = stand(GatewayConfig::default());
    let body = format!(
        r#"{{"batch":[{},{{"type":"track","event":"E","userId":"u","userId":"v"}}],"writeKey":"wk_dev"}}"#,
        track(&json!("a"), "Viewed")
    );
    let answer = ask(&stand, Method::POST, "/v1/import", &[], gzip(body.as_bytes())).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json["errors"].as_array().unwrap().len()),
        (200, 1),
        "{}",
        answer.text
    );
    assert_eq!(answer.json["errors"][0]["reason"]["code"], "json.duplicate_name");
    assert_eq!(logged(&stand).len(), 1);
}

#[tokio::test]
async fn cloud_events_are_read_whether_their_headers_are_escaped_or_not() {
    let stand = stand(GatewayConfig::default());
    for (n, (subject, right)) in [
        ("caf%C3%A9%20%25", Some("café %")),
        ("a b", Some("a b")),
        ("100%", Some("100%")),
        ("%41", Some("A")),
        ("%FF", None),
        ("\"q\"", Some("q")),
    ]
    .into_iter()
    .enumerate()
    {
        let id = n.to_string();
        let headers = [
            KEY,
            ("ce-specversion", "1.0"),
            ("ce-id", &id),
            ("ce-source", "/shop"),
            ("ce-type", "com.shop.view"),
            ("ce-subject", subject),
            ("content-type", "application/json"),
        ];
        let answer = ask(&stand, Method::POST, "/cloudevents", &headers, "{\"a\":1}").await;
        assert_eq!(
            answer.status.as_u16(),
            if right.is_some() { 200 } else { 422 },
            "{subject} {}",
            answer.text
        );
        if let Some(right) = right {
            let all = logged(&stand);
            assert!(
                all.iter().any(|event| event["user_id"] == right && event["metadata"] == json!({"a": 1})),
                "{subject}"
            );
        }
    }
}

#[tokio::test]
async fn a_cloud_event_is_one_in_every_mode_and_its_id_counts_within_its_source() {
    let stand = stand(GatewayConfig::default());
    let event = |id: &str, source: &str| json!({"specversion": "1.0", "id": id, "source": source, "type": "com.shop.view", "subject": "u", "data": {"a": 1}});
    let structured = [KEY, ("content-type", "application/cloudevents+json")];
    let binary = [
        KEY,
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/shop"),
        ("ce-type", "com.shop.view"),
        ("ce-subject", "u"),
        ("content-type", "application/json; charset=utf-8"),
    ];
    let mut encoded = event("1", "/shop");
    encoded["data_base64"] = json!(STANDARD.encode("{\"a\":1}"));
    encoded.as_object_mut().unwrap().remove("data");
    assert_eq!(
        post(&stand, "/cloudevents", &structured, &event("1", "/shop")).await.statuses(),
        ["accepted"]
    );
    assert_eq!(ask(&stand, Method::POST, "/v1/events", &binary, "{\"a\":1}").await.statuses(), ["duplicate"]);
    assert_eq!(post(&stand, "/v1/events", &structured, &encoded).await.statuses(), ["duplicate"]);
    assert_eq!(
        post(&stand, "/cloudevents", &structured, &event("1", "/other")).await.statuses(),
        ["accepted"]
    );
    let batch = [KEY, ("content-type", "application/cloudevents-batch+json")];
    let mut bad = event("4", "/shop");
    bad.as_object_mut().unwrap().remove("type");
    let answer =
        post(&stand, "/cloudevents", &batch, &json!([event("3", "/shop"), bad, event("5", "/shop")])).await;
    assert_eq!((answer.status.as_u16(), answer.statuses()), (207, vec!["accepted", "rejected", "accepted"]));
    let handshake =
        ask(&stand, Method::OPTIONS, "/cloudevents", &[("webhook-request-origin", "events.example")], "")
            .await;
    assert_eq!(
        (handshake.status.as_u16(), handshake.header("webhook-allowed-origin")),
        (200, Some("events.example"))
    );
    assert_eq!(handshake.header("webhook-allowed-rate"), Some("*"));
}

#[tokio::test]
async fn a_repeated_ga4_request_is_no_second_event() {
    let stand = stand(GatewayConfig::default());
    let body = json!({"client_id": "5.1", "consent": {"ad_user_data": "DENIED"}, "events": [{"name": "a", "params": {"n": 1}}, {"name": "a", "params": {"n": 1}}]});
    for _ in 0..2 {
        let answer = post(&stand, "/mp/collect?measurement_id=G-1&api_secret=wk_dev", &[], &body).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    }
    assert_eq!(logged(&stand).len(), 2);
    assert_eq!(logged(&stand)[0]["consent"], json!({"ad_user_data": false}));
    let hits = "en=view_item&pr1=idA1~nmShirt~pr9.50~qt2\r\nen=scroll&epn.percent=90";
    let answer = ask(
        &stand,
        Method::POST,
        "/g/collect?v=2&tid=wk_dev&cid=7.8&sid=99&dl=https%3A%2F%2Fshop.example%2F&gcs=G110",
        &[],
        hits,
    )
    .await;
    assert_eq!(answer.status, 204);
    let all = logged(&stand);
    let view = all.iter().find(|event| event["event_type"] == "view_item").unwrap();
    assert_eq!(
        view["metadata"]["items"],
        json!([{"item_id": "A1", "item_name": "Shirt", "price": 9.5, "quantity": 2}])
    );
    assert_eq!(
        (&view["session_id"], &view["consent"]),
        (&json!("99"), &json!({"ad_storage": true, "analytics_storage": false}))
    );
    assert_eq!(all.len(), 4);
    let nameless = json!({"client_id": "5.1", "events": [{"params": {}}]});
    let debug = post(&stand, "/debug/mp/collect?api_secret=wk_dev", &[], &nameless).await;
    assert_eq!(
        (debug.status.as_u16(), &debug.json["validationMessages"][0]["fieldPath"]),
        (200, &json!("events[0].event_type"))
    );
}
