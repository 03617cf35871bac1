//! Whatever a crash left of the files: the next start is ready, keeps what is whole, and says what is not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use serde_json::Value;
use tests::damage::{self as files, Damage};
use tests::events::{self, Random, of_user};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::{Options, Rivulet};
use tests::sender::{Sender, check_log};

/// From a start to the first 200 of `/ready`.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// From SIGTERM to the end.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Starts at the same time.
const AT_ONCE: usize = 2;

/// Starts of which one must be as fast as promised.
const STARTS: usize = 3;

/// Cuts tried between the shortest and the longest.
const CUTS: usize = 4;

fn options() -> Options {
    Options::default().set("log", "segment_bytes", 65_536).set("log", "partitions", 2)
}

/// What stood on disk when the program was killed, and what had been answered by then.
struct Crashed {
    rivulet: Rivulet,
    pristine: PathBuf,
    sent: Vec<Value>,
    /// State files of a moment before and of one after.
    older: PathBuf,
    newer: PathBuf,
}

/// Kills a program that has several segments and whose processor has read everything.
async fn crashed(random: &mut Random) -> Crashed {
    let mut rivulet = Rivulet::with(options()).await;
    let (older, newer) = (rivulet.path("older.state"), rivulet.path("newer.state"));
    let sent: Vec<Value> = (0..300).map(|_| events::page_view(random, &of_user("c39"))).collect();
    for (place, event) in sent.iter().enumerate() {
        assert_eq!(rivulet.client().send(event.to_string()).await.status, 200);
        if place == 30 {
            std::fs::copy(state(&rivulet), &older).unwrap();
        }
    }
    counted(&rivulet, "user:c39", "page_view", sent.len()).await;
    rivulet.kill();
    let pristine = rivulet.path("pristine");
    files::copy(&rivulet.data(), &pristine);
    assert!(files::segments(&files::journal(&pristine)).len() >= 3, "several segments are needed");
    // It goes on, for a state file that is newer than the rest; what it keeps of that is of no interest.
    rivulet.start().await;
    for _ in 0..4 {
        let more: Vec<Value> = (0..100).map(|_| events::page_view(random, &of_user("c39-later"))).collect();
        assert_eq!(rivulet.client().send(events::array(&more)).await.status, 200);
    }
    rivulet.kill();
    std::fs::copy(state(&rivulet), &newer).unwrap();
    Crashed { rivulet, pristine, sent, older, newer }
}

fn state(rivulet: &Rivulet) -> PathBuf {
    files::journal(&rivulet.data()).join("journal.state")
}

async fn counted(rivulet: &Rivulet, who: &str, event_type: &str, count: usize) {
    let mut last = Value::Null;
    let counted = faults::until(SOON, async || {
        last = rivulet.profile(who).await.unwrap_or_default();
        (last["counters"][event_type] == count).then_some(())
    });
    assert!(counted.await.is_some(), "{who} has not {count} of {event_type}: {last}");
}

/// C39: one damage a start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torn_and_missing_files_cost_what_they_held_and_never_a_start() {
    let _timed = Timed::new("C39");
    let mut random = Random::seeded("C39");
    let crashed = crashed(&mut random).await;
    let mut damages = vec![Damage::Cut(1), Damage::Cut(64), Damage::Cut(700), Damage::CutRecord];
    damages.extend((0..CUTS).map(|_| Damage::Cut(2 + random.below(62))));
    damages.extend([
        Damage::Empty,
        Damage::ZerosBehind(512),
        Damage::ZerosBehind(1 << 20),
        Damage::ZerosOver(100),
        Damage::RemoveFinished,
        Damage::Flip,
        Damage::RemoveState,
        Damage::RemoveIndexes,
        Damage::PutState(crashed.older.clone()),
        Damage::PutState(crashed.newer.clone()),
        Damage::RemoveProcessor,
    ]);
    let tries = damages.iter().map(|damage| survive(damage, &crashed, random.split()));
    let tries: Vec<_> = tries.collect();
    stream::iter(tries).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    drop(crashed.rivulet);
}

