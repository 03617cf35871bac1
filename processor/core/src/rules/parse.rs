//! The rules file as written: YAML to types.
//!
//! **Invariant:** an error names the file, and line and column where they are known; no text makes the reader panic or take long
//! (the YAML reader has a budget of nodes, depth and aliases; texts over [`MAX_BYTES`] are not read).

use serde::{Deserialize, Deserializer, Serialize};
use serde_saphyr::Spanned;

use crate::fields::Path;

/// Largest rules file.
pub const MAX_BYTES: usize = 1 << 20;
/// Largest count that a rule may wait for: as many event times are kept a key.
pub const MAX_AT_LEAST: u32 = 256;
/// Longest duration.
const MAX_DURATION_MS: i64 = 400 * 86_400_000;

/// What is wrong with a rules file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct RulesError {
    /// The file's name as the caller gave it.
    pub file: String,
    /// From 1; 0 if unknown.
    pub line: u64,
    /// From 1; 0 if unknown.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

/// A duration in milliseconds, written as `500ms`, `30s`, `30m`, `24h` or `7d`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let unit = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let millis = number.parse::<i64>().ok()?.checked_mul(unit)?;
        (1..=MAX_DURATION_MS).contains(&millis).then_some(Self(millis))
    }
}

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        let (size, unit) = units.into_iter().find(|(size, _)| self.0 % size == 0).unwrap_or((1, "ms"));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || {
            serde::de::Error::custom("not a duration from 1ms to 400d such as `30s`, `30m`, `24h` or `7d`")
        };
        Self::parse(&text).ok_or_else(wrong)
    }
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) rules: Vec<Spanned<RuleSpec>>,
    #[serde(default)]
    pub(crate) last_values: Vec<Spanned<LastValueSpec>>,
}

/// One rule. What it serialises to is what its version is the hash of.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleSpec {
    pub(crate) name: String,
    pub(crate) on: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) when: Option<WhenSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) score_above: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unless: Option<UnlessSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cooldown: Option<Millis>,
    pub(crate) decide: DecideSpec,
}

/// A threshold within a window.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhenSpec {
    pub(crate) count: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
    pub(crate) within: Millis,
    pub(crate) at_least: u32,
}

/// An event that must not have happened.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnlessSpec {
    pub(crate) event: String,
    pub(crate) within: Millis,
}

/// What to decide.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecideSpec {
    pub(crate) slot: String,
    #[serde(default)]
    pub(crate) payload: serde_json::Value,
    /// How long after the moment it may be shown; without it, `when.within`, else 30 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<Millis>,
}

/// A value to keep in the profile, the latest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LastValueSpec {
    pub(crate) name: String,
    pub(crate) from: String,
    #[serde(default)]
    pub(crate) on: Option<String>,
}

impl LastValueSpec {
    pub(crate) fn path(&self) -> Option<Path> {
        Path::parse(&self.from)
    }
}

/// Reads a file's text.
pub(crate) fn parse(text: &str, file: &str) -> Result<File, RulesError> {
    let error = |line, column, message: String| RulesError { file: file.to_owned(), line, column, message };
    if text.len() > MAX_BYTES {
        return Err(error(0, 0, format!("{} bytes, at most {MAX_BYTES}", text.len())));
    }
    serde_saphyr::from_str(text).map_err(|cause| {
        let (line, column) = cause.location().map_or((0, 0), |at| (at.line(), at.column()));
        error(line, column, cause.without_snippet().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis) in
            [("30m", 1_800_000), ("24h", 86_400_000), ("500ms", 500), ("90s", 90_000), ("7d", 604_800_000)]
        {
            assert_eq!(Millis::parse(text), Some(Millis(millis)), "{text}");
        }
        assert_eq!(Millis(1_800_000).to_string(), "30m");
        for text in ["", "30", "m", "0m", "-1m", "9999999d", "99999999999999999999h", "1.5h", "30 m"] {
            assert_eq!(Millis::parse(text), None, "{text}");
        }
    }
}
