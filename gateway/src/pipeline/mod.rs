//! The way of a batch: judge each event, set known ones aside, write the rest, tell the sender.
//!
//! **Invariant:** n events in, n verdicts out, in order; `accepted` is said only after the log has answered, with the log's own
//! level; a refused event's bytes are in quarantine before the refusal is told; a panic costs one event.

mod alike;
mod verdicts;

use std::hash::BuildHasherDefault;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use broker::log::{Answers, AppendError, NewRecord};
use bytes::BytesMut;
use schemas::id::{EventId, EventType, SourceName};
use schemas::json::{Limits, Member, Tape};
use schemas::registry::Registry;
use schemas::time::Timestamp;
use schemas::token::SecretText;
use schemas::verdict::{AckLevel, Code, Reason, Status, Verdict, Warning};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::Gateway;
use crate::authenticate::Key;
use crate::authenticate::meter::Grant;
use crate::config::HotProfiles;
use crate::consent::{Objected, Signals};
use crate::decode::native::SentAt;
use crate::hot;
use crate::kill::KillRules;
use crate::push::Session;
use crate::recent::{ByFingerprint, Fingerprint};
use crate::redact::{Kept, Redactor};
use crate::route::{self, RECORD_ROOM};
use crate::transport::tail::About;
use crate::validate::{Checked, Judge, Refusal, Remains, Tried};

/// How a batch came in.
#[derive(Clone, Debug)]
pub(crate) struct Transmission {
    pub(crate) key: Arc<Key>,
    /// The key is still in force; otherwise the sender is told to come back with another.
    pub(crate) key_is_good: bool,
    pub(crate) received_at: Timestamp,
    pub(crate) sent_at: SentAt,
    /// The same of single events, where each says its own; by place.
    pub(crate) each_sent_at: Vec<SentAt>,
    pub(crate) ack: AckLevel,
    /// Already truncated.
    pub(crate) ip: Option<String>,
    pub(crate) user_agent: Option<String>,
    /// What the browser says of being measured.
    pub(crate) signals: Signals,
    /// The socket's session, to which decisions go back.
    pub(crate) session: Option<Session>,
}

impl Transmission {
    /// When the event at a place was sent.
    pub(crate) fn sent_at_of(&self, place: usize) -> SentAt {
        self.each_sent_at.get(place).copied().unwrap_or(self.sent_at)
    }
}

/// What is known of one event before the log has answered.
struct Slot {
    event_id: Option<EventId>,
    event_type: Option<EventType>,
    warnings: Vec<Warning>,
    fate: Fate,
}

enum Fate {
    /// On its way to the log, as the record of that number.
    Written { record: usize, fingerprint: Fingerprint, alike: Option<Fingerprint> },
    /// Of a profile that has too many; neither written nor known.
    TooMany { reason: Box<Reason> },
    /// On the log already.
    Known(AckLevel),
    /// The same as an earlier event of this batch.
    SameAs { slot: usize },
    /// Not taken; its raw bytes are the record of that number.
    Refused { status: Status, reason: Box<Reason>, record: usize },
    /// Not taken, whatever the log says of the line that is left of it.
    Stopped { status: Status, reason: Box<Reason> },
}

/// An event as it came, and what is kept of it.
#[derive(Clone, Copy)]
struct Event<'e> {
    bytes: &'e [u8],
    kept: &'e Kept,
}

/// What is known of an event that is right, beside what it says.
#[derive(Clone, Copy)]
struct Seen {
    fingerprint: Fingerprint,
    /// Of what it says, if its profile is hot and that is to be taken once.
    alike: Option<Fingerprint>,
    /// It is on the log already, or what it says is.
    known: Option<AckLevel>,
    /// The first event of this batch that is the same, or says the same; itself if none is.
    first: usize,
    /// Its profile has too many.
    too_many: Option<(u32, HotProfiles)>,
}

/// A batch whose events have been judged.
#[derive(Default)]
struct Judged {
    slots: Vec<Slot>,
    records: Vec<NewRecord>,
    /// Memory for records to be made.
    room: BytesMut,
    /// What followers may ask for; empty while nobody follows.
    abouts: Vec<About>,
}

