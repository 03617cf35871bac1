//! A model of everything that can go wrong around the engine: lost, doubled and reordered messages, sockets cut, strangers
//! answering, full storage, reloads, two tabs, a network that comes and goes. Every schedule follows from its seed.
//!
//! **Invariant checked:** no event is removed before the gateway has it (or has refused it), and when the world heals every
//! event that was tracked ends on the log and nothing is left in storage.

use std::collections::{BTreeMap, BTreeSet};

use sdk_wasm::{Channel, Command, Consent, Engine, Input, Millis, Mint, Priority, Tracked, host, packed};
use serde_json::{Value, json};

use crate::traces::Step;

/// A small generator with a seed (PCG's output of a linear congruence).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let upper = (self.0 >> 32) as u32;
        upper ^ (upper >> 15)
    }

    fn below(&mut self, n: u32) -> u32 {
        self.next() % n
    }

    fn pick(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }
}

/// A message on its way.
#[derive(Clone, Debug)]
enum Message {
    /// To the gateway, on the socket of this number.
    Frame(u32, String),
    /// To the tab, on the socket of this number.
    Reply(u32, String),
    /// A request of a tab's life.
    Request { tab: usize, life: u32, request: u32, body: String },
    /// Its answer.
    Answer { tab: usize, life: u32, request: u32, status: u32, body: String },
}

struct Tab {
    engine: Engine,
    life: u32,
    socket: Option<u32>,
    timer: Option<Millis>,
    /// Events that storage refused and that only memory holds.
    volatile: BTreeSet<String>,
}

/// How the way to the gateway is.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Weather {
    Fine,
    Refusing,
    Stranger,
    Dead,
}

