//! The edges of a rule's sliding window.

use serde_json::Value;
use tests::events::{self, Random, of_device, of_user};
use tests::faults::{self, SOON, Timed};
use tests::log::{self, Record};
use tests::rivulet::{Options, Rivulet};

const MINUTE: i64 = 60_000;

/// C52: the edges of a sliding window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_of_a_rule_is_half_open_and_counts_events_of_one_instant_as_many() {
    let _timed = Timed::new("C52");
    let rules = "
rules:
  - name: three_views
    on: product_view
    when: { count: product_view, by: metadata.category, within: 30m, at_least: 3 }
    decide: { slot: window, payload: { title: \"{category}\" } }
";
    let rivulet = Rivulet::with(Options::default().rules(rules)).await;
    let mut random = Random::new(23);
    let noon = events::now_millis() - 40 * MINUTE;
    let view = |random: &mut Random, user: &str, after: i64| {
        events::at(events::product_view(random, &of_user(user), "shoes"), noon + after)
    };
    // Who, the three moments, one batch or three, how often it fires at least and at most.
    let people: [(&str, [i64; 3], bool, usize, usize); 6] = [
        ("c52-u1", [0, 0, 30 * MINUTE - 1], false, 1, 1),
        ("c52-u2", [0, 0, 30 * MINUTE], false, 0, 0),
        ("c52-u3", [0, 0, 30 * MINUTE + 1], false, 0, 0),
        ("c52-u4", [5, 5, 5], true, 1, 1),
        ("c52-u5", [29 * MINUTE, 0, 1], false, 0, 1),
        ("c52-u6", [0, 0, 0], false, 1, 1),
    ];
    for (who, moments, together, _, _) in &people {
        let views: Vec<Value> = moments.iter().map(|after| view(&mut random, who, *after)).collect();
        let bodies = if *together {
            vec![events::array(&views)]
        } else {
            views.iter().map(Value::to_string).collect()
        };
        for body in bodies {
            let answer = rivulet.secret().send(body).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
        }
    }
    for (who, _, _, least, most) in &people {
        let profile = faults::eventually("all three views are counted", SOON, async || {
            rivulet
                .profile(&format!("user:{who}"))
                .await
                .filter(|profile| profile["counters"]["product_view"] == 3)
        });
        let profile = profile.await;
        let decided = profile["decisions"].as_array().unwrap();
        assert!((*least..=*most).contains(&decided.len()), "{who} fired {} times: {profile}", decided.len());
        let told = faults::eventually("what the profile names is on the topic", SOON, async || {
            let records = log::cat(&rivulet, "rivulet.decisions").await;
            let told: Vec<Record> = records.into_iter().filter(|record| record.key == *who).collect();
            (told.len() >= decided.len()).then_some(told)
        });
        for record in told.await {
            for fact in record.value["facts"].as_array().into_iter().flatten() {
                if let (Some(count), Some(events)) = (fact["value"].as_u64(), fact["events"].as_array()) {
                    assert_eq!(
                        usize::try_from(count).unwrap(),
                        events.len(),
                        "the count equals the facts listed: {fact}"
                    );
                }
            }
        }
    }
    let devices = [of_device("c52-d1"), of_device("c52-d2")];
    for device in &devices {
        let views: Vec<Value> = (0..2).map(|_| events::product_view(&mut random, device, "shoes")).collect();
        rivulet.client().send(events::array(&views)).await;
    }
    let records = log::cat(&rivulet, "rivulet.decisions").await;
    assert!(
        !records.iter().any(|record| record.key.starts_with("c52-d")),
        "two views of two devices are not three"
    );
}
