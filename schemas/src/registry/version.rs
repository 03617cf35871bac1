//! Versions of schemas: `1`, `1.2` or `1.2.3`, as semantic versioning has them.
//!
//! **Invariant:** what a version displays as is read back as the same version; versions are ordered as numbers, not as text.

use std::fmt;

/// A version, from 1.0.0. Within one major number a newer version takes every event that an older one took.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Version {
    /// Raised when events that fitted fit no longer.
    pub major: u32,
    /// Raised when more is described or allowed.
    pub minor: u32,
    /// Raised when nothing changes for any event.
    pub patch: u32,
}

/// What an event asks for: the newest version of a major number, of a minor number, or exactly one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pin {
    lowest: Version,
    numbers: usize,
}

impl Version {
    /// The first version of a major number.
    pub const fn major(major: u32) -> Self {
        Self { major, minor: 0, patch: 0 }
    }

    /// Reads `1`, `1.2` or `1.2.3`: no sign, no leading zeros, no pre-release; the major number is at least 1.
    pub fn parse(text: &str) -> Option<Self> {
        Pin::parse(text).map(|pin| pin.lowest)
    }
}

impl fmt::Display for Version {
    /// `1` for 1.0.0, all three numbers otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.minor == 0 && self.patch == 0 {
            return write!(f, "{}", self.major);
        }
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Pin {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = [0_u32; 3];
        let mut count = 0;
        for part in text.split('.') {
            let plain =
                part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            *numbers.get_mut(count)? = plain.then(|| part.parse().ok()).flatten()?;
            count += 1;
        }
        let [major, minor, patch] = numbers;
        (major > 0).then_some(Self { lowest: Version { major, minor, patch }, numbers: count })
    }

    /// The versions that are meant, ordered.
    pub(super) fn range(self) -> std::ops::RangeInclusive<Version> {
        let Version { major, minor, .. } = self.lowest;
        let highest = match self.numbers {
            1 => Version { major, minor: u32::MAX, patch: u32::MAX },
            2 => Version { major, minor, patch: u32::MAX },
            _ => self.lowest,
        };
        self.lowest..=highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_back_as_it_is_shown() {
        for (text, shown) in
            [("1", "1"), ("1.0", "1"), ("1.0.0", "1"), ("1.2", "1.2.0"), ("10.0.3", "10.0.3")]
        {
            let version = Version::parse(text).unwrap();
            assert_eq!(version.to_string(), shown);
            assert_eq!(Version::parse(shown), Some(version));
        }
        for text in [
            "",
            "0",
            "0.1.0",
            "01",
            "1.",
            ".1",
            "1.2.3.4",
            "+1",
            "-1",
            "1.x",
            "1.2.3-beta",
            "4294967296",
            "1 ",
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        assert!(Version::parse("1.10").unwrap() > Version::parse("1.9.9").unwrap());
    }
}
