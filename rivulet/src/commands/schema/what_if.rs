//! `rivulet schema what-if`: which events of a log would not fit other schemas, before anybody is refused.
//!
//! **Invariant:** every event of the span is counted once, as fitting, breaking, without schema, or not judged (what it was redacted
//! of is not known any more). Of what was refused for its schema it says how much would fit. Nothing is written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use broker::clock::{Clock as _, SystemClock};
use broker::log::Record;
use schemas::event::{Library, RESERVED_TYPE_PREFIX};
use schemas::id::EventType;
use schemas::json::{self, DEEPEST, Limits, Member};
use schemas::receipt::Receipt;
use schemas::registry::{Judgement, Registry};
use schemas::time::Timestamp;
use schemas::topic::Topic;
use schemas::verdict::Reason;
use serde::Serialize;
use serde_json::Value;

use super::super::records::{self, Span};
use crate::cli::WhatIfOptions;
use crate::console::{printable, say};
use crate::schema_folder;

/// What stands for the library of events that name none.
const NO_LIBRARY: &str = "(unknown library)";
/// Groups told apart; senders choose library versions, so there could be any number.
const MAX_GROUPS: usize = 10_000;
/// Reasons told apart in a group.
const MAX_REASONS: usize = 100;
/// Stands for what is beyond those.
const OTHERS: &str = "(others)";

/// Reads the log and reports.
pub(in super::super) async fn run(options: WhatIfOptions) -> anyhow::Result<ExitCode> {
    let since = options.since.as_deref().map(millis).transpose()?;
    let registry = schema_folder::load(Some(&options.schemas))?;
    let mut report = Report {
        from: since.map_or(Timestamp(i64::MIN), |since| SystemClock.now().plus_millis(-since)),
        registry,
        ..Report::default()
    };
    for topic in [Topic::Events, Topic::Quarantine] {
        records::read(&options.place, Span::whole(topic), |record| {
            report.take(record);
            true
        })
        .await?;
    }
    if options.json {
        say(&serde_json::to_string(&report.summary())?);
    } else {
        report.summary().show();
    }
    Ok(if report.total(|group| group.breaking) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `90s`, `30m`, `24h`, `7d` in milliseconds.
fn millis(text: &str) -> anyhow::Result<i64> {
    let unit = |end: char| match end {
        's' => Some(1_000),
        'm' => Some(60_000),
        'h' => Some(3_600_000),
        'd' => Some(86_400_000),
        _ => None,
    };
    let parsed = text.char_indices().last().and_then(|(at, end)| {
        let number: i64 = text.get(..at)?.parse().ok().filter(|number| *number >= 0)?;
        number.checked_mul(unit(end)?)
    });
    parsed.with_context(|| format!("`--since {text}` is no time: write 90s, 30m, 24h or 7d"))
}

#[derive(Debug, Default)]
struct Report {
    from: Timestamp,
    registry: Registry,
    groups: BTreeMap<Key, Group>,
    unreadable: u64,
}

/// Who sent what with what.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
struct Key {
    event_type: String,
    source: String,
    library: String,
}

#[derive(Debug, Default, Serialize)]
struct Group {
    events: u64,
    breaking: u64,
    without_schema: u64,
    /// Do not fit, but were redacted: what was sent may have fitted.
    not_judged: u64,
    /// Were refused for their schema, and would fit.
    mended: u64,
    reasons: BTreeMap<Why, u64>,
}

/// Why events would not fit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
struct Why {
    pointer: String,
    keyword: String,
    expected: String,
    schema: String,
}

/// What a record says of its event.
struct Found<'r> {
    source: String,
    is_redacted: bool,
    was_refused: bool,
    members: Vec<Member<'r>>,
}

/// What of a quarantine record matters here.
#[derive(serde::Deserialize)]
struct Refused {
    received_at: Timestamp,
    source: String,
    reason: Reason,
    #[serde(default)]
    raw: Option<String>,
    #[serde(default)]
    redacted: Vec<String>,
}

impl Report {
    fn take(&mut self, record: &Record) {
        if record.at.topic == Topic::Quarantine {
            let Ok(refused) = serde_json::from_slice::<Refused>(&record.value) else { return };
            let by_schema = refused.reason.code.as_str().starts_with("schema.");
            if !by_schema || refused.received_at < self.from {
                return;
            }
            let Some(raw) = &refused.raw else { return };
            let Ok(members) = json::object(raw.as_bytes(), Limits { max_depth: DEEPEST }) else { return };
            let is_redacted = !refused.redacted.is_empty();
            return self.judge(&Found { source: refused.source, is_redacted, was_refused: true, members });
        }
        let Ok(members) = json::object(&record.value, Limits { max_depth: DEEPEST }) else {
            self.unreadable += 1;
            return;
        };
        let receipt = members.iter().find(|member| member.name == "receipt");
        let Some(receipt) = receipt.and_then(|receipt| serde_json::from_slice::<Receipt>(receipt.value).ok())
        else {
            self.unreadable += u64::from(!is_control(&members));
            return;
        };
        if receipt.received_at >= self.from && !is_control(&members) {
            let source = receipt.source.to_string();
            let is_redacted = !receipt.redacted.is_empty();
            self.judge(&Found { source, is_redacted, was_refused: false, members });
        }
    }

    fn judge(&mut self, found: &Found<'_>) {
        let member = |name: &str| found.members.iter().find(|member| member.name == name);
        let Some(event_type) = member("event_type").and_then(Member::text) else { return };
        let pinned = member("schema")
            .and_then(|pin| pin.text().or_else(|| String::from_utf8(pin.value.to_vec()).ok()));
        let pinned = pinned.filter(|pin| pin != "null");
        let tree = |name: &str| -> Option<Value> { serde_json::from_slice(member(name)?.value).ok() };
        let metadata = tree("metadata").filter(|metadata| !metadata.is_null());
        let judgement =
            self.registry.judge(&EventType::new(event_type.clone()), pinned.as_deref(), metadata.as_ref());
        let library = member("context").and_then(|context| Library::of_context(context.value));
        let library = library.map_or_else(|| NO_LIBRARY.to_owned(), |library| library.to_string());
        let mut key = Key { event_type, source: found.source.clone(), library };
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            OTHERS.clone_into(&mut key.library);
            OTHERS.clone_into(&mut key.event_type);
        }
        let group = self.groups.entry(key).or_default();
        if found.was_refused {
            group.mended += u64::from(matches!(judgement, Judgement::Valid(_)));
            return;
        }
        group.events += 1;
        match judgement {
            Judgement::Valid(_) => {}
            Judgement::UnknownType => group.without_schema += 1,
            Judgement::Invalid(_) if found.is_redacted => group.not_judged += 1,
            Judgement::Invalid(reason) => group.add(*reason),
        }
    }

    fn total(&self, count: impl Fn(&Group) -> u64) -> u64 {
        self.groups.values().map(count).sum()
    }

    fn summary(&self) -> Summary<'_> {
        let rows =
            self.groups.iter().filter(|(_, group)| group.breaking + group.not_judged + group.mended > 0);
        let mut rows: Vec<Row<'_>> = rows.map(Row::new).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.breaking));
        Summary {
            events: self.total(|group| group.events),
            breaking: self.total(|group| group.breaking),
            without_schema: self.total(|group| group.without_schema),
            not_judged: self.total(|group| group.not_judged),
            mended: self.total(|group| group.mended),
            unreadable: self.unreadable,
            groups: rows,
        }
    }
}

