//! Where a request carries its key.
//!
//! **Invariant:** what came in a URL is known to have done so, because URLs stand in logs; no credential is printed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, ORIGIN};
use http::{HeaderMap, Uri};
use schemas::verdict::Code;

use crate::error::RequestError;

/// Header that carries a key beside `Authorization`.
const WRITE_KEY_HEADER: &str = "x-write-key";
/// Header that carries a user token beside a public key.
const USER_TOKEN_HEADER: &str = "x-user-token";

/// A key as it came, and where.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub(super) text: String,
    pub(super) in_url: bool,
}

impl Credential {
    /// The key in a request: `Authorization` (Bearer, or Basic's user), `X-Write-Key`, `?key=`, in this order.
    pub fn of(headers: &HeaderMap, uri: &Uri) -> Result<Option<Self>, RequestError> {
        let malformed = || {
            RequestError::new(
                Code::RequestInvalid,
                "`Authorization` must be `Bearer <key>` or Basic with the key as user.",
            )
        };
        let header = |text: &str| Self { text: text.to_owned(), in_url: false };
        if let Some(value) = headers.get(AUTHORIZATION) {
            let value = value.to_str().map_err(|_| malformed())?.trim();
            let (scheme, rest) = value.split_once(' ').ok_or_else(malformed)?;
            if scheme.eq_ignore_ascii_case("bearer") {
                return Ok(Some(header(rest.trim())));
            }
            if !scheme.eq_ignore_ascii_case("basic") {
                return Err(malformed());
            }
            let pair = STANDARD
                .decode(rest.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(malformed)?;
            return Ok(Some(header(pair.split_once(':').map_or(pair.as_str(), |(user, _)| user))));
        }
        if let Some(value) = headers.get(WRITE_KEY_HEADER) {
            return Ok(Some(header(value.to_str().map_err(|_| malformed())?.trim())));
        }
        Ok(parameter(uri, "key").map(|text| Self { text, in_url: true }))
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// The key in a `hello` frame.
    pub fn in_hello(key: &str) -> Self {
        Self { text: key.to_owned(), in_url: false }
    }

    /// The key in a body.
    pub(crate) fn in_body(key: &str) -> Self {
        Self::in_hello(key)
    }

    /// The key in a URL, decoded.
    pub(crate) fn in_query(key: &str) -> Self {
        Self { text: key.to_owned(), in_url: true }
    }

    /// The same key, known to have come in a URL.
    pub(crate) fn into_url(self) -> Self {
        Self { in_url: true, ..self }
    }

    /// What stands before a separator, if there is one.
    pub(crate) fn before(&self, separator: char) -> Option<Self> {
        let (text, _) = self.text.split_once(separator)?;
        Some(Self { text: text.to_owned(), in_url: self.in_url })
    }

    pub(crate) fn is_blank(&self) -> bool {
        self.text.is_empty()
    }
}

/// The first query parameter of that name, decoded.
pub fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.into_iter().find_map(|(key, value)| (key == name).then(|| value.into_owned()))
}

/// The page's origin, as the browser names it.
pub fn origin(headers: &HeaderMap) -> Option<&str> {
    // One that is no text matches no pattern, instead of counting as absent.
    headers.get(ORIGIN).map(|value| value.to_str().unwrap_or("null"))
}

/// The user token of a request, if it has one.
pub(crate) fn user_token(headers: &HeaderMap) -> Option<&str> {
    // One that is no text is no token, instead of counting as absent.
    headers.get(USER_TOKEN_HEADER).map(|value| value.to_str().unwrap_or_default())
}
