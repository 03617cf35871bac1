//! `rivulet up`, `gateway` and `processor`: serve until told to stop, or until a part cannot run, then end without losing anything.

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::Role;
use crate::cli::ServeOptions;
use crate::config::Config;
use crate::console::say;
use crate::pipeline::Pipeline;

/// Serves until SIGTERM or an interrupt; an error when a part turns out to be unable to run.
pub(super) async fn run(options: ServeOptions, role: Role) -> anyhow::Result<ExitCode> {
    #[expect(clippy::disallowed_methods, reason = "read once, here, and passed on as the configuration's")]
    let variables = std::env::vars();
    let mut config = Config::load(&options, variables)?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "cannot listen on {}: is another program using it? choose another with --listen",
            config.listen
        )
    })?;
    config.listen = listener.local_addr().context("the listener has no address")?;
    let server = config.server;
    let greeting = greeting(&config, role);
    let pipeline = Pipeline::start(config, role).await?;
    say(&greeting);
    let mut failure = None;
    let stopping = async {
        tokio::select! {
            () = stop_signal() => {}
            error = pipeline.failed() => failure = Some(error),
        }
        tracing::info!("stopping: answering what is under way");
        pipeline.drain().await;
    };
    gateway::server::serve(listener, pipeline.router(), server, stopping).await;
    pipeline.close().await;
    tracing::info!("stopped");
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

async fn stop_signal() {
    let term = async {
        match signal(SignalKind::terminate()) {
            Ok(mut term) => term.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = term => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// What a person sees first: where things are.
fn greeting(config: &Config, role: Role) -> String {
    let url = format!("http://{}", config.listen);
    let mut lines = vec![format!("listening on {url}")];
    let mut point = |what: &str, path: &str| lines.push(format!("  {what:<9} {url}{path}"));
    if role != Role::Processor {
        if config.demo.enabled {
            point("shop", "/");
            point("console", "/console/");
        }
        point("events", "/v1/events");
        point("stream", "/v1/stream");
        point("snippet", "/sdk/rivulet.js");
    }
    if role != Role::Gateway {
        point("profiles", "/v1/profiles/{id}");
    }
    point("state", "/ready");
    let log = config
        .kafka
        .as_ref()
        .map_or_else(|| "embedded".to_owned(), |kafka| format!("Kafka at {}", kafka.brokers));
    lines.push(format!("  log       {log}; data in {}", config.data.display()));
    lines.join("\n")
}
