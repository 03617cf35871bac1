//! A log in memory, events to put on it, and an oracle: the core folded over the log by one thread.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::format_push_string,
    reason = "each test binary uses a part of it"
)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use broker::clock::TestClock;
use broker::log::{NewRecord, Record};
use broker::testing::{Effect, Machine, MemoryLog};
use bytes::Bytes;
use processor::control::ControlKey;
use processor::store::memory::MemoryStore;
use processor::store::{Pair, Space, StateStore, StoreError, WriteBatch};
use processor::{Model, Processor, ProcessorConfig, Ruleset};
use processor_core::session::Settings;
use processor_core::{Control, EventInput, Input, Profile, Program, step};
use schemas::event::LoggedEvent;
use schemas::id::{DecisionId, EventId, ProfileKey, SourceName};
use schemas::json::{self, Limits};
use schemas::receipt::{Receipt, Trust};
use schemas::time::Timestamp;
use schemas::token::Secrets;
use schemas::topic::{PartitionId, Topic};

/// 2026-01-01T12:00:00Z
pub const NOON: i64 = 1_767_268_800_000;
pub const MINUTE: i64 = 60_000;
pub const SECRET: &str = "sk_test";
pub const RULES: &str = "
rules:
  - name: category_interest
    on: product_view
    when: { count: product_view, by: metadata.category, within: 30m, at_least: 3 }
    cooldown: 24h
    decide: { slot: home_banner, payload: { title: \"Still looking at {category}?\" } }
  - name: clicks
    on: click
    when: { count: click, within: 5m, at_least: 2 }
    decide: { slot: click }
";
pub const MODEL: &str = r#"{"bias":-1,"features":[{"name":"counter.product_view","weight":0.3}]}"#;

/// When the machine dies: counts write operations down; then nothing works until it is switched on again.
#[derive(Debug, Default)]
pub struct Chaos {
    left: AtomicI64,
    dead: AtomicBool,
    /// The operation that dies has still its effect.
    after: AtomicBool,
    /// The operation fails, but nothing dies of it.
    once: AtomicBool,
}

impl Chaos {
    pub fn arm(&self, operations: i64, after: bool) {
        self.left.store(operations, Ordering::SeqCst);
        self.after.store(after, Ordering::SeqCst);
        self.dead.store(false, Ordering::SeqCst);
    }
    pub fn fail_once(&self, operations: i64, after: bool) {
        self.once.store(true, Ordering::SeqCst);
        self.arm(operations, after);
    }
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
    /// Whether an operation has its effect, and whether its caller hears of it.
    fn write(&self) -> (bool, bool) {
        if self.is_dead() {
            return (false, false);
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) != 0 {
            return (true, true);
        }
        self.dead.store(!self.once.load(Ordering::SeqCst), Ordering::SeqCst);
        (self.after.load(Ordering::SeqCst), false)
    }
}

impl Machine for Chaos {
    fn on_append(&self) -> Effect {
        match self.write() {
            (true, true) => Effect::Heard,
            (true, false) => Effect::Unheard,
            (false, _) => Effect::Lost,
        }
    }
    fn is_dead(&self) -> bool {
        Self::is_dead(self)
    }
}

pub fn log(partitions: u32, chaos: &Arc<Chaos>) -> Arc<MemoryLog> {
    chaos.arm(i64::MAX, false);
    Arc::new(MemoryLog::new(partitions, Timestamp(NOON)).on(Arc::clone(chaos) as _))
}

/// A store that dies with the machine.
#[derive(Debug, Default)]
pub struct MortalStore {
    pub inner: MemoryStore,
    pub chaos: Arc<Chaos>,
}

impl MortalStore {
    fn alive<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let (done, heard) = self.chaos.write();
        let result = if done { Some(work()) } else { None };
        match result {
            Some(result) if heard => result,
            _ => Err(StoreError::Unavailable("dead".to_owned())),
        }
    }
}

impl StateStore for MortalStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(space, key)
    }
    fn scan(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.inner.scan(space, from, to, limit)
    }
    fn commit(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.alive(|| self.inner.commit(batch))
    }
    fn persist(&self) -> Result<(), StoreError> {
        self.alive(|| self.inner.persist())
    }
}

pub fn program() -> Program {
    Program {
        rules: Ruleset::parse(RULES, "rules.yaml").unwrap(),
        model: Model::parse(MODEL.as_bytes()).unwrap(),
        sessions: Settings::default(),
    }
}

pub async fn start(log: &Arc<MemoryLog>, store: Arc<dyn StateStore>, clock: &Arc<TestClock>) -> Processor {
    let config =
        ProcessorConfig { control_key: Some(ControlKey::new("key")), ..ProcessorConfig::new("unused") };
    let program = program();
    let (log, clock) = (Arc::clone(log) as _, Arc::clone(clock) as _);
    let secrets = Secrets::from_iter([SECRET]);
    Processor::start_with(
        config,
        store,
        log,
        Arc::new(program.rules),
        Arc::new(program.model),
        secrets,
        clock,
    )
    .await
    .unwrap()
}

