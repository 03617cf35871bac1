//! What is marked as personal is on no disk, in no log line and in no answer, whatever becomes of the event.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};
use tests::client::gzip;
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::{Options, Rivulet};
use tests::socket::Socket;

/// What must be found nowhere. Of letters that no hash, id or base64 of something else has by chance.
pub(crate) const FORBIDDEN: &str = "zQx7-forbidden-Wv9";

/// The value as senders may write it: plain, escaped, as the text of another value, in base64 at each alignment.
pub(crate) fn spellings() -> Vec<String> {
    let escaped: Vec<String> = FORBIDDEN.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    let mut all =
        vec![FORBIDDEN.to_owned(), escaped.concat(), FORBIDDEN.to_uppercase(), FORBIDDEN.to_lowercase()];
    for before in ["", "a", "ab"] {
        let encoded = BASE64.encode(format!("{before}{FORBIDDEN}"));
        // Without the ends, which depend on what stands beside.
        all.push(encoded[4..encoded.len() - 4].to_owned());
    }
    all
}

/// Every file below a folder that holds any of the words, with the word.
pub(crate) fn holding(dir: &Path, words: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
                continue;
            }
            // A file may go while the program runs.
            let Ok(bytes) = std::fs::read(&path) else { continue };
            // The words are ASCII: what is no UTF-8 around them does not hide them.
            let text = String::from_utf8_lossy(&bytes);
            found.extend(
                words
                    .iter()
                    .filter(|word| text.contains(*word))
                    .map(|word| format!("{}: {word}", path.display())),
            );
        }
    }
    found
}

fn document() -> Value {
    json!({
        "required": ["n"],
        "properties": {
            "n": {"type": "integer"},
            "mail": {"x-pii": "hash", "type": "string"},
            "note": {"x-pii": "mask"},
            "raw": {"x-pii": "drop"},
            "people": {"items": {"$ref": "../_shared/person.json"}},
        },
        "patternProperties": {"_private$": {"x-pii": "drop"}},
    })
}

/// An event with the forbidden value in each place that is marked.
fn full(n: &str) -> String {
    let f = FORBIDDEN;
    let escaped: String = format!("\\u{:04x}{}", u32::from(f.chars().next().unwrap()), &f[1..]);
    format!(
        r#"{{"event_type":"x_person","user_id":"p1","context":{{"page":{{"url":"https://shop.example/?m={f}"}},"keep":9007199254740993}},
"metadata":{{"mail":"{escaped}","n":{n},"note":{{"deep":["{f}"]}},"raw":["{f}",1],"a_private":"{f}" , "people":[{{"name":"{f}","age":1.50}},{{"n\u0061me":"{escaped}"}}]}}}}"#
    )
}

fn options() -> Options {
    let keys = r#"
[gateway]
pii_secret = "a secret of the test"
[[keys]]
name = "web"
key = "wk_dev"
kind = "public"
origins = ["http://localhost:*"]
redact = [{ pointer = "/context/page/url", action = "hash" }, { pointer = "/metadata/free/*/text", action = "mask" }]
[[keys]]
name = "server"
key = "sk_dev"
kind = "secret"
"#;
    let options = Options { config: Some(keys.to_owned()), ..Options::default() };
    options
        .schema("x_person/1.json", &document())
        .schema("_shared/person.json", &json!({"properties": {"name": {"x-pii": "mask"}}}))
        .schema("x_other/1.json", &json!({}))
}

