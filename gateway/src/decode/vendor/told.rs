//! What an adapter makes its answer from.
//!
//! **Invariant:** an answer that makes the client send again is given only where some event may still be taken.

use schemas::time::Timestamp;
use schemas::verdict::{Code, Status, Verdict};

use http::StatusCode;
use serde_json::{Value, json};

/// The verdicts of a request, in the order of its events, and when to come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    pub(crate) verdicts: &'a [Verdict],
    /// Seconds after which what was not taken may be sent again.
    pub(crate) retry_after_s: u64,
    pub(crate) now: Timestamp,
}

/// Most refusals that an answer lists.
const MAX_LISTED: usize = 100;

impl Told<'_> {
    /// 429 or 503 if any event is to be sent again. Ids make sending all of them again safe.
    pub(crate) fn again(&self) -> Option<StatusCode> {
        let metered = |verdict: &&Verdict| {
            let code = verdict.reason.as_ref().map(|reason| reason.code);
            matches!(code, Some(Code::RateExceeded | Code::QuotaExceeded))
        };
        let again = || self.verdicts.iter().filter(|verdict| verdict.status == Status::Retry);
        again().next()?;
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Some(if again().all(|verdict| metered(&verdict)) { StatusCode::TOO_MANY_REQUESTS } else { status })
    }

    /// The events that will not be taken, by their places.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (usize, &Verdict)> {
        let is_final = |status| matches!(status, Status::Rejected | Status::Quarantined);
        self.verdicts.iter().enumerate().filter(move |(_, verdict)| is_final(verdict.status))
    }

    /// Every event is refused for good.
    pub(crate) fn all_refused(&self) -> bool {
        !self.verdicts.is_empty() && self.refused().count() == self.verdicts.len()
    }

    /// The refusals as a list for people who read their client's log.
    pub(crate) fn listed(&self) -> Value {
        let listed = self.refused().take(MAX_LISTED).map(|(index, verdict)| {
            json!({"index": index, "event_id": verdict.event_id, "status": verdict.status, "reason": verdict.reason})
        });
        listed.collect()
    }

    /// The first refusal as a sentence.
    pub(crate) fn first_refusal(&self) -> Option<String> {
        let (index, verdict) = self.refused().next()?;
        let reason = verdict.reason.as_ref()?;
        let place = reason.pointer.as_deref().map(|at| format!(" at {at}")).unwrap_or_default();
        let expected =
            reason.expected.as_deref().map(|what| format!(", expected {what}")).unwrap_or_default();
        Some(format!("event {index}: {}{place}{expected}", reason.code.as_str()))
    }
}
