//! Keys: what they allow, how they change while the program runs, and what a leaked one can do.

use serde_json::{Value, json};
use tests::client::Client;
use tests::events::{self, Random};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::{Options, Rivulet};

const SHOP: &str = "https://shop.example";

/// A program with these keys in a file of their own.
async fn with_keys(keys: &str) -> Rivulet {
    let options = Options {
        files: vec![("keys.toml".to_owned(), keys.to_owned())],
        env: vec![("RIVULET__KEYS_FILE".to_owned(), "{dir}/keys.toml".to_owned())],
        ..Options::default()
    };
    Rivulet::with(options).await
}

/// The secret key that every file of these tests has.
const SERVER: &str = "[[keys]]\nname = \"server\"\nkey = \"sk_dev\"\nkind = \"secret\"\n";

/// A file with the public key `web` of that text, the lines in `more`, and the secret key.
fn file(key: &str, more: &str) -> String {
    format!(
        "{SERVER}[[keys]]\nname = \"web\"\nkey = \"{key}\"\nkind = \"public\"\norigins = [\"{SHOP}\"]\n{more}\n"
    )
}

fn views(random: &mut Random, count: usize) -> Vec<Value> {
    (0..count).map(|_| events::page_view(random, &events::of_user("keys-user"))).collect()
}

