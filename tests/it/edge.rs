//! The other ways in: the pixel, bodies without end, and the client's address behind a proxy.

use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tests::events::{self, Random};
use tests::faults::Timed;
use tests::log;
use tests::rivulet::{Options, Rivulet};

/// C11, and what C12 says of the pixel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pixel_that_somebody_looks_at_is_one_event_and_nothing_else_is() {
    let _timed = Timed::new("C11");
    let rivulet = Rivulet::up().await;
    let client = rivulet.client().keyless();
    let path = "/v1/pixel.gif?key=wk_dev&event_type=page_view&anonymous_id=a1&metadata.path=%2Fmail&timestamp=2024-03-31T02:30:00+02:00";
    let ask = async |method: reqwest::Method, path: &str, headers: &[(&str, &str)]| {
        client.request(method, path, headers, None).await.unwrap()
    };
    let seen = ask(reqwest::Method::GET, path, &[]).await;
    assert_eq!(seen.status, 200, "{}", seen.text);
    assert_eq!(
        (seen.header("content-type"), seen.header("cache-control")),
        (Some("image/gif"), Some("no-store"))
    );
    let head = ask(reqwest::Method::HEAD, path, &[]).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    for name in ["content-type", "content-length", "cache-control"] {
        assert_eq!(head.header(name), seen.header(name), "{name}");
    }
    for purpose in [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch")] {
        assert_eq!(ask(reqwest::Method::GET, path, &[purpose]).await.status, 204);
    }
    assert_eq!(ask(reqwest::Method::OPTIONS, path, &[]).await.status, 204);
    for (method, path, allow) in [
        (reqwest::Method::HEAD, "/v1/events?key=wk_dev", "POST, OPTIONS"),
        (reqwest::Method::GET, "/v1/events?key=wk_dev", "POST, OPTIONS"),
        (reqwest::Method::POST, path, "GET, HEAD, OPTIONS"),
    ] {
        let wrong = ask(method, path, &[]).await;
        assert_eq!((wrong.status, wrong.header("allow")), (405, Some(allow)), "{path}");
    }
    let records = log::events(&rivulet).await;
    assert_eq!(records.len(), 1, "exactly one event");
    assert_eq!(records[0].value["receipt"]["occurred_at"], "2024-03-31T00:30:00.000Z");
    assert_eq!(records[0].value["metadata"], json!({"path": "/mail"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_far_larger_than_any_limit_is_streamed_in_bounded_memory() {
    let _timed = Timed::new("edge: stream");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("edge: stream");
    let filler = "x".repeat(8_000);
    // 24 MB in 3,000 lines, one in a hundred of them bad.
    let lines: Vec<Result<Bytes, std::io::Error>> = (0..3_000)
        .map(|n| {
            let mut event = events::page_view(&mut random, &events::of_device(&format!("stream-{}", n % 50)));
            event["context"] = json!({ "filler": filler });
            if n % 100 == 7 {
                event["event_type"] = json!("rivulet.forged");
            }
            Ok(Bytes::from(format!("{event}\n")))
        })
        .collect();
    let before = rivulet.memory_kib("VmRSS");
    let response = reqwest::Client::new()
        .post(format!("http://{}/v1/events", rivulet.address()))
        .header("authorization", "Bearer wk_dev")
        .header("content-type", "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(stream::iter(lines)))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 207);
    let answer: Value = response.json().await.unwrap();
    assert_eq!((&answer["counts"]["accepted"], &answer["counts"]["rejected"]), (&json!(2_970), &json!(30)));
    assert_eq!((&answer["complete"], &answer["problems_omitted"]), (&json!(true), &json!(0)));
    let problems = answer["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 30);
    assert!(problems.iter().all(|problem| problem["index"].as_u64().unwrap() % 100 == 7), "{answer}");
    assert_eq!(log::events(&rivulet).await.len(), 2_970);
    let grown = rivulet.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown < 200 << 10, "{grown} KiB more at the peak");
}

/// C04.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_address_is_read_from_a_trusted_proxy_alone_and_truncated_by_its_family() {
    let _timed = Timed::new("C04");
    let keys = "[[keys]]\nname = \"web\"\nkey = \"wk_dev\"\nkind = \"public\"\nip = \"POLICY\"\n";
    let with = async |policy: &str, trusted: &str| {
        let config = format!("{}\n[gateway]\ntrusted_proxies = {trusted}\n", keys.replace("POLICY", policy));
        // Tables after tables: `[gateway]` may follow `[[keys]]`.
        Rivulet::with(Options { config: Some(config), ..Options::default() }).await
    };
    let lines: [(&[(&str, &str)], &str, &str); 6] = [
        (&[("x-forwarded-for", "\"[2001:db8::7]:51234\", 10.0.0.3")], "2001:db8::7", "2001:db8::"),
        (&[("x-forwarded-for", "2001:db8::7")], "2001:db8::7", "2001:db8::"),
        (&[("x-forwarded-for", "unknown, 203.0.113.9")], "203.0.113.9", "203.0.113.0"),
        (
            &[("forwarded", "for=\"[2001:db8:cafe::17]:4711\";proto=https, for=10.0.0.3")],
            "2001:db8:cafe::17",
            "2001:db8:cafe::",
        ),
        (
            &[("x-forwarded-for", "198.51.100.4"), ("x-forwarded-for", "203.0.113.9")],
            "203.0.113.9",
            "203.0.113.0",
        ),
        (&[("x-forwarded-for", "::ffff:203.0.113.9")], "203.0.113.9", "203.0.113.0"),
    ];
    for (policy, trusted) in [
        ("keep", "[\"127.0.0.0/8\"]"),
        ("truncate", "[\"127.0.0.0/8\"]"),
        ("drop", "[\"127.0.0.0/8\"]"),
        ("keep", "[]"),
    ] {
        let rivulet = with(policy, trusted).await;
        let mut random = Random::seeded("C04");
        for (headers, whole, cut) in &lines {
            let event = events::page_view(&mut random, &events::of_device("a1"));
            let answer = rivulet.client().send_with(headers, event.to_string()).await;
            assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text);
            let records = log::events(&rivulet).await;
            let record = log::find(&records, events::id(&event)).unwrap();
            let right = match (policy, trusted) {
                (_, "[]") => json!("127.0.0.1"),
                ("keep", _) => json!(whole),
                ("truncate", _) => json!(cut),
                _ => Value::Null,
            };
            assert_eq!(record.value["receipt"]["ip"], right, "{policy} {trusted} {headers:?}");
        }
    }
}
