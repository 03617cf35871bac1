//! The Rivulet binary: reads the command line, sets up logging, runs one command.
//!
//! **Invariant:** wiring only. What an event goes through is in `gateway`, `broker` and `processor`.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

mod assets;
mod cli;
mod commands;
mod config;
mod console;
mod demo;
mod fate;
mod kill;
mod pipeline;
mod schema_folder;
mod telemetry;

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    let cli = cli::Cli::parse();
    telemetry::init(&cli.log);
    match commands::run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            console::complain(&error);
            std::process::ExitCode::FAILURE
        }
    }
}
