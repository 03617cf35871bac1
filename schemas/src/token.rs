//! Signed tokens, by which a shop's own server vouches for a page for a short while.
//!
//! Form: `base64url(payload).base64url(HMAC-SHA256(secret key, payload))`. The payload names what is vouched for: `sub` a profile
//! (`user:x`, `anonymous:x`), `source` the public key that the token stands for, `origin` the page that may use it, `exp` its end.
//!
//! **Invariant:** a token ends; signatures and keys are compared in constant time, against every secret; no secret is printed.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::id::{ProfileKey, SourceName};
use crate::time::Timestamp;

/// Longest token that is looked at, bytes.
pub const MAX_TOKEN_BYTES: usize = 2_048;

/// Text that never stands in a log: its `Debug` form does not hold it.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

/// What a token says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The profile that is vouched for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<ProfileKey>,
    /// The name of the public key that the token stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// The only origin whose pages may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// When it ends, seconds since 1970.
    pub exp: i64,
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
    /// It is for pages of another origin.
    #[error("for another origin")]
    Origin,
}

/// A secret key that may read and sign, and until when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Secret {
    /// The key.
    pub text: SecretText,
    /// From then on it is as if it were not there.
    pub expires_at: Option<Timestamp>,
}

/// The secret keys in force. Clones share them: a replacement is seen by all.
#[derive(Clone, Default, Debug)]
pub struct Secrets(Arc<RwLock<Arc<[Secret]>>>);

impl SecretText {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText")
    }
}

impl<T: Into<String>> From<T> for SecretText {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl Claims {
    /// A token for one profile.
    pub const fn of(subject: ProfileKey, exp: i64) -> Self {
        Self { sub: Some(subject), source: None, origin: None, exp }
    }

    /// Refuses a token that is bound to another origin than the request's.
    pub fn bound_to(self, origin: Option<&str>) -> Result<Self, TokenError> {
        let fits = match (&self.origin, origin) {
            (None, _) => true,
            (Some(bound), Some(origin)) => bound.eq_ignore_ascii_case(origin),
            (Some(_), None) => false,
        };
        if fits { Ok(self) } else { Err(TokenError::Origin) }
    }

    /// The token that says this, signed with `secret`.
    pub fn sign(&self, secret: &SecretText) -> String {
        let payload = serde_json::to_vec(self).unwrap_or_default();
        let mac = mac(secret, &payload).map(|mac| mac.finalize().into_bytes().to_vec());
        format!("{}.{}", URL_SAFE_NO_PAD.encode(&payload), URL_SAFE_NO_PAD.encode(mac.unwrap_or_default()))
    }
}

fn mac(secret: &SecretText, payload: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.0.as_bytes()).ok()?;
    mac.update(payload);
    Some(mac)
}

impl Secrets {
    /// These, and no others.
    pub fn new(secrets: Vec<Secret>) -> Self {
        Self(Arc::new(RwLock::new(secrets.into())))
    }

    /// Replaces them, for everybody who has a clone.
    pub fn replace(&self, secrets: Vec<Secret>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = secrets.into();
    }

    /// Whether `text` is one of them.
    pub fn hold(&self, text: &str, now: Timestamp) -> bool {
        // Every secret is tried, so that time tells nothing of which one it was.
        let same = |secret: &Secret| bool::from(secret.text.0.as_bytes().ct_eq(text.as_bytes()));
        self.in_force(now).iter().filter(|secret| same(secret)).count() > 0
    }

    /// Signs with the first of them.
    pub fn sign(&self, claims: &Claims, now: Timestamp) -> Option<String> {
        self.in_force(now).first().map(|secret| claims.sign(&secret.text))
    }

    /// What a token says, if one of them signed it and `now` is before its end.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let (payload, signature) = token.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed);
        let (payload, signature) = (decode(payload)?, decode(signature)?);
        let matches = |secret: &Secret| {
            mac(&secret.text, &payload).is_some_and(|mac| mac.verify_slice(&signature).is_ok())
        };
        if self.in_force(now).iter().filter(|secret| matches(secret)).count() == 0 {
            return Err(TokenError::Signature);
        }
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;
        if claims.exp.saturating_mul(1_000) <= now.as_millis() {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }

    fn in_force(&self, now: Timestamp) -> Vec<Secret> {
        let all = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        all.iter().filter(|secret| secret.expires_at.is_none_or(|end| now < end)).cloned().collect()
    }
}

impl<T: Into<SecretText>> FromIterator<T> for Secrets {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        Self::new(texts.into_iter().map(|text| Secret { text: text.into(), expires_at: None }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(texts: &[&str]) -> Secrets {
        texts.iter().copied().collect()
    }

    #[test]
    fn a_token_opens_one_profile_until_it_ends() {
        let claims = Claims::of(ProfileKey::parse("user:ü:1").unwrap(), 100);
        let token = claims.sign(&"sk".into());
        assert_eq!(secrets(&["other", "sk"]).verify(&token, Timestamp(99_999)), Ok(claims));
        assert_eq!(secrets(&["sk"]).verify(&token, Timestamp(100_000)), Err(TokenError::Expired));
        assert_eq!(secrets(&["other"]).verify(&token, Timestamp(0)), Err(TokenError::Signature));
        assert_eq!(secrets(&[]).verify(&token, Timestamp(0)), Err(TokenError::Signature));
        let (payload, signature) = token.split_once('.').unwrap();
        let forged = URL_SAFE_NO_PAD.encode(br#"{"sub":"user:2","exp":100}"#);
        let forged = format!("{forged}.{signature}");
        assert_eq!(secrets(&["sk"]).verify(&forged, Timestamp(0)), Err(TokenError::Signature));
        for odd in ["", ".", payload, "a.b", "é.é", "sk_dev"] {
            assert!(secrets(&["sk"]).verify(odd, Timestamp(0)).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_token_of_an_origin_is_for_that_origin_alone() {
        let claims = Claims {
            sub: None,
            source: Some(SourceName::new("web")),
            origin: Some("https://shop.example".to_owned()),
            exp: 100,
        };
        let token = claims.sign(&"sk".into());
        let read = || secrets(&["sk"]).verify(&token, Timestamp(0)).unwrap();
        assert_eq!(read().bound_to(Some("https://SHOP.example")), Ok(claims));
        assert_eq!(read().bound_to(Some("https://shop.example.evil")), Err(TokenError::Origin));
        assert_eq!(read().bound_to(None), Err(TokenError::Origin));
    }

    #[test]
    fn a_secret_past_its_end_neither_reads_nor_signs_and_a_replacement_is_seen_by_every_clone() {
        let old = Secret { text: "old".into(), expires_at: Some(Timestamp(50_000)) };
        let all = Secrets::new(vec![old, Secret { text: "new".into(), expires_at: None }]);
        let token = Claims::of(ProfileKey::parse("user:1").unwrap(), 100).sign(&"old".into());
        assert!(all.hold("old", Timestamp(49_999)) && all.verify(&token, Timestamp(49_999)).is_ok());
        assert!(!all.hold("old", Timestamp(50_000)));
        assert_eq!(all.verify(&token, Timestamp(50_000)), Err(TokenError::Signature));
        let clone = all.clone();
        all.replace(Vec::new());
        assert!(!clone.hold("new", Timestamp(0)));
        assert!(!format!("{clone:?}{:?}", SecretText::from("hush")).contains("hush"));
    }
}
