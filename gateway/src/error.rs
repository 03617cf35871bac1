//! What is wrong with a request as a whole.
//!
//! **Invariant:** a request that fails as a whole has put no event on the log; its message says what to do next and never
//! repeats what was sent.

use std::borrow::Cow;

use http::StatusCode;
use schemas::verdict::Code;

/// A request that cannot be answered event by event.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct RequestError {
    /// Stable code.
    pub code: Code,
    /// What to do next.
    pub message: Cow<'static, str>,
    /// What `Allow` says, for a wrong method.
    pub allow: Option<&'static str>,
    /// What fits, where the request is too much.
    pub excess: Option<Excess>,
}

/// What was too much, so that the next request fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Excess {
    /// Most that is taken: bytes, or events.
    pub limit: usize,
    /// What was announced, or seen until the limit was passed.
    pub size: usize,
    /// The place of the first event that did not fit, from 0.
    pub index: Option<usize>,
}

impl RequestError {
    /// An error with its message.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), allow: None, excess: None }
    }

    /// The same, saying what fits.
    #[must_use]
    pub fn exceeding(mut self, limit: usize, size: usize) -> Self {
        self.excess = Some(Excess { limit, size, index: None });
        self
    }

    /// More events in a body than are taken.
    pub(crate) fn too_many_events(most: usize) -> Self {
        let message = "Too many events in one body; send several, or NDJSON (see GET /v1/limits).";
        let excess = Excess { limit: most, size: most.saturating_add(1), index: Some(most) };
        Self { excess: Some(excess), ..Self::new(Code::BatchTooManyEvents, message) }
    }

    /// The status that goes with the code.
    pub fn status(&self) -> StatusCode {
        match self.code {
            Code::BodyCompression
            | Code::BodySyntax
            | Code::BodyEmpty
            | Code::RequestInvalid
            | Code::FrameInvalid => StatusCode::BAD_REQUEST,
            Code::BodyUnsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::BodyTooLarge | Code::BatchTooManyEvents => StatusCode::PAYLOAD_TOO_LARGE,
            Code::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Code::KeyMissing
            | Code::KeyUnknown
            | Code::KeyExpired
            | Code::TokenInvalid
            | Code::TokenExpired => StatusCode::UNAUTHORIZED,
            Code::OriginNotAllowed | Code::SecretKeyRequired | Code::TokenRequired => StatusCode::FORBIDDEN,
            Code::NotFound | Code::SchemaUnknown | Code::SchemaVersionUnknown => StatusCode::NOT_FOUND,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::RateExceeded | Code::QuotaExceeded | Code::ProfileHot => StatusCode::TOO_MANY_REQUESTS,
            Code::Draining | Code::Overloaded | Code::LogFull | Code::LogUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the same request may succeed later, so that `Retry-After` is due.
    pub fn is_temporary(&self) -> bool {
        matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }
}

impl From<schemas::json::Error> for RequestError {
    /// A body that cannot be split.
    fn from(error: schemas::json::Error) -> Self {
        if error.code == Code::BatchTooManyEvents {
            return Self::new(error.code, "Too many events in one body; send several (see GET /v1/limits).");
        }
        let at = error.at;
        Self::new(
            Code::BodySyntax,
            format!(
                "The body is not JSON that holds events (byte {at}). Send one object, an array, {{\"events\":[…]}} or NDJSON."
            ),
        )
    }
}
