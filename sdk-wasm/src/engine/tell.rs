//! What the page is told.
//!
//! **Invariant:** only changes are told.

use alloc::string::String;

use schemas::wire::push_number;

use super::Engine;
use crate::backoff::BREAKER_FAILURES;
use crate::input::{Consent, Delivery};
use crate::socket::Phase;

impl Engine {
    /// Something the developer should see; `id` may be empty. The code needs no escapes.
    pub(super) fn report(&mut self, code: &str, id: &str) {
        let json = self.out.deliver(Delivery::Error);
        for text in [r#"{"code":""#, code] {
            json.push_str(text);
        }
        if !id.is_empty() {
            for text in [r#"","event_id":""#, id] {
                json.push_str(text);
            }
        }
        json.push_str("\"}");
    }

    /// Tells the page what has changed.
    pub(super) fn tell(&mut self) {
        let queue = (self.queue.entries.len(), self.discarded);
        if queue != self.told_queue {
            self.told_queue = queue;
            let json = self.out.deliver(Delivery::Queue);
            #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
            for (name, number) in [
                (r#"{"events":"#, queue.0 as f64),
                (r#","bytes":"#, self.queue.bytes as f64),
                (r#","discarded":"#, f64::from(queue.1)),
            ] {
                json.push_str(name);
                push_number(json, number);
            }
            json.push_str("}");
        }
        if !self.started {
            return;
        }
        let mut state = String::from(r#"{"connection":""#);
        state.push_str(self.connection());
        if !self.who.device.is_empty() {
            state.push_str(r#"","anonymous_id":""#);
            state.push_str(&self.who.device);
        }
        state.push_str("\"");
        if !self.who.user_json.is_empty() {
            state.push_str(r#","user_id":"#);
            state.push_str(&self.who.user_json);
        }
        state.push_str("}");
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
            () if self.backoff.failures >= BREAKER_FAILURES => "blocked",
            () if self.backoff.failures > 0 => "waiting",
            () if !self.leader => "follower",
            () if self.http_worked => "http",
            () => "connecting",
        }
    }
}
