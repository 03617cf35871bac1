//! Evaluates rules at an event and makes decisions.
//!
//! A rule is evaluated at `t`, the later of the event's time and the newest time in the rule's window, so an event that comes
//! late and completes a window decides once, like one on time; a decision carries `expires_at`, counted from `t`, so that what is
//! out of date is not shown. A rule that counts the type it is evaluated at fires only if the event is itself among the K newest.
//!
//! **Invariant:** the fact shown is the list of events counted; at most one decision a rule and event.

use schemas::decision::{Decision, Fact};
use schemas::id::{DecisionId, EventId};
use schemas::time::Timestamp;
use serde_json::Value;

use super::compile::{Rule, When};
use crate::fields;
use crate::input::EventInput;
use crate::output::Outputs;
use crate::profile::{Decided, Profile};
use crate::step::Program;

/// Events listed in a fact, the newest.
const MAX_FACT_EVENTS: usize = 16;
/// Longest text filled into a placeholder, in bytes.
const MAX_FILLED_BYTES: usize = 256;

/// Counts the event in every window that counts its type.
pub(crate) fn count(program: &Program, profile: &mut Profile, input: &EventInput<'_>, out: &mut Outputs) {
    let receipt = &input.event.receipt;
    for counted in program.rules.counted(input.event.event_type.as_str()) {
        let key = match &counted.by {
            None => Some(String::new()),
            Some(by) => input.fields.at(by).as_ref().and_then(fields::key),
        };
        let Some(key) = key else {
            out.notes.absent_keys += 1;
            continue;
        };
        let window = counted.window.as_str();
        out.notes.evicted_keys +=
            profile.windows.insert(window, &key, receipt.occurred_at, receipt.event_id, counted.k);
    }
}

/// Evaluates every rule of the event's type.
pub(crate) fn evaluate(
    program: &Program,
    profile: &mut Profile,
    input: &EventInput<'_>,
    score: f64,
    now: Timestamp,
    out: &mut Outputs,
) {
    for rule in program.rules.on(input.event.event_type.as_str()) {
        let Some(firing) = fires(rule, profile, input, score) else { continue };
        let decision = decide(rule, profile, input, score, now, &firing);
        profile.cooldowns.retain(|name, _| program.rules.rules().iter().any(|rule| rule.name == *name));
        let latest = profile.cooldowns.get(&rule.name).map_or(decision.1, |old| (*old).max(decision.1));
        profile.cooldowns.insert(rule.name.clone(), latest);
        profile.remember(Decided::from(&decision.0));
        out.decisions.push(decision.0);
    }
}

/// Why a rule fires.
struct Firing {
    t: Timestamp,
    key: Option<String>,
    counted: Vec<EventId>,
}

fn fires(rule: &Rule, profile: &Profile, input: &EventInput<'_>, score: f64) -> Option<Firing> {
    let at = input.event.receipt.occurred_at;
    let mut firing = Firing { t: at, key: None, counted: Vec::new() };
    if let Some(when) = &rule.when {
        let key = match &when.by {
            Some(by) => Some(fields::key(&input.fields.at(by)?)?),
            None => None,
        };
        let cell = profile.windows.cell(when.window.as_str(), key.as_deref().unwrap_or(""))?;
        firing.t = cell.newest().map_or(at, |newest| newest.max(at));
        let inside = cell.inside(firing.t, when.within.0);
        // A window shared with a rule that waits for more holds more: only the K newest are this rule's.
        let newest = inside.get(inside.len().checked_sub(when.at_least)?..)?;
        let id = input.event.receipt.event_id;
        if when.count == rule.on && !newest.iter().any(|(_, counted)| *counted == id) {
            return None;
        }
        firing.counted = newest.iter().map(|(_, id)| *id).collect();
        firing.key = key;
    }
    if rule.score_above.is_some_and(|least| score <= least) {
        return None;
    }
    if let Some(unless) = &rule.unless {
        let newest =
            profile.windows.cell(unless.window.as_str(), "").and_then(crate::profile::windows::Cell::newest);
        if newest.is_some_and(|newest| newest.0 > firing.t.0.saturating_sub(unless.within.0)) {
            return None;
        }
    }
    let rests = rule.cooldown.zip(profile.cooldowns.get(&rule.name));
    let resting = rests.is_some_and(|(cooldown, last)| firing.t < last.plus_millis(cooldown.0));
    (!resting).then_some(firing)
}

/// The decision and the instant it was evaluated at.
fn decide(
    rule: &Rule,
    profile: &Profile,
    input: &EventInput<'_>,
    score: f64,
    now: Timestamp,
    firing: &Firing,
) -> (Decision, Timestamp) {
    let trigger = input.event.receipt.event_id;
    let mut facts = Vec::new();
    if let Some(when) = &rule.when {
        let key = when.by.as_ref().zip(firing.key.as_ref()).map(|(by, key)| format!(".{}={key}", by.last()));
        let listed = firing.counted.len().saturating_sub(MAX_FACT_EVENTS);
        facts.push(Fact {
            name: format!("{}{} within {}", when.count, key.unwrap_or_default(), when.within),
            value: Value::from(firing.counted.len()),
            events: firing.counted.get(listed..).unwrap_or(&[]).to_vec(),
        });
    }
    if rule.score_above.is_some() {
        facts.push(Fact { name: "score".to_owned(), value: Value::from(score), events: Vec::new() });
    }
    let fill = |name: &str| filled(name, rule, profile, input, firing);
    let decision = Decision {
        decision_id: DecisionId::derive(&rule.name, &rule.version, &profile.key, trigger),
        rule: rule.name.clone(),
        version: rule.version.clone(),
        subject: profile.key.clone(),
        slot: rule.slot.clone(),
        trigger,
        score,
        payload: fill_payload(&rule.payload, &fill),
        facts,
        decided_at: now,
        expires_at: Some(firing.t.plus_millis(rule.expires.0)),
    };
    (decision, firing.t)
}

fn filled(
    name: &str,
    rule: &Rule,
    profile: &Profile,
    input: &EventInput<'_>,
    firing: &Firing,
) -> Option<String> {
    let by = rule.when.as_ref().and_then(|when| when.by.as_ref());
    if by.is_some_and(|by| by.last() == name) {
        return firing.key.clone();
    }
    if name == "count" {
        return Some(firing.counted.len().to_string());
    }
    if let Some(name) = name.strip_prefix("traits.") {
        let json = profile.traits.get(name)?;
        return Some(serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned()));
    }
    fields::key(&input.fields.at(&fields::Path::parse(name)?)?)
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
