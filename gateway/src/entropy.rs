//! Randomness, as something that is passed in.
//!
//! **Invariant:** nobody else in this crate asks the system for random bytes, so a test decides what is minted.

use schemas::id::EventId;
use schemas::time::Timestamp;

/// Gives random bytes.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`, or fails as the system does.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Unavailable>;
}

/// The system has no random bytes to give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct Unavailable;

/// The operating system's generator.
#[derive(Clone, Copy, Default, Debug)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Unavailable> {
        getrandom::fill(bytes).map_err(|_| Unavailable)
    }
}

/// A new event id of this moment.
pub(crate) fn mint_event_id(entropy: &dyn Entropy, now: Timestamp) -> Result<EventId, Unavailable> {
    let mut bytes = [0; 10];
    entropy.fill(&mut bytes)?;
    Ok(EventId::v7(u64::try_from(now.as_millis()).unwrap_or(0), &bytes))
}

/// A new session id: 128 bits that nobody can guess.
pub(crate) fn mint_session_id(entropy: &dyn Entropy) -> Result<String, Unavailable> {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
