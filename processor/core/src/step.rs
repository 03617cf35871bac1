//! The step: one input of one profile.
//!
//! Order: what is due is done (sessions that ended are closed, histories that did not come are given up); then the input has its
//! effect; then sessions that it left in the past are closed too. So a late timer changes nothing but when it is told, and batches
//! have no meaning.
//!
//! A profile that asks others for their history (a device joined, an alias) decides nothing until it is there: rules see the whole
//! history or, after [`HISTORY_DEADLINE_MS`], what there is. Then they are evaluated at the newest events ([`evaluate::reconsider`]).
//!
//! **Invariant:** the step reads nothing but its arguments, and every effect is in the profile or in the outputs.

use schemas::event::LoggedEvent;
use schemas::id::{NO_PROFILE_PREFIX, ProfileKey, ProfileKind, UserId};
use schemas::json::{Limits, Member};
use schemas::receipt::Trust;
use schemas::time::Timestamp;

use crate::enrich::user_agent;
use crate::input::{Control, EventInput, Input, MAX_HOPS};
use crate::output::{Outcome, Outputs, SessionClosed};
use crate::profile::view::{difference, to_json};
use crate::profile::{Dated, MAX_AWAITED, MAX_DEVICES, Profile, json_time, keep_earliest, keep_latest};
use crate::rules::{Ruleset, evaluate};
use crate::score::Model;
use crate::session::{Session, Settings};

/// How long a history is waited for, in milliseconds of the partition's time. It comes within milliseconds, unless the other
/// partition is behind.
pub const HISTORY_DEADLINE_MS: i64 = 60_000;

/// What the step runs by.
#[derive(Clone, PartialEq, Debug)]
pub struct Program {
    /// The rules.
    pub rules: Ruleset,
    /// The intent model.
    pub model: Model,
    /// How sessions are cut.
    pub sessions: Settings,
}

/// Applies one input to a profile. `now` is the highest `received_at` seen in the profile's partition.
pub fn step(program: &Program, profile: &mut Profile, input: Input<'_>, now: Timestamp) -> Outputs {
    let mut out = Outputs::default();
    let session = profile.sessions.current().copied();
    close_sessions(program, profile, now, &mut out);
    give_up(program, profile, now, &mut out);
    match input {
        Input::Event(input) => event(program, profile, input, now, &mut out),
        Input::Timer => {}
        Input::Control(control) => self::control(program, profile, control, now, &mut out),
    }
    close_sessions(program, profile, now, &mut out);
    profile.fit(&mut out);
    Session::changed(session, profile.sessions.current(), &mut out);
    out
}

impl Profile {
    /// When this profile's next timer is due.
    pub fn next_timer(&self, program: &Program) -> Option<Timestamp> {
        let histories = self.awaited.values().map(|since| since.plus_millis(HISTORY_DEADLINE_MS)).max();
        let session = self.sessions.next_due(program.sessions);
        histories.into_iter().chain(session).min()
    }
}

/// Ends the wait for histories once the last of them is overdue.
fn give_up(program: &Program, profile: &mut Profile, now: Timestamp, out: &mut Outputs) {
    let Some(due) = profile.awaited.values().map(|since| since.plus_millis(HISTORY_DEADLINE_MS)).max() else {
        return;
    };
    if due <= now {
        out.notes.histories_missed += u64::try_from(profile.awaited.len()).unwrap_or_default();
        profile.awaited.clear();
        let score = program.model.score(profile, &program.rules);
        evaluate::reconsider(program, profile, evaluate::Instant { score, now: due }, out);
    }
}

/// Asks another profile for its history.
fn ask(profile: &mut Profile, from: ProfileKey, now: Timestamp, out: &mut Outputs) {
    if profile.awaited.len() < MAX_AWAITED {
        profile.awaited.insert(from.clone(), now);
    }
    out.controls.push(Control::Merge { from, into: profile.key.clone() });
}

