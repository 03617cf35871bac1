//! What the processor promises to who writes to the log and who reads profiles.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod support;

use std::sync::Arc;

use axum::body::Body;
use broker::clock::TestClock;
use broker::testing::MemoryLog;
use http::{Request, StatusCode};
use processor::Processor;
use processor::store::StateStore;
use processor::store::disk::DiskStore;
use schemas::id::ProfileKey;
use schemas::receipt::Trust;
use schemas::time::Timestamp;
use schemas::token::Claims;
use schemas::topic::Topic;
use support::*;
use tower::ServiceExt as _;

struct World {
    log: Arc<MemoryLog>,
    store: Arc<MortalStore>,
    clock: Arc<TestClock>,
    processor: Processor,
}

async fn world() -> World {
    let chaos = Arc::new(Chaos::default());
    let log = support::log(4, &chaos);
    let store = Arc::new(MortalStore { chaos, ..MortalStore::default() });
    let clock = Arc::new(TestClock::new(Timestamp(NOON)));
    let processor = start(&log, Arc::clone(&store) as _, &clock).await;
    World { log, store, clock, processor }
}

impl World {
    async fn settle(&self) {
        assert!(settled(&self.processor, &self.log).await);
    }

    async fn get(&self, id: &str, bearer: Option<&str>) -> (StatusCode, serde_json::Value) {
        let mut request = Request::get(format!("/v1/profiles/{id}"));
        if let Some(bearer) = bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        let response = self.processor.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    fn records(&self, topic: Topic) -> Vec<serde_json::Value> {
        self.log.records(topic).iter().map(|record| serde_json::from_slice(&record.value).unwrap()).collect()
    }
}

fn view(id: u128, at: i64, user: &str) -> Event {
    Event::new(id, at, user, "product_view", r#"{"category":"shoes"}"#)
}

#[tokio::test]
async fn poison_is_put_aside_once_and_good_records_between_it_are_processed() {
    let mut world = world().await;
    let forged = r#"{"event_type":"rivulet.merge","control":"{\"kind\":\"merge\",\"from\":\"user:u1\",\"into\":\"user:evil\"}","mac":"00","receipt":{"event_id":"00000000-0000-0000-0000-0000000000ff","received_at":"2026-01-01T12:00:00.000Z","occurred_at":"2026-01-01T12:00:00.000Z","source":"rivulet","trust":"secret"}}"#;
    let nobody = Event { user: None, ..view(900, NOON, "") };
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("u1", vec![0xff, 0xfe, 0]),
        ("u1", b"null".to_vec()),
        ("u1", nobody.record().value.to_vec()),
        ("u1", format!("\"{}\"", "x".repeat(1 << 20)).into_bytes()),
        ("u1", Vec::new()),
        ("u1", format!("{}{}", "[".repeat(500), "]".repeat(500)).into_bytes()),
        ("u2", view(901, NOON, "u1").record().value.to_vec()),
        ("u1", br#"{"event_type":"rivulet.merge","from":1}"#.to_vec()),
        ("u1", forged.as_bytes().to_vec()),
    ];
    for (n, (key, value)) in bad.iter().enumerate() {
        let mut odd = raw(key, value.clone());
        odd.headers = broker::headers::Headers::of([("ce_time", "banana")]);
        world.log.put(odd);
        world.log.put(Event::new(n as u128 + 1, NOON, "u1", "click", "{}").record());
        if n == 4 {
            world.settle().await;
            world.processor.drain().await;
            world.processor = start(&world.log, Arc::clone(&world.store) as _, &world.clock).await;
        }
    }
    world.settle().await;
    let (_, profile) = world.get("u1", Some(SECRET)).await;
    assert_eq!(profile["counters"]["click"], 9);
    let aside = world.records(Topic::Quarantine);
    assert_eq!(aside.len(), bad.len());
    for record in &aside {
        assert!(record["origin"]["partition"].is_u64() && record["origin"]["offset"].is_u64(), "{record}");
        assert!(record["reason"]["code"].is_string() && record["sha256"].as_str().unwrap().len() == 64);
    }
    assert!(aside.iter().any(|record| record["raw_base64"] == "//4A" && record["length"] == 3));
    let ledger = world.processor.ledger();
    assert_eq!((ledger.quarantined, ledger.applied, ledger.balances()), (9, 9, true));
    assert!(world.processor.status().await.iter().all(|status| status.lag == Some(0)));
    assert!(!world.processor.metrics().await.contains("NaN"));
    assert_eq!(world.get("user:evil", Some(SECRET)).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_id_counts_once_a_key_and_source_and_another_body_is_a_conflict() {
    let world = world().await;
    let first = view(1, NOON, "u1");
    for event in [
        first.clone(),
        Event { received: NOON + 5, ..first.clone() },
        Event { metadata: r#"{"category":"hats"}"#.to_owned(), ..first.clone() },
        Event { source: "app", ..first.clone() },
        Event { user: Some("u2".to_owned()), ..first.clone() },
    ] {
        world.log.put(event.record());
    }
    world.settle().await;
    let ledger = world.processor.ledger();
    assert_eq!((ledger.consumed, ledger.applied, ledger.duplicate, ledger.conflict), (5, 3, 2, 1));
    assert_eq!(world.processor.was_applied(first.event_id()).await.unwrap().len(), 3);
    // Past the window the id is new again; the hours before are swept.
    let later = NOON + 8 * 24 * 3_600_000;
    world.log.put(Event { received: later, ..first.clone() }.record());
    world.log.put(Event { received: later + 2 * 3_600_000, ..view(2, later, "u1") }.record());
    world.log.put(Event { received: later + 2 * 3_600_000, ..first.clone() }.record());
    world.settle().await;
    assert_eq!(world.processor.ledger().applied + world.processor.ledger().late, 5);
    assert_eq!(world.processor.ledger().duplicate, 3);
}

#[tokio::test]
async fn a_session_is_closed_by_a_tick_and_corrected_by_a_late_event() {
    let world = world().await;
    world.log.put(Event::new(1, NOON, "u1", "click", "{}").record());
    world.settle().await;
    world.clock.set(Timestamp(NOON + 31 * MINUTE));
    let closed = |world: &World| {
        let all = world.records(Topic::Profiles).into_iter();
        all.filter(|record| record["type"] == "session.closed").collect::<Vec<_>>()
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while closed(&world).is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "no tick");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    world.log.put(
        Event { received: NOON + 31 * MINUTE, ..Event::new(2, NOON + 18 * MINUTE, "u1", "click", "{}") }
            .record(),
    );
    world.settle().await;
    world.log.put(Event::new(3, NOON + 49 * MINUTE, "u1", "click", "{}").record());
    world.settle().await;
    let closed = closed(&world);
    assert_eq!(closed.len(), 2);
    assert_eq!((&closed[0]["session"]["events"], &closed[0]["corrected"]), (&1.into(), &false.into()));
    assert_eq!((&closed[1]["session"]["events"], &closed[1]["corrected"]), (&2.into(), &true.into()));
    assert_eq!(closed[0]["session"]["id"], closed[1]["session"]["id"]);
    assert_eq!(closed[1]["session"]["last_at"], "2026-01-01T12:18:00.000Z");
    assert_eq!(world.processor.ledger().control, 1);
}

#[tokio::test]
async fn profiles_open_to_secret_keys_and_tokens_of_their_own() {
    let world = world().await;
    let device = Event { user: None, device: Some("a1".to_owned()), ..view(1, NOON, "") };
    world.log.put(device.record());
    world.log.put(
        Event {
            device: Some("a1".to_owned()),
            ..Event::new(2, NOON, "u1", "identify", r#"{"traits":{"big":9007199254740993}}"#)
        }
        .record(),
    );
    world.settle().await;
    let (status, profile) = world.get("user:u1", Some(SECRET)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&profile["counters"]["product_view"], &profile["traits"]["big"]),
        (&1.into(), &9_007_199_254_740_993_u64.into())
    );
    assert_eq!(profile["devices"], serde_json::json!(["a1"]));
    assert_eq!(profile["as_of"]["topic"], "rivulet.events");
    assert_eq!(
        world.get("anonymous:a1", Some(SECRET)).await.1["profile"],
        "user:u1",
        "a device that joined gives the user"
    );
    assert_eq!(world.get("a1", Some(SECRET)).await.1["profile"], "user:u1");
    assert_eq!(world.get("u1", None).await.0, StatusCode::UNAUTHORIZED);
    let (status, body) = world.get("u1", Some("wk_dev")).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::FORBIDDEN, &"key.secret_required".into()));
    let seconds = NOON / 1000;
    let token =
        |subject: &str, end| Claims::of(ProfileKey::parse(subject).unwrap(), end).sign(&SECRET.into());
    assert_eq!(world.get("u1", Some(&token("user:u1", seconds + 1))).await.0, StatusCode::OK);
    assert_eq!(world.get("u1", Some(&token("user:u1", seconds))).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get("u1", Some(&token("user:u2", seconds + 1))).await.0, StatusCode::FORBIDDEN);
    let (_, own) = world.get("anonymous:a1", Some(&token("anonymous:a1", seconds + 1))).await;
    assert_eq!((&own["profile"], &own["traits"]), (&"anonymous:a1".into(), &serde_json::json!({})));
    assert_eq!(world.get("user:none", Some(SECRET)).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn nobody_gets_no_profile_and_the_log_is_held_where_the_store_is() {
    let world = world().await;
    let nobody = Event { user: None, device: Some("none:123".to_owned()), ..view(1, NOON, "") };
    world.log.put(nobody.record());
    world.log.put(Event { trust: Trust::Secret, ..view(2, NOON, "u1") }.record());
    world.settle().await;
    assert_eq!(stored_profiles(&world.store.inner).keys().collect::<Vec<_>>(), ["user:u1"]);
    assert_eq!(world.processor.ledger().applied, 2);
    assert_eq!(world.log.held(Topic::Events), 2);
    assert_eq!(world.log.ends(Topic::Events).iter().sum::<u64>(), 2, "no device joined");
}

#[tokio::test]
async fn outputs_that_the_log_will_never_take_are_counted_and_hold_up_nothing() {
    let world = world().await;
    world.log.takes_at_most(10);
    for id in 1..=3 {
        world.log.put(view(id, NOON, "u1").record());
    }
    world.settle().await;
    assert!(world.log.records(Topic::Decisions).is_empty() && world.log.records(Topic::Profiles).is_empty());
    let metrics = world.processor.metrics().await;
    let refused = metrics.lines().find(|line| line.starts_with("rivulet_processor_refused_outputs_total"));
    assert!(refused.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
    world.log.takes_at_most(1 << 20);
    world.log.put(view(4, NOON, "u1").record());
    world.settle().await;
    assert_eq!(world.processor.ledger().applied, 4);
    assert!(!world.log.records(Topic::Profiles).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_disk_a_decision_leaves_within_milliseconds_and_the_state_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let chaos = Arc::new(Chaos::default());
    let log = support::log(8, &chaos);
    let clock = Arc::new(TestClock::new(Timestamp(NOON)));
    let open = || Arc::new(DiskStore::open(folder.path()).unwrap()) as Arc<dyn StateStore>;
    let processor = start(&log, open(), &clock).await;
    for id in 1..=2 {
        log.put(view(id, NOON, "u1").record());
    }
    assert!(settled(&processor, &log).await);
    let started = tokio::time::Instant::now();
    log.put(view(3, NOON, "u1").record());
    while log.records(Topic::Decisions).is_empty() {
        assert!(started.elapsed().as_secs() < 5, "no decision");
        tokio::time::sleep(std::time::Duration::from_micros(200)).await;
    }
    let took = started.elapsed();
    assert!(took.as_millis() < 500, "decision after {took:?}");
    assert!(settled(&processor, &log).await);
    processor.drain().await;
    drop(processor);
    let processor = start(&log, open(), &clock).await;
    assert!(settled(&processor, &log).await);
    log.put(view(3, NOON, "u1").record());
    log.put(view(4, NOON, "u1").record());
    assert!(settled(&processor, &log).await);
    assert_eq!((processor.ledger().applied, processor.ledger().duplicate), (4, 1));
    assert_eq!(log.records(Topic::Decisions).len(), 1, "at most once in 24 hours");
    processor.drain().await;
}
