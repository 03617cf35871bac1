//! Personal data is hashed, masked or dropped before an event is kept anywhere: on the log, in quarantine, in a log line.
//!
//! What is personal is said by schemas (`x-pii`) and by keys (`redact`). The event is judged as it was sent; what is kept of it is
//! the sender's bytes with those values replaced in place.
//!
//! **Invariant:** an event whose personal parts cannot be told (it cannot be read, or its type is not known and it is refused) keeps
//! length and SHA-256 alone, as soon as anything under this key or in any schema is marked.

mod pointers;
mod splice;

use hmac::{Hmac, KeyInit as _, Mac as _};
use schemas::id::{EventId, EventType};
use schemas::json::{self, Limits};
use schemas::receipt::MAX_REDACTED;
use schemas::registry::{PiiAction, Registry};
use sha2::Sha256;

use crate::authenticate::Key;
use crate::consent;
pub(crate) use pointers::Pointers;
use splice::{Splicer, Spot};

/// What is kept of an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kept {
    /// All of it.
    AsSent,
    /// The bytes with values replaced, and where.
    Redacted {
        /// What remains.
        bytes: Vec<u8>,
        /// Pointers of the values that were replaced or dropped.
        pointers: Vec<String>,
    },
    /// Nothing but length and hash.
    DigestOnly,
}

/// Who decides what is kept.
#[derive(Clone, Copy)]
pub(crate) struct Redactor<'a> {
    pub(crate) schemas: &'a Registry,
    pub(crate) key: &'a Key,
    pub(crate) secret: Option<&'a str>,
    pub(crate) limits: Limits,
}

impl Redactor<'_> {
    /// What is kept of an event of this type; `None` if it was refused before its type was known.
    pub(crate) fn keep(&self, event: &[u8], event_type: Option<&EventType>, is_refused: bool) -> Kept {
        let by_type = event_type.and_then(|event_type| self.schemas.redaction(event_type));
        if by_type.is_none() && is_refused && self.schemas.redacts() && !self.knows(event_type) {
            return Kept::DigestOnly;
        }
        if by_type.is_none() && self.key.policy.redact.is_empty() {
            return Kept::AsSent;
        }
        if json::object(event, self.limits).is_err() {
            return Kept::DigestOnly;
        }
        let metadata = by_type.map(schemas::registry::Redaction::metadata);
        let spot = Spot::event(metadata, &self.key.policy.redact);
        let (bytes, pointers) = Splicer::new(event, self.secret).splice(&spot);
        if pointers.is_empty() { Kept::AsSent } else { Kept::Redacted { bytes, pointers } }
    }

    /// The same without the person. Where values are hashed, the caller has given no secret: they are masked.
    pub(crate) fn anonymise(&self, event: &[u8], kept: &Kept, event_id: Option<EventId>) -> Kept {
        let Some(bytes) = kept.bytes(event) else { return Kept::DigestOnly };
        let Some((bytes, gone)) = consent::anonymise(bytes, event_id, self.limits) else {
            return Kept::DigestOnly;
        };
        let pointers = gone.into_iter().chain(kept.pointers().iter().cloned());
        Kept::Redacted { bytes, pointers: pointers.take(MAX_REDACTED).collect() }
    }

    /// What is kept of an event whose judging panicked.
    pub(crate) fn keep_unjudged(&self) -> Kept {
        if self.schemas.redacts() || !self.key.policy.redact.is_empty() {
            Kept::DigestOnly
        } else {
            Kept::AsSent
        }
    }

    fn knows(&self, event_type: Option<&EventType>) -> bool {
        event_type.is_some_and(|event_type| !matches!(self.schemas.schema(event_type, None), Ok(None)))
    }
}

impl Kept {
    /// The bytes, if any are kept.
    pub(crate) fn bytes<'k>(&'k self, event: &'k [u8]) -> Option<&'k [u8]> {
        match self {
            Self::AsSent => Some(event),
            Self::Redacted { bytes, .. } => Some(bytes),
            Self::DigestOnly => None,
        }
    }

    /// Where values were replaced or dropped.
    pub(crate) fn pointers(&self) -> &[String] {
        match self {
            Self::Redacted { pointers, .. } => pointers,
            Self::AsSent | Self::DigestOnly => &[],
        }
    }
}

/// What stands in place of a hashed value, as JSON. Without a secret, which the configuration does not allow, it is masked.
fn hashed(secret: Option<&str>, value: &[u8]) -> Vec<u8> {
    let Some(mut mac) = secret.and_then(|secret| Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok())
    else {
        return MASK.to_vec();
    };
    mac.update(value);
    format!("\"{HASH_PREFIX}{}\"", crate::route::hex(&mac.finalize().into_bytes())).into_bytes()
}

/// Whether this stands in place of a value already: an event out of quarantine is redacted a second time.
fn is_hash(text: &str) -> bool {
    let digits = text.strip_prefix(HASH_PREFIX);
    digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// What a hash begins with.
const HASH_PREFIX: &str = "hmac-sha256:";
/// What stands in place of a masked value, as JSON.
const MASK: &[u8] = b"\"***\"";

/// What replaces a value that is not dropped; `None` leaves it: `null` says nothing of anybody.
fn replacement(action: PiiAction, secret: Option<&str>, value: &[u8]) -> Option<Vec<u8>> {
    if value == b"null" {
        return None;
    }
    match action {
        PiiAction::Hash => {
            // By its text, so that the spelling of escapes does not make another hash.
            let text: Option<String> =
                value.starts_with(b"\"").then(|| serde_json::from_slice(value).ok()).flatten();
            let is_done = text.as_deref().is_some_and(is_hash);
            (!is_done).then(|| hashed(secret, text.as_ref().map_or(value, |text| text.as_bytes())))
        }
        PiiAction::Mask => Some(MASK.to_vec()),
        // A dropped item leaves `null`, so that the others keep their places.
        PiiAction::Drop => Some(b"null".to_vec()),
    }
}

#[cfg(test)]
mod tests;
