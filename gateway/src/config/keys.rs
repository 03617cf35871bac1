//! One `[[keys]]` entry: who may send, from where, how much, and what is done with it.
//!
//! **Invariant:** what is left out has a default that takes events; no key is ever printed.

use schemas::registry::PiiAction;
use schemas::time::Timestamp;
use schemas::token::SecretText;
use schemas::verdict::AckLevel;
use serde::Deserialize;

/// One `[[keys]]` entry.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The source's name: stands in receipts, records, metrics; survives rotation of the key.
    pub name: String,
    /// The key itself.
    pub key: SecretText,
    /// Who may know it.
    pub kind: KeyKind,
    /// Older keys of the same source, still good while pages and servers move to the new one.
    #[serde(default)]
    pub previous: Vec<PreviousKey>,
    /// From then on `key` is refused. RFC 3339.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Origins whose pages may use a public key: `https://shop.example`, `https://*.shop.example`, `http://localhost:*`, `*`.
    #[serde(default)]
    pub origins: Vec<String>,
    /// Refuse requests of a public key that name no origin.
    #[serde(default)]
    pub require_origin: bool,
    /// Refuse the public key itself: pages need a signed token that stands for it.
    #[serde(default)]
    pub require_token: bool,
    /// What to do with event types without a schema.
    #[serde(default)]
    pub unknown_types: UnknownTypes,
    /// What to keep of the client's address.
    #[serde(default)]
    pub ip: IpPolicy,
    /// The level that is answered at unless the request asks otherwise.
    #[serde(default)]
    pub ack: Option<AckLevel>,
    /// How soon what it sends is shed under load.
    #[serde(default)]
    pub lane: Lane,
    /// Event types this key may send; empty = any.
    #[serde(default)]
    pub event_types: Vec<String>,
    /// What is hashed, masked or dropped of this key's events before they are kept, beside what schemas mark as `x-pii`.
    #[serde(default)]
    pub redact: Vec<RedactConfig>,
    /// What is done when the person objects to being measured.
    #[serde(default)]
    pub privacy: PrivacyConfig,
    /// Events a second that it may send on average; absent = any number.
    #[serde(default)]
    pub events_per_second: Option<u32>,
    /// Events that it may send at once after a pause; absent = one second's worth.
    #[serde(default)]
    pub burst_events: Option<u32>,
    /// Events it may send from midnight to midnight, UTC; absent = any number.
    #[serde(default)]
    pub events_per_day: Option<u64>,
    /// Events a second of one profile, on average over a window, beyond which it is hot; absent = none is.
    #[serde(default)]
    pub hot_profile_events_per_second: Option<u32>,
    /// What becomes of what a hot profile has beyond that.
    #[serde(default)]
    pub hot_profiles: HotProfiles,
}

/// One value of events that is not kept as sent.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactConfig {
    /// JSON pointer from the event's root; `*` stands for any member or item: `/metadata/items/*/note`.
    pub pointer: String,
    /// `hash`, `mask` or `drop`.
    pub action: PiiAction,
}

/// Section `[keys.privacy]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyConfig {
    /// Under Global Privacy Control (`Sec-GPC: 1`).
    pub gpc: Objection,
    /// Under Do Not Track (`DNT: 1`).
    pub dnt: Objection,
    /// Purposes that an event's `consent` must grant.
    pub consent: Option<ConsentConfig>,
}

/// What an event's `consent` must grant.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentConfig {
    /// Members of `consent` that must be `true`.
    pub require: Vec<String>,
    /// What is done where they are not.
    #[serde(default = "Objection::dropping")]
    pub otherwise: Objection,
}

/// What is done with events of who objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objection {
    /// Nothing: they are kept as others.
    #[default]
    Ignore,
    /// They are kept without who, device and page.
    Anonymise,
    /// They are not kept.
    Drop,
}

impl Objection {
    const fn dropping() -> Self {
        Self::Drop
    }
}

/// An older key of a source.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousKey {
    /// The key itself.
    pub key: SecretText,
    /// From then on it is refused. RFC 3339; absent = until it is deleted here.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// Who may know a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// Stands in pages; everybody can read it.
    Public,
    /// Stays on a server.
    Secret,
}

