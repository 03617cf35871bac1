//! Ready at once, small when idle.

use std::time::Duration;

use tests::faults::{self, Timed};
use tests::rivulet::Rivulet;

/// On an idle machine it is well below a second; the bound leaves room for a busy one.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// Idle memory.
const RSS_BELOW_KIB: u64 = 64 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_soon_after_a_start_on_an_empty_folder_and_small_when_idle() {
    let _timed = Timed::new("readiness");
    let mut rivulet = Rivulet::up().await;
    eprintln!("ready after {:.0} ms", rivulet.ready_after.as_secs_f64() * 1e3);
    assert!(rivulet.ready_after < READY_WITHIN, "ready only after {:?}", rivulet.ready_after);

    let ready = rivulet.client().keyless().get("/ready").await.unwrap();
    assert_eq!(ready.status, 200);
    assert!(ready.json.is_object(), "/ready names its parts in JSON: {}", ready.text);
    assert_eq!(rivulet.client().keyless().get("/live").await.unwrap().status, 200);

    // Idle: one second in which nobody asks anything.
    faults::lasting(Duration::from_secs(1)).await;
    let [rss, anon, file] = ["VmRSS", "RssAnon", "RssFile"].map(|field| rivulet.memory_kib(field));
    eprintln!("idle: {rss} KiB resident, of it {anon} KiB own and {file} KiB mapped files");
    assert!(rss < RSS_BELOW_KIB, "idle with {rss} KiB");
    rivulet.assert_alive();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_again_on_its_own_folder_and_never_twice_on_one() {
    let _timed = Timed::new("restart");
    let mut rivulet = Rivulet::up().await;
    let data = rivulet.data();
    let second = rivulet.run(&["up", "--listen", "127.0.0.1:0", "--data", &data.to_string_lossy()]).await;
    assert!(!second.status.success(), "a second program took a folder in use");
    assert!(!second.stderr.is_empty(), "the refusal says why");
    rivulet.kill();
    rivulet.start().await;
    assert!(rivulet.ready_after < READY_WITHIN, "ready only after {:?}", rivulet.ready_after);
}
