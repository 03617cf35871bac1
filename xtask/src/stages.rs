//! `xtask test` and `xtask ci`: the stages that decide whether a change lands.
//!
//! **Invariant:** every dependency is built once: each Cargo call takes the whole workspace in the same profile. A stage that
//! fails ends the run; one that is over its budget is named at the end, but a busy machine alone fails nothing. The table of
//! times is printed either way.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::step::Tally;
use crate::{kafka, operators, setup, step, tidy, up, web};

/// One stage; its budget is for two cold cores.
struct Stage {
    name: &'static str,
    budget: Duration,
    work: fn(&mut Tally) -> Result<()>,
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// What `test` and `ci` run, in this order. Whatever is too slow for its budget belongs to [`SLOW`].
const STAGES: &[Stage] = &[
    Stage { name: "lint", budget: minutes(1), work: lint },
    Stage { name: "build", budget: minutes(15), work: build },
    Stage { name: "unit", budget: minutes(3), work: unit },
    Stage { name: "it", budget: minutes(8), work: integration },
    Stage {
        name: "api",
        budget: minutes(1),
        work: |tally| count(tally, cargo_test(&["--test", "it"], &[API_TESTS])),
    },
    Stage { name: "web", budget: minutes(5), work: web },
    Stage { name: "torture", budget: minutes(3), work: torture },
];

/// What only `test all` runs.
const SLOW: &[Stage] = &[
    Stage { name: "deny", budget: minutes(15), work: deny },
    Stage { name: "doc", budget: minutes(15), work: doc },
    Stage { name: "operators", budget: minutes(5), work: |_| operators::check() },
    Stage {
        name: "slow-it",
        budget: minutes(5),
        work: |tally| count(tally, cargo_test(&["--test", "it"], &SLOW_TESTS)),
    },
    Stage { name: "long-torture", budget: minutes(60), work: long_torture },
];

/// Tests of `it` that restart the program before a broker many times, or flood it.
const SLOW_TESTS: [&str; 2] = ["spool_position::", "overload::ten_times"];

/// Schemathesis, which takes its time, against the program.
const API_TESTS: &str = "openapi::";

/// Kills that the crash tests ask for in `test all`.
const LONG_KILLS: &str = "500";

struct Timing {
    name: &'static str,
    took: Duration,
    budget: Duration,
    tally: Tally,
}

/// `xtask test [all | stage …]`.
pub(crate) fn test(args: &[String]) -> Result<()> {
    if let Some(unknown) = args.iter().find(|arg| *arg != "all" && find(arg).is_none()) {
        let names: Vec<&str> = STAGES.iter().chain(SLOW).map(|stage| stage.name).collect();
        bail!("there is no stage `{unknown}`; there are {} and `all`", names.join(", "));
    }
    setup::run(&[])?;
    if args.is_empty() {
        return run(STAGES.iter());
    }
    if args.iter().any(|arg| arg == "all") {
        return run(STAGES.iter().chain(SLOW));
    }
    run(args.iter().filter_map(|arg| find(arg)))
}

/// `xtask ci`.
pub(crate) fn ci(_args: &[String]) -> Result<()> {
    run(STAGES.iter())
}

fn find(name: &str) -> Option<&'static Stage> {
    STAGES.iter().chain(SLOW).find(|stage| stage.name == name)
}

fn run(stages: impl Iterator<Item = &'static Stage>) -> Result<()> {
    let mut timings: Vec<Timing> = Vec::new();
    let mut failure = None;
    for stage in stages {
        println!("\n==> stage {}", stage.name);
        let (start, mut tally) = (Instant::now(), Tally::default());
        let result = (stage.work)(&mut tally).with_context(|| format!("stage {}", stage.name));
        timings.push(Timing { name: stage.name, took: start.elapsed(), budget: stage.budget, tally });
        if let Err(error) = result {
            failure = Some(error);
            break;
        }
    }
    print_table(&timings);
    for sentence in over_budget(&timings) {
        println!("warning: {sentence}");
    }
    failure.map_or(Ok(()), Err)
}

