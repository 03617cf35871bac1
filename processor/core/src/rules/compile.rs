//! Rules checked against each other and made ready: indexed by event type, windows shared.
//!
//! **Invariant:** the version of a rule is the hash of its content, so the same rule has the same version everywhere.

use std::collections::HashMap;

use serde_saphyr::{Location, Spanned};
use uuid::Uuid;

use super::WindowId;
use super::parse::{self, MAX_AT_LEAST, Millis, RuleSpec, RulesError};
use crate::fields::Path;

/// Rules a set may have.
pub const MAX_RULES: usize = 1_000;
/// Rules and slots have names of at most this many bytes.
const MAX_NAME_BYTES: usize = 128;
/// Payloads have at most this many bytes as JSON, before they are filled.
const MAX_PAYLOAD_BYTES: usize = 8 << 10;
/// How long a decision may be shown when nothing else says so.
const DEFAULT_EXPIRY: Millis = Millis(30 * 60_000);
/// Namespace of rule versions.
const RULE_NAMESPACE: Uuid = Uuid::from_u128(0x41a7_e0d9_63c8_5f12_8b5e_f70d_1c94_26ab);

/// A threshold within a window.
#[derive(Clone, PartialEq, Debug)]
pub struct When {
    pub(crate) window: WindowId,
    pub(crate) count: String,
    pub(crate) by: Option<Path>,
    pub(crate) within: Millis,
    pub(crate) at_least: usize,
}

/// An event that must not have happened lately.
#[derive(Clone, PartialEq, Debug)]
pub struct Unless {
    pub(crate) window: WindowId,
    pub(crate) within: Millis,
}

/// A rule that is ready.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Hash of its content.
    pub version: String,
    /// The event type that it is evaluated at.
    pub on: String,
    pub(crate) when: Option<When>,
    pub(crate) score_above: Option<f64>,
    pub(crate) unless: Option<Unless>,
    pub(crate) cooldown: Option<Millis>,
    /// The slot it fills.
    pub slot: String,
    pub(crate) payload: serde_json::Value,
    pub(crate) expires: Millis,
}

/// What to count at an event.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Counted {
    pub(crate) window: WindowId,
    pub(crate) by: Option<Path>,
    pub(crate) k: usize,
}

/// A value to keep.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct LastValue {
    pub(crate) name: String,
    pub(crate) from: Path,
    pub(crate) on: Option<String>,
}

/// A set of rules that is ready.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Ruleset {
    rules: Vec<Rule>,
    by_type: HashMap<String, Vec<usize>>,
    counted: HashMap<String, Vec<Counted>>,
    remembered: HashMap<String, Vec<Path>>,
    pub(crate) last_values: Vec<LastValue>,
}

impl Ruleset {
    /// Reads, checks and compiles a file's text; `file` is its name in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, RulesError> {
        let parsed = parse::parse(text, file)?;
        let mut set = Self::default();
        let at = |location: Location, message: String| RulesError {
            file: file.to_owned(),
            line: location.line(),
            column: location.column(),
            message,
        };
        for Spanned { value: spec, referenced, .. } in parsed.rules {
            let rule = compile(spec).map_err(|message| at(referenced, message))?;
            if set.rules.iter().any(|other| other.name == rule.name) {
                return Err(at(referenced, format!("rule `{}` is there twice", rule.name)));
            }
            if set.rules.len() >= MAX_RULES {
                return Err(at(referenced, format!("more than {MAX_RULES} rules")));
            }
            set.add(rule);
        }
        for Spanned { value: spec, referenced, .. } in parsed.last_values {
            let Some(from) = spec.path() else {
                return Err(at(
                    referenced,
                    format!("`from: {}` is no path such as `metadata.order`", spec.from),
                ));
            };
            set.last_values.push(LastValue { name: spec.name, from, on: spec.on });
        }
        Ok(set)
    }

    /// All rules, in the order of the file.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules evaluated at an event type.
    pub(crate) fn on<'s>(&'s self, event_type: &str) -> impl Iterator<Item = &'s Rule> {
        self.by_type.get(event_type).into_iter().flatten().filter_map(|index| self.rules.get(*index))
    }

    /// What is counted at an event type.
    pub(crate) fn counted(&self, event_type: &str) -> &[Counted] {
        self.counted.get(event_type).map_or(&[], Vec::as_slice)
    }

    /// What to keep of the newest event of a type, so that rules can be evaluated at it again; `None` if its time and id in a
    /// window are all that its rules need.
    pub(crate) fn remembered(&self, event_type: &str) -> Option<&[Path]> {
        self.remembered.get(event_type).map(Vec::as_slice)
    }

    /// The window of a rule and its length.
    pub(crate) fn window_of(&self, rule: &str) -> Option<(&str, i64)> {
        let when = self.rules.iter().find(|other| other.name == rule)?.when.as_ref()?;
        Some((when.window.as_str(), when.within.0))
    }

    /// Whether any rule counts by that window.
    pub(crate) fn uses(&self, window: &str) -> bool {
        self.counted.values().flatten().any(|counted| counted.window.as_str() == window)
    }

    fn add(&mut self, rule: Rule) {
        if let Some(when) = &rule.when {
            let counted = Counted { window: when.window.clone(), by: when.by.clone(), k: when.at_least };
            self.count(&when.count, counted);
        }
        if let Some(unless) = &rule.unless {
            let counted = Counted { window: unless.window.clone(), by: None, k: 1 };
            self.count(unless.window.as_str(), counted);
        }
        let counts_itself = rule.when.as_ref().is_some_and(|when| when.count == rule.on);
        let mut paths = super::evaluate::paths_of(&rule.payload);
        if !counts_itself {
            paths.extend(rule.when.as_ref().and_then(|when| when.by.clone()));
        }
        if !counts_itself || !paths.is_empty() {
            let known = self.remembered.entry(rule.on.clone()).or_default();
            known.extend(paths);
            known.sort();
            known.dedup();
        }
        self.by_type.entry(rule.on.clone()).or_default().push(self.rules.len());
        self.rules.push(rule);
    }

    fn count(&mut self, event_type: &str, new: Counted) {
        let all = self.counted.entry(event_type.to_owned()).or_default();
        match all.iter_mut().find(|counted| counted.window == new.window) {
            Some(counted) => counted.k = counted.k.max(new.k),
            None => all.push(new),
        }
    }
}

