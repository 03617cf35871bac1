//! A receipt says what the gateway saw, whatever the sender planted.

use serde_json::json;
use tests::events::{self, Random, of_user};
use tests::faults::Timed;
use tests::log;
use tests::rivulet::Rivulet;

/// C09: nothing a client sends can set what the gateway notes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_says_what_the_gateway_saw_whatever_the_sender_planted() {
    let _timed = Timed::new("C09");
    let rivulet = Rivulet::up().await;
    let minimal = r#"{"event_type":"page_view","user_id":"c09"}"#;
    let planted = [
        r#"{"event_type":"page_view","user_id":"c09","received_at":"1999-01-01T00:00:00Z","source":"admin","ip":"1.2.3.4"}"#.to_owned(),
        r#"{"event_type":"page_view","user_id":"c09","schema":"add_to_cart@999"}"#.to_owned(),
        r#"{"event_type":"page_view","user_id":"c09","recei\u0076ed_at":"1999-01-01T00:00:00Z"}"#.to_owned(),
        r#"{"event_type":"page_view","user_id":"c09","rec\u0065ipt":{"source":"admin"}}"#.to_owned(),
        r#"{"receipt":{"source":"admin"},"event_type":"page_view","user_id":"c09"}"#.to_owned(),
        r#"{"event_type":"page_view","user_id":"c09","metadata":{"receipt":{"source":"admin"}}}"#.to_owned(),
        format!("{minimal}   "),
        format!("{}\n\t}}", minimal.strip_suffix('}').unwrap()),
        minimal.to_owned(),
        format!("[{minimal}\n]\n"),
    ];
    let before = events::now_millis();
    let mut accepted = 0;
    for body in &planted {
        let answer = rivulet.client().send(body.clone()).await;
        assert!([200, 422].contains(&answer.status), "{body}: {}", answer.text);
        if answer.status == 200 {
            accepted += 1;
        } else {
            let code = answer.verdicts()[0]["reason"]["code"].as_str().unwrap();
            assert!(
                ["event.reserved_field", "schema.version_unknown"].contains(&code),
                "{body}: {}",
                answer.text
            );
        }
    }
    assert!(accepted >= 5, "lawful events were refused");
    let records = log::events(&rivulet).await;
    assert_eq!(records.len(), accepted);
    for record in &records {
        // Two spellings of a name at the top would be two members of which a parser keeps either.
        let names = top_level_names(record.raw_value());
        assert_eq!(names.iter().filter(|name| *name == "receipt").count(), 1, "{}", record.line);
        let receipt = &record.value["receipt"];
        assert_eq!(receipt["source"], "web", "{}", record.line);
        assert!(receipt["received_at"].as_str().unwrap() > "2025", "{}", record.line);
        assert_ne!(receipt["ip"], "1.2.3.4", "{}", record.line);
        assert_eq!(receipt["schema"], "page_view@1", "{}", record.line);
        assert_eq!(record.headers["ce_source"], "web", "{}", record.line);
    }
    assert!(before <= events::now_millis());
}

/// The kind behind C09: any spelling of the reserved name, and every other way in which a sender may try to be believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_header_query_or_envelope_sets_what_the_gateway_notes() {
    let _timed = Timed::new("receipts: spellings");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("receipts: spellings");
    let mut spelled = || -> String {
        "receipt"
            .chars()
            .map(|letter| match random.below(4) {
                0 => format!("\\u{:04x}", u32::from(letter)),
                1 => format!("\\u{:04X}", u32::from(letter)),
                2 => letter.to_ascii_uppercase().to_string(),
                _ => letter.to_string(),
            })
            .collect()
    };
    let planted = r#"{"event_id":"00000000-0000-4000-8000-000000000000","received_at":"1999-01-01T00:00:00.000Z","occurred_at":"1999-01-01T00:00:00.000Z","source":"admin","ip":"1.2.3.4"}"#;
    let events: Vec<String> = (0..60)
        .map(|n| {
            let name = spelled();
            match n % 3 {
                0 => format!(r#"{{"{name}":{planted},"event_type":"x","user_id":"r"}}"#),
                1 => format!(r#"{{"event_type":"x","user_id":"r","{name}":{planted}}}"#),
                _ => format!(r#"{{"event_type":"x","{name}" : null,"user_id":"r"}}"#),
            }
        })
        .collect();
    let answer = rivulet.client().send(format!("[{}]", events.join(","))).await;
    assert_eq!(answer.verdicts().len(), events.len(), "{}", answer.text);
    for (event, verdict) in events.iter().zip(answer.verdicts()) {
        assert_eq!(verdict["reason"]["code"], "event.reserved_field", "{event}: {verdict}");
    }

    let event = events::page_view(&mut random, &of_user("r"));
    let body = format!(
        r#"{{"source":"admin","received_at":1,"ip":"1.2.3.4","receipt":{planted},"events":[{event}]}}"#
    );
    let headers = [
        ("x-forwarded-for", "1.2.3.4"),
        ("forwarded", "for=1.2.3.4"),
        ("x-real-ip", "1.2.3.4"),
        ("cf-connecting-ip", "1.2.3.4"),
        ("true-client-ip", "1.2.3.4"),
        ("x-source", "admin"),
        ("ce-source", "admin"),
        ("ce-id", "1"),
        ("date", "Fri, 01 Jan 1999 00:00:00 GMT"),
    ];
    let path = "/v1/events?source=admin&ip=1.2.3.4&received_at=1999-01-01T00:00:00Z";
    let answer = rivulet.client().post(path, &headers, body).await.unwrap();
    assert_eq!(answer.statuses(), ["accepted"], "{}", answer.text);
    let (mut socket, _) = tests::socket::Socket::hello(rivulet.address(), None).await;
    let over = events::page_view(&mut random, &of_user("r"));
    socket
        .send(&json!({ "type": "batch", "seq": 1, "source": "admin", "received_at": 1, "receipt": {}, "events": [over] }))
        .await;
    assert_eq!(socket.expect("ack").await["events"][0]["status"], "accepted");
    let records = log::events(&rivulet).await;
    assert_eq!(records.len(), 2);
    for record in &records {
        let receipt = &record.value["receipt"];
        assert_eq!((&receipt["source"], &record.headers["ce_source"]), (&json!("web"), &json!("web")));
        assert!(receipt["received_at"].as_str().unwrap() > "2025", "{receipt}");
        assert!(!record.line.contains("1.2.3.4") && !record.line.contains("admin"), "{}", record.line);
        assert_eq!(receipt["ip"], "127.0.0.0", "the peer's own, truncated: {receipt}");
    }
}

// Names of the outermost object, repeats included.
fn top_level_names(json: &str) -> Vec<String> {
    let (mut names, mut depth, mut string, mut name, mut expects) =
        (Vec::new(), 0_i32, None::<usize>, None, false);
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match (string, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(start), b'"') => {
                name = (depth == 1 && expects).then(|| json[start..=at].to_owned());
                string = None;
            }
            (None, b'"') => string = Some(at),
            (None, b':') if depth == 1 => {
                names.extend(name.take().and_then(|name| serde_json::from_str::<String>(&name).ok()));
                expects = false;
            }
            (None, b',') if depth == 1 => expects = true,
            (None, b'{' | b'[') => {
                depth += 1;
                expects = depth == 1;
            }
            (None, b'}' | b']') => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    names
}
