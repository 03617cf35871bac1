//! Signed user tokens: a shop's backend mints one with its secret key, and the page reads its own profile with it.
//!
//! Form: `base64url(payload).base64url(HMAC-SHA256(secret key, payload))`, payload `{"sub":"user:x","exp":<unix seconds>}`.
//!
//! **Invariant:** a token names one profile and ends; signatures are compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use processor_core::profile::view::ObjectWriter;
use schemas::id::ProfileKey;
use schemas::time::Timestamp;
use serde::Deserialize;
use sha2::Sha256;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 2_048;

#[derive(Deserialize)]
struct Payload {
    sub: ProfileKey,
    exp: i64,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// It has not the form of a token.
    #[error("not a token")]
    Malformed,
    /// No secret key of ours signed it.
    #[error("not signed by a secret key of this server")]
    Signature,
    /// Its time is over.
    #[error("expired")]
    Expired,
}

fn sign(secret: &str, payload: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(payload);
    Some(mac)
}

/// Mints a token for a profile; `expires` in seconds since 1970.
pub fn mint(secret: &str, subject: &ProfileKey, expires: i64) -> String {
    let payload = ObjectWriter::default().value("sub", subject).value("exp", &expires).end();
    let mac =
        sign(secret, payload.as_bytes()).map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default();
    format!("{}.{}", URL_SAFE_NO_PAD.encode(payload), URL_SAFE_NO_PAD.encode(mac))
}

/// Whose profile the token opens, if any of the secrets signed it and `now` is before its end.
pub fn verify<'s>(
    secrets: impl IntoIterator<Item = &'s str>,
    token: &str,
    now: Timestamp,
) -> Result<ProfileKey, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed);
    }
    let (payload, signature) = token.split_once('.').ok_or(TokenError::Malformed)?;
    let payload = decode(payload).ok_or(TokenError::Malformed)?;
    let signature = decode(signature).ok_or(TokenError::Malformed)?;
    // Every secret is tried, so that time tells nothing of which one it was.
    let matches =
        |secret: &str| sign(secret, &payload).is_some_and(|mac| mac.verify_slice(&signature).is_ok());
    if secrets.into_iter().filter(|secret| matches(secret)).count() == 0 {
        return Err(TokenError::Signature);
    }
    let payload: Payload = serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;
    if payload.exp.saturating_mul(1_000) <= now.as_millis() {
        return Err(TokenError::Expired);
    }
    Ok(payload.sub)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_one_profile_until_it_ends() {
        let key = ProfileKey::parse("user:ü:1").unwrap();
        let token = mint("sk", &key, 100);
        assert_eq!(verify(["other", "sk"], &token, Timestamp(99_999)), Ok(key));
        assert_eq!(verify(["sk"], &token, Timestamp(100_000)), Err(TokenError::Expired));
        assert_eq!(verify(["other"], &token, Timestamp(0)), Err(TokenError::Signature));
        assert_eq!(verify([], &token, Timestamp(0)), Err(TokenError::Signature));
        let (payload, signature) = token.split_once('.').unwrap();
        let forged = URL_SAFE_NO_PAD.encode(br#"{"sub":"user:2","exp":100}"#);
        assert_eq!(
            verify(["sk"], &format!("{forged}.{signature}"), Timestamp(0)),
            Err(TokenError::Signature)
        );
        for odd in ["", ".", payload, "a.b", "é.é", "sk_dev"] {
            assert!(verify(["sk"], odd, Timestamp(0)).is_err(), "{odd}");
        }
    }
}
