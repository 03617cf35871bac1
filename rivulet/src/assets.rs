//! The files that the browser gets: SDK, demo shop, console. They are part of the binary.
//!
//! **Invariant:** served as built, with the type that browsers insist on (`application/wasm`), and nothing outside the two folders.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use gateway::transport::errors::not_found;
use rust_embed::{EmbeddedFile, RustEmbed};

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/../sdk-wasm/dist"]
struct Sdk;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/../web-demo/dist"]
struct Demo;

/// Shown when the binary was built without its browser parts.
const NOT_BUILT: &str =
    "This program was built without its browser parts. Run `cargo xtask up`, which builds them first.\n";

/// `/sdk/*`: any page may load it.
pub(crate) fn sdk() -> Router {
    Router::new().route(
        "/sdk/{*path}",
        get(|Path(path): Path<String>| async move { file::<Sdk>(&path, Sharing::AnyPage) }),
    )
}

/// `/`, `/console/`, `/assets/*`: the shop and the console.
pub(crate) fn demo() -> Router {
    Router::new()
        .route("/", get(|| async { file::<Demo>("index.html", Sharing::OwnPages) }))
        .route("/console", get(|| async { Redirect::permanent("/console/") }))
        .route("/console/", get(|| async { file::<Demo>("console/index.html", Sharing::OwnPages) }))
        .route(
            "/assets/{*path}",
            get(|Path(path): Path<String>| async move {
                file::<Demo>(&format!("assets/{path}"), Sharing::OwnPages)
            }),
        )
}

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// Pages of every origin.
    AnyPage,
    /// Pages of this program.
    OwnPages,
}

fn file<E: RustEmbed>(path: &str, sharing: Sharing) -> Response<Body> {
    let Some(EmbeddedFile { data, metadata }) = E::get(path) else {
        let nothing = E::iter().next().is_none();
        return if nothing {
            (StatusCode::SERVICE_UNAVAILABLE, NOT_BUILT).into_response()
        } else {
            not_found().into_response()
        };
    };
    let tag =
        metadata.sha256_hash().iter().take(12).fold(String::new(), |tag, byte| tag + &format!("{byte:02x}"));
    let mut response = Response::new(Body::from(data.into_owned()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(path)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        headers.insert(header::ETAG, tag);
    }
    if sharing == Sharing::AnyPage {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    }
    response
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("json" | "map") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("txt" | "ts") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