async fn survive(damage: &Damage, crashed: &Crashed, mut random: Random) {
    let mut rivulet = ready_in_time(damage, crashed).await;

    let lost = lost(damage, &crashed.sent, &rivulet).await;
    named(damage, lost, &rivulet).await;

    // The sender, who had no answer or is in doubt, sends all of it again: each counts once.
    for chunk in crashed.sent.chunks(100) {
        let answer = rivulet.client().send(events::array(chunk)).await;
        assert_eq!(answer.status, 200, "{damage:?}: {}", answer.text);
    }
    rivulet.client().send(events::product_view(&mut random, &of_user("c39"), "tea").to_string()).await;
    counted(&rivulet, "user:c39", "product_view", 1).await;
    let profile = rivulet.profile("user:c39").await.unwrap();
    assert_eq!(profile["counters"]["page_view"], crashed.sent.len(), "{damage:?}: {profile}");
    let (status, took) = rivulet.terminate(SOON).await;
    assert!(status.success() && took < STOP_WITHIN, "{damage:?}: {status} after {took:?}");
    assert!(!rivulet.stderr().contains("panicked"), "{damage:?}: {}", rivulet.stderr());
    eprintln!("C39: {damage:?}: ready after {:?}, {lost} lost, stopped after {took:?}", rivulet.ready_after);
}

/// A start on the damaged files, the best of a few: what a busy machine adds is not the program's.
async fn ready_in_time(damage: &Damage, crashed: &Crashed) -> Rivulet {
    let mut took = Vec::new();
    for _ in 0..STARTS {
        let mut rivulet = Rivulet::prepared(options());
        files::copy(&crashed.pristine, &rivulet.data());
        files::apply(&files::journal(&rivulet.data()), damage);
        rivulet.start().await;
        if rivulet.ready_after < READY_WITHIN {
            return rivulet;
        }
        took.push(rivulet.ready_after);
    }
    panic!("{damage:?}: never ready within {READY_WITHIN:?}: {took:?}");
}

/// How many events are no longer there; panics if that is more than was damaged, or somewhere else.
async fn lost(damage: &Damage, sent: &[Value], rivulet: &Rivulet) -> usize {
    let records = log::events(rivulet).await;
    let there: Vec<bool> =
        sent.iter().map(|event| log::find(&records, events::id(event)).is_some()).collect();
    let lost = there.iter().filter(|there| !**there).count();
    let first = there.iter().position(|there| !there).unwrap_or(there.len());
    let behind = there[first..].iter().skip_while(|there| !**there).all(|there| *there);
    assert!(behind, "{damage:?}: more than one hole: {there:?}");
    let (most, inside) = damage.costs();
    assert!(lost <= most, "{damage:?}: {lost} events lost, at most {most} were damaged");
    assert!(
        inside || first + lost == there.len(),
        "{damage:?}: a hole at {first} although only the end was damaged"
    );
    lost
}

/// Panics unless a gap is counted and named, and nothing is counted where nothing was lost.
async fn named(damage: &Damage, lost: usize, rivulet: &Rivulet) {
    // A lost end is known once the processor has said how far it had read, which readiness does not wait for.
    let mut counted = 0;
    let all = faults::until(SOON, async || {
        counted = usize::try_from(corrupted(rivulet).await).unwrap();
        (counted >= lost).then_some(())
    });
    assert!(all.await.is_some(), "{damage:?}: {lost} lost, {counted} counted");
    let said = rivulet.stderr();
    let named = said.lines().any(|line| line.contains("journal is damaged here") && line.contains("segment"));
    assert_eq!(named, damage.is_named(lost), "{damage:?}: {said}");
    if !named {
        assert_eq!(counted, 0, "{damage:?}: nothing is named");
    }
}

