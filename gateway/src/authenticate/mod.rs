//! Whose request it is: the write key, or a token that stands for one, and whether the page's origin may use it.
//!
//! `credential` finds the key in a request, `origins` are the pages that may use it, `key` is what it allows, `meter` how much.
//!
//! **Invariant:** a key is compared in constant time, as digest, against all keys; a secret key in a URL is refused, because
//! URLs stand in logs; no key or digest reaches a log line.

mod credential;
mod key;
pub(crate) mod meter;
mod origins;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use broker::clock::Clock;
use http::{HeaderMap, Uri};
use schemas::id::SourceName;
use schemas::receipt::Trust;
use schemas::token::{Claims, Secret, Secrets, TokenError};
use schemas::verdict::Code;
use subtle::ConstantTimeEq as _;

pub(crate) use self::credential::user_token;
pub use self::credential::{Credential, origin, parameter};
use self::key::Digest;
pub use self::key::{Key, Policy};
use self::meter::{Allowance, Meter};
use self::origins::OriginPattern;
use crate::config::{ConfigError, KeyConfig, KeyKind};
use crate::error::RequestError;
use crate::redact::Pointers;

/// Longest key looked at, bytes.
const MAX_KEY_BYTES: usize = 256;
/// Longest life of a browser token, seconds: long enough for a day's visit, short enough that a stolen one is soon worthless.
pub(crate) const MAX_TOKEN_LIFETIME_S: i64 = 86_400;

/// The keys in force.
pub struct Keys {
    all: Vec<Arc<Key>>,
    secrets: Secrets,
    /// What each source has sent; outlives a change of keys.
    meters: HashMap<String, Arc<Meter>>,
    clock: Arc<dyn Clock>,
    /// Rises with each change of keys.
    generation: u64,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("keys", &self.all.len()).finish_non_exhaustive()
    }
}

/// The secret keys of a configuration, for whoever else lets them read or sign.
pub fn secrets(configs: &[KeyConfig]) -> Vec<Secret> {
    let secret = configs.iter().filter(|config| config.kind == KeyKind::Secret);
    let texts = secret.flat_map(KeyConfig::texts);
    texts.map(|(text, expires_at)| Secret { text: text.clone(), expires_at }).collect()
}

impl Keys {
    /// Takes the configured keys; refuses an empty or repeated key, and a source without name or with the name of another.
    pub fn new(configs: &[KeyConfig], clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        let none = Self {
            all: Vec::new(),
            secrets: Secrets::default(),
            meters: HashMap::new(),
            clock,
            generation: 0,
        };
        none.replaced_by(configs)
    }

    /// Other keys instead of these; what their sources have sent so far stays counted.
    pub fn replaced_by(&self, configs: &[KeyConfig]) -> Result<Self, ConfigError> {
        let mut next = Self {
            all: Vec::with_capacity(configs.len()),
            secrets: Secrets::new(secrets(configs)),
            meters: HashMap::with_capacity(configs.len()),
            clock: Arc::clone(&self.clock),
            generation: self.generation + 1,
        };
        for config in configs {
            let meter = self.meters.get(&config.name).cloned().unwrap_or_default();
            next.add(config, &meter).map_err(|message| ConfigError::Key {
                name: config.name.clone(),
                message: message.into_owned(),
            })?;
            next.meters.insert(config.name.clone(), meter);
        }
        Ok(next)
    }

