//! Whatever a crash left of the files: the next start is ready, keeps what is whole, and says what is not.

use serde_json::Value;
use tests::damage::{self as files, Damage};
use tests::events::{self, Random, of_user};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::{Options, Rivulet};

/// C39: whatever a crash left of the files, the next start is ready, keeps what is whole and stops when asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torn_and_missing_files_cost_what_they_held_and_never_a_start() {
    let _timed = Timed::new("C39");
    let mut random = Random::seeded("C39");
    let mut rivulet =
        Rivulet::with(Options::default().set("log", "segment_bytes", 65_536).set("log", "partitions", 2))
            .await;
    let sent: Vec<Value> = (0..300).map(|_| events::page_view(&mut random, &of_user("c39"))).collect();
    for event in &sent {
        assert_eq!(rivulet.client().send(event.to_string()).await.status, 200);
    }
    rivulet.kill();
    let journal = files::journal(&rivulet.data());
    files::copy(&rivulet.data(), &rivulet.path("pristine"));
    assert!(files::segments(&journal).len() >= 3, "several segments are needed");

    let cuts = [1, 7, 33, 64, 700]
        .map(|bytes| (format!("the last segment is {bytes} bytes short"), Damage::Cut(bytes)));
    let others = [
        ("the last segment is empty", Damage::Empty),
        ("zeros follow the last record", Damage::ZerosBehind(512)),
        ("the end of the last segment is zeros", Damage::ZerosOver(100)),
        ("the newest finished segment is gone", Damage::RemoveFinished),
        ("a byte in the middle is flipped", Damage::Flip),
        ("the state file is gone", Damage::RemoveState),
        ("the indexes are gone", Damage::RemoveIndexes),
    ];
    for (name, damage) in cuts.into_iter().chain(others.map(|(name, damage)| (name.to_owned(), damage))) {
        std::fs::remove_dir_all(rivulet.data()).unwrap();
        files::copy(&rivulet.path("pristine"), &rivulet.data());
        files::apply(&journal, &damage);
        rivulet.start().await;
        assert!(rivulet.ready_after.as_secs() < 5, "{name}: ready after {:?}", rivulet.ready_after);

        let records = log::events(&rivulet).await;
        let kept: Vec<usize> = sent
            .iter()
            .enumerate()
            .filter(|(_, event)| log::find(&records, events::id(event)).is_some())
            .map(|(place, _)| place)
            .collect();
        let lost = sent.len() - kept.len();
        let hole = kept.iter().enumerate().find(|(n, place)| n != *place).map_or(kept.len(), |(n, _)| n);
        assert!(
            kept[hole..].windows(2).all(|pair| pair[1] == pair[0] + 1),
            "{name}: more than one hole: {kept:?}"
        );
        let (most, inside) = damage.costs();
        assert!(lost <= most, "{name}: {lost} events lost, at most {most} were damaged");
        assert!(inside || hole == kept.len(), "{name}: a hole at {hole} although only the end was damaged");

        // The sender, who had no answer or is in doubt, sends all of it again: each counts once.
        for chunk in sent.chunks(100) {
            assert_eq!(rivulet.client().send(events::array(chunk)).await.status, 200, "{name}");
        }
        rivulet.client().send(events::product_view(&mut random, &of_user("c39"), "tea").to_string()).await;
        let profile = faults::until(SOON, async || {
            rivulet.profile("user:c39").await.filter(|profile| profile["counters"]["product_view"] == 1)
        });
        let profile = profile.await.unwrap_or_else(|| panic!("{name}: the processor stands still"));
        assert_eq!(profile["counters"]["page_view"], sent.len(), "{name}: {profile}");
        let (status, took) = rivulet.terminate(SOON).await;
        assert!(status.success() && took.as_secs_f64() < 5.0, "{name}: {status} after {took:?}");
        eprintln!("C39: {name}: ready after {:?}, {lost} lost, stopped after {took:?}", rivulet.ready_after);
    }
}
