//! What all our clients of librdkafka share.
//!
//! **Invariant:** whether the broker is up is told by the newest of: an answer of it, or the client's word that all are down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::KafkaConfig;

/// Whether the broker is up.
#[derive(Default, Debug)]
pub(crate) struct Link(AtomicBool);

impl Link {
    pub(crate) fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, up: bool) {
        if self.0.swap(up, Ordering::Relaxed) != up {
            if up {
                tracing::info!("the broker answers");
            } else {
                tracing::warn!("no broker answers");
            }
        }
    }
}

/// Takes a client's events.
pub(crate) struct Context {
    pub(crate) link: Arc<Link>,
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, message);
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        note(&self.link, &error);
    }
}

impl ConsumerContext for Context {}

/// Takes an error of a client.
pub(crate) fn note(link: &Link, error: &KafkaError) {
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
        link.set(false);
    }
    tracing::debug!(code = ?error.rdkafka_error_code(), "the Kafka client reports an error");
}

/// The settings that all clients share, with those of the operator.
pub(crate) fn configure(config: &KafkaConfig, ours: &[(&str, String)]) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.brokers);
    client.set("client.id", "rivulet");
    client.set("socket.keepalive.enable", "true");
    // Questions are small and many; Nagle's algorithm with a delayed acknowledgement costs each of them 40 ms.
    client.set("socket.nagle.disable", "true");
    client.set("reconnect.backoff.ms", "100");
    client.set("reconnect.backoff.max.ms", "1000");
    client.set("log_level", "4");
    for (name, value) in ours {
        client.set(*name, value);
    }
    for (name, value) in &config.settings {
        client.set(name, value);
    }
    client
}

/// Runs what blocks on a thread made for that.
pub(crate) async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(act).await.ok()
}
