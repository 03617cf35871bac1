//! The protocol on real sockets.

use std::net::SocketAddr;

use broker::log::{Log as _, NewRecord};
use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use schemas::topic::Topic;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use schemas::verdict::AckLevel;

use super::ending::{CLOSE_FRAME, CLOSE_NOT_UTF8, CLOSE_TOO_LARGE, CLOSE_UNSUPPORTED};
use super::*;
use crate::config::SocketConfig;
use crate::testing::{Stand, stand};
use crate::{GatewayConfig, ServerConfig, server};

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn start(config: GatewayConfig) -> (Stand, SocketAddr) {
    let stand = stand(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = stand.gateway.router();
    tokio::spawn(server::serve(listener, router, ServerConfig::default(), std::future::pending()));
    (stand, address)
}

async fn open(address: SocketAddr, query: &str, origin: Option<&str>) -> Result<Stream, u16> {
    let mut request = format!("ws://{address}/v1/stream{query}").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", HeaderValue::from_str(origin).unwrap());
    }
    match connect_async(request).await {
        Ok((stream, response)) => {
            assert_eq!(response.headers()["sec-websocket-protocol"], SUBPROTOCOL);
            Ok(stream)
        }
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn say_json(stream: &mut Stream, frame: Value) {
    stream.send(Message::text(frame.to_string())).await.unwrap();
}

/// The next frame, or the close code.
async fn next(stream: &mut Stream) -> Result<Value, Option<u16>> {
    loop {
        match tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("something comes") {
            Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(close))) => return Err(close.map(|close| close.code.into())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(None),
        }
    }
}

async fn hello(address: SocketAddr, resume: Option<&str>) -> (Stream, Value) {
    let mut stream = open(address, "", None).await.unwrap();
    let mut frame = json!({"type": "hello", "key": "wk_dev", "sdk": "test/1"});
    if let Some(resume) = resume {
        frame["resume"] = json!(resume);
    }
    say_json(&mut stream, frame).await;
    let answer = next(&mut stream).await.unwrap();
    assert_eq!(answer["type"], "hello", "{answer}");
    (stream, answer)
}

fn event(n: u8) -> Value {
    let id = schemas::id::EventId::from_bytes([n; 16]);
    json!({"event_id": id, "event_type": "page_view", "anonymous_id": "a", "metadata": {"title": "t"}})
}

fn batch(seq: u64, events: &[Value]) -> Value {
    json!({"type": "batch", "seq": seq, "sent_at": 1_714_054_990_000_i64, "events": events})
}

async fn end(stream: &mut Stream) -> (Option<String>, Option<u16>) {
    let mut code = None;
    loop {
        match next(stream).await {
            Ok(frame) if frame["type"] == "error" => code = frame["code"].as_str().map(str::to_owned),
            Ok(_) => {}
            Err(close) => return (code, close),
        }
    }
}

#[tokio::test]
async fn batches_are_acked_in_order_with_verdicts_and_pings_are_answered() {
    let (stand, address) = start(GatewayConfig::default()).await;
    let (mut stream, answer) = hello(address, None).await;
    assert_eq!((&answer["resumed"], &answer["credit"]), (&json!(0), &json!(8)));
    assert_eq!(answer["limits"]["event_bytes"], 65_536);
    let mut bad = event(2);
    bad["event_type"] = json!("rivulet.merge");
    say_json(&mut stream, batch(1, &[event(1), bad])).await;
    say_json(&mut stream, batch(2, &[event(1)])).await;
    say_json(&mut stream, json!({"type": "ping"})).await;
    say_json(&mut stream, batch(3, &[])).await;
    let ack = next(&mut stream).await.unwrap();
    assert_eq!(
        (&ack["type"], &ack["seq"], &ack["cumulative"]),
        (&json!("ack"), &json!(1), &json!(1)),
        "{ack}"
    );
    assert_eq!(
        (&ack["events"][0]["status"], &ack["events"][0]["acked"]),
        (&json!("accepted"), &json!("disk"))
    );
    assert_eq!(ack["events"][1]["reason"]["code"], "event.type_reserved");
    let ack = next(&mut stream).await.unwrap();
    assert_eq!((&ack["seq"], &ack["events"][0]["status"]), (&json!(2), &json!("duplicate")));
    assert_eq!(next(&mut stream).await.unwrap()["type"], "pong");
    assert_eq!(next(&mut stream).await.unwrap()["cumulative"], 3);
    assert_eq!(stand.log.records(Topic::Events).len(), 1);
}

#[tokio::test]
async fn keys_and_origins_are_checked_at_the_upgrade_and_in_hello() {
    let (_stand, address) = start(GatewayConfig::default()).await;
    assert_eq!(open(address, "?key=wk_dev", Some("https://evil.example")).await.err(), Some(403));
    assert_eq!(open(address, "?key=sk_dev", None).await.err(), Some(401));
    assert_eq!(open(address, "?key=wk_no", None).await.err(), Some(401));
    let mut stream = open(address, "?key=wk_dev", Some("http://localhost:1")).await.unwrap();
    say_json(&mut stream, json!({"type": "hello"})).await;
    assert_eq!(next(&mut stream).await.unwrap()["type"], "hello");
    for (frame, code, close) in [
        (json!({"type": "hello", "key": "wk_no"}), "key.unknown", CLOSE_KEY),
        (json!({"type": "hello"}), "key.missing", CLOSE_KEY),
        (batch(1, &[event(1)]), "frame.invalid", CLOSE_FRAME),
        (json!({"type": "what"}), "frame.invalid", CLOSE_FRAME),
        (json!({"type": "hello", "key": 7}), "frame.invalid", CLOSE_FRAME),
    ] {
        let mut stream = open(address, "", None).await.unwrap();
        say_json(&mut stream, frame.clone()).await;
        assert_eq!(end(&mut stream).await, (Some(code.to_owned()), Some(close)), "{frame}");
    }
    let plain = reqwestless_get(address).await;
    assert!(plain.starts_with("HTTP/1.1 400"), "{plain}");
}

/// A plain GET of the path.
async fn reqwestless_get(address: SocketAddr) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /v1/stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn frames_that_are_none_close_the_socket_and_what_was_acked_stays() {
    let (stand, address) = start(GatewayConfig::default()).await;
    let many = batch(2, &vec![json!({}); 2_501]).to_string();
    for (text, code) in [
        ("{\"type\":\"batch\",\"seq\":2,".to_owned(), "frame.invalid"),
        ("[{}]".to_owned(), "frame.invalid"),
        ("{\"type\":\"batch\",\"events\":[{}]}".to_owned(), "frame.invalid"),
        ("{\"type\":\"batch\",\"seq\":-1,\"events\":[{}]}".to_owned(), "frame.invalid"),
        ("{\"type\":\"batch\",\"seq\":2,\"ack\":\"heaven\",\"events\":[{}]}".to_owned(), "frame.invalid"),
        ("{\"type\":\"hello\",\"key\":\"wk_dev\"}".to_owned(), "frame.invalid"),
        (many, "batch.too_many_events"),
    ] {
        let (mut stream, _) = hello(address, None).await;
        say_json(&mut stream, batch(1, &[event(1)])).await;
        stream.send(Message::text(text.clone())).await.unwrap();
        assert_eq!(next(&mut stream).await.unwrap()["type"], "ack");
        assert_eq!(end(&mut stream).await, (Some(code.to_owned()), Some(CLOSE_FRAME)), "{text:.60}");
    }
    let (mut stream, _) = hello(address, None).await;
    stream.send(Message::binary(b"x".to_vec())).await.unwrap();
    assert_eq!(end(&mut stream).await.1, Some(CLOSE_UNSUPPORTED));
    assert_eq!(stand.log.records(Topic::Events).len(), 1);
}

fn fragment(bytes: &[u8], first: bool, last: bool) -> Message {
    let opcode = OpCode::Data(if first { Data::Text } else { Data::Continue });
    Message::Frame(Frame::message(bytes.to_vec(), opcode, last))
}

#[tokio::test]
async fn a_message_may_come_in_single_bytes_with_pings_between() {
    let (_stand, address) = start(GatewayConfig::default()).await;
    let (mut stream, _) = hello(address, None).await;
    let mut with_emoji = event(1);
    with_emoji["metadata"]["title"] = json!("😀");
    let text = batch(1, &[with_emoji]).to_string();
    let length = text.len();
    for (place, byte) in text.as_bytes().iter().enumerate() {
        stream.send(fragment(&[*byte], place == 0, place + 1 == length)).await.unwrap();
        if place % 3 == 2 && place + 1 < length {
            stream.send(Message::Ping(vec![1].into())).await.unwrap();
        }
    }
    assert_eq!(next(&mut stream).await.unwrap()["events"][0]["status"], "accepted");
}

#[tokio::test]
async fn messages_too_large_or_not_utf8_are_closed_with_their_code() {
    let (stand, address) = start(GatewayConfig::default()).await;
    let limit = stand.gateway.limits().batch_bytes;
    let (mut neighbour, _) = hello(address, None).await;

    let (mut stream, _) = hello(address, None).await;
    let _ = stream.send(Message::text("x".repeat(limit + (64 << 10)))).await;
    assert_eq!(
        end(&mut stream).await,
        (Some("body.too_large".to_owned()), Some(CLOSE_TOO_LARGE)),
        "one frame"
    );

    let (mut stream, _) = hello(address, None).await;
    let piece = vec![b' '; 64 << 10];
    for n in 0..3 * limit / piece.len() {
        if stream.send(fragment(&piece, n == 0, false)).await.is_err() {
            break;
        }
    }
    assert_eq!(end(&mut stream).await.1, Some(CLOSE_TOO_LARGE), "fragments without end");

    let (mut stream, _) = hello(address, None).await;
    stream.send(fragment(b"{\"type\":\"", true, false)).await.unwrap();
    stream.send(fragment(&"😀".as_bytes()[..2], false, true)).await.unwrap();
    assert_eq!(end(&mut stream).await.1, Some(CLOSE_NOT_UTF8));

    say_json(&mut neighbour, batch(1, &[event(1)])).await;
    assert_eq!(next(&mut neighbour).await.unwrap()["events"][0]["status"], "accepted");
}

#[tokio::test]
async fn bytes_of_all_sockets_together_are_bounded() {
    let config = GatewayConfig {
        event_bytes: 100,
        batch_bytes: 60_000,
        in_flight_bytes: 120_000,
        ..GatewayConfig::default()
    };
    let (_stand, address) = start(config).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let (mut stream, _) = hello(address, None).await;
        let _ = stream.send(fragment(&vec![b' '; 50_000], true, false)).await;
        streams.push(stream);
    }
    let mut turned_away = 0;
    for mut stream in streams {
        let ended = tokio::time::timeout(Duration::from_millis(500), end(&mut stream)).await;
        turned_away += usize::from(ended.is_ok_and(|ended| ended.1 == Some(CLOSE_TRY_LATER)));
    }
    assert!(turned_away >= 1, "two fit, four do not");
    let (mut stream, _) = hello(address, None).await;
    say_json(&mut stream, batch(1, &[])).await;
    assert_eq!(next(&mut stream).await.unwrap()["type"], "ack", "room is there again");
}

