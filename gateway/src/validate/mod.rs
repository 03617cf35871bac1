//! Judges one event: is it JSON of the right shape, who and when is it about, does it fit its schema.
//!
//! **Invariant:** a refusal names a stable code and the place, and never repeats what was sent; an accepted event has an id, a
//! type, somebody it is about and an instant.

mod fields;

use std::borrow::Cow;
use std::sync::Arc;

use schemas::event::{RESERVED_TYPE_PREFIX, somebody};
use schemas::id::{EventId, EventType, ProfileKey, ProfileKind, SourceName, means_nobody};
use schemas::json::{self, Tape};
use schemas::receipt::SchemaFault;
use schemas::registry::{Mode, Registry};
use schemas::time::Timestamp;
use schemas::verdict::{Code, Reason, Status, Warning};

use self::fields::{Fields, invalid, missing, no_control_characters};
use crate::authenticate::Key;
use crate::config::{GatewayConfig, UnknownTypes};
use crate::consent::{self, Objected, Signals};
use crate::decode::native::{ROUGH_MS, SentAt, instant, salvage_event_id};
use crate::entropy::{Entropy, mint_event_id};
use crate::kill::{KillRules, Suspect};
use crate::telemetry::Fit;

/// The event's id means nobody and counts as absent.
pub(crate) const WARN_NOBODY: &str = "identity.nobody";
/// A member at the top that the contract does not know; kept.
pub(crate) const WARN_UNKNOWN_FIELD: &str = "event.unknown_field";
/// The event's time lay in the future and was clamped.
pub(crate) const WARN_CLAMPED: &str = "timestamp.clamped";
/// `sent_at` could not be read, so times are not corrected.
pub(crate) const WARN_SENT_AT: &str = "sent_at.ignored";
/// The id was no UUID; the answer and the record name one derived from it.
pub(crate) const WARN_FOREIGN_ID: &str = "event_id.derived";

/// The person objected to being measured (`keyword` says how): the event is kept without who, device and page.
pub(crate) const WARN_ANONYMISED: &str = "privacy.anonymised";

/// The event does not fit its schema, which is only observed.
pub(crate) const WARN_UNFIT: &str = "schema.invalid";

/// An event may lie this far in the future, milliseconds: clocks differ a little.
const FUTURE_TOLERANCE_MS: i64 = 60_000;
/// Longest event type, bytes.
const MAX_TYPE_BYTES: usize = 128;
/// Longest `session_id` and `event_id`, bytes.
const MAX_ATTRIBUTE_BYTES: usize = 512;
/// Warnings told of one event.
const MAX_WARNINGS: usize = 8;

/// What judging an event needs beside its bytes.
pub(crate) struct Judge<'a> {
    pub(crate) config: &'a GatewayConfig,
    pub(crate) schemas: &'a Registry,
    pub(crate) kill: &'a KillRules,
    pub(crate) key: &'a Key,
    pub(crate) entropy: &'a dyn Entropy,
    pub(crate) received_at: Timestamp,
    pub(crate) sent_at: SentAt,
    pub(crate) signals: Signals,
}

/// What was found out about an event that is taken.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) event_id: EventId,
    pub(crate) original_event_id: Option<String>,
    pub(crate) event_type: EventType,
    pub(crate) profile: ProfileKey,
    pub(crate) occurred_at: Timestamp,
    pub(crate) clamped_from: Option<Timestamp>,
    /// The schema judged by; `None` if there is none or the event was not judged.
    pub(crate) schema: Option<Arc<str>>,
    /// Why it does not fit, where that is only observed.
    pub(crate) schema_fault: Option<SchemaFault>,
    /// It is taken without the person.
    pub(crate) objected: Option<Objected>,
    pub(crate) tried: Option<Tried>,
    pub(crate) warnings: Vec<Warning>,
}

