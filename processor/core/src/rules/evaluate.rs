//! Evaluates rules at an event and makes decisions.
//!
//! A rule is evaluated at `t`, the later of the event's time and the newest time in the rule's window, so an event that comes
//! late and completes a window decides once, like one on time; a decision carries `expires_at`, counted from `t`, so that what is
//! out of date is not shown. A rule that counts the type it is evaluated at fires only if the event is itself among the K newest.
//!
//! When a history was absorbed, what was known at each event changes after the fact: [`reconsider`] evaluates every rule again, at
//! the newest events that may have been judged without it.
//!
//! **Invariant:** the fact shown is the list of events counted; at most one decision a rule and event.

use std::collections::BTreeMap;

use schemas::decision::{Decision, Fact};
use schemas::id::{DecisionId, EventId};
use schemas::time::Timestamp;
use serde_json::Value;

use super::compile::{Rule, When};
use crate::fields::{self, Path};
use crate::input::EventInput;
use crate::output::Outputs;
use crate::profile::windows::Cell;
use crate::profile::{Dated, Decided, Moment, Profile, keep_latest_in};
use crate::step::Program;

/// Events listed in a fact, the newest.
const MAX_FACT_EVENTS: usize = 16;
/// Longest text filled into a placeholder, in bytes.
const MAX_FILLED_BYTES: usize = 256;

/// Counts the event in every window that counts its type, and keeps what a later evaluation needs of it.
pub(crate) fn count(program: &Program, profile: &mut Profile, input: &EventInput<'_>, out: &mut Outputs) {
    let receipt = &input.event.receipt;
    let event_type = input.event.event_type.as_str();
    for counted in program.rules.counted(event_type) {
        let key = match &counted.by {
            None => Some(String::new()),
            Some(by) => value(input, by),
        };
        let Some(key) = key else {
            out.notes.absent_keys += 1;
            continue;
        };
        let window = counted.window.as_str();
        out.notes.evicted_keys +=
            profile.windows.insert(window, &key, receipt.occurred_at, receipt.event_id, counted.k);
    }
    if let Some(paths) = program.rules.remembered(event_type) {
        let values = paths.iter().filter_map(|path| Some((path.to_string(), value(input, path)?))).collect();
        let moment = Dated { at: receipt.occurred_at, event: receipt.event_id, value: values };
        keep_latest_in(&mut profile.moments, event_type, moment);
    }
}

fn value(input: &EventInput<'_>, path: &Path) -> Option<String> {
    input.fields.at(path).as_ref().and_then(fields::key)
}

/// The event at which a rule is evaluated.
struct Trigger<'t> {
    at: Timestamp,
    event: EventId,
    /// Only what happened up to the event counts.
    up_to: bool,
    /// The value that the rule counts by.
    key: Option<String>,
    /// The event's other values.
    value: &'t dyn Fn(&Path) -> Option<String>,
}

/// The score by which rules are evaluated, and the time that decisions bear.
#[derive(Clone, Copy)]
pub(crate) struct Instant {
    pub(crate) score: f64,
    pub(crate) now: Timestamp,
}

/// Evaluates every rule of the event's type.
pub(crate) fn evaluate(
    program: &Program,
    profile: &mut Profile,
    input: &EventInput<'_>,
    when: Instant,
    out: &mut Outputs,
) {
    let receipt = &input.event.receipt;
    // Rules on one type mostly count by one field.
    let mut last: Option<(&Path, Option<String>)> = None;
    for rule in program.rules.on(input.event.event_type.as_str()) {
        let key = rule.when.as_ref().and_then(|when| when.by.as_ref()).map(|by| match &last {
            Some((path, key)) if *path == by => key.clone(),
            _ => last.insert((by, value(input, by))).1.clone(),
        });
        if key == Some(None) {
            continue;
        }
        let value = |path: &Path| value(input, path);
        let (at, event) = (receipt.occurred_at, receipt.event_id);
        let trigger = Trigger { at, event, up_to: false, key: key.flatten(), value: &value };
        if let Some(firing) = fires(rule, profile, &trigger, when.score) {
            make(program, profile, rule, &trigger, &firing, when, out);
        }
    }
}

/// Evaluates every rule again: one that counts its own type at the newest event of each key, another at the newest event of
/// its type. Decides only about what is newer than the rule's last decision and not out of date at the profile's last event; so
/// what was decided before is not decided again, and only facts matter, not the order in which they came.
pub(crate) fn reconsider(program: &Program, profile: &mut Profile, when: Instant, out: &mut Outputs) {
    let last_seen = profile.last_seen.unwrap_or_default();
    for rule in program.rules.rules() {
        for (at, event, key, values) in candidates(rule, profile) {
            let value = |path: &Path| values.get(&path.to_string()).cloned();
            // The newest event of a type may be older than what others count, and was no reason to decide then.
            let trigger = Trigger { at, event, up_to: true, key, value: &value };
            let Some(firing) = fires(rule, profile, &trigger, when.score) else { continue };
            let newer = profile.cooldowns.get(&rule.name).is_none_or(|last| firing.t > *last);
            if newer && firing.t.plus_millis(rule.expires.0) > last_seen {
                make(program, profile, rule, &trigger, &firing, when, out);
            }
        }
    }
    profile.deferred.clear();
}

