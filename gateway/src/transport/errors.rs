//! Errors of whole requests, as JSON.
//!
//! **Invariant:** the body has `error` and no `events`, so that no client takes it for verdicts; what is temporary has `Retry-After`.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use schemas::verdict::Code;
use serde_json::{Map, json};

use crate::error::RequestError;

/// `Retry-After` of errors that know no better, seconds.
const RETRY_AFTER_S: u64 = 2;

/// A JSON answer.
pub fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What is said of an error.
pub(crate) fn object(error: &RequestError) -> serde_json::Value {
    let code = error.code.as_str();
    let mut members = Map::new();
    members.insert("code".to_owned(), code.into());
    members.insert("message".to_owned(), error.message.as_ref().into());
    members.insert("docs".to_owned(), format!("docs/errors/{code}.md").into());
    if let Some(excess) = error.excess {
        members.insert("limit".to_owned(), excess.limit.into());
        members.insert("size".to_owned(), excess.size.into());
        members.extend(excess.index.map(|index| ("index".to_owned(), index.into())));
    }
    members.into()
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let body = json!({"error": object(&self)});
        let mut response = json(self.status(), body.to_string().into_bytes());
        let headers = response.headers_mut();
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.is_temporary() {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// 405 with what would be right, for paths that choose by more than the method.
pub(super) fn method_not_allowed(allow: &'static str) -> RequestError {
    let message = "This method is not supported here; see the Allow header.";
    RequestError { allow: Some(allow), ..RequestError::new(Code::MethodNotAllowed, message) }
}

/// 404, for whoever puts the routers together.
pub fn not_found() -> RequestError {
    RequestError::new(Code::NotFound, "There is nothing here. Events go to POST /v1/events.")
}
