//! Who objects to being measured is on no disk, in no log line and in no answer: GPC, DNT and consent, by the key's policy, on every way in.

use serde_json::{Value, json};
use tests::events;
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::{Options, Rivulet};
use tests::socket::Socket;

use crate::privacy::{FORBIDDEN, holding, spellings};

const KEYS: &str = r#"
[[keys]]
name = "strict"
key = "wk_dev"
kind = "public"
origins = ["http://localhost:*"]
ip = "keep"
privacy = { gpc = "drop", dnt = "anonymise", consent = { require = ["analytics"], otherwise = "drop" } }
[[keys]]
name = "mild"
key = "wk_mild"
kind = "public"
ip = "keep"
privacy = { consent = { require = ["analytics"], otherwise = "anonymise" } }
[[keys]]
name = "server"
key = "sk_dev"
kind = "secret"
"#;

/// An event that says in every personal place who it is about.
fn person(event_type: &str, granted: bool) -> Value {
    json!({
        "event_id": format!("{FORBIDDEN}-{event_type}"), "event_type": event_type, "user_id": FORBIDDEN, "anonymous_id": FORBIDDEN,
        "session_id": FORBIDDEN, "context": {"page": {"url": FORBIDDEN}}, "consent": {"analytics": granted, "ads": true},
        FORBIDDEN: 1, "metadata": {"path": "/kept"},
    })
}

/// Sends what nobody wants kept, on each way in; says how many were dropped and how many anonymised.
async fn send_everything(rivulet: &Rivulet) {
    let strict = rivulet.client();
    let json = ("content-type", "application/json");
    let agent = ("user-agent", FORBIDDEN);
    let granted = person("page_view", true).to_string();
    let answer = strict.send_with(&[json, agent, ("sec-gpc", "1")], granted.clone()).await;
    assert_eq!((answer.status, answer.statuses()), (422, vec!["rejected"]), "{}", answer.text);
    assert_eq!(answer.verdicts()[0]["reason"]["code"], "event.no_consent");
    assert_eq!(answer.verdicts()[0]["reason"]["keyword"], "gpc");
    let answer = strict.send_with(&[json, agent, ("dnt", "1")], granted.clone()).await;
    assert_eq!(answer.statuses(), ["accepted"], "{}", answer.text);
    let told = answer.verdicts()[0]["warnings"].to_string();
    assert!(told.contains("privacy.anonymised") && told.contains("dnt"), "{told}");

    // Without consent, readable or not: a stream of lines.
    let refused = person("page_view", false).to_string();
    let lines = [refused.clone(), format!("{{\"user_id\":\"{FORBIDDEN}\","), "x".repeat(70_000) + FORBIDDEN]
        .join("\n");
    let answer = strict.send_with(&[("content-type", "application/x-ndjson"), agent], lines).await;
    assert_eq!(answer.statuses(), ["rejected"; 3], "{}", answer.text);
    let mild = rivulet.client().with_key("wk_mild");
    let mut broken = person("add_to_cart", false);
    broken["metadata"] = json!({"quantity": "two"});
    let lines = [
        person("page_view", false).to_string(),
        broken.to_string(),
        format!("{{\"user_id\":\"{FORBIDDEN}\","),
    ];
    let answer = mild.send_with(&[("content-type", "application/x-ndjson"), agent], lines.join("\n")).await;
    assert_eq!(answer.statuses(), ["accepted", "rejected", "rejected"], "{}", answer.text);

    let pixel =
        format!("/v1/pixel.gif?key=wk_dev&event_type=page_view&user_id={FORBIDDEN}&metadata.path=%2F");
    let headers = [("sec-gpc", "1"), agent, ("referer", FORBIDDEN)];
    assert_eq!(
        strict.keyless().request(reqwest::Method::GET, &pixel, &headers, None).await.unwrap().status,
        422
    );
    let (mut socket, _) = Socket::hello(rivulet.address(), None).await;
    let events = [person("page_view", false)];
    let ack = socket.acked(1, &events).await;
    assert_eq!(ack["events"][0]["reason"]["keyword"], "consent", "{ack}");
}

fn config() -> Options {
    let spread = "\n[log]\nsegment_bytes = 4096\n".to_owned();
    Options { config: Some(KEYS.to_owned() + &spread), ..Options::default() }
}

async fn nothing_is_left(mut rivulet: Rivulet) {
    let words = spellings();
    let metrics = rivulet.metrics().await;
    rivulet.terminate(SOON).await;
    let found = holding(&rivulet.data(), &words);
    assert!(found.is_empty(), "on disk: {found:?}");
    let shown = rivulet.stderr() + &metrics;
    assert!(words.iter().all(|word| !shown.contains(word)), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_objects_is_dropped_or_made_nobody_before_anything_is_kept() {
    let _timed = Timed::new("consent");
    let rivulet = Rivulet::with(config()).await;
    send_everything(&rivulet).await;
    let kept = log::events(&rivulet).await;
    assert_eq!(kept.len(), 2, "{kept:?}");
    for record in &kept {
        assert!(record.key.starts_with("none:"), "{}", record.line);
        assert_eq!(record.value["metadata"]["path"], "/kept", "{}", record.line);
        assert!(
            record.value["receipt"]["ip"].is_null() && record.value["context"].is_null(),
            "{}",
            record.line
        );
    }
    // The broken event without its person, and a line of what could not be read; of what is dropped, nothing.
    let quarantine = log::cat(&rivulet, "rivulet.quarantine").await;
    assert_eq!(quarantine.len(), 2, "{quarantine:?}");
    assert!(
        quarantine.iter().any(|record| record.value["raw"].as_str().is_some_and(|raw| raw.contains("two")))
    );
    for (source, cause, action, count) in [
        ("strict", "gpc", "drop", 2),
        ("strict", "dnt", "anonymise", 1),
        ("strict", "consent", "drop", 4),
        ("mild", "consent", "anonymise", 3),
    ] {
        let labels =
            [format!("source=\"{source}\""), format!("cause=\"{cause}\""), format!("action=\"{action}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let counted = rivulet.metric("rivulet_gateway_objected_events_total", &labels).await;
        assert_eq!(counted, Some(count), "{source} {cause}");
    }
    let labels = ["source=\"strict\"", "outcome=\"discarded\""];
    assert_eq!(
        rivulet.metric("rivulet_gateway_events_total", &labels).await,
        Some(4),
        "dropped for its objection alone"
    );
    faults::eventually("the processor is past them", SOON, async || {
        rivulet.metric("rivulet_processor_records_total", &[]).await.filter(|records| *records >= 2)
    })
    .await;
    nothing_is_left(rivulet).await;
}

/// Nobody listens there.
const NO_BROKER: &str = "127.0.0.1:1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_is_it_in_a_spool_whose_broker_is_away() {
    let _timed = Timed::new("consent: spool");
    let rivulet = Rivulet::with(Options { kafka: Some(NO_BROKER.to_owned()), ..config() }).await;
    send_everything(&rivulet).await;
    let one = json!({"event_type": "page_view", "user_id": "somebody", "consent": {"analytics": true}, "metadata": {"path": "/"}});
    let ok = rivulet.client().send(events::array(&[one])).await;
    assert_eq!(ok.status, 200, "{}", ok.text);
    nothing_is_left(rivulet).await;
}
