//! Receiving: frames of the socket and answers of requests.
//!
//! **Invariant:** an event leaves the queue only by a verdict that names its id, or that stands at its place in an answer of
//! the same length and refuses it without an id. A status code, an empty body or a stranger's page removes nothing.

use super::{DECISIONS, Engine, remember};
use crate::event;
use crate::input::{Delivery, Millis, Verdicts};
use crate::losses::Why;
use crate::packed::{next, next_u32, number};
use crate::queue::Flight;
use crate::socket::Phase;

/// What an answer did for a batch.
#[derive(Clone, Copy, Default)]
struct Settled {
    /// Events that have their verdict.
    done: usize,
    /// Events that still wait.
    left: usize,
}

impl Engine {
    pub(super) fn socket_ended(&mut self, now: Millis, random: u32) {
        if self.socket.phase != Phase::Closed {
            self.socket.ended(now, random);
        }
        self.release_socket();
    }

    pub(super) fn heard(&mut self, now: Millis) {
        if self.socket.phase == Phase::Ready {
            self.socket.since = now;
        }
    }

    /// Highest `seq` answered in the resumed session, credit, limits.
    pub(super) fn greeted(&mut self, rest: &mut Option<&str>, now: Millis) {
        if self.socket.phase != Phase::Greeting {
            return;
        }
        self.socket.greeted(now);
        self.socket.next_seq = next_u32(rest) + 1;
        self.socket.credit = next_u32(rest).max(1);
        // A server that names nothing, or nonsense, leaves the usual.
        let event_bytes = next_u32(rest) as usize;
        let batch_bytes = next_u32(rest) as usize;
        let batch_events = next_u32(rest) as usize;
        if event_bytes > 0 {
            self.event_bytes = event_bytes;
        }
        if batch_bytes >= self.event_bytes {
            self.batch_bytes = batch_bytes.min(super::send::BATCH_BYTES);
        }
        if batch_events > 0 {
            self.batch_events = batch_events.min(super::send::BATCH_EVENTS);
        }
    }

    /// Batch, everything up to where is answered, credit, verdicts.
    pub(super) fn ack(&mut self, rest: &mut Option<&str>, now: Millis, random: u32) {
        let (seq, cumulative, credit) = (next_u32(rest), next_u32(rest), next_u32(rest));
        if self.socket.phase != Phase::Ready {
            return;
        }
        self.heard(now);
        if credit > 0 {
            self.socket.credit = credit;
        }
        let settled = self.settle(Verdicts(*rest), Flight::Socket(seq));
        self.after(settled, now, 0.0, random);
        // What has no verdict in the answer to its own batch must be sent again.
        let mut at = 0;
        while let Some(request) = self.requests.get(at) {
            match request.flight {
                Flight::Socket(other) if other == seq || other <= cumulative => self.release(at),
                _ => at += 1,
            }
        }
    }

    /// Told once, whether it came on the socket, again after a cut, or from another tab.
    pub(super) fn decision(&mut self, id: &str, json: &str, now: Millis) {
        self.heard(now);
        if remember(&mut self.decisions, id, DECISIONS) {
            self.out.deliver(Delivery::Decision).push_str(json);
        }
    }

    /// The server will not have us, or not so: tell the developer, keep the events, ask rarely.
    pub(super) fn refused(&mut self, code: &str, now: Millis, random: u32) {
        self.backoff.refused(now, random);
        self.report(code, "");
    }

    /// Request, status, pause asked for, code, verdicts.
    pub(super) fn http(&mut self, rest: &mut Option<&str>, now: Millis, random: u32) {
        let flight = Flight::Http(next_u32(rest));
        let (status, retry_after, code) = (next_u32(rest), number(next(rest)), next(rest));
        let settled = self.settle(Verdicts(*rest), flight);
        if settled.done > 0 {
            self.http_worked = true;
        }
        if settled.done > 0 || settled.left == 0 {
            self.after(settled, now, retry_after, random);
        } else if status == 413 || (status == 400 && !code.is_empty()) {
            self.too_large(flight, settled.left, code, now, random);
        } else if matches!(status, 401 | 403) && !code.is_empty() {
            self.refused(code, now, random);
        } else {
            self.backoff.failed(now, retry_after, random);
        }
        if let Some(at) = self.requests.iter().position(|request| request.flight == flight) {
            self.release(at);
        }
    }

    /// The whole body was refused: halves find the event that is to blame, and only the server's own word discards it.
    fn too_large(&mut self, flight: Flight, events: usize, code: &str, now: Millis, random: u32) {
        if events > 1 {
            self.batch_events = events / 2;
            return;
        }
        match self.queue.entries.iter().position(|entry| entry.flight == flight) {
            Some(at) if !code.is_empty() => self.drop_at(at, Why::TooLarge),
            _ => self.backoff.failed(now, 0.0, random),
        }
    }

    fn after(&mut self, settled: Settled, now: Millis, retry_after: Millis, random: u32) {
        if settled.done > 0 {
            self.backoff.worked();
            self.batch_events = (self.batch_events * 2).min(super::send::BATCH_EVENTS);
        }
        if settled.left > 0 {
            self.backoff.failed(now, retry_after, random);
        }
    }

    /// Applies the verdicts of an answer to the batch in `flight`.
    fn settle(&mut self, mut verdicts: Verdicts<'_>, flight: Flight) -> Settled {
        let same_length = verdicts.count() == self.queue.count(flight);
        let mut settled = Settled::default();
        let mut left_before = 0;
        while let Some((status, id, json)) = verdicts.next() {
            let refused = matches!(status, b'r' | b'q');
            let at = if !id.is_empty() {
                self.queue.find(id)
            } else if refused && same_length {
                self.on_flight(flight, left_before)
            } else {
                None
            };
            match at {
                Some(at) if refused || matches!(status, b'a' | b'd') => {
                    self.verdict(at, json);
                    settled.done += 1;
                }
                _ => left_before += 1,
            }
        }
        settled.left = self.queue.count(flight);
        self.losses.landed(flight, settled.done > 0, &mut self.out);
        settled
    }

    /// Where the event stands that is the `number`-th of those left in a batch.
    fn on_flight(&self, flight: Flight, number: usize) -> Option<usize> {
        let mut before = 0;
        self.queue.entries.iter().position(|entry| {
            let found = entry.flight == flight && before == number;
            before += usize::from(entry.flight == flight);
            found
        })
    }

    /// An event has its verdict.
    fn verdict(&mut self, at: usize, verdict: &str) {
        let Some(entry) = self.queue.take(at) else { return };
        self.out.del_of("e:", entry.id());
        let json = self.out.deliver(Delivery::Verdict);
        for text in [
            r#"{"event_type":"#,
            event::type_json(&entry.json),
            ",",
            verdict.strip_prefix('{').unwrap_or("}"),
        ] {
            json.push_str(text);
        }
    }
}
