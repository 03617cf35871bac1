//! `rivulet torture`: this program under load and faults, judged by an oracle, from seeds.
//!
//! **Invariant:** works on fresh temporary folders and child processes of its own; a seed that does not hold ends the run and is
//! named.

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use tests::events::Random;
use tests::rivulet::{Options, use_binary};
use tests::torture::{self, Survived};

use crate::cli::TortureOptions;
use crate::console::say;

/// Runs the seeds one after another.
pub(super) async fn run(options: TortureOptions) -> anyhow::Result<ExitCode> {
    use_binary(std::env::current_exe().context("this program does not know where it is")?);
    for seed in options.seed..options.seed.saturating_add(options.count) {
        let setup = Options { kafka: options.kafka.clone(), ..Options::default() };
        let (rounds, prefix) = (options.rounds, format!("torture-{seed}"));
        let run = async move {
            torture::survive(&mut Random::new(seed), setup, rounds, &prefix, torture::ALL).await
        };
        // A promise that is broken panics; what happened stands on standard error.
        let Ok(Survived { faults, promised, records }) = AssertUnwindSafe(run).catch_unwind().await else {
            say(&format!(
                "seed {seed}: BROKEN; `rivulet torture --seed {seed} --rounds {rounds}` repeats it"
            ));
            return Ok(ExitCode::FAILURE);
        };
        say(&format!("seed {seed}: held; {promised} events promised, {records} records, faults {faults:?}"));
    }
    Ok(ExitCode::SUCCESS)
}