fn close_sessions(program: &Program, profile: &mut Profile, now: Timestamp, out: &mut Outputs) {
    for session in profile.sessions.close_due(program.sessions, now) {
        let closed_at = session.last_at.plus_millis(program.sessions.gap_ms);
        out.closed.push(SessionClosed { corrected: session.reopened, closed_at, session });
    }
}

/// The profile to send on to, if this one was merged away. When records went round in a circle of merges, this one keeps them.
fn onward(profile: &mut Profile, hops: u8, out: &mut Outputs) -> Option<ProfileKey> {
    let target = profile.redirect.clone()?;
    if hops < MAX_HOPS {
        return Some(target);
    }
    profile.redirect = None;
    out.change("redirect", Some(to_json(&target)), None);
    None
}

fn event(
    program: &Program,
    profile: &mut Profile,
    input: &EventInput<'_>,
    now: Timestamp,
    out: &mut Outputs,
) {
    if let Some(into) = onward(profile, input.hops, out) {
        let event = String::from_utf8_lossy(input.event.bytes).into_owned();
        out.controls.push(Control::Forward { from: profile.key.clone(), into, event, hops: input.hops + 1 });
        return;
    }
    let receipt = &input.event.receipt;
    profile.observe(input.event, &input.fields, out);
    profile.set_traits(input.event, &input.fields, out);
    for last in &program.rules.last_values {
        let here = last.on.as_deref().is_none_or(|on| on == input.event.event_type.as_str());
        if let Some(member) = input.fields.at(&last.from).filter(|_| here) {
            profile.last_values.set("last", &last.name, &member, receipt, out);
        }
    }
    enrich(profile, input, out);
    join_device(profile, input, now, out);
    alias(profile, input, now, out);
    evaluate::count(program, profile, input, out);
    if !profile.sessions.record(program.sessions, receipt.event_id, receipt.occurred_at) {
        out.outcome = Outcome::Late;
    }
    let score = rescore(program, profile, out);
    if profile.awaited.is_empty() {
        evaluate::evaluate(program, profile, input, evaluate::Instant { score, now }, out);
    } else {
        out.notes.deferred_events += 1;
        profile.defer([receipt.event_id]);
    }
}

fn rescore(program: &Program, profile: &mut Profile, out: &mut Outputs) -> f64 {
    let score = program.model.score(profile, &program.rules);
    if profile.score.map(f64::to_bits) != Some(score.to_bits()) {
        out.change("score", profile.score.map(|score| to_json(&score)), Some(to_json(&score)));
    }
    profile.score = Some(score);
    score
}

fn enrich(profile: &mut Profile, input: &EventInput<'_>, out: &mut Outputs) {
    let receipt = &input.event.receipt;
    let (at, event) = (receipt.occurred_at, receipt.event_id);
    if let Some(found) = &input.enrichment.user_agent {
        found_out("user_agent", &mut profile.user_agent, Dated { at, event, value: found }, keep_latest, out);
    }
    if let Some(found) = &input.enrichment.campaign {
        let found = Dated { at, event, value: found };
        found_out("campaign.first", &mut profile.campaign_first, found, keep_earliest, out);
        found_out("campaign.last", &mut profile.campaign_last, found, keep_latest, out);
    }
}

/// Keeps a value by `keep`, and notes the change if it is another one.
fn found_out<T: Clone + PartialEq + serde::Serialize>(
    name: &str,
    place: &mut Option<Dated<T>>,
    new: Dated<&T>,
    keep: impl FnOnce(&mut Option<Dated<T>>, Dated<T>) -> bool,
    out: &mut Outputs,
) {
    let same = place.as_ref().is_some_and(|old| old.value == *new.value);
    let old = place.as_ref().filter(|_| !same).map(|old| to_json(&old.value));
    let kept = keep(place, Dated { at: new.at, event: new.event, value: new.value.clone() });
    if kept && !same {
        out.change(name, old, Some(to_json(new.value)));
    }
}

