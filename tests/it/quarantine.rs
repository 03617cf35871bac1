//! Refused events are found by reason, mended and tried again, from the command line.

use serde_json::{Value, json};
use tests::events::{self, Random, of_user};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::Rivulet;

async fn run(rivulet: &Rivulet, arguments: &[&str]) -> (bool, String) {
    let url = format!("http://{}", rivulet.address());
    let arguments = [&["quarantine"], arguments, &["--url", &url]].concat();
    let output = rivulet.run(&arguments).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_broken_by_a_release_is_found_mended_and_counted_once() {
    let _timed = Timed::new("quarantine: replay");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("quarantine: replay");
    let mut batch: Vec<Value> =
        (0..3).map(|_| events::add_to_cart(&mut random, &of_user("mended"))).collect();
    for event in &mut batch {
        event["metadata"]["quantity"] = json!("two");
    }
    let mut nameless = events::page_view(&mut random, &json!({}));
    nameless["user_id"] = json!("null");
    batch.push(nameless);
    assert_eq!(rivulet.client().send(events::array(&batch)).await.status, 422);

    let (done, reasons) = run(&rivulet, &["reasons"]).await;
    assert!(
        done && reasons.contains("schema.invalid") && reasons.contains("/metadata/quantity"),
        "{reasons}"
    );
    let (_, listed) = run(&rivulet, &["list", "--reason", "schema.invalid", "--json"]).await;
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(listed.len(), 3, "{listed:?}");
    let (_, shown) = run(&rivulet, &["show", listed[0]["at"].as_str().unwrap()]).await;
    assert!(shown.contains("add_to_cart@1"), "{shown}");

    // As they are, they are refused again, and nothing is kept twice.
    let (done, told) = run(&rivulet, &["replay", "--reason", "schema.invalid"]).await;
    assert!(!done && told.contains("0 taken, 3 left in quarantine"), "{told}");
    let patch = rivulet.path("patch.json");
    let operations = json!([{"op": "replace", "path": "/metadata/quantity", "value": 2}]);
    std::fs::write(&patch, operations.to_string()).unwrap();
    let patched = ["replay", "--reason", "schema.invalid", "--patch", patch.to_str().unwrap()];
    let (done, told) = run(&rivulet, &[&patched[..], &["--dry-run"]].concat()).await;
    assert!(done && told.contains("/metadata/quantity: \"two\" -> 2"), "{told}");
    assert!(log::events(&rivulet).await.is_empty(), "a dry run takes nothing");

    for _ in 0..2 {
        let (done, told) = run(&rivulet, &patched).await;
        assert!(done && told.contains("3 taken, 0 left in quarantine"), "{told}");
    }
    let counted = faults::eventually("the mended events are counted", SOON, async || {
        rivulet.profile("user:mended").await.filter(|profile| profile["counters"]["add_to_cart"] == 3)
    });
    counted.await;
    let received: Vec<Value> = listed.iter().map(|record| record["received_at"].clone()).collect();
    for record in log::events(&rivulet).await {
        assert!(received.contains(&record.value["receipt"]["received_at"]), "{}", record.line);
    }
    assert_eq!(log::cat(&rivulet, "rivulet.quarantine").await.len(), 4, "quarantine itself stays as it was");

    let (done, told) = run(&rivulet, &["replay"]).await;
    assert!(!done && told.contains("name the events to try again"), "{told}");
    let (done, told) = run(&rivulet, &["list", "--key", "wk_dev"]).await;
    assert!(!done && told.contains("key.secret_required"), "{told}");
}
