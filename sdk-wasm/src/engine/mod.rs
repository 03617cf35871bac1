//! The engine: state, and what each input does to it.
//!
//! **Invariant:** after every input the queue is pumped, the page told what changed, and one timer set for the next instant at
//! which something is due; so the host never polls.

mod receive;
mod send;

use alloc::string::String;
use alloc::vec::Vec;

use schemas::wire;

use crate::backoff::Backoff;
use crate::commands::Commands;
use crate::event;
use crate::id::{Entropy, EventId, Mint};
use crate::identity::{Identity, Session, is_json_string};
use crate::input::{Consent, Delivery, Input, Priority, Tracked};
use crate::queue::{Entry, Flight, Queue};
use crate::socket::{Phase, Socket};

/// Events of earlier pages and other tabs wait so long, because answers to them may still be on their way.
const RESTORE_MS: u64 = 300;
/// So many writes that failed are tried again with each event.
const PUT_AGAIN: usize = 4;
/// Largest event until the server names its limit.
const EVENT_BYTES: usize = 64 << 10;
/// Decisions remembered so that none is shown twice.
const DECISIONS: usize = 32;
/// Ids remembered that the page itself brought, so that none becomes two events.
const BROUGHT: usize = 256;

/// A request without answer yet.
#[derive(Clone, Copy, Debug)]
struct Request {
    number: u32,
    deadline: u64,
    live: bool,
}

/// The engine of one tab.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about the page")]
#[derive(Clone, Debug)]
pub struct Engine {
    key: String,
    sdk: String,
    started: bool,
    consent: Consent,
    leader: bool,
    online: bool,
    hidden: bool,
    mint: Mint,
    who: Identity,
    queue: Queue,
    socket: Socket,
    requests: Vec<Request>,
    next_request: u32,
    http_worked: bool,
    backoff: Backoff,
    event_bytes: usize,
    batch_bytes: usize,
    batch_events: usize,
    decisions: Vec<EventId>,
    brought: Vec<EventId>,
    last_now: u64,
    wake: Option<u64>,
    told_queue: (usize, u64),
    told_state: String,
    out: Commands,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            key: String::new(),
            sdk: String::new(),
            started: false,
            consent: Consent::Granted,
            leader: false,
            online: true,
            hidden: false,
            mint: Mint::default(),
            who: Identity::default(),
            queue: Queue::default(),
            socket: Socket::default(),
            requests: Vec::new(),
            next_request: 1,
            http_worked: false,
            backoff: Backoff::default(),
            event_bytes: EVENT_BYTES,
            batch_bytes: send::BATCH_BYTES,
            batch_events: send::BATCH_EVENTS,
            decisions: Vec::new(),
            brought: Vec::new(),
            last_now: 0,
            wake: None,
            told_queue: (0, 0),
            told_state: String::new(),
            out: Commands::default(),
        }
    }
}

impl Engine {
    /// Takes one input at `now` (milliseconds since 1970) and says what is to be done.
    pub fn step(&mut self, input: Input<'_>, now: u64, entropy: Entropy) -> Commands {
        if now < self.last_now {
            self.clock_went_back(now);
        }
        self.last_now = now;
        let [_, _, _, random] = entropy;
        match input {
            Input::Restored { key, value } => self.restored(key, value, now + RESTORE_MS),
            Input::Stored { key, value } => self.stored(key, value, now),
            Input::Start { key, sdk, socket, consent } => self.start(key, sdk, socket, consent),
            Input::PutFailed { key } => self.put_failed(key),
            Input::Cleared => self.put_everything(),
            Input::Track(event) => self.track(&event, now, entropy),
            Input::Identify { user_json, event } => {
                if self.consent != Consent::Denied && is_json_string(user_json) {
                    self.who.user_json = Some(user_json.into());
                    self.put_user();
                    self.track(&event, now, entropy);
                }
            }
            Input::Reset => self.reset(now, entropy),
            Input::Flush => {}
            Input::SocketOpen => self.socket_open(now),
            Input::SocketFrame(text) => self.frame(text, now, random),
            Input::SocketClosed => self.socket_ended(now, random),
            Input::Decision(json) => self.decision(json),
            Input::Http(answer) => self.http(&answer, now, random),
            Input::Timer => self.timer(now, random),
            Input::Online(online) => {
                if online && !self.online {
                    self.backoff.hurry();
                    self.socket.retry_at = 0;
                }
                self.online = online;
            }
            Input::Hide { gone } => self.hide(gone, now),
            Input::Show => self.show(),
            Input::Leader(leader) => self.leader = leader,
            Input::Consent(consent) => self.consent_given(consent),
        }
        self.pump(now);
        self.tell();
        self.set_timer(now);
        core::mem::take(&mut self.out)
    }

