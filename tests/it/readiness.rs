//! Ready at once, small when idle.

use std::time::Duration;

use serde_json::json;
use tests::faults::{self, Timed};
use tests::rivulet::{Options, Rivulet};

/// From the start on an empty folder to the first 200 of `/ready`.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// Starts of which one must be as fast as promised: what a busy machine adds is not the program's.
const STARTS: usize = 8;

/// A start on a folder with something in it; nothing is promised but that it comes.
const READY_AGAIN_WITHIN: Duration = Duration::from_secs(5);

/// Idle memory.
const RSS_BELOW_KIB: u64 = 64 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_within_a_second_of_a_start_on_an_empty_folder_and_small_when_idle() {
    let _timed = Timed::new("readiness");
    let mut rivulet = ready_in_time(&Options::default()).await;
    let ready = rivulet.client().keyless().get("/ready").await.unwrap();
    assert_eq!(ready.status, 200);
    let parts = json!({
        "status": "ready", "admitting": true, "disk": "ok", "broker": "none",
        "spool": { "records": 0, "bytes": 0 }, "corrupted_records": 0,
    });
    for (part, right) in parts.as_object().unwrap() {
        assert_eq!(ready.json[part], *right, "{part}: {}", ready.text);
    }
    assert_eq!(rivulet.client().keyless().get("/live").await.unwrap().status, 200);
    idle(&mut rivulet).await;
}

/// A program on an empty folder that was ready in time, the best of a few.
pub(crate) async fn ready_in_time(options: &Options) -> Rivulet {
    let mut took = Vec::new();
    for _ in 0..STARTS {
        let rivulet = Rivulet::with(options.clone()).await;
        eprintln!("ready after {:.0} ms", rivulet.ready_after.as_secs_f64() * 1e3);
        if rivulet.ready_after < READY_WITHIN {
            return rivulet;
        }
        took.push(rivulet.ready_after);
    }
    panic!("never ready within {READY_WITHIN:?}: {took:?}");
}

/// Panics unless the program is small after one second in which nobody asks anything.
pub(crate) async fn idle(rivulet: &mut Rivulet) {
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
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(told.contains("in use by another process"), "says why: {told}");
    assert!(told.contains(&*data.to_string_lossy()) && told.contains("--data"), "names the folder: {told}");
    let answer = rivulet.client().keyless().get("/ready").await.unwrap();
    assert_eq!(answer.status, 200, "the first one goes on: {}", answer.text);
    rivulet.kill();
    rivulet.start().await;
    assert!(rivulet.ready_after < READY_AGAIN_WITHIN, "ready only after {:?}", rivulet.ready_after);
}
