//! What a shop's own backend would do, for the demo: mint the token with which a page may read its own profile.
//!
//! **Invariant:** served only on loopback and only with the demo on; elsewhere a shop mints tokens with its secret key.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use broker::clock::Clock;
use gateway::error::RequestError;
use gateway::transport::body::short;
use schemas::id::{AnonymousId, ProfileKey, UserId, means_nobody};
use schemas::token::{Claims, Secrets};
use schemas::verdict::Code;
use serde::Deserialize;

/// How long a token of the demo is good for.
const TOKEN_LIFETIME: Duration = Duration::from_hours(1);

/// The longest body that is read, bytes: ids are short.
const MAX_BODY_BYTES: usize = 16 << 10;

/// What the token service needs.
#[derive(Clone)]
struct Minter {
    secrets: Secrets,
    clock: Arc<dyn Clock>,
}

/// Whose profile the page wants to read.
#[derive(Deserialize)]
struct Wanted {
    anonymous_id: Option<String>,
    user_id: Option<String>,
}

/// `POST /demo/token`.
pub(crate) fn router(secrets: Secrets, clock: Arc<dyn Clock>) -> Router {
    Router::new().route("/demo/token", post(mint)).with_state(Minter { secrets, clock })
}

async fn mint(State(minter): State<Minter>, body: Body) -> Response {
    let body = short(body, MAX_BODY_BYTES).await;
    let wanted = body.and_then(|body| serde_json::from_slice::<Wanted>(&body).ok());
    let Some(subject) = wanted.and_then(Wanted::subject) else {
        let message = r#"Send {"anonymous_id":"…"} or {"user_id":"…"}, of somebody."#;
        return RequestError::new(Code::RequestInvalid, message).into_response();
    };
    let now = minter.clock.now();
    let expires = now.as_millis() / 1000 + i64::try_from(TOKEN_LIFETIME.as_secs()).unwrap_or(0);
    let Some(token) = minter.secrets.sign(&Claims::of(subject, expires), now) else {
        let message = "No secret key is configured that could sign a token.";
        return RequestError::new(Code::NotFound, message).into_response();
    };
    let answer = serde_json::json!({ "token": token, "expires_at": expires }).to_string();
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], answer)
        .into_response()
}

impl Wanted {
    /// The user, or the device if no user is named; an id that means nobody has no profile.
    fn subject(self) -> Option<ProfileKey> {
        let somebody = |id: &String| !means_nobody(id);
        let user = self.user_id.filter(somebody).map(|id| ProfileKey::user(&UserId::new(id)));
        let device =
            self.anonymous_id.filter(somebody).map(|id| ProfileKey::anonymous(&AnonymousId::new(id)));
        user.or(device)
    }
}
