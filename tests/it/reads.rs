//! What can be read over HTTP: limits, the live tail, profiles, and the demo's tokens for them.

use serde_json::{Value, json};
use tests::client::Client;
use tests::events::{self, Random, of_device, of_user};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::{Options, Rivulet};
use tests::socket::Socket;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_that_are_told_are_those_that_are_enforced_to_the_byte() {
    let _timed = Timed::new("reads: limits");
    let rivulet = Rivulet::up().await;
    let client = rivulet.client();
    let answer = client.keyless().get("/v1/limits").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let (_, hello) = Socket::hello(rivulet.address(), None).await;
    assert_eq!(answer.json, hello["limits"], "a socket is told the same");
    let limit = |name: &str| usize::try_from(answer.json[name].as_u64().unwrap()).unwrap();

    let sized = |bytes: usize| {
        let event = |fill: &str| {
            format!(r#"{{"event_type":"x_custom","user_id":"limits","metadata":{{"s":"{fill}"}}}}"#)
        };
        event(&"x".repeat(bytes - event("").len()))
    };
    let deep = |depth: usize| {
        // The event and its metadata are two levels themselves.
        let (open, close) = ("[".repeat(depth - 2), "]".repeat(depth - 2));
        format!(r#"{{"event_type":"x_custom","user_id":"limits","metadata":{{"a":{open}{close}}}}}"#)
    };
    let largest = limit("event_bytes");
    for (fits, too_much, code) in [
        (sized(largest), sized(largest + 1), "event.too_large"),
        (deep(limit("depth")), deep(limit("depth") + 1), "json.depth"),
    ] {
        assert_eq!(client.send(fits).await.statuses(), ["accepted"], "{code}");
        let answer = client.send(too_much).await;
        assert_eq!(answer.verdicts()[0]["reason"]["code"], code, "{}", answer.text);
    }
    let minimal = r#"{"event_type":"x","user_id":"limits"}"#;
    let many = |count: usize| format!("[{}]", vec![minimal; count].join(","));
    let most = limit("batch_events");
    assert_eq!(
        client.send(many(most + 1)).await.verdicts().len(),
        most + 1,
        "a larger body is taken in slices"
    );
    let answer = client.send(many(16 * most + 1)).await;
    assert_eq!((answer.status, answer.code()), (413, "batch.too_many_events"));
    assert_eq!(answer.json["error"]["index"], 16 * most, "the first that did not fit: {}", answer.text);
    let padded = |bytes: usize| format!("{minimal}{}", " ".repeat(bytes - minimal.len()));
    assert_eq!(client.send(padded(limit("batch_bytes"))).await.status, 200);
    let answer = client.send(padded(limit("batch_bytes") + 1)).await;
    assert_eq!((answer.status, answer.code()), (413, "body.too_large"));
    let error = &answer.json["error"];
    assert_eq!(
        (&error["limit"], &error["size"]),
        (&limit("batch_bytes").into(), &(limit("batch_bytes") + 1).into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_shows_each_verdict_in_order_to_who_has_a_secret_key_and_no_values() {
    let _timed = Timed::new("reads: tail");
    let mut rivulet = Rivulet::up().await;
    for (client, status, code) in
        [(rivulet.client(), 403, "key.secret_required"), (rivulet.client().keyless(), 401, "key.missing")]
    {
        let refused = client.follow("/v1/tail").await.unwrap_err();
        assert_eq!((refused.status, refused.code()), (status, code), "{}", refused.text);
    }
    let in_url = rivulet.client().keyless().follow("/v1/tail?key=sk_dev").await.unwrap_err();
    assert_eq!(in_url.status, 401, "a secret key travelled in a URL: {}", in_url.text);

    let mut tail = rivulet.secret().follow("/v1/tail").await.unwrap();
    let mut random = Random::seeded("reads: tail");
    let good = events::page_view(&mut random, &of_user("tail-private"));
    let mut bad = events::add_to_cart(&mut random, &of_user("tail-private"));
    bad["metadata"]["quantity"] = json!("tail-private");
    let torn = "{\"event_type\":\"x\",\"user_id\":\"tail-private\",\"metadata\":nul}";
    let answer = rivulet.client().send(format!("[{good},{bad},{torn},{good}]")).await;
    assert_eq!(answer.verdicts().len(), 4, "{}", answer.text);
    for (place, verdict) in answer.verdicts().iter().enumerate() {
        let shown = tail.event("verdict").await.expect("the tail goes on");
        for member in ["event_id", "status", "acked", "reason"] {
            assert_eq!(shown[member], verdict[member], "{place}: {member} of {shown}, told {verdict}");
        }
        let event_type = [json!("page_view"), json!("add_to_cart"), Value::Null, json!("page_view")];
        assert_eq!(shown["event_type"], event_type[place], "{shown}");
        assert_eq!(shown["source"], "web", "{shown}");
        assert!(shown["received_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{shown}");
        assert!(!shown.to_string().contains("tail-private"), "a value is shown: {shown}");
    }

    // Who follows does not hold up a stop, and sees the end.
    let end = tokio::spawn(async move { while tail.block().await.is_some() {} });
    let (status, took) = rivulet.terminate(SOON).await;
    assert!(status.success() && took.as_secs() < 2, "{status} after {took:?}");
    faults::bounded("the tail ends", SOON, end).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_the_profile_it_was_minted_for_and_no_other() {
    let _timed = Timed::new("reads: tokens");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("reads: tokens");
    for who in [of_user("token-u"), of_device("token-d"), of_device("token-u"), of_user("täken:1 /?")] {
        rivulet.client().send(events::page_view(&mut random, &who).to_string()).await;
    }
    for id in ["user:token-u", "anonymous:token-d", "anonymous:token-u", "user:täken:1%20%2F%3F"] {
        faults::eventually("the profiles are there", SOON, async || rivulet.profile(id).await).await;
    }
    let user = mint(&rivulet, &json!({ "user_id": "token-u" })).await;
    let device = mint(&rivulet, &json!({ "anonymous_id": "token-d" })).await;
    let odd = mint(&rivulet, &json!({ "user_id": "täken:1 /?" })).await;
    // Token, what is asked for, what comes.
    for (token, id, status, profile) in [
        (&user, "user:token-u", 200, "user:token-u"),
        (&user, "token-u", 200, "user:token-u"),
        (&device, "anonymous:token-d", 200, "anonymous:token-d"),
        (&device, "token-d", 200, "anonymous:token-d"),
        (&odd, "user:t%C3%A4ken:1%20%2F%3F", 200, "user:täken:1 /?"),
        (&user, "anonymous:token-u", 403, ""),
        (&user, "anonymous:token-d", 403, ""),
        (&user, "user:token-d", 403, ""),
        (&user, "user:nobody", 403, ""),
        (&device, "user:token-u", 403, ""),
    ] {
        let answer = rivulet.client().with_key(token).get(&format!("/v1/profiles/{id}")).await.unwrap();
        assert_eq!(answer.status, status, "{id}: {}", answer.text);
        if status == 200 {
            assert_eq!(answer.json["profile"], profile, "{id}: {}", answer.text);
            assert_eq!(answer.json["counters"]["page_view"], 1, "{id}: {}", answer.text);
            assert_eq!(answer.json["as_of"]["topic"], "rivulet.events", "{id}: {}", answer.text);
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{id}");
        } else {
            assert_eq!(answer.code(), "key.secret_required", "{id}: {}", answer.text);
        }
    }
    // A shop's page is of another origin than the program, and may ask first.
    let profile = "/v1/profiles/user:token-u";
    let origin = ("origin", "https://shop.example");
    let wants = [origin, ("access-control-request-headers", "authorization")];
    let client = rivulet.client().with_key(&user);
    let preflight = client.keyless().request(reqwest::Method::OPTIONS, profile, &wants, None).await.unwrap();
    let read = client.request(reqwest::Method::GET, profile, &[origin], None).await.unwrap();
    let refused = rivulet.client().request(reqwest::Method::GET, profile, &[origin], None).await.unwrap();
    for (answer, status) in [(preflight, 204), (read, 200), (refused, 403)] {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin.1), "{answer:?}");
    }
    // A token is no key: nothing else opens to it.
    let page = events::page_view(&mut random, &of_user("token-u")).to_string();
    assert_eq!(rivulet.client().with_key(&user).send(page).await.status, 401);
    assert_eq!(rivulet.client().with_key(&user).follow("/v1/tail").await.unwrap_err().status, 401);
    every_change_of_a_letter_closes(&rivulet, &user).await;

    let ask = async |client: Client| client.get("/v1/profiles/user:token-u").await.unwrap();
    assert_eq!(ask(rivulet.client()).await.code(), "key.secret_required");
    assert_eq!(ask(rivulet.client().keyless()).await.code(), "key.missing");
    assert_eq!(ask(rivulet.secret()).await.status, 200);
    let nobody = rivulet.secret().get("/v1/profiles/user:nobody").await.unwrap();
    assert_eq!((nobody.status, nobody.code()), (404, "request.not_found"), "{}", nobody.text);
}

/// Panics unless a token with any one letter changed, cut or doubled is refused.
async fn every_change_of_a_letter_closes(rivulet: &Rivulet, token: &str) {
    let changed = (0..token.len()).flat_map(|at| {
        let (before, after) = (&token[..at], &token[at + 1..]);
        let letter = token.as_bytes()[at];
        let other = if letter == b'A' { 'B' } else { 'A' };
        [format!("{before}{other}{after}"), format!("{before}{after}"), token[..at].to_owned()]
    });
    let client = rivulet.client();
    let ask = changed.filter(|changed| changed != token && !changed.is_empty()).map(|changed| {
        let client = client.with_key(&changed);
        async move { (client.get("/v1/profiles/user:token-u").await.unwrap(), changed) }
    });
    let mut answers = futures_util::stream::StreamExt::buffer_unordered(futures_util::stream::iter(ask), 8);
    while let Some((answer, changed)) = futures_util::StreamExt::next(&mut answers).await {
        assert!([401, 403].contains(&answer.status), "{changed} opened it: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_mints_tokens_for_somebody_only_and_not_at_all_without_the_demo() {
    let _timed = Timed::new("reads: demo");
    let mut rivulet = Rivulet::up().await;
    let large = json!({ "user_id": "x".repeat(3 << 20) }).to_string();
    for body in [
        "",
        "{}",
        "[]",
        "null",
        "\"user\"",
        "{\"user_id\":",
        r#"{"user_id":7}"#,
        r#"{"user_id":null}"#,
        r#"{"user_id":""}"#,
        r#"{"anonymous_id":"undefined"}"#,
        &large,
    ] {
        let answer = rivulet.client().keyless().post("/demo/token", &[], body).await.unwrap();
        let shown = &body[..body.len().min(40)];
        assert!([400, 413].contains(&answer.status), "{shown}: {} {}", answer.status, answer.text);
        assert_ne!(answer.code(), "none", "{shown}: errors are JSON with a code: {}", answer.text);
    }
    let wrong = rivulet.client().keyless().get("/demo/token").await.unwrap();
    assert_eq!((wrong.status, wrong.code()), (405, "request.method_not_allowed"), "{}", wrong.text);
    crate::hostile::well(&mut rivulet).await;

    let plain = Rivulet::with(Options::default().set("demo", "enabled", false)).await;
    // `POST /` is Amplitude's, so the path is known without the shop.
    for (path, status) in [("/demo/token", 404), ("/", 405), ("/console/", 404)] {
        let method = if path == "/demo/token" { "POST" } else { "GET" };
        let answer = plain.client().keyless().request(method.parse().unwrap(), path, &[], None).await;
        assert_eq!(answer.unwrap().status, status, "{path} without the demo");
    }
    assert!(log::events(&plain).await.is_empty());
}

async fn mint(rivulet: &Rivulet, whom: &Value) -> String {
    let answer = rivulet.client().keyless().post("/demo/token", &[], whom.to_string()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let left = answer.json["expires_at"].as_i64().unwrap() - events::now_millis() / 1_000;
    assert!((3_500..=3_600).contains(&left), "good for an hour: {left} s");
    answer.json["token"].as_str().unwrap().to_owned()
}