fn compile(spec: RuleSpec) -> Result<Rule, String> {
    let version = version(&spec)?;
    named("name", &spec.name)?;
    named("on", &spec.on)?;
    named("decide.slot", &spec.decide.slot)?;
    let when = spec.when.map(|when| {
        named("when.count", &when.count)?;
        if !(1..=MAX_AT_LEAST).contains(&when.at_least) {
            return Err(format!("`at_least: {}` is not from 1 to {MAX_AT_LEAST}", when.at_least));
        }
        let by = when.by.as_deref().map(path).transpose()?;
        let window = WindowId::new(&when.count, by.as_ref());
        let at_least = usize::try_from(when.at_least).unwrap_or(usize::MAX);
        Ok(When { window, count: when.count, by, within: when.within, at_least })
    });
    let when = when.transpose()?;
    if spec.score_above.is_some_and(|score| !(0.0..=1.0).contains(&score)) {
        return Err("`score_above` is not from 0 to 1".to_owned());
    }
    let unless = spec.unless.map(|unless| {
        named("unless.event", &unless.event)?;
        Ok::<_, String>(Unless { window: WindowId::new(&unless.event, None), within: unless.within })
    });
    let payload = spec.decide.payload;
    let bytes = payload.to_string().len();
    if bytes > MAX_PAYLOAD_BYTES {
        return Err(format!("payload of {bytes} bytes, at most {MAX_PAYLOAD_BYTES}"));
    }
    super::evaluate::check_placeholders(&payload, when.as_ref())?;
    let expires = spec.decide.expires.or(when.as_ref().map(|when| when.within)).unwrap_or(DEFAULT_EXPIRY);
    Ok(Rule {
        name: spec.name,
        version,
        on: spec.on,
        when,
        score_above: spec.score_above,
        unless: unless.transpose()?,
        cooldown: spec.cooldown,
        slot: spec.decide.slot,
        payload,
        expires,
    })
}

fn version(spec: &RuleSpec) -> Result<String, String> {
    let content = serde_json::to_vec(spec).map_err(|error| error.to_string())?;
    Ok(Uuid::new_v5(&RULE_NAMESPACE, &content).simple().to_string())
}

fn named(what: &str, name: &str) -> Result<(), String> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control);
    if fits { Ok(()) } else { Err(format!("`{what}` has no name of 1 to {MAX_NAME_BYTES} bytes")) }
}

fn path(text: &str) -> Result<Path, String> {
    Path::parse(text).ok_or_else(|| format!("`{text}` is no path such as `metadata.category`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "rules:\n  - name: a\n    on: product_view\n    when: { count: product_view, by: metadata.category, within: 30m, at_least: 3 }\n    cooldown: 24h\n    decide: { slot: home, payload: { title: \"Still {category}?\" } }\n";

    #[test]
    fn the_version_is_the_hash_of_the_content() {
        let version = |text: &str| Ruleset::parse(text, "r").unwrap().rules()[0].version.clone();
        assert_eq!(version(ONE), version(&format!("# a comment\n{ONE}")));
        assert_ne!(version(ONE), version(&ONE.replace("30m", "31m")));
    }

    #[test]
    fn an_error_names_file_line_and_column() {
        for (text, line) in [
            (ONE.replace("30m", "30 minutes"), 4),
            (ONE.replace("at_least: 3", "at_least: 0"), 2),
            (ONE.replace("cooldown", "coolness"), 5),
            (ONE.replace("{category}", "{colour}"), 2),
            (format!("{ONE}{}", &ONE[7..]), 7),
            (ONE.replace("metadata.category", "category"), 2),
        ] {
            let error = Ruleset::parse(&text, "rules.yaml").unwrap_err();
            assert_eq!((error.file.as_str(), error.line), ("rules.yaml", line), "{error}");
            assert!(error.column > 0 && error.to_string().starts_with("rules.yaml:"), "{error}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the machine itself is measured")]
    fn hostile_texts_are_refused_quickly() {
        let bomb = (0..30).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
            format!("{text}a{}: &a{} [{}]\n", n + 1, n + 1, vec![format!("*a{n}"); 10].join(","))
        });
        let deep = format!(">{}?[{}", "{".repeat(63), "(".repeat(11));
        for text in [
            "!".repeat(5_000),
            deep,
            "[".repeat(100_000),
            bomb,
            "\0".to_owned(),
            "rules: [{".to_owned(),
            String::new(),
        ] {
            let started = std::time::Instant::now();
            assert!(Ruleset::parse(&text, "r").is_err());
            assert!(started.elapsed().as_secs() < 1);
        }
    }
}