fn print_table(timings: &[Timing]) {
    println!("\n{:<14}{:>9}{:>9}{:>9}{:>9}", "stage", "seconds", "budget", "passed", "failed");
    let mut sum = Tally::default();
    for timing in timings {
        let (took, budget) = (timing.took.as_secs(), timing.budget.as_secs());
        println!(
            "{:<14}{took:>9}{budget:>9}{:>9}{:>9}",
            timing.name, timing.tally.passed, timing.tally.failed
        );
        sum += timing.tally;
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
}

fn over_budget(timings: &[Timing]) -> Vec<String> {
    let over = timings.iter().filter(|timing| timing.took > timing.budget);
    over.map(|Timing { name, took, budget, .. }| {
        let (took, budget) = (step::seconds(*took), step::seconds(*budget));
        format!(
            "stage {name} took {took}, its budget is {budget}: make it faster, or move what is slow to `xtask test all`"
        )
    })
    .collect()
}

/// A tool of Rust's, if it is there: a minimal toolchain has neither rustfmt nor clippy.
fn need_component(program: &str, component: &str) -> Result<()> {
    let found = step::output(step::cargo().args([program, "--version"]));
    found.map(drop).with_context(|| format!("`rustup component add {component}` brings what is missing"))
}

fn lint(_: &mut Tally) -> Result<()> {
    need_component("fmt", "rustfmt")?;
    step::run(step::cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt --all` puts it right")?;
    tidy::texts()
}

fn build(_: &mut Tally) -> Result<()> {
    up::assets()?;
    web::check_snippet()?;
    step::step("build the workspace", || {
        step::run(step::cargo().args(["build", "--workspace", "--all-targets"]))
    })?;
    need_component("clippy", "clippy")?;
    step::step("clippy", || {
        step::run(step::cargo().args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step::step("types of the web parts", || {
        step::run(step::command("npm").args(["run", "check", "--silent", "--workspaces", "--if-present"]))
    })?;
    tidy::builds()
}

fn unit(tally: &mut Tally) -> Result<()> {
    count(tally, cargo_test(&["--lib", "--bins"], &[]))
}

fn integration(tally: &mut Tally) -> Result<()> {
    let skipped = ["crash::", API_TESTS, SLOW_TESTS[0], SLOW_TESTS[1]].map(|name| ["--skip", name]);
    count(tally, cargo_test(&["--test", "*"], skipped.as_flattened()))
}

fn torture(tally: &mut Tally) -> Result<()> {
    count(tally, cargo_test(&["--test", "it"], &["crash::"]))
}

fn web(tally: &mut Tally) -> Result<()> {
    let mut npm = step::command("npm");
    npm.args(["test", "--silent", "--workspaces", "--if-present"]);
    count(tally, npm)
}

fn long_torture(tally: &mut Tally) -> Result<()> {
    let mut cargo = cargo_test(&["--test", "it"], &["crash::"]);
    cargo.env("RIVULET_KILLS", LONG_KILLS);
    count(tally, cargo)
}

fn doc(tally: &mut Tally) -> Result<()> {
    step::run(step::cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    count(tally, cargo_test(&["--doc"], &[]))
}

fn deny(_: &mut Tally) -> Result<()> {
    if !step::exists("cargo-deny") {
        step::step("build cargo-deny", || {
            step::run(step::cargo().args(["install", "--locked", "--quiet", "cargo-deny"]))
        })?;
    }
    step::run(step::cargo().args(["deny", "check", "licenses", "bans", "sources"]))
}

fn cargo_test(targets: &[&str], filter: &[&str]) -> Command {
    let mut command = step::cargo();
    command.args(["test", "--workspace"]).args(targets).arg("--").args(filter);
    command
}

/// Runs tests and counts them. They find the program and Kafka's jars where the build left them.
fn count(tally: &mut Tally, mut command: Command) -> Result<()> {
    command
        .env("RIVULET_BIN", step::target_dir().join("debug/rivulet"))
        .env("RIVULET_KAFKA_LIBS", kafka::libs());
    let (counted, result) = step::run_tests(&mut command);
    *tally += counted;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(took: u64, budget: u64) -> Timing {
        let (took, budget) = (Duration::from_secs(took), Duration::from_secs(budget));
        Timing { name: "unit", took, budget, tally: Tally::default() }
    }

    #[test]
    fn a_stage_over_its_budget_is_named_in_a_sentence() {
        assert!(over_budget(&[timing(10, 10)]).is_empty());
        let named = over_budget(&[timing(10, 10), timing(11, 10)]);
        assert_eq!(named.len(), 1);
        assert!(named[0].starts_with("stage unit took 11 s, its budget is 10 s"), "{named:?}");
    }

    #[test]
    fn an_unknown_stage_is_named_before_anything_is_installed() {
        let error = test(&["unti".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("`unti`"), "{error}");
    }

    #[test]
    fn budgets_and_installs_fit_into_forty_minutes() {
        let sum: Duration = STAGES.iter().map(|stage| stage.budget).sum();
        assert!(sum <= minutes(36), "{sum:?}");
    }
}
