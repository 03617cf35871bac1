//! `kill -9` at random moments under load: what was answered is there, once, in order.

use tests::events::Random;
use tests::faults::{self, Timed};
use tests::kafka;
use tests::rivulet::{Options, Rivulet};
use tests::torture::{self, Fault};

/// Kills a run; `RIVULET_KILLS` asks for more.
const KILLS: u64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_under_load_loses_nothing_answered_and_counts_nothing_twice() {
    let _timed = Timed::new("crash: embedded");
    let mut random = Random::seeded("crash: embedded");
    let kills = faults::effort("RIVULET_KILLS", KILLS);
    torture::survive(&mut random, Options::default(), kills, "crash", &[Fault::Kill]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_before_kafka_loses_nothing_answered_and_counts_nothing_twice() {
    let _timed = Timed::new("crash: kafka");
    let mut random = Random::seeded("crash: kafka");
    let broker = kafka::shared().await;
    let options =
        Options { kafka: Some(broker.address()), ..Options::default() }.set("kafka", "partitions", 8);
    let kills = faults::effort("RIVULET_KILLS", KILLS / 2);
    torture::survive(&mut random, options, kills, "kcrash", &[Fault::Kill]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torture_from_a_seed_ships_in_the_binary() {
    let _timed = Timed::new("torture");
    let rivulet = Rivulet::prepared(Options::default());
    let seed = Random::seeded("torture").below(1 << 32).to_string();
    let output = rivulet.run(&["torture", "--seed", &seed, "--rounds", "5"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(&format!("seed {seed}: held")), "{text}");
}
