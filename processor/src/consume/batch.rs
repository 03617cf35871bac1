//! One batch of records: reads ids and profiles, steps, and makes one store batch of all effects.
//!
//! **Invariant:** the store batch holds everything the records caused, the next offset among it; nothing is changed before it is
//! committed, so a batch that fails can be tried again. Batch boundaries have no meaning: any cut gives the same records out.

use std::collections::HashMap;

use broker::log::{NewRecord, Record};
use processor_core::output::Notes;
use processor_core::profile::encode;
use processor_core::{Control, EventInput, Input, Outcome, Outputs, Profile, Program, step};
use schemas::event::LoggedEvent;
use schemas::id::{EventId, ProfileKey};
use schemas::time::Timestamp;
use schemas::topic::PartitionId;

use super::cache::Caches;
use super::decode::{Decoded, decode};
use super::keys::{self, Scope, Seen};
use super::ledger::PartitionState;
use super::outbox::{self, Cause};
use super::quarantine;
use crate::control::ControlKey;
use crate::store::{Space, StateStore, StoreError, WriteBatch};

/// Timers handled at the end of a batch.
const MAX_TIMERS: usize = 1_000;
/// Dedup ids forgotten at the end of a batch.
const MAX_FORGOTTEN: usize = 2_000;

/// What a batch runs by.
#[derive(Debug)]
pub(crate) struct Rulebook {
    pub(crate) program: Program,
    pub(crate) control_key: ControlKey,
    pub(crate) dedup_window_ms: i64,
}

/// What a batch did.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) state: PartitionState,
    pub(crate) writes: WriteBatch,
    /// To append after the commit, with their numbers in the outbox.
    pub(crate) records: Vec<(u64, NewRecord)>,
    /// What the batch touched, with the lengths of the stored forms; for [`Caches`], after the commit.
    pub(crate) profiles: Vec<(Profile, usize)>,
    pub(crate) notes: Notes,
    pub(crate) decisions: u64,
    /// `received_at` of the events that decided, for the latency.
    pub(crate) decided: Vec<Timestamp>,
    /// Timers or buckets are left for the next batch.
    pub(crate) unfinished: bool,
}

struct Loaded {
    profile: Profile,
    /// The timer that the store holds for it.
    timer: Option<Timestamp>,
}

