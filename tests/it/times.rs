//! Times that are almost right: read as what they obviously mean, or refused.

use serde_json::{Value, json};
use tests::events::{self, Random, of_user};
use tests::faults::Timed;
use tests::log;
use tests::rivulet::Rivulet;

const MINUTE: i64 = 60_000;

/// C12: times that are almost right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_is_read_as_what_it_obviously_means_or_refused_by_pointer() {
    let _timed = Timed::new("C12");
    let rivulet = Rivulet::up().await;
    let times: [(Value, &[&str]); 10] = [
        (json!("2024-03-31T02:30:00+02"), &["2024-03-31T00:30:00.000Z"]),
        (json!("2024-03-31 02:30:00"), &["2024-03-31T02:30:00.000Z"]),
        (json!("1711845000000"), &["2024-03-31T00:30:00.000Z"]),
        (json!(1_711_845_000), &["2024-03-31T00:30:00.000Z"]),
        (json!(1_711_845_000_123_456_i64), &["2024-03-31T00:30:00.123Z"]),
        (json!(0), &[]),
        (json!(-1), &[]),
        (json!("275760-09-13T00:00:00Z"), &[]),
        (json!("2024-02-30T00:00:00Z"), &[]),
        (json!("2016-12-31T23:59:60Z"), &["2016-12-31T23:59:59.000Z", "2017-01-01T00:00:00.000Z"]),
    ];
    let mut random = Random::new(21);
    let batch: Vec<Value> = times
        .iter()
        .map(|(time, _)| {
            let mut event = events::page_view(&mut random, &of_user("c12"));
            event["timestamp"] = time.clone();
            event
        })
        .collect();
    let answer = rivulet.client().send(events::array(&batch)).await;
    assert!([200, 207].contains(&answer.status), "{}", answer.text);
    assert_eq!(answer.verdicts().len(), 10);
    let records = log::events(&rivulet).await;
    for (((time, meant), event), verdict) in times.iter().zip(&batch).zip(answer.verdicts()) {
        if verdict["status"] == "accepted" {
            let occurred =
                log::find(&records, events::id(event)).unwrap().value["receipt"]["occurred_at"].clone();
            assert!(meant.contains(&occurred.as_str().unwrap()), "{time} was read as {occurred}");
        } else {
            assert_eq!(verdict["reason"]["pointer"], "/timestamp", "{time}: {verdict}");
        }
    }

    let ahead =
        events::at(events::page_view(&mut random, &of_user("c12")), events::now_millis() + 24 * 60 * MINUTE);
    let answer = rivulet.client().send(ahead.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let records = log::events(&rivulet).await;
    let record = log::find(&records, events::id(&ahead)).unwrap();
    let receipt = &record.value["receipt"];
    assert!(receipt["clamped_from"].is_string(), "the time as sent is kept: {receipt}");
    assert_eq!(record.value["timestamp"], ahead["timestamp"]);
    let (occurred, received) = (millis(&receipt["occurred_at"]), millis(&receipt["received_at"]));
    assert!(occurred <= received + MINUTE, "{receipt}");

    // A device whose clock is an hour fast: `sent_at` gives the error away.
    let now = events::now_millis();
    let skewed = events::at(events::page_view(&mut random, &of_user("c12")), now + 60 * MINUTE - 5_000);
    rivulet.client().send(json!({ "sent_at": now + 60 * MINUTE, "events": [skewed] }).to_string()).await;
    let records = log::events(&rivulet).await;
    let occurred = millis(&log::find(&records, events::id(&skewed)).unwrap().value["receipt"]["occurred_at"]);
    assert!(
        (occurred - (now - 5_000)).abs() < 5_000,
        "corrected by sent_at: off by {} ms",
        occurred - (now - 5_000)
    );
}

fn millis(time: &Value) -> i64 {
    tests::oracle::millis(time.as_str().unwrap_or_else(|| panic!("no time: {time}")))
}
