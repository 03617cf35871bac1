//! The program and its own description agree. A stage of its own (`cargo xtask test api`), because Schemathesis takes its time.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tests::faults::{self, Timed};
use tests::rivulet::Rivulet;
use tokio::process::Command;

/// What has no end, or is no answer.
const ENDLESS: &[&str] = &["/v1/tail", "/v1/stream"];
/// How long cases are made up, seconds.
const SECONDS: &str = "25";
/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(90);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs it against the program, by a document that stands in a file or at the program itself.
async fn schemathesis(rivulet: &Rivulet, document: &str, arguments: &[&str]) -> Output {
    let program = root().join(".components/schemathesis/bin/st");
    assert!(program.exists(), "`cargo xtask setup` installs Schemathesis");
    let mut command = Command::new(program);
    // What it found before would decide what it tries now.
    command.current_dir(rivulet.data().parent().unwrap());
    command.arg("--config-file").arg(root().join("tests/schemathesis.toml"));
    command.args(["run", document, "--url", &format!("http://{}", rivulet.address())]);
    command.args(["--no-color", "--seed", "1", "--request-timeout", "10", "--continue-on-failure"]);
    command.args(["-H", "Authorization: Bearer sk_dev"]).args(arguments);
    command.stdin(Stdio::null()).kill_on_drop(true);
    faults::bounded("Schemathesis ends", LIMIT, command.output()).await.expect("it starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_answer_that_is_not_described() {
    let _timed = Timed::new("openapi");
    let rivulet = Rivulet::up().await;
    let document = format!("http://{}/v1/openapi.json", rivulet.address());
    let excluded = ENDLESS.iter().flat_map(|path| ["--exclude-path", path]);
    let arguments: Vec<&str> =
        ["--phases", "coverage,fuzzing", "--max-examples", "20", "--max-time", SECONDS]
            .into_iter()
            .chain(excluded)
            .collect();
    let run = schemathesis(&rivulet, &document, &arguments).await;
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("16 selected"), "{said}");

    // The same by a description that is wrong in one word: that must be found.
    let text = rivulet.client().get("/v1/openapi.json").await.unwrap().text;
    let wrong = rivulet.path("wrong.json");
    assert!(text.contains("\"batch_events\""));
    std::fs::write(&wrong, text.replace("\"batch_events\"", "\"batch_event\"")).unwrap();
    let run = schemathesis(
        &rivulet,
        &wrong.display().to_string(),
        &["--phases", "coverage", "--include-path", "/v1/limits"],
    )
    .await;
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(!run.status.success() && said.contains("batch_event"), "{said}");
}
