//! The bound on a profile as a whole.
//!
//! Each map has a cap of its own, but a rule set with many windows could still fill more than a record of the log takes, and a
//! profile must fit into one when it is handed over by a merge. What gives way first is what is least missed: event times of the
//! keys least recently seen, over all windows; then what is kept of the newest events; then the oldest values, categories and
//! counters. Ids, sessions, sums, cooldowns and decisions stay: they are bounded by their caps to less than [`MAX_PROFILE_BYTES`].
//!
//! **Invariant:** after each step, [`size`] is at most [`MAX_PROFILE_BYTES`], and everything that gave way was counted.

use super::Profile;
use super::encode::size;
use super::traits::{MAX_NAME_BYTES, MAX_TRAIT_BYTES};
use crate::codec::{Length, Wire as _};
use crate::fields::MAX_KEY_BYTES;
use crate::output::Outputs;
use crate::session::MAX_SESSIONS;

/// Largest profile, in bytes of its stored form. A history of this size, in base64 and with its envelope, is less than half of
/// the largest record that the log and Kafka's defaults take (1 MiB).
pub const MAX_PROFILE_BYTES: usize = 256 << 10;

impl Profile {
    /// Makes the profile fit.
    pub(crate) fn fit(&mut self, out: &mut Outputs) {
        if self.at_most() <= MAX_PROFILE_BYTES {
            return;
        }
        let mut bytes = size(self);
        while bytes > MAX_PROFILE_BYTES && self.give_way(bytes - MAX_PROFILE_BYTES, out) {
            bytes = size(self);
        }
    }

    /// No less than [`size`], without looking at each value: what is many is counted at its largest, the rest is measured.
    pub fn at_most(&self) -> usize {
        /// The longest integer, or length.
        const INTEGER: usize = 10;
        const KEY: usize = MAX_KEY_BYTES + INTEGER;
        const DATED: usize = INTEGER + 16;
        const TRAIT: usize = MAX_NAME_BYTES + MAX_TRAIT_BYTES + 2 * INTEGER + DATED;
        const SESSION: usize = 16 + 3 * INTEGER + 2;
        /// Version, lengths, times and the score.
        const FIXED: usize = 24 * INTEGER;
        let mut rest = Length::default();
        self.key.put(&mut rest);
        self.redirect.put(&mut rest);
        self.sums.put(&mut rest);
        self.devices.put(&mut rest);
        self.moments.put(&mut rest);
        self.awaited.put(&mut rest);
        self.cooldowns.put(&mut rest);
        self.decisions.put(&mut rest);
        self.user_agent.put(&mut rest);
        self.campaign_first.put(&mut rest);
        self.campaign_last.put(&mut rest);
        let counts = self.counters.len() + self.categories.len();
        FIXED
            + rest.0
            + (self.traits.len() + self.last_values.len()) * TRAIT
            + counts * (KEY + 2 * INTEGER)
            + self.deferred.len() * 16
            + MAX_SESSIONS * SESSION
            + self.windows.at_most(KEY + INTEGER, DATED)
    }

    /// Lets go of what is least missed, `excess` bytes or the last of its kind; false if there is nothing left that may go.
    fn give_way(&mut self, excess: usize, out: &mut Outputs) -> bool {
        let cells = self.windows.give_way(excess);
        if cells > 0 {
            out.notes.given_way += cells;
            return true;
        }
        out.notes.given_way += 1;
        if self.moments.pop_first().is_some() {
            return true;
        }
        for (group, traits) in [("last", &mut self.last_values), ("traits", &mut self.traits)] {
            if let Some((name, old)) = traits.forget_oldest() {
                out.change(format!("{group}.{name}"), old, None);
                return true;
            }
        }
        for (group, counts) in [("categories", &mut self.categories), ("counters", &mut self.counters)] {
            if let Some((name, n)) = counts.forget_oldest(None) {
                out.change(format!("{group}.{name}"), Some(n.to_string()), None);
                return true;
            }
        }
        out.notes.given_way -= 1;
        false
    }
}