/// What to do with event types without a schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownTypes {
    /// Take them.
    #[default]
    Accept,
    /// Keep them aside.
    Quarantine,
    /// Refuse them.
    Reject,
}

/// What to keep of the client's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpPolicy {
    /// All of it.
    Keep,
    /// The first 24 bits of IPv4, 48 of IPv6.
    #[default]
    Truncate,
    /// Nothing.
    Drop,
}

/// How soon a key's events are shed under load: the last lane first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Orders, payments.
    Critical,
    /// What most keys send.
    #[default]
    Normal,
    /// What may be lost.
    BestEffort,
}

impl Lane {
    /// Every lane, the last shed first; the position is the discriminant.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Normal, Self::BestEffort];

    /// Its name, as in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::BestEffort => "best_effort",
        }
    }
}

/// What becomes of events of a profile that has more of them than its key expects.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HotProfiles {
    /// They are counted.
    #[default]
    Meter,
    /// Of those that say the same, one is taken a window; the others are answered `duplicate`.
    Coalesce,
    /// They are told to come again later.
    Limit,
}

impl HotProfiles {
    /// What is done, for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Meter => "metered",
            Self::Coalesce => "coalesced",
            Self::Limit => "limited",
        }
    }
}

impl KeyConfig {
    /// An entry with every default.
    pub fn new(name: &str, key: &str, kind: KeyKind) -> Self {
        Self {
            name: name.to_owned(),
            key: key.into(),
            kind,
            previous: Vec::new(),
            expires_at: None,
            origins: Vec::new(),
            require_origin: false,
            require_token: false,
            unknown_types: UnknownTypes::default(),
            ip: IpPolicy::default(),
            ack: None,
            lane: Lane::default(),
            event_types: Vec::new(),
            redact: Vec::new(),
            privacy: PrivacyConfig::default(),
            events_per_second: None,
            burst_events: None,
            events_per_day: None,
            hot_profile_events_per_second: None,
            hot_profiles: HotProfiles::default(),
        }
    }

    /// The keys that `rivulet up` has without a configuration: `wk_dev` for pages on this machine, `sk_dev` for servers.
    pub fn development() -> Vec<Self> {
        let hosts = ["localhost", "127.0.0.1", "[::1]"];
        let origins = hosts.iter().flat_map(|host| [format!("http://{host}:*"), format!("https://{host}:*")]);
        let web = Self { origins: origins.collect(), ..Self::new("web", "wk_dev", KeyKind::Public) };
        vec![web, Self::new("server", "sk_dev", KeyKind::Secret)]
    }

    /// Every key of the source, with its end.
    pub fn texts(&self) -> impl Iterator<Item = (&SecretText, Option<Timestamp>)> {
        let previous = self.previous.iter().map(|key| (&key.key, key.expires_at));
        std::iter::once((&self.key, self.expires_at)).chain(previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_entry_reads_with_its_defaults_and_refuses_unknown_names() {
        let key: KeyConfig = serde_json::from_str(r#"{"name":"web","key":"k","kind":"public"}"#).unwrap();
        assert_eq!(key, KeyConfig::new("web", "k", KeyKind::Public));
        let typo = r#"{"name":"web","key":"k","kind":"public","orgins":[]}"#;
        assert!(serde_json::from_str::<KeyConfig>(typo).is_err());
        let full = r#"{"name":"web","key":"k2","kind":"public","lane":"best_effort","events_per_second":10,"burst_events":50,
            "events_per_day":1000,"expires_at":"2027-01-01T00:00:00Z","previous":[{"key":"k1","expires_at":"2026-12-01T00:00:00Z"}]}"#;
        let full: KeyConfig = serde_json::from_str(full).unwrap();
        assert_eq!((full.lane, full.texts().count()), (Lane::BestEffort, 2));
    }

    #[test]
    fn an_entry_is_printed_without_its_keys() {
        let mut key = KeyConfig::new("web", "hush-new", KeyKind::Public);
        key.previous = vec![PreviousKey { key: "hush-old".into(), expires_at: None }];
        assert!(!format!("{key:?}").contains("hush"));
    }
}
