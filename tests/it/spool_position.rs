//! The file that says how far the spool is published: old, new or gone, it costs repetitions, never an event or a count.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tests::damage as files;
use tests::events::{self, Random, of_user};
use tests::faults::{self, LATER, Timed};
use tests::kafka;
use tests::log;
use tests::rivulet::{Options, Rivulet};

/// From a start to the first 200 of `/ready`.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// From SIGTERM to the end.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// One person's events, all of them.
struct Story {
    random: Random,
    sent: Vec<Value>,
}

impl Story {
    /// Sends some more, and waits until they are on the broker and counted once.
    async fn goes_on(&mut self, rivulet: &Rivulet) {
        let batch: Vec<Value> =
            (0..20).map(|_| events::page_view(&mut self.random, &of_user("position"))).collect();
        let answer = rivulet.client().send(events::array(&batch)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        self.sent.extend(batch);
        self.holds(rivulet).await;
    }

    /// Panics unless all of it is on the broker, first occurrences in order, and counted once.
    async fn holds(&self, rivulet: &Rivulet) {
        let mut last = Value::Null;
        let counted = faults::until(LATER, async || {
            last = rivulet.profile("user:position").await.unwrap_or_default();
            (last["counters"]["page_view"] == self.sent.len()).then_some(())
        });
        assert!(counted.await.is_some(), "{} events: {last}", self.sent.len());
        let records = log::events(rivulet).await;
        let mine = log::of_key(&records, "position");
        let place = |event: &Value| mine.iter().position(|record| record.event_id() == events::id(event));
        let places: Vec<usize> = self.sent.iter().map(|event| place(event).expect("on the topic")).collect();
        assert!(places.is_sorted(), "first occurrences in order: {places:?}");
        eprintln!("{} records for {} events", mine.len(), self.sent.len());
    }
}

async fn stop(rivulet: &mut Rivulet) {
    let (status, took) = rivulet.terminate(faults::SOON).await;
    assert!(status.success() && took < STOP_WITHIN, "{status} after {took:?}");
}

async fn start(rivulet: &mut Rivulet) {
    rivulet.start().await;
    assert!(rivulet.ready_after < READY_WITHIN, "ready after {:?}", rivulet.ready_after);
}

/// C39, the position file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_file_older_newer_or_gone_loses_nothing_and_counts_nothing_twice() {
    let _timed = Timed::new("spool position");
    let broker = kafka::shared().await;
    let options =
        Options { kafka: Some(broker.address()), ..Options::default() }.set("kafka", "partitions", 8);
    let mut rivulet = Rivulet::with(options).await;
    let mut story = Story { random: Random::seeded("spool position"), sent: Vec::new() };
    let (position, old) = (rivulet.data().join("log/spool.position"), rivulet.path("old"));
    story.goes_on(&rivulet).await;
    stop(&mut rivulet).await;
    files::copy(&rivulet.data(), &old);
    start(&mut rivulet).await;
    story.goes_on(&rivulet).await;
    stop(&mut rivulet).await;

    // One step older than the spool.
    std::fs::copy(old.join("log/spool.position"), &position).unwrap();
    start(&mut rivulet).await;
    story.goes_on(&rivulet).await;
    // Gone, after a kill.
    rivulet.kill();
    std::fs::remove_file(&position).unwrap();
    start(&mut rivulet).await;
    story.goes_on(&rivulet).await;
    stop(&mut rivulet).await;
    // No position at all, but something that is none.
    std::fs::write(&position, b"RIVPOSN1 and then nonsense").unwrap();
    start(&mut rivulet).await;
    story.goes_on(&rivulet).await;
    stop(&mut rivulet).await;
    // Newer than the spool, which was put back: its new records must not pass for published.
    let newer = std::fs::read(&position).unwrap();
    put_back(&old, &rivulet.data());
    std::fs::write(&position, newer).unwrap();
    start(&mut rivulet).await;
    story.goes_on(&rivulet).await;
    stop(&mut rivulet).await;
}

fn put_back(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to.join("log")).unwrap();
    files::copy(&from.join("log"), &to.join("log"));
}
