//! Sending: the socket first, then requests, then what the page can still send as it goes.
//!
//! **Invariant:** while a page goes, all its requests together stay within the browser's one pool of 64 KiB, and nothing is
//! removed because a request was taken for sending.

use schemas::wire::{PING_FRAME, batch_head, push_events};

use super::{Engine, Request};
use crate::backoff::{later, sooner};
use crate::input::{Channel, Consent, Millis};
use crate::losses::Why;
use crate::queue::{EXPIRE_MS, Flight, take_at};
use crate::socket::{ANSWER_MS, OPEN_MS, PATIENCE_MS, PING_MS, Phase};

/// Most events in a batch.
pub(super) const BATCH_EVENTS: usize = 100;
/// Most bytes in a batch, unless one event is larger.
pub(super) const BATCH_BYTES: usize = 192 << 10;
/// So long a request may be unanswered.
pub(super) const REQUEST_MS: Millis = 40_000.0;
/// The browser's pool for requests that outlive the page is 65,536 bytes; some is left for their envelopes.
const PARTING_POOL: usize = 65_000;
/// Parting requests are small, so that one too many for the pool takes few events with it.
const PARTING_BYTES: usize = 16 << 10;
/// What the envelope of a batch costs.
const ENVELOPE: usize = 64;

impl Engine {
    /// Sends what may be sent.
    pub(super) fn pump(&mut self, now: Millis) {
        self.discard_expired(now);
        if !self.may_send() {
            return;
        }
        if self.gone {
            self.part(now);
            return;
        }
        let unanswered = self.unanswered();
        if !self.leader && self.socket.phase != Phase::Closed && unanswered == 0 {
            self.close_socket();
        }
        let due = self.first_due() <= now;
        if self.wants_socket(due) && now >= self.socket.retry_at {
            self.socket.phase = Phase::Opening;
            self.socket.since = now;
            self.out.begin("O");
        }
        if !due || now < self.backoff.until {
            return;
        }
        if self.leader && self.socket.phase == Phase::Ready {
            for _ in unanswered..self.socket.credit {
                let seq = self.socket.next_seq;
                if self.send(now, Flight::Socket(seq), self.batch_bytes, false) == 0 {
                    break;
                }
                self.socket.next_seq += 1;
                self.socket.sent = now;
            }
        } else if !(self.asks()
            || self.leader && self.socket.is_coming() && now < self.socket.since + PATIENCE_MS)
        {
            // One request at a time: what comes meanwhile travels together in the next.
            self.send_http(now, self.batch_bytes, false);
        }
    }

    fn may_send(&self) -> bool {
        self.started && self.online && self.consent == Consent::Granted
    }

    /// When the first of the events that this tab may send is due: others' and stored ones are the leader's.
    fn first_due(&self) -> Millis {
        let mut first = f64::INFINITY;
        for entry in &self.queue.entries {
            if entry.flight == Flight::Here && (self.leader || entry.volatile) {
                first = sooner(entry.not_before, first);
            }
        }
        first
    }

    /// Batches on the socket.
    fn unanswered(&self) -> u32 {
        self.requests.iter().map(|request| u32::from(matches!(request.flight, Flight::Socket(_)))).sum()
    }

