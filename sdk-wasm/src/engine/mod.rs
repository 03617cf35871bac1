//! The engine: state, and what each input does to it.
//!
//! **Invariant:** after every input the queue is pumped, the page told what changed, and one timer set for the next instant at
//! which something is due; so the host never polls.

mod receive;
mod send;
mod tell;

use alloc::string::String;
use alloc::vec::Vec;

use crate::backoff::{Backoff, LONGEST_WAIT_MS, sooner};
use crate::commands::Commands;
use crate::event;
use crate::identity::{Identity, is_json_string};
use crate::input::{Consent, Input, Millis, Priority, Tracked};
use crate::losses::{Losses, Why};
use crate::packed::{self, consent, next, number, tracked};
use crate::queue::{Entry, Flight, Queue, take_at};
use crate::socket::{Phase, Socket};

/// Events of earlier pages and other tabs wait so long, because answers to them may still be on their way.
const RESTORE_MS: Millis = 300.0;
/// So many writes that failed are tried again with each event.
const PUT_AGAIN: usize = 4;
/// Largest event until the server names its limit.
const EVENT_BYTES: usize = 64 << 10;
/// Decisions remembered so that none is shown twice.
const DECISIONS: usize = 32;
/// Events remembered so that an id that the page brings twice is one event.
const TRACKED: usize = 256;

/// A batch without answer yet.
#[derive(Clone, Copy, Debug)]
struct Request {
    flight: Flight,
    deadline: Millis,
    live: bool,
}

/// The engine of one tab.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about the page")]
#[derive(Clone, Debug)]
pub struct Engine {
    started: bool,
    consent: Consent,
    leader: bool,
    online: bool,
    hidden: bool,
    /// The page is being left.
    gone: bool,
    /// What is left of the browser's pool for requests that outlive the page.
    pool: usize,
    who: Identity,
    queue: Queue,
    losses: Losses,
    /// How many events were dropped for lack of room, age or size.
    discarded: u32,
    socket: Socket,
    requests: Vec<Request>,
    next_request: u32,
    http_worked: bool,
    backoff: Backoff,
    event_bytes: usize,
    batch_bytes: usize,
    batch_events: usize,
    decisions: Vec<String>,
    tracked: Vec<String>,
    last_now: Millis,
    wake: Millis,
    told_queue: (usize, u32),
    told_state: String,
    out: Commands,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            started: false,
            consent: Consent::Granted,
            leader: false,
            online: true,
            hidden: false,
            gone: false,
            pool: 0,
            who: Identity::default(),
            queue: Queue::default(),
            losses: Losses::default(),
            discarded: 0,
            socket: Socket::default(),
            requests: Vec::new(),
            next_request: 1,
            http_worked: false,
            backoff: Backoff::default(),
            event_bytes: EVENT_BYTES,
            batch_bytes: send::BATCH_BYTES,
            batch_events: send::BATCH_EVENTS,
            decisions: Vec::new(),
            tracked: Vec::new(),
            last_now: 0.0,
            wake: f64::INFINITY,
            told_queue: (0, 0),
            told_state: String::new(),
            out: Commands::default(),
        }
    }
}

impl Engine {
    /// Takes one input at `now` (since 1970), with a random word, and says what is to be done.
    pub fn step(&mut self, input: &Input<'_>, now: Millis, random: u32) -> Commands {
        self.step_packed(&packed::write(input), now, random)
    }

    /// The same for the text form of an input. Unreadable ones do nothing.
    pub fn step_packed(&mut self, input: &str, now: Millis, random: u32) -> Commands {
        if now < self.last_now {
            self.clock_went_back(now);
        }
        self.last_now = now;
        self.take_in(input, now, random);
        self.pump(now);
        self.tell();
        self.set_timer(now);
        core::mem::take(&mut self.out)
    }