    fn start(&mut self, key: &str, sdk: &str, socket: bool, consent: Consent) {
        self.key = key.into();
        self.sdk = sdk.into();
        self.socket.allowed = socket;
        self.started = true;
        self.consent_given(consent);
    }

    fn restored(&mut self, key: &str, value: &str, not_before: u64) {
        match key {
            "a" => self.who.anonymous = EventId::parse(value).or(self.who.anonymous),
            "s" => self.who.session = Session::read(value).or(self.who.session),
            "u" => {
                if is_json_string(value) {
                    self.who.user_json = Some(value.into());
                }
            }
            _ => self.restored_event(key, value, not_before),
        }
    }

    /// An event in storage concerns only the tab that sends for all.
    fn restored_event(&mut self, key: &str, value: &str, not_before: u64) {
        let Some(id) = key.strip_prefix("e:").and_then(EventId::parse) else { return };
        if !self.leader {
            return;
        }
        let (priority, json) = match value.split_at_checked(1) {
            Some(("0", json)) => (Priority::BestEffort, json),
            Some(("2", json)) => (Priority::Critical, json),
            Some((_, json)) => (Priority::Normal, json),
            None => (Priority::Normal, ""),
        };
        if event::is_event(json, id) {
            self.enqueue(Entry {
                id,
                json: json.into(),
                priority,
                flight: Flight::Here,
                volatile: false,
                not_before,
            });
        } else {
            self.out.del_event(id);
            self.queue.discarded += 1;
        }
    }

    fn stored(&mut self, key: &str, value: Option<&str>, now: u64) {
        match (value, key.strip_prefix("e:").and_then(EventId::parse)) {
            (Some(value), _) => self.restored(key, value, now),
            (None, Some(id)) => {
                self.queue.remove(id);
            }
            (None, None) if key == "u" => self.who.user_json = None,
            (None, None) => {}
        }
    }

    fn track(&mut self, event: &Tracked<'_>, now: u64, entropy: Entropy) {
        if self.consent == Consent::Denied {
            return;
        }
        if let Some(id) = event.id
            && (self.queue.find(id).is_some() || !remember(&mut self.brought, id, BROUGHT))
        {
            self.out.tracked(id);
            return;
        }
        if self.who.anonymous.is_none() {
            let [first, second, third, fourth] = entropy;
            let device = self.mint.next(now, [second, fourth, first, third]);
            self.who.anonymous = Some(device);
            self.put_device();
        }
        self.put_again();
        let id = event.id.unwrap_or_else(|| self.mint.next(now, entropy));
        let (session, store) = self.who.touch(now, id);
        let json = event::json(id, &self.who, session, event);
        if json.len() > self.event_bytes {
            self.queue.discarded += 1;
            self.report("event.too_large", Some(id));
            return;
        }
        if store {
            self.put_session();
        }
        self.out.tracked(id);
        let entry = Entry {
            id,
            json,
            priority: event.priority,
            flight: Flight::Here,
            volatile: false,
            not_before: 0,
        };
        if self.consent == Consent::Granted {
            put_entry(&mut self.out, &entry);
        }
        self.enqueue(entry);
    }

    fn enqueue(&mut self, entry: Entry) {
        for gone in self.queue.add(entry) {
            self.out.del_event(gone);
        }
    }

    fn reset(&mut self, now: u64, entropy: Entropy) {
        self.who = Identity::default();
        self.out.del("u");
        self.out.del("s");
        if self.consent == Consent::Granted {
            let device = self.mint.next(now, entropy);
            self.who.anonymous = Some(device);
            self.put_device();
        }
    }

    fn consent_given(&mut self, consent: Consent) {
        let before = core::mem::replace(&mut self.consent, consent);
        match consent {
            Consent::Denied => {
                for entry in self.queue.clear() {
                    self.out.del_event(entry.id);
                }
                for key in ["a", "u", "s"] {
                    self.out.del(key);
                }
                self.who = Identity::default();
                self.close_socket();
            }
            Consent::Granted if before == Consent::Pending => self.put_everything(),
            Consent::Granted | Consent::Pending => {}
        }
    }

    fn put_device(&mut self) {
        if let Some(device) = self.who.anonymous
            && self.consent == Consent::Granted
        {
            device.push(self.out.put("a"));
        }
    }

