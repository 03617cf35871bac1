//! One table of operations, from which both the router and the `OpenAPI` document are made.
//!
//! **Invariant:** a path that is served is described, because [`Api::route`] is the only way to add one.

mod document;
mod event;

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{get, post};
use http::StatusCode;
use http::header::ALLOW;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use schemas::verdict::Code;

pub(crate) use self::event::Events;
use super::{cors, errors, vendor};
use crate::Gateway;

/// Where the document is.
pub const DOCUMENT: &str = "/v1/openapi.json";

const SELF: Operation = Operation {
    method: Verb::Get,
    path: DOCUMENT,
    summary: "This document.",
    access: Access::Everybody,
    parameters: &[],
    body: &[],
    answers: &[Answer::ok("OpenAPI 3.1.", &[Content::other("application/json")])],
    errors: &[],
};

/// What a method does at a path.
#[derive(Clone, Copy)]
pub struct Operation {
    /// Its method.
    pub method: Verb,
    /// Its path; parameters in braces.
    pub path: &'static str,
    /// What it is for, in a line.
    pub summary: &'static str,
    /// Who may ask.
    pub access: Access,
    /// In the path, the query or the headers.
    pub parameters: &'static [Parameter],
    /// What the request carries; empty: nothing.
    pub body: &'static [Content],
    /// Answers that are no errors of the whole request.
    pub answers: &'static [Answer],
    /// What can be wrong with the whole request, beside what its access brings.
    pub errors: &'static [Code],
}

/// A method that is served. `HEAD` goes with `Get`, `OPTIONS` with both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// `GET`.
    Get,
    /// `POST`.
    Post,
}

/// Who may ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Everybody who reaches the port.
    Everybody,
    /// Whoever holds any key.
    AnyKey,
    /// Whoever holds a secret key.
    SecretKey,
    /// Whoever holds a secret key, or a token for what is asked.
    SecretKeyOrToken,
}

impl Access {
    /// What is refused for want of it.
    pub const fn errors(self) -> &'static [Code] {
        match self {
            Self::Everybody => &[],
            Self::AnyKey => &[
                Code::RequestInvalid,
                Code::KeyMissing,
                Code::KeyUnknown,
                Code::KeyExpired,
                Code::TokenInvalid,
                Code::TokenExpired,
                Code::TokenRequired,
                Code::OriginNotAllowed,
            ],
            Self::SecretKey => &[
                Code::RequestInvalid,
                Code::KeyMissing,
                Code::KeyUnknown,
                Code::KeyExpired,
                Code::TokenInvalid,
                Code::TokenExpired,
                Code::SecretKeyRequired,
                Code::OriginNotAllowed,
            ],
            Self::SecretKeyOrToken => {
                &[Code::KeyMissing, Code::TokenInvalid, Code::TokenExpired, Code::SecretKeyRequired]
            }
        }
    }
}

/// A parameter.
#[derive(Clone, Copy)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// `path`, `query` or `header`.
    pub place: &'static str,
    /// What it says.
    pub about: &'static str,
    /// Its values.
    pub shape: Shape,
}

/// The JSON Schema of a type, as [`shape`] makes it.
pub type Shape = fn(&mut SchemaGenerator) -> Schema;

/// The schema of what serde writes of `T`.
pub fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What a body is.
#[derive(Clone, Copy)]
pub struct Content {
    /// Its `Content-Type`.
    pub media_type: &'static str,
    /// Its shape, where it is JSON.
    pub shape: Option<Shape>,
}

impl Content {
    /// JSON of a type.
    pub const fn json(shape: Shape) -> Self {
        Self { media_type: "application/json", shape: Some(shape) }
    }

    /// Something else than JSON.
    pub const fn other(media_type: &'static str) -> Self {
        Self { media_type, shape: None }
    }
}

/// An answer.
#[derive(Clone, Copy)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// When it is given.
    pub about: &'static str,
    /// What it carries.
    pub content: &'static [Content],
}

impl Answer {
    /// An answer with one sort of body.
    pub const fn new(status: StatusCode, about: &'static str, content: &'static [Content]) -> Self {
        Self { status, about, content }
    }

    /// 200.
    pub const fn ok(about: &'static str, content: &'static [Content]) -> Self {
        Self::new(StatusCode::OK, about, content)
    }
}

/// Paths with what they are for.
pub struct Api<S> {
    router: Router<S>,
    operations: Vec<Operation>,
}

impl<S: Clone + Send + Sync + 'static> Api<S> {
    /// None yet.
    #[expect(clippy::new_without_default, reason = "an empty table is nothing to fall back on")]
    pub fn new() -> Self {
        Self { router: Router::new(), operations: Vec::new() }
    }

    /// Serves an operation.
    #[must_use]
    pub fn route<H, T>(mut self, operation: Operation, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        // Layers see this refusal, and not the one that axum would make around them.
        let refuse = |allow: &'static str| async move { (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, allow)]) };
        let method = match operation.method {
            Verb::Get => get(handler).fallback(move || refuse("GET, HEAD")),
            Verb::Post => post(handler).fallback(move || refuse("POST")),
        };
        self.router = self.router.route(operation.path, method);
        self.operations.push(operation);
        self
    }

    /// Describes an operation that another router serves.
    #[must_use]
    pub fn describe(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// The paths of both.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.operations.extend(other.operations);
        self
    }

    /// Gives the handlers what they need.
    pub fn with_state(self, state: S) -> Api<()> {
        Api { router: self.router.with_state(state), operations: self.operations }
    }
}

impl Api<()> {
    /// The router, which serves the document too.
    pub fn serve(self, gateway: &Arc<Gateway>) -> Router {
        let mut operations = self.operations;
        operations.push(SELF);
        let text = document::write(&operations, &gateway.config).to_string();
        let document = Api::new().route(SELF, async move || errors::json(StatusCode::OK, text.into_bytes()));
        // Other vendors describe their own paths.
        let vendors = vendor::router().with_state(Arc::clone(gateway));
        cors::wrap(self.router.merge(document.router)).merge(cors::wrap_vendors(vendors))
    }
}
