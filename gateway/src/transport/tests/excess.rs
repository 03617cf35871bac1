//! Too much at once: split by the server where it can, else said so that the next request fits.

use super::*;

/// A gateway that takes little at once.
fn small() -> Stand {
    stand(GatewayConfig { batch_events: 3, event_bytes: 400, batch_bytes: 5_000, ..GatewayConfig::default() })
}

fn good(n: usize) -> String {
    GOOD.replace("\"u\"", &format!("\"u{n}\""))
}

#[tokio::test]
async fn a_body_of_more_events_than_a_batch_is_taken_in_slices_with_all_verdicts_in_order() {
    let stand = small();
    let events: Vec<String> = (0..20).map(|n| if n % 7 == 3 { BAD.to_owned() } else { good(n) }).collect();
    let right: Vec<_> = (0..20).map(|n| if n % 7 == 3 { "rejected" } else { "accepted" }).collect();
    let bodies = [
        format!("[{}]", events.join(",")),
        format!("{{\"events\":[{}]}}", events.join(",")),
        events.join("\n"),
    ];
    for (body, times) in bodies.iter().zip(1..) {
        let answer = send(&stand, &[], body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.statuses()), (207, right.clone()), "{}", answer.text);
        let users: Vec<_> =
            stand.log.records(Topic::Events).iter().map(|r| value(r)["user_id"].clone()).collect();
        let sent = (0..20).filter(|n| n % 7 != 3).map(|n| json!(format!("u{n}")));
        let sent: Vec<_> = sent.cycle().take(17 * times).collect();
        assert_eq!(users, sent, "in the order sent");
    }
    assert!(stand.gateway.ledger().totals("web").balances());
}

#[tokio::test]
async fn a_client_that_sent_too_many_events_converges_in_two_requests() {
    let stand = small();
    let events: Vec<String> = vec!["{}".to_owned(); 60];
    for form in ["json", "lines"] {
        let body = |events: &[String]| match form {
            "json" => format!("[{}]", events.join(",")),
            _ => events.join("\n"),
        };
        let refused = send(&stand, &[], body(&events)).await;
        let error = &refused.json["error"];
        assert_eq!((refused.status.as_u16(), refused.code()), (413, "batch.too_many_events"));
        assert_eq!(
            (&error["limit"], &error["size"], &error["index"]),
            (&json!(48), &json!(49), &json!(48)),
            "{form}: {}",
            refused.text
        );
        let fits = usize::try_from(error["index"].as_u64().unwrap()).unwrap();
        for part in [&events[..fits], &events[fits..]] {
            assert_eq!(send(&stand, &[], body(part)).await.statuses().len(), part.len(), "{form}");
        }
    }
}

#[tokio::test]
async fn a_client_that_sent_too_many_bytes_is_told_how_many_fit() {
    let stand = small();
    let events: Vec<String> = (0..100).map(good).collect();
    let body = format!("[{}]", events.join(","));
    let zipped = [("content-encoding", "gzip")];
    let announced = send(&stand, &[], body.clone()).await;
    let inflated = send(&stand, &zipped, gzip(body.as_bytes())).await;
    for (answer, whole) in [(&announced, true), (&inflated, false)] {
        let error = &answer.json["error"];
        assert_eq!((answer.status.as_u16(), answer.code()), (413, "body.too_large"), "{}", answer.text);
        assert_eq!((&error["limit"], error.get("index")), (&json!(5_000), None), "{}", answer.text);
        let size = usize::try_from(error["size"].as_u64().unwrap()).unwrap();
        assert!(size > 5_000 && (size == body.len() || !whole), "{}", answer.text);
    }
    let fits = (5_000 / (good(99).len() + 1) - 1).min(48);
    for part in events.chunks(fits) {
        assert!(send(&stand, &[], format!("[{}]", part.join(","))).await.status.is_success());
    }
    let other = send(&stand, &[], "hello").await;
    assert_eq!(other.json["error"].get("limit"), None, "{}", other.text);
}

#[tokio::test]
async fn an_event_that_is_too_large_is_named_by_its_place_with_its_size_and_the_limit() {
    let stand = small();
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(500));
    let answer = send(&stand, &[], format!("[{GOOD},{large},{GOOD}]")).await;
    assert_eq!(answer.statuses(), ["accepted", "rejected", "accepted"], "{}", answer.text);
    let reason = &answer.json["events"][1]["reason"];
    assert_eq!(reason["code"], "event.too_large");
    assert_eq!(reason["expected"], "at most 400 bytes; this event has 508");
}
