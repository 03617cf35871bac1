//! `GET /v1/pixel.gif?key=…&event_type=…`: one event in a query, for mails and pages without scripts.
//!
//! `metadata` and `context` are JSON, or single members as text (`metadata.path=/sale`); every other parameter is a member of the
//! event, as text. Answered with a picture whatever became of the event; the status is that of `POST /v1/events`.
//!
//! **Invariant:** only a GET that somebody looks at makes an event: HEAD judges and writes nothing, prefetches are turned away; no
//! answer is kept by a cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use schemas::id::{AnonymousId, EventType};
use schemas::verdict::{AckLevel, Code};
use serde::de::IgnoredAny;

use super::api::{Access, Answer, Content, Operation, Parameter, Verb, shape};
use super::rest::{acknowledgement, answered, status};
use super::{Client, Visitor};
use crate::Gateway;
use crate::decode::native::SentAt;
use crate::error::RequestError;

const PICTURE: &[Content] = &[Content::other("image/gif")];

pub(crate) const PIXEL: Operation = Operation {
    method: Verb::Get,
    path: "/v1/pixel.gif",
    summary: "Takes one event, whose members are the query's parameters.",
    access: Access::AnyKey,
    parameters: &[
        Parameter { name: "event_type", place: "query", about: "The type.", shape: shape::<EventType> },
        Parameter { name: "anonymous_id", place: "query", about: "The device.", shape: shape::<AnonymousId> },
        Parameter { name: "ack", place: "query", about: "The level.", shape: shape::<AckLevel> },
    ],
    body: &[],
    answers: &[
        Answer::ok("Accepted, or known already.", PICTURE),
        Answer::new(StatusCode::NO_CONTENT, "A prefetch, which makes no event.", &[]),
        Answer::new(StatusCode::UNPROCESSABLE_ENTITY, "Rejected or quarantined.", PICTURE),
        Answer::new(StatusCode::TOO_MANY_REQUESTS, "Beyond the key's rate or quota.", PICTURE),
        Answer::new(StatusCode::SERVICE_UNAVAILABLE, "Cannot be taken now.", PICTURE),
    ],
    errors: &[Code::Draining, Code::Internal],
};

/// A transparent GIF of one pixel.
const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";
/// Parameters that say how the event is sent, and are no part of it.
const ENVELOPE: &[&str] = &["key", "ack", "sent_at"];
/// Members that are objects.
const OBJECTS: &[&str] = &["metadata", "context"];
/// Headers by which browsers, mail scanners and link previewers say that nobody looks.
const SPECULATIVE: &[&str] = &["sec-purpose", "purpose", "x-purpose", "x-moz"];

/// Takes the event of a query.
pub(crate) async fn pixel(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let mut response = match take(&gateway, &parts).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn take(gateway: &Arc<Gateway>, parts: &Parts) -> Result<Response, RequestError> {
    if gateway.drain.has_begun() {
        return Err(RequestError::new(Code::Draining, "The gateway is shutting down; send again later."));
    }
    let key = gateway.keys.load().authenticate(&parts.headers, &parts.uri)?;
    if is_speculative(&parts.headers) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let ack = acknowledgement(&parts.uri)?;
    let pairs = pairs(&parts.uri)?;
    let sent_at = pairs.iter().find(|(name, _)| name == "sent_at");
    let sent_at = sent_at.map_or(SentAt::Absent, |(_, text)| SentAt::from_text(text));
    let event = event(&pairs);
    let client =
        Client::new(gateway, Arc::clone(&key), &Visitor::new(&parts.extensions, parts.headers.clone()));
    let transmission = client.transmission(gateway, ack, sent_at, None);
    let event = event.as_bytes();
    let response = if parts.method == Method::HEAD {
        status(&[gateway.preview(event, &transmission)]).into_response()
    } else {
        let Ok(verdicts) = gateway.accept(&[event], transmission).await else {
            return Err(RequestError::new(Code::Internal, "A fault of the gateway; look at its log."));
        };
        answered(gateway, &key, &verdicts)
    };
    let (mut head, _) = response.into_parts();
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    head.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(head, Body::from(GIF)))
}