impl Gateway {
    /// Takes a batch. Judging happens at once, in the caller; the log's answer is awaited in a task of its own, so that a
    /// sender that goes away changes nothing. Awaiting the handle gives one verdict an event.
    pub(crate) fn accept(
        self: &Arc<Self>,
        events: &[&[u8]],
        transmission: Transmission,
    ) -> JoinHandle<Vec<Verdict>> {
        let work = self.drain.work();
        let entry = self.ledger.receive(&transmission.key.source, events.len());
        let grant = self.grant(&transmission, events.len());
        let (granted, others) = events.split_at_checked(grant.events).unwrap_or((events, &[]));
        let postponed = verdicts::postponed(others, &grant, &transmission.key.source);
        let mut judged = self.judge(granted, &transmission);
        self.expect_decisions(&judged, &transmission);
        let gateway = Arc::clone(self);
        tokio::spawn(async move {
            let answer = gateway.append(std::mem::take(&mut judged.records), transmission.ack).await;
            gateway.remember(&judged, &answer);
            let mut verdicts = verdicts::verdicts(&judged, &answer);
            verdicts.extend(postponed);
            entry.settle(&verdicts);
            gateway.show(&mut judged, &verdicts, &transmission);
            drop(work);
            verdicts
        })
    }

    /// Books what the members beside a batch's `events` say that the client has dropped.
    pub(crate) fn note_discarded(&self, source: &SourceName, envelope: &[Member<'_>]) {
        let events = self.discards.fresh(source, envelope);
        if events > 0 {
            self.ledger.discarded_by_client(source, events);
        }
    }

    /// What the verdict on an event would be by what can be known without the log; nothing is taken or kept.
    pub(crate) fn preview(&self, event: &[u8], transmission: &Transmission) -> Verdict {
        let (schemas, kill) = (self.schemas.load(), self.kill.load());
        let verdict =
            |event_id, status, reason, warnings| Verdict { event_id, status, acked: None, reason, warnings };
        match self.judge_one(&self.by_rules(&schemas, &kill, transmission), event, &mut Tape::default()).0 {
            Ok(checked) => verdict(Some(checked.event_id), Status::Accepted, None, checked.warnings),
            Err(refusal) => {
                verdict(refusal.event_id, refusal.status, Some(*refusal.reason), refusal.warnings)
            }
        }
    }

    /// How many of the events the key may send now.
    fn grant(&self, transmission: &Transmission, events: usize) -> Grant {
        let none = |reason| Grant { events: 0, refused: Some(reason) };
        if !transmission.key_is_good {
            return none(Reason::new(Code::KeyExpired).expecting("a key that is in force"));
        }
        if self.overload.sheds(transmission.key.policy.lane, events) {
            return none(Reason::new(Code::Overloaded).expecting("less load; later it may be taken"));
        }
        transmission.key.meter(events, transmission.received_at)
    }

    fn by_rules<'a>(
        &'a self,
        schemas: &'a Registry,
        kill: &'a KillRules,
        transmission: &'a Transmission,
    ) -> Judge<'a> {
        Judge {
            config: &self.config,
            schemas,
            kill,
            key: &transmission.key,
            entropy: &*self.entropy,
            received_at: transmission.received_at,
            sent_at: transmission.sent_at,
            signals: transmission.signals,
        }
    }

    fn judge(&self, events: &[&[u8]], transmission: &Transmission) -> Judged {
        let (schemas, kill) = (self.schemas.load(), self.kill.load());
        let mut judge = self.by_rules(&schemas, &kill, transmission);
        let mut tape = Tape::default();
        let judged = events.iter().enumerate().map(|(place, event)| {
            judge.sent_at = transmission.sent_at_of(place);
            self.judge_one(&judge, event, &mut tape)
        });
        let (findings, kept): (Vec<_>, Vec<_>) = judged.unzip();
        self.count_fits(&findings, transmission);
        let fingerprints = events.iter().zip(&findings).map(|(event, finding)| {
            let checked = finding.as_ref().ok()?;
            Some(self.recent.fingerprint(&transmission.key.source, &checked.profile, checked.event_id, event))
        });
        let fingerprints: Vec<_> = fingerprints.collect();
        let levels = self.recent.levels(&mut fingerprints.iter().copied());
        let hot = self.hot_among(&findings, transmission);
        let alike = self.alike(events, &findings, &hot, transmission);
        let told = self.recent.levels(&mut alike.iter().copied());
        let bytes: usize = events.iter().map(|event| event.len() + RECORD_ROOM).sum();
        let mut judged = Judged {
            slots: Vec::with_capacity(events.len()),
            records: Vec::with_capacity(events.len()),
            room: BytesMut::with_capacity(bytes),
            abouts: Vec::new(),
        };
        if self.tail.has_readers() {
            let limits = Limits { max_depth: self.config.depth };
            judged.abouts = events.iter().map(|event| About::of(event, limits)).collect();
        }
        let mut first = ByFingerprint::with_capacity_and_hasher(events.len(), BuildHasherDefault::default());
        for (place, (finding, kept)) in findings.into_iter().zip(&kept).enumerate() {
            let event = events.get(place).copied().unwrap_or_default();
            let event = Event { bytes: event, kept };
            let fingerprint = fingerprints.get(place).copied().flatten();
            let at = |levels: &[Option<AckLevel>]| levels.get(place).copied().flatten();
            match (finding, fingerprint) {
                (Ok(checked), Some(fingerprint)) => {
                    let alike = alike.get(place).copied().flatten();
                    let said = alike.map_or(place, |alike| *first.entry(alike).or_insert(place));
                    let seen = Seen {
                        fingerprint,
                        alike,
                        known: at(&levels).or_else(|| at(&told)),
                        first: said.min(*first.entry(fingerprint).or_insert(place)),
                        too_many: hot.get(place).copied().flatten(),
                    };
                    judged.take(event, checked, seen, transmission);
                }
                (Ok(checked), None) => {
                    judged.refuse(event, fault(Some(checked.event_id)), transmission, &self.config);
                }
                (Err(refusal), _) => judged.refuse(event, refusal, transmission, &self.config),
            }
        }
        judged
    }

    /// Contains panics of dependencies (a regex in a schema, a number parser) to the one event.
    fn judge_one(
        &self,
        judge: &Judge<'_>,
        event: &[u8],
        tape: &mut Tape,
    ) -> (Result<Checked, Refusal>, Kept) {
        let redactor = Redactor {
            schemas: judge.schemas,
            key: judge.key,
            secret: self.config.pii_secret.as_ref().map(SecretText::as_str),
            limits: Limits { max_depth: self.config.depth },
        };
        let judged = catch_unwind(AssertUnwindSafe(|| {
            let finding = judge.judge(event, tape);
            let (event_type, event_id, is_refused) = match &finding {
                Ok(checked) => (Some(&checked.event_type), Some(checked.event_id), false),
                Err(refusal) => (refusal.event_type.as_ref(), refusal.event_id, true),
            };
            let is_anonymous = objected(&finding).is_some();
            let redactor = Redactor { secret: redactor.secret.filter(|_| !is_anonymous), ..redactor };
            let is_stopped = matches!(&finding, Err(refusal) if refusal.remains != Remains::Bytes);
            let kept =
                if is_stopped { Kept::DigestOnly } else { redactor.keep(event, event_type, is_refused) };
            let kept = if is_anonymous { redactor.anonymise(event, &kept, event_id) } else { kept };
            (finding, kept)
        }));
        judged.unwrap_or_else(|_| {
            self.metrics.panics.inc();
            tracing::error!(bytes = event.len(), "judging an event panicked; it is in quarantine");
            let remains = judge.remains_unread();
            let kept = if remains == Remains::Bytes { redactor.keep_unjudged() } else { Kept::DigestOnly };
            (Err(Refusal { remains, ..fault(None) }), kept)
        })
    }

    /// Counts how the events fitted their schemas, once a schema and batch, and who objected.
    fn count_fits(&self, findings: &[Result<Checked, Refusal>], transmission: &Transmission) {
        let mut counts: Vec<(&Tried, u64)> = Vec::new();
        let tried = findings.iter().filter_map(|finding| match finding {
            Ok(checked) => checked.tried.as_ref(),
            Err(refusal) => refusal.tried.as_ref(),
        });
        for tried in tried {
            match counts.iter_mut().find(|(known, _)| *known == tried) {
                Some((_, count)) => *count += 1,
                None => counts.push((tried, 1)),
            }
        }
        let source = &transmission.key.source;
        for objected in findings.iter().filter_map(objected) {
            self.metrics.objected(source.as_str(), objected).inc();
        }
        for (tried, count) in counts {
            self.metrics.fitted(&tried.schema, tried.mode, tried.fit).inc_by(count);
        }
    }

    /// Lets decisions that these events cause find their way back; before they are written, because decisions may be quick.
    fn expect_decisions(&self, judged: &Judged, transmission: &Transmission) {
        let Some(session) = &transmission.session else { return };
        let written = judged.slots.iter().filter(|slot| matches!(slot.fate, Fate::Written { .. }));
        self.push.expect(session, &mut written.filter_map(|slot| slot.event_id));
    }

    async fn append(&self, records: Vec<NewRecord>, ack: AckLevel) -> Result<Answers, AppendError> {
        if records.is_empty() {
            return Ok(Answers::new());
        }
        let _waiting = self.overload.wait(records.len());
        let begun = Instant::now();
        let answer = self.log.append(records, ack).await;
        self.metrics.append_seconds.observe(begun.elapsed().as_secs_f64());
        if let Err(error) = &answer {
            tracing::warn!(%error, "the log did not take a batch");
        }
        answer
    }

    fn remember(&self, judged: &Judged, answer: &Result<Answers, AppendError>) {
        let Ok(answers) = answer else { return };
        let level = |record: usize| Some(answers.get(record)?.as_ref().ok()?.level);
        let mut written = judged.slots.iter().flat_map(|slot| match slot.fate {
            Fate::Written { record, fingerprint, alike } => {
                let both = [Some(fingerprint), alike];
                both.map(|fingerprint| Some((fingerprint?, level(record)?)))
            }
            _ => [None, None],
        });
        let mut written = written.by_ref().flatten();
        self.recent.remember(&mut written);
    }

    fn show(&self, judged: &mut Judged, verdicts: &[Verdict], transmission: &Transmission) {
        if !self.tail.has_readers() {
            return;
        }
        let types = judged.slots.iter().map(|slot| slot.event_type.as_ref()).chain(std::iter::repeat(None));
        let abouts =
            std::mem::take(&mut judged.abouts).into_iter().chain(std::iter::repeat_with(About::default));
        for ((event_type, verdict), about) in types.zip(verdicts).zip(abouts) {
            self.tail.publish(transmission.received_at, &transmission.key.source, event_type, verdict, about);
        }
    }
}

