//! One file a command.

mod ask;
mod bench;
mod fate;
mod kill;
mod log;
mod quarantine;
mod records;
mod schema;
mod tail;
mod torture;
mod up;

use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::{BenchCommand, Command, LogCommand, SchemaCommand};

/// Which parts run in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Everything.
    Both,
    /// The gateway alone.
    Gateway,
    /// The processor alone.
    Processor,
}

/// Most threads that run async tasks; the work that waits for disks has threads of its own.
const ASYNC_THREADS_MAX: usize = 4;

/// Runs one command to its end.
pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(options) => runtime()?.block_on(up::run(options, Role::Both)),
        Command::Gateway(options) => runtime()?.block_on(up::run(options, Role::Gateway)),
        Command::Processor(options) => runtime()?.block_on(up::run(options, Role::Processor)),
        Command::Schema(SchemaCommand::Check(options)) => schema::check(&options),
        Command::Schema(SchemaCommand::WhatIf(options)) => runtime()?.block_on(schema::what_if(options)),
        Command::Schema(SchemaCommand::Types(options)) => schema::types(&options),
        Command::Log(LogCommand::Cat(options)) => runtime()?.block_on(log::cat(options)),
        Command::Torture(options) => runtime()?.block_on(torture::run(options)),
        Command::Fate(options) => runtime()?.block_on(fate::run(options)),
        Command::Quarantine(command) => runtime()?.block_on(quarantine::run(command)),
        Command::Tail(options) => runtime()?.block_on(tail::run(options)),
        Command::Kill(command) => runtime()?.block_on(kill::run(command)),
        Command::Bench(BenchCommand::Ingest(options)) => runtime()?.block_on(bench::ingest::run(options)),
        Command::Bench(BenchCommand::Overload(options)) => runtime()?.block_on(bench::overload::run(options)),
        Command::Bench(BenchCommand::Process(options)) => bench::process::run(&options),
        Command::Bench(BenchCommand::Footprint(options)) => {
            runtime()?.block_on(bench::footprint::run(options))
        }
        Command::Bench(BenchCommand::Fate(options)) => runtime()?.block_on(bench::fate::run(options)),
        Command::Bench(BenchCommand::Reference(options)) => {
            runtime()?.block_on(bench::reference::run(options))
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().min(ASYNC_THREADS_MAX));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}