/// A batch being made.
pub(crate) struct Work<'a> {
    rulebook: &'a Rulebook,
    store: &'a dyn StateStore,
    partition: PartitionId,
    caches: &'a mut Caches,
    profiles: HashMap<ProfileKey, Loaded>,
    seen: HashMap<Vec<u8>, Seen>,
    effects: Effects,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        rulebook: &'a Rulebook,
        store: &'a dyn StateStore,
        partition: PartitionId,
        state: PartitionState,
        caches: &'a mut Caches,
    ) -> Self {
        let effects = Effects { state, ..Effects::default() };
        Self { rulebook, store, partition, caches, profiles: HashMap::new(), seen: HashMap::new(), effects }
    }

    /// Takes one record in.
    pub(crate) fn record(&mut self, record: &Record) -> Result<(), StoreError> {
        match decode(record, &self.rulebook.control_key) {
            Decoded::Event(event, key) => self.event(record, &event, key)?,
            Decoded::Control(read) => {
                self.time_passes(read.received_at);
                self.effects.state.ledger.control += 1;
                let seen = Seen { received_at: read.received_at, body: [0; 16], ..self.seen_at(record) };
                if self.first(read.id, Scope::control(), seen)?.is_none() {
                    self.control(record, read.id, &read.control)?;
                }
            }
            Decoded::Poison(reason) => self.poison(record, &reason),
        }
        self.effects.state.ledger.consumed += 1;
        self.effects.state.next = Some(record.offset.next());
        Ok(())
    }

    /// Puts a whole record aside.
    pub(crate) fn poisoned(&mut self, record: &Record, reason: &schemas::verdict::Reason) {
        self.poison(record, reason);
        self.effects.state.ledger.consumed += 1;
        self.effects.state.next = Some(record.offset.next());
    }

    fn poison(&mut self, record: &Record, reason: &schemas::verdict::Reason) {
        self.effects.state.ledger.quarantined += 1;
        let note = quarantine::record(record, reason);
        self.push(note);
    }

    /// Ends the batch: timers whose time has come, ids past the window, profiles, state.
    pub(crate) fn finish(mut self) -> Result<Effects, StoreError> {
        self.timers()?;
        self.forget()?;
        let program = &self.rulebook.program;
        self.effects.profiles.reserve(self.profiles.len());
        for (_, Loaded { profile, timer }) in self.profiles {
            let key = &profile.key;
            let write = |bytes: &mut Vec<u8>| encode::encode_to(&profile, bytes);
            let length = self.effects.writes.put_with(Space::Profile, keys::profile(key), write);
            let next = profile.next_timer(program);
            if next != timer {
                if let Some(old) = timer {
                    self.effects.writes.remove(Space::Timer, keys::timer(self.partition, old, key));
                }
                if let Some(new) = next {
                    self.effects.writes.put(Space::Timer, keys::timer(self.partition, new, key), b"");
                }
            }
            self.effects.profiles.push((profile, length));
        }
        for (number, record) in &self.effects.records {
            let key = keys::outbox(self.partition, *number);
            self.effects.writes.put_with(Space::Outbox, key, |bytes| outbox::encode(record, bytes));
        }
        let state = serde_json::to_vec(&self.effects.state)
            .map_err(|error| StoreError::Unreadable(error.to_string()))?;
        self.effects.writes.put(Space::Meta, keys::meta(self.partition), state);
        Ok(self.effects)
    }

    fn seen_at(&self, record: &Record) -> Seen {
        Seen {
            received_at: self.effects.state.now(),
            body: [0; 16],
            partition: self.partition,
            offset: record.offset,
            late: false,
        }
    }

    fn time_passes(&mut self, received_at: Timestamp) {
        self.effects.state.now_ms = self.effects.state.now_ms.max(received_at.0);
    }

    fn event(
        &mut self,
        record: &Record,
        event: &LoggedEvent<'_>,
        key: Option<ProfileKey>,
    ) -> Result<(), StoreError> {
        let receipt = &event.receipt;
        self.time_passes(receipt.received_at);
        let scope_key = key.clone().or_else(|| event.profile_key());
        let Some(scope_key) = scope_key else { return Ok(()) };
        let scope = Scope::of(&scope_key, &receipt.source);
        let body = keys::digest(&[event.body]);
        let seen = Seen { received_at: receipt.received_at, body, ..self.seen_at(record) };
        if let Some(first) = self.first(receipt.event_id, scope, seen)? {
            self.effects.state.ledger.duplicate += 1;
            self.effects.state.ledger.conflict += u64::from(first.body != body);
            return Ok(());
        }
        let Some(key) = key else {
            self.effects.state.ledger.applied += 1;
            return Ok(());
        };
        let mut input = EventInput::new(event);
        input.enrichment.user_agent =
            receipt.user_agent.as_deref().and_then(|header| self.caches.agents.parse(header));
        let outcome = self.step(record, &key, Input::Event(&input), Some(receipt.event_id))?;
        if outcome.decisions > 0 {
            self.effects.decided.push(receipt.received_at);
        }
        match outcome.outcome {
            Outcome::Applied => self.effects.state.ledger.applied += 1,
            Outcome::Late => {
                self.effects.state.ledger.late += 1;
                self.remember(keys::dedup(receipt.event_id, scope), Seen { late: true, ..seen });
            }
        }
        Ok(())
    }

    fn control(&mut self, record: &Record, id: EventId, control: &Control) -> Result<(), StoreError> {
        if let Some(subject) = control.subject() {
            self.step(record, &subject.clone(), Input::Control(control), Some(id))?;
        }
        Ok(())
    }

    fn step(
        &mut self,
        record: &Record,
        key: &ProfileKey,
        input: Input<'_>,
        event: Option<EventId>,
    ) -> Result<Stepped, StoreError> {
        let now = self.effects.state.now();
        let rulebook = self.rulebook;
        let out = step(&rulebook.program, &mut self.load(key)?.profile, input, now);
        let cause = Cause { at: record.at, offset: record.offset, event, now };
        self.note(&out);
        for record in outbox::records(&out, key, cause, &rulebook.control_key) {
            self.push(record);
        }
        Ok(Stepped { outcome: out.outcome, decisions: out.decisions.len() })
    }

    fn note(&mut self, out: &Outputs) {
        let (sum, new) = (&mut self.effects.notes, out.notes);
        sum.evicted_keys += new.evicted_keys;
        sum.unsummed += new.unsummed;
        sum.refused_devices += new.refused_devices;
        sum.refused_aliases += new.refused_aliases;
        sum.refused_traits += new.refused_traits;
        sum.given_way += new.given_way;
        sum.absent_keys += new.absent_keys;
        sum.deferred_events += new.deferred_events;
        sum.histories_missed += new.histories_missed;
        self.effects.decisions += u64::try_from(out.decisions.len()).unwrap_or_default();
    }

    fn push(&mut self, record: NewRecord) {
        self.effects.records.push((self.effects.state.outbox, record));
        self.effects.state.outbox += 1;
    }

    fn load(&mut self, key: &ProfileKey) -> Result<&mut Loaded, StoreError> {
        if !self.profiles.contains_key(key) {
            let profile = match self.caches.profiles.take(key) {
                Some(profile) => profile,
                None => read_profile(self.store, key)?.unwrap_or_else(|| Profile::new(key.clone())),
            };
            let timer = profile.next_timer(&self.rulebook.program);
            self.profiles.insert(key.clone(), Loaded { profile, timer });
        }
        self.profiles.get_mut(key).ok_or_else(|| StoreError::Unavailable("a profile is gone".to_owned()))
    }

    /// Where the id was seen first, if within the window; otherwise this is the first.
    fn first(&mut self, id: EventId, scope: Scope, seen: Seen) -> Result<Option<Seen>, StoreError> {
        let key = keys::dedup(id, scope);
        let known = match self.seen.get(&key) {
            Some(seen) => Some(*seen),
            None => match self.store.get(Space::Dedup, &key)? {
                Some(bytes) => Some(
                    Seen::read(&bytes).ok_or_else(|| StoreError::Unreadable("a dedup entry".to_owned()))?,
                ),
                None => None,
            },
        };
        let oldest = self.effects.state.now_ms.saturating_sub(self.rulebook.dedup_window_ms);
        let known = known.filter(|known| known.received_at.0 > oldest);
        if known.is_none() {
            self.remember(key, seen);
        }
        Ok(known)
    }

    fn remember(&mut self, key: Vec<u8>, seen: Seen) {
        self.effects.writes.put(Space::Dedup, keys::bucket(self.partition, seen.received_at, &key), b"");
        self.effects.writes.put(Space::Dedup, &key, seen.write());
        self.seen.insert(key, seen);
    }

    fn timers(&mut self) -> Result<(), StoreError> {
        let now = self.effects.state.now();
        let (from, to) = keys::timers_until(self.partition, now);
        let due = self.store.scan(Space::Timer, &from, &to, MAX_TIMERS)?;
        self.effects.unfinished |= due.len() == MAX_TIMERS;
        let mut ready: Vec<ProfileKey> = Vec::with_capacity(due.len());
        for (stored, _) in due {
            let (_, key) =
                keys::read_timer(&stored).ok_or_else(|| StoreError::Unreadable("a timer".to_owned()))?;
            self.effects.writes.remove(Space::Timer, stored);
            ready.push(key);
        }
        let program = &self.rulebook.program;
        let touched = self
            .profiles
            .iter()
            .filter(|(_, loaded)| loaded.profile.next_timer(program).is_some_and(|due| due <= now));
        ready.extend(touched.map(|(key, _)| key.clone()));
        ready.sort();
        ready.dedup();
        for key in ready {
            let out = step(program, &mut self.load(&key)?.profile, Input::Timer, now);
            self.note(&out);
            let at = schemas::topic::TopicPartition {
                topic: schemas::topic::Topic::Events,
                partition: self.partition,
            };
            let offset = self.effects.state.next.unwrap_or_default();
            let cause = Cause { at, offset, event: None, now };
            for record in outbox::records(&out, &key, cause, &self.rulebook.control_key) {
                self.push(record);
            }
        }
        Ok(())
    }

    fn forget(&mut self) -> Result<(), StoreError> {
        let before = Timestamp(self.effects.state.now_ms.saturating_sub(self.rulebook.dedup_window_ms));
        if before.0.div_euclid(keys::BUCKET_MS) <= self.effects.state.swept_ms.div_euclid(keys::BUCKET_MS) {
            return Ok(());
        }
        let (from, to) = keys::buckets_before(self.partition, before);
        let gone = self.store.scan(Space::Dedup, &from, &to, MAX_FORGOTTEN)?;
        if gone.len() < MAX_FORGOTTEN {
            self.effects.state.swept_ms = before.0;
        } else {
            self.effects.unfinished = true;
        }
        for (bucket, _) in gone {
            let by_id = keys::by_id_of_bucket(&bucket).unwrap_or(&[]).to_vec();
            let stored = self.store.get(Space::Dedup, &by_id)?.and_then(|bytes| Seen::read(&bytes));
            // An id that came again after its window stands in a newer bucket too, and stays.
            let ended =
                stored.is_some_and(|seen| keys::bucket(self.partition, seen.received_at, &by_id) == bucket);
            if ended && !self.seen.contains_key(&by_id) {
                self.effects.writes.remove(Space::Dedup, by_id);
            }
            self.effects.writes.remove(Space::Dedup, bucket);
        }
        Ok(())
    }
}

struct Stepped {
    outcome: Outcome,
    decisions: usize,
}

/// Reads a profile.
pub(crate) fn read_profile(store: &dyn StateStore, key: &ProfileKey) -> Result<Option<Profile>, StoreError> {
    let bytes = store.get(Space::Profile, &keys::profile(key))?;
    bytes
        .map(|bytes| encode::decode(&bytes))
        .transpose()
        .map_err(|error| StoreError::Unreadable(error.to_string()))
}
