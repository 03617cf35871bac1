//! Nothing disappears: every event ends in exactly one counted outcome.

use serde_json::{Value, json};
use tests::events::{self, Random, of_user};
use tests::faults::{self, SOON, Timed};
use tests::rivulet::{Rivulet, sum};

const OUTCOMES: [&str; 5] = ["delivered", "duplicate", "quarantined", "rejected", "discarded"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_received_equals_the_sum_of_what_became_of_it() {
    let _timed = Timed::new("ledger");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("ledger");
    let (mut sent, mut repeated, mut bad) = (0_u64, 0_u64, 0_u64);
    for _ in 0..20 {
        let mut batch: Vec<Value> =
            (0..5).map(|n| events::any(&mut random, &of_user(&format!("ledger-{n}")))).collect();
        if random.below(2) == 0 {
            let mut wrong = events::add_to_cart(&mut random, &of_user("ledger-0"));
            wrong["metadata"]["quantity"] = json!("two");
            batch.push(wrong);
            bad += 1;
        }
        if random.below(2) == 0 {
            batch.push(batch[0].clone());
            repeated += 1;
        }
        sent += batch.len() as u64;
        rivulet.client().send(events::array(&batch)).await;
    }
    let told = faults::eventually("both ledgers are closed", SOON, async || {
        let metrics = rivulet.metrics().await;
        let received = sum(&metrics, "rivulet_gateway_events_received_total", &[])?;
        let in_flight = sum(&metrics, "rivulet_gateway_events_in_flight", &[]).unwrap_or(0);
        let consumed = sum(&metrics, "rivulet_processor_records_total", &[])?;
        let delivered = sum(&metrics, "rivulet_gateway_events_total", &["delivered"])?;
        (received >= sent && in_flight == 0 && consumed >= delivered).then_some(metrics)
    });
    let metrics = told.await;
    let gateway = |outcome: &str| {
        sum(&metrics, "rivulet_gateway_events_total", &[&format!("\"{outcome}\"")]).unwrap_or(0)
    };
    assert_eq!(sum(&metrics, "rivulet_gateway_events_received_total", &[]), Some(sent));
    assert_eq!(OUTCOMES.iter().map(|outcome| gateway(outcome)).sum::<u64>(), sent, "{metrics}");
    assert_eq!(gateway("rejected"), bad, "a rejected event's copy in quarantine counts as rejected only");
    assert_eq!(gateway("quarantined"), 0);

    let processor = |outcome: &str| {
        sum(&metrics, "rivulet_processor_records_total", &[&format!("\"{outcome}\"")]).unwrap_or(0)
    };
    let consumed = sum(&metrics, "rivulet_processor_records_total", &[]).unwrap();
    assert_eq!(consumed, gateway("delivered"), "everything delivered is consumed");
    assert_eq!(
        ["applied", "duplicate", "late", "quarantined"].iter().map(|outcome| processor(outcome)).sum::<u64>(),
        consumed
    );
    assert_eq!(processor("applied"), sent - bad - repeated, "each event is applied once");
}
