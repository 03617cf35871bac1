//! What is right is accepted, what is wrong is named, and neither touches the other.

use serde_json::{Value, json};
use tests::events::{self, EXAMPLE, EXAMPLE_ID, Random};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::Rivulet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_event_is_accepted_safe_on_disk_and_counted_once_when_sent_again() {
    let _timed = Timed::new("accept: example");
    let rivulet = Rivulet::up().await;
    let client = rivulet.client();
    let first = client.send(EXAMPLE).await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!(first.verdicts().len(), 1);
    assert_eq!(first.verdicts()[0]["event_id"], EXAMPLE_ID);
    assert_eq!(first.verdicts()[0]["status"], "accepted");
    assert_eq!(first.verdicts()[0]["acked"], "disk");

    let again = client.send(EXAMPLE).await;
    assert_eq!(again.status, 200, "{}", again.text);
    assert!(["accepted", "duplicate"].contains(&again.statuses()[0]), "{}", again.text);

    // An event behind it: when that is counted, the repeat has been seen.
    let mut random = Random::new(1);
    client.send(events::page_view(&mut random, &events::of_user("user_789")).to_string()).await;
    let profile = faults::eventually("the processor counts the later event", SOON, async || {
        rivulet.profile("user:user_789").await.filter(|profile| profile["counters"]["page_view"] == 1)
    });
    let profile = profile.await;
    assert_eq!(profile["counters"]["add_to_cart"], 1, "{profile}");
    assert_eq!(profile["profile"], "user:user_789");

    let record =
        log::events(&rivulet).await.into_iter().find(|record| record.event_id() == EXAMPLE_ID).unwrap();
    assert_eq!(record.key, "user_789");
    let body = EXAMPLE.strip_suffix('}').unwrap();
    assert!(record.raw_value().starts_with(body), "the sender's own bytes stand on the log: {}", record.line);
    assert_eq!(record.value["receipt"]["source"], "web");
    assert_eq!(record.value["receipt"]["schema"], "add_to_cart@1");
    assert_eq!(record.headers["ce_id"], EXAMPLE_ID);
    assert_eq!(record.headers["ce_type"], "add_to_cart");
    assert_eq!(record.headers["ce_specversion"], "1.0");

    let fate = log::fate(&rivulet, EXAMPLE_ID).await;
    assert_eq!(fate["outcome"], "accepted", "{fate}");
    assert!(fate.to_string().contains("rivulet.events"), "fate names where it stands: {fate}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_event_is_named_to_the_field_and_its_ninety_nine_neighbours_are_accepted() {
    let _timed = Timed::new("accept: batch");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("accept: batch");
    let bad_place = usize::try_from(random.below(100)).unwrap();
    let mut batch: Vec<Value> = (0..100)
        .map(|n| events::add_to_cart(&mut random, &events::of_user(&format!("batch-{}", n % 7))))
        .collect();
    batch[bad_place]["metadata"] = json!({ "product_id": "product_456", "quantity": "two", "note": "näh" });
    let bad_id = events::id(&batch[bad_place]).to_owned();

    let answer = rivulet.client().send(json!({ "events": batch }).to_string()).await;
    assert_eq!(answer.status, 207, "{}", answer.text);
    assert_eq!(answer.verdicts().len(), 100);
    for (place, (event, verdict)) in batch.iter().zip(answer.verdicts()).enumerate() {
        assert_eq!(verdict["event_id"], event["event_id"], "verdict {place} is of another event");
        if place == bad_place {
            assert_eq!(verdict["status"], "rejected", "{verdict}");
            assert_eq!(verdict["reason"]["code"], "schema.invalid");
            assert_eq!(verdict["reason"]["pointer"], "/metadata/quantity");
            assert_eq!(verdict["reason"]["keyword"], "type");
            assert_eq!(verdict["reason"]["schema"], "add_to_cart@1");
            assert!(!verdict.to_string().contains("two"), "the value is not echoed: {verdict}");
        } else {
            assert_eq!(
                (&verdict["status"], &verdict["acked"]),
                (&json!("accepted"), &json!("disk")),
                "{verdict}"
            );
        }
    }

    let records = log::events(&rivulet).await;
    assert_eq!(records.len(), 99);
    assert!(log::find(&records, &bad_id).is_none());
    let quarantine = log::cat(&rivulet, "rivulet.quarantine").await;
    assert_eq!(quarantine.len(), 1, "{quarantine:?}");
    assert_eq!(quarantine[0].key, bad_id);
    let kept = Kept::read(&rivulet).await;
    assert!(kept.has(batch[bad_place].to_string().as_bytes()), "the raw bytes are not there: {quarantine:?}");
    let fate = log::fate(&rivulet, &bad_id).await;
    assert_eq!(fate["outcome"], "quarantined", "{fate}");
    assert!(fate.to_string().contains("/metadata/quantity"), "fate says why: {fate}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_of_a_body_gives_one_verdict_an_event() {
    let _timed = Timed::new("accept: forms");
    let rivulet = Rivulet::up().await;
    let client = rivulet.client();
    let mut random = Random::seeded("accept: forms");
    let mut some = |count: usize| -> Vec<Value> {
        (0..count).map(|_| events::any(&mut random, &events::of_device("forms-device"))).collect()
    };
    let json = ("content-type", "application/json");
    let lines = ("content-type", "application/x-ndjson");
    let (one, array, envelope, ndjson) = (some(1), some(3), some(4), some(5));
    let (zipped, deflated, beacon, crlf) = (some(2), some(2), some(1), some(3));
    let requests: Vec<(&str, Vec<(&str, &str)>, Vec<u8>, usize)> = vec![
        ("one object", vec![json], one[0].to_string().into(), 1),
        ("array", vec![json], events::array(&array).into(), 3),
        (
            "envelope",
            vec![json],
            json!({ "events": envelope, "sent_at": events::now_millis() }).to_string().into(),
            4,
        ),
        ("NDJSON", vec![lines], events::ndjson(&ndjson).into(), 5),
        (
            "NDJSON with CRLF and blank lines",
            vec![lines],
            events::ndjson(&crlf).replace('\n', "\r\n\r\n").into(),
            3,
        ),
        (
            "gzip",
            vec![json, ("content-encoding", "gzip")],
            tests::client::gzip(events::array(&zipped).as_bytes()),
            2,
        ),
        (
            "deflate",
            vec![json, ("content-encoding", "deflate")],
            tests::client::zlib(events::array(&deflated).as_bytes()),
            2,
        ),
        ("beacon", vec![("content-type", "text/plain;charset=UTF-8")], beacon[0].to_string().into(), 1),
    ];
    for (name, headers, body, count) in requests {
        let answer = client.send_with(&headers, body).await;
        assert_eq!((answer.status, answer.verdicts().len()), (200, count), "{name}: {}", answer.text);
        assert!(answer.statuses().iter().all(|status| *status == "accepted"), "{name}: {}", answer.text);
    }
    assert_eq!(log::events(&rivulet).await.len(), 21);

    let basic = client
        .keyless()
        .send_with(&[json, ("authorization", "Basic d2tfZGV2Og==")], some(1)[0].to_string())
        .await;
    assert_eq!(basic.status, 200, "{}", basic.text);
    let header = client.keyless().send_with(&[json, ("x-write-key", "wk_dev")], some(1)[0].to_string()).await;
    assert_eq!(header.status, 200, "{}", header.text);
    let query =
        client.keyless().post("/v1/events?key=wk_dev", &[json], some(1)[0].to_string()).await.unwrap();
    assert_eq!(query.status, 200, "{}", query.text);
    let secret =
        client.keyless().post("/v1/events?key=sk_dev", &[json], some(1)[0].to_string()).await.unwrap();
    assert!((400..500).contains(&secret.status), "a secret key travelled in a URL: {}", secret.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_names_the_level_that_was_reached_and_no_higher() {
    let _timed = Timed::new("accept: levels");
    let rivulet = Rivulet::up().await;
    let mut random = Random::new(2);
    for (ask, right) in
        [("received", vec!["received", "disk"]), ("disk", vec!["disk"]), ("broker", vec!["disk"])]
    {
        let event = events::page_view(&mut random, &events::of_user("levels")).to_string();
        let (path, headers) = (format!("/v1/events?ack={ask}"), [("content-type", "application/json")]);
        let answer = rivulet.client().post(&path, &headers, event).await.unwrap();
        let acked = answer.verdicts()[0]["acked"].as_str().unwrap();
        assert!(right.contains(&acked), "asked for {ask}: {}", answer.text);
    }
    let odd = rivulet.client().post("/v1/events?ack=heaven", &[], EXAMPLE).await.unwrap();
    assert_eq!(odd.status, 400, "{}", odd.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_an_id_is_given_one_and_any_spelling_of_an_id_is_the_same() {
    let _timed = Timed::new("accept: ids");
    let rivulet = Rivulet::up().await;
    let client = rivulet.client();
    let minted = client
        .send(r#"{"event_type":"page_view","user_id":"ids","metadata":{"url":"https://shop.example/"}}"#)
        .await;
    assert_eq!(minted.status, 200, "{}", minted.text);
    assert_eq!(minted.verdicts()[0]["event_id"].as_str().map(str::len), Some(36), "{}", minted.text);
    for spelling in ["9F0C4E6A-0B7D-4C1E-9A55-3C2B1A0F9E8D", "9f0c4e6a0b7d4c1e9a553c2b1a0f9e8d"] {
        let event = json!({ "event_id": spelling, "event_type": "signup", "user_id": "ids", "metadata": { "method": "email" } });
        let answer = client.send(event.to_string()).await;
        assert_eq!(
            answer.verdicts()[0]["event_id"],
            "9f0c4e6a-0b7d-4c1e-9a55-3c2b1a0f9e8d",
            "{}",
            answer.text
        );
    }
    client.send(events::product_view(&mut Random::new(3), &events::of_user("ids"), "tea").to_string()).await;
    let profile = faults::eventually("the last event is counted", SOON, async || {
        rivulet.profile("user:ids").await.filter(|profile| profile["counters"]["product_view"] == 1)
    });
    assert_eq!(profile.await["counters"]["signup"], 1, "two spellings of one id are one event");
}

/// What stands in quarantine, to be searched.
pub(crate) struct Kept(String);

impl Kept {
    /// Reads the topic.
    pub(crate) async fn read(rivulet: &Rivulet) -> Self {
        let records = log::cat(rivulet, "rivulet.quarantine").await;
        let values: Vec<String> = records.iter().map(|record| record.value.to_string()).collect();
        Self(values.join("\n"))
    }

    /// Whether these bytes are there, as text or as base64.
    pub(crate) fn has(&self, raw: &[u8]) -> bool {
        let as_text = std::str::from_utf8(raw)
            .is_ok_and(|raw| self.0.contains(Value::from(raw).to_string().trim_matches('"')));
        as_text || self.0.contains(&base64(raw))
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group =
            (0..3).fold(0_u32, |group, n| (group << 8) | u32::from(chunk.get(n).copied().unwrap_or(0)));
        for n in 0..4 {
            let digit = usize::try_from((group >> (18 - 6 * n)) & 63).unwrap();
            text.push(if n <= chunk.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    text
}
