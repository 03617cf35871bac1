//! Lets pages of other origins call us.
//!
//! A preflight cannot be judged, because the key is not known yet: it mirrors any origin. The request itself is judged by its
//! key, and its errors can be read by the page too, or a developer would see nothing but "CORS error".
//!
//! **Invariant:** `Access-Control-Allow-Origin` is the request's own origin, never `*`; every answer varies by `Origin`.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// Methods of all our paths.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
/// Headers that pages may send, when the browser does not say which it means.
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, content-encoding, x-write-key, x-user-token");
/// How long a browser may remember a preflight, seconds; Chromium takes no more.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
/// Headers of answers that pages may read.
const EXPOSED: HeaderValue = HeaderValue::from_static("retry-after, x-ratelimit-reset");

/// Adds CORS to every route of a router.
pub fn wrap(router: Router) -> Router {
    router.layer(from_fn(handle))
}

/// The same for the paths of other vendors, whose clients send cookies along. None of those paths lets anybody in by a cookie.
pub(crate) fn wrap_vendors(router: Router) -> Router {
    router.layer(from_fn(handle_with_credentials))
}

async fn handle_with_credentials(request: Request, next: Next) -> Response {
    let has_origin = request.headers().contains_key(ORIGIN);
    // A webhook's sender asks whether it may send before it sends; no browser asks that.
    let mut response = if request.headers().contains_key("webhook-request-origin") {
        next.run(request).await
    } else {
        handle(request, next).await
    };
    if has_origin {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    response
}

async fn handle(request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = if request.method() == Method::OPTIONS {
        preflight(request.headers())
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

fn preflight(request: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ALLOW, METHODS);
    if request.contains_key(ORIGIN) {
        let wanted = request.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.unwrap_or(HEADERS));
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        headers.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    }
    response
}
