//! Sessions of one person never overlap.

use std::collections::HashMap;

use serde_json::Value;
use tests::events::{self, Random, of_user};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::{Options, Rivulet};

const MINUTE: i64 = 60_000;

/// C43: sessions of one person never overlap, whatever comes late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_event_joins_its_session_and_never_makes_one_that_overlaps() {
    let _timed = Timed::new("C43");
    let rivulet = Rivulet::with(Options::default().set("log", "partitions", 1)).await;
    let mut random = Random::new(22);
    let ten = events::now_millis() - 55 * MINUTE;
    // The late event, then how many events the session has, and its first and last minute.
    let variants = [
        ("18", 18 * MINUTE, 2, 0, 18 * MINUTE),
        ("edge", 30 * MINUTE, 2, 0, 30 * MINUTE),
        ("beyond", 30 * MINUTE + 1, 1, 30 * MINUTE + 1, 30 * MINUTE + 1),
        ("before", -15 * MINUTE, 2, -15 * MINUTE, 0),
    ];
    for (name, late, count, first, last) in variants {
        let (who, others) = (format!("c43-{name}"), format!("c43-{name}-others"));
        let mut one = async |user: &str, minutes: i64| {
            let event = events::at(events::page_view(&mut random, &of_user(user)), ten + minutes);
            assert_eq!(rivulet.secret().send(event.to_string()).await.status, 200);
        };
        one(&who, 0).await;
        one(&others, 31 * MINUTE).await;
        let before = faults::eventually("the first event is counted", SOON, async || {
            rivulet.profile(&format!("user:{who}")).await
        });
        let before = before.await["session"]["id"].clone();
        one(&who, late).await;
        one(&others, 49 * MINUTE).await;
        let profile = faults::eventually("both events are counted", SOON, async || {
            rivulet
                .profile(&format!("user:{who}"))
                .await
                .filter(|profile| profile["counters"]["page_view"] == 2)
        });
        let session = profile.await["session"].clone();
        assert_eq!(session["events"], count, "{name}: {session}");
        assert_eq!(
            session["id"] == before,
            count == 2,
            "{name}: the same session, or another one: {session}"
        );
        assert_eq!(millis(&session["started_at"]), ten + first, "{name}: {session}");
        assert_eq!(millis(&session["last_at"]), ten + last, "{name}: {session}");
    }

    // Every state that was ever told: sessions of one person by id, as last told, do not overlap and have no negative length.
    let mut sessions: HashMap<(String, String), (i64, i64)> = HashMap::new();
    let changes = log::cat(&rivulet, "rivulet.profiles").await;
    for session in changes.iter().flat_map(|record| {
        let key = record.key.clone();
        sessions_in(&record.value).into_iter().map(move |session| (key.clone(), session))
    }) {
        let (key, session) = session;
        let (start, end) = (millis(&session["started_at"]), millis(&session["last_at"]));
        assert!(start <= end, "negative length: {session}");
        sessions.insert((key, session["id"].as_str().unwrap().to_owned()), (start, end));
    }
    assert!(!sessions.is_empty(), "profile changes name sessions: {changes:?}");
    for ((key, id), (start, end)) in &sessions {
        for ((other_key, other_id), (other_start, other_end)) in &sessions {
            let overlap = key == other_key && id != other_id && start <= other_end && other_start <= end;
            assert!(!overlap, "{key}: {start}-{end} and {other_start}-{other_end}");
        }
    }
}

/// The kind behind C43: any times in any order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_in_any_order_make_the_sessions_that_they_make_in_order() {
    const PEOPLE: usize = 12;
    let _timed = Timed::new("sessions: any order");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("sessions: any order");
    let start = events::now_millis() - 180 * MINUTE;
    // Times near each other by whole gaps, a millisecond less or more, within so few hours that no session is forgotten.
    let mut people: Vec<Vec<i64>> = Vec::new();
    for _ in 0..PEOPLE {
        let count = 3 + random.below(8);
        let mut time = || {
            let edge = i64::try_from(random.below(3)).unwrap() - 1;
            start + i64::try_from(random.below(15)).unwrap() * 10 * MINUTE + edge
        };
        people.push((0..count).map(|_| time()).collect());
    }
    for (person, times) in people.iter().enumerate() {
        let who = of_user(&format!("any-{person}"));
        for time in times {
            let event = events::at(events::page_view(&mut random, &who), *time);
            assert_eq!(rivulet.client().send(event.to_string()).await.status, 200);
        }
    }
    for (person, times) in people.iter().enumerate() {
        let profile = faults::eventually("all events are counted", SOON, async || {
            let profile = rivulet.profile(&format!("user:any-{person}")).await?;
            (profile["counters"]["page_view"] == times.len()).then_some(profile)
        });
        let session = profile.await["session"].clone();
        let mut sorted = times.clone();
        sorted.sort_unstable();
        let begins = |n: &usize| *n == 0 || sorted[*n] - sorted[*n - 1] > 30 * MINUTE;
        let first = (0..sorted.len()).rev().find(begins).unwrap();
        let right = (sorted[first], *sorted.last().unwrap(), sorted.len() - first);
        let told = (millis(&session["started_at"]), millis(&session["last_at"]));
        assert_eq!(told, (right.0, right.1), "{person}: {times:?}: {session}");
        assert_eq!(session["events"], right.2, "{person}: {times:?}: {session}");
    }
    let changes = log::cat(&rivulet, "rivulet.profiles").await;
    for session in changes.iter().flat_map(|record| sessions_in(&record.value)) {
        assert!(millis(&session["started_at"]) <= millis(&session["last_at"]), "negative length: {session}");
    }
}

fn millis(time: &Value) -> i64 {
    tests::oracle::millis(time.as_str().unwrap_or_else(|| panic!("no time: {time}")))
}

// Whatever looks like a session anywhere in a profile change.
fn sessions_in(value: &Value) -> Vec<Value> {
    match value {
        Value::Object(members) if members.contains_key("started_at") && members.contains_key("last_at") => {
            vec![value.clone()]
        }
        Value::Object(members) => members.values().flat_map(sessions_in).collect(),
        Value::Array(elements) => elements.iter().flat_map(sessions_in).collect(),
        _ => Vec::new(),
    }
}