/// C39 under load: killed while it writes, torn, and killed again; what was answered before the tear is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_torn_at_a_kill_under_load_costs_at_most_itself_again_and_again() {
    let _timed = Timed::new("recovery: load");
    let mut random = Random::seeded("recovery: load");
    let mut rivulet = Rivulet::with(options()).await;
    let mut crowd = Sender::crowd(&mut random, 3, "torn");
    for _ in 0..3 {
        let client = rivulet.client();
        let load = join_all(crowd.iter_mut().map(|sender| sender.pump(&client)));
        assert!(faults::during(Duration::from_millis(200 + random.below(300)), load).await.is_none());
        rivulet.kill();
        // What a machine that loses power leaves behind the last fsync: nothing that was answered.
        let zeros = random.below(5_000);
        files::apply(&files::journal(&rivulet.data()), &Damage::ZerosBehind(zeros));
        rivulet.start().await;
        assert!(rivulet.ready_after < READY_WITHIN, "ready after {:?}", rivulet.ready_after);
    }
    let client = rivulet.client();
    for sender in &mut crowd {
        faults::eventually("everything is answered", SOON, async || {
            sender.settle(&client).await.then_some(())
        })
        .await;
    }
    let records = log::events(&rivulet).await;
    check_log(&crowd, &records);
    tests::oracle::check_profiles(&rivulet, &records, "torn").await;
    let (status, took) = rivulet.terminate(SOON).await;
    assert!(status.success() && took < STOP_WITHIN, "{status} after {took:?}");
}

/// A reader's own position that does not fit the log: older, it reads again; newer, its log has lost something, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_older_or_newer_than_the_log_count_nothing_twice_and_hide_nothing() {
    let _timed = Timed::new("recovery: positions");
    let mut random = Random::seeded("recovery: positions");
    let mut rivulet = Rivulet::with(options()).await;
    let mut total = 0;
    let mut send = async |rivulet: &Rivulet, count: usize| {
        let batch: Vec<Value> =
            (0..count).map(|_| events::page_view(&mut random, &of_user("place"))).collect();
        assert_eq!(rivulet.client().send(events::array(&batch)).await.status, 200);
        total += count;
        counted(rivulet, "user:place", "page_view", total).await;
    };
    send(&rivulet, 50).await;
    stop(&mut rivulet).await;
    let (data, before) = (rivulet.data(), rivulet.path("before"));
    files::copy(&data, &before);
    rivulet.start().await;
    send(&rivulet, 70).await;
    stop(&mut rivulet).await;

    // The processor's folder is one step older than the log.
    put_back(&before, &data, "processor");
    rivulet.start().await;
    counted(&rivulet, "user:place", "page_view", 120).await;
    send(&rivulet, 30).await;
    assert_eq!(corrupted(&rivulet).await, 0, "nothing is lost");
    stop(&mut rivulet).await;

    // The log is one step older than the processor: what it no longer holds is counted, and new events are not passed over.
    put_back(&before, &data, "log");
    rivulet.start().await;
    faults::eventually("what is lost is counted", SOON, async || {
        (corrupted(&rivulet).await >= 100).then_some(())
    })
    .await;
    assert!(rivulet.stderr().contains("journal is damaged here"), "{}", rivulet.stderr());
    send(&rivulet, 20).await;
    stop(&mut rivulet).await;
}

async fn stop(rivulet: &mut Rivulet) {
    let (status, took) = rivulet.terminate(SOON).await;
    assert!(status.success() && took < STOP_WITHIN, "{status} after {took:?}");
}

async fn corrupted(rivulet: &Rivulet) -> u64 {
    assert!(rivulet.ready_after < READY_WITHIN, "ready after {:?}", rivulet.ready_after);
    rivulet.client().get("/ready").await.unwrap().json["corrupted_records"].as_u64().unwrap()
}

fn put_back(from: &Path, to: &Path, folder: &str) {
    std::fs::remove_dir_all(to.join(folder)).unwrap();
    files::copy(&from.join(folder), &to.join(folder));
}
