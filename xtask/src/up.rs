//! `xtask up`: from a fresh clone to a running program with demo shop and console.
//!
//! **Invariant:** a step whose inputs did not change is skipped; the last step becomes the program itself, so that Ctrl-C and
//! its exit code are the program's own.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::stamp::Stamp;
use crate::{kafka, sdk, step, toolchain, web};

const SDK: Stamp = Stamp {
    name: "sdk",
    inputs: &[
        "Cargo.lock",
        "Cargo.toml",
        "package-lock.json",
        "schemas/Cargo.toml",
        "schemas/src",
        "sdk-wasm/Cargo.toml",
        "sdk-wasm/js",
        "sdk-wasm/src",
        "xtask/bindgen",
        "xtask/src/sdk.rs",
    ],
    outputs: &["sdk-wasm/dist/rivulet.js", "sdk-wasm/dist/core.wasm", "sdk-wasm/dist/stub.js"],
};

/// What the user asked of us, apart from what is passed on.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    release: bool,
    /// `--kafka` without an address.
    own_kafka: bool,
    passed_on: Vec<String>,
}

/// Builds everything and becomes `rivulet up`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let start = Instant::now();
    let mut options = read(args);
    toolchain::need_build_tools()?;
    assets()?;
    let profile = if options.release { "release" } else { "debug" };
    build_program(options.release)?;
    if options.own_kafka {
        let address = kafka::ensure_started()?;
        println!("    Kafka answers on {address} and goes on running; `cargo xtask kafka stop` stops it");
        options.passed_on.extend(["--kafka".to_owned(), address]);
    }
    let binary = step::target_dir().join(profile).join("rivulet");
    println!("==> rivulet up (everything ready after {}; Ctrl-C stops it)", step::seconds(start.elapsed()));
    // The caller's folder stays the working directory: relative paths among the arguments are theirs.
    let mut program = Command::new(binary);
    program.arg("up").args(&options.passed_on);
    become_program(program)
}

/// What the binary embeds: the browser SDK, the demo and the console.
pub(crate) fn assets() -> Result<()> {
    toolchain::ensure_wasm_target()?;
    web::install()?;
    if SDK.is_fresh() {
        step::skip("build the browser SDK", "unchanged");
    } else {
        step::step("build the browser SDK", || {
            sdk::run(&[])?;
            SDK.renew()
        })?;
    }
    web::build()
}

fn build_program(release: bool) -> Result<()> {
    let what = if release { "build rivulet (release)" } else { "build rivulet" };
    step::step(&format!("{what}; the first time takes minutes"), || {
        let mut cargo = step::cargo();
        // Of the whole workspace, so that the tests find the same dependencies built.
        cargo.args(["build", "--workspace", "--bin", "rivulet"]);
        if release {
            cargo.arg("--release");
        }
        step::run(&mut cargo)
    })
}

fn read(args: &[String]) -> Options {
    let mut options = Options { release: false, own_kafka: false, passed_on: Vec::new() };
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--" => {}
            "--release" => options.release = true,
            "--kafka" if args.peek().is_none_or(|next| next.starts_with('-')) => options.own_kafka = true,
            _ => options.passed_on.push(arg.clone()),
        }
    }
    options
}

#[cfg(unix)]
fn become_program(mut program: Command) -> Result<()> {
    let error = std::os::unix::process::CommandExt::exec(&mut program);
    Err(error).with_context(|| format!("cannot start {}", program.get_program().to_string_lossy()))
}

#[cfg(not(unix))]
fn become_program(mut program: Command) -> Result<()> {
    step::run(&mut program).context("rivulet")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Options {
        read(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_not_ours_is_passed_on() {
        let options = of("--release -- --listen 127.0.0.1:1 --kafka 127.0.0.1:9092");
        assert!(options.release && !options.own_kafka);
        assert_eq!(options.passed_on, ["--listen", "127.0.0.1:1", "--kafka", "127.0.0.1:9092"]);
    }

    #[test]
    fn kafka_without_an_address_starts_a_broker() {
        assert!(of("--kafka").own_kafka);
        let options = of("--kafka --data dir");
        assert!(options.own_kafka);
        assert_eq!(options.passed_on, ["--data", "dir"]);
    }
}
