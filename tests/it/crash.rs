//! `kill -9` at random moments under load: what was answered is there, once, in order.

use std::time::Duration;

use futures_util::future::join_all;
use tests::events::Random;
use tests::faults::{self, Timed};
use tests::rivulet::{Options, Rivulet};
use tests::sender::{Sender, check_log};
use tests::{kafka, log, oracle};

/// Kills a run; `RIVULET_KILLS` asks for more.
const KILLS: u64 = 8;

/// The longest time from a start's readiness to the next kill.
const KILL_WITHIN_MILLIS: u64 = 700;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_under_load_loses_nothing_answered_and_counts_nothing_twice() {
    let _timed = Timed::new("crash: embedded");
    let mut random = Random::seeded("crash: embedded");
    survive(&mut random, Options::default(), faults::effort("RIVULET_KILLS", KILLS), "crash").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_before_kafka_loses_nothing_answered_and_counts_nothing_twice() {
    let _timed = Timed::new("crash: kafka");
    let mut random = Random::seeded("crash: kafka");
    let broker = kafka::shared().await;
    let options =
        Options { kafka: Some(broker.address()), ..Options::default() }.set("kafka", "partitions", 8);
    survive(&mut random, options, faults::effort("RIVULET_KILLS", KILLS / 2), "kcrash").await;
}

async fn survive(random: &mut Random, options: Options, kills: u64, prefix: &str) {
    let mut rivulet = Rivulet::with(options).await;
    let mut crowd = Sender::crowd(random, 4, prefix);
    for round in 0..kills {
        let client = rivulet.client();
        let load = join_all(crowd.iter_mut().map(|sender| sender.pump(&client)));
        let ended = faults::during(Duration::from_millis(random.below(KILL_WITHIN_MILLIS)), load).await;
        assert!(ended.is_none(), "no answer in round {round} before the kill");
        rivulet.kill();
        rivulet.start().await;
        eprint!("{:.0} ms ", rivulet.ready_after.as_secs_f64() * 1e3);
    }
    eprintln!("to be ready after a kill");
    let client = rivulet.client();
    for sender in &mut crowd {
        faults::eventually("everything is answered in the end", faults::SOON, async || {
            sender.settle(&client).await.then_some(())
        })
        .await;
        assert!(sender.refusals.is_empty(), "refused: {:?}", sender.refusals.first());
    }
    let records = arrived(&rivulet, &crowd).await;
    check_log(&crowd, &records);
    oracle::check_profiles(&rivulet, &records, prefix).await;
    oracle::check_banners(&rivulet, &records, prefix).await;
}

/// The log's events once all that was promised has arrived there: at once when embedded, through the spool before Kafka.
pub(crate) async fn arrived(rivulet: &Rivulet, crowd: &[Sender]) -> Vec<log::Record> {
    let promised: Vec<&str> = crowd
        .iter()
        .flat_map(|sender| &sender.ledger)
        .filter(|sent| sent.acked.is_some())
        .map(|sent| tests::events::id(&sent.event))
        .collect();
    let records = faults::until(faults::LATER, async || {
        let records = log::events(rivulet).await;
        let there: std::collections::HashSet<&str> = records.iter().map(log::Record::event_id).collect();
        promised.iter().all(|id| there.contains(id)).then_some(records)
    });
    match records.await {
        Some(records) => records,
        // Not all there: the check that follows says which.
        None => log::events(rivulet).await,
    }
}
