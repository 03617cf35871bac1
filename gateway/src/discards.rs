//! What clients say they have dropped knowingly: the member `discarded` of a batch.
//!
//! A client repeats a report until a batch that carried it was answered, with a higher number if more was lost meanwhile.
//!
//! **Invariant:** of each report its highest number is counted, once; a report that cannot be read costs no event. At most
//! [`REPORTS`] reports are remembered.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use schemas::frame::Discarded;
use schemas::id::SourceName;
use schemas::json::Member;

/// Reports remembered; beyond, the oldest is forgotten and would be counted anew if it came again.
const REPORTS: usize = 8_192;
/// Most reports of one batch that are read.
const BATCH_REPORTS: usize = 64;
/// Most events that one report may speak of.
const REPORT_EVENTS: u64 = 1_000_000;
/// Longest id of a report, bytes.
const ID_BYTES: usize = 64;

/// Reports already counted.
#[derive(Debug, Default)]
pub(crate) struct Discards(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    counted: HashMap<(String, String), u64>,
    order: VecDeque<(String, String)>,
}

impl Discards {
    /// How many events the members beside a batch's `events` report that were not counted yet.
    pub(crate) fn fresh(&self, source: &SourceName, envelope: &[Member<'_>]) -> u64 {
        let Some(member) = envelope.iter().find(|member| member.name == "discarded") else { return 0 };
        let Ok(reports) = serde_json::from_slice::<Vec<Discarded>>(member.value) else {
            tracing::debug!(source = source.as_str(), "a report of discarded events cannot be read");
            return 0;
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let readable = reports.into_iter().take(BATCH_REPORTS).filter(|report| report.id.len() <= ID_BYTES);
        readable.map(|report| known.count(source, report)).sum()
    }
}

impl Known {
    fn count(&mut self, source: &SourceName, report: Discarded) -> u64 {
        let key = (source.as_str().to_owned(), report.id);
        let events = report.events.min(REPORT_EVENTS);
        if !self.counted.contains_key(&key) {
            self.order.push_back(key.clone());
        }
        let counted = self.counted.entry(key).or_default();
        let fresh = events.saturating_sub(*counted);
        *counted += fresh;
        if self.order.len() > REPORTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.counted.remove(&oldest);
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use schemas::json::{self, Body};

    use super::*;

    fn fresh(discards: &Discards, source: &str, discarded: &str) -> u64 {
        let body = format!(r#"{{"discarded":{discarded},"events":[]}}"#);
        let Ok(Body::Many { envelope, .. }) = json::split(body.as_bytes(), 9) else { panic!("{body}") };
        discards.fresh(&SourceName::new(source), &envelope)
    }

    #[test]
    fn each_report_counts_once_by_its_highest_number() {
        let discards = Discards::default();
        let report =
            |id: &str, events: u64| format!(r#"{{"id":"{id}","code":"queue.full","events":{events}}}"#);
        let list = |reports: &[String]| format!("[{}]", reports.join(","));
        assert_eq!(fresh(&discards, "web", &list(&[report("a", 5), report("b", 2)])), 7);
        assert_eq!(fresh(&discards, "web", &list(&[report("a", 5), report("b", 3)])), 1);
        assert_eq!(fresh(&discards, "web", &list(&[report("a", 4)])), 0);
        assert_eq!(fresh(&discards, "app", &list(&[report("a", 4)])), 4, "another source");
        assert_eq!(fresh(&discards, "web", &list(&[report("c", u64::MAX)])), REPORT_EVENTS);
        for odd in ["1", "[1]", "null", r#"[{"id":"x","events":-1,"code":""}]"#, r#"[{"id":"x"}]"#] {
            assert_eq!(fresh(&discards, "web", odd), 0, "{odd}");
        }
    }

    #[test]
    fn reports_are_remembered_within_a_bound() {
        let discards = Discards::default();
        for at in 0..REPORTS + 10 {
            fresh(&discards, "web", &format!(r#"[{{"id":"{at}","code":"","events":1}}]"#));
        }
        let known = discards.0.lock().unwrap();
        assert_eq!((known.counted.len(), known.order.len()), (REPORTS, REPORTS));
    }
}