#[tokio::test]
async fn silence_is_ended() {
    let socket = SocketConfig {
        hello_timeout_ms: 50,
        silence_timeout_ms: 100,
        ping_interval_ms: 10_000,
        ..SocketConfig::default()
    };
    let (_stand, address) = start(GatewayConfig { socket, ..GatewayConfig::default() }).await;
    let mut stream = open(address, "", None).await.unwrap();
    assert_eq!(end(&mut stream).await.1, Some(CLOSE_TIMEOUT), "no hello");
    let (mut stream, _) = hello(address, None).await;
    assert_eq!(end(&mut stream).await.1, Some(CLOSE_TIMEOUT), "nothing after hello");
}

#[tokio::test]
async fn pings_keep_a_living_socket_open() {
    let socket = SocketConfig { silence_timeout_ms: 300, ping_interval_ms: 50, ..SocketConfig::default() };
    let (_stand, address) = start(GatewayConfig { socket, ..GatewayConfig::default() }).await;
    let (mut stream, _) = hello(address, None).await;
    // Reading answers pings.
    let read = tokio::time::timeout(Duration::from_millis(900), next(&mut stream)).await;
    assert!(read.is_err(), "{read:?}");
    say_json(&mut stream, json!({"type": "ping"})).await;
    assert_eq!(next(&mut stream).await.unwrap()["type"], "pong");
}

