//! What the tests of this crate share: a log in memory that can be told to fail, a clock that stands still, predictable entropy.
//!
//! **Invariant:** never part of a build that is not a test.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use broker::clock::{Clock, TestClock};
use broker::log::{
    AppendError, Appended, Health, Log, LogFuture, NewRecord, ReadError, ReadLimit, Record, SharedLog,
};
use schemas::partition;
use schemas::registry::Registry;
use schemas::time::Timestamp;
use schemas::topic::{Offset, Topic, TopicPartition};
use schemas::verdict::AckLevel;
use tokio::sync::{Notify, Semaphore};

use crate::entropy::{Entropy, Unavailable};
use crate::{Gateway, GatewayConfig, KeyConfig};

/// Partitions of every topic.
const PARTITIONS: u32 = 4;

/// When the tests happen.
pub(crate) const NOW: Timestamp = Timestamp(1_714_054_990_000);

/// A log in memory.
#[derive(Debug)]
pub(crate) struct MemoryLog {
    records: Mutex<HashMap<TopicPartition, Vec<Record>>>,
    order: Mutex<Vec<Record>>,
    failure: Mutex<Option<AppendError>>,
    /// An append waits for one permit.
    gate: Semaphore,
    grown: Notify,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self {
            records: Mutex::default(),
            order: Mutex::default(),
            failure: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            grown: Notify::new(),
        }
    }
}

impl MemoryLog {
    pub(crate) fn shared() -> SharedLog {
        Arc::new(Self::default())
    }

    /// From now on every append fails so; `None` ends that.
    pub(crate) fn fail(&self, error: Option<AppendError>) {
        *self.failure.lock().unwrap() = error;
    }

    /// From now on appends wait until [`Self::let_through`].
    pub(crate) fn hold_back(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets that many appends go on.
    pub(crate) fn let_through(&self, appends: usize) {
        self.gate.add_permits(appends);
    }

    /// Every record of a topic, in the order of writing.
    pub(crate) fn records(&self, topic: Topic) -> Vec<Record> {
        self.order.lock().unwrap().iter().filter(|record| record.at.topic == topic).cloned().collect()
    }
}

impl Log for MemoryLog {
    fn append(
        &self,
        batch: Vec<NewRecord>,
        want: AckLevel,
    ) -> LogFuture<'_, Result<Vec<Appended>, AppendError>> {
        Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            if let Some(error) = self.failure.lock().unwrap().clone() {
                return Err(error);
            }
            let mut records = self.records.lock().unwrap();
            let mut answer = Vec::new();
            for NewRecord { topic, key, partition, headers, value } in batch {
                let partition = partition.unwrap_or_else(|| partition::for_key(&key, PARTITIONS));
                let at = TopicPartition { topic, partition };
                let place = records.entry(at).or_default();
                let offset = Offset(place.len() as u64);
                let record = Record { at, offset, appended_at: NOW, key, headers, value };
                place.push(record.clone());
                self.order.lock().unwrap().push(record);
                answer.push(Appended { level: want.min(AckLevel::Disk), at: Some((partition, offset)) });
            }
            self.grown.notify_waiters();
            Ok(answer)
        })
    }

    fn read(
        &self,
        at: TopicPartition,
        from: Offset,
        limit: ReadLimit,
    ) -> LogFuture<'_, Result<Vec<Record>, ReadError>> {
        Box::pin(async move {
            let after = |from: Offset| -> Vec<Record> {
                let records = self.records.lock().unwrap();
                records
                    .get(&at)
                    .into_iter()
                    .flatten()
                    .filter(|record| record.offset >= from)
                    .cloned()
                    .collect()
            };
            let grown = self.grown.notified();
            let records = after(from);
            if !records.is_empty() {
                return Ok(records);
            }
            let _ = tokio::time::timeout(limit.max_wait, grown).await;
            Ok(after(from))
        })
    }

    fn start_offset(&self, _: TopicPartition) -> LogFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async { Ok(Offset(0)) })
    }

    fn end_offset(&self, at: TopicPartition) -> LogFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async move { Ok(Offset(self.records.lock().unwrap().get(&at).map_or(0, Vec::len) as u64)) })
    }

    fn partitions(&self, _: Topic) -> LogFuture<'_, Result<u32, ReadError>> {
        Box::pin(async { Ok(PARTITIONS) })
    }

    fn hold(&self, _: &str, _: TopicPartition, _: Offset) {}

    fn health(&self) -> Health {
        Health {
            admitting: self.failure.lock().unwrap().is_none(),
            disk: "ok".to_owned(),
            broker: "none".to_owned(),
            spooled_records: 0,
            spooled_bytes: 0,
            corrupted_records: 0,
            disk_bytes: 0,
        }
    }

    fn close(&self) -> LogFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Counts up; panics when told to.
#[derive(Debug, Default)]
pub(crate) struct TestEntropy {
    next: AtomicU64,
    pub(crate) panics: std::sync::atomic::AtomicBool,
}

impl Entropy for TestEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Unavailable> {
        assert!(!self.panics.load(Ordering::SeqCst), "told to");
        let number = self.next.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        bytes.fill(0);
        for (byte, digit) in bytes.iter_mut().rev().zip(number.into_iter().rev()) {
            *byte = digit;
        }
        Ok(())
    }
}

/// A gateway with what it stands on.
pub(crate) struct Stand {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) entropy: Arc<TestEntropy>,
}

/// The development keys, and some that differ.
pub(crate) fn keys() -> Vec<KeyConfig> {
    use crate::config::{IpPolicy, UnknownTypes};
    let mut keys = KeyConfig::development();
    let mut strict = keys[1].clone();
    strict.name = "strict".to_owned();
    strict.key = "sk_strict".to_owned();
    strict.unknown_types = UnknownTypes::Reject;
    strict.event_types = vec!["product_view".to_owned(), "unheard_of".to_owned()];
    strict.ip = IpPolicy::Keep;
    let mut careful = keys[1].clone();
    careful.name = "careful".to_owned();
    careful.key = "sk_careful".to_owned();
    careful.unknown_types = UnknownTypes::Quarantine;
    careful.ack = Some(AckLevel::Received);
    keys.extend([strict, careful]);
    keys
}

/// Starts a gateway.
pub(crate) fn stand(config: GatewayConfig) -> Stand {
    let log = Arc::new(MemoryLog::default());
    let clock = Arc::new(TestClock::new(NOW));
    let entropy = Arc::new(TestEntropy::default());
    let config = GatewayConfig { keys: keys(), ..config };
    let gateway = Gateway::with_entropy(
        config,
        Arc::clone(&log) as SharedLog,
        Arc::new(Registry::builtin()),
        clock as Arc<dyn Clock>,
        Arc::clone(&entropy) as Arc<dyn Entropy>,
    );
    Stand { gateway: gateway.unwrap(), log, entropy }
}

/// A record's value as a tree.
pub(crate) fn value(record: &Record) -> serde_json::Value {
    serde_json::from_slice(&record.value).unwrap()
}