fn is_speculative(headers: &HeaderMap) -> bool {
    let purposes = SPECULATIVE.iter().flat_map(|name| headers.get_all(HeaderName::from_static(name)));
    purposes.filter_map(|value| value.to_str().ok()).any(|value| {
        let value = value.to_ascii_lowercase();
        ["prefetch", "prerender", "preview"].iter().any(|purpose| value.contains(purpose))
    })
}

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, RequestError> {
    let unreadable = || RequestError::new(Code::RequestInvalid, "The query is not UTF-8, percent-encoded.");
    let Query(mut pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| unreadable())?;
    let replaced = pairs.iter().any(|(name, value)| name.contains('\u{fffd}') || value.contains('\u{fffd}'));
    if replaced && !uri.query().unwrap_or_default().to_ascii_uppercase().contains("%EF%BF%BD") {
        return Err(unreadable());
    }
    for (name, value) in &mut pairs {
        if ["timestamp", "sent_at"].contains(&name.as_str()) {
            *value = with_plus(value);
        }
    }
    Ok(pairs)
}

/// A `+` that was not escaped comes as a space: behind the time of day it can only be the sign of an offset.
fn with_plus(time: &str) -> String {
    /// `2024-03-31T`
    const DATE_BYTES: usize = 11;
    let time = time.trim();
    match (time.get(..DATE_BYTES), time.get(DATE_BYTES..)) {
        (Some(date), Some(rest)) => format!("{date}{}", rest.replace(' ', "+")),
        _ => time.to_owned(),
    }
}

/// The event as JSON. A name that comes twice stays there twice, and the event is refused for it.
fn event(pairs: &[(String, String)]) -> String {
    let mut members = Vec::new();
    let mut nested: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in pairs.iter().filter(|(name, _)| !ENVELOPE.contains(&name.as_str())) {
        let is_json = || serde_json::from_str::<IgnoredAny>(value).is_ok();
        match name.split_once('.') {
            Some((object, member)) if OBJECTS.contains(&object) => {
                nested.entry(object).or_default().push(format!("{}:{}", json(member), json(value)));
            }
            None if OBJECTS.contains(&name.as_str()) && is_json() => {
                members.push(format!("{}:{value}", json(name)));
            }
            _ => members.push(format!("{}:{}", json(name), json(value))),
        }
    }
    members.extend(nested.iter().map(|(object, inner)| format!("{}:{{{}}}", json(object), inner.join(","))));
    format!("{{{}}}", members.join(","))
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> String {
        event(&pairs(&format!("/v1/pixel.gif?{query}").parse().unwrap()).unwrap())
    }

    #[test]
    fn a_query_becomes_an_event() {
        assert_eq!(of("key=wk&ack=disk"), "{}");
        assert_eq!(
            of("event_type=page_view&metadata.path=%2Fa%22b&metadata.title=x+y&user_id=u"),
            r#"{"event_type":"page_view","user_id":"u","metadata":{"path":"/a\"b","title":"x y"}}"#
        );
        assert_eq!(of("metadata=%7B%22quantity%22%3A2%7D"), r#"{"metadata":{"quantity":2}}"#);
        assert_eq!(
            of("metadata=%7B%7D%2C%22a%22%3A1"),
            r#"{"metadata":"{},\"a\":1"}"#,
            "no way out of the member"
        );
    }

    #[test]
    fn a_plus_that_became_a_space_is_repaired_and_a_space_between_date_and_time_is_not() {
        for (sent, right) in [
            ("2024-03-31T02:30:00+02:00", "2024-03-31T02:30:00+02:00"),
            ("2024-03-31T02:30:00%2B02:00", "2024-03-31T02:30:00+02:00"),
            ("2024-03-31+02:30:00", "2024-03-31 02:30:00"),
            ("1711845000000", "1711845000000"),
        ] {
            assert_eq!(of(&format!("timestamp={sent}")), format!(r#"{{"timestamp":"{right}"}}"#), "{sent}");
        }
        assert!(pairs(&"/v1/pixel.gif?user_id=%FF".parse().unwrap()).is_err());
    }
}
