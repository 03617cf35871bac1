//! The intent score: logistic regression with weights from a JSON file.
//!
//! `score = 1 / (1 + exp(-(bias + sum of weight * value)))`, features in the order of the file, plain double arithmetic and
//! `libm::exp`. A feature that the profile does not have takes its `default` (0 unless the file says otherwise); a value above `max`
//! counts as `max`.
//!
//! | feature | value |
//! |---|---|
//! | `counter.<event type>` | how many such events |
//! | `category.top` | the largest count of a category |
//! | `sum.<name>` | the sum, such as `sum.revenue` |
//! | `session.events`, `session.minutes` | of the newest session |
//! | `window.<rule>` | the rule's count in its fullest key, at the profile's last event |
//!
//! **Invariant:** the score is a number from 0 to 1 and the same on every host.

use serde::Deserialize;

use crate::profile::Profile;
use crate::rules::Ruleset;

/// Features a model may have.
const MAX_FEATURES: usize = 256;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Not the JSON of a model.
    #[error("model: {0}")]
    Json(#[from] serde_json::Error),
    /// A feature that does not exist.
    #[error(
        "model: feature `{0}` is unknown; there are counter.<type>, category.top, sum.<name>, session.events, session.minutes, window.<rule>"
    )]
    Feature(String),
    /// More features than are allowed.
    #[error("model: {0} features, at most {MAX_FEATURES}")]
    TooMany(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "intent")]
    name: String,
    bias: f64,
    features: Vec<FileFeature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFeature {
    name: String,
    weight: f64,
    #[serde(default)]
    default: f64,
    #[serde(default = "unbounded")]
    max: f64,
}

fn intent() -> String {
    "intent".to_owned()
}

const fn unbounded() -> f64 {
    f64::MAX
}

/// A model that is ready.
#[derive(Clone, PartialEq, Debug)]
pub struct Model {
    name: String,
    bias: f64,
    features: Vec<Feature>,
}

#[derive(Clone, PartialEq, Debug)]
struct Feature {
    source: Source,
    weight: f64,
    default: f64,
    max: f64,
}

#[derive(Clone, PartialEq, Debug)]
enum Source {
    Counter(String),
    TopCategory,
    Sum(String),
    SessionEvents,
    SessionMinutes,
    Window(String),
}

impl Source {
    fn parse(name: &str) -> Option<Self> {
        Some(match name.split_once('.')? {
            ("counter", event_type) => Self::Counter(event_type.to_owned()),
            ("category", "top") => Self::TopCategory,
            ("sum", sum) => Self::Sum(sum.to_owned()),
            ("session", "events") => Self::SessionEvents,
            ("session", "minutes") => Self::SessionMinutes,
            ("window", rule) => Self::Window(rule.to_owned()),
            _ => return None,
        })
    }

    fn value(&self, profile: &Profile, rules: &Ruleset) -> Option<f64> {
        let session = profile.sessions.current();
        match self {
            Self::Counter(event_type) => profile.counters.get(event_type).map(|n| n as f64),
            Self::TopCategory => profile.categories.iter().map(|(_, n)| n).max().map(|n| n as f64),
            Self::Sum(name) => profile.sums.get(name).map(|sum| sum.to_f64()),
            Self::SessionEvents => session.map(|session| session.events as f64),
            Self::SessionMinutes => session.map(|session| session.millis() as f64 / 60_000.0),
            Self::Window(rule) => {
                let (window, within_ms) = rules.window_of(rule)?;
                let last = profile.last_seen?;
                profile
                    .windows
                    .cells(window)
                    .map(|(_, cell)| cell.inside(last, within_ms).len())
                    .max()
                    .map(|n| n as f64)
            }
        }
    }
}

impl Model {
    /// Reads a model file.
    pub fn parse(json: &[u8]) -> Result<Self, ModelError> {
        let file: File = serde_json::from_slice(json)?;
        if file.features.len() > MAX_FEATURES {
            return Err(ModelError::TooMany(file.features.len()));
        }
        let feature = |feature: FileFeature| {
            let source = Source::parse(&feature.name).ok_or(ModelError::Feature(feature.name))?;
            Ok(Feature { source, weight: feature.weight, default: feature.default, max: feature.max })
        };
        let features = file.features.into_iter().map(feature).collect::<Result<_, ModelError>>()?;
        Ok(Self { name: file.name, bias: file.bias, features })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The score of a profile, 0 to 1.
    pub fn score(&self, profile: &Profile, rules: &Ruleset) -> f64 {
        let add = |sum: f64, feature: &Feature| {
            let value = feature.source.value(profile, rules).unwrap_or(feature.default);
            sum + feature.weight * value.min(feature.max)
        };
        let score = 1.0 / (1.0 + libm::exp(-self.features.iter().fold(self.bias, add)));
        // Opposite infinities of absurd weights would be no number.
        if score.is_nan() { 0.5 } else { score }
    }
}

#[cfg(test)]
mod tests {
    use schemas::id::ProfileKey;
    use schemas::time::Timestamp;

    use super::*;

    #[test]
    fn the_score_is_logistic_with_defaults_and_bounds() {
        let model = br#"{"bias":-1,"features":[{"name":"counter.product_view","weight":0.5,"max":4},{"name":"sum.revenue","weight":1,"default":1}]}"#;
        let model = Model::parse(model).unwrap();
        let rules = Ruleset::parse("rules: []", "rules.yaml").unwrap();
        let mut profile = Profile::new(ProfileKey::parse("user:u").unwrap());
        assert!((model.score(&profile, &rules) - 0.5).abs() < 1e-12);
        profile.counters.add("product_view", 100, Timestamp(0), 9);
        assert!((model.score(&profile, &rules) - 1.0 / (1.0 + libm::exp(-2.0))).abs() < 1e-12);
    }

    #[test]
    fn unknown_features_and_infinite_weights_are_refused_or_harmless() {
        assert!(matches!(
            Model::parse(br#"{"bias":0,"features":[{"name":"moon","weight":1}]}"#),
            Err(ModelError::Feature(_))
        ));
        assert!(Model::parse(br#"{"bias":1e999,"features":[]}"#).is_err());
    }
}