/// What became of judging an event by its schema, to be counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tried {
    pub(crate) schema: Arc<str>,
    pub(crate) mode: Mode,
    pub(crate) fit: Fit,
}

/// Why an event is not taken.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) event_id: Option<EventId>,
    pub(crate) event_type: Option<EventType>,
    /// `Rejected` or `Quarantined`.
    pub(crate) status: Status,
    pub(crate) reason: Box<Reason>,
    /// What is left of it in quarantine.
    pub(crate) remains: Remains,
    /// The person objected to being measured.
    pub(crate) objected: Option<Objected>,
    pub(crate) tried: Option<Tried>,
    pub(crate) warnings: Vec<Warning>,
}

/// What a refused event leaves in quarantine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Remains {
    /// Its bytes, as far as they may be kept.
    #[default]
    Bytes,
    /// Its id, length and hash; the refusal stands even if these cannot be written.
    Line,
    /// Nothing.
    Nothing,
}

/// Collects what is known when an event is refused half-way.
#[derive(Default)]
struct Findings {
    event_id: Option<EventId>,
    original_event_id: Option<String>,
    event_type: Option<EventType>,
    schema_fault: Option<SchemaFault>,
    tried: Option<Tried>,
    /// An operator's rule was asked already.
    was_suspected: bool,
    /// Consent was asked for already, with this answer.
    was_asked: bool,
    objected: Option<Objected>,
    remains: Remains,
    warnings: Vec<Warning>,
}

type Checks<T> = Result<T, Box<Reason>>;

