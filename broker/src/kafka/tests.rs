//! The Kafka log against the client library's own broker in memory. `tests/it` runs the same suite on a real one.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::clock::SystemClock;
use crate::contract::{self, Traits, append, at, read_exactly, record};
use crate::log::RecordError;

/// A broker in memory with our topics.
pub(crate) fn broker() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    for topic in Topic::ALL {
        cluster.create_topic(topic.name(), 8, 1).unwrap();
    }
    cluster
}

/// How the broker answers a batch.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Taken,
    TooLarge,
    TooFewReplicas,
}

/// The next answers to batches, instead of any told before; then everything is taken.
pub(crate) fn answer_produce(broker: &MockCluster<'_, DefaultProducerContext>, answers: &[Answer]) {
    let code = |answer: &Answer| match answer {
        Answer::Taken => RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
        Answer::TooLarge => RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        Answer::TooFewReplicas => RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    };
    broker.clear_request_errors(RDKafkaApiKey::Produce);
    broker.request_errors(RDKafkaApiKey::Produce, &answers.iter().map(code).collect::<Vec<_>>());
}

/// The log on it.
pub(crate) fn connect(brokers: String) -> KafkaLog {
    let config = KafkaConfig { create_topics: false, ..KafkaConfig::new(brokers) };
    KafkaLog::connect(config, Arc::new(SystemClock)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    let broker = broker();
    let log = connect(broker.bootstrap_servers());
    contract::check_all(&log, Traits::KAFKA).await;
    log.close().await;
    assert_eq!(log.append(vec![record(0, "k", "v")], AckLevel::Disk).await, Err(AppendError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_looks_something_up_does_not_disturb_one_who_follows() {
    let broker = broker();
    let log = connect(broker.bootstrap_servers());
    for n in 0..100 {
        append(&log, vec![record(0, "k", format!("{n}"))], AckLevel::Broker).await;
    }
    let (mut follower, mut looker) = (Offset(0), Offset(50));
    for _ in 0..25 {
        let one = read_exactly(&log, at(0), follower, 2).await;
        let other = read_exactly(&log, at(0), looker, 2).await;
        assert_eq!((one[0].offset, other[0].offset), (follower, looker));
        (follower, looker) = (one[1].offset.next(), other[1].offset.next());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_size_that_the_broker_alone_knows_of_costs_one_record_and_the_order_stays() {
    let broker = broker();
    let log = connect(broker.bootstrap_servers());
    append(&log, vec![record(0, "k", "first")], AckLevel::Broker).await;
    // The batch, then each record alone.
    let answers = [Answer::TooLarge, Answer::Taken, Answer::TooLarge, Answer::Taken];
    answer_produce(&broker, &answers);
    let batch = ["a", "b", "c"].map(|value| record(0, "k", value)).to_vec();
    let answers = log.append(batch, AckLevel::Broker).await.unwrap();
    assert!(matches!(answers[1], Err(RecordError::TooLarge { bytes, max }) if max < bytes), "{answers:?}");
    let places: Vec<_> =
        answers.iter().flatten().map(|answer| (answer.level, answer.at.unwrap().1)).collect();
    assert_eq!(places, [(AckLevel::Broker, Offset(1)), (AckLevel::Broker, Offset(2))]);
    append(&log, vec![record(0, "k", "last")], AckLevel::Broker).await;
    let values: Vec<_> =
        read_exactly(&log, at(0), Offset(0), 4).await.into_iter().map(|record| record.value).collect();
    assert_eq!(values, ["first", "a", "c", "last"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_with_the_broker_away_and_says_so() {
    let config = KafkaConfig { ack_deadline: Duration::from_millis(300), ..KafkaConfig::new("127.0.0.1:1") };
    let log = KafkaLog::connect(config, Arc::new(SystemClock)).unwrap();
    assert_eq!(log.health().broker, "down");
    let answer = log.append(vec![record(0, "k", "v")], AckLevel::Broker).await;
    assert!(matches!(answer, Err(AppendError::Unavailable(_))), "{answer:?}");
    assert!(matches!(log.partitions(Topic::Events).await, Err(ReadError::Unavailable(_))));
}

#[tokio::test]
async fn a_setting_that_is_wrong_is_told_at_once() {
    let config = KafkaConfig { compression: "best".to_owned(), ..KafkaConfig::new("127.0.0.1:1") };
    assert!(KafkaLog::connect(config, Arc::new(SystemClock)).is_err());
}
