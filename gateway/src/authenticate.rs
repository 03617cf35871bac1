//! Whose request it is: the write key, and whether the page's origin may use it.
//!
//! **Invariant:** a key is compared in constant time, as digest, against all keys; a secret key in a URL is refused, because
//! URLs stand in logs; no key or digest reaches a log line.

use axum::extract::Query;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, ORIGIN};
use http::{HeaderMap, Uri};
use schemas::id::SourceName;
use schemas::receipt::Trust;
use schemas::verdict::{AckLevel, Code};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

use crate::config::{ConfigError, IpPolicy, KeyConfig, KeyKind, UnknownTypes};
use crate::error::RequestError;

/// Header that carries a key beside `Authorization`.
const WRITE_KEY_HEADER: &str = "x-write-key";
/// Longest key looked at, bytes.
const MAX_KEY_BYTES: usize = 256;

/// The keys in force.
#[derive(Debug, Default)]
pub struct Keys {
    all: Vec<(Digest, Arc<Key>)>,
}

type Digest = [u8; 32];

/// What a key allows.
#[derive(Clone, PartialEq, Debug)]
pub struct Key {
    /// The source's name.
    pub source: SourceName,
    /// How far what it sends is vouched for.
    pub trust: Trust,
    /// What to do with event types without a schema.
    pub unknown_types: UnknownTypes,
    /// What to keep of the client's address.
    pub ip: IpPolicy,
    /// Its own default level.
    pub ack: Option<AckLevel>,
    event_types: HashSet<String>,
    origins: Vec<OriginPattern>,
    require_origin: bool,
}

/// A key as it came, and where.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    text: String,
    in_url: bool,
}

impl Keys {
    /// Takes the configured keys; refuses an empty or repeated key, and a source without name.
    pub fn new(configs: &[KeyConfig]) -> Result<Self, ConfigError> {
        let mut all: Vec<(Digest, Arc<Key>)> = Vec::with_capacity(configs.len());
        for config in configs {
            let fault =
                |message: &str| ConfigError::Key { name: config.name.clone(), message: message.to_owned() };
            if config.name.is_empty()
                || config.name.len() > MAX_KEY_BYTES
                || config.name.contains(char::is_control)
            {
                return Err(fault("needs a name of 1 to 256 bytes without control characters"));
            }
            if config.key.is_empty() || config.key.len() > MAX_KEY_BYTES {
                return Err(fault("needs a key of 1 to 256 bytes"));
            }
            let digest = digest(&config.key);
            if all.iter().any(|(known, _)| *known == digest) {
                return Err(fault("has the same key as another entry; give each its own"));
            }
            let origins =
                config.origins.iter().map(|text| OriginPattern::parse(text)).collect::<Option<Vec<_>>>();
            let origins = origins.ok_or_else(|| {
                fault("an origin looks like `https://shop.example` or `http://localhost:*`")
            })?;
            let trust = match config.kind {
                KeyKind::Public => Trust::Public,
                KeyKind::Secret => Trust::Secret,
            };
            let key = Key {
                source: SourceName::new(config.name.clone()),
                trust,
                unknown_types: config.unknown_types,
                ip: config.ip,
                ack: config.ack,
                event_types: config.event_types.iter().cloned().collect(),
                origins,
                require_origin: config.require_origin,
            };
            all.push((digest, Arc::new(key)));
        }
        Ok(Self { all })
    }

    /// The key of a request, if its origin may use it.
    pub fn authenticate(&self, headers: &HeaderMap, uri: &Uri) -> Result<Arc<Key>, RequestError> {
        let credential = Credential::of(headers, uri)?.ok_or_else(|| {
            RequestError::new(
                Code::KeyMissing,
                "Send the write key as `Authorization: Bearer <key>`, `X-Write-Key` or `?key=`.",
            )
        })?;
        self.admit(&credential, origin(headers))
    }

    /// The key that a credential names, if the origin may use it.
    pub fn admit(&self, credential: &Credential, origin: Option<&str>) -> Result<Arc<Key>, RequestError> {
        let key = self.find(&credential.text).ok_or_else(|| {
            RequestError::new(
                Code::KeyUnknown,
                "This key is not known here. Compare it with the `[[keys]]` of the configuration.",
            )
        })?;
        if credential.in_url && key.trust == Trust::Secret {
            return Err(RequestError::new(
                Code::KeyUnknown,
                "A secret key never travels in a URL. Send it as `Authorization: Bearer`, and replace it: URLs stand in logs.",
            ));
        }
        if key.allows_origin(origin) {
            return Ok(key);
        }
        Err(RequestError::new(
            Code::OriginNotAllowed,
            "The key does not allow this page's origin. Add the origin to the key's `origins`.",
        ))
    }

