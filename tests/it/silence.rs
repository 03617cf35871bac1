//! Logs say nothing of people: whatever senders write, wherever they write it, no log line repeats it.

use serde_json::json;
use tests::events::{self, Random, of_user};
use tests::faults::{self, SOON, Timed};
use tests::raw;
use tests::rivulet::{Options, Rivulet};
use tests::socket::Socket;
use tokio_tungstenite::tungstenite::Message;

/// Every marker begins so, and nothing else in the world.
const MARK: &str = "zq7marker";

const CONFIG: &str = r#"
[gateway]
trusted_proxies = ["127.0.0.1"]
[[keys]]
name = "web"
key = "zq7marker-public"
kind = "public"
origins = ["http://localhost:*"]
ip = "keep"
[[keys]]
name = "server"
key = "zq7marker-secret"
kind = "secret"
"#;

/// An address that only the sender has.
const ADDRESS: &str = "198.51.100.217";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_line_repeats_what_a_sender_wrote() {
    let _timed = Timed::new("silence");
    silent("info", "text").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_line_repeats_what_a_sender_wrote_even_when_asked_for_every_detail() {
    let _timed = Timed::new("silence: trace");
    silent("trace", "json").await;
}

async fn silent(level: &str, format: &str) {
    let mut options = Options { config: Some(CONFIG.to_owned()), ..Options::default() };
    options.env.push(("RIVULET_LOG".to_owned(), level.to_owned()));
    options.env.push(("RIVULET_LOG_FORMAT".to_owned(), format.to_owned()));
    let mut rivulet = Rivulet::with(options).await;
    say_everything(&rivulet).await;
    say_it_over_a_socket(&rivulet).await;
    faults::eventually("the processor has it too", SOON, async || {
        let answer = rivulet.client().with_key("zq7marker-secret").get("/v1/profiles/user:zq7marker-u").await;
        answer.ok().filter(|answer| answer.status == 200)
    })
    .await;
    // Once more with files that a crash has torn, which recovery speaks of.
    rivulet.kill();
    let journal = tests::damage::journal(&rivulet.data());
    tests::damage::apply(&journal, &tests::damage::Damage::Cut(40));
    rivulet.start().await;
    say_everything(&rivulet).await;
    rivulet.terminate(SOON).await;

    let said = format!("{}\n{}", rivulet.stdout(), rivulet.stderr());
    assert!(said.contains("stopped"), "nothing was logged: {said}");
    let told: Vec<&str> = said.lines().filter(|line| line.contains(MARK) || line.contains(ADDRESS)).collect();
    assert!(told.is_empty(), "{} lines tell, such as: {:#?}", told.len(), &told[..told.len().min(5)]);
}

/// Good, bad, oversized and unparsable, with a marker wherever a sender can write something.
async fn say_everything(rivulet: &Rivulet) {
    let mut random = Random::seeded("silence");
    let user = of_user("zq7marker-u");
    let mut good = events::page_view(&mut random, &user);
    good["metadata"]["title"] = json!("zq7marker-title");
    good["metadata"]["zq7marker-name"] = json!(1);
    good["zq7marker-member"] = json!({ "zq7marker": 1 });
    let mut foreign = events::event(&mut random, "zq7marker_type", &user, &json!({}));
    foreign["event_id"] = json!("zq7marker-id");
    let mut bad = events::add_to_cart(&mut random, &user);
    bad["metadata"]["quantity"] = json!("zq7marker-quantity");
    let mut pinned = good.clone();
    pinned["schema"] = json!("zq7marker@1");
    let mut time = good.clone();
    time["timestamp"] = json!("zq7marker-time");
    let mut large = events::page_view(&mut random, &user);
    large["metadata"]["title"] = json!("zq7marker".repeat(9_000));
    let identify =
        events::event(&mut random, "identify", &user, &json!({ "traits": { "mail": "zq7marker@x" } }));
    let purchase = r#"{"event_type":"purchase","user_id":"zq7marker-u","metadata":{"order_id":"zq7marker","total":1e999}}"#;
    let torn = r#"{"event_type":"zq7marker","user_id":"zq7marker","metadata":{"zq7marker":nul}}"#;
    let twice = r#"{"event_type":"x","user_id":"u","zq7marker":1,"zq7marker":2}"#;
    let body =
        format!("[{good},{foreign},{bad},{pinned},{time},{large},{identify},{purchase},{torn},{twice}]");

    let client = rivulet.client().with_key("zq7marker-public");
    let seen = [
        ("content-type", "application/json"),
        ("x-forwarded-for", ADDRESS),
        ("user-agent", "zq7marker/1.0"),
        ("referer", "https://zq7marker.example/zq7marker"),
        ("cookie", "zq7marker=1"),
        ("x-zq7marker", "zq7marker"),
    ];
    let answer = client.send_with(&seen, body.clone()).await;
    assert_eq!(answer.verdicts().len(), 10, "{}", answer.text);
    // Bodies that are no events, in every way that a body can be none.
    for (headers, body) in [
        (vec![("content-type", "zq7marker/x")], body.clone().into_bytes()),
        (vec![("content-encoding", "zq7marker")], body.clone().into_bytes()),
        (vec![("content-encoding", "gzip")], body.clone().into_bytes()),
        (vec![("origin", "https://zq7marker.example")], body.clone().into_bytes()),
        (vec![], b"zq7marker".to_vec()),
        (vec![], b"[\"zq7marker".to_vec()),
        (vec![], format!("\"{}\"", "zq7marker".repeat(600_000)).into_bytes()),
    ] {
        let answer = client.send_with(&headers, body).await;
        assert!((400..500).contains(&answer.status), "{}", answer.text);
    }
    for path in [
        "/v1/events?key=zq7marker-public&ack=zq7marker",
        "/v1/events?key=zq7marker-unknown",
        "/v1/events?key=zq7marker-secret",
        "/zq7marker?zq7marker",
        "/demo/token",
    ] {
        client.keyless().post(path, &[], r#"{"user_id":"zq7marker-u"}"#).await.unwrap();
    }
    for path in ["/v1/profiles/user:zq7marker-u", "/v1/profiles/zq7marker", "/v1/fate/zq7marker", "/v1/tail"]
    {
        for key in ["zq7marker-public", "zq7marker-unknown", "zq7marker.zq7marker"] {
            client.with_key(key).get(path).await.unwrap();
        }
    }
    let secret = client.with_key("zq7marker-secret");
    secret.get("/v1/profiles/zq7marker").await.unwrap();
    secret.get("/v1/fate/zq7marker").await.unwrap();
    for bytes in [
        "GET /zq7marker HTTP/1.1\r\nzq7marker\r\n\r\n",
        "zq7marker\r\n\r\n",
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer zq7marker-public\r\ncontent-length: 99\r\n\r\nzq7marker",
    ] {
        raw::exchange(rivulet.address(), bytes.as_bytes(), true).await;
    }
}

async fn say_it_over_a_socket(rivulet: &Rivulet) {
    for frame in [
        r#"{"type":"hello","key":"zq7marker-public","sdk":"zq7marker/1","resume":"zq7marker"}"#,
        r#"{"type":"hello","key":"zq7marker-unknown"}"#,
        r#"{"type":"zq7marker"}"#,
        "zq7marker",
    ] {
        let mut socket = Socket::open(rivulet.address(), "", None).await.unwrap();
        socket.raw(Message::text(frame)).await;
        socket.next().await;
        let event = r#"{"event_type":"page_view","user_id":"zq7marker-u","metadata":{"url":"zq7marker"}}"#;
        let batch = format!(r#"{{"type":"batch","seq":1,"events":[{event},"zq7marker",{{"zq7marker":1}}]}}"#);
        socket.raw(Message::text(batch)).await;
        socket.next().await;
        socket.raw(Message::Ping("zq7marker".into())).await;
        socket.raw(Message::text(r#"{"type":"zq7marker"}"#)).await;
        socket.end().await;
    }
    assert!(Socket::open(rivulet.address(), "?key=zq7marker-secret", None).await.is_err());
}
