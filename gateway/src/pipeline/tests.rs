//! What a batch becomes: verdicts, records, counts.

use broker::log::Record;
use proptest::prelude::*;
use schemas::topic::Topic;
use std::sync::atomic::Ordering;

use super::*;
use crate::authenticate::Credential;
use crate::testing::{NOW, Stand, stand, value};
use crate::{Gateway, GatewayConfig};

fn transmission(gateway: &Gateway) -> Transmission {
    Transmission {
        key_is_good: true,
        key: gateway.keys().admit(&Credential::in_hello("wk_dev"), None).unwrap(),
        received_at: NOW,
        sent_at: SentAt::Absent,
        each_sent_at: Vec::new(),
        ack: AckLevel::Disk,
        ip: Some("203.0.113.0".to_owned()),
        user_agent: Some("test/1".to_owned()),
        signals: Signals::default(),
        session: None,
    }
}

async fn accept(stand: &Stand, events: &[&[u8]]) -> Vec<Verdict> {
    stand.gateway.accept(events, transmission(&stand.gateway)).await.unwrap()
}

fn event(n: u8, user: &str) -> Vec<u8> {
    let id = EventId::from_bytes([n; 16]);
    format!(r#"{{"event_id":"{id}","event_type":"page_view","user_id":"{user}","metadata":{{"title":"t"}}}}"#)
        .into()
}

fn statuses(verdicts: &[Verdict]) -> Vec<Status> {
    verdicts.iter().map(|verdict| verdict.status).collect()
}

fn ids(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| value(record)["receipt"]["event_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_record_is_the_senders_bytes_with_a_receipt_headers_and_the_profiles_key() {
    let stand = stand(GatewayConfig::default());
    let sent = event(1, "u1");
    let verdicts = accept(&stand, &[&sent]).await;
    assert_eq!((verdicts[0].status, verdicts[0].acked), (Status::Accepted, Some(AckLevel::Disk)));
    let records = stand.log.records(Topic::Events);
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert!(record.value.starts_with(sent.strip_suffix(b"}").unwrap()));
    assert_eq!(record.key, "u1");
    let receipt = value(record)["receipt"].clone();
    for (member, right) in [
        ("source", "web"),
        ("schema", "page_view@1"),
        ("trust", "public"),
        ("ip", "203.0.113.0"),
        ("user_agent", "test/1"),
        ("event_id", "01010101-0101-0101-0101-010101010101"),
    ] {
        assert_eq!(receipt[member], right, "{receipt}");
    }
    let headers: Vec<_> =
        record.headers.iter().map(|(name, text)| (name, std::str::from_utf8(text).unwrap())).collect();
    let right = [
        ("ce_specversion", "1.0"),
        ("ce_id", "01010101-0101-0101-0101-010101010101"),
        ("ce_type", "page_view"),
        ("ce_source", "web"),
        ("ce_time", receipt["occurred_at"].as_str().unwrap()),
        ("content-type", "application/json"),
    ];
    assert_eq!(headers, right);
}

#[tokio::test]
async fn one_bad_event_costs_only_itself_and_its_bytes_are_kept() {
    let stand = stand(GatewayConfig::default());
    let broken =
        b"{\"event_type\":\"page_view\",\"user_id\":\"u\",\"metadata\":{\"title\":\"\xf0\x9f\x98\"}}";
    let verdicts = accept(&stand, &[&event(1, "u"), broken, b"7", &event(2, "u")]).await;
    assert_eq!(statuses(&verdicts), [Status::Accepted, Status::Rejected, Status::Rejected, Status::Accepted]);
    assert_eq!(verdicts[1].reason.as_ref().unwrap().code, Code::JsonUnicode);
    assert_eq!(verdicts[1].reason.as_ref().unwrap().pointer.as_deref(), Some("/metadata/title"));
    assert_eq!(verdicts[1].acked, None);
    assert_eq!(stand.log.records(Topic::Events).len(), 2);
    let kept = stand.log.records(Topic::Quarantine);
    let (first, second) = (value(&kept[0]), value(&kept[1]));
    assert_eq!(first["reason"]["code"], "json.unicode");
    assert_eq!(first["source"], "web");
    assert_eq!(first["length"], broken.len());
    assert_eq!(first["sha256"].as_str().unwrap().as_bytes(), kept[0].key);
    assert!(first["raw_base64"].is_string() && first.get("raw").is_none());
    assert_eq!(second["raw"], "7");
    assert!(stand.gateway.ledger().totals("web").balances());
}

#[tokio::test]
async fn quarantine_keeps_a_part_of_a_large_event_and_the_hash_of_all() {
    let stand = stand(GatewayConfig { quarantine_bytes: 10, ..GatewayConfig::default() });
    accept(&stand, &["{\"a\":\"xxé…\"".as_bytes()]).await;
    let kept = value(&stand.log.records(Topic::Quarantine)[0]);
    assert_eq!(kept["raw"], "{\"a\":\"xxé", "cut before a character that does not fit");
    assert_eq!(kept["length"], 14);
}

#[tokio::test]
async fn a_repeat_is_a_duplicate_within_a_body_and_after_it() {
    let stand = stand(GatewayConfig::default());
    let (one, two, changed) = (event(1, "u"), event(2, "u"), [event(1, "u").as_slice(), b" "].concat());
    let verdicts = accept(&stand, &[&one, &two, &one, &changed]).await;
    // Other bytes under the same id: a conflict, which the processor settles (the first wins).
    assert_eq!(
        statuses(&verdicts),
        [Status::Accepted, Status::Accepted, Status::Duplicate, Status::Accepted]
    );
    assert_eq!(verdicts[2].acked, Some(AckLevel::Disk));
    let verdicts = accept(&stand, &[&one, &event(3, "u")]).await;
    assert_eq!(statuses(&verdicts), [Status::Duplicate, Status::Accepted]);
    assert_eq!(verdicts[0].acked, Some(AckLevel::Disk));
    // Somebody else's event of the same id is not a repeat.
    assert_eq!(statuses(&accept(&stand, &[&event(1, "other")]).await), [Status::Accepted]);
    assert_eq!(stand.log.records(Topic::Events).len(), 5);
    let totals = stand.gateway.ledger().totals("web");
    assert_eq!((totals.received, totals.delivered, totals.duplicate, totals.in_flight), (7, 5, 2, 0));
}

#[tokio::test]
async fn while_the_log_fails_everything_is_to_be_sent_again_and_nothing_is_remembered() {
    let stand = stand(GatewayConfig::default());
    let (good, bad) = (event(1, "u"), b"7".as_slice());
    for (error, code) in [
        (AppendError::Full, Code::LogFull),
        (AppendError::Unavailable("disk".to_owned()), Code::LogUnavailable),
        (AppendError::Closed, Code::Draining),
    ] {
        stand.log.fail(Some(error));
        let verdicts = accept(&stand, &[&good, bad, &good]).await;
        assert_eq!(statuses(&verdicts), [Status::Retry; 3], "a refusal is told only when its bytes are kept");
        assert!(
            verdicts
                .iter()
                .all(|verdict| verdict.reason.as_ref().unwrap().code == code && verdict.acked.is_none())
        );
    }
    stand.log.fail(None);
    let verdicts = accept(&stand, &[&good, bad]).await;
    assert_eq!(statuses(&verdicts), [Status::Accepted, Status::Rejected]);
    let totals = stand.gateway.ledger().totals("web");
    assert_eq!((totals.received, totals.delivered, totals.rejected, totals.discarded), (11, 1, 1, 9));
    assert!(totals.balances());
}

#[tokio::test]
async fn a_record_that_the_log_finds_too_large_is_refused_and_its_neighbours_are_accepted() {
    let stand = stand(GatewayConfig::default());
    stand.log.takes_at_most(2_000);
    let mut events: Vec<Vec<u8>> = (0..100).map(|n| event(n, "u")).collect();
    let (id, filler) = (EventId::from_bytes([37; 16]), "t".repeat(2_000));
    let big =
        format!(r#"{{"event_id":"{id}","event_type":"x","user_id":"u","metadata":{{"t":"{filler}"}}}}"#);
    events[37] = big.into();
    // The same event once more, and one whose bytes do not even fit into quarantine.
    events.push(events[37].clone());
    events.push(format!("[{}", "7,".repeat(1_000)).into());
    let events: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
    let verdicts = accept(&stand, &events).await;
    for (n, verdict) in verdicts.iter().enumerate() {
        match n {
            37 | 100 => {
                let reason = verdict.reason.as_ref().unwrap();
                assert_eq!((verdict.status, reason.code), (Status::Rejected, Code::LogRecordTooLarge));
                assert_eq!(reason.expected.as_deref(), Some("a record of at most 2000 bytes"));
            }
            101 => assert_eq!(verdict.status, Status::Rejected),
            _ => {
                assert_eq!((verdict.status, verdict.acked), (Status::Accepted, Some(AckLevel::Disk)), "{n}");
            }
        }
    }
    assert_eq!(stand.log.records(Topic::Events).len(), 99);
    let totals = stand.gateway.ledger().totals("web");
    assert_eq!((totals.delivered, totals.rejected, totals.discarded), (99, 3, 0));
    // What was accepted is known, what was refused is judged anew.
    stand.log.takes_at_most(1 << 20);
    let again = accept(&stand, &events).await;
    let duplicates = again.iter().filter(|verdict| verdict.status == Status::Duplicate).count();
    assert_eq!((duplicates, again[37].status), (100, Status::Accepted));
}

#[tokio::test]
async fn what_was_only_received_is_written_again_when_more_is_asked() {
    let stand = stand(GatewayConfig::default());
    let sent = event(1, "u");
    let quick = Transmission { ack: AckLevel::Received, ..transmission(&stand.gateway) };
    let verdicts = stand.gateway.accept(&[&sent], quick).await.unwrap();
    assert_eq!(verdicts[0].acked, Some(AckLevel::Received));
    let verdicts = accept(&stand, &[&sent]).await;
    assert_eq!((verdicts[0].status, verdicts[0].acked), (Status::Accepted, Some(AckLevel::Disk)));
    let asked = Transmission { ack: AckLevel::Broker, ..transmission(&stand.gateway) };
    let verdicts = stand.gateway.accept(&[&event(2, "u")], asked).await.unwrap();
    assert_eq!(verdicts[0].acked, Some(AckLevel::Disk), "never higher than the truth");
}

#[tokio::test]
async fn a_panic_costs_one_event() {
    let stand = stand(GatewayConfig::default());
    stand.entropy.panics.store(true, Ordering::SeqCst);
    let without_id = br#"{"event_type":"page_view","user_id":"u"}"#;
    let verdicts = accept(&stand, &[&event(1, "u"), without_id, &event(2, "u")]).await;
    assert_eq!(statuses(&verdicts), [Status::Accepted, Status::Rejected, Status::Accepted]);
    assert_eq!(verdicts[1].reason.as_ref().unwrap().code, Code::Internal);
    assert_eq!(stand.log.records(Topic::Quarantine).len(), 1);
    assert!(stand.gateway.metrics_text().contains("rivulet_gateway_panics_total 1"));
}

#[tokio::test]
async fn a_sender_that_goes_away_changes_nothing_and_a_drain_waits() {
    let stand = stand(GatewayConfig::default());
    stand.log.hold_back();
    drop(stand.gateway.accept(&[&event(1, "u")], transmission(&stand.gateway)));
    assert_eq!(stand.gateway.ledger().totals("web").in_flight, 1);
    let drain = tokio::spawn({
        let gateway = Arc::clone(&stand.gateway);
        async move { gateway.drain().await }
    });
    tokio::task::yield_now().await;
    assert!(!drain.is_finished());
    stand.log.let_through(1);
    drain.await.unwrap();
    assert_eq!(stand.log.records(Topic::Events).len(), 1);
    let totals = stand.gateway.ledger().totals("web");
    assert_eq!((totals.delivered, totals.in_flight), (1, 0));
}

/// Kinds of events that a batch may hold.
fn any_event() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0_u8..6).prop_map(|n| event(n, "u")),
        (0_u8..6, "[a-z]{1,3}").prop_map(|(n, user)| event(n, &user)),
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(
            br#"{"event_type":"add_to_cart","user_id":"u","metadata":{"product_id":"p","quantity":"two"}}"#
                .to_vec()
        ),
        Just(br#"{"event_type":"x","user_id":"null"}"#.to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn n_events_in_give_n_verdicts_out_in_order_and_each_is_true(
        batches in proptest::collection::vec(proptest::collection::vec(any_event(), 1..20), 1..4),
        fails in proptest::collection::vec(any::<bool>(), 4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stand = stand(GatewayConfig::default());
            for (batch, fails) in batches.iter().zip(fails) {
                stand.log.fail(fails.then_some(AppendError::Full));
                let events: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
                let verdicts = accept(&stand, &events).await;
                prop_assert_eq!(verdicts.len(), events.len());
                let on_log = ids(&stand.log.records(Topic::Events));
                for (event, verdict) in events.iter().zip(&verdicts) {
                    let sent = serde_json::from_slice::<serde_json::Value>(event).ok();
                    let sent = sent.as_ref().and_then(|event| EventId::parse(event["event_id"].as_str()?));
                    if sent.is_some() {
                        prop_assert_eq!(verdict.event_id, sent);
                    }
                    if verdict.acked.is_some() {
                        prop_assert!(on_log.contains(&verdict.event_id.unwrap().to_string()));
                    } else {
                        prop_assert!(verdict.reason.is_some());
                    }
                }
            }
            prop_assert!(stand.gateway.ledger().totals("web").balances());
            prop_assert_eq!(stand.gateway.ledger().totals("web").in_flight, 0);
            let on_log = stand.log.records(Topic::Events).len() as u64;
            prop_assert_eq!(stand.gateway.ledger().totals("web").delivered, on_log);
            Ok(())
        })?;
    }
}