    /// Whether a request waits for its answer.
    fn asks(&self) -> bool {
        self.requests.iter().any(|request| request.live && matches!(request.flight, Flight::Http(_)))
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

    fn send_http(&mut self, now: Millis, bytes: usize, parting: bool) -> usize {
        let flight = Flight::Http(self.next_request);
        self.next_request += 1;
        self.send(now, flight, bytes, parting)
    }

    /// Sends a batch of at most so many bytes; returns its size, 0 if there is nothing that fits.
    fn send(&mut self, now: Millis, flight: Flight, bytes: usize, parting: bool) -> usize {
        if !self.take(now, flight, bytes, parting) {
            return 0;
        }
        let (seq, deadline, body) = match flight {
            Flight::Http(number) => {
                let channel = if parting { Channel::Parting } else { Channel::Live };
                (None, REQUEST_MS, self.out.send_http(number, channel))
            }
            Flight::Socket(seq) => (Some(seq), ANSWER_MS, self.out.begin("S").field()),
            Flight::Here => return 0,
        };
        let before = body.len();
        batch_head(body, seq, now);
        // Who goes hears no answer.
        if !parting {
            self.losses.send(flight, body);
        }
        let on_it = self.queue.entries.iter().filter(|entry| entry.flight == flight);
        push_events(body, on_it.map(|entry| entry.json.as_str()));
        let size = body.len() - before;
        self.requests.push(Request { flight, deadline: now + deadline, live: !parting });
        size
    }

    /// Puts events on a flight; `false` if there is none. What goes with the page is all that waits, but while the server wants a
    /// pause only what no storage holds; and a first event may then take all of the pool.
    fn take(&mut self, now: Millis, flight: Flight, bytes: usize, parting: bool) -> bool {
        let mut room = bytes.saturating_sub(ENVELOPE);
        let most = if parting { self.pool.saturating_sub(ENVELOPE) } else { room };
        let mut count = 0;
        for entry in &mut self.queue.entries {
            let mine = entry.flight == Flight::Here && (self.leader || entry.volatile);
            let goes =
                if parting { entry.volatile || now >= self.backoff.until } else { now >= entry.not_before };
            if !mine || !goes {
                continue;
            }
            let size = entry.json.len() + 1;
            if count >= self.batch_events || size > if count == 0 { most } else { room } {
                break;
            }
            room = room.saturating_sub(size);
            entry.flight = flight;
            count += 1;
        }
        count > 0
    }

    /// The page is hidden, which on phones is the last that is heard of it, or goes.
    pub(super) fn hide(&mut self, gone: bool, now: Millis) {
        self.hidden = true;
        self.pool = PARTING_POOL;
        if self.may_send() {
            self.part(now);
        }
        if gone {
            self.gone = true;
            // What is on a way that ends with the page goes again. If it has arrived, the server finds it a duplicate.
            self.release_all(true);
            if self.may_send() {
                self.part(now);
            }
            self.close_socket();
        }
    }

    fn part(&mut self, now: Millis) {
        loop {
            let sent = self.send_http(now, PARTING_BYTES.min(self.pool), true);
            if sent == 0 {
                return;
            }
            self.pool = self.pool.saturating_sub(sent);
        }
    }

    pub(super) fn show(&mut self) {
        self.hidden = false;
        self.gone = false;
        // A page back from the cache hears no answer to what it sent when it went.
        self.release_all(false);
        self.socket.retry_at = 0.0;
    }

    /// The server would not know these ids again.
    fn discard_expired(&mut self, now: Millis) {
        let leader = self.leader;
        while let Some(at) = self.queue.entries.iter().position(|entry| {
            entry.flight == Flight::Here && (leader || entry.volatile) && entry.made + EXPIRE_MS < now
        }) {
            self.drop_at(at, Why::Expired);
        }
    }

    pub(super) fn close_socket(&mut self) {
        if self.socket.phase != Phase::Closed {
            self.socket.phase = Phase::Closed;
            self.out.begin("X");
        }
        self.release_socket();
    }

    /// A request is answered, or will not be: what of it still waits, waits here.
    pub(super) fn release(&mut self, at: usize) {
        if let Some(Request { flight, .. }) = take_at(&mut self.requests, at) {
            self.queue.release(flight);
            self.losses.landed(flight, false, &mut self.out);
        }
    }

    pub(super) fn release_socket(&mut self) {
        while let Some(at) =
            self.requests.iter().position(|request| matches!(request.flight, Flight::Socket(_)))
        {
            self.release(at);
        }
    }

    fn release_all(&mut self, live: bool) {
        while let Some(at) = self.requests.iter().position(|request| request.live == live) {
            self.release(at);
        }
    }

    fn socket_is_dead(&mut self, now: Millis, random: u32) {
        self.out.begin("X");
        self.socket_ended(now, random);
    }

    /// Looks at everything that has a deadline.
    pub(super) fn timer(&mut self, now: Millis, random: u32) {
        self.wake = f64::INFINITY;
        if self.socket.is_coming() && now >= self.socket.since + OPEN_MS {
            self.socket_is_dead(now, random);
        }
        if self.socket.phase == Phase::Ready && now >= self.socket.sent + PING_MS {
            // Nothing was heard since the last ping: the way is dead.
            if now >= self.socket.since + 2.0 * PING_MS + PATIENCE_MS {
                self.socket_is_dead(now, random);
            } else {
                self.socket.sent = now;
                self.out.begin("S").field().push_str(PING_FRAME);
            }
        }
        while let Some(at) = self.requests.iter().position(|request| request.deadline <= now) {
            let Some(Request { flight, live, .. }) = self.requests.get(at).copied() else { return };
            self.release(at);
            if let Flight::Socket(_) = flight {
                self.socket_is_dead(now, random);
            } else if live {
                self.backoff.failed(now, 0.0, random);
            }
        }
    }

    /// Sets the one timer.
    pub(super) fn set_timer(&mut self, now: Millis) {
        let mut next = f64::INFINITY;
        for request in &self.requests {
            next = sooner(request.deadline, next);
        }
        let patience = if self.socket.is_coming() { self.socket.since } else { 0.0 };
        if self.socket.is_coming() {
            next = sooner(self.socket.since + OPEN_MS, next);
        }
        if self.socket.phase == Phase::Ready {
            next = sooner(self.socket.sent + PING_MS, next);
        }
        if self.may_send() && !self.gone {
            let due = self.first_due();
            // When nothing but an answer can help, its deadline is the timer.
            let full = self.socket.phase == Phase::Ready && self.unanswered() >= self.socket.credit;
            if !full && !self.asks() {
                let at = later(due, later(self.backoff.until, patience + PATIENCE_MS));
                next = sooner(at, next);
            }
            if self.wants_socket(due < f64::INFINITY) {
                next = sooner(self.socket.retry_at, next);
            }
        }
        next = later(next, now + 1.0);
        // Nothing due both before and now is no change either: it is no number.
        if (next - self.wake).abs() > 0.0 {
            self.wake = next;
            if next < f64::INFINITY {
                self.out.set_timer(next - now);
            }
        }
    }
}
