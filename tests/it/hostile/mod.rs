//! Whatever comes in: a clear refusal or a verdict, never a fault of ours, and the next event is taken as if nothing had been.
//!
//! What comes in stands in the tables of `tests/hostile`; the modules send them and look at the answers.

mod events;
mod frames;
mod http;
mod requests;

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use tests::events::Random;
use tests::rivulet::Rivulet;

/// The most memory the program may have needed at its worst moment here.
const PEAK_BELOW_KIB: u64 = 256 * 1024;

/// Cases under way at once.
const AT_ONCE: usize = 8;

/// Panics unless the program lives, has had no panic, and takes the next event.
pub(crate) async fn well(rivulet: &mut Rivulet) {
    let event = tests::events::page_view(&mut Random::new(6), &tests::events::of_user("well"));
    let answer = rivulet.client().send(event.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    rivulet.assert_alive();
    let log = rivulet.stderr();
    assert!(!log.contains("panicked"), "something panicked: {log}");
    assert_eq!(rivulet.metric("rivulet_gateway_panics_total", &[]).await, Some(0), "something panicked");
}

/// Runs all cases, some at once, so that one run shows every one that fails; then panics if any did.
async fn all<T>(cases: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let cases = cases.into_iter().map(|case| AssertUnwindSafe(case).catch_unwind());
    let outcomes: Vec<_> = stream::iter(cases).buffer_unordered(AT_ONCE).collect().await;
    let (count, passed) = (outcomes.len(), outcomes.into_iter().filter_map(Result::ok).collect::<Vec<T>>());
    assert_eq!(passed.len(), count, "{} cases fail, see above", count - passed.len());
    passed
}

/// Panics if the program ever needed more memory than it may.
fn slim(rivulet: &Rivulet) {
    let peak = rivulet.memory_kib("VmHWM");
    eprintln!("peak {peak} KiB");
    assert!(peak < PEAK_BELOW_KIB, "{peak} KiB at its worst");
}