    /// The key of a request, if it is a secret one.
    pub fn authenticate_secret(&self, headers: &HeaderMap, uri: &Uri) -> Result<Arc<Key>, RequestError> {
        let key = self.authenticate(headers, uri)?;
        if key.trust == Trust::Secret {
            return Ok(key);
        }
        Err(RequestError::new(
            Code::SecretKeyRequired,
            "This needs a secret key; a page's public key is not enough.",
        ))
    }

    /// Whether any key allows the origin; all that can be said while no key is known.
    pub fn any_allows_origin(&self, origin: Option<&str>) -> bool {
        self.all.iter().any(|(_, key)| key.allows_origin(origin))
    }

    /// Compares with every key, so that time tells nothing of which came close.
    fn find(&self, text: &str) -> Option<Arc<Key>> {
        let wanted = digest(text);
        let mut found = None;
        for (known, key) in &self.all {
            if bool::from(known.ct_eq(&wanted)) {
                found = Some(Arc::clone(key));
            }
        }
        found
    }
}

fn digest(key: &str) -> Digest {
    Sha256::digest(key.as_bytes()).into()
}

impl Key {
    /// Whether a page of this origin may use the key. Secret keys are not for pages, and bound to none.
    pub fn allows_origin(&self, origin: Option<&str>) -> bool {
        match (self.trust, origin) {
            (Trust::Secret, _) => true,
            (_, None) => !self.require_origin,
            (_, Some(origin)) => self.origins.iter().any(|pattern| pattern.matches(origin)),
        }
    }

    /// Whether the key may send this event type.
    pub fn allows_type(&self, event_type: &str) -> bool {
        self.event_types.is_empty() || self.event_types.contains(event_type)
    }
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

    /// The key in a `hello` frame.
    pub fn in_hello(key: &str) -> Self {
        Self { text: key.to_owned(), in_url: false }
    }
}

/// The first query parameter of that name, decoded.
pub fn parameter(uri: &Uri, name: &str) -> Option<String> {
    uri.query()?;
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    pairs.into_iter().find_map(|(key, value)| (key == name).then_some(value))
}

/// The page's origin, as the browser names it.
pub fn origin(headers: &HeaderMap) -> Option<&str> {
    // One that is no text matches no pattern, instead of counting as absent.
    headers.get(ORIGIN).map(|value| value.to_str().unwrap_or("null"))
}

