//! What must have come of a log, folded in the plainest way.
//!
//! **Invariant:** knows only the records and the design; shares no code with the processor.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::faults;
use crate::log::{self, Record};
use crate::rivulet::Rivulet;

/// The demo rule's window; an event exactly so old does not count.
const WINDOW_MILLIS: i64 = 30 * 60 * 1000;

/// How many views of a category fire the demo rule.
const VIEWS: usize = 3;

/// What is known of one person.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Profile {
    /// Events by type.
    pub counters: BTreeMap<String, u64>,
    /// Product views by category.
    pub categories: BTreeMap<String, u64>,
    /// The event that fires the demo's banner, the first time.
    pub banner: Option<String>,
}

/// Profiles by `user:…` or `anonymous:…` of those whose key begins with `prefix`; none of them merged.
pub fn fold(records: &[Record], prefix: &str) -> BTreeMap<String, Profile> {
    let mut seen = HashSet::new();
    let mut views: HashMap<(String, String), Vec<i64>> = HashMap::new();
    let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
    for record in records.iter().filter(|record| record.key.starts_with(prefix)) {
        let source = record.value["receipt"]["source"].as_str().unwrap_or_default();
        if !seen.insert((record.key.clone(), source.to_owned(), record.event_id().to_owned())) {
            continue;
        }
        let who = match (record.value["user_id"].as_str(), record.value["anonymous_id"].as_str()) {
            (Some(user), _) => format!("user:{user}"),
            (None, Some(device)) => format!("anonymous:{device}"),
            (None, None) => panic!("a record of nobody: {}", record.line),
        };
        let profile = profiles.entry(who.clone()).or_default();
        let event_type = record.value["event_type"].as_str().unwrap_or_default();
        *profile.counters.entry(event_type.to_owned()).or_default() += 1;
        let Some(category) =
            record.value["metadata"]["category"].as_str().filter(|_| event_type == "product_view")
        else {
            continue;
        };
        *profile.categories.entry(category.to_owned()).or_default() += 1;
        let at = occurred_at(record);
        let times = views.entry((who, category.to_owned())).or_default();
        times.push(at);
        let inside = times.iter().filter(|time| **time > at - WINDOW_MILLIS && **time <= at).count();
        if inside >= VIEWS && profile.banner.is_none() {
            profile.banner = Some(record.event_id().to_owned());
        }
    }
    profiles
}

/// Panics unless the processor arrives at what [`fold`] says, for every person whose key begins with `prefix`.
pub async fn check_profiles(rivulet: &Rivulet, records: &[Record], prefix: &str) {
    let expected = fold(records, prefix);
    assert!(!expected.is_empty(), "no records of {prefix}");
    for (who, right) in &expected {
        let mut last = Value::Null;
        let equal = faults::until(faults::LATER, async || {
            last = rivulet.profile(who).await.unwrap_or(Value::Null);
            let equal = counts(&last["counters"]) == right.counters
                && counts(&last["categories"]) == right.categories;
            equal.then_some(())
        });
        assert!(equal.await.is_some(), "{who}: the log says {right:?}, the processor says {last}");
    }
    eprintln!("{} profiles equal the fold of the log", expected.len());
}

/// Panics unless `rivulet.decisions` has the demo's banner exactly once for each person who earned it, fired by the right event.
pub async fn check_banners(rivulet: &Rivulet, records: &[Record], prefix: &str) {
    let expected: BTreeMap<String, String> =
        fold(records, prefix).into_iter().filter_map(|(who, profile)| Some((who, profile.banner?))).collect();
    let mut last = BTreeMap::new();
    let equal = faults::until(faults::LATER, async || {
        last = banners(&log::cat(rivulet, "rivulet.decisions").await, prefix);
        let once = last
            .iter()
            .map(|(who, ids)| (who.clone(), ids.iter().map(|(_, trigger)| trigger.clone()).collect()));
        let once: BTreeMap<String, Vec<String>> = once.collect();
        let right = expected.iter().map(|(who, trigger)| (who.clone(), vec![trigger.clone()])).collect();
        (once == right).then_some(())
    });
    assert!(
        equal.await.is_some(),
        "banners by person and trigger: the log says {expected:?}, decided was {last:?}"
    );
    eprintln!("{} banners were decided, each once", expected.len());
}

// Distinct decisions of the banner's slot by subject, as (decision id, trigger): a repeated record of one id is one decision.
fn banners(records: &[Record], prefix: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for record in records
        .iter()
        .filter(|record| record.key.starts_with(prefix) && record.value["slot"] == "home_banner")
    {
        let text = |name: &str| record.value[name].as_str().unwrap_or_default().to_owned();
        let of_subject = found.entry(text("subject")).or_default();
        let decision = (text("decision_id"), text("trigger"));
        if !of_subject.contains(&decision) {
            of_subject.push(decision);
        }
    }
    found
}

fn counts(json: &Value) -> BTreeMap<String, u64> {
    let members = json.as_object().into_iter().flatten();
    members
        .filter_map(|(name, count)| Some((name.clone(), count.as_u64().filter(|count| *count > 0)?)))
        .collect()
}

fn occurred_at(record: &Record) -> i64 {
    millis(record.value["receipt"]["occurred_at"].as_str().expect("a receipt"))
}

/// Milliseconds since 1970 of an RFC 3339 time in UTC with milliseconds, as receipts have it.
pub fn millis(text: &str) -> i64 {
    assert!(text.len() == 24 && text.ends_with('Z'), "not in UTC with milliseconds: {text}");
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().expect("digits");
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days from the civil calendar, Howard Hinnant's algorithm.
    let shifted = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let year_of_era = shifted.rem_euclid(400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = shifted.div_euclid(400) * 146_097 + day_of_era - 719_468;
    (((days * 24 + number(11..13)) * 60 + number(14..16)) * 60 + number(17..19)) * 1000 + number(20..23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_millisecond() {
        for (text, right) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2024-02-29T23:59:59.999Z", 1_709_251_199_999),
            ("2024-03-31T00:30:00.123Z", 1_711_845_000_123),
            ("2026-11-25T04:00:00.000Z", 1_795_579_200_000),
        ] {
            assert_eq!(millis(text), right, "{text}");
        }
    }
}
