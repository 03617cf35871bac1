//! What the tests of this crate share: a gateway on a log in memory, with a clock that stands still and predictable entropy.
//!
//! **Invariant:** never part of a build that is not a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker::clock::{Clock, TestClock};
use broker::log::{Record, SharedLog};
use broker::testing::MemoryLog;
use schemas::registry::Registry;
use schemas::time::Timestamp;
use schemas::verdict::AckLevel;

use crate::authenticate::Keys;
use crate::entropy::{Entropy, Unavailable};
use crate::{ConfigError, Gateway, GatewayConfig, KeyConfig};

/// Partitions of every topic.
const PARTITIONS: u32 = 4;

/// When the tests happen.
pub(crate) const NOW: Timestamp = Timestamp(1_714_054_990_000);

/// A log for those who only have to be given one.
pub(crate) fn log() -> SharedLog {
    Arc::new(MemoryLog::new(PARTITIONS, NOW))
}

/// Counts up; panics when told to.
#[derive(Debug, Default)]
pub(crate) struct TestEntropy {
    next: AtomicU64,
    pub(crate) panics: std::sync::atomic::AtomicBool,
}

impl Entropy for TestEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Unavailable> {
        assert!(!self.panics.load(Ordering::SeqCst), "told to");
        let number = self.next.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        bytes.fill(0);
        for (byte, digit) in bytes.iter_mut().rev().zip(number.into_iter().rev()) {
            *byte = digit;
        }
        Ok(())
    }
}

/// A gateway with what it stands on.
pub(crate) struct Stand {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) entropy: Arc<TestEntropy>,
    pub(crate) clock: Arc<TestClock>,
}

/// The development keys, and some that differ.
pub(crate) fn keys() -> Vec<KeyConfig> {
    use crate::config::{IpPolicy, UnknownTypes};
    let mut keys = KeyConfig::development();
    let mut strict = keys[1].clone();
    strict.name = "strict".to_owned();
    strict.key = "sk_strict".into();
    strict.unknown_types = UnknownTypes::Reject;
    strict.event_types = vec!["product_view".to_owned(), "unheard_of".to_owned()];
    strict.ip = IpPolicy::Keep;
    let mut careful = keys[1].clone();
    careful.name = "careful".to_owned();
    careful.key = "sk_careful".into();
    careful.unknown_types = UnknownTypes::Quarantine;
    careful.ack = Some(AckLevel::Received);
    keys.extend([strict, careful]);
    keys
}

/// Keys at [`NOW`].
pub(crate) fn keyring(configs: &[KeyConfig]) -> Result<Keys, ConfigError> {
    Keys::new(configs, Arc::new(TestClock::new(NOW)))
}

/// Starts a gateway.
pub(crate) fn stand(config: GatewayConfig) -> Stand {
    let log = Arc::new(MemoryLog::new(PARTITIONS, NOW));
    let clock = Arc::new(TestClock::new(NOW));
    let entropy = Arc::new(TestEntropy::default());
    let keys = if config.keys.is_empty() { keys() } else { config.keys.clone() };
    let config = GatewayConfig { keys, ..config };
    let gateway = Gateway::with_entropy(
        config,
        Arc::clone(&log) as SharedLog,
        Arc::new(Registry::builtin()),
        Arc::clone(&clock) as Arc<dyn Clock>,
        Arc::clone(&entropy) as Arc<dyn Entropy>,
    );
    Stand { gateway: gateway.unwrap(), log, entropy, clock }
}

/// A record's value as a tree.
pub(crate) fn value(record: &Record) -> serde_json::Value {
    serde_json::from_slice(&record.value).unwrap()
}