#[tokio::test]
async fn no_more_than_the_credit_waits_and_a_drain_answers_what_runs() {
    let socket = SocketConfig { credit: 2, ..SocketConfig::default() };
    let (stand, address) = start(GatewayConfig { socket, ..GatewayConfig::default() }).await;
    let (mut stream, _) = hello(address, None).await;
    stand.log.hold_back();
    for seq in 1..=6 {
        say_json(&mut stream, batch(seq, &[event(u8::try_from(seq).unwrap())])).await;
    }
    while stand.gateway.ledger().totals("web").received < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stand.gateway.ledger().totals("web").received, 1, "one after the other");
    stand.log.let_through(1);
    assert_eq!(next(&mut stream).await.unwrap()["seq"], 1);
    while stand.gateway.ledger().totals("web").received < 2 {
        tokio::task::yield_now().await;
    }
    let drain = tokio::spawn({
        let gateway = Arc::clone(&stand.gateway);
        async move { gateway.drain().await }
    });
    while !stand.gateway.drain.has_begun() {
        tokio::task::yield_now().await;
    }
    stand.log.let_through(1);
    assert_eq!(next(&mut stream).await.unwrap()["seq"], 2);
    assert_eq!(end(&mut stream).await.1, Some(CLOSE_GOING_AWAY));
    tokio::time::timeout(Duration::from_secs(5), drain).await.unwrap().unwrap();
}

