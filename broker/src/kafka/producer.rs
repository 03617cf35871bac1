//! Hands records to librdkafka and tells what became of each.
//!
//! **Invariant:** records of a partition are written in the order of `send` or the client stops: it is idempotent, never
//! times a record out, and counts a gap as fatal. Every record that was sent is answered once, at the latest when the
//! producer is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header as KafkaHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use schemas::topic::{Offset, PartitionId, Topic};
use tokio::sync::mpsc;

use super::client::{Link, configure, note};
use super::{KafkaConfig, Topics, place};
use crate::headers::Headers;

/// Bytes of a record batch before its first record (Kafka's message format 2).
const BATCH_HEAD_BYTES: usize = 61;
/// Lengths and deltas of a record in a batch, at most: four varints of 5 bytes, one of 10, attributes, header count.
const RECORD_HEAD_BYTES: usize = 36;
/// Lengths of one header, at most.
const HEADER_HEAD_BYTES: usize = 10;
/// The largest batch that librdkafka is asked to make.
const MAX_BATCH_BYTES: usize = 1_000_000;

/// A record to produce.
pub(crate) struct Outgoing<'a> {
    pub(crate) topic: Topic,
    pub(crate) partition: PartitionId,
    pub(crate) key: &'a Bytes,
    pub(crate) headers: &'a Headers,
    pub(crate) value: &'a Bytes,
}

/// Why a record was not written, or may not have been.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The broker takes no batch of this size.
    #[error("the broker refuses the size")]
    TooLarge,
    /// Something else.
    #[error("delivery failed: {0:?}")]
    Other(RDKafkaErrorCode),
}

impl Failure {
    /// Whether the record itself failed, not merely along with others.
    pub(crate) fn is_cause(self) -> bool {
        use RDKafkaErrorCode::{Fatal, GaplessGuarantee, PurgeInflight, PurgeQueue};
        !matches!(self, Self::Other(Fatal | GaplessGuarantee | PurgeInflight | PurgeQueue))
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) ticket: u64,
    pub(crate) result: Result<(PartitionId, Offset), Failure>,
}

/// Why a record was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SendError {
    /// The queue is full; try again when something was delivered.
    Full,
    /// The client does not take it.
    Refused(String),
}

/// Where a delivery is told, besides the producer's own callback.
type Done = Option<mpsc::UnboundedSender<Delivery>>;
/// Called for every delivery, on the client's thread.
pub(crate) type OnDelivery = Arc<dyn Fn((Delivery, Done)) + Send + Sync>;

struct Ticket {
    ticket: u64,
    done: Done,
}

struct Context {
    link: Arc<Link>,
    on_delivery: OnDelivery,
    broken: Arc<AtomicBool>,
}

/// A client that produces.
pub(crate) struct Producer {
    client: ThreadedProducer<Context>,
    broken: Arc<AtomicBool>,
}

/// Bytes of a batch that holds this record alone, uncompressed, at most.
pub(crate) fn record_bytes(key: &[u8], headers: &Headers, value: &[u8]) -> usize {
    // The block has six bytes of lengths a header.
    let headers = usize::from(headers.len()) * (HEADER_HEAD_BYTES - 6) + headers.as_bytes().len();
    BATCH_HEAD_BYTES + RECORD_HEAD_BYTES + key.len() + headers + value.len()
}

impl Producer {
    pub(crate) fn new(
        config: &KafkaConfig,
        link: &Arc<Link>,
        topics: Option<&Arc<Topics>>,
        on_delivery: OnDelivery,
    ) -> KafkaResult<Self> {
        let broken = Arc::new(AtomicBool::new(false));
        let batch =
            topics.map_or(MAX_BATCH_BYTES, |topics| topics.least_max_bytes().clamp(1, MAX_BATCH_BYTES));
        let client = configure(
            config,
            &[
                ("acks", "all".to_owned()),
                ("enable.idempotence", "true".to_owned()),
                ("enable.gapless.guarantee", "true".to_owned()),
                ("message.timeout.ms", "0".to_owned()),
                ("linger.ms", config.linger.as_millis().to_string()),
                ("compression.type", config.compression.clone()),
                ("batch.size", batch.to_string()),
                // The topic's limit is checked before; this one must not be the lower.
                ("message.max.bytes", "104857600".to_owned()),
                ("queue.buffering.max.messages", config.queue_records.to_string()),
                ("queue.buffering.max.kbytes", (config.queue_bytes.div_ceil(1024) * 2).to_string()),
            ],
        );
        let context = Context { link: Arc::clone(link), on_delivery, broken: Arc::clone(&broken) };
        Ok(Self { client: client.create_with_context(context)?, broken })
    }

    /// Whether the client has had an error after which its order cannot be relied on.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Puts a record into the client's queue. Never blocks.
    pub(crate) fn send(&self, record: &Outgoing<'_>, ticket: u64, done: Done) -> Result<(), SendError> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len().into());
        for (name, value) in record.headers {
            headers = headers.insert(KafkaHeader { key: name, value: Some(value) });
        }
        let partition = i32::try_from(record.partition.0).unwrap_or(i32::MAX);
        let mut message = BaseRecord::<[u8], [u8], Box<Ticket>>::with_opaque_to(
            record.topic.name(),
            Box::new(Ticket { ticket, done }),
        )
        .partition(partition)
        .headers(headers);
        if !record.key.is_empty() {
            message = message.key(record.key);
        }
        // An empty value is a tombstone: no payload at all.
        if !record.value.is_empty() {
            message = message.payload(record.value);
        }
        self.client.send(message).map_err(|(error, _)| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => SendError::Full,
            _ => SendError::Refused(error.to_string()),
        })
    }
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, message);
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.broken.store(true, Ordering::Release);
        }
        note(&self.link, &error);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Self::DeliveryOpaque) {
        let result = match result {
            Ok(message) => {
                self.link.set(true);
                Ok(place(message.partition(), message.offset()))
            }
            Err((error, _)) => {
                self.broken.store(true, Ordering::Release);
                Err(match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::MessageSizeTooLarge) => Failure::TooLarge,
                    code => Failure::Other(code.unwrap_or(RDKafkaErrorCode::Unknown)),
                })
            }
        };
        (self.on_delivery)((Delivery { ticket: ticket.ticket, result }, ticket.done));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_records_size_counts_key_headers_and_the_batch_around_it() {
        let headers = Headers::of([("ce_id", "12345")]);
        assert_eq!(record_bytes(b"key", &headers, b"value"), 61 + 36 + 3 + 20 + 5);
    }
}
