//! `POST /v1/tokens`: a shop's server asks for the token by which a page of its may send, or speak for its user, for a while.
//!
//! **Invariant:** only a secret key is answered; a token is for one origin or for one user, and always ends.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use schemas::id::{AnonymousId, ProfileKey, SourceName, UserId, means_nobody};
use schemas::token::{Claims, SecretText};
use schemas::verdict::Code;
use serde::{Deserialize, Serialize};

use super::api::{Access, Answer, Content, Operation, Verb, shape};
use super::{body, errors};
use crate::Gateway;
use crate::authenticate::{Credential, MAX_TOKEN_LIFETIME_S};
use crate::error::RequestError;

pub(crate) const TOKENS: Operation = Operation {
    method: Verb::Post,
    path: "/v1/tokens",
    summary: "Mints a token by which a page may send, or speak for its user, for a while.",
    access: Access::SecretKey,
    parameters: &[],
    body: &[Content::json(shape::<Wanted>)],
    answers: &[Answer::ok("The token.", &[Content::json(shape::<Minted>)])],
    errors: &[Code::BodyTooLarge, Code::BodyTimeout, Code::BodySyntax, Code::Overloaded],
};

/// How long a token lives unless its asker says otherwise, seconds.
const LIFETIME_S: i64 = 3_600;

/// What the token is to say.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "TokenWanted")]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// The public key's name: the token stands for that key.
    #[schemars(skip_serializing_if = "Option::is_none")]
    source: Option<SourceName>,
    /// The origin whose pages may use it.
    #[schemars(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// The user that it vouches for.
    #[schemars(skip_serializing_if = "Option::is_none")]
    user_id: Option<UserId>,
    /// The device that it vouches for.
    #[schemars(skip_serializing_if = "Option::is_none")]
    anonymous_id: Option<AnonymousId>,
    /// Seconds.
    #[schemars(skip_serializing_if = "Option::is_none", range(min = 1, max = MAX_TOKEN_LIFETIME_S))]
    lifetime_s: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
struct Minted {
    token: String,
    /// Seconds since 1970.
    expires_at: i64,
}

/// Mints one.
pub(crate) async fn mint(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, RequestError> {
    let (parts, body) = request.into_parts();
    if let Err(error) = gateway.keys().authenticate_secret(&parts.headers, &parts.uri) {
        body::discard(body).await;
        return Err(error);
    }
    // Present, because it has just been accepted.
    let secret = Credential::of(&parts.headers, &parts.uri)?.map(Credential::into_text).unwrap_or_default();
    let (body, _share) = body::read(body, &gateway.config, &gateway.budget).await?;
    let wanted: Wanted = serde_json::from_slice(&body).map_err(|_| {
        invalid(
            "Send JSON with `source` and `origin`, `user_id` or `anonymous_id`, or both, and `lifetime_s`.",
        )
    })?;
    let lifetime_s = wanted.lifetime_s.unwrap_or(LIFETIME_S);
    if !(1..=MAX_TOKEN_LIFETIME_S).contains(&lifetime_s) {
        return Err(invalid("`lifetime_s` is from 1 to 86400."));
    }
    if wanted.source.is_some() && wanted.origin.is_none() {
        return Err(invalid("A token with a `source` needs the `origin` of the pages that may use it."));
    }
    let user = wanted.user_id.as_ref().map(ProfileKey::user);
    let sub = user.or_else(|| wanted.anonymous_id.as_ref().map(ProfileKey::anonymous));
    if sub.as_ref().is_some_and(|sub| means_nobody(&sub.id)) {
        return Err(invalid("This id means nobody; name a user or a device."));
    }
    if sub.is_none() && wanted.source.is_none() {
        return Err(invalid("A token needs a `source`, or a `user_id` or `anonymous_id`."));
    }
    let expires_at = (gateway.clock.now().as_millis() / 1_000).saturating_add(lifetime_s);
    let claims = Claims { sub, source: wanted.source, origin: wanted.origin, exp: expires_at };
    let minted = Minted { token: claims.sign(&SecretText::from(secret)), expires_at };
    let mut response = errors::json(StatusCode::OK, serde_json::to_vec(&minted).unwrap_or_default());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn invalid(message: &'static str) -> RequestError {
    RequestError::new(Code::RequestInvalid, message)
}
