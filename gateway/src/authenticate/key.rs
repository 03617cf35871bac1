//! What a key allows.
//!
//! **Invariant:** an event is vouched for by a user token only if it is of that user; a key that is past its end allows nothing.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemas::id::{EventType, ProfileKey, ProfileKind, SourceName};
use schemas::receipt::Trust;
use schemas::time::Timestamp;
use schemas::verdict::AckLevel;
use sha2::{Digest as _, Sha256};

use super::meter::{Allowance, Grant, Meter};
use super::origins::OriginPattern;
use crate::config::{HotProfiles, IpPolicy, Lane, PrivacyConfig, UnknownTypes};
use crate::redact::Pointers;

/// Joins two people: who vouches for one of them does not vouch for the other.
const ALIAS: &str = "alias";

/// A key in a request: what it may do, and for whom it speaks.
#[derive(Clone, Debug)]
pub struct Key {
    /// The source's name.
    pub source: SourceName,
    /// How far the key itself vouches for what is sent.
    pub trust: Trust,
    /// What its source is allowed.
    pub policy: Arc<Policy>,
    pub(super) digest: Digest,
    pub(super) expires_at: Option<Timestamp>,
    /// The profile that a token vouches for.
    pub(super) subject: Option<ProfileKey>,
    /// The keys that it was found in.
    pub(super) generation: u64,
}

/// What a source is allowed, whichever of its keys is used.
#[derive(Debug)]
pub struct Policy {
    /// What to do with event types without a schema.
    pub unknown_types: UnknownTypes,
    /// What to keep of the client's address.
    pub ip: IpPolicy,
    /// Its own default level.
    pub ack: Option<AckLevel>,
    /// How soon its events are shed under load.
    pub lane: Lane,
    /// What is done when the person objects.
    pub(crate) privacy: PrivacyConfig,
    /// Events a second of one profile beyond which it is hot, and what becomes of those.
    pub(crate) hot: Option<(u32, HotProfiles)>,
    /// What is not kept of its events as sent.
    pub(crate) redact: Pointers,
    pub(super) event_types: HashSet<String>,
    pub(super) origins: Vec<OriginPattern>,
    pub(super) require_origin: bool,
    pub(super) require_token: bool,
    pub(super) allowance: Allowance,
    pub(super) meter: Arc<Meter>,
}

/// SHA-256 of a key. Never printed: a short key could be found from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(pub(super) [u8; 32]);

impl Digest {
    pub(super) fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

impl Key {
    /// Whether a page of this origin may use the key. Secret keys are not for pages, and bound to none.
    pub fn allows_origin(&self, origin: Option<&str>) -> bool {
        match (self.trust, origin) {
            (Trust::Secret, _) => true,
            (_, None) => !self.policy.require_origin,
            (_, Some(origin)) => self.policy.origins.iter().any(|pattern| pattern.matches(origin)),
        }
    }

    /// Whether the key may send this event type.
    pub fn allows_type(&self, event_type: &str) -> bool {
        self.policy.event_types.is_empty() || self.policy.event_types.contains(event_type)
    }

    /// Who vouches for an event of this type about this profile.
    pub fn trust_in(&self, event_type: &EventType, profile: &ProfileKey) -> Trust {
        let of_user = profile.kind == ProfileKind::User && self.subject.as_ref() == Some(profile);
        if self.trust == Trust::Public && of_user && event_type.as_str() != ALIAS {
            return Trust::Token;
        }
        self.trust
    }

    /// Whether its time is over.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Books events of the source, as far as rate and quota allow.
    pub(crate) fn meter(&self, events: usize, now: Timestamp) -> Grant {
        self.policy.meter.take(&self.policy.allowance, events, now)
    }

    /// How long until so many more events would be granted.
    pub(crate) fn wait(&self, events: usize, now: Timestamp) -> Duration {
        self.policy.meter.wait(&self.policy.allowance, events, now)
    }
}
