//! What a shop's own backend would do, for the demo: mint the token with which a page may read its own profile.
//!
//! **Invariant:** served only on loopback and only with the demo on; elsewhere a shop mints tokens with its secret key.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use broker::clock::Clock;
use schemas::id::{AnonymousId, ProfileKey, UserId};
use serde::Deserialize;

/// How long a token of the demo is good for.
const TOKEN_LIFETIME: Duration = Duration::from_hours(1);

/// What the token service needs.
#[derive(Clone)]
struct Minter {
    secret: Arc<str>,
    clock: Arc<dyn Clock>,
}

/// Whose profile the page wants to read.
#[derive(Deserialize)]
struct Wanted {
    anonymous_id: Option<String>,
    user_id: Option<String>,
}

/// `POST /demo/token`.
pub(crate) fn router(secret: &str, clock: Arc<dyn Clock>) -> Router {
    Router::new().route("/demo/token", post(mint)).with_state(Minter { secret: secret.into(), clock })
}

async fn mint(State(minter): State<Minter>, body: Bytes) -> Response {
    let subject = serde_json::from_slice::<Wanted>(&body).ok().and_then(|wanted| {
        let user = wanted.user_id.map(|id| ProfileKey::user(&UserId::new(id)));
        user.or_else(|| wanted.anonymous_id.map(|id| ProfileKey::anonymous(&AnonymousId::new(id))))
    });
    let Some(subject) = subject else {
        return (StatusCode::BAD_REQUEST, "send {\"anonymous_id\":\"…\"} or {\"user_id\":\"…\"}\n")
            .into_response();
    };
    let expires =
        minter.clock.now().as_millis() / 1000 + i64::try_from(TOKEN_LIFETIME.as_secs()).unwrap_or(0);
    let token = processor::token::mint(&minter.secret, &subject, expires);
    let answer = serde_json::json!({ "token": token, "expires_at": expires }).to_string();
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], answer)
        .into_response()
}
