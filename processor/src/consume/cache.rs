//! What a partition's writer keeps from batch to batch, so that it is not made anew: parsed user agents, decoded profiles.
//!
//! **Invariant:** bounded; a profile in here equals the store's. A batch takes out what it touches and gives it back after its
//! commit, so one that fails leaves nothing behind that the store does not have.

use std::collections::HashMap;

use processor_core::Profile;
use processor_core::enrich::{UserAgent, user_agent};
use schemas::id::ProfileKey;

/// User agents remembered.
const MAX_AGENTS: usize = 1_024;
/// Stored bytes of the profiles that all partitions together keep decoded; decoded ones take about four times as much.
const PROFILE_BYTES: usize = 32 << 20;
/// Profiles kept decoded by all partitions together.
const MAX_PROFILES: usize = 32_768;

/// All that is kept.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    pub(crate) agents: Agents,
    pub(crate) profiles: Profiles,
}

impl Caches {
    /// Those of one of `partitions`.
    pub(crate) fn of_one(partitions: usize) -> Self {
        Self { agents: Agents::default(), profiles: Profiles::of_one(partitions) }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        let Profiles { max_bytes, max_puts, .. } = self.profiles;
        self.profiles = Profiles { max_bytes, max_puts, ..Profiles::default() };
        self.agents = Agents::default();
    }
}

/// Parsed user agents by header.
#[derive(Debug, Default)]
pub(crate) struct Agents(HashMap<String, Option<UserAgent>>);

impl Agents {
    pub(crate) fn parse(&mut self, header: &str) -> Option<UserAgent> {
        if let Some(known) = self.0.get(header) {
            return known.clone();
        }
        if self.0.len() >= MAX_AGENTS {
            self.0.clear();
        }
        let parsed = user_agent::parse(header);
        self.0.insert(header.to_owned(), parsed.clone());
        parsed
    }
}

/// Decoded profiles in two generations: when the newer is full, the older, which was not asked for since, is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Profiles {
    newer: HashMap<ProfileKey, Profile>,
    older: HashMap<ProfileKey, Profile>,
    /// Stored bytes of those put into the newer generation since it began; some are in use elsewhere by now.
    bytes: usize,
    /// Of those that were put there.
    puts: usize,
    max_bytes: usize,
    max_puts: usize,
}

impl Profiles {
    fn of_one(partitions: usize) -> Self {
        let share = |all: usize| all / 2 / partitions.max(1);
        Self { max_bytes: share(PROFILE_BYTES), max_puts: share(MAX_PROFILES), ..Self::default() }
    }

    /// Takes a profile out.
    pub(crate) fn take(&mut self, key: &ProfileKey) -> Option<Profile> {
        self.newer.remove(key).or_else(|| self.older.remove(key))
    }

    /// Keeps profiles that the store has now, with the length of their stored form.
    pub(crate) fn keep(&mut self, profiles: impl IntoIterator<Item = (Profile, usize)>) {
        for (profile, bytes) in profiles {
            if self.bytes + bytes > self.max_bytes || self.puts >= self.max_puts {
                self.older = std::mem::take(&mut self.newer);
                (self.bytes, self.puts) = (0, 0);
            }
            if bytes <= self.max_bytes && self.max_puts > 0 {
                self.bytes += bytes;
                self.puts += 1;
                self.newer.insert(profile.key.clone(), profile);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::id::UserId;

    use super::*;

    fn profile(n: usize) -> Profile {
        Profile::new(ProfileKey::user(&UserId::new(n.to_string())))
    }

    #[test]
    fn the_newest_are_kept_within_the_bound_and_a_profile_is_given_out_once() {
        let mut profiles = Profiles { max_bytes: 100, max_puts: 3, ..Profiles::default() };
        profiles.keep((0..7).map(|n| (profile(n), 1)));
        let kept: Vec<bool> = (0..7).map(|n| profiles.take(&profile(n).key).is_some()).collect();
        assert_eq!(kept, [false, false, false, true, true, true, true]);
        assert_eq!(profiles.take(&profile(6).key), None, "it was taken out");
    }

    #[test]
    fn large_profiles_take_the_room_of_many_and_too_large_ones_are_not_kept() {
        let mut profiles = Profiles { max_bytes: 100, max_puts: 50, ..Profiles::default() };
        profiles.keep([(profile(0), 1), (profile(1), 99), (profile(2), 60), (profile(3), 60)]);
        assert_eq!(profiles.take(&profile(1).key), None);
        assert!(profiles.take(&profile(2).key).is_some() && profiles.take(&profile(3).key).is_some());
        profiles.keep([(profile(4), 101)]);
        assert_eq!(profiles.take(&profile(4).key), None);
        assert_eq!(Profiles::default().take(&profile(0).key), None);
    }
}
