//! `rivulet bench process`: events through dedup, profile and twenty rules, on one core, without the log.
//!
//! **Invariant:** the same code as in production, from the record to the committed store batch; only reading and appending are left
//! out, and named so.

use std::path::Path;
use std::time::Instant;

use broker::log::Record;
use bytes::Bytes;
use processor_core::session::Settings;
use processor_core::{Model, Program, Ruleset};
use schemas::id::{EventId, SourceName};
use schemas::receipt::{Receipt, Trust};
use schemas::time::Timestamp;
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};
use serde::Serialize;

use crate::consume::BATCH_RECORDS;
use crate::consume::batch::{Rulebook, Work};
use crate::consume::cache::Caches;
use crate::consume::ledger::PartitionState;
use crate::control::ControlKey;
use crate::processor::DEMO_MODEL;
use crate::store::disk::DiskStore;
use crate::store::memory::MemoryStore;
use crate::store::{StateStore, StoreError};

/// Rules in the benchmark.
pub const RULES: usize = 20;
/// People in the benchmark.
const PEOPLE: u64 = 10_000;
/// Records made before the clock runs: so many that what tells processor time, by hundredths of a second, tells enough.
const MADE_AHEAD: u64 = 20_000;
/// 2026-01-01T00:00:00Z
const START: i64 = 1_767_225_600_000;

/// Why the benchmark did not run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its own rules or model do not load.
    #[error("{0}")]
    Program(String),
}

/// What was measured with one store.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figures {
    /// `memory`, or `fjall` with one fsync a batch.
    pub store: &'static str,
    /// Events.
    pub events: u64,
    /// Wall-clock seconds on one thread.
    pub seconds: f64,
    /// Processor seconds of the whole program for a million events; absent where the system does not tell.
    pub cpu_seconds_per_million: Option<f64>,
    /// Events a second.
    pub events_per_second: f64,
    /// Decisions made.
    pub decisions: u64,
    /// Duplicates among the events (one in a hundred).
    pub duplicates: u64,
    /// Batches, each one commit.
    pub batches: u64,
}

/// Runs `events` events through a store: fjall in `folder`, or memory if there is none. `cpu` tells the program's processor
/// seconds so far.
pub fn run(events: u64, folder: Option<&Path>, cpu: impl Fn() -> Option<f64>) -> Result<Figures, BenchError> {
    let rulebook = rulebook()?;
    match folder {
        Some(folder) => measure("fjall", events, &rulebook, &DiskStore::open(folder)?, cpu),
        None => measure("memory", events, &rulebook, &MemoryStore::volatile(), cpu),
    }
}

fn rulebook() -> Result<Rulebook, BenchError> {
    let types = ["product_view", "add_to_cart", "search", "page_view"];
    let rule = |n: usize| {
        let event = types.get(n % types.len()).copied().unwrap_or("product_view");
        let within = 10 + n;
        let at_least = 3 + n % 4;
        format!(
            "  - name: rule_{n}\n    on: {event}\n    when: {{ count: {event}, by: metadata.category, within: {within}m, at_least: {at_least} }}\n    score_above: 0.1\n    unless: {{ event: purchase, within: 30m }}\n    cooldown: 24h\n    decide: {{ slot: slot_{n}, payload: {{ title: \"Still looking at {{category}}?\" }} }}\n"
        )
    };
    let text = format!("rules:\n{}", (0..RULES).map(rule).collect::<String>());
    let rules = Ruleset::parse(&text, "bench").map_err(|error| BenchError::Program(error.to_string()))?;
    let model =
        Model::parse(DEMO_MODEL.as_bytes()).map_err(|error| BenchError::Program(error.to_string()))?;
    let program = Program { rules, model, sessions: Settings::default() };
    Ok(Rulebook { program, control_key: ControlKey::new("bench"), dedup_window_ms: 8 * 86_400_000 })
}