/// An event that names a person and a device joins the two. Vouched for by a public key alone, the device joins only a person
/// without devices: anybody could claim to be anybody otherwise.
fn join_device(profile: &mut Profile, input: &EventInput<'_>, now: Timestamp, out: &mut Outputs) {
    let event = input.event;
    let Some(device) = event.anonymous_id.as_ref().filter(|id| !id.as_str().starts_with(NO_PROFILE_PREFIX))
    else {
        return;
    };
    if profile.key.kind != ProfileKind::User || event.user_id.is_none() || profile.has_device(device) {
        return;
    }
    let vouched = event.receipt.trust != Trust::Public || profile.devices.is_empty();
    if !vouched || profile.devices.len() >= MAX_DEVICES {
        out.notes.refused_devices += 1;
        return;
    }
    let at = event.receipt.occurred_at;
    profile.devices.insert(device.as_str().to_owned(), at);
    out.change(format!("devices.{device}"), None, json_time(Some(at)));
    ask(profile, ProfileKey::anonymous(device), now, out);
}

/// `alias` with `metadata.previous_id`: that user's profile becomes part of this one. A public key may not do that.
fn alias(profile: &mut Profile, input: &EventInput<'_>, now: Timestamp, out: &mut Outputs) {
    if input.event.event_type.as_str() != "alias" || profile.key.kind != ProfileKind::User {
        return;
    }
    let Some(previous) = input.fields.meta("previous_id").and_then(Member::text) else { return };
    let from = ProfileKey::user(&UserId::new(previous));
    let nobody = schemas::id::means_nobody(&from.id);
    if input.event.receipt.trust == Trust::Public || from == profile.key || nobody {
        out.notes.refused_aliases += 1;
        return;
    }
    ask(profile, from, now, out);
}

fn control(program: &Program, profile: &mut Profile, control: &Control, now: Timestamp, out: &mut Outputs) {
    match control {
        Control::Merge { into, .. } => merge_away(profile, into, out),
        Control::Absorb { from, state, hops, .. } => {
            if let Some(into) = onward(profile, *hops, out) {
                let (from, state) = (from.clone(), state.clone());
                out.controls.push(Control::Absorb { from, into, state, hops: hops + 1 });
                return;
            }
            absorb(program, profile, from, state, now, out);
        }
        Control::Forward { event: bytes, hops, .. } => {
            // Written by a step that had read it, so it reads again.
            let Ok(logged) = LoggedEvent::read(bytes.as_bytes(), Limits::default()) else { return };
            let mut input = EventInput::new(&logged);
            input.enrichment.user_agent = logged.receipt.user_agent.as_deref().and_then(user_agent::parse);
            input.hops = *hops;
            event(program, profile, &input, now, out);
        }
        Control::Tick => {}
    }
}

/// Takes in what another profile held. Once nothing more is on its way, rules are evaluated with the whole.
fn absorb(
    program: &Program,
    profile: &mut Profile,
    from: &ProfileKey,
    state: &Profile,
    now: Timestamp,
    out: &mut Outputs,
) {
    let before = profile.attributes();
    profile.absorb(program.sessions, state, &mut out.notes);
    profile.windows.retain(|window| program.rules.uses(window));
    profile.awaited.remove(from);
    let score = program.model.score(profile, &program.rules);
    profile.score = Some(score);
    let mut changes = difference(&before, &profile.attributes());
    // The step tells the session's change itself.
    changes.retain(|change| change.name != "session");
    out.changes.append(&mut changes);
    if profile.awaited.is_empty() {
        evaluate::reconsider(program, profile, evaluate::Instant { score, now }, out);
    }
}

/// Hands over all that is held and sends on what comes later. Who asks is always answered: it waits for that.
fn merge_away(profile: &mut Profile, into: &ProfileKey, out: &mut Outputs) {
    if *into == profile.key {
        return;
    }
    let before = profile.attributes();
    let mut empty = Profile::new(profile.key.clone());
    empty.redirect = Some(into.clone());
    let mut held = std::mem::replace(profile, empty);
    held.redirect = None;
    let mut changes = difference(&before, &profile.attributes());
    changes.retain(|change| change.name != "session");
    out.changes.append(&mut changes);
    let from = profile.key.clone();
    out.controls.push(Control::Absorb { from, into: into.clone(), state: Box::new(held), hops: 0 });
}
