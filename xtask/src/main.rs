//! Build and test commands of this workspace: `cargo xtask <command>`.
//!
//! **Invariant:** depends on std and anyhow alone, so that it builds in seconds on a fresh machine; whatever it needs beyond
//! that it runs as a program, and when a program is missing it says in one sentence what to do.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to the terminal")]
#![expect(clippy::disallowed_methods, reason = "a build tool may ask the clock and the environment")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

mod flags;
mod kafka;
#[path = "../../tests/src/kafka_node.rs"]
mod kafka_node;
mod operators;
mod sdk;
mod setup;
mod stages;
mod stamp;
mod step;
mod tidy;
mod toolchain;
mod up;
mod web;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <command>

  up [--release] [args]     build everything and run `rivulet up`; args go to it; `--kafka` alone starts a broker first
  test [all | stage ...]    install what the tests need and run every stage; `all` adds what is too slow for that;
                            or only the stages named: lint build unit it api web torture
                            deny doc operators slow-it long-torture
  ci                        the stages of `test`, without installing anything
  tidy                      what no compiler checks: boundaries, documents, file sizes, texts
  setup                     install what the tests need
  sdk                       build the browser SDK into sdk-wasm/dist
  web                       build the demo shop and the console into web-demo/dist
  kafka fetch               fetch the jars of a real broker into .components/kafka/libs
  kafka start | stop | status   [--dir DIR] [--port PORT]   run one broker on 127.0.0.1
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> anyhow::Result<()> {
    let Some((command, rest)) = args.split_first() else {
        print!("{HELP}");
        return Ok(());
    };
    match command.as_str() {
        "up" => up::run(rest),
        "test" => stages::test(rest),
        "ci" => stages::ci(rest),
        "tidy" => tidy::run(rest),
        "setup" => setup::run(rest),
        "sdk" => sdk::run(rest),
        "web" => web::run(rest),
        "kafka" => kafka::run(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => anyhow::bail!("there is no command `{other}`; `cargo xtask help` lists them"),
    }
}
