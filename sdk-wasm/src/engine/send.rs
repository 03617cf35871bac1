//! Sending: the socket first, then requests, then what the page can still send as it goes.
//!
//! **Invariant:** while a page goes, all its requests together stay within the browser's one pool of 64 KiB, and nothing is
//! removed because a request was taken for sending.

use alloc::vec::Vec;

use schemas::wire;

use super::{Engine, Request};
use crate::id::EventId;
use crate::input::{Channel, Consent};
use crate::queue::{EXPIRE_MS, Entry, Flight, Queue};
use crate::socket::{PATIENCE_MS, PING_MS, Phase};

/// Most events in a batch.
pub(super) const BATCH_EVENTS: usize = 100;
/// Most bytes in a batch, unless one event is larger.
pub(super) const BATCH_BYTES: usize = 192 << 10;
/// So long a request may be unanswered.
pub(super) const REQUEST_MS: u64 = 40_000;
/// The browser's pool for requests that outlive the page is 65,536 bytes; some is left for their envelopes.
const PARTING_POOL: usize = 65_000;
/// Parting requests are small, so that one too many for the pool takes few events with it.
const PARTING_BYTES: usize = 16 << 10;
/// What the envelope of a batch costs.
const ENVELOPE: usize = 64;

impl Engine {
    /// Sends what may be sent.
    pub(super) fn pump(&mut self, now: u64) {
        self.discard_expired(now);
        if !self.may_send() {
            return;
        }
        if !self.leader && self.socket.phase != Phase::Closed && self.socket.unanswered.is_empty() {
            self.close_socket();
        }
        let due = self.queue.iter().any(|entry| self.is_due(entry, now));
        if self.wants_socket(due) && now >= self.socket.retry_at {
            self.socket.phase = Phase::Opening;
            self.socket.since = now;
            self.out.begin("O");
        }
        if !due || now < self.backoff.until {
            return;
        }
        match self.socket.phase {
            Phase::Ready if self.leader => self.pump_socket(now),
            Phase::Opening | Phase::Greeting if self.leader && now < self.socket.since + PATIENCE_MS => {}
            _ => self.pump_http(now),
        }
    }

    fn may_send(&self) -> bool {
        self.started && self.online && self.consent == Consent::Granted
    }

    /// Whether this tab may send the entry: others' and stored ones are the leader's.
    fn is_mine(&self, entry: &Entry) -> bool {
        entry.flight == Flight::Here && (self.leader || entry.volatile)
    }

    fn is_due(&self, entry: &Entry, now: u64) -> bool {
        self.is_mine(entry) && entry.not_before <= now
    }

    /// A socket is for events, and after it once worked for decisions too while somebody looks at the page. Behind a blocker
    /// requests alone find out when the way is free.
    fn wants_socket(&self, due: bool) -> bool {
        let reason = due || (self.socket.worked && !self.hidden);
        self.socket.allowed
            && self.leader
            && self.socket.phase == Phase::Closed
            && self.backoff.failures == 0
            && reason
    }

    fn pump_socket(&mut self, now: u64) {
        while (self.socket.unanswered.len() as u64) < self.socket.credit {
            let seq = self.socket.next_seq;
            let ids = self.take(now, self.batch_bytes, Flight::Socket(seq), Self::is_due);
            if ids.is_empty() {
                return;
            }
            wire::batch_frame(
                self.out.begin("S").field(),
                seq,
                now,
                in_flight(&self.queue, Flight::Socket(seq)),
            );
            self.socket.next_seq += 1;
            self.socket.unanswered.push((seq, now));
            self.socket.sent = now;
        }
    }

    /// One request at a time: what comes meanwhile travels together in the next.
    fn pump_http(&mut self, now: u64) {
        if !self.requests.iter().any(|request| request.live) {
            self.send_http(now, self.batch_bytes, Channel::Live, Self::is_due);
        }
    }

    /// Sends a request of at most so many bytes; returns its size, 0 if there is nothing that fits.
    fn send_http(
        &mut self,
        now: u64,
        bytes: usize,
        channel: Channel,
        pick: fn(&Self, &Entry, u64) -> bool,
    ) -> usize {
        let number = self.next_request;
        if self.take(now, bytes, Flight::Http(number), pick).is_empty() {
            return 0;
        }
        let body = self.out.send_http(number, channel);
        let before = body.len();
        wire::batch_body(body, now, in_flight(&self.queue, Flight::Http(number)));
        let size = body.len() - before;
        self.next_request = number.wrapping_add(1);
        self.requests.push(Request { number, deadline: now + REQUEST_MS, live: channel == Channel::Live });
        size
    }

    /// Marks a batch as in flight. Its first event is taken whatever its size if `bytes` is a batch's usual measure.
    fn take(
        &mut self,
        now: u64,
        bytes: usize,
        flight: Flight,
        pick: fn(&Self, &Entry, u64) -> bool,
    ) -> Vec<EventId> {
        let mut room = bytes.saturating_sub(ENVELOPE);
        let mut ids = Vec::new();
        for entry in self.queue.iter().filter(|entry| pick(self, entry, now)) {
            let size = entry.json.len() + 1;
            if ids.len() >= self.batch_events || size > room {
                break;
            }
            room -= size;
            ids.push(entry.id);
        }
        for id in &ids {
            if let Some(entry) = self.queue.find(*id) {
                entry.flight = flight;
            }
        }
        ids
    }

