//! Events that are known to be on the log, so that a quick resend costs no second record.
//!
//! It is an economy, not the promise: exact deduplication is the processor's.
//!
//! **Invariant:** an event is found here only after the log said that it is fsynced; at most `capacity` are remembered.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash as _, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};

use schemas::id::{EventId, ProfileKey, SourceName};
use schemas::verdict::AckLevel;

/// Stands for (source, profile, event id) and the event's bytes: 128 bits of keyed hash, so that two different events are taken
/// for one with a probability of 2^-64 a pair at most, and nobody outside can construct such a pair.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Fingerprint(u64, u64);

/// A map by fingerprints, which are hashes already.
pub(crate) type ByFingerprint<T> = HashMap<Fingerprint, T, BuildHasherDefault<Folded>>;

/// Takes what is a keyed hash already as it is.
#[derive(Debug, Default)]
pub(crate) struct Folded(u64);

#[derive(Debug)]
pub(crate) struct Recent {
    identity: RandomState,
    content: RandomState,
    capacity: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    levels: ByFingerprint<AckLevel>,
    order: VecDeque<Fingerprint>,
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = self.0.rotate_left(32) ^ number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Recent {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { identity: RandomState::new(), content: RandomState::new(), capacity, known: Mutex::default() }
    }

    pub(crate) fn fingerprint(
        &self,
        source: &SourceName,
        profile: &ProfileKey,
        id: EventId,
        bytes: &[u8],
    ) -> Fingerprint {
        let mut identity = self.identity.build_hasher();
        source.hash(&mut identity);
        profile.hash(&mut identity);
        id.hash(&mut identity);
        let mut content = self.content.build_hasher();
        content.write(bytes);
        Fingerprint(identity.finish(), content.finish())
    }

    /// The level at which each event is on the log already.
    pub(crate) fn levels(
        &self,
        events: &mut dyn Iterator<Item = Option<Fingerprint>>,
    ) -> Vec<Option<AckLevel>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        events.map(|event| event.and_then(|event| known.levels.get(&event).copied())).collect()
    }

    /// Remembers events that the log has taken at `level`; below `disk` a crash could still lose them.
    pub(crate) fn remember(&self, events: &mut dyn Iterator<Item = (Fingerprint, AckLevel)>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (event, level) in events.filter(|(_, level)| *level >= AckLevel::Disk) {
            if known.levels.insert(event, level).is_none() {
                known.order.push_back(event);
            }
            while known.order.len() > self.capacity {
                if let Some(oldest) = known.order.pop_front() {
                    known.levels.remove(&oldest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::id::UserId;

    use super::*;

    fn fingerprint(recent: &Recent, user: &str, n: u8, bytes: &[u8]) -> Fingerprint {
        recent.fingerprint(
            &SourceName::new("web"),
            &ProfileKey::user(&UserId::new(user)),
            EventId::from_bytes([n; 16]),
            bytes,
        )
    }

    #[test]
    fn only_what_is_fsynced_is_known_and_the_oldest_is_forgotten_first() {
        let recent = Recent::new(2);
        let [a, b, c] = [1, 2, 3].map(|n| fingerprint(&recent, "u", n, b"{}"));
        recent.remember(&mut [(a, AckLevel::Received), (b, AckLevel::Disk)].into_iter());
        assert_eq!(
            recent.levels(&mut [Some(a), Some(b), None].into_iter()),
            [None, Some(AckLevel::Disk), None]
        );
        recent.remember(&mut [(c, AckLevel::Broker), (a, AckLevel::Disk)].into_iter());
        let right = [Some(AckLevel::Disk), None, Some(AckLevel::Broker)];
        assert_eq!(recent.levels(&mut [Some(a), Some(b), Some(c)].into_iter()), right);
    }

    #[test]
    fn another_person_or_another_content_is_another_event() {
        let recent = Recent::new(8);
        let one = fingerprint(&recent, "u", 1, b"{}");
        assert_eq!(one, fingerprint(&recent, "u", 1, b"{}"));
        assert_ne!(one, fingerprint(&recent, "v", 1, b"{}"));
        assert_ne!(one, fingerprint(&recent, "u", 1, b"{ }"));
        let recent = Recent::new(0);
        recent.remember(&mut [(one, AckLevel::Disk)].into_iter());
        assert_eq!(recent.levels(&mut [Some(one)].into_iter()), [None]);
    }
}