impl Judged {
    fn take(&mut self, event: Event<'_>, checked: Checked, seen: Seen, transmission: &Transmission) {
        let Seen { fingerprint, alike, known, first, too_many } = seen;
        let fate = if let Some(level) = known {
            Fate::Known(level)
        } else if first < self.slots.len() {
            Fate::SameAs { slot: first }
        } else if let Some(policy) = too_many.filter(|(_, action)| *action == HotProfiles::Limit) {
            Fate::TooMany { reason: Box::new(hot::limited(policy)) }
        } else {
            let record = route::event_record(event.bytes, event.kept, &checked, transmission, &mut self.room);
            self.records.push(record);
            Fate::Written { record: self.records.len() - 1, fingerprint, alike }
        };
        let Checked { event_id, event_type, mut warnings, .. } = checked;
        if alike.is_some() && !matches!(fate, Fate::Written { .. }) {
            warnings.push(Warning::of(hot::WARN_COALESCED));
        }
        self.slots.push(Slot { event_id: Some(event_id), event_type: Some(event_type), warnings, fate });
    }

    fn refuse(
        &mut self,
        event: Event<'_>,
        refusal: Refusal,
        transmission: &Transmission,
        config: &crate::GatewayConfig,
    ) {
        if refusal.remains != Remains::Nothing {
            self.records.push(route::quarantine_record(
                event.bytes,
                event.kept,
                &refusal,
                transmission,
                transmission.sent_at_of(self.slots.len()),
                config.quarantine_bytes,
            ));
        }
        let Refusal { event_id, event_type, status, reason, warnings, remains, .. } = refusal;
        let fate = match remains {
            Remains::Bytes => Fate::Refused { status, reason, record: self.records.len() - 1 },
            Remains::Line | Remains::Nothing => Fate::Stopped { status, reason },
        };
        self.slots.push(Slot { event_id, event_type, warnings, fate });
    }
}

fn objected(finding: &Result<Checked, Refusal>) -> Option<Objected> {
    match finding {
        Ok(checked) => checked.objected,
        Err(refusal) => refusal.objected,
    }
}

fn fault(event_id: Option<EventId>) -> Refusal {
    let reason = Box::new(
        Reason::new(Code::Internal).expecting("nothing else of you: this is a fault of the gateway"),
    );
    Refusal {
        event_id,
        event_type: None,
        status: Status::Rejected,
        reason,
        remains: Remains::Bytes,
        objected: None,
        tried: None,
        warnings: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
