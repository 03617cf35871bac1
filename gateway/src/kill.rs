//! What an operator has stopped: kill rules, by source, event type, event id or library.
//!
//! **Invariant:** the first rule that names an event decides; which events a sample lets pass depends on their id (or bytes) alone,
//! so an event that is sent again meets the same end; without rules an event costs one comparison.

use schemas::event::Library;
use schemas::id::{EventId, SourceName};
use schemas::registry::Mode;
use schemas::time::Timestamp;
use schemas::verdict::{Code, Reason, Status};

use crate::config::{ConfigError, KillAction, KillRule, check_kill_rules};
use crate::telemetry::{Counter, Metrics};

/// The rules in force.
#[derive(Debug, Default)]
pub(crate) struct KillRules {
    rules: Vec<Compiled>,
    reads_library: bool,
}

#[derive(Debug)]
struct Compiled {
    rule: KillRule,
    event_id: Option<EventId>,
    /// Judges the share that passes.
    passes: Option<Mode>,
    stopped: Counter,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspect<'e> {
    pub(crate) source: &'e SourceName,
    pub(crate) event_type: Option<&'e str>,
    pub(crate) event_id: Option<EventId>,
    /// JSON of `context`.
    pub(crate) context: Option<&'e [u8]>,
    pub(crate) event: &'e [u8],
    pub(crate) now: Timestamp,
}

/// What a rule has said.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) status: Status,
    pub(crate) reason: Box<Reason>,
    /// Whether a line is left in quarantine.
    pub(crate) trace: bool,
}

impl KillRules {
    /// Rules to be counted in `metrics`; fails if one cannot be meant.
    pub(crate) fn new(rules: &[KillRule], metrics: &Metrics) -> Result<Self, ConfigError> {
        check_kill_rules(rules)?;
        let compiled = rules.iter().map(|rule| Compiled {
            event_id: rule.event_id.as_deref().and_then(EventId::parse),
            passes: rule.keep.map(Mode::sample),
            stopped: metrics.stopped(&rule.name, rule.action.as_str()),
            rule: rule.clone(),
        });
        Ok(Self { rules: compiled.collect(), reads_library: rules.iter().any(|rule| rule.library.is_some()) })
    }

    /// Whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Each rule, and how many events it has stopped.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&KillRule, u64)> {
        self.rules.iter().map(|compiled| (&compiled.rule, compiled.stopped.get()))
    }

    /// What becomes of an event; `None` lets it pass.
    pub(crate) fn stops(&self, suspect: &Suspect<'_>) -> Option<Stop> {
        if self.rules.is_empty() {
            return None;
        }
        let library = suspect.context.filter(|_| self.reads_library).and_then(Library::of_context);
        let named = self.rules.iter().find(|compiled| compiled.names(suspect, library.as_ref()))?;
        let sampled_by = suspect.event_id.as_ref().map_or(suspect.event, |id| id.as_bytes());
        if named.passes.is_some_and(|mode| mode.judges(sampled_by)) {
            return None;
        }
        named.stopped.inc();
        let (status, told) = match named.rule.action {
            KillAction::Divert => (Status::Quarantined, "kept aside"),
            KillAction::Drop | KillAction::Sample => (Status::Rejected, "not kept"),
        };
        let expected =
            format!("nothing of you: rule `{}` of the operator; the event is {told}", named.rule.name);
        Some(Stop {
            status,
            reason: Box::new(Reason::new(Code::EventKilled).expecting(expected)),
            trace: named.rule.trace,
        })
    }
}

