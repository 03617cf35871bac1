//! Bytes that are not, or not quite, HTTP.

use tests::corpus;
use tests::faults::Timed;
use tests::log;
use tests::raw;
use tests::rivulet::Rivulet;

use super::{all, slim, well};

/// How a right request to take events begins.
const HEAD: &str = "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wk_dev\r\ncontent-type: application/json\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_http_does_not_reach_the_log_or_the_next_visitor() {
    let _timed = Timed::new("hostile: http");
    let mut rivulet = Rivulet::up().await;
    let cases = corpus::load("http.toml", "exchange", "name", &["send", "status", "cut"]);
    let address = rivulet.address();
    let tries = cases.iter().map(|case| async move {
        let bytes = corpus::expand_with(case.text("send").unwrap(), |mark| {
            assert_eq!(mark, "head");
            HEAD.into()
        });
        let (statuses, answer) = raw::exchange(address, &bytes, case.flag("cut", false)).await;
        let right = case.numbers("status");
        assert!(right.contains(&statuses[0]), "{}: {statuses:?} {answer}", case.name);
        assert!(statuses.iter().all(|status| *status < 500 || *status == 505), "{}: {answer}", case.name);
    });
    all(tries).await;
    assert!(log::events(&rivulet).await.is_empty(), "an event came through");
    well(&mut rivulet).await;
    eprintln!("{} exchanges", cases.len());
    slim(&rivulet);
}
