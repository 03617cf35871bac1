//! A polite stop: soon, and without losing what was answered.

use std::time::Duration;

use futures_util::future::join_all;
use tests::events::Random;
use tests::faults::{self, Timed};
use tests::log;
use tests::rivulet::Rivulet;
use tests::sender::{Sender, check_log};

/// How long a stop may take, with requests under way.
const STOP_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_within_five_seconds_and_loses_nothing_answered() {
    let _timed = Timed::new("drain");
    let mut random = Random::seeded("drain");
    let mut rivulet = Rivulet::up().await;
    let client = rivulet.client();
    let mut crowd = Sender::crowd(&mut random, 4, "drain");
    let load = tokio::spawn(async move {
        join_all(crowd.iter_mut().map(|sender| sender.pump(&client))).await;
        crowd
    });
    faults::lasting(Duration::from_millis(500)).await;
    let (status, took) = rivulet.terminate(STOP_WITHIN).await;
    eprintln!("stopped after {:.0} ms with {status}", took.as_secs_f64() * 1e3);
    assert!(status.success(), "ended with {status}");
    let crowd = faults::bounded("the senders notice", faults::SOON, load).await.unwrap();
    check_log(&crowd, &log::events(&rivulet).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_with_open_sockets_ends_within_five_seconds() {
    let _timed = Timed::new("drain: sockets");
    let mut rivulet = Rivulet::up().await;
    let (mut socket, _) = tests::socket::Socket::hello(rivulet.address(), None).await;
    let end = tokio::spawn(async move { socket.end().await });
    let (status, _) = rivulet.terminate(STOP_WITHIN).await;
    assert!(status.success(), "ended with {status}");
    faults::bounded("the socket ends", faults::SOON, end).await.unwrap();
}