type Candidate = (Timestamp, EventId, Option<String>, BTreeMap<String, String>);

/// The events at which a rule may have been evaluated too early, oldest first.
fn candidates(rule: &Rule, profile: &Profile) -> Vec<Candidate> {
    let moment = profile.moments.get(&rule.on);
    let Some(own) = rule.when.as_ref().filter(|when| when.count == rule.on) else {
        let by = rule.when.as_ref().and_then(|when| when.by.as_ref());
        let candidate = |moment: &Moment| {
            let key = by.map(|by| moment.value.get(&by.to_string()).cloned());
            (key != Some(None)).then(|| (moment.at, moment.event, key.flatten(), moment.value.clone()))
        };
        return moment.and_then(candidate).into_iter().collect();
    };
    let candidate = |(key, cell): (&str, &Cell)| {
        let (at, event) = newest(cell, own.at_least, &profile.deferred)?;
        let values = moment.filter(|moment| moment.event == event).map(|moment| moment.value.clone());
        Some((at, event, own.by.is_some().then(|| key.to_owned()), values.unwrap_or_default()))
    };
    let mut all: Vec<Candidate> = profile.windows.cells(own.window.as_str()).filter_map(candidate).collect();
    all.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
    all
}

/// The newest event that counts. Of several at one instant, the one that came last while decisions waited, so that a page that
/// sends a batch without times hears of the decision at its last event.
fn newest(cell: &Cell, k: usize, deferred: &[EventId]) -> Option<(Timestamp, EventId)> {
    let (at, last) = cell.last()?;
    let together = cell.at(at, k);
    let came_last = deferred.iter().rev().find(|event| together.iter().any(|(_, id)| id == *event));
    Some((at, came_last.copied().unwrap_or(last)))
}

fn make(
    program: &Program,
    profile: &mut Profile,
    rule: &Rule,
    trigger: &Trigger<'_>,
    firing: &Firing,
    when: Instant,
    out: &mut Outputs,
) {
    let decision = decide(rule, profile, trigger, when, firing);
    profile.cooldowns.retain(|name, _| program.rules.rules().iter().any(|rule| rule.name == *name));
    let latest = profile.cooldowns.get(&rule.name).map_or(firing.t, |old| (*old).max(firing.t));
    profile.cooldowns.insert(rule.name.clone(), latest);
    profile.remember(Decided::from(&decision));
    out.decisions.push(decision);
}

/// Why a rule fires.
struct Firing {
    t: Timestamp,
    counted: Vec<EventId>,
}

fn fires(rule: &Rule, profile: &Profile, trigger: &Trigger<'_>, score: f64) -> Option<Firing> {
    let mut firing = Firing { t: trigger.at, counted: Vec::new() };
    if let Some(when) = &rule.when {
        let cell = profile.windows.cell(when.window.as_str(), trigger.key.as_deref().unwrap_or(""))?;
        let newest = cell.newest().filter(|_| !trigger.up_to);
        firing.t = newest.map_or(trigger.at, |newest| newest.max(trigger.at));
        let inside = cell.inside(firing.t, when.within.0);
        // A window shared with a rule that waits for more holds more: only the K newest are this rule's.
        let newest = inside.get(inside.len().checked_sub(when.at_least)?..)?;
        if when.count == rule.on && !newest.iter().any(|(_, counted)| *counted == trigger.event) {
            return None;
        }
        firing.counted = newest.iter().map(|(_, id)| *id).collect();
    }
    if rule.score_above.is_some_and(|least| score <= least) {
        return None;
    }
    if let Some(unless) = &rule.unless {
        let newest = profile.windows.cell(unless.window.as_str(), "").and_then(Cell::newest);
        if newest.is_some_and(|newest| newest.0 > firing.t.0.saturating_sub(unless.within.0)) {
            return None;
        }
    }
    let rests = rule.cooldown.zip(profile.cooldowns.get(&rule.name));
    let resting = rests.is_some_and(|(cooldown, last)| firing.t < last.plus_millis(cooldown.0));
    (!resting).then_some(firing)
}

