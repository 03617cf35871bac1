//! The socket: batches up, verdicts and decisions down, cut anywhere.

use std::collections::HashMap;

use serde_json::{Value, json};
use tests::events::{self, Random, of_device};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::Rivulet;
use tests::socket::{Received, Socket};
use tokio_tungstenite::tungstenite::Message;

const TOO_LARGE: u16 = 1009;
const NOT_UTF8: u16 = 1007;
const TRY_LATER: u16 = 1013;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_batch_is_acked_with_its_verdicts_in_order() {
    let _timed = Timed::new("websocket: acks");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("websocket: acks");
    let (mut socket, hello) = Socket::hello(rivulet.address(), None).await;
    assert_eq!(hello["resumed"], 0, "{hello}");
    assert!(hello["credit"].as_u64().is_some_and(|credit| credit > 0), "{hello}");
    assert!(hello["limits"]["event_bytes"].as_u64().is_some_and(|limit| limit >= 1024), "{hello}");

    let good = events::page_view(&mut random, &of_device("ws-1"));
    let mut bad = events::add_to_cart(&mut random, &of_device("ws-1"));
    bad["metadata"]["quantity"] = json!("two");
    let ack = socket.acked(1, &[good.clone(), bad.clone()]).await;
    assert_eq!(ack["events"].as_array().map(Vec::len), Some(2), "{ack}");
    assert_eq!(ack["events"][0]["status"], "accepted", "{ack}");
    assert_eq!(ack["events"][0]["acked"], "disk", "{ack}");
    assert_eq!(ack["events"][0]["event_id"], good["event_id"], "{ack}");
    assert_eq!(ack["events"][1]["status"], "rejected", "{ack}");
    assert_eq!(ack["events"][1]["reason"]["pointer"], "/metadata/quantity", "{ack}");
    assert_eq!(ack["cumulative"], 1, "{ack}");

    for seq in 2..=4 {
        socket.batch(seq, &[events::page_view(&mut random, &of_device("ws-1"))]).await;
    }
    let mut highest = 0;
    for _ in 2..=4 {
        highest = highest.max(socket.expect("ack").await["cumulative"].as_u64().unwrap());
    }
    assert_eq!(highest, 4);
    socket.send(&json!({ "type": "ping" })).await;
    assert!(socket.expect("pong").await["server_time"].is_i64());
    assert_eq!(log::events(&rivulet).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_cut_at_any_moment_goes_on_and_each_event_counts_once() {
    let _timed = Timed::new("websocket: resume");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("websocket: resume");
    let batches: Vec<Vec<Value>> = (0..30)
        .map(|_| (0..3).map(|_| events::page_view(&mut random, &of_device("ws-cut"))).collect())
        .collect();
    // Batches answered, and how many had been when the present session began: its `seq` 1 is the batch behind them.
    let (mut answered, mut base) = (0, 0);
    let mut session: Option<String> = None;
    while answered < batches.len() {
        let (mut socket, hello) = Socket::hello(rivulet.address(), session.as_deref()).await;
        let resumed = usize::try_from(hello["resumed"].as_u64().unwrap()).unwrap();
        if session.as_deref() != Some(socket.session.as_str()) {
            base = answered;
        }
        assert!(base + resumed >= answered, "the server forgot what it had answered: {hello}");
        answered = base + resumed;
        session = Some(socket.session.clone());
        let until = (answered + 1 + usize::try_from(random.below(6)).unwrap()).min(batches.len());
        for (place, batch) in batches.iter().enumerate().take(until).skip(answered) {
            socket.batch((place - base + 1) as u64, batch).await;
        }
        // Some acks are read, some are lost in the cut.
        for _ in 0..random.below(3).min((until - answered) as u64) {
            let ack = socket.expect("ack").await;
            let cumulative = usize::try_from(ack["cumulative"].as_u64().unwrap()).unwrap();
            answered = answered.max(base + cumulative);
        }
        socket.cut();
    }
    let total = batches.iter().flatten().count();
    let profile = faults::until(SOON, async || {
        rivulet.profile("anonymous:ws-cut").await.filter(|profile| profile["counters"]["page_view"] == total)
    });
    let records = log::events(&rivulet).await;
    assert!(profile.await.is_some(), "of {total}: {:?}", rivulet.profile("anonymous:ws-cut").await);
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (place, record) in records.iter().enumerate() {
        seen.entry(record.event_id()).or_insert(place);
    }
    let order: Vec<usize> = batches.iter().flatten().map(|event| seen[events::id(event)]).collect();
    assert!(order.is_sorted(), "first occurrences are not in the order sent: {order:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_comes_back_on_the_socket_whose_events_caused_it_and_on_no_other() {
    let _timed = Timed::new("websocket: decision");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("websocket: decision");
    let (mut visitor, _) = Socket::hello(rivulet.address(), None).await;
    let (mut other, _) = Socket::hello(rivulet.address(), None).await;
    other.acked(1, &[events::product_view(&mut random, &of_device("ws-other"), "shoes")]).await;
    let views: Vec<Value> =
        (0..3).map(|_| events::product_view(&mut random, &of_device("ws-buyer"), "shoes")).collect();
    for (seq, view) in (1..).zip(&views) {
        visitor.acked(seq, std::slice::from_ref(view)).await;
    }
    let decision = visitor.expect("decision").await["decision"].clone();
    assert_eq!(decision["slot"], "home_banner", "{decision}");
    assert_eq!(decision["subject"], "anonymous:ws-buyer", "{decision}");
    assert_eq!(decision["trigger"], views[2]["event_id"], "{decision}");
    for member in ["decision_id", "rule", "version", "score"] {
        assert!(!decision[member].is_null(), "no {member}: {decision}");
    }
    let record = faults::eventually("the decision is on its topic", SOON, async || {
        log::cat(&rivulet, "rivulet.decisions").await.into_iter().find(|record| record.key == "ws-buyer")
    });
    assert_eq!(record.await.value["decision_id"], decision["decision_id"]);

    // A fourth view decides nothing new: at most once a day. A ping behind it shows what came before.
    visitor.acked(4, &[events::product_view(&mut random, &of_device("ws-buyer"), "shoes")]).await;
    faults::eventually("the fourth view is counted", SOON, async || {
        rivulet.profile("anonymous:ws-buyer").await.filter(|profile| profile["counters"]["product_view"] == 4)
    })
    .await;
    for socket in [&mut visitor, &mut other] {
        socket.send(&json!({ "type": "ping" })).await;
        loop {
            match socket.next().await {
                Received::Frame(frame) if frame["type"] == "pong" => break,
                Received::Frame(frame) => assert_ne!(frame["type"], "decision", "{frame}"),
                unexpected => panic!("{unexpected:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_made_while_the_connection_was_cut_reaches_the_resumed_session() {
    let _timed = Timed::new("websocket: decision after a cut");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("websocket: decision after a cut");
    let (mut socket, _) = Socket::hello(rivulet.address(), None).await;
    let views: Vec<Value> =
        (0..3).map(|_| events::product_view(&mut random, &of_device("ws-back"), "lamps")).collect();
    socket.batch(1, &views).await;
    let session = socket.session.clone();
    socket.cut();
    faults::eventually("the decision is made", SOON, async || {
        log::cat(&rivulet, "rivulet.decisions").await.into_iter().find(|record| record.key == "ws-back")
    })
    .await;
    let (mut socket, hello) = Socket::hello(rivulet.address(), Some(&session)).await;
    assert_eq!(hello["session"], session.as_str(), "the session is resumed");
    let decision = socket.expect("decision").await["decision"].clone();
    assert_eq!(decision["trigger"], views[2]["event_id"], "{decision}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_frames_of_one_byte_with_pings_between_is_one_message() {
    let _timed = Timed::new("websocket: fragments");
    let rivulet = Rivulet::up().await;
    let (mut socket, _) = Socket::hello(rivulet.address(), None).await;
    let mut event = events::page_view(&mut Random::new(7), &of_device("ws-bytes"));
    event["metadata"]["title"] = json!("cut 😀 here");
    let text =
        json!({ "type": "batch", "seq": 1, "sent_at": events::now_millis(), "events": [event] }).to_string();
    let bytes = text.as_bytes();
    let mut pings = 0_u32;
    for (place, byte) in bytes.iter().enumerate() {
        assert!(socket.raw(Socket::fragment(&[*byte], place == 0, place + 1 == bytes.len())).await);
        if place % 3 == 2 && place + 1 < bytes.len() {
            assert!(socket.raw(Message::Ping(pings.to_be_bytes().to_vec().into())).await);
            assert_eq!(
                socket.next().await,
                Received::Pong(pings.to_be_bytes().to_vec()),
                "a ping between fragments"
            );
            pings += 1;
        }
    }
    let ack = socket.expect("ack").await;
    assert_eq!(ack["events"][0]["status"], "accepted", "{ack}");
    let records = log::events(&rivulet).await;
    assert!(records[0].line.contains("cut 😀 here"), "{}", records[0].line);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_compressed_both_ways_once_hello_has_agreed() {
    let _timed = Timed::new("websocket: compressed frames");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("websocket: compressed frames");
    let batch: Vec<Value> =
        (0..50).map(|_| events::page_view(&mut random, &of_device("ws-packed"))).collect();
    let frame =
        json!({ "type": "batch", "seq": 1, "sent_at": events::now_millis(), "events": batch }).to_string();
    let packed = Message::binary(tests::client::gzip(frame.as_bytes()));

    let mut socket = Socket::open(rivulet.address(), "", None).await.unwrap();
    socket.send(&json!({ "type": "hello", "key": "wk_dev", "compression": ["gzip", "zstd"] })).await;
    assert_eq!(socket.expect("hello").await["compression"], "gzip");
    assert!(socket.raw(packed.clone()).await);
    let Received::Packed(ack) = socket.next().await else {
        panic!("the answer is long enough to be compressed")
    };
    assert!(ack["events"].as_array().unwrap().iter().all(|verdict| verdict["status"] == "accepted"), "{ack}");
    assert_eq!(log::events(&rivulet).await.len(), batch.len());

    let (mut plain, hello) = Socket::hello(rivulet.address(), None).await;
    assert!(hello["compression"].is_null(), "{hello}");
    assert!(plain.raw(packed).await);
    assert_eq!(plain.end().await, Some(1003), "nobody agreed on binary messages");
    socket.raw(Message::binary(b"no gzip".to_vec())).await;
    assert_eq!(socket.expect("error").await["code"], "body.compression");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_too_large_or_not_text_close_their_own_socket_and_no_other() {
    let _timed = Timed::new("websocket: limits");
    let mut rivulet = Rivulet::up().await;
    let (mut neighbour, hello) = Socket::hello(rivulet.address(), None).await;
    let limit = usize::try_from(hello["limits"]["batch_bytes"].as_u64().unwrap()).unwrap();

    let (mut socket, _) = Socket::hello(rivulet.address(), None).await;
    socket.raw(Message::text("x".repeat(limit + 64 * 1024))).await;
    assert_eq!(socket.end().await, Some(TOO_LARGE), "one frame above the limit");

    let (mut socket, _) = Socket::hello(rivulet.address(), None).await;
    let piece = vec![b' '; 64 * 1024];
    let mut sent = 0;
    while sent < 4 * limit && socket.raw(Socket::fragment(&piece, sent == 0, false)).await {
        sent += piece.len();
    }
    assert_eq!(socket.end().await, Some(TOO_LARGE), "fragments without end");

    let (mut socket, _) = Socket::hello(rivulet.address(), None).await;
    socket.acked(1, &[events::page_view(&mut Random::new(8), &of_device("ws-half"))]).await;
    socket.raw(Socket::fragment("{\"type\":\"😀".as_bytes(), true, false)).await;
    socket.raw(Socket::fragment(&"😀".as_bytes()[..2], false, true)).await;
    assert_eq!(socket.end().await, Some(NOT_UTF8), "a message that ends inside a character");

    let (mut socket, _) = Socket::hello(rivulet.address(), None).await;
    socket.raw(Message::text("{\"type\":\"batch\",\"seq\":1,")).await;
    let error = socket.expect("error").await;
    assert!(error["code"].is_string(), "{error}");

    let ack = neighbour.acked(1, &[events::page_view(&mut Random::new(9), &of_device("ws-near"))]).await;
    assert_eq!(ack["events"][0]["status"], "accepted", "{ack}");
    assert_eq!(log::events(&rivulet).await.len(), 2, "what was acked stays");
    let peak = rivulet.memory_kib("VmHWM");
    assert!(peak < 256 * 1024, "{peak} KiB at its worst");
    rivulet.assert_alive();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_origins_are_checked_before_anything_is_taken() {
    let _timed = Timed::new("websocket: keys");
    let rivulet = Rivulet::up().await;
    let foreign = Socket::open(rivulet.address(), "?key=wk_dev", Some("https://evil.example")).await;
    assert!(foreign.is_err(), "a foreign page opened a socket");
    let secret = Socket::open(rivulet.address(), "?key=sk_dev", None).await;
    assert!(secret.is_err(), "a secret key travelled in a URL");
    Socket::open(rivulet.address(), "?key=wk_dev", Some("http://localhost:3000"))
        .await
        .expect("an allowed page");

    let mut wrong = Socket::open(rivulet.address(), "", None).await.unwrap();
    wrong.send(&json!({ "type": "hello", "key": "wk_wrong" })).await;
    assert_eq!(wrong.expect("error").await["code"], "key.unknown");
    let mut hasty = Socket::open(rivulet.address(), "", None).await.unwrap();
    hasty.batch(1, &[events::page_view(&mut Random::new(10), &of_device("ws-hasty"))]).await;
    assert!(hasty.expect("error").await["code"].is_string());
    // Nobody says hello for him: the server ends it by itself.
    let mut silent = Socket::open(rivulet.address(), "", None).await.unwrap();
    silent.end().await;
    assert!(log::events(&rivulet).await.is_empty());
}

/// C13: a limit that looked at single frames would let these grow without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_messages_without_end_are_closed_at_the_limit_within_bounded_memory_and_unnoticed() {
    const SOCKETS: usize = 50;
    let _timed = Timed::new("websocket: without end");
    let mut rivulet = Rivulet::up().await;
    let (mut neighbour, hello) = Socket::hello(rivulet.address(), None).await;
    let limit = usize::try_from(hello["limits"]["batch_bytes"].as_u64().unwrap()).unwrap();
    let address = rivulet.address().to_owned();
    let endless = (0..SOCKETS).map(|_| {
        let address = address.clone();
        tokio::spawn(async move {
            let (mut socket, _) = Socket::hello(&address, None).await;
            let piece = vec![b' '; 64 * 1024];
            let mut sent = 0;
            while sent < 2 * limit && socket.raw(Socket::fragment(&piece, sent == 0, false)).await {
                sent += piece.len();
            }
            (socket.end().await, sent)
        })
    });
    let endless: Vec<_> = endless.collect();
    let mut random = Random::seeded("websocket: without end");
    let (mut seq, mut slowest) = (0, std::time::Duration::ZERO);
    while !endless.iter().all(tokio::task::JoinHandle::is_finished) {
        seq += 1;
        let start = std::time::Instant::now();
        let ack = neighbour.acked(seq, &[events::page_view(&mut random, &of_device("ws-near"))]).await;
        assert_eq!(ack["events"][0]["status"], "accepted", "{ack}");
        let rest =
            rivulet.client().send(events::page_view(&mut random, &of_device("ws-rest")).to_string()).await;
        assert_eq!(rest.status, 200, "a request beside them: {}", rest.text);
        slowest = slowest.max(start.elapsed());
    }
    let mut codes: HashMap<Option<u16>, usize> = HashMap::new();
    for socket in endless {
        let (code, sent) = socket.await.unwrap();
        assert!(sent <= 2 * limit, "{sent} bytes were taken");
        *codes.entry(code).or_default() += 1;
    }
    let peak = rivulet.memory_kib("VmHWM");
    eprintln!(
        "closed with {codes:?}; neighbours answered {seq} times, in {slowest:?} at most; peak {peak} KiB"
    );
    let told = |code| codes.get(&Some(code)).copied().unwrap_or(0);
    assert_eq!(told(TOO_LARGE) + told(TRY_LATER), SOCKETS, "{codes:?}");
    assert!(told(TOO_LARGE) > 0, "none came to the limit: {codes:?}");
    assert!(peak < 256 * 1024, "{peak} KiB at its worst");
    faults::eventually("the closed ones are gone", SOON, async || {
        rivulet.metric("rivulet_gateway_sockets", &[]).await.filter(|sockets| *sockets == 1)
    })
    .await;
    rivulet.assert_alive();
}
