//! Event ids: `UUIDv7` from the time and random bytes passed in.
//!
//! **Invariant:** ids of one engine rise strictly, also when the clock stands still or goes back.

use alloc::string::String;

/// Random bytes for one step, as the browser's generator gives them.
pub type Entropy = [u32; 4];

/// A UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(u64, u64);

impl EventId {
    /// Reads the canonical text form: lower case with hyphens.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        let mut halves = [0_u64; 2];
        let mut digits = 0;
        for (at, byte) in text.bytes().enumerate() {
            let nibble = match byte {
                b'-' if is_hyphen(at) => continue,
                _ if is_hyphen(at) => return None,
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return None,
            };
            let half = halves.get_mut(digits / 16)?;
            *half = *half << 4 | u64::from(nibble);
            digits += 1;
        }
        let [high, low] = halves;
        Some(Self(high, low))
    }

    /// Appends the canonical text form.
    pub fn push(self, out: &mut String) {
        const DIGITS: &str = "0123456789abcdef";
        for digit in 0..32 {
            if matches!(digit, 8 | 12 | 16 | 20) {
                out.push('-');
            }
            let half = if digit < 16 { self.0 } else { self.1 };
            #[expect(clippy::cast_possible_truncation, reason = "a nibble")]
            let nibble = (half >> (60 - digit % 16 * 4)) as usize & 15;
            out.push_str(DIGITS.get(nibble..=nibble).unwrap_or_default());
        }
    }

    /// The time in a `UUIDv7`, milliseconds since 1970; `None` for other versions.
    pub fn millis(self) -> Option<u64> {
        (self.0 >> 12 & 15 == 7).then_some(self.0 >> 16)
    }
}

const fn is_hyphen(at: usize) -> bool {
    matches!(at, 8 | 13 | 18 | 23)
}

impl core::fmt::Debug for EventId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut text = String::new();
        self.push(&mut text);
        f.write_str(&text)
    }
}

/// Makes ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mint {
    millis: u64,
    /// Counts within a millisecond: the 12 bits after the time.
    counter: u32,
}

impl Mint {
    /// The next id.
    pub(crate) fn next(&mut self, now: u64, entropy: Entropy) -> EventId {
        let [random, high, low, _] = entropy;
        if now > self.millis {
            self.millis = now;
            // Half of the range is left for counting.
            self.counter = random & 0x7ff;
        } else {
            self.counter += 1;
            if self.counter > 0xfff {
                self.millis += 1;
                self.counter = 0;
            }
        }
        let tail = u64::from(high) << 32 | u64::from(low);
        EventId(self.millis << 16 | 0x7000 | u64::from(self.counter), tail >> 2 | 1 << 63)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn ids_are_version_7_and_carry_their_time() {
        let id = Mint::default().next(1_714_054_985_123, [u32::MAX; 4]);
        assert_eq!(format!("{id:?}"), "018f15a3-75a3-77ff-bfff-ffffffffffff");
        assert_eq!(id.millis(), Some(1_714_054_985_123));
        assert_eq!(EventId::parse(&format!("{id:?}")), Some(id));
        assert_eq!(EventId::parse("018F15A5-ADA3-77FF-BFFF-FFFFFFFFFFFF"), None);
        assert_eq!(EventId::parse("018f15a5ada377ffbfffffffffffffff"), None);
    }

    #[test]
    fn ids_rise_though_the_clock_goes_back() {
        let mut mint = Mint::default();
        let mut last = mint.next(1_000_000, [7; 4]);
        for step in 0..20_000_u32 {
            let now = 1_000_000 + u64::from(step % 3);
            let next = mint.next(now, [step.wrapping_mul(2_654_435_761); 4]);
            assert!(next > last, "{next:?} after {last:?}");
            last = next;
        }
    }
}