/// Events that are refused in every way there is, each with the forbidden value in a marked place.
fn refused() -> Vec<Vec<u8>> {
    let good = full("1");
    let mut all: Vec<Vec<u8>> = [
        full("\"two\""),
        good.replace("\"n\":1,", ""),
        good.replace("\"user_id\":\"p1\"", "\"user_id\":\"\""),
        good.replace("\"user_id\":\"p1\"", "\"user_id\":\"p1\",\"schema\":\"7\""),
        good.replace("\"user_id\":\"p1\"", "\"user_id\":\"p1\",\"timestamp\":\"never\""),
        good.replace("\"user_id\":\"p1\"", "\"user_id\":\"p1\",\"receipt\":{}"),
        good.replace("x_person", "rivulet.person"),
        good.replace("\"x_person\"", "[]"),
        good.replace("\"n\":1", "\"n\":1,\"n\":1"),
        good.replace("\"n\":1", "\"n\":1e400"),
        good.replace("\"n\":1", "\"n\":1,\"cut\":\"\\ud83d\""),
        good.replace("\"n\":1", &format!("\"n\":1,\"deep\":{}1{}", "[".repeat(60), "]".repeat(60))),
        good.replace("\"n\":1", &format!("\"n\":1,\"fill\":\"{}\"", "x".repeat(70_000))),
        format!("[{good}]"),
        format!("\"{FORBIDDEN}\""),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect();
    all.push([good.replace('\n', " ").as_bytes(), b"\xff"].concat());
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_on_disk_or_in_the_log_holds_what_is_forbidden() {
    let _timed = Timed::new("privacy");
    let mut rivulet = Rivulet::with(options()).await;
    let client = rivulet.client();
    assert_eq!(client.send(full("1")).await.statuses(), ["accepted"]);
    let compressed = client.send_with(
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
        gzip(full("2").as_bytes()),
    );
    assert_eq!(compressed.await.statuses(), ["accepted"]);
    let free = format!(
        r#"{{"event_type":"x_free","user_id":"p2","metadata":{{"free":[{{"text":"{FORBIDDEN}"}},{{"text":"{FORBIDDEN}","n":-0.0}}]}}}}"#
    );
    assert_eq!(client.send(free).await.statuses(), ["accepted"]);

    let refused = refused();
    let mut lines: Vec<u8> = Vec::new();
    for event in &refused {
        let one_line: Vec<u8> = event.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect();
        lines.extend([one_line.as_slice(), b"\n"].concat());
    }
    let answer = client.send_with(&[("content-type", "application/x-ndjson")], lines).await;
    assert_eq!(answer.statuses(), vec!["rejected"; refused.len()], "{}", answer.text);
    assert!(!answer.text.contains("forbidden"), "{}", answer.text);
    for event in &refused {
        client.send(event.clone()).await;
    }
    let (mut socket, _) = Socket::hello(rivulet.address(), None).await;
    let events: Vec<Value> =
        [full("3"), full("null")].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    socket.batch(1, &events).await;
    let ack = socket.acked(1, &events).await;
    assert_eq!(ack["events"][1]["reason"]["pointer"], "/metadata/n", "{ack}");

    let records = log::events(&rivulet).await;
    let written = log::of_key(&records, "p1").len();
    faults::eventually("what was accepted is processed", SOON, async || {
        let profile = rivulet.profile("user:p1").await?;
        (profile["counters"]["x_person"] == written).then_some(())
    })
    .await;
    let person = records.iter().find(|record| record.key == "p1").unwrap();
    assert!(person.raw_value().contains(r#""keep":9007199254740993"#), "{}", person.line);
    assert!(
        person.raw_value().contains(r#""people":[{"name":"***","age":1.50},{"n\u0061me":"***"}]}"#),
        "{}",
        person.line
    );
    let redacted = [
        "/context/page/url",
        "/metadata/mail",
        "/metadata/note",
        "/metadata/raw",
        "/metadata/a_private",
        "/metadata/people/0/name",
        "/metadata/people/1/name",
    ];
    assert_eq!(person.value["receipt"]["redacted"], json!(redacted));
    let mails: Vec<&Value> = records
        .iter()
        .filter(|record| record.key == "p1")
        .map(|record| &record.value["metadata"]["mail"])
        .collect();
    assert!(mails.len() >= 3, "{mails:?}");
    assert!(
        mails.iter().all(|mail| *mail == mails[0] && mail.as_str().unwrap().starts_with("hmac-sha256:")),
        "{mails:?}"
    );
    let quarantine = log::cat(&rivulet, "rivulet.quarantine").await;
    assert!(quarantine.len() >= refused.len(), "{}", quarantine.len());
    assert!(quarantine.iter().any(|record| record.value["withheld"] == true));
    assert!(
        quarantine.iter().any(|record| record.value["raw"].as_str().is_some_and(|raw| raw.contains("***")))
    );

    let list = rivulet.secret().get("/v1/quarantine?reason=schema.invalid&limit=1000").await.unwrap();
    let two = list.json["records"]
        .as_array()
        .unwrap()
        .iter()
        .find(|record| record["reason"]["keyword"] == "type")
        .unwrap();
    let patch = json!([{"op": "replace", "path": "/metadata/n", "value": 2}]);
    let replay = json!({"at": [two["at"]], "patch": patch});
    let secret = rivulet.secret();
    let answer =
        secret.post("/v1/quarantine/replay", &[("content-type", "application/json")], replay.to_string());
    let answer = answer.await.unwrap();
    assert_eq!(answer.json["events"][0]["status"], "accepted", "{}", answer.text);
    let again = log::events(&rivulet).await;
    let mends: Vec<&Value> = again
        .iter()
        .filter(|record| record.key == "p1")
        .map(|record| &record.value["metadata"]["mail"])
        .collect();
    assert_eq!(mends.len(), written + 1);
    assert!(mends.iter().all(|mail| *mail == mails[0]), "a hash is not hashed again: {mends:?}");

    let words = spellings();
    let mut shown = vec![rivulet.metrics().await, rivulet.stderr()];
    for topic in ["rivulet.events", "rivulet.quarantine", "rivulet.profiles", "rivulet.decisions"] {
        shown.extend(log::cat(&rivulet, topic).await.into_iter().map(|record| record.line));
    }
    for id in ["user:p1", "user:p2"] {
        shown.push(rivulet.profile(id).await.unwrap_or_default().to_string());
    }
    for text in &shown {
        assert!(words.iter().all(|word| !text.contains(word)), "{text}");
    }
    rivulet.terminate(SOON).await;
    let found = holding(&rivulet.data(), &words);
    assert!(found.is_empty(), "on disk: {found:?}");
    let log = rivulet.stderr();
    assert!(words.iter().all(|word| !log.contains(word)), "{log}");
}

/// The search finds what is there: the same value in a place that nobody marked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_search_finds_a_value_that_is_not_marked() {
    let _timed = Timed::new("privacy: control");
    let mut rivulet = Rivulet::with(options()).await;
    let event = json!({"event_type": "x_other", "user_id": "p3", "metadata": {"text": FORBIDDEN}});
    assert_eq!(rivulet.client().send(event.to_string()).await.statuses(), ["accepted"]);
    rivulet.terminate(SOON).await;
    assert!(!holding(&rivulet.data(), &spellings()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hash_needs_a_secret_and_routing_is_not_redacted() {
    let _timed = Timed::new("privacy: configuration");
    let alone = Rivulet::prepared(Options::default());
    let key = |redact: &str| {
        format!("[[keys]]\nname = \"w\"\nkey = \"k\"\nkind = \"public\"\nredact = [{redact}]\n")
    };
    for (config, word) in [
        (key(r#"{ pointer = "/metadata/a", action = "hash" }"#), "pii_secret"),
        (key(r#"{ pointer = "/user_id", action = "hash" }"#), "/user_id"),
        (key(r#"{ pointer = "metadata/a", action = "drop" }"#), "metadata/a"),
        (key(r#"{ pointer = "/metadata/a", action = "encrypt" }"#), "encrypt"),
        ("[gateway]\npii_secret = \"short\"\n".to_owned(), "pii_secret"),
    ] {
        std::fs::write(alone.path("wrong.toml"), &config).unwrap();
        let output = alone.run(&["up", "--listen", "127.0.0.1:0", "--config", "wrong.toml"]).await;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(word), "{config}: {told}");
    }
}