impl Judge<'_> {
    /// Judges one event. The tape is memory that the next event uses again.
    pub(crate) fn judge(&self, event: &[u8], tape: &mut Tape) -> Result<Checked, Refusal> {
        let mut findings = Findings::default();
        let checked = self.check(event, tape, &mut findings);
        let (mut status, mut reason) = match checked {
            Ok(checked) => return Ok(checked),
            Err(refused) => refused,
        };
        if !findings.was_asked {
            findings.objected = Objected::by(&self.key.policy.privacy, self.signals, None);
            findings.remains = self.remains_unread();
            findings.was_suspected |= findings.objected.is_some();
        }
        findings.event_id = findings.event_id.or_else(|| salvaged_id(event, &self.key.source));
        if !findings.was_suspected
            && let Err(stopped) = self.stop(event, None, &mut findings)
        {
            (status, reason) = stopped;
        }
        Err(Refusal {
            event_id: findings.event_id,
            event_type: findings.event_type,
            status,
            reason,
            remains: findings.remains,
            objected: findings.objected,
            tried: findings.tried,
            warnings: findings.warnings,
        })
    }

    /// What is kept of an event whose consent cannot be read.
    pub(crate) fn remains_unread(&self) -> Remains {
        match Objected::by(&self.key.policy.privacy, self.signals, None) {
            None => Remains::Bytes,
            Some(Objected { drops: false, .. }) => Remains::Line,
            Some(Objected { drops: true, .. }) => Remains::Nothing,
        }
    }

    /// Whether the person wants to be known.
    fn consents(&self, fields: &Fields<'_>, findings: &mut Findings) -> Result<(), (Status, Box<Reason>)> {
        findings.was_asked = true;
        findings.objected = Objected::by(&self.key.policy.privacy, self.signals, fields.get("consent"));
        let Some(objected) = findings.objected else { return Ok(()) };
        if objected.drops {
            (findings.was_suspected, findings.remains) = (true, Remains::Nothing);
            return Err((Status::Rejected, Box::new(objected.reason())));
        }
        let warning = Warning {
            code: WARN_ANONYMISED.to_owned(),
            pointer: None,
            keyword: Some(objected.cause.as_str().to_owned()),
            schema: None,
        };
        findings.warnings.push(warning);
        Ok(())
    }

    /// Refuses what a kill rule names; before the schema is asked, which may be what is wrong.
    fn stop(
        &self,
        event: &[u8],
        fields: Option<&Fields<'_>>,
        findings: &mut Findings,
    ) -> Result<(), (Status, Box<Reason>)> {
        findings.was_suspected = true;
        if self.kill.is_empty() {
            return Ok(());
        }
        let context = fields.and_then(|fields| fields.get("context"));
        let stop = self.kill.stops(&Suspect {
            source: &self.key.source,
            event_type: findings.event_type.as_ref().map(EventType::as_str),
            event_id: findings.event_id,
            context: context.map(|member| member.value),
            event,
            now: self.received_at,
        });
        let Some(stop) = stop else { return Ok(()) };
        findings.remains = match stop.status {
            Status::Quarantined => Remains::Bytes,
            _ if stop.trace => Remains::Line,
            _ => Remains::Nothing,
        };
        Err((stop.status, stop.reason))
    }

    fn check(
        &self,
        event: &[u8],
        tape: &mut Tape,
        findings: &mut Findings,
    ) -> Result<Checked, (Status, Box<Reason>)> {
        let rejected = |reason| (Status::Rejected, reason);
        let fields = self.scan(event, tape).map_err(rejected)?;
        self.consents(&fields, findings)?;
        self.identify_event(&fields, findings).map_err(rejected)?;
        let event_type = self.event_type(&fields).map_err(rejected)?;
        findings.event_type = Some(event_type.clone());
        self.stop(event, Some(&fields), findings)?;
        fields.check_kinds().map_err(rejected)?;
        let somebody = match findings.objected {
            None => Some(self.profile(&fields, findings).map_err(rejected)?),
            Some(_) => None,
        };
        let (occurred_at, clamped_from) = self.occurred_at(&fields, findings).map_err(rejected)?;
        let schema = self.fits_schema(event, &fields, &event_type, findings)?;
        fields.warn_of_unknown(findings);
        let event_id = match findings.event_id {
            Some(id) => id,
            None => mint_event_id(self.entropy, self.received_at)
                .map_err(|_| rejected(Box::new(Reason::new(Code::Internal))))?,
        };
        Ok(Checked {
            event_id,
            original_event_id: findings.original_event_id.take().filter(|_| findings.objected.is_none()),
            event_type,
            profile: somebody.unwrap_or_else(|| consent::nobody(event_id)),
            occurred_at,
            clamped_from,
            schema,
            schema_fault: findings.schema_fault.take(),
            objected: findings.objected,
            tried: findings.tried.take(),
            warnings: std::mem::take(&mut findings.warnings),
        })
    }

    fn scan<'e>(&self, event: &'e [u8], tape: &'e mut Tape) -> Checks<Fields<'e>> {
        if event.len() > self.config.event_bytes {
            // Of a longer line of a stream no more is read.
            let more = if event.len() >= self.config.batch_bytes { " or more" } else { "" };
            let (most, size) = (self.config.event_bytes, event.len());
            let expected = format!("at most {most} bytes; this event has {size}{more}");
            return Err(Box::new(Reason::new(Code::EventTooLarge).expecting(expected)));
        }
        let scanned = tape.object(event, json::Limits { max_depth: self.config.depth }).map_err(|error| {
            let reason = Reason::new(error.code);
            Box::new(if error.pointer.is_empty() { reason } else { reason.at(error.pointer) })
        })?;
        let fields = Fields::of(scanned);
        // Without case, because some readers of JSON compare names so.
        if fields.unknown().any(|name| name.eq_ignore_ascii_case("receipt")) {
            let reason = Reason::new(Code::EventReservedField).at("/receipt");
            return Err(Box::new(reason.expecting("no member of this name: the gateway writes it")));
        }
        Ok(fields)
    }

    /// Finds or derives the id. An absent one is minted only when the event is taken.
    fn identify_event(&self, fields: &Fields<'_>, findings: &mut Findings) -> Checks<()> {
        let Some(member) = fields.get("event_id") else { return Ok(()) };
        let id = member.str().ok_or_else(|| invalid("event_id", "a UUID as a string"))?;
        if let Some(id) = EventId::parse(&id) {
            findings.event_id = Some(id);
            return Ok(());
        }
        if id.trim().is_empty() || id.len() > MAX_ATTRIBUTE_BYTES {
            return Err(invalid("event_id", "a UUID, or another id of 1 to 512 bytes").into());
        }
        no_control_characters("event_id", &id)?;
        findings.event_id = Some(EventId::foreign(&self.key.source, None, &id));
        findings.original_event_id = Some(id.into_owned());
        findings.warn(WARN_FOREIGN_ID, "/event_id");
        Ok(())
    }

    fn event_type(&self, fields: &Fields<'_>) -> Checks<EventType> {
        let member =
            fields.get("event_type").ok_or_else(|| missing("event_type", "a name such as `product_view`"))?;
        let name = member.str().ok_or_else(|| invalid("event_type", "a string"))?;
        if name.is_empty() || name.len() > MAX_TYPE_BYTES {
            return Err(invalid("event_type", "a name of 1 to 128 bytes").into());
        }
        no_control_characters("event_type", &name)?;
        let refused = |code| Box::new(Reason::new(code).at("/event_type"));
        if name.starts_with(RESERVED_TYPE_PREFIX) {
            return Err(refused(Code::EventTypeReserved));
        }
        if !self.key.allows_type(&name) {
            return Err(refused(Code::EventTypeNotAllowed));
        }
        Ok(EventType::new(name.into_owned()))
    }

    fn profile(&self, fields: &Fields<'_>, findings: &mut Findings) -> Checks<ProfileKey> {
        let user = self.identity("user_id", fields, findings)?;
        let anonymous = self.identity("anonymous_id", fields, findings)?;
        let key = |kind| move |id: Cow<'_, str>| ProfileKey { kind, id: id.into_owned() };
        let user = user.map(key(ProfileKind::User));
        user.or_else(|| anonymous.map(key(ProfileKind::Anonymous))).ok_or_else(|| {
            Box::new(
                Reason::new(Code::IdentityMissing)
                    .expecting("a `user_id` or `anonymous_id` that means somebody"),
            )
        })
    }

    fn identity<'e>(
        &self,
        name: &'static str,
        fields: &Fields<'e>,
        findings: &mut Findings,
    ) -> Checks<Option<Cow<'e, str>>> {
        let Some(member) = fields.get(name) else { return Ok(None) };
        let Some(id) = somebody(member) else {
            findings.warn(WARN_NOBODY, &format!("/{name}"));
            return Ok(None);
        };
        if id.len() > self.config.id_bytes {
            return Err(invalid(name, &format!("at most {} bytes", self.config.id_bytes)).into());
        }
        no_control_characters(name, &id)?;
        debug_assert!(!means_nobody(&id));
        Ok(Some(id))
    }

    /// The sender's time, corrected by how far its clock is off, clamped if it lies in the future.
    fn occurred_at(
        &self,
        fields: &Fields<'_>,
        findings: &mut Findings,
    ) -> Checks<(Timestamp, Option<Timestamp>)> {
        let Some(member) = fields.get("timestamp") else {
            return Ok((self.received_at.plus_millis(-self.sent_at.age_ms()), None));
        };
        let sent =
            instant(member).ok_or_else(|| invalid("timestamp", "RFC 3339, or milliseconds since 1970"))?;
        let corrected = match self.sent_at {
            SentAt::Absent | SentAt::After(_) => sent,
            SentAt::Roughly(at)
                if self.received_at.as_millis().abs_diff(at.as_millis()) < ROUGH_MS.unsigned_abs() =>
            {
                sent
            }
            SentAt::At(sent_at) | SentAt::Roughly(sent_at) => {
                // What the correction would move out of the believable range stays as sent.
                let moved =
                    sent.plus_millis(self.received_at.as_millis().saturating_sub(sent_at.as_millis()));
                Timestamp::from_epoch_number(moved.as_millis() as f64)
                    .filter(|read| *read == moved)
                    .unwrap_or(sent)
            }
            SentAt::Unreadable => {
                findings.warn(WARN_SENT_AT, "/timestamp");
                sent
            }
        };
        let latest = self.received_at.plus_millis(FUTURE_TOLERANCE_MS);
        if corrected <= latest {
            return Ok((corrected, None));
        }
        findings.warn(WARN_CLAMPED, "/timestamp");
        Ok((latest, Some(corrected)))
    }

    /// The schema judged by, if there is one and the event was judged.
    fn fits_schema(
        &self,
        event: &[u8],
        fields: &Fields<'_>,
        event_type: &EventType,
        findings: &mut Findings,
    ) -> Result<Option<Arc<str>>, (Status, Box<Reason>)> {
        let rejected = |reason| (Status::Rejected, reason);
        let pinned = fields.pinned_schema().map_err(rejected)?;
        let Some(schema) = self.schemas.schema(event_type, pinned.as_deref()).map_err(rejected)? else {
            let reason = || Box::new(Reason::new(Code::SchemaUnknown).at("/event_type"));
            return match self.key.policy.unknown_types {
                UnknownTypes::Accept => Ok(None),
                UnknownTypes::Quarantine => Err((Status::Quarantined, reason())),
                UnknownTypes::Reject => Err((Status::Rejected, reason())),
            };
        };
        let (name, mode) = (Arc::clone(schema.name()), schema.mode());
        let tried = |fit| Some(Tried { schema: name.clone(), mode, fit });
        let sampled_by = findings.event_id.as_ref().map_or(event, |id| id.as_bytes());
        if !mode.judges(sampled_by) {
            findings.tried = tried(Fit::Unjudged);
            return Ok(None);
        }
        let metadata = fields.get("metadata").and(fields.metadata);
        let Err(reason) = schema.check_scanned(metadata) else {
            findings.tried = tried(Fit::Fits);
            return Ok(Some(name));
        };
        findings.tried = tried(Fit::Unfit);
        match mode {
            Mode::Enforce => Err((Status::Rejected, reason)),
            Mode::Quarantine => Err((Status::Quarantined, reason)),
            Mode::Observe | Mode::Sample(_) => {
                findings.observe(*reason);
                Ok(Some(name))
            }
        }
    }
}

