//! A receipt says what the gateway saw, whatever the sender planted.

use tests::events;
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