impl Compiled {
    fn names(&self, suspect: &Suspect<'_>, library: Option<&Library>) -> bool {
        let rule = &self.rule;
        rule.expires_at.is_none_or(|end| suspect.now < end)
            && rule.source.as_ref().is_none_or(|source| suspect.source.as_str() == source)
            && rule.event_type.as_deref().is_none_or(|wanted| suspect.event_type == Some(wanted))
            && self.event_id.is_none_or(|wanted| suspect.event_id == Some(wanted))
            && rule.library.as_ref().is_none_or(|wanted| library.is_some_and(|library| library.is(wanted)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing;

    fn rules(json: &serde_json::Value) -> KillRules {
        let rules: Vec<KillRule> = serde_json::from_value(json.clone()).unwrap();
        KillRules::new(&rules, &Metrics::new(&testing::log())).unwrap()
    }

    fn of<'e>(source: &'e SourceName, event_type: &'e str, context: &'e [u8]) -> Suspect<'e> {
        Suspect {
            source,
            event_type: Some(event_type),
            event_id: EventId::parse("123e4567-e89b-12d3-a456-426614174000"),
            context: Some(context),
            event: b"{}",
            now: testing::NOW,
        }
    }

    #[test]
    fn the_first_rule_whose_properties_all_agree_decides_and_is_counted() {
        let rules = rules(&json!([
            {"name": "over", "action": "drop", "source": "web", "expires_at": "2020-01-01T00:00:00Z"},
            {"name": "loop", "action": "divert", "source": "web", "event_type": "page_view"},
            {"name": "old", "action": "drop", "library": "js 1.2.0"},
            {"name": "one", "action": "drop", "event_id": "123E4567E89B12D3A456426614174000", "event_type": "x"},
        ]));
        let (web, app) = (SourceName::new("web"), SourceName::new("app"));
        assert_eq!(rules.stops(&of(&web, "page_view", b"{}")).unwrap().status, Status::Quarantined);
        assert!(rules.stops(&of(&app, "page_view", b"{}")).is_none());
        let context = br#"{"library":{"name":"js","version":"1.2.0"}}"#;
        assert_eq!(rules.stops(&of(&app, "page_view", context)).unwrap().status, Status::Rejected);
        let newer = br#"{"library":{"name":"js","version":"1.2.1"}}"#;
        assert!(rules.stops(&of(&app, "page_view", newer)).is_none());
        assert!(rules.stops(&of(&app, "x", b"{}")).is_some());
        let counts: Vec<u64> = rules.counts().map(|(_, count)| count).collect();
        assert_eq!(counts, [0, 1, 1, 1]);
    }

    #[test]
    fn a_sample_lets_its_share_pass_and_always_the_same_events() {
        let rules = rules(&json!([{"name": "some", "action": "sample", "keep": 0.1, "source": "web"}]));
        let web = SourceName::new("web");
        let is_let_through = |n: u32| {
            let id = EventId::parse(&format!("{n:08x}-e89b-12d3-a456-426614174000"));
            rules.stops(&Suspect { event_id: id, ..of(&web, "x", b"{}") }).is_none()
        };
        let passed: Vec<u32> = (0..5_000).filter(|n| is_let_through(*n)).collect();
        assert!((350..650).contains(&passed.len()), "{}", passed.len());
        assert!(passed.iter().all(|n| is_let_through(*n)));
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_refused() {
        let rule = |json: serde_json::Value| serde_json::from_value::<KillRule>(json).unwrap();
        for wrong in [
            json!({"name": "a", "action": "drop"}),
            json!({"name": "a b", "action": "drop", "source": "web"}),
            json!({"name": "a", "action": "sample", "source": "web"}),
            json!({"name": "a", "action": "drop", "keep": 0.5, "source": "web"}),
            json!({"name": "a", "action": "drop", "event_id": "7"}),
        ] {
            assert!(rule(wrong.clone()).check().is_err(), "{wrong}");
        }
        let one = rule(json!({"name": "a", "action": "drop", "source": "web"}));
        assert!(check_kill_rules(std::slice::from_ref(&one)).is_ok());
        assert!(check_kill_rules(&[one.clone(), one.clone()]).is_err());
        let many =
            (0..=crate::config::MAX_KILL_RULES).map(|n| KillRule { name: n.to_string(), ..one.clone() });
        assert!(check_kill_rules(&many.collect::<Vec<_>>()).is_err());
    }
}
