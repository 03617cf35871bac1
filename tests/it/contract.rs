//! The log's contract on a real broker: Kafka itself, and the spool in front of it.
//!
//! **Invariant:** fills a topic that nothing else here reads.

use std::sync::Arc;

use broker::clock::SystemClock;
use broker::contract::{self, Traits};
use broker::embedded::JournalConfig;
use broker::kafka::{KafkaConfig, KafkaLog};
use broker::log::{Log as _, RecordError};
use broker::spool::{Spool, SpoolConfig};
use tests::events::Random;
use tests::faults::{self, LATER, Timed};
use tests::kafka::{self, Broker};

/// Partitions of the topics: as in the other tests of this broker, whichever makes them.
const PARTITIONS: u32 = 8;

/// The limit that the broker tells after the clients were told another.
const SMALL_BYTES: usize = 2_000;

fn connect(broker: &Broker) -> KafkaLog {
    let config = KafkaConfig { partitions: PARTITIONS, ..KafkaConfig::new(broker.address()) };
    KafkaLog::connect(config, Arc::new(SystemClock)).unwrap()
}

fn spool(broker: &Broker, dir: &tempfile::TempDir) -> Spool {
    let config = SpoolConfig { ack_deadline: LATER, ..SpoolConfig::default() };
    Spool::open(config, JournalConfig::new(dir.path()), connect(broker), Arc::new(SystemClock)).unwrap()
}

/// Waits for topics and their leaders, which are made by whoever is first.
async fn ready(log: &KafkaLog) {
    faults::eventually("every partition is led", LATER, async || {
        for partition in 0..PARTITIONS {
            log.end_offset(contract::at(partition)).await.ok()?;
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_broker_keeps_the_contract_alone_and_behind_the_spool() {
    let _timed = Timed::new("contract");
    let broker = kafka::shared().await;
    let log = connect(&broker);
    ready(&log).await;
    faults::bounded("Kafka's checks end", LATER, contract::check_all(&log, Traits::KAFKA)).await;
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(&broker, &dir);
    faults::bounded("the spool's checks end", LATER, contract::check_all(&spool, Traits::SPOOL)).await;
    spool.close().await;
    log.close().await;
}

/// A limit that was lowered since the clients asked: each batch that the broker refuses is taken apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_only_the_broker_knows_costs_one_record_alone_and_behind_the_spool() {
    let _timed = Timed::new("contract: size");
    let broker = kafka::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let (log, spool) = (connect(&broker), spool(&broker, &dir));
    ready(&log).await;
    ready(spool.kafka()).await;
    let topic = contract::TOPIC.name();
    broker.set(topic, "max.message.bytes", &SMALL_BYTES.to_string()).await;
    let kinds: [(&dyn broker::log::Log, Traits); 2] = [(&log, Traits::KAFKA), (&spool, Traits::SPOOL)];
    for (log, traits) in kinds {
        let start = log.end_offset(contract::at(0)).await.unwrap();
        let mut batch: Vec<_> = (0..100).map(|n| contract::record(0, "k", format!("{n}"))).collect();
        batch[40].value = crate::kafka::noise(&mut Random::new(40), 3_000).into();
        let answers =
            faults::bounded("the batch is answered", LATER, log.append(batch, traits.highest)).await;
        for (n, answer) in answers.unwrap().into_iter().enumerate() {
            match (n, answer) {
                (40, Err(RecordError::TooLarge { bytes, max })) => assert!(max < bytes),
                (40, answer) => panic!("{answer:?}"),
                (n, answer) => assert_eq!(answer.map(|answer| answer.level), Ok(traits.highest), "{n}"),
            }
        }
        let back = contract::read_exactly(log, contract::at(0), start, 99).await;
        let values: Vec<_> = back.iter().map(|record| String::from_utf8_lossy(&record.value)).collect();
        let right: Vec<_> = (0..100).filter(|n| *n != 40).map(|n| n.to_string()).collect();
        assert_eq!(values, right, "in order and once");
    }
    broker.set(topic, "max.message.bytes", "1048588").await;
    spool.close().await;
}
