//! What the processor answers over HTTP: `GET /v1/profiles/{id}`.
//!
//! `{id}` is `user:x`, `anonymous:x`, or a bare id (user first, then anonymous). With a secret key every profile can be read, and
//! a device that joined a user gives the user's. A user token opens the one profile it names: a token for a device does not
//! open the user that the device joined, because a public key alone may have joined it.
//!
//! **Invariant:** without a secret key or token of this server nothing is told, not even whether a profile exists; `as_of` is never later than
//! the profile.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use broker::clock::Clock;
use http::{HeaderMap, StatusCode, header};
use processor_core::Profile;
use processor_core::profile::view::ObjectWriter;
use schemas::id::{ProfileKey, ProfileKind};
use schemas::token::{Claims, Secrets, TokenError};
use schemas::topic::Topic;
use schemas::verdict::Code;

use crate::consume::batch::read_profile;
use crate::consume::keys;
use crate::consume::ledger::PartitionState;
use crate::store::{Space, StateStore, StoreError};

/// Longest chain of merges that a read follows.
const MAX_REDIRECTS: usize = 8;

/// What the routes need.
pub(crate) struct Reader {
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) partitions: u32,
    pub(crate) secrets: Secrets,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The routes.
pub(crate) fn router(reader: Arc<Reader>) -> Router {
    Router::new().route("/v1/profiles/{id}", get(profile)).with_state(reader)
}

/// Who asks.
enum Caller {
    /// The shop's own server.
    Secret,
    /// A page, about one profile.
    Token(ProfileKey),
}

async fn profile(State(reader): State<Arc<Reader>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let caller = match reader.caller(&headers) {
        Ok(caller) => caller,
        Err(refusal) => return *refusal,
    };
    let wanted = candidates(&id);
    if let Caller::Token(subject) = &caller
        && !wanted.contains(subject)
    {
        let message =
            "The token is for another profile. Ask with the id it was minted for, or use a secret key.";
        return error(StatusCode::FORBIDDEN, Code::SecretKeyRequired, message);
    }
    let found = tokio::task::spawn_blocking(move || match caller {
        Caller::Secret => wanted.into_iter().find_map(|key| reader.read(key, true).transpose()).transpose(),
        Caller::Token(subject) => reader.read(subject, false),
    });
    match found.await {
        Ok(Ok(Some(view))) => answer(StatusCode::OK, view),
        Ok(Ok(None)) => error(
            StatusCode::NOT_FOUND,
            Code::NotFound,
            "No profile of that id. Profiles begin with their first event.",
        ),
        Ok(Err(_)) | Err(_) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            Code::Internal,
            "The profile store does not answer. Try again later.",
        ),
    }
}

/// The keys that an id may mean.
fn candidates(id: &str) -> Vec<ProfileKey> {
    let bare = [ProfileKind::User, ProfileKind::Anonymous].map(|kind| ProfileKey { kind, id: id.to_owned() });
    ProfileKey::parse(id).into_iter().chain(bare).collect()
}

impl Reader {
    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Box<Response>> {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(bearer) = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim) else {
            let message = "Send `Authorization: Bearer <secret key or user token>`.";
            return Err(Box::new(error(StatusCode::UNAUTHORIZED, Code::KeyMissing, message)));
        };
        let now = self.clock.now();
        if self.secrets.hold(bearer, now) {
            return Ok(Caller::Secret);
        }
        let origin = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok());
        match self.secrets.verify(bearer, now).and_then(|claims| claims.bound_to(origin)) {
            Ok(Claims { sub: Some(subject), .. }) => Ok(Caller::Token(subject)),
            Ok(_) | Err(TokenError::Malformed) => {
                let message = "Profiles are read with a secret key or a user token, not with a public key.";
                Err(Box::new(error(StatusCode::FORBIDDEN, Code::SecretKeyRequired, message)))
            }
            Err(cause) => {
                let message =
                    format!("The user token is not accepted: {cause}. Mint a new one with a secret key.");
                let code = if cause == TokenError::Expired { Code::TokenExpired } else { Code::TokenInvalid };
                Err(Box::new(error(StatusCode::UNAUTHORIZED, code, &message)))
            }
        }
    }

    /// The view of a profile.
    fn read(&self, key: ProfileKey, follow: bool) -> Result<Option<String>, StoreError> {
        let mut key = key;
        for _ in 0..=MAX_REDIRECTS {
            let as_of = self.as_of(&key)?;
            let Some(profile) = read_profile(self.store.as_ref(), &key)? else { return Ok(None) };
            match profile.redirect.clone().filter(|_| follow) {
                Some(next) => key = next,
                None => return Ok(Some(view(&profile, &as_of))),
            }
        }
        Ok(None)
    }

    /// The last record of the profile's partition that the profile has seen at least; read before the profile.
    fn as_of(&self, key: &ProfileKey) -> Result<String, StoreError> {
        let partition = schemas::partition::for_key(key.record_key().as_bytes(), self.partitions);
        let state = self.store.get(Space::Meta, &keys::meta(partition))?;
        let state: Option<PartitionState> = state.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let last = state.and_then(|state| state.next).and_then(|next| next.0.checked_sub(1));
        Ok(ObjectWriter::default()
            .value("topic", Topic::Events.name())
            .value("partition", &partition)
            .value("offset", &last)
            .end())
    }
}

fn view(profile: &Profile, as_of: &str) -> String {
    profile.to_view(as_of)
}

fn answer(status: StatusCode, json: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, json).into_response()
}

fn error(status: StatusCode, code: Code, message: &str) -> Response {
    let code = code.as_str();
    let inner = ObjectWriter::default()
        .value("code", code)
        .value("message", message)
        .value("docs", &format!("docs/errors/{code}.md"))
        .end();
    answer(status, ObjectWriter::default().raw("error", &inner).end())
}