/// A registry of one type each, read from a folder of its own.
fn schemas(name: &str, documents: &[(&str, &str)]) -> Arc<schemas::registry::Registry> {
    let dir = std::env::temp_dir().join(format!("rivulet-gateway-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    for (event_type, document) in documents {
        let folder = dir.join(event_type);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("1.json"), document).unwrap();
    }
    let registry = schemas::registry::Registry::load(&dir).unwrap();
    let _ = std::fs::remove_dir_all(&dir);
    Arc::new(registry)
}

#[tokio::test]
async fn each_mode_answers_writes_and_counts_the_truth() {
    let stand = stand(GatewayConfig::default());
    let document = |mode: &str| format!(r#"{{"x-mode":{mode},"properties":{{"n":{{"type":"integer"}}}}}}"#);
    let modes = [
        ("e", "\"enforce\""),
        ("q", "\"quarantine\""),
        ("o", "\"observe\""),
        ("s", "{\"sample\":1}"),
        ("u", "{\"sample\":0.000001}"),
    ];
    let documents = modes.map(|(name, mode)| (name, document(mode)));
    let documents: Vec<(&str, &str)> = documents.iter().map(|(name, text)| (*name, text.as_str())).collect();
    stand.gateway.set_schemas(schemas("modes", &documents)).unwrap();
    let event = |event_type: &str, n: &str| {
        format!(r#"{{"event_type":"{event_type}","user_id":"u","metadata":{{"n":{n}}}}}"#).into_bytes()
    };
    let events: Vec<Vec<u8>> =
        modes.iter().flat_map(|(name, _)| [event(name, "1"), event(name, "\"x\"")]).collect();
    let verdicts = accept(&stand, &events.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
    let right = [
        Status::Accepted,
        Status::Rejected,
        Status::Accepted,
        Status::Quarantined,
        Status::Accepted,
        Status::Accepted,
        Status::Accepted,
        Status::Accepted,
        Status::Accepted,
        Status::Accepted,
    ];
    assert_eq!(statuses(&verdicts), right);
    for refused in [1, 3] {
        assert_eq!(verdicts[refused].reason.as_ref().unwrap().pointer.as_deref(), Some("/metadata/n"));
    }
    for observed in [5, 7] {
        let warning = &verdicts[observed].warnings[0];
        assert_eq!(
            (warning.code.as_str(), warning.pointer.as_deref()),
            ("schema.invalid", Some("/metadata/n"))
        );
        assert_eq!(warning.keyword.as_deref(), Some("type"));
    }
    assert!(verdicts[9].warnings.is_empty());
    let records: Vec<_> =
        stand.log.records(Topic::Events).iter().map(|record| value(record)["receipt"].clone()).collect();
    let schemas: Vec<_> = records.iter().map(|receipt| receipt["schema"].as_str()).collect();
    assert_eq!(
        schemas,
        [Some("e@1"), Some("q@1"), Some("o@1"), Some("o@1"), Some("s@1"), Some("s@1"), None, None]
    );
    let faults: Vec<_> = records.iter().map(|receipt| receipt["schema_fault"]["keyword"].as_str()).collect();
    assert_eq!(faults, [None, None, None, Some("type"), None, Some("type"), None, None]);
    let kept = stand.log.records(Topic::Quarantine);
    assert_eq!(
        kept.iter().map(|record| value(record)["status"].clone()).collect::<Vec<_>>(),
        ["rejected", "quarantined"]
    );
    let totals = stand.gateway.ledger().totals("web");
    assert_eq!((totals.delivered, totals.rejected, totals.quarantined), (8, 1, 1));
    assert!(totals.balances());
    let metrics = stand.gateway.metrics_text();
    for line in [
        r#"rivulet_gateway_schema_events_total{schema="e@1",mode="enforce",fit="unfit"} 1"#,
        r#"rivulet_gateway_schema_events_total{schema="o@1",mode="observe",fit="unfit"} 1"#,
        r#"rivulet_gateway_schema_events_total{schema="s@1",mode="sample",fit="fits"} 1"#,
        r#"rivulet_gateway_schema_events_total{schema="u@1",mode="sample",fit="unjudged"} 2"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn personal_data_is_gone_from_records_and_quarantine_whatever_the_verdict() {
    let stand =
        stand(GatewayConfig { pii_secret: Some("0123456789abcdef".into()), ..GatewayConfig::default() });
    let document = r#"{"required":["n"],"properties":{"n":{"type":"integer"},"mail":{"x-pii":"hash","format":"email"},
        "note":{"x-pii":"mask"},"raw":{"x-pii":"drop"}}}"#;
    stand.gateway.set_schemas(schemas("pii", &[("p", document), ("other", "{}")])).unwrap();
    let good = r#"{"event_type":"p","user_id":"u","metadata":{"mail":"top@secret.example","n":1, "note":"topsecret","raw":{"x":"topsecret"}}}"#;
    let cases = [
        good.to_owned(),
        good.replace("\"n\":1", "\"n\":\"x\""),
        good.replace("event_type\":\"p", "event_type\":\"rivulet.p"),
        good.replace("event_type\":\"p", "event_type\":7,\"x\":\"p"),
        good.replace("}}}", "}}"),
        good.replace("\"n\":1", "\"n\":1,\"n\":2"),
        good.replace("\"n\":1", &format!("\"n\":1,\"fill\":\"{}\"", "x".repeat(70_000))),
        good.replace("user_id", "nobody"),
        good.replace("\"user_id\":\"u\"", "\"user_id\":\"u\",\"schema\":\"9\""),
    ];
    let events: Vec<&[u8]> = cases.iter().map(String::as_bytes).collect();
    let verdicts = accept(&stand, &events).await;
    assert_eq!(verdicts[0].status, Status::Accepted);
    assert!(verdicts[1..].iter().all(|verdict| verdict.status == Status::Rejected));
    let accepted = stand.log.records(Topic::Events);
    let text = std::str::from_utf8(&accepted[0].value).unwrap();
    assert!(text.contains(r#""n":1, "note":"***"},"receipt""#), "{text}");
    assert!(text.contains(r#""mail":"hmac-sha256:"#), "{text}");
    let redacted = &value(&accepted[0])["receipt"]["redacted"];
    assert_eq!(*redacted, serde_json::json!(["/metadata/mail", "/metadata/note", "/metadata/raw"]));
    let kept = stand.log.records(Topic::Quarantine);
    assert_eq!(kept.len(), cases.len() - 1);
    for record in accepted.iter().chain(&kept) {
        assert!(!String::from_utf8_lossy(&record.value).contains("secret"), "{record:?}");
    }
    for (record, case) in kept.iter().zip(&cases[1..]) {
        assert_eq!(value(record)["length"], case.len());
    }
    let withheld: Vec<bool> = kept.iter().map(|record| value(record)["withheld"] == true).collect();
    assert_eq!(withheld, [false, true, true, true, true, true, false, false]);
}

#[tokio::test]
async fn a_hash_without_a_secret_is_refused_and_the_old_schemas_stay() {
    let stand = stand(GatewayConfig::default());
    let hashing = schemas("secret", &[("p", r#"{"properties":{"mail":{"x-pii":"hash"}}}"#)]);
    assert!(stand.gateway.set_schemas(hashing).is_err());
    assert_eq!(accept(&stand, &[&event(1, "u")]).await[0].status, Status::Accepted);
    let metrics = stand.gateway.metrics_text();
    assert!(metrics.contains("rivulet_gateway_schemas_stale 1"), "{metrics}");
    assert!(metrics.contains(r#"rivulet_gateway_schema_reloads_total{result="failed"} 1"#), "{metrics}");
}
