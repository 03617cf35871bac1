//! Kill rules: their file, which is read again when it changes, and `/v1/kill`, which changes it.
//!
//! **Invariant:** the file is the one truth: what a request adds or removes is in the file before it is answered, and all of a file's
//! rules are in force, or those before it. A file that is not there is one without rules.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Segment, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get};
use gateway::error::RequestError;
use gateway::{Gateway, KillRule};
use schemas::verdict::Code;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::watch::{Watch, text};

/// Why kill rules cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or not `[[kill]]`.
    #[error("not TOML with `[[kill]]`: {0}")]
    Form(#[from] toml::de::Error),
    /// A rule has a fault.
    #[error(transparent)]
    Rule(#[from] gateway::ConfigError),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    kill: Vec<KillRule>,
}

/// The file and who acts by it.
#[derive(Clone)]
pub(crate) struct Service {
    gateway: Arc<Gateway>,
    path: Arc<Path>,
    /// Held while the file is changed.
    changes: Arc<Mutex<()>>,
}

impl Service {
    /// Takes the rules of the file; fails if it is broken.
    pub(crate) fn start(gateway: &Arc<Gateway>, path: PathBuf) -> Result<Self, Error> {
        let watch = Watch::new(vec![path.clone()]);
        gateway.set_kill_rules(&read(&path)?)?;
        tokio::spawn(follow(watch, path.clone(), Arc::downgrade(gateway)));
        Ok(Self { gateway: Arc::clone(gateway), path: path.into(), changes: Arc::default() })
    }

    /// Its paths.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/v1/kill", get(list).post(add))
            .route("/v1/kill/{name}", delete(remove))
            .with_state(self)
    }

    /// Changes the rules of the file, and takes them.
    fn change(&self, change: impl FnOnce(&mut Vec<KillRule>)) -> Result<(), Error> {
        let _alone = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rules = read(&self.path)?;
        change(&mut rules);
        gateway::config::check_kill_rules(&rules)?;
        write(&self.path, &rules)?;
        Ok(self.gateway.set_kill_rules(&rules)?)
    }

    async fn changed(self, change: impl FnOnce(&mut Vec<KillRule>) + Send + 'static) -> Response {
        let service = self.clone();
        let done = tokio::task::spawn_blocking(move || service.change(change)).await;
        match done {
            Ok(Ok(())) => self.rules(),
            Ok(Err(Error::Rule(error))) => {
                RequestError::new(Code::RequestInvalid, error.to_string()).into_response()
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the kill rules cannot be changed");
                let message =
                    "The file of kill rules is broken or cannot be written; the log of the program says why.";
                RequestError::new(Code::LogUnavailable, message).into_response()
            }
            Err(_) => RequestError::new(Code::Internal, "A fault of the gateway.").into_response(),
        }
    }

    fn rules(&self) -> Response {
        let rules = self.gateway.kill_rules().into_iter().map(|(rule, stopped)| {
            let mut rule = serde_json::to_value(rule).unwrap_or_default();
            if let Some(rule) = rule.as_object_mut() {
                rule.insert("stopped".to_owned(), stopped.into());
            }
            rule
        });
        let body = json!({"rules": rules.collect::<Vec<_>>()});
        ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    }
}

async fn list(State(service): State<Service>, headers: HeaderMap, uri: Uri) -> Response {
    match service.gateway.keys().authenticate_secret(&headers, &uri) {
        Ok(_) => service.rules(),
        Err(error) => error.into_response(),
    }
}

/// Adds a rule in front of the others, or replaces that of its name.
async fn add(State(service): State<Service>, headers: HeaderMap, uri: Uri, body: Bytes) -> Response {
    if let Err(error) = service.gateway.keys().authenticate_secret(&headers, &uri) {
        return error.into_response();
    }
    let rule: KillRule = match serde_json::from_slice(&body) {
        Ok(rule) => rule,
        Err(error) => {
            return RequestError::new(Code::RequestInvalid, format!("not a kill rule: {error}"))
                .into_response();
        }
    };
    let place = move |rules: &mut Vec<KillRule>| match rules.iter_mut().find(|known| known.name == rule.name)
    {
        Some(known) => *known = rule,
        None => rules.insert(0, rule),
    };
    service.changed(place).await
}

async fn remove(
    State(service): State<Service>,
    Segment(name): Segment<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    if let Err(error) = service.gateway.keys().authenticate_secret(&headers, &uri) {
        return error.into_response();
    }
    if !service.gateway.kill_rules().iter().any(|(rule, _)| rule.name == name) {
        return RequestError::new(Code::NotFound, "No kill rule has this name.").into_response();
    }
    service.changed(move |rules| rules.retain(|rule| rule.name != name)).await
}

fn read(path: &Path) -> Result<Vec<KillRule>, Error> {
    match text(&path.to_owned()) {
        Ok(text) => Ok(toml::from_str::<File>(&text)?.kill),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::File { path: path.display().to_string(), source }),
    }
}

/// Whole or not at all.
fn write(path: &Path, rules: &[KillRule]) -> Result<(), Error> {
    let next = path.with_extension("next");
    let text = toml::to_string(&File { kill: rules.to_vec() }).map_err(std::io::Error::other);
    let written = text.and_then(|text| {
        let mut file = std::fs::File::create(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&next, path)
    });
    written.map_err(|source| Error::File { path: path.display().to_string(), source })
}

/// Takes over what changes in the file, as long as the gateway lives.
async fn follow(mut watch: Watch, path: PathBuf, gateway: Weak<Gateway>) {
    loop {
        let _ = watch.changed().await;
        let Some(gateway) = gateway.upgrade() else { return };
        let path = path.clone();
        let rules = tokio::task::spawn_blocking(move || read(&path)).await;
        let Ok(rules) = rules else { continue };
        if rules.is_err() {
            gateway.keep_kill_rules();
        }
        let taken = rules.and_then(|rules| Ok((rules.len(), gateway.set_kill_rules(&rules)?)));
        match taken {
            Ok((rules, ())) => tracing::info!(rules, "kill rules taken from their changed file"),
            Err(error) => tracing::error!(%error, "the kill rules are broken and stay as they were"),
        }
    }
}
