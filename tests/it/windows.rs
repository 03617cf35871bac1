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
            counts_its_facts(&record, 3);
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

/// Panics unless a decision lists the events it counted, at least so many.
fn counts_its_facts(record: &Record, least: usize) {
    let facts = record.value["facts"].as_array().unwrap_or_else(|| panic!("no facts: {}", record.line));
    let counted = facts.iter().filter_map(|fact| Some((fact["value"].as_u64()?, fact["events"].as_array()?)));
    let counted: Vec<(u64, &Vec<Value>)> = counted.filter(|(_, events)| !events.is_empty()).collect();
    assert!(!counted.is_empty(), "no fact lists events: {}", record.line);
    for (count, events) in counted {
        let listed: std::collections::HashSet<String> = events.iter().map(Value::to_string).collect();
        assert_eq!(
            usize::try_from(count).unwrap(),
            listed.len(),
            "the count equals the events listed: {}",
            record.line
        );
        assert!(listed.len() >= least, "{}", record.line);
        let trigger = record.value["trigger"].to_string();
        assert!(listed.contains(&trigger), "the event that fired is among them: {}", record.line);
    }
}

/// The kind behind C52: any times, in their order, against a plain count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_fires_at_exactly_the_events_that_a_plain_count_says() {
    const PEOPLE: usize = 12;
    let _timed = Timed::new("windows: plain count");
    let rules = "
rules:
  - name: three_views
    on: product_view
    when: { count: product_view, by: metadata.category, within: 30m, at_least: 3 }
    decide: { slot: window, payload: { title: \"{category}\" } }
";
    let rivulet = Rivulet::with(Options::default().rules(rules)).await;
    let mut random = Random::seeded("windows: plain count");
    let start = events::now_millis() - 100 * MINUTE;
    let mut right: Vec<String> = Vec::new();
    let mut total = 0;
    for person in 0..PEOPLE {
        let who = of_user(&format!("plain-{person}"));
        let mut times: Vec<i64> = (0..4 + random.below(6))
            .map(|_| {
                let edge = i64::try_from(random.below(3)).unwrap() - 1;
                start + i64::try_from(random.below(8)).unwrap() * 10 * MINUTE + edge
            })
            .collect();
        times.sort_unstable();
        let views: Vec<(i64, &str, Value)> = times
            .iter()
            .map(|time| {
                let category = *random.pick(&["shoes", "hats"]);
                (*time, category, events::at(events::product_view(&mut random, &who, category), *time))
            })
            .collect();
        for (n, (time, category, view)) in views.iter().enumerate() {
            let inside = |(other, of, _): &&(i64, &str, Value)| of == category && *other > time - 30 * MINUTE;
            if views[..=n].iter().filter(inside).count() >= 3 {
                right.push(events::id(view).to_owned());
            }
        }
        total += views.len();
        let batch: Vec<Value> = views.into_iter().map(|(_, _, view)| view).collect();
        // Together or one by one makes no difference.
        let bodies = if person % 2 == 0 {
            vec![events::array(&batch)]
        } else {
            batch.iter().map(Value::to_string).collect()
        };
        for body in bodies {
            assert_eq!(rivulet.client().send(body).await.status, 200);
        }
    }
    faults::eventually("all views are processed", SOON, async || {
        let applied = rivulet.metric("rivulet_processor_records_total", &["applied"]).await?;
        (applied >= total as u64).then_some(())
    })
    .await;
    let mut decided: Vec<String> = Vec::new();
    let told = faults::until(SOON, async || {
        let records = log::cat(&rivulet, "rivulet.decisions").await;
        decided = records.iter().map(|record| record.value["trigger"].as_str().unwrap().to_owned()).collect();
        for record in &records {
            counts_its_facts(record, 3);
        }
        (decided.len() >= right.len()).then_some(())
    });
    told.await;
    right.sort();
    decided.sort();
    assert!(!right.is_empty());
    assert_eq!(decided, right);
}
