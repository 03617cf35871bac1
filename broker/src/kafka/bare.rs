//! The producer that a careful developer writes in an afternoon, for benchmarks to compare with: one message a call, one future
//! a message, the library's own defaults but for safety.
//!
//! **Invariant:** nothing of ours stands between the caller and the library; a message counts as sent when Kafka has it (acks=all).

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;

use super::ConnectError;
use super::client::blocking;

/// How long one question to the broker may take.
const ASK: Duration = Duration::from_secs(10);
/// How long a message may wait for room in the client's queue.
const ROOM: Duration = Duration::from_secs(10);

/// An idempotent `FutureProducer` and the topic it writes to.
pub struct BareProducer {
    producer: FutureProducer,
    topic: String,
}

impl BareProducer {
    /// Makes the topic, if need be, and the producer.
    pub async fn connect(brokers: &str, topic: &str, partitions: u32) -> Result<Self, ConnectError> {
        let refused = |error: rdkafka::error::KafkaError| ConnectError::Settings(error.to_string());
        let admin: AdminClient<DefaultClientContext> = config(brokers).create().map_err(refused)?;
        let count = i32::try_from(partitions).unwrap_or(i32::MAX);
        let options = AdminOptions::new().operation_timeout(Some(ASK));
        let made = admin
            .create_topics(&[NewTopic::new(topic, count, TopicReplication::Fixed(-1))], &options)
            .await
            .map_err(refused)?;
        for result in made {
            if let Err((topic, code)) = result
                && code != RDKafkaErrorCode::TopicAlreadyExists
            {
                return Err(ConnectError::Settings(format!("the broker refuses to make `{topic}`: {code}")));
            }
        }
        let mut config = config(brokers);
        config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "5");
        Ok(Self { producer: config.create().map_err(refused)?, topic: topic.to_owned() })
    }

    /// Sends one message and waits until Kafka has it.
    pub async fn send(&self, key: &str, value: &str) -> Result<(), String> {
        let record = FutureRecord::to(&self.topic).key(key).payload(value);
        self.producer.send(record, ROOM).await.map(|_| ()).map_err(|(error, _)| error.to_string())
    }
}

/// How many messages a topic has had: the sum of its partitions' ends. `None` when the broker does not tell.
pub async fn records(brokers: &str, topic: &str) -> Option<u64> {
    let consumer: Arc<BaseConsumer> = Arc::new(config(brokers).create().ok()?);
    let topic = topic.to_owned();
    blocking(move || {
        let metadata = consumer.fetch_metadata(Some(&topic), ASK).ok()?;
        let partitions = metadata.topics().first()?.partitions();
        let ends = partitions.iter().map(|partition| {
            let (_, end) = consumer.fetch_watermarks(&topic, partition.id(), ASK).ok()?;
            u64::try_from(end).ok()
        });
        ends.sum()
    })
    .await?
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}
