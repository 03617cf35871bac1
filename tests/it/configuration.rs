//! What can be set: by file, environment and flags, in this order; and what is refused, by name.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tests::events::{self, Random, of_user};
use tests::faults::{self, Timed};
use tests::log;
use tests::rivulet::{Options, Rivulet};

/// A refusal needs no deadline of its own; a program that runs instead is stopped by this one.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);

/// Programs started at the same time.
const AT_ONCE: usize = 4;

const FILE: &str = r#"
[log]
partitions = 3
[gateway]
event_bytes = 1000
batch_events = 7
[gateway.socket]
credit = 2
[processor]
session_gap_minutes = 5
[demo]
enabled = false
[[keys]]
name = "shop"
key = "wk_shop"
kind = "public"
origins = ["https://shop.example"]
unknown_types = "reject"
ack = "received"
[[keys]]
name = "backend"
key = "sk_backend"
kind = "secret"
event_types = ["purchase"]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_is_followed_the_environment_wins_over_it_and_flags_over_both() {
    let _timed = Timed::new("configuration: layers");
    let options = Options { config: Some(FILE.to_owned()), ..Options::default() };
    // The flag `--listen` that every test gives wins over this.
    let mut options = options.set("gateway", "event_bytes", 2_000);
    options.env.push(("RIVULET__LISTEN".to_owned(), "127.0.0.1:1".to_owned()));
    let rivulet = Rivulet::with(options).await;
    let client = rivulet.client().with_key("wk_shop");
    let limits = client.get("/v1/limits").await.unwrap().json;
    assert_eq!((&limits["event_bytes"], &limits["batch_events"]), (&2_000.into(), &7.into()), "{limits}");
    assert_eq!(client.get("/console/").await.unwrap().status, 404, "the demo is off");

    let mut random = Random::new(60);
    let mut view = |user: &str| events::page_view(&mut random, &of_user(user));
    let allowed = [("origin", "https://shop.example")];
    let answer = client.send_with(&allowed, view("u").to_string()).await;
    assert_eq!(answer.verdicts()[0]["acked"], "received", "the key's own level: {}", answer.text);
    let foreign = client.send_with(&[("origin", "http://localhost:80")], view("u").to_string()).await;
    assert_eq!(foreign.code(), "key.origin_not_allowed", "{}", foreign.text);
    let unknown = client.send(r#"{"event_type":"x_custom","user_id":"u"}"#).await;
    assert_eq!(unknown.verdicts()[0]["reason"]["code"], "schema.unknown", "{}", unknown.text);
    let other = rivulet.client().with_key("sk_backend").send(view("u").to_string()).await;
    assert_eq!(other.verdicts()[0]["reason"]["code"], "event.type_not_allowed", "{}", other.text);
    for unset in [rivulet.client(), rivulet.secret()] {
        assert_eq!(unset.send(view("u").to_string()).await.code(), "key.unknown", "the defaults are gone");
    }
    for n in 0..40 {
        client.send(view(&format!("u{n}")).to_string()).await;
    }
    let records = faults::eventually("all are on the log", REFUSED_WITHIN, async || {
        let records = log::events(&rivulet).await;
        (records.len() == 41).then_some(records)
    });
    let records = records.await;
    assert!(records.iter().all(|record| record.value["receipt"]["source"] == "shop"));
    let highest = records.iter().map(|record| record.partition).max();
    assert_eq!(highest, Some(2), "three partitions");
}

/// The file's text, environment, and what the refusal must name.
const WRONG: [(&str, &[(&str, &str)], &[&str]); 37] = [
    ("listen = ", &[], &["wrong.toml", "line 1"]),
    ("listen = \"nowhere\"", &[], &["listen"]),
    ("listen = \"127.0.0.1\"", &[], &["listen"]),
    ("no_such_option = 1", &[], &["no_such_option"]),
    ("[no_such_section]\na = 1", &[], &["no_such_section"]),
    ("[gateway]\nno_such_option = 1", &[], &["no_such_option"]),
    ("[gateway.socket]\nno_such_option = 1", &[], &["no_such_option"]),
    ("[server]\nno_such_option = 1", &[], &["no_such_option"]),
    ("[log]\npartition = 8", &[], &["partition"]),
    ("[kafka]\nbroker = \"x:1\"", &[], &["broker"]),
    ("[processor]\nrule = \"x\"", &[], &["rule"]),
    ("[log]\nsegment_bytes = \"big\"", &[], &["segment_bytes"]),
    ("[log]\nsegment_bytes = -1", &[], &["segment_bytes"]),
    ("[log]\nsegment_bytes = 0", &[], &["segment_bytes"]),
    ("[log]\npartitions = 0", &[], &["partitions"]),
    ("[kafka]\nbrokers = \"\"", &[], &["kafka.brokers"]),
    ("[kafka]\nbrokers = \"x:1\"\npartitions = 0", &[], &["kafka.partitions"]),
    ("[gateway]\nevent_bytes = 0", &[], &["event_bytes"]),
    ("[gateway]\nbatch_bytes = 10", &[], &["batch_bytes"]),
    ("[gateway]\nin_flight_bytes = 1", &[], &["in_flight_bytes"]),
    ("[gateway]\ndepth = 1000", &[], &["depth"]),
    ("[gateway]\nack = \"heaven\"", &[], &["ack"]),
    ("[gateway.socket]\ncredit = 0", &[], &["credit"]),
    ("[gateway]\ntrusted_proxies = [\"everybody\"]", &[], &["trusted_proxies"]),
    ("[[keys]]\nname = \"web\"\nkind = \"public\"", &[], &["key"]),
    ("[[keys]]\nname = \"web\"\nkey = \"k\"\nkind = \"open\"", &[], &["kind"]),
    ("[[keys]]\nname = \"web\"\nkey = \"\"\nkind = \"public\"", &[], &["web"]),
    (
        "[[keys]]\nname = \"web\"\nkey = \"k\"\nkind = \"public\"\norigins = [\"shop\"]",
        &[],
        &["web", "origin"],
    ),
    (
        "[[keys]]\nname=\"a\"\nkey=\"k\"\nkind=\"public\"\n[[keys]]\nname=\"b\"\nkey=\"k\"\nkind=\"secret\"",
        &[],
        &["`b`"],
    ),
    ("[processor]\nrules = \"nowhere.yaml\"", &[], &["nowhere.yaml"]),
    ("[processor]\nmodel = \"nowhere.json\"", &[], &["nowhere.json"]),
    ("[processor]\nsession_gap_minutes = 0", &[], &["session_gap_minutes"]),
    ("[processor]\ndedup_window_hours = 0", &[], &["dedup_window_hours"]),
    ("[schemas]\ndir = \"nowhere\"", &[], &["nowhere"]),
    ("", &[("RIVULET__GATEWAY__NO_SUCH_OPTION", "1")], &["no_such_option"]),
    ("", &[("RIVULET__LOG__PARTITIONS", "many")], &["partitions"]),
    ("listen = \"127.0.0.1:0\"", &[("RIVULET__LISTEN__PORT", "1")], &["RIVULET__LISTEN__PORT"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_by_name_before_anything_is_written() {
    let _timed = Timed::new("configuration: wrong");
    let tries = WRONG.into_iter().map(|(text, env, names)| refused(text, env, names));
    let failures: Vec<Option<String>> = stream::iter(tries).buffer_unordered(AT_ONCE).collect().await;
    let failures: Vec<String> = failures.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What is wrong with a refusal, if anything.
async fn refused(text: &str, env: &[(&str, &str)], names: &[&str]) -> Option<String> {
    let mut options = Options::default();
    options.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let rivulet = Rivulet::prepared(options);
    std::fs::write(rivulet.path("wrong.toml"), text).unwrap();
    let mut arguments = vec!["up", "--data", "data", "--config", "wrong.toml"];
    if !text.contains("listen") {
        arguments.extend(["--listen", "127.0.0.1:0"]);
    }
    let Some(output) = faults::during(REFUSED_WITHIN, rivulet.run(&arguments)).await else {
        return Some(format!("{text:?} {env:?} was accepted"));
    };
    let told = String::from_utf8_lossy(&output.stderr);
    let right = names.iter().all(|name| told.contains(name)) && told.starts_with("error: ");
    if output.status.code() != Some(1) || !right || told.contains("panicked") {
        return Some(format!("{text:?} {env:?}: {} {told}", output.status));
    }
    // The files of these are read when the parts start, which is when the log is there.
    let late = ["[processor]", "[schemas]"].iter().any(|section| text.starts_with(section));
    let made = !late && rivulet.path("data").join("log").exists();
    made.then(|| format!("{text:?} {env:?}: a log was made all the same"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_models_and_schemas_that_cannot_be_read_are_refused_with_file_and_place() {
    let _timed = Timed::new("configuration: files");
    for (section, option, name, text, place) in [
        ("processor", "rules", "rules.yaml", "rules: [", "rules.yaml"),
        ("processor", "rules", "rules.yaml", "rules:\n  - name: a\n    on: x\n    wehn: 1\n", "wehn"),
        (
            "processor",
            "rules",
            "rules.yaml",
            "rules:\n  - name: a\n    on: x\n    decide: { slot: s }\n    cooldown: soon\n",
            ":5:15",
        ),
        ("processor", "model", "model.json", "{\"weights\":", "model.json"),
    ] {
        let rivulet = Rivulet::prepared(Options::default().set(section, option, format!("{{dir}}/{name}")));
        std::fs::write(rivulet.path(name), text).unwrap();
        let output = rivulet.run(&["up", "--data", "data", "--listen", "127.0.0.1:0"]);
        let output = faults::bounded(name, REFUSED_WITHIN, output).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(name) && told.contains(place), "{text:?}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_program_on_a_folder_or_port_is_refused_and_says_what_to_do() {
    let _timed = Timed::new("configuration: second");
    let rivulet = Rivulet::up().await;
    let data = rivulet.data();
    let data = data.to_string_lossy();
    for (arguments, told) in [
        (["up", "--listen", "127.0.0.1:0", "--data", &*data], ["in use by another process", "--data"]),
        (["gateway", "--listen", "127.0.0.1:0", "--data", &*data], ["in use by another process", "--data"]),
        (["up", "--listen", rivulet.address(), "--data", "other"], ["cannot listen on", "--listen"]),
        (["up", "--listen", "127.0.0.1:0", "--data", "stderr.log"], ["stderr.log", "cannot"]),
    ] {
        let output = faults::bounded("a refusal", REFUSED_WITHIN, rivulet.run(&arguments)).await;
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(told.iter().all(|word| text.contains(word)), "{arguments:?}: {text}");
    }
    let answer = rivulet.client().keyless().get("/ready").await.unwrap();
    assert_eq!(answer.status, 200, "the first one goes on: {}", answer.text);
}