/// The id of an event that was not or could not be scanned.
pub(crate) fn salvaged_id(event: &[u8], source: &SourceName) -> Option<EventId> {
    let id = salvage_event_id(event)?;
    let foreign = || {
        let usable = !id.trim().is_empty() && id.len() <= MAX_ATTRIBUTE_BYTES && !id.contains(['\\', '\0']);
        usable.then(|| EventId::foreign(source, None, id))
    };
    EventId::parse(id).or_else(foreign)
}

impl Findings {
    fn warn(&mut self, code: &str, pointer: &str) {
        if self.warnings.len() < MAX_WARNINGS {
            let (code, pointer) = (code.to_owned(), Some(pointer.to_owned()));
            self.warnings.push(Warning { code, pointer, keyword: None, schema: None });
        }
    }

    /// Notes that the event is taken although it does not fit. This warning is told first: there is room for it.
    fn observe(&mut self, reason: Reason) {
        let Reason { pointer, keyword, schema, .. } = reason;
        self.schema_fault = Some(SchemaFault {
            pointer: pointer.clone().unwrap_or_default(),
            keyword: keyword.clone().unwrap_or_default(),
        });
        self.warnings.insert(0, Warning { code: WARN_UNFIT.to_owned(), pointer, keyword, schema });
        self.warnings.truncate(MAX_WARNINGS);
    }
}

#[cfg(test)]
mod tests;
