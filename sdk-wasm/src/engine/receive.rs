//! Receiving: frames of the socket and answers of requests.
//!
//! **Invariant:** an event leaves the queue only by a verdict that names its id, or that stands at its place in an answer of
//! the same length and refuses it without an id. A status code, an empty body or a stranger's page removes nothing.

use alloc::vec::Vec;

use schemas::wire::{self, Frame, FrameKind, WireStatus, WireVerdict, hello_frame};

use super::{DECISIONS, Engine, remember};
use crate::id::EventId;
use crate::input::{Answer, Delivery};
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
    pub(super) fn socket_open(&mut self, now: u64) {
        if self.socket.phase == Phase::Opening {
            self.socket.phase = Phase::Greeting;
            self.socket.since = now;
            let frame = self.out.begin("S").field();
            hello_frame(frame, Some(&self.key), Some(&self.sdk), self.socket.session.as_deref());
        }
    }

    pub(super) fn socket_ended(&mut self, now: u64, random: u32) {
        if self.socket.phase != Phase::Closed {
            self.socket.ended(now, random);
        }
        self.queue.release(0, |flight| matches!(flight, Flight::Socket(_)));
    }

    pub(super) fn frame(&mut self, text: &str, now: u64, random: u32) {
        let Some(frame) = read(text) else { return };
        if self.socket.phase == Phase::Closed {
            return;
        }
        self.socket.since = if self.socket.phase == Phase::Ready { now } else { self.socket.since };
        if let Some(credit) = frame.credit {
            self.socket.credit = credit.max(1);
        }
        match frame.kind {
            FrameKind::Hello => self.greeted(&frame, now),
            FrameKind::Ack => self.ack(&frame, now, random),
            FrameKind::Decision => self.decision(frame.decision.unwrap_or_default()),
            FrameKind::Pace => self.backoff.pause(now, frame.retry_after_ms.unwrap_or_default()),
            FrameKind::Error => self.refused(frame.code.unwrap_or("frame.invalid"), now, random),
            FrameKind::Pong | FrameKind::Other => {}
        }
    }

    fn greeted(&mut self, frame: &Frame<'_>, now: u64) {
        if self.socket.phase != Phase::Greeting {
            return;
        }
        self.socket.greeted(now);
        self.socket.credit = frame.credit.unwrap_or(1).max(1);
        self.socket.next_seq = frame.resumed.unwrap_or(0) + 1;
        self.socket.session = frame.session.map(Into::into);
        if let Some(limits) = frame.limits {
            // A server that names nothing, or nonsense, leaves the usual.
            if let Some(bytes) = usize::try_from(limits.event_bytes).ok().filter(|bytes| *bytes > 0) {
                self.event_bytes = bytes;
            }
            if let Some(bytes) =
                usize::try_from(limits.batch_bytes).ok().filter(|bytes| *bytes >= self.event_bytes)
            {
                self.batch_bytes = bytes.min(super::send::BATCH_BYTES);
            }
            if let Some(events) = usize::try_from(limits.batch_events).ok().filter(|events| *events > 0) {
                self.batch_events = events.min(super::send::BATCH_EVENTS);
            }
        }
    }

    fn ack(&mut self, frame: &Frame<'_>, now: u64, random: u32) {
        let Some(seq) = frame.seq else { return };
        let settled = self.settle(frame, Flight::Socket(seq));
        let answered = frame.cumulative.unwrap_or(0);
        self.socket.unanswered.retain(|(other, _)| *other != seq && *other > answered);
        self.after(settled, now, None, random);
        // What has no verdict in the answer to its own batch must be sent again.
        self.queue.release(
            0,
            |flight| matches!(flight, Flight::Socket(other) if other == seq || other <= answered),
        );
    }

    /// Told once, whether it came on the socket, again after a cut, or from another tab.
    pub(super) fn decision(&mut self, json: &str) {
        let Some(id) = wire::member_text(json, "decision_id").and_then(EventId::parse) else { return };
        if remember(&mut self.decisions, id, DECISIONS) {
            self.out.deliver(Delivery::Decision).push_str(json);
        }
    }

    /// The server will not have us, or not so: tell the developer, keep the events, ask rarely.
    fn refused(&mut self, code: &str, now: u64, random: u32) {
        self.backoff.refused(now, random);
        self.report(code, None);
    }

    pub(super) fn http(&mut self, answer: &Answer<'_>, now: u64, random: u32) {
        let flight = Flight::Http(answer.request);
        self.requests.retain(|request| request.number != answer.request);
        let frame = read(answer.body);
        let settled = match &frame {
            Some(frame) if frame.has_verdicts() => self.settle(frame, flight),
            _ => Settled { done: 0, left: self.queue.iter().filter(|entry| entry.flight == flight).count() },
        };
        let code = frame.and_then(|frame| frame.code);
        if settled.done > 0 {
            self.http_worked = true;
        }
        if settled.done > 0 || settled.left == 0 {
            self.after(settled, now, answer.retry_after_ms, random);
        } else if answer.status == 413 || (answer.status == 400 && code.is_some()) {
            self.too_large(flight, settled.left, code, now, random);
        } else if let (401 | 403, Some(code)) = (answer.status, code) {
            self.refused(code, now, random);
        } else {
            self.backoff.failed(now, answer.retry_after_ms, random);
        }
        self.queue.release(0, |other| other == flight);
    }

    /// The whole body was refused: halves find the event that is to blame, and only the server's own word discards it.
    fn too_large(&mut self, flight: Flight, events: usize, code: Option<&str>, now: u64, random: u32) {
        let blamed = self.queue.iter().find(|entry| entry.flight == flight).map(|entry| entry.id);
        match (code, blamed) {
            _ if events > 1 => self.batch_events = (events / 2).max(1),
            (Some(code), Some(id)) => self.discard(id, code),
            _ => self.backoff.failed(now, None, random),
        }
    }

    fn after(&mut self, settled: Settled, now: u64, retry_after: Option<u64>, random: u32) {
        if settled.done > 0 {
            self.backoff.worked();
            self.batch_events = (self.batch_events * 2).clamp(1, super::send::BATCH_EVENTS);
        }
        if settled.left > 0 {
            self.backoff.failed(now, retry_after, random);
        }
    }

    /// Applies the verdicts of an answer to the batch in `flight`.
    fn settle(&mut self, frame: &Frame<'_>, flight: Flight) -> Settled {
        let batch: Vec<EventId> =
            self.queue.iter().filter(|entry| entry.flight == flight).map(|entry| entry.id).collect();
        let same_length = frame.verdicts().count() == batch.len();
        let mut settled = Settled::default();
        for (at, verdict) in frame.verdicts().enumerate() {
            let refused = matches!(verdict.status, WireStatus::Rejected | WireStatus::Quarantined);
            let id = match verdict.event_id {
                Some(id) => EventId::parse(id),
                None if refused && same_length => batch.get(at).copied(),
                None => None,
            };
            let last = matches!(verdict.status, WireStatus::Accepted | WireStatus::Duplicate) || refused;
            if let Some(id) = id.filter(|_| last) {
                settled.done += usize::from(self.verdict(id, &verdict));
            }
        }
        settled.left = self.queue.iter().filter(|entry| entry.flight == flight).count();
        settled
    }

    /// An event has its verdict.
    fn verdict(&mut self, id: EventId, verdict: &WireVerdict<'_>) -> bool {
        let Some(entry) = self.queue.remove(id) else { return false };
        self.out.del_event(id);
        let json = self.out.deliver(Delivery::Verdict);
        json.push_str(r#"{"event_type":"#);
        json.push_str(wire::member(&entry.json, "event_type").unwrap_or("null"));
        json.push(',');
        json.push_str(verdict.json.strip_prefix('{').unwrap_or("}"));
        true
    }
}

/// Reads a frame or an answer. Raw control characters are no JSON, and separate fields where texts cross to the host.
fn read(text: &str) -> Option<Frame<'_>> {
    let clean = text.bytes().all(|byte| byte >= 0x20 || matches!(byte, b'\t' | b'\n' | b'\r'));
    if clean { Frame::read(text) } else { None }
}
