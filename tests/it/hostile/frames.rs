//! Frames that break the rules of the WebSocket, or of the protocol on it.

use serde_json::Value;
use tests::corpus::{self, Case};
use tests::faults::Timed;
use tests::log;
use tests::raw::{self, RawSocket};
use tests::rivulet::Rivulet;
use tests::socket::Socket;

use super::{all, slim, well};

const TEXT: u8 = 0x81;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_breaks_the_rules_is_closed_with_a_code_and_no_other_notices() {
    let _timed = Timed::new("hostile: frames");
    let mut rivulet = Rivulet::up().await;
    let cases = corpus::load("frames.toml", "conversation", "name", &["hello", "frames", "close"]);
    let (mut neighbour, _) = Socket::hello(rivulet.address(), None).await;
    let address = rivulet.address();
    all(cases.iter().map(|case| converse(case, address))).await;
    let event =
        tests::events::page_view(&mut tests::events::Random::new(51), &tests::events::of_user("near"));
    let ack = neighbour.acked(1, &[event]).await;
    assert_eq!(ack["events"][0]["status"], "accepted", "{ack}");
    assert_eq!(log::events(&rivulet).await.len(), 1, "an event came through");
    well(&mut rivulet).await;
    eprintln!("{} conversations", cases.len());
    slim(&rivulet);
}

async fn converse(case: &Case, address: &str) {
    let name = &case.name;
    let mut socket = RawSocket::open(address).await;
    if case.flag("hello", true) {
        socket.send(&raw::frame(TEXT, br#"{"type":"hello","key":"wk_dev"}"#)).await;
        let hello = socket.text().await.unwrap_or_else(|| panic!("{name}: no hello"));
        assert!(hello.contains("\"hello\""), "{name}: {hello}");
    }
    for (first, payload) in case.pairs("frames") {
        let payload = corpus::expand(payload);
        let bytes = match u8::from_str_radix(first, 16) {
            Ok(first) => raw::frame(first, &payload),
            Err(_) => payload,
        };
        // It may be closed before all is said.
        if !socket.send(&bytes).await {
            break;
        }
    }
    let close = case.numbers("close");
    if close.is_empty() {
        // It goes on: an answer to the last frame, and to one more.
        for _ in 0..2 {
            let answer = socket.text().await.unwrap_or_else(|| panic!("{name}: closed"));
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_ne!(answer["type"], "error", "{name}: {answer}");
            socket.send(&raw::frame(TEXT, br#"{"type":"ping"}"#)).await;
        }
        return;
    }
    let code = socket.closed().await;
    assert!(code.is_some_and(|code| close.contains(&code)), "{name}: closed with {code:?}");
}