/// `https://shop.example`, `https://*.shop.example`, `http://localhost:*`, `*`.
#[derive(Clone, PartialEq, Eq, Debug)]
enum OriginPattern {
    Any,
    Exact { scheme: String, host: HostPattern, port: PortPattern },
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum HostPattern {
    Is(String),
    Below(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum PortPattern {
    Any,
    Is(Option<u16>),
}

impl OriginPattern {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let text = text.trim_end_matches('/').to_ascii_lowercase();
        let (scheme, host, port) = split_origin(&text)?;
        let host = match host.strip_prefix("*.") {
            Some(parent) if !parent.is_empty() && !parent.contains('*') => {
                HostPattern::Below(format!(".{parent}"))
            }
            None if !host.is_empty() && !host.contains('*') => HostPattern::Is(host.to_owned()),
            _ => return None,
        };
        let port = match port {
            Some("*") => PortPattern::Any,
            Some(port) => PortPattern::Is(Some(port.parse().ok()?)),
            None => PortPattern::Is(None),
        };
        Some(Self::Exact { scheme: scheme.to_owned(), host, port: with_default(scheme, port) })
    }

    fn matches(&self, origin: &str) -> bool {
        let Self::Exact { scheme, host, port } = self else { return true };
        let origin = origin.to_ascii_lowercase();
        let Some((its_scheme, its_host, its_port)) = split_origin(&origin) else { return false };
        let its_port = match its_port.map(str::parse) {
            None => PortPattern::Is(None),
            Some(Ok(number)) => PortPattern::Is(Some(number)),
            Some(Err(_)) => return false,
        };
        let host_fits = match host {
            HostPattern::Is(host) => host == its_host,
            HostPattern::Below(parent) => {
                its_host.len() > parent.len() && its_host.ends_with(parent.as_str())
            }
        };
        scheme == its_scheme
            && host_fits
            && (*port == PortPattern::Any || *port == with_default(its_scheme, its_port))
    }
}

/// Scheme, host (IPv6 in brackets) and port of an origin.
fn split_origin(text: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, authority) = text.split_once("://")?;
    if scheme.is_empty() || authority.contains(['/', '@', '?', '#', ' ']) {
        return None;
    }
    let host_end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    match authority.get(host_end..)?.find(':') {
        Some(colon) => {
            Some((scheme, authority.get(..host_end + colon)?, Some(authority.get(host_end + colon + 1..)?)))
        }
        None => Some((scheme, authority, None)),
    }
}

/// A port that is the scheme's own is the same as none.
fn with_default(scheme: &str, port: PortPattern) -> PortPattern {
    match (scheme, &port) {
        ("http", PortPattern::Is(Some(80))) | ("https", PortPattern::Is(Some(443))) => PortPattern::Is(None),
        _ => port,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn keys() -> Keys {
        Keys::new(&KeyConfig::development()).unwrap()
    }

    fn outcome(headers: &[(&'static str, &str)], uri: &str) -> Result<String, Code> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let key = keys().authenticate(&map, &uri.parse().unwrap());
        key.map(|key| key.source.as_str().to_owned()).map_err(|error| error.code)
    }

    #[test]
    fn a_key_is_found_wherever_clients_put_it() {
        assert_eq!(outcome(&[("authorization", "Bearer wk_dev")], "/").as_deref(), Ok("web"));
        assert_eq!(outcome(&[("authorization", "bearer  sk_dev ")], "/").as_deref(), Ok("server"));
        let basic = format!("Basic {}", STANDARD.encode(b"wk_dev:"));
        assert_eq!(outcome(&[("authorization", &basic)], "/").as_deref(), Ok("web"));
        assert_eq!(outcome(&[("x-write-key", "wk_dev")], "/").as_deref(), Ok("web"));
        assert_eq!(outcome(&[], "/v1/events?a=b&key=wk%5Fdev").as_deref(), Ok("web"));
    }

    #[test]
    fn a_key_that_is_missing_wrong_or_secret_in_a_url_is_refused() {
        assert_eq!(outcome(&[], "/"), Err(Code::KeyMissing));
        assert_eq!(outcome(&[("authorization", "Bearer wk_devx")], "/"), Err(Code::KeyUnknown));
        assert_eq!(outcome(&[("authorization", "Bearer ")], "/"), Err(Code::RequestInvalid));
        assert_eq!(outcome(&[("authorization", "Digest x")], "/"), Err(Code::RequestInvalid));
        assert_eq!(outcome(&[("authorization", "Basic ???")], "/"), Err(Code::RequestInvalid));
        assert_eq!(outcome(&[], "/?key=sk_dev"), Err(Code::KeyUnknown));
    }

    #[test]
    fn a_public_key_is_for_its_origins_and_a_missing_origin_is_allowed_unless_forbidden() {
        let bearer = ("authorization", "Bearer wk_dev");
        for origin in [
            "http://localhost",
            "http://localhost:5173",
            "http://127.0.0.1:8080",
            "http://[::1]:3000",
            "https://LOCALHOST:1",
        ] {
            assert_eq!(outcome(&[bearer, ("origin", origin)], "/").as_deref(), Ok("web"), "{origin}");
        }
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost.evil.example",
            "http://localhost:99999",
            "http://localhost:x",
        ] {
            assert_eq!(outcome(&[bearer, ("origin", origin)], "/"), Err(Code::OriginNotAllowed), "{origin}");
        }
        let mut config = KeyConfig::development().remove(0);
        config.require_origin = true;
        let keys = Keys::new(&[config]).unwrap();
        assert!(keys.admit(&Credential::in_hello("wk_dev"), None).is_err());
    }

    #[test]
    fn origin_patterns_match_what_they_say() {
        let fits = |pattern: &str, origin: &str| OriginPattern::parse(pattern).unwrap().matches(origin);
        assert!(fits("https://shop.example", "https://shop.example"));
        assert!(fits("https://shop.example:443/", "https://shop.example"));
        assert!(!fits("https://shop.example", "http://shop.example"));
        assert!(!fits("https://shop.example", "https://shop.example:8443"));
        assert!(fits("https://*.shop.example", "https://a.b.shop.example"));
        assert!(!fits("https://*.shop.example", "https://shop.example"));
        assert!(!fits("https://*.shop.example", "https://evilshop.example"));
        assert!(fits("*", "https://anything.example") && fits("*", "null"));
        for pattern in ["shop.example", "https://", "https://*", "https://a*b.example", "https://x:y"] {
            assert_eq!(OriginPattern::parse(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn entries_that_cannot_work_are_refused() {
        let mut twice = KeyConfig::development();
        twice[1].key = "wk_dev".to_owned();
        assert!(Keys::new(&twice).is_err());
        twice[1].key = String::new();
        assert!(Keys::new(&twice).is_err());
    }
}