#[expect(clippy::disallowed_methods, reason = "the machine itself is measured")]
fn measure(
    name: &'static str,
    events: u64,
    rulebook: &Rulebook,
    store: &dyn StateStore,
    cpu: impl Fn() -> Option<f64>,
) -> Result<Figures, BenchError> {
    let (mut state, mut caches) = (PartitionState::default(), Caches::of_one(1));
    let (mut seconds, mut processor, mut decisions, mut batches, mut next) = (0.0, Some(0.0), 0, 0, 0);
    while next < events {
        let end = events.min(next + MADE_AHEAD);
        let records: Vec<Record> = (next..end).map(record).collect();
        let (started, before) = (Instant::now(), cpu());
        for records in records.chunks(BATCH_RECORDS) {
            let mut work = Work::new(rulebook, store, PartitionId(0), state, &mut caches);
            for record in records {
                work.record(record)?;
            }
            let effects = work.finish()?;
            store.commit(effects.writes)?;
            store.persist()?;
            caches.profiles.keep(effects.profiles);
            state = effects.state;
            decisions += effects.decisions;
            batches += 1;
        }
        seconds += started.elapsed().as_secs_f64();
        processor = processor.zip(before).zip(cpu()).map(|((sum, before), after)| sum + after - before);
        next = end;
    }
    let events_per_second = if seconds > 0.0 { events as f64 / seconds } else { 0.0 };
    let cpu_seconds_per_million =
        processor.filter(|_| events > 0).map(|seconds| seconds * 1e6 / events as f64);
    let duplicates = state.ledger.duplicate;
    Ok(Figures {
        store: name,
        events,
        seconds,
        cpu_seconds_per_million,
        events_per_second,
        decisions,
        duplicates,
        batches,
    })
}

/// The `n`-th record: about 800 bytes, people and categories spread by a fixed sequence, one in a hundred a re-send.
fn record(n: u64) -> Record {
    let source = if n % 100 == 99 { n - 7 } else { n };
    let mixed = source.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17;
    let (person, category) = (mixed % PEOPLE, (mixed / PEOPLE) % 7);
    let event_type =
        ["product_view", "page_view", "product_view", "search", "add_to_cart", "product_view", "purchase"]
            .get(usize::try_from(mixed / 70_000 % 7).unwrap_or_default())
            .copied()
            .unwrap_or("product_view");
    let at = Timestamp(START + i64::try_from(source).unwrap_or_default());
    let id = EventId::v7(u64::try_from(at.0).unwrap_or_default(), &{
        let mut entropy = [0; 10];
        entropy.iter_mut().zip(mixed.to_be_bytes()).for_each(|(to, from)| *to = from);
        entropy
    });
    let filler = "x".repeat(240);
    let event = format!(
        "{{\"event_id\":\"{id}\",\"event_type\":\"{event_type}\",\"user_id\":\"user_{person}\",\"timestamp\":\"{at}\",\"metadata\":{{\"product_id\":\"product_{mixed}\",\"category\":\"category_{category}\",\"price\":19.99,\"quantity\":2,\"note\":\"{filler}\"}},\"context\":{{\"page\":{{\"url\":\"https://shop.example/p?utm_source=mail\"}}}}}}"
    );
    let receipt = Receipt {
        event_id: id,
        received_at: at,
        occurred_at: at,
        source: SourceName::new("web"),
        schema: Some("product_view@1".to_owned()),
        trust: Trust::Public,
        ip: Some("203.0.113.0".to_owned()),
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36".to_owned()),
        original_event_id: None,
        clamped_from: None,
        schema_fault: None,
        redacted: Vec::new(),
    };
    Record {
        at: TopicPartition { topic: Topic::Events, partition: PartitionId(0) },
        offset: Offset(n),
        appended_at: at,
        key: Bytes::from(format!("user_{person}")),
        headers: broker::headers::Headers::new(),
        value: Bytes::from(receipt.splice(event.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hundredth_event_is_a_duplicate_and_rules_fire() {
        let folder = tempfile::tempdir().unwrap();
        for folder in [None, Some(folder.path())] {
            let figures = run(3_000, folder, || Some(1.0)).unwrap();
            assert_eq!(figures.cpu_seconds_per_million, Some(0.0));
            assert_eq!((figures.events, figures.duplicates), (3_000, 30), "{figures:?}");
            assert!(figures.batches == 6 && figures.events_per_second > 0.0);
        }
    }
}