    fn add(&mut self, config: &KeyConfig, meter: &Arc<Meter>) -> Result<(), Cow<'static, str>> {
        if config.name.is_empty()
            || config.name.len() > MAX_KEY_BYTES
            || config.name.contains(char::is_control)
        {
            return Err("needs a name of 1 to 256 bytes without control characters".into());
        }
        if self.meters.contains_key(&config.name) {
            return Err("is there twice; list older keys of the same source under `previous`".into());
        }
        let amounts = [config.events_per_second, config.burst_events];
        if amounts.contains(&Some(0)) || config.events_per_day == Some(0) {
            return Err(
                "needs at least 1 for `events_per_second`, `burst_events` and `events_per_day`".into()
            );
        }
        if config.hot_profile_events_per_second == Some(0) {
            return Err("needs at least 1 for `hot_profile_events_per_second`".into());
        }
        if config.burst_events.is_some() && config.events_per_second.is_none() {
            return Err("has `burst_events` without `events_per_second`".into());
        }
        let origins = config.origins.iter().map(|text| OriginPattern::parse(text));
        let origins = origins
            .collect::<Option<Vec<_>>>()
            .ok_or(Cow::Borrowed("an origin looks like `https://shop.example` or `http://localhost:*`"))?;
        let policy = Arc::new(Policy {
            unknown_types: config.unknown_types,
            ip: config.ip,
            ack: config.ack,
            lane: config.lane,
            privacy: config.privacy.clone(),
            hot: config.hot_profile_events_per_second.map(|rate| (rate, config.hot_profiles)),
            redact: Pointers::new(&config.redact)?,
            event_types: config.event_types.iter().cloned().collect::<HashSet<_>>(),
            origins,
            require_origin: config.require_origin,
            require_token: config.require_token,
            allowance: Allowance::of(config),
            meter: Arc::clone(meter),
        });
        for (text, expires_at) in config.texts() {
            let text = text.as_str();
            if text.is_empty() || text.len() > MAX_KEY_BYTES {
                return Err("needs a key of 1 to 256 bytes".into());
            }
            let digest = Digest::of(text);
            if self.all.iter().any(|known| known.digest == digest) {
                return Err("has the same key as another entry; give each its own".into());
            }
            self.all.push(Arc::new(Key {
                source: SourceName::new(config.name.clone()),
                trust: match config.kind {
                    KeyKind::Public => Trust::Public,
                    KeyKind::Secret => Trust::Secret,
                },
                policy: Arc::clone(&policy),
                digest,
                expires_at,
                subject: None,
                generation: self.generation,
            }));
        }
        Ok(())
    }

    /// The first source that wants something hashed.
    pub(crate) fn hashing(&self) -> Option<&SourceName> {
        self.all.iter().find(|key| key.policy.redact.hashes()).map(|key| &key.source)
    }

    /// The key of a request, if its origin may use it.
    pub fn authenticate(&self, headers: &HeaderMap, uri: &Uri) -> Result<Arc<Key>, RequestError> {
        let credential = Credential::of(headers, uri)?.ok_or_else(|| {
            RequestError::new(
                Code::KeyMissing,
                "Send the write key as `Authorization: Bearer <key>`, `X-Write-Key` or `?key=`.",
            )
        })?;
        let origin = origin(headers);
        let key = self.admit(&credential, origin)?;
        match user_token(headers) {
            Some(token) => self.vouch(&key, token, origin),
            None => Ok(key),
        }
    }

    /// The key that a credential names, if the origin may use it.
    pub fn admit(&self, credential: &Credential, origin: Option<&str>) -> Result<Arc<Key>, RequestError> {
        let Some(key) = self.find(&Digest::of(&credential.text)) else {
            return self.admit_token(&credential.text, origin);
        };
        if key.has_expired(self.clock.now()) {
            return Err(RequestError::new(
                Code::KeyExpired,
                "This key was good until a while ago. Send with the key that replaced it.",
            ));
        }
        if credential.in_url && key.trust == Trust::Secret {
            return Err(RequestError::new(
                Code::KeyUnknown,
                "A secret key never travels in a URL. Send it as `Authorization: Bearer`, and replace it: URLs stand in logs.",
            ));
        }
        if key.policy.require_token {
            return Err(RequestError::new(
                Code::TokenRequired,
                "Pages need a signed token that stands for this key: have your server ask POST /v1/tokens for one.",
            ));
        }
        if key.allows_origin(origin) {
            return Ok(key);
        }
        Err(origin_not_allowed(
            "The key does not allow this page's origin. Add the origin to the key's `origins`.",
        ))
    }

    /// A browser token instead of the key that it stands for.
    fn admit_token(&self, token: &str, origin: Option<&str>) -> Result<Arc<Key>, RequestError> {
        let unknown = || {
            RequestError::new(
                Code::KeyUnknown,
                "This key is not known here. Compare it with the `[[keys]]` of the configuration.",
            )
        };
        if !token.contains('.') {
            return Err(unknown());
        }
        let claims = self.claims(token, origin)?;
        let now = self.clock.now();
        let source = claims.source.as_ref().ok_or_else(|| {
            token_invalid("This token names no key: send it as `X-User-Token` beside a public key.")
        })?;
        if claims.exp.saturating_sub(now.as_millis() / 1_000) > MAX_TOKEN_LIFETIME_S {
            return Err(token_invalid("A browser token lives 24 hours at most; mint one that ends sooner."));
        }
        let of_source = self.all.iter().find(|key| key.source == *source && key.trust == Trust::Public);
        let key = of_source
            .ok_or_else(|| token_invalid("The token's `source` is no public key of this server."))?;
        if claims.origin.is_none() || !key.allows_origin(origin) {
            return Err(origin_not_allowed("The token needs an `origin`, one that its key allows."));
        }
        let expires_at = Some(schemas::time::Timestamp(claims.exp.saturating_mul(1_000)));
        Ok(Arc::new(Key { subject: claims.sub, expires_at, ..Key::clone(key) }))
    }

    /// The same key, speaking for the user that a token names.
    pub fn vouch(&self, key: &Arc<Key>, token: &str, origin: Option<&str>) -> Result<Arc<Key>, RequestError> {
        let claims = self.claims(token, origin)?;
        if claims.source.is_some_and(|source| source != key.source) {
            return Err(token_invalid("The user token is for another key."));
        }
        let subject = claims.sub.ok_or_else(|| token_invalid("The user token names no user."))?;
        Ok(Arc::new(Key { subject: Some(subject), ..Key::clone(key) }))
    }

    fn claims(&self, token: &str, origin: Option<&str>) -> Result<Claims, RequestError> {
        let claims = self.secrets.verify(token, self.clock.now()).and_then(|claims| claims.bound_to(origin));
        claims.map_err(|error| match error {
            TokenError::Expired => {
                RequestError::new(Code::TokenExpired, "The token's time is over; mint a new one.")
            }
            TokenError::Origin => origin_not_allowed("The token is for pages of another origin."),
            TokenError::Malformed | TokenError::Signature => {
                token_invalid("No secret key of this server signed this. Compare it with the `[[keys]]` of the configuration.")
            }
        })
    }

    /// The key as it is now: a socket outlives changes of keys. `None`: it is no longer good.
    pub(crate) fn renewed(&self, key: &Arc<Key>) -> Option<Arc<Key>> {
        if key.has_expired(self.clock.now()) {
            return None;
        }
        if key.generation == self.generation {
            return Some(Arc::clone(key));
        }
        let now = self.find(&key.digest).filter(|found| found.source == key.source)?;
        let renewed = Key { subject: key.subject.clone(), expires_at: key.expires_at, ..Key::clone(&now) };
        (!now.has_expired(self.clock.now())).then(|| Arc::new(renewed))
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

    /// The first key of a source: what applies to events that came from it earlier.
    pub(crate) fn of_source(&self, source: &SourceName) -> Option<Arc<Key>> {
        self.all.iter().find(|key| key.source == *source).map(Arc::clone)
    }

    /// Whether any key allows the origin; all that can be said while no key is known.
    pub fn any_allows_origin(&self, origin: Option<&str>) -> bool {
        self.all.iter().any(|key| key.allows_origin(origin))
    }

    /// Compares with every key, so that time tells nothing of which came close.
    fn find(&self, wanted: &Digest) -> Option<Arc<Key>> {
        let mut found = None;
        for key in &self.all {
            if bool::from(key.digest.0.ct_eq(&wanted.0)) {
                found = Some(Arc::clone(key));
            }
        }
        found
    }
}

