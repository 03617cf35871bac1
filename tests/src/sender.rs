//! Load that keeps a ledger: what was sent in which order, and what the answer promised.
//!
//! **Invariant:** the next batch goes out only when the last is answered event by event, and a batch without an answer is sent
//! again as it was; so the order of the ledger is the order in which each key's first occurrences must stand on the log.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Answer, Client};
use crate::events::{self, Random};
use crate::log::Record;

/// Most events in a batch.
const BATCH: u64 = 20;

/// One in so many batches carries an event for the second time.
const REPEAT_ONE_IN: u64 = 6;

/// One event and its promise.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The event.
    pub event: Value,
    /// The level that the answer named.
    pub acked: Option<String>,
}

/// A client that sends without a pause.
#[derive(Debug)]
pub struct Sender {
    random: Random,
    people: Vec<Value>,
    /// `?ack=` of its requests.
    pub ack: Option<&'static str>,
    /// What was sent, in order.
    pub ledger: Vec<Sent>,
    pending: Vec<usize>,
    /// Answers that were not 200, as status and body.
    pub refusals: Vec<(u16, String)>,
    /// How long the slowest answer took.
    pub slowest: Duration,
}

impl Sender {
    /// Sends as `people`, whom nobody else may send for.
    pub fn new(random: Random, people: Vec<Value>) -> Self {
        Self {
            random,
            people,
            ack: None,
            ledger: Vec::new(),
            pending: Vec::new(),
            refusals: Vec::new(),
            slowest: Duration::ZERO,
        }
    }

    /// `count` senders, each with three people of its own, one of them known only by device.
    pub fn crowd(random: &mut Random, count: usize, prefix: &str) -> Vec<Self> {
        let person = |sender: usize, n: usize| match n {
            0 => events::of_device(&format!("{prefix}-a{sender}")),
            n => events::of_user(&format!("{prefix}-u{sender}-{n}")),
        };
        (0..count)
            .map(|sender| Self::new(random.split(), (0..3).map(|n| person(sender, n)).collect()))
            .collect()
    }

    /// Sends until there is no answer.
    pub async fn pump(&mut self, client: &Client) {
        while self.step(client).await {}
    }

    /// Sends until what is pending is answered; whether that came about.
    pub async fn settle(&mut self, client: &Client) -> bool {
        self.pending.is_empty() || (self.step(client).await && self.pending.is_empty())
    }

    async fn step(&mut self, client: &Client) -> bool {
        if self.pending.is_empty() {
            self.plan();
        }
        let batch: Vec<Value> = self.pending.iter().map(|place| self.ledger[*place].event.clone()).collect();
        let path = self.ack.map_or_else(|| "/v1/events".to_owned(), |ack| format!("/v1/events?ack={ack}"));
        let start = Instant::now();
        let headers = [("content-type", "application/json")];
        let Ok(answer) = client.post(&path, &headers, events::array(&batch)).await else { return false };
        self.slowest = self.slowest.max(start.elapsed());
        self.note(&answer);
        true
    }

    fn plan(&mut self) {
        let known = self.ledger.len() as u64;
        for _ in 0..=self.random.below(BATCH) {
            let who = self.random.pick(&self.people).clone();
            let event = events::any(&mut self.random, &who);
            self.pending.push(self.ledger.len());
            self.ledger.push(Sent { event, acked: None });
        }
        if known > 0 && self.random.below(REPEAT_ONE_IN) == 0 {
            let old = usize::try_from(self.random.below(known)).expect("an index");
            self.pending.push(old);
        }
    }

    fn note(&mut self, answer: &Answer) {
        if answer.status != 200 {
            self.refusals.push((answer.status, answer.text.clone()));
        }
        let pending = std::mem::take(&mut self.pending);
        if answer.verdicts().len() != pending.len() {
            self.pending = pending;
            return;
        }
        for (place, verdict) in pending.into_iter().zip(answer.verdicts()) {
            match verdict["status"].as_str() {
                Some("accepted" | "duplicate") => {
                    self.ledger[place].acked = verdict["acked"].as_str().map(str::to_owned);
                }
                // The rest of the batch goes again too, so that order is kept.
                Some("retry") => self.pending.push(place),
                _ => panic!("a valid event was refused: {verdict} for {}", self.ledger[place].event),
            }
        }
    }

    /// How many events have been promised safe.
    pub fn promised(&self) -> usize {
        self.ledger.iter().filter(|sent| matches!(sent.acked.as_deref(), Some("disk" | "broker"))).count()
    }
}

/// Panics unless every promised event of the senders is on the log and first occurrences stand in the order sent, key by key.
pub fn check_log(senders: &[Sender], records: &[Record]) {
    let mut place = HashMap::new();
    for record in records {
        place.entry(record.event_id()).or_insert((record.partition, record.offset));
    }
    let mut promised = 0;
    let mut last: HashMap<String, (u64, u64)> = HashMap::new();
    for sent in senders.iter().flat_map(|sender| &sender.ledger) {
        let id = events::id(&sent.event);
        let found = place.get(id);
        if sent.acked.is_some() {
            promised += 1;
            assert!(found.is_some(), "{id} was answered {:?} and is not on the log", sent.acked);
        }
        let Some(found) = found else { continue };
        let key =
            sent.event["user_id"].as_str().or(sent.event["anonymous_id"].as_str()).expect("a key").to_owned();
        if let Some(before) = last.insert(key.clone(), *found) {
            assert_eq!(before.0, found.0, "{key} stands in two partitions");
            assert!(
                before.1 < found.1,
                "{key}: {id} stands at {found:?}, before its predecessor at {before:?}"
            );
        }
    }
    assert!(promised > 0, "nothing was promised: the load did not reach the program");
    eprintln!("{promised} promised events are on the log, {} records, in order", records.len());
}