    fn take_in(&mut self, input: &str, now: Millis, random: u32) {
        let rest = &mut Some(input);
        match next(rest).bytes().next().unwrap_or_default() {
            b'R' => self.restored(next(rest), next(rest), now + RESTORE_MS),
            b'S' => self.stored(next(rest), *rest, now),
            b'I' => {
                self.socket.allowed = flag(rest);
                self.started = true;
                self.consent_given(consent(next(rest)));
            }
            b'P' => self.put_failed(next(rest)),
            b'X' => self.put_everything(),
            b'T' => self.track(&tracked(rest), now),
            b'U' => self.identify(next(rest), rest, now),
            b'Z' => self.reset(next(rest)),
            b'o' if self.socket.phase == Phase::Opening => {
                self.socket.phase = Phase::Greeting;
                self.socket.since = now;
            }
            b'g' => self.greeted(rest, now),
            b'a' => self.ack(rest, now, random),
            b'w' => self.backoff.pause(now, number(next(rest))),
            b'e' => self.refused(next(rest), now, random),
            b'y' => self.heard(now),
            b'c' => self.socket_ended(now, random),
            b'd' => self.decision(next(rest), next(rest), now),
            b'A' => self.http(rest, now, random),
            b't' => self.timer(now, random),
            b'n' => {
                let online = flag(rest);
                if online && !self.online {
                    self.backoff.until = 0.0;
                    self.socket.retry_at = 0.0;
                }
                self.online = online;
            }
            b'h' => self.hide(flag(rest), now),
            b'v' => self.show(),
            b'L' => self.leader = flag(rest),
            b'C' => self.consent_given(consent(next(rest))),
            _ => {}
        }
    }

    fn restored(&mut self, key: &str, value: &str, not_before: Millis) {
        match key {
            "a" => self.who.device = value.into(),
            "s" => self.who.read_session(value),
            "u" => {
                if is_json_string(value) {
                    self.who.user_json = value.into();
                }
            }
            // Events and losses in storage concern only the tab that sends for all.
            _ if !self.leader => {}
            _ => match (key.strip_prefix("e:"), key.strip_prefix("d:")) {
                (Some(id), _) => self.restored_event(id, value, not_before),
                (_, Some(id)) => self.losses.restored(id, value),
                _ => {}
            },
        }
    }

    /// The stored form: rank, time in digits, JSON.
    fn restored_event(&mut self, id: &str, value: &str, not_before: Millis) {
        let json = value.get(value.bytes().position(|byte| byte == b'{').unwrap_or_default()..);
        let json = json.unwrap_or_default();
        if !event::is_event(json, id) {
            self.out.del_of("e:", id);
            self.discarded += 1;
        } else if self.queue.find(id).is_none() {
            self.queue.add(Entry {
                json: json.into(),
                priority: packed::priority(value.get(..1).unwrap_or_default()),
                made: number(value.get(1..).unwrap_or_default()),
                flight: Flight::Here,
                volatile: false,
                not_before,
            });
            self.shed();
        }
    }

    fn stored(&mut self, key: &str, value: Option<&str>, now: Millis) {
        if let Some(value) = value {
            self.restored(key, value, now);
        } else if let Some(id) = key.strip_prefix("e:") {
            self.queue.find(id).and_then(|at| self.queue.take(at));
        } else if let Some(id) = key.strip_prefix("d:") {
            self.losses.removed(id);
        } else if key == "u" {
            self.who.user_json.clear();
        }
    }

    fn identify(&mut self, user_json: &str, rest: &mut Option<&str>, now: Millis) {
        if self.consent != Consent::Denied && is_json_string(user_json) {
            self.who.user_json = user_json.into();
            self.put_who();
            self.track(&tracked(rest), now);
        }
    }

    fn track(&mut self, event: &Tracked<'_>, now: Millis) {
        if self.consent == Consent::Denied
            || self.queue.find(event.id).is_some()
            || !remember(&mut self.tracked, event.id, TRACKED)
        {
            return;
        }
        self.put_again();
        let mut store = self.who.touch(now, event.id);
        if self.who.device.is_empty() {
            self.who.device = event.id.into();
            store = true;
        }
        let json = event::json(&self.who, event);
        if json.len() > self.event_bytes {
            self.lose(event.id, Why::TooLarge);
            self.report(Why::TooLarge.code(), event.id);
            return;
        }
        if store {
            self.put_who();
        }
        let entry = Entry {
            json,
            priority: event.priority,
            made: now,
            flight: Flight::Here,
            volatile: false,
            not_before: 0.0,
        };
        if self.consent == Consent::Granted {
            put_entry(&mut self.out, &entry);
        }
        self.queue.add(entry);
        self.shed();
    }

