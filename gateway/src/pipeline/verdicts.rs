//! What the sender is told of each event, by what was found and by the log's answer.
//!
//! **Invariant:** one verdict a slot, in order; `accepted` and `duplicate` carry the log's own level.

use broker::log::{Answers, AppendError, RecordError};
use schemas::id::SourceName;
use schemas::verdict::{AckLevel, Code, Reason, Status, Verdict};

use super::{Fate, Judged};
use crate::authenticate::meter::Grant;
use crate::validate::salvaged_id;

/// The verdicts of events that the key may not send now. They are not judged: whoever sends too much costs little.
pub(super) fn postponed(events: &[&[u8]], grant: &Grant, source: &SourceName) -> Vec<Verdict> {
    let verdict = |event: &&[u8]| Verdict {
        event_id: salvaged_id(event, source),
        status: Status::Retry,
        acked: None,
        reason: grant.refused.clone(),
        warnings: Vec::new(),
    };
    events.iter().map(verdict).collect()
}

/// One verdict a slot, by the log's answer.
pub(super) fn verdicts(judged: &Judged, answer: &Result<Answers, AppendError>) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = Vec::with_capacity(judged.slots.len());
    for slot in &judged.slots {
        let (status, acked, reason) = match &slot.fate {
            Fate::Known(level) => (Status::Duplicate, Some(*level), None),
            Fate::SameAs { slot } => match verdicts.get(*slot) {
                Some(first) if first.acked.is_some() => (Status::Duplicate, first.acked, None),
                Some(first) => (first.status, None, first.reason.clone()),
                None => (Status::Retry, None, Some(Reason::new(Code::Internal))),
            },
            Fate::Written { record, .. } => match written(*record, answer) {
                Ok(level) => (Status::Accepted, Some(level), None),
                Err((status, reason)) => (status, None, Some(reason)),
            },
            Fate::Stopped { status, reason } => (*status, None, Some(Reason::clone(reason))),
            Fate::TooMany { reason } => (Status::Retry, None, Some(Reason::clone(reason))),
            Fate::Refused { status, reason, record } => match written(*record, answer) {
                // Too large for quarantine is still refused, and told.
                Ok(_) | Err((Status::Rejected, _)) => (*status, None, Some(Reason::clone(reason))),
                Err((status, reason)) => (status, None, Some(reason)),
            },
        };
        verdicts.push(Verdict {
            event_id: slot.event_id,
            status,
            acked,
            reason,
            warnings: slot.warnings.clone(),
        });
    }
    verdicts
}

/// What became of the record of that number.
fn written(record: usize, answer: &Result<Answers, AppendError>) -> Result<AckLevel, (Status, Reason)> {
    let retry = |code| (Status::Retry, Reason::new(code));
    let answers = answer.as_ref().map_err(|error| {
        retry(match error {
            AppendError::Full => Code::LogFull,
            AppendError::Closed => Code::Draining,
            AppendError::Unavailable(_) => Code::LogUnavailable,
        })
    })?;
    match answers.get(record) {
        Some(Ok(appended)) => Ok(appended.level),
        Some(Err(RecordError::TooLarge { max, .. })) => {
            let expected = format!("a record of at most {max} bytes");
            Err((Status::Rejected, Reason::new(Code::LogRecordTooLarge).expecting(expected)))
        }
        Some(Err(RecordError::Unavailable(_) | RecordError::NoPartition(_))) => {
            Err(retry(Code::LogUnavailable))
        }
        None => Err(retry(Code::Internal)),
    }
}
