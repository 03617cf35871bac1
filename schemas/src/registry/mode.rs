//! What happens to an event that does not fit its schema: the document's keyword `x-mode`.
//!
//! **Invariant:** whether an event is among a sample depends on its id or bytes alone, so a resent event is judged as the first was.

use std::fmt;

use serde_json::Value;

/// The keyword.
pub(super) const KEYWORD: &str = "x-mode";
/// A share is kept in parts of this.
const WHOLE: u32 = 1_000_000;

/// What happens to an event that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It is kept aside, fixable.
    Quarantine,
    /// It is taken, with a warning.
    Observe,
    /// As `Observe`, for a share of the events; the others are not judged. In millionths.
    Sample(u32),
}

impl Mode {
    /// Reads the keyword of a document: a word, or `{"sample": share}` with a share above 0 and up to 1.
    pub(super) fn of(document: &Value) -> Result<Self, String> {
        let Some(mode) = document.get(KEYWORD) else { return Ok(Self::default()) };
        let named = match mode.as_str() {
            Some("enforce") => Some(Self::Enforce),
            Some("quarantine") => Some(Self::Quarantine),
            Some("observe") => Some(Self::Observe),
            _ => None,
        };
        let share =
            mode.as_object().filter(|object| object.len() == 1).and_then(|object| object.get("sample"));
        let share = share.and_then(Value::as_f64).filter(|share| *share > 0.0 && *share <= 1.0);
        let sampled = share.map(Self::sample);
        named.or(sampled).ok_or_else(|| {
            format!("`{KEYWORD}` is `enforce`, `quarantine`, `observe` or `{{\"sample\": 0.01}}` (a share above 0, up to 1)")
        })
    }

    /// A sample of that share, from 0 to 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of at most 1")]
    pub fn sample(share: f64) -> Self {
        Self::Sample((share.clamp(0.0, 1.0) * f64::from(WHOLE)).ceil() as u32)
    }

    /// Whether an event with this id (or, without one, these bytes) is judged at all.
    pub fn judges(self, id: &[u8]) -> bool {
        match self {
            Self::Sample(share) => fnv(id) % WHOLE < share,
            Self::Enforce | Self::Quarantine | Self::Observe => true,
        }
    }

    /// The word for documents, metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Quarantine => "quarantine",
            Self::Observe => "observe",
            Self::Sample(_) => "sample",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sample(share) => write!(f, "sample {}", f64::from(*share) / f64::from(WHOLE)),
            other => f.write_str(other.as_str()),
        }
    }
}

/// FNV-1a, folded to 32 bits.
fn fnv(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    #[expect(clippy::cast_possible_truncation, reason = "folded")]
    let folded = (hash >> 32) as u32 ^ hash as u32;
    folded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mode_is_a_word_or_a_share() {
        let read = |mode: Value| Mode::of(&json!({"x-mode": mode}));
        assert_eq!(Mode::of(&json!({})), Ok(Mode::Enforce));
        assert_eq!(read(json!("quarantine")), Ok(Mode::Quarantine));
        assert_eq!(read(json!({"sample": 0.25})), Ok(Mode::Sample(250_000)));
        assert_eq!(read(json!({"sample": 1})), Ok(Mode::Sample(1_000_000)));
        assert_eq!(read(json!({"sample": 1e-9})), Ok(Mode::Sample(1)));
        for wrong in [
            json!("Observe"),
            json!(1),
            json!({"sample": 0}),
            json!({"sample": 1.5}),
            json!({"sample": "1"}),
            json!(null),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
        assert_eq!(Mode::Sample(250_000).to_string(), "sample 0.25");
    }

    #[test]
    fn a_sample_takes_its_share_and_always_the_same_events() {
        let mode = Mode::Sample(100_000);
        let taken = (0..10_000_u64).filter(|n| mode.judges(&n.to_be_bytes())).count();
        assert!((800..1_200).contains(&taken), "{taken}");
        assert!((0..1_000_u64).all(|n| mode.judges(&n.to_be_bytes()) == mode.judges(&n.to_be_bytes())));
        assert!((0..1_000_u64).all(|n| Mode::Sample(1_000_000).judges(&n.to_be_bytes())));
    }
}