    /// Makes room.
    fn shed(&mut self) {
        while let Some(at) = self.queue.least() {
            self.drop_at(at, Why::Full);
        }
    }

    /// Drops an event knowingly.
    fn drop_at(&mut self, at: usize, why: Why) {
        if let Some(entry) = self.queue.take(at) {
            self.out.del_of("e:", entry.id());
            self.lose(entry.id(), why);
            if why != Why::Full {
                self.report(why.code(), entry.id());
            }
        }
    }

    fn lose(&mut self, id: &str, why: Why) {
        self.discarded += 1;
        self.losses.count(id, why, self.consent == Consent::Granted, &mut self.out);
    }

    fn reset(&mut self, device: &str) {
        self.who = Identity::default();
        self.out.del("u");
        self.out.del("s");
        if self.consent == Consent::Granted {
            self.who.device = device.into();
            self.put_who();
        }
    }

    fn consent_given(&mut self, consent: Consent) {
        let before = core::mem::replace(&mut self.consent, consent);
        match consent {
            Consent::Denied => {
                self.queue = Queue::default();
                self.losses = Losses::default();
                self.out.begin("Z");
                self.who = Identity::default();
                self.close_socket();
            }
            Consent::Granted if before == Consent::Pending => self.put_everything(),
            Consent::Granted | Consent::Pending => {}
        }
    }

    fn put_who(&mut self) {
        if self.consent != Consent::Granted {
            return;
        }
        for (key, value) in [("a", &self.who.device), ("u", &self.who.user_json)] {
            if !value.is_empty() {
                self.out.put(key).push_str(value);
            }
        }
        if !self.who.session.is_empty() {
            self.who.write_session(self.out.put("s"));
        }
    }

    fn put_failed(&mut self, key: &str) {
        if let Some(entry) = key
            .strip_prefix("e:")
            .and_then(|id| self.queue.find(id))
            .and_then(|at| self.queue.entries.get_mut(at))
        {
            entry.volatile = true;
        }
    }

    /// What could not be written may find room now.
    fn put_again(&mut self) {
        if self.consent == Consent::Granted {
            let mut left = PUT_AGAIN;
            for entry in &mut self.queue.entries {
                if left > 0 && entry.volatile {
                    left -= 1;
                    entry.volatile = false;
                    put_entry(&mut self.out, entry);
                }
            }
        }
    }

    fn put_everything(&mut self) {
        self.put_who();
        if self.consent == Consent::Granted {
            for entry in &mut self.queue.entries {
                entry.volatile = false;
                put_entry(&mut self.out, entry);
            }
            self.losses.put_all(&mut self.out);
        }
    }

    /// Waits that were counted on a clock that ran ahead would last too long.
    fn clock_went_back(&mut self, now: Millis) {
        for (instant, most) in [
            (&mut self.backoff.until, LONGEST_WAIT_MS),
            (&mut self.socket.since, 0.0),
            (&mut self.socket.sent, 0.0),
            (&mut self.socket.retry_at, LONGEST_WAIT_MS),
        ] {
            *instant = sooner(*instant, now + most);
        }
        for request in &mut self.requests {
            request.deadline = sooner(request.deadline, now + send::REQUEST_MS);
        }
        for entry in &mut self.queue.entries {
            entry.not_before = sooner(entry.not_before, now);
            entry.made = sooner(entry.made, now);
        }
        self.wake = f64::INFINITY;
    }
}

fn flag(rest: &mut Option<&str>) -> bool {
    next(rest) == "1"
}

/// Adds an id to those known, of which so many are kept; `false` if it is one of them.
fn remember(known: &mut Vec<String>, id: &str, most: usize) -> bool {
    if known.iter().any(|other| other == id) {
        return false;
    }
    if known.len() >= most {
        take_at(known, 0);
    }
    known.push(id.into());
    true
}

fn put_entry(out: &mut Commands, entry: &Entry) {
    let value = out.put_of("e:", entry.id());
    value.push_str(match entry.priority {
        Priority::BestEffort => "0",
        Priority::Normal => "1",
        Priority::Critical => "2",
    });
    schemas::wire::push_number(value, entry.made);
    value.push_str(&entry.json);
}
