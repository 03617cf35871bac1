//! What an operator can set, with defaults that fit a laptop and a small server.
//!
//! **Invariant:** every field that is a size or a time says its unit; a configuration that passed [`GatewayConfig::check`] cannot
//! make the gateway refuse everything or hold unbounded memory.

mod keys;
mod kill;

use schemas::token::SecretText;
use schemas::verdict::AckLevel;
use serde::Deserialize;

pub use self::keys::{
    ConsentConfig, HotProfiles, IpPolicy, KeyConfig, KeyKind, Lane, Objection, PreviousKey, PrivacyConfig,
    RedactConfig, UnknownTypes,
};
pub use self::kill::{KillAction, KillRule, MAX_KILL_RULES, check_kill_rules};

/// Section `[gateway]`, and the keys.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// The keys; filled from `[[keys]]`, which stands beside `[gateway]`.
    #[serde(skip)]
    pub keys: Vec<KeyConfig>,
    /// Largest event, bytes.
    pub event_bytes: usize,
    /// Largest body or batch frame, bytes, as sent and inflated.
    pub batch_bytes: usize,
    /// Events taken at once: most in a batch frame; a body may hold [`BODY_BATCHES`] times as many.
    pub batch_events: usize,
    /// Deepest nesting of an event.
    pub depth: usize,
    /// A body may inflate to this many times its size (checked above 1 MiB).
    pub inflate_ratio: usize,
    /// Longest `user_id` or `anonymous_id`, bytes.
    pub id_bytes: usize,
    /// Raw bytes kept of an event in quarantine.
    pub quarantine_bytes: usize,
    /// Bytes of bodies and frames that may be in work at once; beyond it requests get 503.
    pub in_flight_bytes: usize,
    /// Event ids remembered, so that a quick resend is answered `duplicate` without being written again.
    pub recent_ids: usize,
    /// The level that is answered at unless the request or the key asks otherwise.
    pub ack: AckLevel,
    /// What `Retry-After` says, seconds.
    pub retry_after_s: u64,
    /// A body must arrive within this time, milliseconds.
    pub body_timeout_ms: u64,
    /// Two pieces of a body may lie this far apart, milliseconds.
    pub body_chunk_timeout_ms: u64,
    /// Longest drain, milliseconds.
    pub drain_timeout_ms: u64,
    /// Addresses or networks (`10.0.0.0/8`) whose `X-Forwarded-For` and `Forwarded` are believed.
    pub trusted_proxies: Vec<String>,
    /// WebSocket settings.
    pub socket: SocketConfig,
    /// Followers of `/v1/tail` at once.
    pub tail_readers: usize,
    /// Entries that a follower of `/v1/tail` may lag behind before it loses some.
    pub tail_backlog: usize,
    /// Events that may wait for the log; nearing it, best-effort events are shed, then normal ones.
    pub shed_waiting_events: usize,
    /// How late the program may be with what is due, all the time; nearing it, the same, milliseconds.
    pub shed_late_ms: u64,
    /// Time over which a profile's events are counted to find hot ones, seconds.
    pub hot_window_s: u32,
    /// Profiles counted at once.
    pub hot_profiles_tracked: usize,
    /// Secret for the hashes that stand in place of personal data; needed as soon as anything is to be hashed. At least 16 bytes.
    pub pii_secret: Option<SecretText>,
}

/// Section `[gateway.socket]`.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SocketConfig {
    /// Batches a client may have unanswered.
    pub credit: u32,
    /// `hello` must come within this time, milliseconds.
    pub hello_timeout_ms: u64,
    /// The server pings this often, milliseconds.
    pub ping_interval_ms: u64,
    /// A socket silent for this long is closed, milliseconds.
    pub silence_timeout_ms: u64,
    /// A frame must be written within this time, milliseconds.
    pub write_timeout_ms: u64,
    /// Sessions remembered, connected or not.
    pub sessions: usize,
    /// A session without socket is forgotten after this time, milliseconds.
    pub session_ttl_ms: u64,
    /// Event ids remembered per session, so that decisions find the page that caused them.
    pub session_ids: usize,
    /// Decisions kept per session until its page is known to have them.
    pub session_decisions: usize,
}