fn origin_not_allowed(message: &'static str) -> RequestError {
    RequestError::new(Code::OriginNotAllowed, message)
}

fn token_invalid(message: &'static str) -> RequestError {
    RequestError::new(Code::TokenInvalid, message)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use broker::clock::TestClock;
    use http::HeaderValue;
    use schemas::id::{EventType, ProfileKey};

    use super::*;
    use crate::config::PreviousKey;
    use crate::testing::{NOW, keyring};

    fn keys() -> Keys {
        keyring(&KeyConfig::development()).unwrap()
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
        let keys = keyring(&[config]).unwrap();
        assert!(keys.admit(&Credential::in_hello("wk_dev"), None).is_err());
    }

    const SHOP: &str = "https://shop.example";

    /// A public key, rotated and limited to a shop, and a secret one.
    fn shop() -> Vec<KeyConfig> {
        let mut web = KeyConfig::new("web", "wk_new", KeyKind::Public);
        web.origins = vec![SHOP.to_owned()];
        let until = Some(NOW.plus_millis(1_000));
        web.previous = vec![PreviousKey { key: "wk_old".into(), expires_at: until }];
        vec![web, KeyConfig::new("server", "sk", KeyKind::Secret)]
    }

    fn ring(configs: &[KeyConfig]) -> (Keys, Arc<TestClock>) {
        let clock = Arc::new(TestClock::new(NOW));
        (Keys::new(configs, Arc::clone(&clock) as Arc<dyn Clock>).unwrap(), clock)
    }

    fn admit(keys: &Keys, text: &str, origin: Option<&str>) -> Result<Arc<Key>, Code> {
        keys.admit(&Credential::in_hello(text), origin).map_err(|error| error.code)
    }

    fn token(source: Option<&str>, origin: Option<&str>, sub: Option<&str>, seconds: i64) -> String {
        let claims = Claims {
            sub: sub.and_then(ProfileKey::parse),
            source: source.map(SourceName::new),
            origin: origin.map(str::to_owned),
            exp: NOW.as_millis() / 1_000 + seconds,
        };
        claims.sign(&"sk".into())
    }

    #[test]
    fn an_older_key_is_good_until_its_end_and_speaks_for_the_same_source() {
        let (keys, clock) = ring(&shop());
        for text in ["wk_new", "wk_old"] {
            assert_eq!(admit(&keys, text, Some(SHOP)).unwrap().source.as_str(), "web");
        }
        let open_socket = admit(&keys, "wk_old", Some(SHOP)).unwrap();
        clock.advance(1_000);
        assert_eq!(admit(&keys, "wk_old", Some(SHOP)).unwrap_err(), Code::KeyExpired);
        assert!(admit(&keys, "wk_new", Some(SHOP)).is_ok());
        assert!(keys.renewed(&open_socket).is_none());
    }

    #[test]
    fn a_change_of_keys_reaches_open_sockets_and_keeps_what_was_counted() {
        let mut configs = shop();
        configs[0].events_per_day = Some(10);
        let (keys, _) = ring(&configs);
        let old = admit(&keys, "wk_new", Some(SHOP)).unwrap();
        assert_eq!(old.meter(8, NOW).events, 8);
        configs[0].ip = crate::config::IpPolicy::Drop;
        let next = keys.replaced_by(&configs).unwrap();
        let renewed = next.renewed(&old).unwrap();
        assert_eq!(renewed.policy.ip, crate::config::IpPolicy::Drop);
        assert_eq!(renewed.meter(8, NOW).events, 2);
        configs[0].key = "wk_newer".into();
        assert!(next.replaced_by(&configs).unwrap().renewed(&renewed).is_none());
    }

    #[test]
    fn a_browser_token_stands_for_its_key_on_its_origin_for_a_while() {
        let (keys, clock) = ring(&shop());
        let good = token(Some("web"), Some(SHOP), Some("user:u1"), 60);
        let key = admit(&keys, &good, Some(SHOP)).unwrap();
        assert_eq!((key.source.as_str(), key.trust), ("web", Trust::Public));
        let (view, alias) = (EventType::new("identify"), EventType::new("alias"));
        let [u1, u2] = ["user:u1", "user:u2"].map(|text| ProfileKey::parse(text).unwrap());
        assert_eq!(key.trust_in(&view, &u1), Trust::Token);
        assert_eq!((key.trust_in(&view, &u2), key.trust_in(&alias, &u1)), (Trust::Public, Trust::Public));
        let evil = "https://evil.example";
        for (text, origin, code) in [
            (good.clone(), Some(evil), Code::OriginNotAllowed),
            (good.clone(), None, Code::OriginNotAllowed),
            (token(Some("web"), Some(evil), None, 60), Some(evil), Code::OriginNotAllowed),
            (token(Some("web"), None, None, 60), Some(SHOP), Code::OriginNotAllowed),
            (token(Some("server"), Some(SHOP), None, 60), Some(SHOP), Code::TokenInvalid),
            (token(None, None, Some("user:u1"), 60), Some(SHOP), Code::TokenInvalid),
            (token(Some("web"), Some(SHOP), None, 90_000), Some(SHOP), Code::TokenInvalid),
            (token(Some("web"), Some(SHOP), None, 0), Some(SHOP), Code::TokenExpired),
            (format!("{good}x"), Some(SHOP), Code::TokenInvalid),
            ("a.b".to_owned(), Some(SHOP), Code::TokenInvalid),
        ] {
            assert_eq!(admit(&keys, &text, origin).unwrap_err(), code, "{text} {origin:?}");
        }
        clock.advance(60_000);
        assert!(keys.renewed(&key).is_none());
    }

    #[test]
    fn a_key_that_requires_a_token_is_of_no_use_alone() {
        let mut configs = shop();
        configs[0].require_token = true;
        let (keys, _) = ring(&configs);
        assert_eq!(admit(&keys, "wk_new", Some(SHOP)).unwrap_err(), Code::TokenRequired);
        assert!(admit(&keys, &token(Some("web"), Some(SHOP), None, 60), Some(SHOP)).is_ok());
    }

    #[test]
    fn a_user_token_beside_a_public_key_vouches_for_its_user() {
        let (keys, _) = ring(&shop());
        let key = admit(&keys, "wk_new", Some(SHOP)).unwrap();
        let user = token(None, None, Some("user:u1"), 60);
        let vouched = keys.vouch(&key, &user, Some(SHOP)).unwrap();
        let (view, u1) = (EventType::new("identify"), ProfileKey::parse("user:u1").unwrap());
        assert_eq!((key.trust_in(&view, &u1), vouched.trust_in(&view, &u1)), (Trust::Public, Trust::Token));
        for wrong in [token(Some("other"), None, Some("user:u1"), 60), token(None, None, None, 60)] {
            assert_eq!(keys.vouch(&key, &wrong, Some(SHOP)).unwrap_err().code, Code::TokenInvalid);
        }
    }

    #[test]
    fn entries_that_cannot_work_are_refused() {
        let mut twice = KeyConfig::development();
        twice[1].key = "wk_dev".into();
        assert!(keyring(&twice).is_err());
        twice[1].key = "".into();
        assert!(keyring(&twice).is_err());
        let mut named = KeyConfig::development();
        named[1].name = "web".to_owned();
        assert!(keyring(&named).is_err());
        let mut none = KeyConfig::development();
        none[0].events_per_second = Some(0);
        assert!(keyring(&none).is_err());
        let mut burst = KeyConfig::development();
        burst[0].burst_events = Some(5);
        assert!(keyring(&burst).is_err());
    }
}