    fn put_user(&mut self) {
        if let Some(user) = &self.who.user_json
            && self.consent == Consent::Granted
        {
            self.out.put("u").push_str(user);
        }
    }

    fn put_session(&mut self) {
        if let Some(session) = self.who.session
            && self.consent == Consent::Granted
        {
            session.write(self.out.put("s"));
        }
    }

    fn put_failed(&mut self, key: &str) {
        if let Some(id) = key.strip_prefix("e:").and_then(EventId::parse)
            && let Some(entry) = self.queue.find(id)
        {
            entry.volatile = true;
        }
    }

    /// What could not be written may find room now.
    fn put_again(&mut self) {
        if self.consent == Consent::Granted {
            for entry in self.queue.iter_mut().filter(|entry| entry.volatile).take(PUT_AGAIN) {
                entry.volatile = false;
                put_entry(&mut self.out, entry);
            }
        }
    }

    fn put_everything(&mut self) {
        if self.consent == Consent::Granted {
            self.put_device();
            self.put_user();
            self.put_session();
            for entry in self.queue.iter_mut() {
                entry.volatile = false;
                put_entry(&mut self.out, entry);
            }
        }
    }

    fn report(&mut self, code: &str, id: Option<EventId>) {
        let json = self.out.deliver(Delivery::Error);
        json.push_str(r#"{"code":"#);
        wire::push_string(json, code);
        if let Some(id) = id {
            json.push_str(r#","event_id":""#);
            id.push(json);
            json.push('"');
        }
        json.push('}');
    }

    /// Tells the page what has changed.
    fn tell(&mut self) {
        let queue = (self.queue.len(), self.queue.discarded);
        if queue != self.told_queue {
            self.told_queue = queue;
            let json = self.out.deliver(Delivery::Queue);
            for (name, number) in [
                (r#"{"events":"#, queue.0 as u64),
                (r#","bytes":"#, self.queue.bytes() as u64),
                (r#","discarded":"#, queue.1),
            ] {
                json.push_str(name);
                wire::push_u64(json, number);
            }
            json.push('}');
        }
        if !self.started {
            return;
        }
        let mut state = String::from(r#"{"connection":""#);
        state.push_str(self.connection());
        if let Some(device) = self.who.anonymous {
            state.push_str(r#"","anonymous_id":""#);
            device.push(&mut state);
        }
        state.push('"');
        if let Some(user) = &self.who.user_json {
            state.push_str(r#","user_id":"#);
            state.push_str(user);
        }
        state.push('}');
        if state != self.told_state {
            self.out.deliver(Delivery::State).push_str(&state);
            self.told_state = state;
        }
    }

    /// How events travel at present.
    fn connection(&self) -> &'static str {
        match () {
            () if self.consent != Consent::Granted => "held",
            () if !self.online => "offline",
            () if self.socket.phase == Phase::Ready => "socket",
            () if self.backoff.failures >= crate::backoff::BREAKER_FAILURES => "blocked",
            () if self.backoff.failures > 0 => "waiting",
            () if !self.leader => "follower",
            () if self.http_worked => "http",
            () => "connecting",
        }
    }

    /// Waits that were counted on a clock that ran ahead would last too long.
    fn clock_went_back(&mut self, now: u64) {
        self.backoff.clock(now);
        self.socket.since = self.socket.since.min(now);
        self.socket.sent = self.socket.sent.min(now);
        self.socket.retry_at = self.socket.retry_at.min(now + crate::backoff::LONGEST_WAIT_MS);
        for (_, sent) in &mut self.socket.unanswered {
            *sent = now.min(*sent);
        }
        for request in &mut self.requests {
            request.deadline = request.deadline.min(now + send::REQUEST_MS);
        }
        for entry in self.queue.iter_mut() {
            entry.not_before = entry.not_before.min(now);
        }
        self.wake = None;
    }
}

/// Adds an id to those known, of which so many are kept; `false` if it is one of them.
fn remember(known: &mut Vec<EventId>, id: EventId, most: usize) -> bool {
    if known.contains(&id) {
        return false;
    }
    if known.len() >= most {
        known.remove(0);
    }
    known.push(id);
    true
}

fn put_entry(out: &mut Commands, entry: &Entry) {
    let value = out.put_event(entry.id);
    value.push_str(match entry.priority {
        Priority::BestEffort => "0",
        Priority::Normal => "1",
        Priority::Critical => "2",
    });
    value.push_str(&entry.json);
}
