//! Looking at what was refused, and trying it again: `/v1/quarantine`, for whoever holds a secret key.
//!
//! **Invariant:** quarantine itself is never changed: a replay is a new event under the old id, so doing it twice counts once;
//! each request reads a bounded number of records.

mod list;
mod record;
mod replay;

use std::sync::Arc;

use schemas::time::Timestamp;
use schemas::verdict::Code;

use self::record::Place;
use crate::Gateway;
use crate::transport::api::{Access, Answer, Api, Content, Operation, Parameter, Verb, shape};

const FILTERS: &[Parameter] = &[
    Parameter { name: "reason", place: "query", about: "Only this code.", shape: shape::<Code> },
    Parameter { name: "source", place: "query", about: "Only of this key.", shape: shape::<String> },
    Parameter { name: "since", place: "query", about: "Received since.", shape: shape::<Timestamp> },
    Parameter { name: "after", place: "query", about: "`next` of an earlier answer.", shape: shape::<Place> },
    Parameter { name: "limit", place: "query", about: "Records at most.", shape: shape::<list::Count> },
];

const LIST: Operation = Operation {
    method: Verb::Get,
    path: "/v1/quarantine",
    summary: "Refused events, with their raw bytes and why.",
    access: Access::SecretKey,
    parameters: FILTERS,
    body: &[],
    answers: &[Answer::ok("A page of them.", &[Content::json(shape::<list::Page>)])],
    errors: &[Code::LogUnavailable],
};

const REASONS: Operation = Operation {
    path: "/v1/quarantine/reasons",
    summary: "Why events were refused, the most frequent first.",
    answers: &[Answer::ok("Groups.", &[Content::json(shape::<list::Summary>)])],
    ..LIST
};

const ONE: Operation = Operation {
    path: "/v1/quarantine/{at}",
    summary: "One refused event.",
    parameters: &[Parameter {
        name: "at",
        place: "path",
        about: "`partition:offset`.",
        shape: shape::<Place>,
    }],
    answers: &[Answer::ok("The event.", &[Content::json(shape::<record::Found>)])],
    errors: &[Code::NotFound, Code::LogUnavailable],
    ..LIST
};

const REPLAY: Operation = Operation {
    method: Verb::Post,
    path: "/v1/quarantine/replay",
    summary: "Tries refused events again, as they are or patched.",
    parameters: &[],
    body: &[Content::json(shape::<replay::Wanted>)],
    answers: &[Answer::ok("What became of each.", &[Content::json(shape::<replay::Answer>)])],
    errors: &[
        Code::BodyTooLarge,
        Code::BodyTimeout,
        Code::BodySyntax,
        Code::Overloaded,
        Code::LogUnavailable,
    ],
    ..LIST
};

/// Its paths.
pub(crate) fn api() -> Api<Arc<Gateway>> {
    Api::new()
        .route(LIST, list::records)
        .route(REASONS, list::reasons)
        .route(REPLAY, replay::replay)
        .route(ONE, list::one)
}

#[cfg(test)]
mod tests;