/// Waits until nothing is left to do, or the machine died.
pub async fn settled(processor: &Processor, log: &MemoryLog) -> bool {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let mut before = None;
    loop {
        if log.is_dead() {
            return false;
        }
        let ends = log.ends(Topic::Events);
        let done =
            processor.status().await.iter().zip(&ends).all(|(status, end)| status.next_offset.0 == *end);
        if done && before.as_ref() == Some(&ends) && log.ends(Topic::Events) == ends {
            return true;
        }
        before = done.then_some(ends);
        assert!(tokio::time::Instant::now() < deadline, "not settled: {:?}", processor.status().await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[derive(Clone, Debug)]
pub struct Event {
    pub id: u128,
    pub at: i64,
    pub received: i64,
    pub user: Option<String>,
    pub device: Option<String>,
    pub kind: &'static str,
    pub metadata: String,
    pub trust: Trust,
    pub source: &'static str,
}

impl Event {
    pub fn new(id: u128, at: i64, user: &str, kind: &'static str, metadata: &str) -> Self {
        Self {
            id,
            at,
            received: at,
            user: Some(user.to_owned()),
            device: None,
            kind,
            metadata: metadata.to_owned(),
            trust: Trust::Public,
            source: "web",
        }
    }

    pub fn event_id(&self) -> EventId {
        EventId::from_bytes(self.id.to_be_bytes())
    }

    pub fn record(&self) -> NewRecord {
        let mut head = format!(r#"{{"event_id":"{}","event_type":"{}""#, self.event_id(), self.kind);
        for (name, id) in [("user_id", &self.user), ("anonymous_id", &self.device)] {
            if let Some(id) = id {
                head += &format!(r#","{name}":"{id}""#);
            }
        }
        head += &format!(r#","metadata":{}}}"#, self.metadata);
        let receipt = Receipt {
            event_id: self.event_id(),
            received_at: Timestamp(self.received),
            occurred_at: Timestamp(self.at),
            source: SourceName::new(self.source),
            schema: None,
            trust: self.trust,
            ip: None,
            user_agent: None,
            original_event_id: None,
            clamped_from: None,
            schema_fault: None,
            redacted: Vec::new(),
        };
        let key = self.user.clone().or_else(|| self.device.clone()).unwrap_or_default();
        raw(&key, receipt.splice(head.as_bytes()))
    }
}

pub fn raw(key: &str, value: impl Into<Bytes>) -> NewRecord {
    NewRecord {
        topic: Topic::Events,
        key: Bytes::copy_from_slice(key.as_bytes()),
        partition: None,
        headers: broker::headers::Headers::new(),
        value: value.into(),
    }
}

/// What must be there after the log.
#[derive(Debug, Default)]
pub struct Oracle {
    pub profiles: BTreeMap<String, Profile>,
    pub decisions: HashSet<DecisionId>,
}

/// The core folded over the log, by one thread, without a store.
pub fn oracle(log: &MemoryLog) -> Oracle {
    let program = program();
    let mut all = Oracle::default();
    for partition in 0..u32::try_from(log.ends(Topic::Events).len()).unwrap() {
        let records: Vec<Record> = log
            .records(Topic::Events)
            .into_iter()
            .filter(|record| record.at.partition == PartitionId(partition))
            .collect();
        let (mut now, mut seen) = (Timestamp(0), HashSet::new());
        let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
        for record in &records {
            let event = LoggedEvent::read(&record.value, Limits::default()).unwrap();
            now = now.max(event.receipt.received_at);
            let control: Option<Control> = event.event_type.as_str().starts_with("rivulet.").then(|| {
                let members = json::object(&record.value, Limits::default()).unwrap();
                let text = members.iter().find(|member| member.name == "control").unwrap().text().unwrap();
                serde_json::from_str(&text).unwrap()
            });
            let key = match &control {
                Some(control) => control.subject().cloned(),
                None => event.profile_key(),
            };
            let scope =
                (key.as_ref().map(ToString::to_string), event.receipt.source.clone(), event.receipt.event_id);
            let Some(key) = key.filter(|_| seen.insert(scope)) else { continue };
            let profile = profiles.entry(key.to_string()).or_insert_with(|| Profile::new(key));
            let out = match &control {
                Some(control) => step(&program, profile, Input::Control(control), now),
                None => step(&program, profile, Input::Event(&EventInput::new(&event)), now),
            };
            all.decisions.extend(out.decisions.iter().map(|decision| decision.decision_id));
        }
        for profile in profiles.values_mut() {
            step(&program, profile, Input::Timer, now);
        }
        all.profiles.extend(profiles);
    }
    all
}

pub fn stored_profiles(store: &MemoryStore) -> BTreeMap<String, Profile> {
    let decode = |(_, bytes): Pair| processor_core::profile::encode::decode(&bytes).unwrap();
    store
        .dump(Space::Profile)
        .into_iter()
        .map(decode)
        .map(|profile| (profile.key.to_string(), profile))
        .collect()
}

pub fn decision_ids(log: &MemoryLog) -> Vec<DecisionId> {
    let id = |record: Record| {
        serde_json::from_slice::<schemas::decision::Decision>(&record.value).unwrap().decision_id
    };
    log.records(Topic::Decisions).into_iter().map(id).collect()
}

pub fn user(id: &str) -> ProfileKey {
    ProfileKey::parse(&format!("user:{id}")).unwrap()
}
