//! A profile as the store's bytes: one byte of version, then its fields.
//!
//! | version | form |
//! |---|---|
//! | 1 | JSON; read, no longer written |
//! | 2 | the fields in order, as [`crate::codec`] writes them |
//!
//! **Invariant:** equal profiles have equal bytes on every host, and they read back equal; bytes of an unknown version are an
//! error, never a guess.

use super::Profile;
use crate::codec::{Length, Reader, Wire as _};

/// The present version.
pub const VERSION: u8 = 2;
/// The version that was JSON.
const JSON_VERSION: u8 = 1;
/// Room that most profiles fit into.
const USUAL_BYTES: usize = 1024;

/// Why stored bytes are not a profile.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version of the program.
    #[error("profile of format {0:?}, this program reads {JSON_VERSION} to {VERSION}")]
    Version(Option<u8>),
    /// Damaged.
    #[error("profile cannot be read: it is damaged")]
    Damaged,
    /// A damaged one of version 1.
    #[error("profile cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

/// Writes.
pub fn encode(profile: &Profile) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    encode_to(profile, &mut bytes);
    bytes
}

/// The same, behind what `bytes` has already.
pub fn encode_to(profile: &Profile, bytes: &mut Vec<u8>) {
    bytes.push(VERSION);
    profile.put(bytes);
}

/// How many bytes [`encode`] writes.
pub fn size(profile: &Profile) -> usize {
    let mut length = Length(1);
    profile.put(&mut length);
    length.0
}

/// Reads.
pub fn decode(bytes: &[u8]) -> Result<Profile, DecodeError> {
    match bytes.split_first() {
        Some((&VERSION, fields)) => {
            let mut reader = Reader(fields);
            let profile = Profile::take(&mut reader).ok_or(DecodeError::Damaged)?;
            if reader.0.is_empty() { Ok(profile) } else { Err(DecodeError::Damaged) }
        }
        Some((&JSON_VERSION, json)) => Ok(serde_json::from_slice(json)?),
        other => Err(DecodeError::Version(other.map(|(version, _)| *version))),
    }
}

/// A history in a control record: base64 of the stored form. The JSON of version 1, an object, is read too.
pub(crate) mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Profile, decode, encode};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Bytes(String),
        Json(Box<Profile>),
    }

    #[expect(clippy::borrowed_box, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(profile: &Box<Profile>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(encode(profile)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<Profile>, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Bytes(text) => {
                let bytes = STANDARD_NO_PAD.decode(text).map_err(D::Error::custom)?;
                decode(&bytes).map(Box::new).map_err(D::Error::custom)
            }
            Written::Json(profile) => Ok(profile),
        }
    }
}
