//! A real broker behind the spool: away, frozen, back, and with limits of its own.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::client::Answer;
use tests::events::{self, Random, of_user};
use tests::faults::{self, LATER, SOON, Timed};
use tests::kafka::{self, Broker};
use tests::log;
use tests::oracle;
use tests::rivulet::{Options, Rivulet, sum};
use tests::sender::{Sender, check_log};

use crate::readiness::{idle, ready_in_time};

/// How long the broker is away; `RIVULET_OUTAGE_SECONDS` asks for more.
const OUTAGE_SECONDS: u64 = 10;

/// The longest a sender may wait for an answer while the broker is away. Far above an fsync, far below any broker deadline.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// `kafka.ack_deadline_ms`, by default.
const ACK_DEADLINE: Duration = Duration::from_secs(10);

fn before(broker: &Broker) -> Options {
    Options { kafka: Some(broker.address()), ..Options::default() }.set("kafka", "partitions", 8)
}

/// Before a broker of its own: who has just read a hundred thousand records of others is not idle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_program_is_ready_within_a_second_and_small_when_idle() {
    let _timed = Timed::new("readiness: kafka");
    let broker = kafka::own().await;
    let mut rivulet = ready_in_time(&Options { kafka: Some(broker.address()), ..Options::default() }).await;
    faults::eventually("/ready names the broker as ok", LATER, async || {
        let ready = rivulet.client().get("/ready").await.ok()?;
        (ready.json["broker"] == "ok").then_some(())
    })
    .await;
    // The processor has begun too, so that what is measured is the whole program.
    faults::eventually("profiles can be asked for", LATER, async || {
        let answer = rivulet.secret().get("/v1/profiles/user:nobody").await.ok()?;
        (answer.status == 404).then_some(())
    })
    .await;
    idle(&mut rivulet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_changes_no_answer_and_everything_arrives_when_it_is_back() {
    let _timed = Timed::new("kafka: outage");
    let mut random = Random::seeded("kafka: outage");
    let mut broker = kafka::shared().await;
    let rivulet = Rivulet::with(before(&broker)).await;
    let mut crowd = Sender::crowd(&mut random, 4, "outage");
    let client = rivulet.client();
    let mut pump = async |time: u64| {
        let load = join_all(crowd.iter_mut().map(|sender| sender.pump(&client)));
        assert!(faults::during(Duration::from_secs(time), load).await.is_none(), "no answer");
    };
    pump(2).await;
    broker.stop().await;
    pump(1).await;
    faults::eventually("/ready names the broker as down", LATER, async || {
        let ready = rivulet.client().get("/ready").await.ok()?;
        assert_eq!(ready.status, 200, "ready while the broker is away: {}", ready.text);
        (ready.json["broker"] == "down").then_some(())
    })
    .await;
    let early = tells(&rivulet, "down").await;
    pump(faults::effort("RIVULET_OUTAGE_SECONDS", OUTAGE_SECONDS)).await;
    let late = tells(&rivulet, "down").await;
    assert!(early > 0 && late > early, "the spool grows: {early}, then {late} records");
    eprintln!("{late} records wait in the spool");
    let waits = events::page_view(&mut Random::new(41), &of_user("outage-u0"));
    rivulet.client().send(waits.to_string()).await;
    let fate = log::fate(&rivulet, events::id(&waits)).await;
    assert_eq!(fate["outcome"], "accepted", "it waits in the spool: {fate}");
    assert!(fate["records"][0]["spool_offset"].is_u64(), "{fate}");
    broker.start().await;
    pump(2).await;
    for sender in &mut crowd {
        faults::eventually("everything is answered", SOON, async || {
            sender.settle(&client).await.then_some(())
        })
        .await;
    }
    let promised: usize = crowd.iter().map(Sender::promised).sum();
    let slowest = crowd.iter().map(|sender| sender.slowest).max().unwrap();
    eprintln!("{promised} events promised, slowest answer {slowest:?}");
    for sender in &crowd {
        assert!(sender.refusals.is_empty(), "an answer changed: {:?}", sender.refusals.first());
        let odd =
            sender.ledger.iter().find(|sent| sent.acked.as_deref().is_some_and(|level| level != "disk"));
        assert!(odd.is_none(), "a level changed: {odd:?}");
    }
    assert!(slowest < ANSWER_WITHIN, "the broker's absence was felt: {slowest:?}");
    let records = tests::torture::arrived(&rivulet, &crowd).await;
    check_log(&crowd, &records);
    faults::eventually("the spool drains", LATER, async || {
        let ready = rivulet.client().get("/ready").await.ok()?;
        (ready.json["broker"] == "ok" && ready.json["spool"]["records"] == 0).then_some(())
    })
    .await;
    assert_eq!(tells(&rivulet, "ok").await, 0, "nothing waits any more");
    oracle::check_profiles(&rivulet, &records, "outage").await;
    oracle::check_banners(&rivulet, &records, "outage").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_starts_with_the_broker_away_and_a_frozen_broker_is_no_different() {
    let _timed = Timed::new("kafka: frozen");
    let mut random = Random::new(40);
    let mut broker = kafka::shared().await;
    broker.kill();
    let rivulet = Rivulet::with(before(&broker)).await;
    assert!(rivulet.ready_after < Duration::from_secs(5), "ready only after {:?}", rivulet.ready_after);
    let early = events::page_view(&mut random, &of_user("frozen-u1"));
    let answer = rivulet.client().send(early.to_string()).await;
    assert_eq!(answer.verdicts()[0]["acked"], "disk", "{}", answer.text);
    broker.start().await;
    arrives(&rivulet, &early).await;

    broker.pause();
    let frozen = events::page_view(&mut random, &of_user("frozen-u1"));
    let waited = std::time::Instant::now();
    let answer = ask_broker(&rivulet, frozen.to_string()).await;
    eprintln!("ack=broker from a frozen broker: {:?} after {:?}", answer.statuses(), waited.elapsed());
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.verdicts()[0]["acked"], "disk", "the level is the truth: {}", answer.text);
    broker.resume();
    arrives(&rivulet, &frozen).await;
    let thawed = events::page_view(&mut random, &of_user("frozen-u1"));
    faults::eventually("ack=broker is answered broker", LATER, async || {
        let answer = ask_broker(&rivulet, thawed.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        (answer.verdicts()[0]["acked"] == "broker").then_some(())
    })
    .await;
    let records = log::events(&rivulet).await;
    let mine = log::of_key(&records, "frozen-u1");
    let order: Vec<&str> = mine.iter().map(|record| record.event_id()).collect();
    let first = |event: &Value| order.iter().position(|id| *id == events::id(event)).unwrap();
    assert!(first(&early) < first(&frozen) && first(&frozen) < first(&thawed), "{order:?}");
}

/// Text that does not compress: the topic's limit is for the compressed batch.
pub(crate) fn noise(random: &mut Random, bytes: usize) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    while text.len() < bytes {
        write!(text, "{:016x}", random.draw()).unwrap();
    }
    text.truncate(bytes);
    text
}

/// C40: a record that the topic does not take costs only itself. By its name it comes first, while the topic it reads again and again is
/// still short.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_record_for_the_topic_goes_to_quarantine_and_its_neighbours_arrive_in_order_once() {
    let _timed = Timed::new("C40");
    let mut random = Random::new(41);
    let broker = kafka::shared().await;
    let mut rivulet = Rivulet::with(before(&broker)).await;
    faults::eventually("the topics are there", LATER, async || {
        rivulet.client().get("/ready").await.ok().filter(|ready| !ready.text.contains("down"))
    })
    .await;
    let warm = events::page_view(&mut random, &of_user("c40-warm"));
    rivulet.client().send(warm.to_string()).await;
    arrives(&rivulet, &warm).await;
    broker.set("rivulet.events", "max.message.bytes", "2000").await;

    // Once with a publisher that does not know of the new limit, once with one that was started under it.
    for round in ["unaware", "aware"] {
        let user = format!("c40-{round}");
        let mut own = random.split();
        let mut sized = |bytes: usize| {
            let mut event = events::page_view(&mut own, &of_user(&user));
            let bare = event.to_string().len();
            event["metadata"]["filler"] = json!(noise(&mut own, bytes.saturating_sub(bare)));
            event
        };
        let small: Vec<Value> = (0..20).map(|_| sized(0)).collect();
        let big = sized(3_000);
        let edge = sized(1_990);
        broker.pause();
        let batch: Vec<Value> =
            small[..10].iter().chain([&big, &edge]).chain(&small[10..]).cloned().collect();
        let answer = rivulet.client().send(events::array(&batch)).await;
        assert!([200, 207].contains(&answer.status), "{}", answer.text);
        // The longest id that the gateway takes, which the record carries twice: in its key and in its value.
        let mut long = events::page_view(&mut random, &of_user(&format!("{user}-{}", "k".repeat(500))));
        long["metadata"] = json!({ "filler": noise(&mut random, 1_000) });
        rivulet.client().send(long.to_string()).await;
        broker.resume();
        arrive(&rivulet, &small).await;
        let records = log::events(&rivulet).await;
        let mine = log::of_key(&records, &user);
        let order: Vec<&str> = mine.iter().map(|record| record.event_id()).collect();
        let right: Vec<&str> = small.iter().map(events::id).collect();
        let order: Vec<&str> = order.into_iter().filter(|id| right.contains(id)).collect();
        assert_eq!(order, right, "{round}: the small ones are there in order, once");
        for event in [&big, &edge, &long] {
            let id = events::id(event);
            if log::find(&log::events(&rivulet).await, id).is_some() {
                // The edge may fit, by the broker's own count.
                assert_ne!(id, events::id(&big), "{round}: the big one is on the topic");
                continue;
            }
            let told = faults::eventually("what does not fit is in quarantine", LATER, async || {
                let records = log::cat(&rivulet, "rivulet.quarantine").await;
                records.into_iter().find(|record| record.key == id)
            });
            let told = told.await.line;
            assert!(told.contains("log.record_too_large"), "{round}: with a size reason: {told}");
            let fate = log::fate(&rivulet, id).await;
            assert_eq!(fate["outcome"], "quarantined", "{round}: {fate}");
        }
        let counted = rivulet.metric("rivulet_gateway_unpublishable_records_total", &[]).await;
        assert!(counted.is_some_and(|records| records >= 2), "{round}: counted: {counted:?}");
        let waited = std::time::Instant::now();
        let batch: Vec<Value> = (0..100).map(|n| sized(if n == 61 { 3_000 } else { 0 })).collect();
        let answer = ask_broker(&rivulet, events::array(&batch)).await;
        eprintln!("C40 {round}: ack=broker of a batch with a big one: after {:?}", waited.elapsed());
        assert_eq!(answer.status, 207, "{round}: {}", answer.text);
        for (n, verdict) in answer.verdicts().iter().enumerate() {
            if n == 61 {
                assert_eq!(verdict["status"], "rejected", "{round}: {verdict}");
                assert_eq!(verdict["reason"]["code"], "log.record_too_large", "{round}: {verdict}");
            } else {
                assert_eq!(verdict["status"], "accepted", "{round}, {n}: {verdict}");
            }
        }
        assert!(waited.elapsed() < ACK_DEADLINE, "{round}: the truth came only after {:?}", waited.elapsed());
        rivulet.kill();
        rivulet.start().await;
        // What was kept aside is not tried again, nor kept twice. An event behind it shows that the spool has gone on.
        let behind = sized(0);
        rivulet.client().send(behind.to_string()).await;
        arrives(&rivulet, &behind).await;
        let kept = log::cat(&rivulet, "rivulet.quarantine").await;
        let times = kept.iter().filter(|record| record.key == events::id(&big)).count();
        assert_eq!(times, 1, "{round}: kept aside {times} times");
    }
    broker.set("rivulet.events", "max.message.bytes", "1048588").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brief_log_of_a_broker_is_read_by_cat_and_fate_as_a_folder_is() {
    let _timed = Timed::new("kafka: log cat");
    let broker = kafka::shared().await;
    let rivulet = Rivulet::with(before(&broker)).await;
    let event = events::add_to_cart(&mut Random::seeded("kafka: log cat"), &of_user("kcat"));
    rivulet.client().send(event.to_string()).await;
    arrives(&rivulet, &event).await;
    let address = broker.address();
    let output = rivulet.run(&["fate", events::id(&event), "--kafka", &address, "--json"]).await;
    let fate: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(fate["outcome"], "accepted", "{fate}");
    let (offset, partition) = (&fate["records"][0]["offset"], &fate["records"][0]["partition"]);
    assert!(offset.is_u64() && partition.is_u64(), "{fate}");
    // By the places that the spool has noted, without reading the topics.
    let noted = log::fate(&rivulet, events::id(&event)).await;
    assert_eq!(noted["records"], fate["records"], "{noted}");
    let data = rivulet.data();
    let folder = rivulet.run(&["fate", events::id(&event), "--data", data.to_str().unwrap(), "--json"]).await;
    let folder: Value = serde_json::from_slice(&folder.stdout).unwrap();
    assert_eq!(folder["records"], fate["records"], "{folder}");
    let unknown = "11111111-1111-4111-8111-111111111111";
    let output = rivulet.run(&["fate", unknown, "--kafka", &address, "--json"]).await;
    assert_eq!(output.status.code(), Some(1), "an id that nothing names");
    assert_eq!(log::fate(&rivulet, unknown).await["outcome"], "unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_cat_that_follows_goes_on_when_the_broker_was_restarted() {
    let _timed = Timed::new("kafka: log cat through a restart");
    let mut random = Random::seeded("kafka: log cat through a restart");
    let mut broker = kafka::shared().await;
    let rivulet = Rivulet::with(before(&broker)).await;
    let address = broker.address();
    let cat = ["log", "cat", "--kafka", &address, "--topic", "rivulet.events", "--follow"];
    let (mut cat, lines) = rivulet.follow(&cat);
    for round in ["before", "after"] {
        let event = events::page_view(&mut random, &of_user("restarted"));
        rivulet.client().send(event.to_string()).await;
        faults::eventually(&format!("cat prints what came {round} the restart"), LATER, async || {
            assert!(cat.ended().is_none(), "{round}: cat has ended: {:?}", cat.ended());
            lines.try_iter().any(|line| line.contains(events::id(&event))).then_some(())
        })
        .await;
        broker.stop().await;
        broker.start().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_that_can_never_start_ends_the_program_with_the_reason() {
    let _timed = Timed::new("kafka: cannot start");
    let broker = kafka::shared().await;
    let address = broker.address();
    let mut other = Rivulet::with(Options::default().set("log", "partitions", 3)).await;
    let (_, _) = other.terminate(LATER).await;
    let unusable = Rivulet::prepared(before(&broker));
    std::fs::create_dir_all(unusable.data()).unwrap();
    std::fs::write(unusable.data().join("processor"), "no folder").unwrap();
    for (rivulet, reason) in [(&other, "the state was made with 3"), (&unusable, "processor")] {
        let data = rivulet.data();
        let up = ["up", "--listen", "127.0.0.1:0", "--kafka", &address, "--data", data.to_str().unwrap()];
        let output = faults::bounded("the program ends", LATER, rivulet.run(&up)).await;
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let last = text.lines().rev().take(3).collect::<Vec<_>>().join(" ");
        assert!(last.contains("the processor cannot start") && last.contains(reason), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_swallows_everything_changes_no_answer_and_everything_arrives_in_order_behind_it() {
    let _timed = Timed::new("kafka: black hole");
    let broker = kafka::shared().await;
    let (hole, address) = broker.behind_hole().await;
    let options = Options { kafka: Some(address), ..before(&broker) }.set("kafka", "ack_deadline_ms", 2_000);
    let rivulet = Rivulet::with(options).await;
    let mut random = Random::seeded("kafka: black hole");
    let mut sent = vec![events::page_view(&mut random, &of_user("hole"))];
    rivulet.client().send(sent[0].to_string()).await;
    arrives(&rivulet, &sent[0]).await;
    hole.swallow();
    withheld(&rivulet, &mut random, "hole", &mut sent).await;
    faults::eventually("/ready names the broker as down", LATER, async || {
        let ready = rivulet.client().get("/ready").await.ok()?;
        assert_eq!(ready.status, 200, "{}", ready.text);
        ready.text.contains("down").then_some(())
    })
    .await;
    hole.pass();
    all_in_order(&rivulet, "hole", &sent).await;
}

/// Sends while the broker acknowledges nothing: every answer is as always and at once, but `broker` is not said.
async fn withheld(rivulet: &Rivulet, random: &mut Random, user: &str, sent: &mut Vec<Value>) {
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let event = events::page_view(random, &of_user(user));
        let begun = std::time::Instant::now();
        let answer = rivulet.client().send(event.to_string()).await;
        slowest = slowest.max(begun.elapsed());
        assert_eq!((answer.status, &answer.verdicts()[0]["acked"]), (200, &json!("disk")), "{}", answer.text);
        sent.push(event);
    }
    eprintln!("slowest answer {slowest:?}");
    assert!(slowest < ANSWER_WITHIN, "the broker's trouble was felt: {slowest:?}");
    let event = events::page_view(random, &of_user(user));
    let begun = std::time::Instant::now();
    let answer = ask_broker(rivulet, event.to_string()).await;
    assert_eq!((answer.status, &answer.verdicts()[0]["acked"]), (200, &json!("disk")), "{}", answer.text);
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_secs(2) && waited < Duration::from_secs(2) + ANSWER_WITHIN,
        "{waited:?}"
    );
    sent.push(event);
}

/// Everything is on the topic, first occurrences in the order sent, and `broker` is said again.
async fn all_in_order(rivulet: &Rivulet, user: &str, sent: &[Value]) {
    faults::eventually("the spool drains", LATER, async || {
        rivulet.metric("rivulet_gateway_spooled_records", &[]).await.filter(|waiting| *waiting == 0)
    })
    .await;
    let records = log::events(rivulet).await;
    let mut seen = std::collections::HashSet::new();
    let mine = log::of_key(&records, user);
    let order: Vec<&str> =
        mine.iter().map(|record| record.event_id()).filter(|id| seen.insert(*id)).collect();
    assert_eq!(order, sent.iter().map(events::id).collect::<Vec<_>>());
    let event = events::page_view(&mut Random::seeded(user), &of_user(user));
    faults::eventually("ack=broker is answered broker", LATER, async || {
        let answer = ask_broker(rivulet, event.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        (answer.verdicts()[0]["acked"] == "broker").then_some(())
    })
    .await;
}

async fn ask_broker(rivulet: &Rivulet, body: String) -> Answer {
    let json = [("content-type", "application/json")];
    rivulet.client().post("/v1/events?ack=broker", &json, body).await.unwrap()
}

async fn arrives(rivulet: &Rivulet, event: &Value) {
    arrive(rivulet, std::slice::from_ref(event)).await;
}

/// Waits for all of them at once: each look reads the whole topic.
async fn arrive(rivulet: &Rivulet, events: &[Value]) {
    faults::eventually("the events arrive on the broker", LATER, async || {
        let records = log::events(rivulet).await;
        events.iter().all(|event| log::find(&records, events::id(event)).is_some()).then_some(())
    })
    .await;
}

/// How many records wait, by `/ready`; panics unless `/ready` and the metrics say the same of what is going on.
async fn tells(rivulet: &Rivulet, broker: &str) -> u64 {
    // A request that was given up may still be written: looked at again until nothing changes between two looks.
    let (ready, metrics) = faults::eventually("the spool stands still", LATER, async || {
        let before = rivulet.client().get("/ready").await.ok()?;
        let metrics = rivulet.metrics().await;
        let after = rivulet.client().get("/ready").await.ok()?;
        (before.json["spool"] == after.json["spool"]).then_some((after, metrics))
    })
    .await;
    let metric = |name: &str| sum(&metrics, name, &[]).unwrap_or_else(|| panic!("no {name}:\n{metrics}"));
    assert_eq!(ready.status, 200, "{}", ready.text);
    let told = [&ready.json["status"], &ready.json["disk"], &ready.json["broker"]];
    assert_eq!(told, ["ready", "ok", broker], "{}", ready.text);
    assert_eq!(metric("rivulet_gateway_log_admitting"), 1);
    let records = ready.json["spool"]["records"].as_u64().unwrap();
    let bytes = ready.json["spool"]["bytes"].as_u64().unwrap();
    assert_eq!(records > 0, bytes > 0, "{}", ready.text);
    let spooled = (metric("rivulet_gateway_spooled_records"), metric("rivulet_gateway_spooled_bytes"));
    assert_eq!(spooled, (records, bytes), "{}", ready.text);
    records
}
