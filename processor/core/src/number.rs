//! Decimal numbers as they are written, never through a binary float.
//!
//! **Invariant:** a sum of [`Decimal`]s is exact and does not depend on the order; two spellings of one number have one
//! [`canonical`] text and two numbers have two, however close they are.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::wire;

/// Digits kept behind the point.
const SCALE: u32 = 9;
/// 10 to the power of [`SCALE`].
const ONE: i128 = 1_000_000_000;
/// Digits before the point of a number that may be summed: 10^9 of them still fit an `i128`.
const MAX_INTEGER_DIGITS: usize = 20;
/// Largest exponent that [`canonical`] writes out.
const MAX_PLAIN_EXPONENT: i64 = 40;

/// A number with up to twenty digits before and nine behind the point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Decimal(i128);

wire!(Decimal[0]);

impl Decimal {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// Reads a JSON number; `None` when it has more digits than are kept exactly.
    pub fn parse(text: &str) -> Option<Self> {
        let parts = Parts::of(text)?;
        if parts.digits.is_empty() {
            return Some(Self::ZERO);
        }
        let shift = parts.exponent.checked_add(i64::from(SCALE))?;
        let integer_digits = i64::try_from(parts.digits.len()).ok()?.checked_add(parts.exponent)?;
        if shift < 0 || integer_digits > i64::try_from(MAX_INTEGER_DIGITS).ok()? {
            return None;
        }
        let mantissa: i128 = parts.digits.parse().ok()?;
        let value = mantissa.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)?;
        Some(Self(if parts.negative { -value } else { value }))
    }

    /// The sum; stays at the bound when it would leave the range (after 10^18 of the largest numbers).
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The product, if it can be held exactly.
    pub fn times(self, other: Self) -> Option<Self> {
        let product = self.0.checked_mul(other.0)?;
        (product % ONE == 0)
            .then_some(Self(product / ONE))
            .filter(|value| value.0.unsigned_abs() < 10_u128.pow(29))
    }

    /// The nearest double, for scores alone.
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / ONE as f64
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, rest) =
            (self.0.unsigned_abs() / ONE.unsigned_abs(), self.0.unsigned_abs() % ONE.unsigned_abs());
        if rest == 0 {
            return write!(f, "{sign}{whole}");
        }
        let rest = format!("{rest:09}");
        write!(f, "{sign}{whole}.{}", rest.trim_end_matches('0'))
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_kept(&text).ok_or_else(|| serde::de::Error::custom("not a decimal number"))
    }
}

impl Decimal {
    /// Reads what [`Decimal`]'s own `Display` wrote: sums may have more digits than one event's number.
    fn parse_kept(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        let all = rest.len() <= 9
            && !whole.is_empty()
            && (whole.bytes().chain(rest.bytes())).all(|b| b.is_ascii_digit());
        let value: i128 = if all { format!("{whole}{rest:0<9}").parse().ok()? } else { return None };
        Some(Self(if negative { -value } else { value }))
    }
}

/// A number taken apart: `digits` without zeros at either end, times ten to the power of `exponent`.
struct Parts {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Parts {
    fn of(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let mut exponent: i64 = exponent.parse().ok()?;
        let (whole, rest) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{rest}");
        if whole.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        exponent = exponent.checked_sub(i64::try_from(rest.len()).ok()?)?;
        let digits = digits.trim_start_matches('0');
        let trimmed = digits.trim_end_matches('0');
        exponent = exponent.checked_add(i64::try_from(digits.len() - trimmed.len()).ok()?)?;
        let zero = trimmed.is_empty();
        Some(Self {
            negative: negative && !zero,
            digits: trimmed.to_owned(),
            exponent: if zero { 0 } else { exponent },
        })
    }
}

/// The one text of a JSON number: `1e2`, `100` and `100.0` are all `100`; no digit is lost however many there are.
pub fn canonical(text: &str) -> Option<String> {
    let Parts { negative, digits, exponent } = Parts::of(text)?;
    let sign = if negative { "-" } else { "" };
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    if (0..=MAX_PLAIN_EXPONENT).contains(&exponent) {
        let zeros = "0".repeat(usize::try_from(exponent).ok()?);
        return Some(format!("{sign}{digits}{zeros}"));
    }
    if (-MAX_PLAIN_EXPONENT..0).contains(&exponent) {
        let behind = usize::try_from(-exponent).ok()?;
        let padded = format!("{digits:0>width$}", width = behind + 1);
        let (whole, rest) = padded.split_at(padded.len() - behind);
        return Some(format!("{sign}{whole}.{rest}"));
    }
    Some(format!("{sign}{digits}e{exponent}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_number_are_one_text_and_neighbours_are_two() {
        for (text, right) in [
            ("100", "100"),
            ("1e2", "100"),
            ("100.0", "100"),
            ("-0.0", "0"),
            ("0.10", "0.1"),
            ("1E-3", "0.001"),
            ("9007199254740992", "9007199254740992"),
            ("9007199254740993", "9007199254740993"),
            ("18446744073709551617", "18446744073709551617"),
            ("9007199254740991.0", "9007199254740991"),
            ("-12.50", "-12.5"),
            ("1e300", "1e300"),
            ("10e299", "1e300"),
            ("1.5e-60", "15e-61"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(right), "{text}");
        }
        for text in ["", "-", ".5", "x", "1e", "1e99999999999999999999"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    #[test]
    fn decimals_keep_every_digit_or_are_refused() {
        for (text, right) in [
            ("0.1", "0.1"),
            ("1e2", "100"),
            ("9007199254740993", "9007199254740993"),
            ("-0.000000001", "-0.000000001"),
        ] {
            assert_eq!(Decimal::parse(text).map(|d| d.to_string()).as_deref(), Some(right));
        }
        assert_eq!(Decimal::parse("0.0000000001"), None);
        assert_eq!(Decimal::parse("1e21"), None);
        let sum = (0..10).fold(Decimal::ZERO, |sum, _| sum.plus(Decimal::parse("0.1").unwrap()));
        assert_eq!(sum.to_string(), "1");
        assert_eq!(
            Decimal::parse("19.99").unwrap().times(Decimal::parse("3").unwrap()).unwrap().to_string(),
            "59.97"
        );
    }

    proptest! {
        #[test]
        fn canonical_text_is_a_fixed_point_and_no_text_panics(text in "-?[0-9]{1,25}(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", any in ".*") {
            let once = canonical(&text).unwrap();
            prop_assert_eq!(canonical(&once), Some(once.clone()));
            let _ = (canonical(&any), Decimal::parse(&any));
        }

        #[test]
        fn a_decimal_reads_back_what_it_wrote(value in any::<i128>().prop_map(|v| v / 4)) {
            let decimal = Decimal(value);
            let json = serde_json::to_string(&decimal).unwrap();
            prop_assert_eq!(serde_json::from_str::<Decimal>(&json).unwrap(), decimal);
        }
    }
}