/// Control records are the program's own.
fn is_control(members: &[Member<'_>]) -> bool {
    let event_type = members.iter().find(|member| member.name == "event_type").and_then(Member::text);
    event_type.is_some_and(|event_type| event_type.starts_with(RESERVED_TYPE_PREFIX))
}

impl Group {
    fn add(&mut self, reason: Reason) {
        self.breaking += 1;
        let text = Option::unwrap_or_default;
        let mut why = Why {
            pointer: text(reason.pointer),
            keyword: reason.keyword.unwrap_or_else(|| reason.code.as_str().to_owned()),
            expected: text(reason.expected),
            schema: text(reason.schema),
        };
        if self.reasons.len() >= MAX_REASONS && !self.reasons.contains_key(&why) {
            let other = || OTHERS.to_owned();
            why = Why { pointer: other(), keyword: other(), expected: other(), schema: why.schema };
        }
        *self.reasons.entry(why).or_default() += 1;
    }
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Summary<'r> {
    events: u64,
    breaking: u64,
    without_schema: u64,
    not_judged: u64,
    mended: u64,
    unreadable: u64,
    groups: Vec<Row<'r>>,
}

#[derive(Debug, Serialize)]
struct Row<'r> {
    #[serde(flatten)]
    key: &'r Key,
    events: u64,
    breaking: u64,
    not_judged: u64,
    mended: u64,
    reasons: Vec<Counted<'r>>,
}

#[derive(Debug, Serialize)]
struct Counted<'r> {
    events: u64,
    #[serde(flatten)]
    why: &'r Why,
}

impl<'r> Row<'r> {
    fn new((key, group): (&'r Key, &'r Group)) -> Self {
        let mut reasons: Vec<Counted<'r>> =
            group.reasons.iter().map(|(why, events)| Counted { events: *events, why }).collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.events));
        let Group { events, breaking, not_judged, mended, .. } = *group;
        Self { key, events, breaking, not_judged, mended, reasons }
    }
}

impl Summary<'_> {
    fn show(&self) {
        for Row { key, events, breaking, not_judged, mended, reasons } in &self.groups {
            let Key { event_type, source, library } = key;
            let mut line = format!("{event_type}  {source}  {library}: {breaking} of {events} would break");
            if *not_judged > 0 {
                let _ = write!(line, ", {not_judged} were redacted and cannot be judged");
            }
            if *mended > 0 {
                let _ = write!(line, ", {mended} that were refused would fit");
            }
            say(&printable(&line));
            for Counted { events, why } in reasons {
                let Why { pointer, keyword, expected, schema } = why;
                say(&printable(&format!(
                    "  {events:>6}  {pointer}  {keyword}  expected {expected}  {schema}"
                )));
            }
        }
        say(&format!(
            "{} events, {} would break, {} without schema, {} not judged, {} refused ones would fit",
            self.events, self.breaking, self.without_schema, self.not_judged, self.mended
        ));
        if self.unreadable > 0 {
            say(&format!("{} records are no events", self.unreadable));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(millis("90s").unwrap(), 90_000);
        assert_eq!(millis("24h").unwrap(), 86_400_000);
        assert_eq!(millis("7d").unwrap(), 604_800_000);
        for wrong in ["", "h", "24", "-1h", "1w", "1.5h", "99999999999999999d", "1é"] {
            assert!(millis(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn groups_and_reasons_are_bounded_whatever_senders_choose() {
        let mut group = Group::default();
        for n in 0..1_000 {
            group.add(Reason::new(schemas::verdict::Code::SchemaInvalid).at(format!("/metadata/{n}")));
        }
        assert_eq!((group.breaking, group.reasons.values().sum::<u64>()), (1_000, 1_000));
        assert!(group.reasons.len() <= MAX_REASONS + 1);
    }
}