/// What is wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// A field has a value that cannot work.
    #[error("`{field}` must be {expected}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What would be right.
        expected: String,
    },
    /// Something is to be hashed, and there is no secret for it.
    #[error(
        "{what} asks for a hash: set `gateway.pii_secret` (at least 16 random bytes), or use `mask` or `drop`"
    )]
    PiiSecret {
        /// Who asks.
        what: String,
    },
    /// A kill rule has a fault.
    #[error("kill rule `{name}`: {message}")]
    KillRule {
        /// The rule's name.
        name: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A key entry has a fault.
    #[error("key `{name}`: {message}")]
    Key {
        /// The entry's name.
        name: String,
        /// What is wrong, and what to do.
        message: String,
    },
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            event_bytes: 64 << 10,
            batch_bytes: 4 << 20,
            batch_events: 2_500,
            depth: 32,
            inflate_ratio: 250,
            id_bytes: 512,
            quarantine_bytes: 256 << 10,
            in_flight_bytes: 128 << 20,
            recent_ids: 65_536,
            ack: AckLevel::Disk,
            retry_after_s: 2,
            body_timeout_ms: 30_000,
            body_chunk_timeout_ms: 10_000,
            drain_timeout_ms: 10_000,
            trusted_proxies: Vec::new(),
            socket: SocketConfig::default(),
            tail_readers: 16,
            tail_backlog: 1_024,
            shed_waiting_events: 50_000,
            shed_late_ms: 1_000,
            hot_window_s: 10,
            hot_profiles_tracked: 256,
            pii_secret: None,
        }
    }
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self {
            credit: 8,
            hello_timeout_ms: 5_000,
            ping_interval_ms: 25_000,
            silence_timeout_ms: 60_000,
            write_timeout_ms: 10_000,
            sessions: 10_000,
            session_ttl_ms: 600_000,
            session_ids: 1_024,
            session_decisions: 64,
        }
    }
}

/// A body with more events than `batch_events` is taken in slices of so many, up to so many slices.
pub(crate) const BODY_BATCHES: usize = 16;

impl GatewayConfig {
    /// Most events in a body that is read whole.
    pub(crate) const fn body_events(&self) -> usize {
        self.batch_events.saturating_mul(BODY_BATCHES)
    }

    /// Refuses values that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let positive: [(&'static str, usize); 13] = [
            ("event_bytes", self.event_bytes),
            ("batch_events", self.batch_events),
            ("depth", self.depth),
            ("inflate_ratio", self.inflate_ratio),
            ("id_bytes", self.id_bytes),
            ("quarantine_bytes", self.quarantine_bytes),
            ("socket.sessions", self.socket.sessions),
            ("socket.session_ids", self.socket.session_ids),
            ("tail_backlog", self.tail_backlog),
            ("shed_waiting_events", self.shed_waiting_events),
            ("shed_late_ms", usize::try_from(self.shed_late_ms).unwrap_or(usize::MAX)),
            ("hot_window_s", self.hot_window_s as usize),
            ("hot_profiles_tracked", self.hot_profiles_tracked),
        ];
        let wrong = |field, expected: &str| Err(ConfigError::Field { field, expected: expected.to_owned() });
        if let Some((field, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return wrong(field, "at least 1");
        }
        if self.batch_bytes < self.event_bytes {
            return wrong("batch_bytes", "at least `event_bytes`");
        }
        // A semaphore counts the bytes in work; its largest count is 2^61 - 1, and one request takes at most 2^32 - 1.
        if self.in_flight_bytes < self.batch_bytes.saturating_mul(2)
            || u32::try_from(self.in_flight_bytes).is_err()
        {
            return wrong(
                "in_flight_bytes",
                "at least twice `batch_bytes` (as sent and inflated) and below 4 GiB",
            );
        }
        if self.depth > MAX_DEPTH {
            return wrong("depth", "at most 100 (what JSON readers of the log can take)");
        }
        if self.pii_secret.as_ref().is_some_and(|secret| secret.as_str().len() < MIN_PII_SECRET_BYTES) {
            return wrong("pii_secret", "at least 16 bytes");
        }
        if self.socket.credit == 0 {
            return wrong("socket.credit", "at least 1");
        }
        for text in &self.trusted_proxies {
            if crate::address::Network::parse(text).is_none() {
                return wrong("trusted_proxies", "addresses or networks such as `10.0.0.0/8` or `fd00::/8`");
            }
        }
        Ok(())
    }
}

/// A shorter secret could be guessed.
const MIN_PII_SECRET_BYTES: usize = 16;
/// `serde_json` stops at 128; a receipt and an envelope need a few.
const MAX_DEPTH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_and_the_development_keys_pass_the_check() {
        GatewayConfig::default().check().unwrap();
        crate::testing::keyring(&KeyConfig::development()).unwrap();
    }

    #[test]
    fn a_value_that_cannot_work_is_refused_by_name() {
        let config = GatewayConfig { batch_bytes: 10, ..GatewayConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("`batch_bytes`"));
        let config =
            GatewayConfig { trusted_proxies: vec!["not-an-address".to_owned()], ..GatewayConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("`trusted_proxies`"));
        let config = GatewayConfig { depth: 1_000, ..GatewayConfig::default() };
        assert!(config.check().is_err());
        assert!(serde_json::from_str::<GatewayConfig>(r#"{"event_bites":1}"#).is_err());
    }
}
