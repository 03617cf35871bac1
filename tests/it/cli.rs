//! The command line: it says what it can do and does what it says.

use serde_json::Value;
use tests::events::{self, EXAMPLE, EXAMPLE_ID, Random, of_user};
use tests::faults::Timed;
use tests::log;
use tests::rivulet::{Options, Rivulet};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_documents_every_command_and_every_option() {
    let _timed = Timed::new("cli: help");
    let rivulet = Rivulet::prepared(Options::default());
    let commands: [&[&str]; 13] = [
        &[],
        &["up"],
        &["gateway"],
        &["processor"],
        &["schema", "check"],
        &["schema", "what-if"],
        &["schema", "types"],
        &["log", "cat"],
        &["fate"],
        &["torture"],
        &["bench", "ingest"],
        &["bench", "process"],
        &["bench", "fate"],
    ];
    for command in commands {
        let output = rivulet.run(&[command, &["--help"]].concat()).await;
        assert!(output.status.success(), "{command:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (place, line) in lines.iter().enumerate().filter(|(_, line)| is_option(line)) {
            // The text stands behind the option or on the next line.
            let behind = line.trim().split("  ").any(|part| part.len() > 8 && !part.trim().starts_with('-'));
            let below = lines
                .get(place + 1)
                .is_some_and(|next| next.trim().len() > 4 && !next.trim().starts_with('-'));
            assert!(behind || below, "{command:?}: no word about `{}`\n{text}", line.trim());
        }
    }
    let up = String::from_utf8(rivulet.run(&["up", "--help"]).await.stdout).unwrap();
    for option in ["--listen", "--data", "--kafka", "--config", "--no-demo"] {
        assert!(up.contains(option), "{option} is not documented");
    }
    let wrong = rivulet.run(&["up", "--no-such-option"]).await;
    assert_eq!(wrong.status.code(), Some(2));
}

// An option, not one of the values of the option above.
fn is_option(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with('-') && !line.starts_with("- ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_cat_prints_one_record_a_line_of_a_running_and_of_a_stopped_program() {
    let _timed = Timed::new("cli: log cat");
    let mut rivulet = Rivulet::up().await;
    let mut random = Random::new(30);
    rivulet.client().send(EXAMPLE).await;
    for n in 0..20 {
        rivulet
            .client()
            .send(events::page_view(&mut random, &of_user(&format!("cat-{n}"))).to_string())
            .await;
    }
    let running = log::events(&rivulet).await;
    assert_eq!(running.len(), 21);
    for record in &running {
        let json: Value = serde_json::from_str(&record.line).unwrap();
        for member in ["topic", "partition", "offset", "key", "headers", "value"] {
            assert!(!json[member].is_null(), "no {member}: {}", record.line);
        }
        assert_eq!(json["topic"], "rivulet.events");
    }
    let data = rivulet.data();
    let data = data.to_str().unwrap();
    let partition = running[0].partition.to_string();
    let one = rivulet
        .run(&["log", "cat", "--data", data, "--topic", "rivulet.events", "--partition", &partition])
        .await;
    let expected = running.iter().filter(|record| record.partition == running[0].partition).count();
    assert_eq!(String::from_utf8(one.stdout).unwrap().lines().count(), expected);
    let last = &running[running.len() - 1];
    let beyond = format!("999,{}={}", last.partition, last.offset);
    let rest = rivulet.run(&["log", "cat", "--data", data, "--from", &beyond]).await;
    assert_eq!(String::from_utf8(rest.stdout).unwrap().trim_end(), last.line, "{beyond}");
    let no_offset = rivulet.run(&["log", "cat", "--data", data, "--from", "3="]).await;
    assert_eq!(no_offset.status.code(), Some(2), "a partition without its offset");

    rivulet.terminate(tests::faults::SOON).await;
    let stopped = log::events(&rivulet).await;
    let ids = |records: &[log::Record]| {
        records.iter().map(|record| record.event_id().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&stopped), ids(&running));

    let unknown = rivulet.run(&["log", "cat", "--data", data, "--topic", "no.such.topic"]).await;
    assert!(!unknown.status.success() && !unknown.stderr.is_empty());
    let nowhere = rivulet.run(&["log", "cat", "--data", "no-such-folder"]).await;
    assert!(!nowhere.status.success() && !nowhere.stderr.is_empty());
    assert!(!rivulet.path("no-such-folder").exists(), "looking does not make a folder");

    let fate = rivulet.run(&["fate", EXAMPLE_ID, "--data", data, "--json"]).await;
    let fate: Value = serde_json::from_slice(&fate.stdout).unwrap();
    assert_eq!(fate["outcome"], "accepted", "{fate}");
    let spelled = rivulet.run(&["fate", &EXAMPLE_ID.to_uppercase(), "--data", data]).await;
    assert!(spelled.status.success() && !spelled.stdout.is_empty());
    let never =
        rivulet.run(&["fate", "11111111-1111-4111-8111-111111111111", "--data", data, "--json"]).await;
    let never: Value = serde_json::from_slice(&never.stdout).unwrap();
    assert_eq!(never["outcome"], "unknown", "{never}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_check_accepts_ours_and_names_what_is_wrong_with_others() {
    let _timed = Timed::new("cli: schema check");
    let rivulet = Rivulet::prepared(Options::default());
    let ours = rivulet.run(&["schema", "check"]).await;
    assert!(ours.status.success(), "{}", String::from_utf8_lossy(&ours.stderr));
    let folder = rivulet.path("schemas").join("page_view");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("1.json"), r#"{"type":"objekt"}"#).unwrap();
    let wrong = rivulet.run(&["schema", "check", "schemas"]).await;
    assert_eq!(wrong.status.code(), Some(1));
    let told = [wrong.stdout, wrong.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("page_view"), "names the file: {told}");
}
