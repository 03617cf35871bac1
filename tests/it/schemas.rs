//! Schemas judge alike however a value is spelled, refer to each other, and cannot be used to stop the program.

use serde_json::{Value, json};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::{Options, Rivulet};

/// C16: lengths are code points, patterns see characters, and the raw and the escaped spelling never differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_and_patterns_are_about_characters_however_they_are_spelled() {
    let _timed = Timed::new("C16");
    let document = json!({"properties": {
        "q": {"type": "string", "maxLength": 4, "pattern": "^[^ ]*$"},
        "tag": {"type": "string", "pattern": "^🐲*$"},
    }});
    let rivulet = Rivulet::with(Options::default().schema("x_text/1.json", &document)).await;
    let family = "👨\u{200d}👩\u{200d}👧\u{200d}👦";
    let right: [(&str, &str, Option<&str>); 9] = [
        ("q", "😀😀😀😀", None),
        ("q", "éééé", None),
        ("q", "", None),
        ("q", "e\u{301}e\u{301}e", Some("maxLength")),
        ("q", family, Some("maxLength")),
        ("q", "a b", Some("pattern")),
        ("tag", "", None),
        ("tag", "🐲🐲", None),
        ("tag", "🐲x", Some("pattern")),
    ];
    for (name, value, keyword) in right {
        let units: Vec<String> = value.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let escaped = units.concat();
        let upper = escaped.to_uppercase().replace("\\U", "\\u");
        for spelled in [value, &escaped, &upper] {
            let event =
                format!(r#"{{"event_type":"x_text","user_id":"c16","metadata":{{"{name}":"{spelled}"}}}}"#);
            let answer = rivulet.client().send(event).await;
            let verdict = &answer.verdicts()[0];
            match keyword {
                None => assert_eq!(verdict["status"], "accepted", "{name} {spelled}: {}", answer.text),
                Some(keyword) => {
                    assert_eq!(verdict["status"], "rejected", "{name} {spelled}");
                    assert_eq!(verdict["reason"]["keyword"], keyword, "{name} {spelled}");
                    assert_eq!(verdict["reason"]["pointer"], format!("/metadata/{name}"));
                    assert_eq!(verdict["reason"]["schema"], "x_text@1");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_chosen_by_range_and_documents_refer_to_shared_ones() {
    let _timed = Timed::new("schemas: versions and references");
    let money = json!({"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number", "minimum": 0}}});
    let order = |required: &[&str]| json!({"properties": {"total": {"$ref": "../_shared/money.json"}, "mail": {"type": "string", "format": "email"}}, "required": required});
    let options = Options::default()
        .schema("_shared/money.json", &money)
        .schema("x_order/1.json", &order(&[]))
        .schema("x_order/1.1.0.json", &order(&[]))
        .schema("x_order/2.json", &order(&["total"]));
    let rivulet = Rivulet::with(options).await;
    let event = |pin: Value, metadata: Value| json!({"event_type": "x_order", "user_id": "s1", "schema": pin, "metadata": metadata});
    let events = [
        event(Value::Null, json!({"total": {"amount": 1}})),
        event(Value::Null, json!({})),
        event(json!("1"), json!({})),
        event(json!("x_order@1.0.0"), json!({})),
        event(json!("1.1"), json!({"total": {"amount": -1}})),
        event(json!(2), json!({"total": {"amount": 1}, "mail": "jo at shop"})),
        event(json!("3"), json!({})),
    ];
    let answer = rivulet.client().send(Value::from(events.to_vec()).to_string()).await;
    let told: Vec<[&str; 4]> = answer
        .verdicts()
        .iter()
        .map(|verdict| {
            let reason = |name: &str| verdict["reason"][name].as_str().unwrap_or("");
            [verdict["status"].as_str().unwrap(), reason("pointer"), reason("keyword"), reason("schema")]
        })
        .collect();
    let right = [
        ["accepted", "", "", ""],
        ["rejected", "/metadata", "required", "x_order@2"],
        ["accepted", "", "", ""],
        ["accepted", "", "", ""],
        ["rejected", "/metadata/total/amount", "minimum", "x_order@1.1.0"],
        ["rejected", "/metadata/mail", "format", "x_order@2"],
        ["rejected", "/schema", "", ""],
    ];
    assert_eq!(told, right, "{}", answer.text);
    let judged: Vec<String> = log::events(&rivulet)
        .await
        .iter()
        .map(|record| record.value["receipt"]["schema"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(judged, ["x_order@2", "x_order@1.1.0", "x_order@1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_never_ends_is_refused_and_one_with_an_exploding_pattern_costs_little() {
    let _timed = Timed::new("schemas: hostile documents");
    let alone = Rivulet::prepared(Options::default());
    for (document, word) in [
        (json!({"$ref": "#"}), "never ends"),
        (
            json!({"oneOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]}),
            "twice as long",
        ),
        (json!({"properties": {"a": {"pattern": "(a{1000}){1000}"}}}), "bytes once compiled"),
        (json!({"properties": {"a": {"format": "phone-number"}}}), "phone-number"),
        (json!({"$ref": "https://schemas.example/x.json"}), "nothing is fetched"),
    ] {
        let folder = alone.path("bad").join("x");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("1.json"), document.to_string()).unwrap();
        let checked = alone.run(&["schema", "check", "bad"]).await;
        assert_eq!(checked.status.code(), Some(1), "{document}");
        let told = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(told.contains("x/1.json") && told.contains(word), "{document}: {told}");
        let config = [("RIVULET__SCHEMAS__DIR", "bad")];
        let started = alone.run_with(&config, &["up", "--listen", "127.0.0.1:0", "--data", "data"]).await;
        assert_eq!(started.status.code(), Some(1), "{document}");
    }

    let document =
        json!({"properties": {"t": {"pattern": "^(a|aa)+(?!x)y$"}, "u": {"pattern": "(a*)*\\1b"}}});
    let mut rivulet = Rivulet::with(Options::default().schema("x_slow/1.json", &document)).await;
    let text = "a".repeat(30_000);
    let event = json!({"event_type": "x_slow", "user_id": "s2", "metadata": {"t": text, "u": text}});
    let answer = rivulet.client().send(Value::from(vec![event; 20]).to_string()).await;
    assert_eq!(answer.status, 422, "{}", answer.text);
    for verdict in answer.verdicts() {
        assert_eq!(verdict["reason"]["keyword"], "pattern", "{verdict}");
    }
    crate::hostile::well(&mut rivulet).await;
}

/// The newest `x_live` as it is served.
async fn served(rivulet: &Rivulet) -> Value {
    rivulet.secret().get("/v1/schemas/x_live/latest").await.unwrap().json
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_is_read_again_whole_or_not_at_all_and_served_to_secret_keys() {
    let _timed = Timed::new("schemas: reload");
    let first = json!({"title": "first", "properties": {"n": {"type": "integer"}}});
    let options = Options::default().schema("x_live/1.json", &first).set("schemas", "reload_ms", 50);
    let mut rivulet = Rivulet::with(options).await;
    let send = async |n: Value| {
        let event = json!({"event_type": "x_live", "user_id": "s3", "metadata": {"n": n}});
        rivulet.client().send(event.to_string()).await.verdicts()[0]["status"].clone()
    };
    assert_eq!(send(json!("x")).await, "rejected");
    let folder = rivulet.path("schemas").join("x_live");

    let second = json!({"title": "second", "x-mode": "observe", "properties": {"n": {"type": "string"}}});
    std::fs::write(folder.join("1.1.0.json"), second.to_string()).unwrap();
    faults::eventually("the new version is in force", SOON, async || {
        (served(&rivulet).await == second).then_some(())
    })
    .await;
    assert_eq!(send(json!("x")).await, "accepted");
    let observed = json!({"event_type": "x_live", "user_id": "s3", "metadata": {"n": 7}});
    let answer = rivulet.client().send(observed.to_string()).await;
    let right = json!([{"code": "schema.invalid", "pointer": "/metadata/n", "keyword": "type", "schema": "x_live@1.1.0"}]);
    assert_eq!(answer.verdicts()[0]["warnings"], right, "{}", answer.text);
    let records = log::events(&rivulet).await;
    let receipt = &records.last().unwrap().value["receipt"];
    assert_eq!(receipt["schema_fault"], json!({"pointer": "/metadata/n", "keyword": "type"}), "{receipt}");

    for (name, text) in [("2.json", "{\"type\":"), ("2.json", r##"{"$ref":"#"}"##), ("1.1.json", "{}")] {
        let failures = rivulet.metric("rivulet_gateway_schema_reloads_total", &["failed"]).await.unwrap();
        std::fs::write(folder.join(name), text).unwrap();
        faults::eventually("the broken folder is noticed", SOON, async || {
            let now = rivulet.metric("rivulet_gateway_schema_reloads_total", &["failed"]).await?;
            (now > failures).then_some(())
        })
        .await;
        assert_eq!(rivulet.metric("rivulet_gateway_schemas_stale", &[]).await, Some(1));
        assert_eq!(served(&rivulet).await, second, "the old ones stay");
        assert_eq!(send(json!("x")).await, "accepted");
        std::fs::remove_file(folder.join(name)).unwrap();
        faults::eventually("the mended folder is noticed", SOON, async || {
            (rivulet.metric("rivulet_gateway_schemas_stale", &[]).await? == 0).then_some(())
        })
        .await;
    }
    let told = rivulet.stderr();
    assert!(told.contains("x_live/2.json") && told.contains("those before stay in force"), "{told}");
    assert!(!told.contains("panicked"));

    let list = rivulet.secret().get("/v1/schemas").await.unwrap();
    let all = list.json["schemas"].as_array().unwrap();
    let names: Vec<&str> = all.iter().map(|one| one["schema"].as_str().unwrap()).collect();
    assert_eq!(names, ["x_live@1", "x_live@1.1.0"], "{}", list.text);
    assert_eq!((&all[1]["mode"], &all[1]["newest"]), (&json!("observe"), &json!(true)));
    let one = rivulet.secret().get("/v1/schemas/x_live/1.0.0").await.unwrap();
    assert_eq!((one.json, one.text), (first.clone(), first.to_string()), "as it was written");
    for path in ["/v1/schemas", "/v1/schemas/x_live/1"] {
        assert_eq!(rivulet.client().get(path).await.unwrap().status, 403, "{path} for a page's key");
        assert_eq!(rivulet.client().keyless().get(path).await.unwrap().status, 401, "{path} without a key");
    }
    for (path, code) in [
        ("x_live/9", "schema.version_unknown"),
        ("x_live/x", "schema.version_unknown"),
        ("nothing/1", "schema.unknown"),
    ] {
        let answer = rivulet.secret().get(&format!("/v1/schemas/{path}")).await.unwrap();
        assert_eq!((answer.status, answer.code()), (404, code), "{path}");
    }
    crate::hostile::well(&mut rivulet).await;
}
