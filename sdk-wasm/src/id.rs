//! Event ids for hosts that have no generator of their own: `UUIDv7` from the time and random bytes passed in.
//!
//! **Invariant:** ids of one mint rise strictly, also when the clock stands still or goes back.

use alloc::string::String;

use crate::input::Millis;

/// Makes ids.
#[derive(Clone, Debug, Default)]
pub struct Mint {
    millis: u64,
    /// Counts within a millisecond: the 12 bits after the time.
    counter: u32,
}

impl Mint {
    /// The next id, in canonical form.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a clock's time is a small whole number"
    )]
    pub fn next(&mut self, now: Millis, random: [u32; 3]) -> String {
        let [first, high, low] = random;
        if now as u64 > self.millis {
            self.millis = now as u64;
            // Half of the range is left for counting.
            self.counter = first & 0x7ff;
        } else {
            self.counter += 1;
            if self.counter > 0xfff {
                self.millis += 1;
                self.counter = 0;
            }
        }
        let tail = u64::from(high) << 32 | u64::from(low);
        text(self.millis << 16 | 0x7000 | u64::from(self.counter), tail >> 2 | 1 << 63)
    }
}

fn text(high: u64, low: u64) -> String {
    let mut out = String::with_capacity(36);
    for digit in 0..32 {
        if matches!(digit, 8 | 12 | 16 | 20) {
            out.push('-');
        }
        let half = if digit < 16 { high } else { low };
        let nibble = (half >> (60 - digit % 16 * 4) & 15) as u8;
        out.push(char::from(if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_and_carry_their_time() {
        let id = Mint::default().next(1_714_054_985_123.0, [u32::MAX; 3]);
        assert_eq!(id, "018f15a3-75a3-77ff-bfff-ffffffffffff");
    }

    #[test]
    fn ids_rise_though_the_clock_goes_back() {
        let mut mint = Mint::default();
        let mut last = mint.next(1_000_000.0, [7; 3]);
        for step in 0..20_000_u32 {
            let now = 1_000_000.0 + f64::from(step % 3);
            let next = mint.next(now, [step.wrapping_mul(2_654_435_761); 3]);
            assert!(next > last, "{next} after {last}");
            last = next;
        }
    }
}
