//! More than can be done: what is shed is told and counted, best-effort first; profiles with too many events are found and dealt with.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::client::Client;
use tests::events::{self, Random};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::{Options, Rivulet};

/// Events that may wait for the log in these tests: so few that a small load is too much.
const WAITING: usize = 200;
/// Senders at once, and events in each batch.
const SENDERS: usize = 12;
const BATCH: usize = 50;

fn key(name: &str, more: &str) -> String {
    format!("[[keys]]\nname = \"{name}\"\nkey = \"sk_{name}\"\nkind = \"secret\"\n{more}\n")
}

fn views(random: &mut Random, count: usize, user: &str) -> Vec<Value> {
    (0..count).map(|_| events::page_view(random, &events::of_user(user))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_best_effort_is_shed_first_and_told_and_counted_and_critical_is_all_taken() {
    let _timed = Timed::new("overload: lanes");
    let config = key("best", "lane = \"best_effort\"") + &key("critical", "lane = \"critical\"");
    let options = Options { config: Some(config), ..Options::default() };
    let options =
        options.set("gateway", "shed_waiting_events", WAITING).set("gateway", "shed_late_ms", 60_000);
    let rivulet = Rivulet::with(options).await;
    let [best, critical] = ["sk_best", "sk_critical"].map(|key| rivulet.client().with_key(key));
    let mut random = Random::seeded("overload: lanes");
    let shed = faults::eventually("load sheds best-effort events", SOON, async || {
        let batches: Vec<_> = (0..SENDERS).map(|n| views(&mut random, BATCH, &format!("o{n}"))).collect();
        let sends = batches.iter().enumerate().map(async |(n, batch)| {
            let client = if n % 3 == 0 { &critical } else { &best };
            (n % 3 == 0, client.send(events::array(batch)).await)
        });
        let answers = join_all(sends).await;
        let refused = answers.iter().filter(|(_, answer)| answer.status != 200);
        for (is_critical, answer) in refused.clone() {
            assert!(!is_critical, "critical: {}", answer.text);
            assert_eq!(answer.status, 503, "{}", answer.text);
            assert!(answer.header("retry-after").is_some(), "says when to come back");
            assert!(answer.text.contains("gateway.overloaded"), "{}", answer.text);
        }
        // One that came so far that its events are answered.
        refused.clone().any(|(_, answer)| answer.statuses() == vec!["retry"; BATCH]).then_some(())
    });
    shed.await;
    let metrics = rivulet.metrics().await;
    let counted = |name, lane: &str| tests::rivulet::sum(&metrics, name, &[&format!("lane=\"{lane}\"")]);
    assert!(counted("rivulet_gateway_shed_events_total", "best_effort") >= Some(BATCH as u64), "{metrics}");
    assert_eq!(counted("rivulet_gateway_shed_events_total", "critical"), Some(0));
    faults::eventually("it is taken again when the load is gone", SOON, async || {
        (best.send(events::array(&views(&mut random, 1, "o"))).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_what_is_sustained_with_idle_sockets_slow_senders_and_bombs_stays_within_memory() {
    let _timed = Timed::new("overload: flood");
    let rivulet = Rivulet::prepared(Options::default());
    let small = ["--seconds", "2", "--idle", "300", "--slow", "50", "--bombs", "5", "--memory", "512"];
    // The machine may be busy, and this build is not optimised: the figure itself is the benchmark's.
    let output =
        rivulet.run(&[&["bench", "overload", "--json", "--p99", "60000"][..], &small[..]].concat()).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{text}");
    let figures: Value = serde_json::from_str(&text).expect("JSON");
    let held = ["idle_sockets", "slow_senders", "bombs_taken"].map(|name| figures[name].as_u64());
    assert_eq!(held, [Some(300), Some(50), Some(0)], "{text}");
    assert_eq!(figures["lanes"][0]["shed_percent"], json!(0.0), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_profile_is_found_and_metered_limited_or_coalesced_by_its_key_and_keeps_its_partition() {
    let _timed = Timed::new("overload: hot profiles");
    let hot = |policy: &str| format!("hot_profile_events_per_second = 1\nhot_profiles = \"{policy}\"");
    let config = ["meter", "limit", "coalesce"].map(|policy| key(policy, &hot(policy))).concat();
    let options = Options { config: Some(config), ..Options::default() }.set("gateway", "hot_window_s", 20);
    let rivulet = Rivulet::with(options).await;
    let mut random = Random::seeded("overload: hot profiles");
    let [meter, limit, coalesce] =
        ["meter", "limit", "coalesce"].map(|name| rivulet.client().with_key(&format!("sk_{name}")));
    let mut batch = |user: &str, same: bool| {
        let mut all = views(&mut random, 100, user);
        if same {
            for event in &mut all {
                event["metadata"] = json!({"path": "/again"});
            }
        }
        all
    };
    let all = meter.send(events::array(&batch("hot-m", false))).await;
    assert_eq!(all.statuses(), vec!["accepted"; 100], "{}", all.text);

    let cut = limit.send(events::array(&batch("hot-l", false))).await;
    let statuses = cut.statuses();
    let taken = statuses.iter().filter(|status| **status == "accepted").count();
    assert!((20..=40).contains(&taken), "a window's worth, or two at its end: {}", cut.text);
    assert_eq!(statuses.iter().filter(|status| **status == "retry").count(), 100 - taken);
    assert_eq!((cut.status, cut.verdicts()[99]["reason"]["code"].as_str()), (207, Some("profile.hot")));
    assert!(cut.header("retry-after").is_some());
    let other = limit.send(events::array(&batch("cool-l", false)[..5])).await;
    assert_eq!(other.status, 200, "others are taken: {}", other.text);

    let once = coalesce.send(events::array(&batch("hot-c", true))).await;
    assert_eq!(once.status, 200, "{}", once.text);
    let written = once.statuses().iter().filter(|status| **status == "accepted").count();
    assert!((21..=42).contains(&written), "a window's worth and one: {}", once.text);
    let last = &once.verdicts()[99];
    assert_eq!(
        (&last["status"], &last["warnings"][0]["code"]),
        (&json!("duplicate"), &json!("profile.coalesced"))
    );

    check_told(&rivulet, &meter).await;
    let records = log::events(&rivulet).await;
    for user in ["hot-m", "hot-l", "hot-c"] {
        let of_user: Vec<_> = records.iter().filter(|record| record.value["user_id"] == user).collect();
        let partitions: HashSet<u64> = of_user.iter().map(|record| record.partition).collect();
        assert_eq!(partitions.len(), 1, "{user} keeps its partition");
    }
}

/// The list names the profiles to a secret key alone, and the metrics count without naming anybody.
async fn check_told(rivulet: &Rivulet, secret: &Client) {
    let told = secret.get("/v1/hot-profiles").await.unwrap();
    let windows = [&told.json["last"]["profiles"], &told.json["present"]["profiles"]];
    let named = windows.iter().filter_map(|window| window.as_array()).flatten();
    let hot = named.clone().find(|told| told["profile"] == "user:hot-m").expect(&told.text);
    assert!(hot["events"].as_u64() > Some(0) && hot["source"] == "meter", "{}", told.text);
    let refused = rivulet.client().keyless().get("/v1/hot-profiles").await.unwrap();
    assert_eq!(refused.status, 401);
    let metrics = rivulet.metrics().await;
    for (source, action) in [("meter", "metered"), ("limit", "limited"), ("coalesce", "coalesced")] {
        let labels = [format!("source=\"{source}\""), format!("action=\"{action}\"")];
        let labels = [labels[0].as_str(), labels[1].as_str()];
        let counted = tests::rivulet::sum(&metrics, "rivulet_gateway_hot_profile_events_total", &labels);
        assert!(counted >= Some(60), "{action}: {counted:?}");
    }
    assert!(!metrics.contains("hot-m"), "metrics name nobody");
}