fn decision(trigger: u8, slot: &str) -> NewRecord {
    let id = schemas::id::EventId::from_bytes([trigger; 16]);
    let value = json!({
        "decision_id": id, "rule": "r", "version": "v", "subject": "anonymous:a", "slot": slot, "trigger": id,
        "score": 0.5, "payload": {"title": "t"}, "decided_at": "2024-04-25T14:23:05.123Z",
    });
    NewRecord {
        topic: Topic::Decisions,
        key: "a".into(),
        partition: None,
        headers: broker::headers::Headers::new(),
        value: value.to_string().into(),
    }
}

#[tokio::test]
async fn decisions_reach_the_socket_whose_events_caused_them_and_a_resumed_session() {
    let (stand, address) = start(GatewayConfig::default()).await;
    let (mut mine, answer) = hello(address, None).await;
    let (mut other, _) = hello(address, None).await;
    say_json(&mut mine, batch(1, &[event(1), event(2)])).await;
    next(&mut mine).await.unwrap();
    stand.log.append(vec![decision(9, "nobody"), decision(1, "banner")], AckLevel::Disk).await.unwrap();
    let frame = next(&mut mine).await.unwrap();
    assert_eq!(
        (&frame["type"], &frame["decision"]["slot"]),
        (&json!("decision"), &json!("banner")),
        "{frame}"
    );
    // The pong to the ping behind it confirms it; reading on sends the pong, and this answer comes after it.
    say_json(&mut mine, json!({"type": "ping"})).await;
    assert_eq!(next(&mut mine).await.unwrap()["type"], "pong");
    say_json(&mut other, json!({"type": "ping"})).await;
    assert_eq!(next(&mut other).await.unwrap()["type"], "pong", "nothing for the other");
    say_json(&mut mine, json!({"type": "ping"})).await;
    assert_eq!(next(&mut mine).await.unwrap()["type"], "pong");
    drop(mine);
    stand.log.append(vec![decision(2, "late")], AckLevel::Disk).await.unwrap();
    let (mut again, resumed) = hello(address, answer["session"].as_str()).await;
    assert_eq!((&resumed["session"], &resumed["resumed"]), (&answer["session"], &json!(1)));
    assert_eq!(next(&mut again).await.unwrap()["decision"]["slot"], "late", "and not the confirmed one");
    say_json(&mut again, batch(1, &[event(1), event(2)])).await;
    let ack = next(&mut again).await.unwrap();
    assert_eq!((&ack["seq"], &ack["cumulative"]), (&json!(1), &json!(1)));
    assert_eq!(ack["events"][1]["status"], "duplicate");
}

#[tokio::test]
async fn a_session_that_is_taken_over_ends_the_older_socket() {
    let (_stand, address) = start(GatewayConfig::default()).await;
    let (mut older, answer) = hello(address, None).await;
    let (mut newer, _) = hello(address, answer["session"].as_str()).await;
    assert_eq!(end(&mut older).await.1, Some(CLOSE_RESUMED));
    say_json(&mut newer, batch(1, &[event(1)])).await;
    assert_eq!(next(&mut newer).await.unwrap()["events"][0]["status"], "accepted");
}

#[test]
fn the_examples_of_the_protocol_page_are_what_the_types_read_and_write() {
    let page = include_str!("../../../../docs/protocol.md");
    let mut blocks = page.split("```json ").skip(1).peekable();
    assert!(blocks.peek().is_some());
    let mut seen = std::collections::BTreeSet::new();
    for block in blocks {
        let (side, rest) = block.split_once('\n').unwrap();
        let text = rest.split("```").next().unwrap();
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let kind = value["type"].as_str().unwrap().to_owned();
        match side {
            "server" => {
                let frame: ServerFrame = serde_json::from_value(value.clone()).unwrap();
                assert_eq!(serde_json::to_value(&frame).unwrap(), value, "{text}");
            }
            "client" => assert!(parse(text.trim().as_bytes(), 10).is_ok(), "{text}"),
            side => panic!("an example of `{side}`"),
        }
        seen.insert(format!("{side} {kind}"));
    }
    let right = [
        "client batch",
        "client hello",
        "client ping",
        "server ack",
        "server decision",
        "server error",
        "server hello",
        "server pace",
        "server pong",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), right);
}