fn decide(rule: &Rule, profile: &Profile, trigger: &Trigger<'_>, when: Instant, firing: &Firing) -> Decision {
    let mut facts = Vec::new();
    if let Some(when) = &rule.when {
        let key = when.by.as_ref().zip(trigger.key.as_ref()).map(|(by, key)| format!(".{}={key}", by.last()));
        let listed = firing.counted.len().saturating_sub(MAX_FACT_EVENTS);
        facts.push(Fact {
            name: format!("{}{} within {}", when.count, key.unwrap_or_default(), when.within),
            value: Value::from(firing.counted.len()),
            events: firing.counted.get(listed..).unwrap_or(&[]).to_vec(),
        });
    }
    if rule.score_above.is_some() {
        facts.push(Fact { name: "score".to_owned(), value: Value::from(when.score), events: Vec::new() });
    }
    let fill = |name: &str| filled(name, rule, profile, trigger, firing);
    Decision {
        decision_id: DecisionId::derive(&rule.name, &rule.version, &profile.key, trigger.event),
        rule: rule.name.clone(),
        version: rule.version.clone(),
        subject: profile.key.clone(),
        slot: rule.slot.clone(),
        trigger: trigger.event,
        score: when.score,
        payload: fill_payload(&rule.payload, &fill),
        facts,
        decided_at: when.now,
        expires_at: Some(firing.t.plus_millis(rule.expires.0)),
    }
}

fn filled(
    name: &str,
    rule: &Rule,
    profile: &Profile,
    trigger: &Trigger<'_>,
    firing: &Firing,
) -> Option<String> {
    let by = rule.when.as_ref().and_then(|when| when.by.as_ref());
    if by.is_some_and(|by| by.last() == name) {
        return trigger.key.clone();
    }
    if name == "count" {
        return Some(firing.counted.len().to_string());
    }
    if let Some(name) = name.strip_prefix("traits.") {
        let json = profile.traits.get(name)?;
        return Some(serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned()));
    }
    (trigger.value)(&Path::parse(name)?)
}

/// The places in an event that a payload's placeholders name.
pub(crate) fn paths_of(payload: &Value) -> Vec<Path> {
    match payload {
        Value::String(text) => pieces(text)
            .into_iter()
            .filter_map(|piece| if let Piece::Place(name) = piece { Path::parse(name) } else { None })
            .collect(),
        Value::Array(items) => items.iter().flat_map(paths_of).collect(),
        Value::Object(members) => members.values().flat_map(paths_of).collect(),
        _ => Vec::new(),
    }
}

/// A text with its placeholders: `{name}` is filled, `{{` and `}}` are braces.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        pieces.push(Piece::Text(before));
        let name = from
            .strip_prefix('{')
            .filter(|inner| !inner.starts_with('{'))
            .and_then(|inner| inner.split_once('}'));
        rest = if let Some((name, after)) = name {
            pieces.push(Piece::Place(name));
            after
        } else {
            let (brace, after) = from.split_at(1);
            pieces.push(Piece::Text(brace));
            after.strip_prefix(brace).unwrap_or(after)
        };
    }
    pieces.push(Piece::Text(rest));
    pieces
}

enum Piece<'a> {
    Text(&'a str),
    Place(&'a str),
}

fn fill_payload(payload: &Value, fill: &dyn Fn(&str) -> Option<String>) -> Value {
    match payload {
        Value::String(text) => {
            let piece = |piece: Piece<'_>| match piece {
                Piece::Text(text) => text.to_owned(),
                Piece::Place(name) => {
                    fields::cut(&fill(name).unwrap_or_default(), MAX_FILLED_BYTES).to_owned()
                }
            };
            Value::String(pieces(text).into_iter().map(piece).collect())
        }
        Value::Array(items) => items.iter().map(|item| fill_payload(item, fill)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), fill_payload(value, fill))).collect()
        }
        other => other.clone(),
    }
}

/// Checks that every placeholder names something that can be filled in.
pub(crate) fn check_placeholders(payload: &Value, when: Option<&When>) -> Result<(), String> {
    match payload {
        Value::String(text) => pieces(text).into_iter().try_for_each(|piece| match piece {
            Piece::Place(name) if !known_place(name, when) => Err(format!(
                "placeholder `{{{name}}}` is neither the last name of `when.by`, nor `count`, `metadata.…`, `context.…` or `traits.…`"
            )),
            _ => Ok(()),
        }),
        Value::Array(items) => items.iter().try_for_each(|item| check_placeholders(item, when)),
        Value::Object(members) => members.values().try_for_each(|value| check_placeholders(value, when)),
        _ => Ok(()),
    }
}

fn known_place(name: &str, when: Option<&When>) -> bool {
    let by = when.and_then(|when| when.by.as_ref()).is_some_and(|by| by.last() == name);
    by || (name == "count" && when.is_some())
        || name.strip_prefix("traits.").is_some_and(|name| !name.is_empty())
        || fields::Path::parse(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_doubled_braces_stay() {
        let payload = serde_json::json!({"a": "Still {x} {{x}}?", "b": ["{x}{y}", 3], "c": "}{"});
        let fill = |name: &str| (name == "x").then(|| "shoes".to_owned());
        let right = serde_json::json!({"a": "Still shoes {x}?", "b": ["shoes", 3], "c": "}{"});
        assert_eq!(fill_payload(&payload, &fill), right);
    }
}