async fn status(client: &Client, random: &mut Random) -> u16 {
    client.send(views(random, 1)[0].to_string()).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_with_overlap_while_the_program_runs_and_a_broken_file_changes_nothing() {
    let _timed = Timed::new("keys: reload");
    let rivulet = with_keys(&file("wk_old", "")).await;
    let mut random = Random::seeded("keys: reload");
    let [old, new] = ["wk_old", "wk_new"].map(|key| rivulet.client().with_key(key));
    assert_eq!((status(&old, &mut random).await, status(&new, &mut random).await), (200, 401));

    let path = rivulet.path("keys.toml");
    let replace = |text: &str| {
        std::fs::write(rivulet.path("keys.next"), text).unwrap();
        std::fs::rename(rivulet.path("keys.next"), &path).unwrap();
    };
    replace(&file("wk_new", "previous = [{ key = \"wk_old\" }]"));
    faults::eventually("the new key is taken", SOON, async || {
        (status(&new, &mut random).await == 200).then_some(())
    })
    .await;
    assert_eq!(status(&old, &mut random).await, 200, "both are good while pages move to the new one");

    replace("[[keys]]\nname = \"web\"\nkey = \"wk_hush\nkind = \"public\"\n");
    faults::eventually("the broken file is counted", SOON, async || {
        rivulet.metric("rivulet_gateway_keys_stale", &[]).await.filter(|stale| *stale == 1)
    })
    .await;
    assert_eq!((status(&old, &mut random).await, status(&new, &mut random).await), (200, 200));
    let stderr = rivulet.stderr();
    assert!(stderr.contains("the keys file is broken") && !stderr.contains("wk_hush"), "{stderr}");

    replace(&file("wk_new", "previous = [{ key = \"wk_old\", expires_at = \"2024-01-01T00:00:00Z\" }]"));
    faults::eventually("the old key ends", SOON, async || {
        (status(&old, &mut random).await == 401).then_some(())
    })
    .await;
    let answer = old.send(views(&mut random, 1)[0].to_string()).await;
    assert_eq!(answer.code(), "key.expired");
    assert_eq!(status(&new, &mut random).await, 200);
    assert_eq!(rivulet.metric("rivulet_gateway_keys_stale", &[]).await, Some(0));

    let sources: Vec<Value> = log::events(&rivulet)
        .await
        .into_iter()
        .map(|record| record.value["receipt"]["source"].clone())
        .collect();
    assert!(sources.iter().all(|source| source == "web"), "the source's name survives: {sources:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaked_public_key_can_neither_read_nor_flood() {
    let _timed = Timed::new("keys: leaked");
    let rivulet = with_keys(&file(
        "wk_leaked",
        "require_origin = true\nevents_per_second = 1\nburst_events = 20\nevents_per_day = 30\nevent_types = [\"page_view\"]",
    ))
    .await;
    let mut random = Random::seeded("keys: leaked");
    let leaked = rivulet.client().with_key("wk_leaked");
    assert_eq!(leaked.send(views(&mut random, 1)[0].to_string()).await.status, 403, "no origin");
    let page = [("content-type", "application/json"), ("origin", SHOP)];

    let mut accepted = 0;
    for _ in 0..20 {
        let answer = leaked.send_with(&page, events::array(&views(&mut random, 50))).await;
        assert!([207, 429].contains(&answer.status), "{}", answer.text);
        let wait: u64 = answer.header("retry-after").expect("when to come back").parse().unwrap();
        assert!(wait >= 1);
        accepted += answer.statuses().iter().filter(|status| **status == "accepted").count();
    }
    assert!((20..=30).contains(&accepted), "{accepted} of 1,000 events");
    assert_eq!(log::events(&rivulet).await.len(), accepted);
    let labels = ["source=\"web\""];
    let received = rivulet.metric("rivulet_gateway_events_received_total", &labels).await;
    assert_eq!(received, Some(1_000));
    let outcomes = rivulet.metric("rivulet_gateway_events_total", &labels).await;
    assert_eq!(outcomes, Some(1_000), "each has its one outcome");

    for path in ["/v1/profiles/user:keys-user", "/v1/tail", "/v1/fate/123e4567-e89b-12d3-a456-426614174000"] {
        let answer = leaked.request(reqwest::Method::GET, path, &[("origin", SHOP)], None).await.unwrap();
        assert!([401, 403].contains(&answer.status), "{path}: {}", answer.text);
    }
    let mint = leaked.post("/v1/tokens", &[("origin", SHOP)], r#"{"user_id":"keys-user"}"#).await.unwrap();
    assert_eq!((mint.status, mint.code()), (403, "key.secret_required"));
    let others = rivulet.secret();
    assert_eq!(status(&others, &mut random).await, 200, "others notice nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_joins_a_known_user_only_with_a_token_for_that_user() {
    let _timed = Timed::new("keys: tokens");
    let rivulet = with_keys(&file("wk_dev", "")).await;
    let mut random = Random::seeded("keys: tokens");
    let client = rivulet.client();
    let mut identify = |device: &str| {
        events::event(
            &mut random,
            "identify",
            &json!({"user_id": "u1", "anonymous_id": device}),
            &json!({"traits": {}}),
        )
    };
    let (first, forged, vouched) = (identify("a1"), identify("a2"), identify("a3"));
    let asked = json!({"source": "web", "origin": SHOP, "user_id": "u1"}).to_string();
    let minted = rivulet.secret().post("/v1/tokens", &[], asked).await.unwrap();
    let token = minted.json["token"].as_str().expect("a token").to_owned();
    let page = [("content-type", "application/json"), ("origin", SHOP)];
    for event in [&first, &forged] {
        assert_eq!(client.send_with(&page, event.to_string()).await.status, 200);
    }
    let with_token = client.with_key(&token).send_with(&page, vouched.to_string()).await;
    assert_eq!(with_token.status, 200, "{}", with_token.text);
    let elsewhere = [("content-type", "application/json"), ("origin", "https://evil.example")];
    let stolen = client.with_key(&token).send_with(&elsewhere, vouched.to_string()).await;
    assert_eq!((stolen.status, stolen.code()), (403, "key.origin_not_allowed"));

    let profile = faults::eventually("the vouched device joins", SOON, async || {
        let profile = rivulet.profile("user:u1").await?;
        profile["devices"].as_array().is_some_and(|devices| devices.contains(&json!("a3"))).then_some(profile)
    });
    let profile = profile.await;
    assert_eq!(profile["devices"], json!(["a1", "a3"]), "{profile}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_configured_control_key_a_processor_without_state_believes_what_its_predecessor_wrote() {
    let _timed = Timed::new("keys: control key");
    for configured in [true, false] {
        let mut options = Options::default();
        if configured {
            options = options.set("processor", "control_key", "c".repeat(32));
        }
        let mut rivulet = Rivulet::with(options).await;
        let mut random = Random::seeded("keys: control key");
        let client = rivulet.client();
        let device = events::page_view(&mut random, &events::of_device("a1"));
        let who = json!({"user_id": "u1", "anonymous_id": "a1"});
        let joins = events::event(&mut random, "identify", &who, &json!({"traits": {}}));
        for event in [&device, &joins] {
            assert_eq!(client.send(event.to_string()).await.status, 200);
        }
        let joined = async |rivulet: &Rivulet| {
            let what = "the device's history is the user's";
            faults::eventually(what, SOON, async || {
                rivulet.profile("user:u1").await.filter(|profile| profile["counters"]["page_view"] == 1)
            })
            .await
        };
        joined(&rivulet).await;
        rivulet.terminate(SOON).await;
        std::fs::remove_dir_all(rivulet.data().join("processor")).unwrap();
        rivulet.start().await;
        // Without the key the predecessor's records count as forged, and are put aside and written anew.
        joined(&rivulet).await;
        let aside = log::cat(&rivulet, "rivulet.quarantine").await;
        assert_eq!(aside.is_empty(), configured, "{aside:?}");
    }
}
