//! Times that are almost right: read as what they obviously mean, or refused.

use serde_json::{Value, json};
use tests::corpus;
use tests::events::{self, Random, of_user};
use tests::faults::Timed;
use tests::log::{self, Record};
use tests::rivulet::Rivulet;

const MINUTE: i64 = 60_000;

/// C12, and every other time of `tests/hostile/times.toml`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_is_read_as_what_it_obviously_means_or_refused_by_pointer() {
    let _timed = Timed::new("C12");
    let rivulet = Rivulet::up().await;
    let cases = corpus::load("times.toml", "time", "sent", &["means", "clamped"]);
    let mut random = Random::new(21);
    let batch: Vec<(String, String)> = cases
        .iter()
        .map(|case| {
            let id = random.uuid();
            let sent = String::from_utf8(corpus::expand(&case.name)).unwrap();
            let event = format!(
                r#"{{"event_id":"{id}","event_type":"page_view","user_id":"c12","timestamp":{sent},"metadata":{{"url":"https://shop.example/"}}}}"#
            );
            (id, event)
        })
        .collect();
    let body: Vec<&str> = batch.iter().map(|(_, event)| event.as_str()).collect();
    let answer = rivulet.client().send(format!("[{}]", body.join(","))).await;
    assert_eq!((answer.status, answer.verdicts().len()), (207, cases.len()), "{}", answer.text);
    let records = log::events(&rivulet).await;
    for ((case, (id, event)), verdict) in cases.iter().zip(&batch).zip(answer.verdicts()) {
        let sent = &case.name[..case.name.len().min(60)];
        let clamped = case.flag("clamped", false);
        if case.text("means").is_none() && !clamped {
            assert_eq!(verdict["status"], "rejected", "{sent}: {verdict}");
            assert_eq!(verdict["reason"]["pointer"], "/timestamp", "{sent}: {verdict}");
            continue;
        }
        assert_eq!(verdict["status"], "accepted", "{sent}: {verdict}");
        let record = log::find(&records, id).unwrap();
        let receipt = &record.value["receipt"];
        assert!(record.line.contains(event.strip_suffix('}').unwrap()), "kept as sent: {}", record.line);
        if let Some(means) = case.text("means") {
            assert_eq!(receipt["occurred_at"], means, "{sent}");
        }
        if clamped {
            assert_clamped(record, sent);
        }
    }
}

fn assert_clamped(record: &Record, sent: &str) {
    let receipt = &record.value["receipt"];
    assert!(receipt["clamped_from"].is_string(), "{sent}: the time as sent is kept: {receipt}");
    let (occurred, received) = (millis(&receipt["occurred_at"]), millis(&receipt["received_at"]));
    assert!((received..=received + MINUTE).contains(&occurred), "{sent}: {receipt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_is_corrected_by_when_it_says_that_it_sent() {
    let _timed = Timed::new("times: clocks");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("times: clocks");
    let mut view = |millis: i64| events::at(events::page_view(&mut random, &of_user("clock")), millis);
    let now = events::now_millis();
    let ahead = view(now + 24 * 60 * MINUTE);
    rivulet.client().send(ahead.to_string()).await;
    let just = view(now + MINUTE / 2);
    rivulet.client().send(just.to_string()).await;
    // How far the clock is off, against what the events and `sent_at` say; five seconds before it was sent.
    let off = [60 * MINUTE, -60 * MINUTE, 365 * 24 * 60 * MINUTE, 0];
    let skewed: Vec<Value> = off.iter().map(|off| view(now + off - 5_000)).collect();
    for (off, event) in off.iter().zip(&skewed) {
        let batch = json!({ "sent_at": now + off, "events": [event] }).to_string();
        assert_eq!(rivulet.client().send(batch).await.statuses(), ["accepted"]);
    }
    // The same by the query; a plus that came through as a blank is no other zone.
    let zoned =
        [("2024-03-31T02:30:00%2B02:00", true), ("2024-03-31T02:30:00+02:00", false), ("banana", false)];
    let half_past: Vec<Value> = zoned.iter().map(|_| view(1_711_845_000_000 - 5_000)).collect();
    for ((sent_at, read), event) in zoned.iter().zip(&half_past) {
        let path = format!("/v1/events?sent_at={sent_at}");
        let answer = rivulet.client().post(&path, &[], event.to_string()).await.unwrap();
        assert_eq!(answer.statuses(), ["accepted"], "{sent_at}: {}", answer.text);
        let warned = answer.text.contains("sent_at.ignored");
        assert_eq!(warned, !read, "{sent_at} is read, or it is said that it is not: {}", answer.text);
    }

    let records = log::events(&rivulet).await;
    let record = |event: &Value| log::find(&records, events::id(event)).unwrap();
    let occurred = |event: &Value| millis(&record(event).value["receipt"]["occurred_at"]);
    assert_clamped(record(&ahead), "a day ahead");
    assert_eq!(record(&ahead).value["timestamp"], ahead["timestamp"]);
    assert_eq!(occurred(&just), now + MINUTE / 2, "half a minute ahead is taken");
    for (off, event) in off.iter().zip(&skewed) {
        let received = millis(&record(event).value["receipt"]["received_at"]);
        assert_eq!(occurred(event), received - 5_000, "a clock off by {off} ms");
    }
    for ((sent_at, read), event) in zoned.iter().zip(&half_past) {
        let received = millis(&record(event).value["receipt"]["received_at"]);
        let right = if *read { received - 5_000 } else { 1_711_845_000_000 - 5_000 };
        assert_eq!(occurred(event), right, "{sent_at}");
    }
}

fn millis(time: &Value) -> i64 {
    tests::oracle::millis(time.as_str().unwrap_or_else(|| panic!("no time: {time}")))
}
