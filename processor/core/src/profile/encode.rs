//! A profile as the store's bytes: one byte of version, then JSON.
//!
//! **Invariant:** what was written by this version reads back equal; another version is an error, never a guess.

use super::Profile;

/// The present version.
pub const VERSION: u8 = 1;

/// Why stored bytes are not a profile.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version of the program.
    #[error("profile of format {0:?}, this program reads {VERSION}")]
    Version(Option<u8>),
    /// Damaged.
    #[error("profile cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

/// Writes.
pub fn encode(profile: &Profile) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::with_capacity(1024);
    bytes.push(VERSION);
    serde_json::to_writer(&mut bytes, profile)?;
    Ok(bytes)
}

/// Reads.
pub fn decode(bytes: &[u8]) -> Result<Profile, DecodeError> {
    match bytes.split_first() {
        Some((&VERSION, json)) => Ok(serde_json::from_slice(json)?),
        other => Err(DecodeError::Version(other.map(|(version, _)| *version))),
    }
}
