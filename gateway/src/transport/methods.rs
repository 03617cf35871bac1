//! What a path says of the methods it does not serve.
//!
//! **Invariant:** `Allow` is that of the path: it comes from whoever routes it, not from a list beside.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use http::header::{ALLOW, ORIGIN, VARY};
use http::{HeaderValue, Method, StatusCode};
use schemas::verdict::Code;

use super::cors;
use crate::error::RequestError;

/// Answers `OPTIONS`, and other methods that a path does not serve, on every path of a router.
pub fn wrap(router: Router) -> Router {
    // As a whole: axum names the methods of a path outside its layers.
    Router::new().fallback_service(router).layer(from_fn(async |request: Request, next: Next| {
        let method = request.method().clone();
        let origin = request.headers().get(ORIGIN).cloned();
        let mut response = settle(&method, next.run(request).await);
        // What no layer of a path has answered can be read by a page too.
        if response.status() == StatusCode::METHOD_NOT_ALLOWED && !response.headers().contains_key(VARY) {
            cors::expose(response.headers_mut(), origin);
        }
        response
    }))
}

/// Makes a router's bare refusal of a method an answer: what is allowed to who asks by `OPTIONS`, an error to others.
pub(super) fn settle(method: &Method, response: Response) -> Response {
    if response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    let allow = allowed(response.headers().get(ALLOW));
    let mut response = if *method == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        let message = "This method is not supported here; see the Allow header.";
        RequestError::new(Code::MethodNotAllowed, message).into_response()
    };
    response.headers_mut().insert(ALLOW, allow);
    response
}

fn allowed(served: Option<&HeaderValue>) -> HeaderValue {
    let served = served.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut methods: Vec<&str> =
        served.split(',').map(str::trim).filter(|method| !method.is_empty()).collect();
    if !methods.contains(&"OPTIONS") {
        methods.push("OPTIONS");
    }
    HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"))
}