pub(crate) struct World {
    random: Random,
    now: Millis,
    mint: Mint,
    /// What the first tab's engine was told and said, until its process was killed.
    pub(crate) record: Vec<Step>,
    tabs: Vec<Tab>,
    leader: usize,
    storage: BTreeMap<String, String>,
    storage_full: bool,
    wire: Vec<Message>,
    weather: Weather,
    pub(crate) log: BTreeMap<String, u32>,
    refused: BTreeSet<String>,
    pub(crate) tracked: BTreeSet<String>,
    excused: BTreeSet<String>,
    sockets: u32,
    answered: BTreeMap<u32, u64>,
    closed: BTreeSet<u32>,
    seed: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            now: 1_764_000_000_000.0,
            mint: Mint::default(),
            record: Vec::new(),
            tabs: Vec::new(),
            leader: 0,
            storage: BTreeMap::new(),
            storage_full: false,
            wire: Vec::new(),
            weather: Weather::Fine,
            log: BTreeMap::new(),
            refused: BTreeSet::new(),
            tracked: BTreeSet::new(),
            excused: BTreeSet::new(),
            sockets: 0,
            answered: BTreeMap::new(),
            closed: BTreeSet::new(),
            seed,
        };
        for tab in 0..2 {
            world.tabs.push(Tab {
                engine: Engine::default(),
                life: 0,
                socket: None,
                timer: None,
                volatile: BTreeSet::new(),
            });
            world.load(tab);
        }
        world
    }

    fn load(&mut self, tab: usize) {
        for key in ["a", "u", "s"] {
            if let Some(value) = self.storage.get(key).cloned() {
                self.step(tab, Input::Restored { key, value: &value });
            }
        }
        self.step(tab, Input::Start { socket: true, consent: Consent::Granted });
        if self.leader == tab {
            self.lead(tab);
        }
    }

    fn lead(&mut self, tab: usize) {
        self.step(tab, Input::Leader(true));
        let events: Vec<_> = self
            .storage
            .iter()
            .filter(|(key, _)| key.starts_with("e:"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        for (key, value) in events {
            self.step(tab, Input::Restored { key: &key, value: &value });
        }
    }

    fn step(&mut self, tab: usize, input: Input<'_>) {
        self.step_packed(tab, packed::write(&input));
    }

    fn step_packed(&mut self, tab: usize, input: String) {
        let random = self.random.next();
        let commands = self.tabs[tab].engine.step_packed(&input, self.now, random);
        if tab == 0 && self.tabs[tab].life == 0 {
            let commands = commands.as_str().into();
            self.record.push(Step { input, now: self.now, random, commands });
        }
        for command in commands.iter() {
            self.obey(tab, command);
        }
    }

    fn obey(&mut self, tab: usize, command: Command<'_>) {
        let life = self.tabs[tab].life;
        match command {
            Command::Put { key, value } => {
                if self.storage_full {
                    if let Some(id) = key.strip_prefix("e:") {
                        self.tabs[tab].volatile.insert(id.into());
                    }
                    self.step(tab, Input::PutFailed { key });
                } else {
                    if let Some(id) = key.strip_prefix("e:") {
                        self.tabs[tab].volatile.remove(id);
                    }
                    self.storage.insert(key.into(), value.into());
                    self.step(1 - tab, Input::Stored { key, value: Some(value) });
                }
            }
            Command::Del { key } => {
                if let Some(id) = key.strip_prefix("e:") {
                    let right = self.log.contains_key(id) || self.refused.contains(id);
                    assert!(right, "seed {}: {id} was removed and is nowhere", self.seed);
                    self.tabs[tab].volatile.remove(id);
                }
                self.storage.remove(key);
                self.step(1 - tab, Input::Stored { key, value: None });
            }
            Command::Purge => panic!("seed {}: nobody withdrew consent", self.seed),
            Command::OpenSocket => {
                self.sockets += 1;
                self.tabs[tab].socket = Some(self.sockets);
                self.wire.push(Message::Frame(self.sockets, String::new()));
            }
            Command::SendSocket(text) => {
                let socket = self.tabs[tab].socket.expect("a socket");
                self.wire.push(Message::Frame(socket, text.into()));
            }
            Command::CloseSocket => self.tabs[tab].socket = None,
            Command::SendHttp { request, body, channel } => {
                let size = body.len();
                assert!(
                    channel == Channel::Live || size <= 65_536,
                    "seed {}: {size} bytes for the pool",
                    self.seed
                );
                self.wire.push(Message::Request { tab, life, request, body: body.into() });
            }
            Command::SetTimer(millis) => {
                assert!(millis >= 1.0, "seed {}: a timer for now", self.seed);
                self.tabs[tab].timer = Some(self.now + millis);
            }
            Command::Deliver(_, json) => {
                serde_json::from_str::<Value>(json).unwrap_or_else(|_| panic!("seed {}: {json}", self.seed));
            }
        }
    }

    /// The gateway takes a batch; verdicts in order, now and then "later", rarely a refusal.
    fn take(&mut self, body: &str) -> Value {
        let body: Value =
            serde_json::from_str(body).unwrap_or_else(|_| panic!("seed {}: not JSON: {body}", self.seed));
        let mut verdicts = Vec::new();
        for event in body["events"].as_array().expect("events") {
            let id = event["event_id"].as_str().expect("an id").to_owned();
            let status = match self.random.below(20) {
                0 if self.weather != Weather::Fine => "retry",
                1 if !self.log.contains_key(&id) => {
                    self.refused.insert(id.clone());
                    "rejected"
                }
                _ => {
                    let times = self.log.entry(id.clone()).or_default();
                    *times += 1;
                    if *times > 1 { "duplicate" } else { "accepted" }
                }
            };
            verdicts.push(json!({"event_id": id, "status": status}));
        }
        Value::Array(verdicts)
    }

    fn arrive(&mut self, message: Message) {
        match message {
            Message::Frame(socket, text) => self.gateway_frame(socket, &text),
            Message::Reply(socket, text) => {
                let Some(tab) = self.tabs.iter().position(|tab| tab.socket == Some(socket)) else { return };
                match text.as_str() {
                    "open" => {
                        self.wire.push(Message::Frame(socket, json!({"type": "hello"}).to_string()));
                        self.step(tab, Input::SocketOpen);
                    }
                    "close" => {
                        self.tabs[tab].socket = None;
                        self.step(tab, Input::SocketClosed);
                    }
                    _ => {
                        let input = host::frame(&text, packed::write);
                        self.step_packed(tab, input);
                    }
                }
            }
            Message::Request { tab, life, request, body } => {
                let (status, body) = match self.weather {
                    Weather::Fine => (200, json!({"events": self.take(&body)}).to_string()),
                    Weather::Refusing => {
                        (503, r#"{"error":{"code":"log.unavailable","message":"later"}}"#.into())
                    }
                    Weather::Stranger => {
                        let strange = [
                            "<html>log in</html>",
                            "{}",
                            "",
                            r#"{"events":[]}"#,
                            r#"{"events":[{"event_id":"018f15a3-75a3-77ff-bfff-ffffffffffff","status":"accepted"}]}"#,
                        ];
                        (200, strange[self.random.pick(strange.len())].into())
                    }
                    Weather::Dead => (0, String::new()),
                };
                self.wire.push(Message::Answer { tab, life, request, status, body });
            }
            Message::Answer { tab, life, request, status, body } => {
                if self.tabs[tab].life == life {
                    let input = host::answer(request, status, 0.0, &body, packed::write);
                    self.step_packed(tab, input);
                }
            }
        }
    }

    fn gateway_frame(&mut self, socket: u32, text: &str) {
        if self.closed.contains(&socket) {
            return;
        }
        if self.weather != Weather::Fine {
            self.closed.insert(socket);
            self.wire.push(Message::Reply(socket, "close".into()));
            return;
        }
        if text.is_empty() {
            self.wire.push(Message::Reply(socket, "open".into()));
            return;
        }
        let frame: Value =
            serde_json::from_str(text).unwrap_or_else(|_| panic!("seed {}: not JSON: {text}", self.seed));
        let reply = match frame["type"].as_str() {
            Some("hello") => {
                json!({"type": "hello", "session": "s", "resumed": 0, "credit": 1 + self.random.below(3), "server_time": 1})
            }
            Some("batch") => {
                let seq = frame["seq"].as_u64().expect("a number");
                let last = self.answered.insert(socket, seq).unwrap_or(0);
                assert_eq!(seq, last + 1, "seed {}: batches out of order", self.seed);
                json!({"type": "ack", "seq": seq, "cumulative": seq, "credit": 2, "server_time": 1, "events": self.take(text)})
            }
            _ => json!({"type": "pong", "server_time": 1}),
        };
        self.wire.push(Message::Reply(socket, reply.to_string()));
    }

    /// Moves a message: what is on one socket stays in order, requests overtake each other.
    fn deliver(&mut self) {
        if self.wire.is_empty() {
            return;
        }
        let at = self.random.pick(self.wire.len());
        let at = match &self.wire[at] {
            Message::Frame(socket, _) => {
                self.wire.iter().position(|other| matches!(other, Message::Frame(one, _) if one == socket))
            }
            Message::Reply(socket, _) => {
                self.wire.iter().position(|other| matches!(other, Message::Reply(one, _) if one == socket))
            }
            _ => Some(at),
        };
        let message = self.wire.remove(at.expect("there is one"));
        self.arrive(message);
    }

    fn track(&mut self, tab: usize) {
        let priority = [Priority::BestEffort, Priority::Normal, Priority::Critical][self.random.pick(3)];
        let length = if self.random.below(8) == 0 { 4_000 } else { 100 };
        let metadata = format!(r#"{{"x":"{}"}}"#, "y".repeat(length));
        let words = [self.random.next(), self.random.next(), self.random.next()];
        let id = self.mint.next(self.now, words);
        self.tracked.insert(id.clone());
        let json = format!(r#""event_type":"product_view","metadata":{metadata}"#);
        let event = Tracked { priority, id: &id, json: &json };
        if self.random.below(20) == 0 {
            self.step(tab, Input::Identify { user_json: "\"u1\"", event });
        } else {
            self.step(tab, Input::Track(event));
        }
    }

    fn pass(&mut self, millis: Millis) {
        self.now += millis;
        for tab in 0..self.tabs.len() {
            if self.tabs[tab].timer.is_some_and(|at| at <= self.now) {
                self.tabs[tab].timer = None;
                self.step(tab, Input::Timer);
            }
        }
    }

    /// The process is gone: memory with it, storage stays.
    fn crash(&mut self, tab: usize) {
        let gone = core::mem::take(&mut self.tabs[tab].volatile);
        self.excused.extend(gone);
        let life = self.tabs[tab].life + 1;
        self.tabs[tab] =
            Tab { engine: Engine::default(), life, socket: None, timer: None, volatile: BTreeSet::new() };
        self.load(tab);
    }

    fn hand_over(&mut self) {
        let old = self.leader;
        self.leader = 1 - old;
        self.lead(self.leader);
        self.step(old, Input::Leader(false));
    }

    pub(crate) fn misfortune(&mut self) {
        let tab = self.random.pick(2);
        match self.random.below(40) {
            0..=9 => self.track(tab),
            10..=21 => self.deliver(),
            22..=26 => {
                let millis = f64::from(self.random.below(20_000));
                self.pass(millis);
            }
            27 => {
                let request =
                    |message: &Message| matches!(message, Message::Request { .. } | Message::Answer { .. });
                if let Some(at) = self.wire.iter().position(request) {
                    self.wire.remove(at);
                }
            }
            28 => {
                let again =
                    self.wire.iter().find(|message| matches!(message, Message::Request { .. })).cloned();
                self.wire.extend(again);
            }
            29 | 30 => {
                if let Some(socket) = self.tabs[tab].socket.take() {
                    self.wire.retain(|message| !matches!(message, Message::Frame(other, _) | Message::Reply(other, _) if *other == socket));
                    self.step(tab, Input::SocketClosed);
                }
            }
            31 => self.crash(tab),
            32 => self.hand_over(),
            33 | 34 => {
                self.weather =
                    [Weather::Fine, Weather::Refusing, Weather::Stranger, Weather::Dead][self.random.pick(4)];
            }
            35 => {
                let online = self.random.below(2) == 0;
                self.step(tab, Input::Online(online));
            }
            36 => self.step(tab, Input::Hide { gone: false }),
            37 => {
                self.step(tab, Input::Hide { gone: true });
                self.step(tab, Input::Show);
            }
            38 => self.storage_full = !self.storage_full,
            _ => self.step(tab, Input::Show),
        }
    }

    /// Everything works again; time passes until nothing is left to do.
    pub(crate) fn heal(&mut self) {
        self.weather = Weather::Fine;
        self.storage_full = false;
        for tab in 0..2 {
            self.step(tab, Input::Online(true));
            self.step(tab, Input::Show);
        }
        for _ in 0..4_000 {
            while !self.wire.is_empty() {
                self.deliver();
            }
            let waiting = self.storage.keys().any(|key| key.starts_with("e:"))
                || self.tabs.iter().any(|tab| !tab.volatile.is_empty());
            if !waiting {
                break;
            }
            self.pass(1_000.0);
        }
        let left: Vec<_> = self.storage.keys().filter(|key| key.starts_with("e:")).collect();
        assert!(left.is_empty(), "seed {}: left in storage after an hour: {left:?}", self.seed);
        for id in &self.tracked {
            let safe = self.log.contains_key(id) || self.refused.contains(id) || self.excused.contains(id);
            assert!(safe, "seed {}: {id} is lost", self.seed);
        }
    }
}