    /// The page is hidden, which on phones is the last that is heard of it, or goes.
    pub(super) fn hide(&mut self, gone: bool, now: u64) {
        self.hidden = true;
        if self.may_send() {
            let mut pool = PARTING_POOL;
            for pick in [Self::parts, Self::parts_again].into_iter().take(if gone { 2 } else { 1 }) {
                loop {
                    let small = self.send_http(now, PARTING_BYTES.min(pool), Channel::Parting, pick);
                    // An event larger than the usual request may still fit into the pool.
                    let sent = if small == 0 { self.send_large(now, pool, pick) } else { small };
                    if sent == 0 {
                        break;
                    }
                    pool = pool.saturating_sub(sent);
                }
            }
        }
        if gone {
            self.close_socket();
        }
    }

    fn send_large(&mut self, now: u64, pool: usize, pick: fn(&Self, &Entry, u64) -> bool) -> usize {
        let usual = core::mem::replace(&mut self.batch_events, 1);
        let sent = self.send_http(now, pool, Channel::Parting, pick);
        self.batch_events = usual;
        sent
    }

    /// What goes with the page: all that waits, but while the server wants a pause only what no storage holds.
    fn parts(&self, entry: &Entry, now: u64) -> bool {
        self.is_mine(entry) && (now >= self.backoff.until || entry.volatile)
    }

    /// What is on a way that ends with the page. If it has arrived, the server finds it a duplicate.
    fn parts_again(&self, entry: &Entry, _now: u64) -> bool {
        match entry.flight {
            Flight::Here => false,
            Flight::Socket(_) => true,
            Flight::Http(number) => {
                self.requests.iter().any(|request| request.number == number && request.live)
            }
        }
    }

    pub(super) fn show(&mut self) {
        self.hidden = false;
        // A page back from the cache hears no answer to what it sent when it went.
        for request in core::mem::take(&mut self.requests) {
            if request.live {
                self.requests.push(request);
            } else {
                self.queue.release(0, |flight| flight == Flight::Http(request.number));
            }
        }
        self.socket.retry_at = 0;
    }

    /// The server would not know these ids again.
    fn discard_expired(&mut self, now: u64) {
        loop {
            let oldest = self.queue.iter().next().map(|entry| entry.id);
            match oldest {
                Some(id) if id.millis().is_some_and(|millis| millis + EXPIRE_MS < now) => {
                    self.discard(id, "event.expired");
                }
                _ => return,
            }
        }
    }

    pub(super) fn discard(&mut self, id: EventId, code: &str) {
        self.queue.remove(id);
        self.queue.discarded += 1;
        self.out.del_event(id);
        self.report(code, Some(id));
    }

    pub(super) fn close_socket(&mut self) {
        if self.socket.phase != Phase::Closed {
            self.socket.phase = Phase::Closed;
            self.socket.unanswered.clear();
            self.out.begin("X");
        }
        self.queue.release(0, |flight| matches!(flight, Flight::Socket(_)));
    }

    /// Looks at everything that has a deadline.
    pub(super) fn timer(&mut self, now: u64, random: u32) {
        self.wake = None;
        if self.socket.deadline().is_some_and(|deadline| deadline <= now) {
            self.out.begin("X");
            self.socket_ended(now, random);
        }
        if self.socket.phase == Phase::Ready && now >= self.socket.sent + PING_MS {
            // Nothing was heard since the last ping: the way is dead.
            if now >= self.socket.since + 2 * PING_MS + PATIENCE_MS {
                self.out.begin("X");
                self.socket_ended(now, random);
            } else {
                self.socket.sent = now;
                self.out.begin("S").field().push_str(wire::PING_FRAME);
            }
        }
        let late: Vec<Request> =
            self.requests.iter().copied().filter(|request| request.deadline <= now).collect();
        for request in late {
            self.requests.retain(|other| other.number != request.number);
            self.queue.release(0, |flight| flight == Flight::Http(request.number));
            if request.live {
                self.backoff.failed(now, None, random);
            }
        }
    }

    /// Sets the one timer.
    pub(super) fn set_timer(&mut self, now: u64) {
        let mut next: Option<u64> = None;
        let mut at = |instant: u64| next = Some(next.map_or(instant, |next| next.min(instant)));
        self.requests.iter().for_each(|request| at(request.deadline));
        self.socket.deadline().into_iter().for_each(&mut at);
        if self.socket.phase == Phase::Ready {
            at(self.socket.sent + PING_MS);
        }
        if self.may_send() {
            let due =
                self.queue.iter().filter(|entry| self.is_mine(entry)).map(|entry| entry.not_before).min();
            if let Some(due) = due {
                let patience = match self.socket.phase {
                    Phase::Opening | Phase::Greeting => self.socket.since + PATIENCE_MS,
                    Phase::Closed | Phase::Ready => 0,
                };
                // When nothing but an answer can help, its deadline is the timer.
                let full = self.socket.phase == Phase::Ready
                    && self.socket.unanswered.len() as u64 >= self.socket.credit;
                if !full && !self.requests.iter().any(|request| request.live) {
                    at(due.max(self.backoff.until).max(patience));
                }
            }
            if self.wants_socket(due.is_some()) {
                at(self.socket.retry_at);
            }
        }
        let next = next.map(|next| next.max(now + 1));
        if next != self.wake {
            self.wake = next;
            if let Some(next) = next {
                self.out.set_timer(next - now);
            }
        }
    }
}

fn in_flight(queue: &Queue, flight: Flight) -> impl Iterator<Item = &str> {
    queue.iter().filter(move |entry| entry.flight == flight).map(|entry| entry.json.as_str())
}
