//! Instants in milliseconds, and how the timestamps that clients send are read.
//!
//! **Invariant:** a text is read as the instant it obviously means, or refused; nothing is silently filed in January 1970.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant, in milliseconds since 1970-01-01T00:00:00Z. The text form is RFC 3339 with milliseconds, UTC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

/// Numbers below this are seconds, not milliseconds (as milliseconds they would lie before 1973).
const SECONDS_BELOW: i64 = 100_000_000_000;
/// Numbers above this are microseconds (as milliseconds they would lie after the year 5138).
const MICROS_ABOVE: i64 = 100_000_000_000_000;
/// Numbers above this are nanoseconds (as microseconds they would lie after the year 5138).
const NANOS_ABOVE: i64 = 100_000_000_000_000_000;
/// The earliest instant that is believed: 2000-01-01. Earlier ones come from clocks that were never set.
const EARLIEST: i64 = 946_684_800_000;
/// The latest instant that is believed: 9999-12-30T22:00:00.999Z, the last that has a date of four digits in every zone.
const LATEST: i64 = 253_402_207_200_999;

/// `2024-03-31` and the letter behind it.
const DATE_BYTES: usize = 11;

impl Timestamp {
    /// Reads what a client sent as text: RFC 3339, also with a space for `T`, an offset without minutes, no offset (UTC),
    /// or an epoch number in digits.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(instant) = Self::parse_own(text) {
            return Some(instant);
        }
        let text = text.trim();
        if let Ok(number) = text.parse::<f64>() {
            return Self::from_epoch_number(number);
        }
        let instant = text.parse::<jiff::Timestamp>().ok().or_else(|| {
            // Without this, an offset or zone that is not understood would be read as UTC.
            let has_zone =
                text.bytes().skip(DATE_BYTES).any(|byte| !matches!(byte, b'0'..=b'9' | b':' | b'.' | b','));
            let civil = if has_zone { None } else { text.parse::<jiff::civil::DateTime>().ok() }?;
            jiff::tz::Offset::UTC.to_timestamp(civil).ok()
        })?;
        Self::believed(instant.as_millisecond())
    }

    /// Reads an epoch number: seconds, milliseconds, microseconds or nanoseconds, told apart by size.
    pub fn from_epoch_number(number: f64) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
        let millis = match number {
            n if !n.is_finite() || n.abs() > 1e20 => return None,
            n if n < SECONDS_BELOW as f64 => (n * 1000.0).round() as i64,
            n if n > NANOS_ABOVE as f64 => (n / 1_000_000.0).floor() as i64,
            n if n > MICROS_ABOVE as f64 => (n / 1000.0).floor() as i64,
            n => n.floor() as i64,
        };
        Self::believed(millis)
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This instant moved by `millis`.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Reads the form that [`Timestamp`] is written in; anything else is for the calendar to understand or refuse.
    fn parse_own(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| {
            let digits = text.as_bytes().get(from..to)?;
            digits.iter().try_fold(0_i64, |number, digit| {
                digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
            })
        };
        if text.len() != TEXT_BYTES {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        // Days from the civil calendar, Howard Hinnant's algorithm; years begin in March.
        let year = if month <= 2 { year - 1 } else { year };
        let month = (month + 9) % 12;
        let day_of_era = year.rem_euclid(400) * 365 + year.rem_euclid(400) / 4 - year.rem_euclid(400) / 100
            + (153 * month + 2) / 5
            + day
            - 1;
        let days = year.div_euclid(400) * 146_097 + day_of_era - 719_468;
        let seconds = ((days * 24 + number(11, 13)?) * 60 + number(14, 16)?) * 60 + number(17, 19)?;
        let instant = Self::believed(seconds * 1_000 + number(20, 23)?)?;
        // A day that does not exist would be written as another one.
        (instant.text()? == text.as_bytes()).then_some(instant)
    }

    fn believed(millis: i64) -> Option<Self> {
        (EARLIEST..=LATEST).contains(&millis).then_some(Self(millis))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        if let Some(text) = text.as_ref().and_then(|text| std::str::from_utf8(text).ok()) {
            return f.write_str(text);
        }
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// The latest instant that the calendar library reads: 26 hours before the end of 9999, so that every offset has room.
const LATEST_TEXT: i64 = 253_402_207_200_999;
/// Bytes of the text form.
const TEXT_BYTES: usize = 24;
/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

impl Timestamp {
    /// The text form of instants from 1970 to 9999, made without the machinery that other calendars need: every record has
    /// several of them. The days are counted from 0000-03-01, so that a leap day is the last of its year.
    fn text(self) -> Option<[u8; TEXT_BYTES]> {
        if !(0..=LATEST_TEXT).contains(&self.0) {
            return None;
        }
        let days = self.0 / DAY + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let (seconds, millis) = (self.0 % DAY / 1000, self.0 % 1000);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        for (end, width, mut number) in [
            (4, 4, year),
            (7, 2, month),
            (10, 2, day),
            (13, 2, seconds / 3600),
            (16, 2, seconds / 60 % 60),
            (19, 2, seconds % 60),
            (23, 3, millis),
        ] {
            for place in text.get_mut(end - width..end)?.iter_mut().rev() {
                *place = b'0' + u8::try_from(number % 10).ok()?;
                number /= 10;
            }
        }
        Some(text)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.text().as_ref().and_then(|text| std::str::from_utf8(text).ok()) {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_what_they_obviously_mean() {
        for (text, right) in [
            ("2024-04-25T14:23:05.123Z", "2024-04-25T14:23:05.123Z"),
            ("2024-03-31T02:30:00+02", "2024-03-31T00:30:00.000Z"),
            ("2024-03-31T02:30:00+02:00", "2024-03-31T00:30:00.000Z"),
            ("2024-03-31 02:30:00", "2024-03-31T02:30:00.000Z"),
            ("1711845000000", "2024-03-31T00:30:00.000Z"),
            ("1711845000", "2024-03-31T00:30:00.000Z"),
            ("1711845000123456", "2024-03-31T00:30:00.123Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000Z"),
            ("1711845000123456789", "2024-03-31T00:30:00.123Z"),
            ("1700000000.5", "2023-11-14T22:13:20.500Z"),
            (" 2024-03-31t02:30:00z ", "2024-03-31T02:30:00.000Z"),
            ("2024-03-31T02:30:00.123456789-0530", "2024-03-31T08:00:00.123Z"),
            ("2024-03-31", "2024-03-31T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp::parse(text).map(|t| t.to_string()).as_deref(), Some(right), "{text}");
        }
        for text in [
            "0",
            "-1",
            "275760-09-13T00:00:00Z",
            "2024-02-30T00:00:00Z",
            "banana",
            "",
            "NaN",
            "1e400",
            "inf",
            "2024-03-31T02:30:00 02:00",
            "2024-03-31T02:30:00+99:00",
            "2024-03-31T02:30:00[Europe/Berlin]",
            "2024-03-31T02:30:00 CET",
            "1970-01-01T00:00:00Z",
            "1999-12-31T23:59:59Z",
            "20240331",
            "2024-13-01T00:00:00Z",
            "2024-03-31T25:00:00Z",
            "-271821-04-20T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_instants_of_months_and_years_are_written_right() {
        for text in [
            "1970-01-01T00:00:00.000Z",
            "1999-12-31T23:59:59.999Z",
            "2000-02-29T00:00:00.001Z",
            "2100-02-28T23:59:59.999Z",
            "2100-03-01T00:00:00.000Z",
            "2024-02-29T12:34:56.789Z",
            "9999-12-30T22:00:00.999Z",
        ] {
            let millis = text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
            assert_eq!(Timestamp(millis).to_string(), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn an_instant_is_written_as_a_calendar_writes_it(millis in -10_000..=LATEST_TEXT) {
            let right = format!("{:.3}", jiff::Timestamp::from_millisecond(millis).unwrap());
            proptest::prop_assert_eq!(Timestamp(millis).to_string(), right);
        }

        #[test]
        fn the_text_of_an_instant_is_read_back(millis in EARLIEST..=LATEST) {
            let instant = Timestamp(millis);
            proptest::prop_assert_eq!(Timestamp::parse(&instant.to_string()), Some(instant));
            let json = serde_json::to_string(&instant).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), instant);
        }

        #[test]
        fn no_text_panics_or_is_filed_before_2000(text in ".{0,40}|[0-9TZ:+. -]{0,30}") {
            proptest::prop_assert!(Timestamp::parse(&text).is_none_or(|instant| (EARLIEST..=LATEST).contains(&instant.0)));
        }

        #[test]
        fn milliseconds_of_our_days_are_exact(millis in 1_000_000_000_000..4_000_000_000_000_i64) {
            proptest::prop_assert_eq!(Timestamp::parse(&millis.to_string()), Some(Timestamp(millis)));
        }
    }

    proptest::proptest! {
        #[test]
        fn the_short_way_writes_and_reads_what_the_calendar_does(millis in EARLIEST..=LATEST_TEXT, text in "[0-9]{4}-[0-3][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9].[0-9]{3}[Zz]") {
            let calendar = jiff::Timestamp::from_millisecond(millis).unwrap();
            let written = Timestamp(millis).to_string();
            proptest::prop_assert_eq!(&written, &format!("{calendar:.3}"));
            proptest::prop_assert_eq!(Timestamp::parse_own(&written), Some(Timestamp(millis)));
            if let Some(instant) = Timestamp::parse_own(&text) {
                let calendar = text.parse::<jiff::Timestamp>().unwrap();
                proptest::prop_assert_eq!(instant.0, calendar.as_millisecond());
            }
        }
    }
}
