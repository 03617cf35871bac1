//! `rivulet up`, `gateway` and `processor`: serve until told to stop, or until a part cannot run, then end without losing anything.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use gateway::TlsFiles;
use gateway::server::Tls;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::Role;
use crate::cli::ServeOptions;
use crate::config::Config;
use crate::config::watch::Watch;
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
    let tls = config.tls.clone().map(tls).transpose()?;
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
    gateway::server::serve_tls(listener, pipeline.router(), server, tls, stopping).await;
    pipeline.close().await;
    tracing::info!("stopped");
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Reads the certificate, and reads it again when its files change.
fn tls(files: TlsFiles) -> anyhow::Result<Arc<Tls>> {
    let tls = Arc::new(Tls::load(files.clone()).context("TLS")?);
    let mut watch = Watch::new(vec![files.certificate, files.key]);
    let followed = Arc::clone(&tls);
    tokio::spawn(async move {
        loop {
            let reloaded = match watch.changed().await {
                Ok(_) => followed.reload().map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match reloaded {
                Ok(()) => tracing::info!("the changed certificate is in force"),
                Err(error) => {
                    tracing::error!(error, "the changed certificate cannot be used; the old one stays");
                }
            }
        }
    });
    Ok(tls)
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
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", config.listen);
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
