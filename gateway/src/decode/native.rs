//! Our own body forms: one event, an array, `{"events":[…]}`, NDJSON.
//!
//! **Invariant:** the events come out as the bytes that were sent, in their order.

use schemas::json::{self, Body, Kind, Member};
use schemas::time::Timestamp;
use schemas::verdict::Code;

use crate::error::RequestError;

/// A body's events, and what came with them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Split<'a> {
    /// Bytes of each event.
    pub(crate) events: Vec<&'a [u8]>,
    /// Members beside `events`.
    pub(crate) envelope: Vec<Member<'a>>,
}

/// How a body says that it holds its events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ContentType {
    /// One JSON text; several lines of objects are taken as NDJSON.
    Json,
    /// A JSON text a line.
    NdJson,
}

/// A difference of clocks, in milliseconds, from which on [`SentAt::Roughly`] corrects.
pub(crate) const ROUGH_MS: i64 = 60_000;

/// When the sender's clock says that it sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum SentAt {
    /// It does not say.
    #[default]
    Absent,
    /// This instant.
    At(Timestamp),
    /// This instant, which counts only where it is at least [`ROUGH_MS`] off.
    Roughly(Timestamp),
    /// So many milliseconds after the event, which has no time of its own.
    After(i64),
    /// It says something that is no instant.
    Unreadable,
}

impl ContentType {
    /// Reads `Content-Type`. `text/plain` is what beacons can send without a preflight.
    pub(crate) fn parse(value: Option<&str>) -> Result<Self, RequestError> {
        let unsupported = || {
            let message = "Send application/json, application/x-ndjson or text/plain, in UTF-8.";
            RequestError::new(Code::BodyUnsupported, message)
        };
        let Some(value) = value else { return Ok(Self::Json) };
        let mut parts = value.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let charset = value.trim().trim_matches('"');
            let utf8 = ["utf-8", "utf8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known));
            if name.trim().eq_ignore_ascii_case("charset") && !utf8 {
                return Err(unsupported());
            }
        }
        match essence.as_str() {
            "" | "application/json" | "text/plain" | "application/x-www-form-urlencoded" => Ok(Self::Json),
            "application/x-ndjson" | "application/ndjson" => Ok(Self::NdJson),
            _ => Err(unsupported()),
        }
    }
}

/// An event without a time of its own is at most so old, ms: a week.
const MAX_AGE_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

impl SentAt {
    /// How long ago an event without a time of its own was, milliseconds.
    pub(crate) fn age_ms(self) -> i64 {
        if let Self::After(age) = self { age.clamp(0, MAX_AGE_MS) } else { 0 }
    }

    /// Reads a query parameter.
    pub(crate) fn from_text(text: &str) -> Self {
        Timestamp::parse(text).map_or(Self::Unreadable, Self::At)
    }

    /// Reads the `sent_at` member of an envelope or frame.
    pub(crate) fn from_envelope(envelope: &[Member<'_>]) -> Self {
        match envelope.iter().find(|member| member.name == "sent_at") {
            Some(member) if member.kind != Kind::Null => instant(member).map_or(Self::Unreadable, Self::At),
            _ => Self::Absent,
        }
    }
}

/// The instant in a string or number.
pub(crate) fn instant(member: &Member<'_>) -> Option<Timestamp> {
    match member.kind {
        Kind::String => Timestamp::parse(&member.str()?),
        Kind::Number => Timestamp::from_epoch_number(std::str::from_utf8(member.value).ok()?.parse().ok()?),
        _ => None,
    }
}

/// Finds the events of a body.
pub(crate) fn split(body: &[u8], form: ContentType, max_events: usize) -> Result<Split<'_>, RequestError> {
    let split = if form == ContentType::NdJson || looks_like_lines(body) {
        lines(body, max_events)?
    } else {
        match json::split(body, max_events) {
            Ok(Body::One(event)) if !json::is_closed(event) => return Err(cut(event.len()).into()),
            Ok(Body::One(event)) => Split { events: vec![event], envelope: Vec::new() },
            Ok(Body::Many { events, envelope }) => Split { events, envelope },
            Err(error) if error.code == Code::BodyEmpty => Split { events: Vec::new(), envelope: Vec::new() },
            Err(error) if error.code == Code::BatchTooManyEvents => {
                return Err(RequestError::too_many_events(max_events));
            }
            Err(error) => return Err(error.into()),
        }
    };
    if split.events.is_empty() {
        return Err(RequestError::new(Code::BodyEmpty, "The body holds no event."));
    }
    Ok(split)
}

fn cut(at: usize) -> json::Error {
    json::Error { code: Code::BodySyntax, pointer: String::new(), at }
}

fn lines(body: &[u8], max_events: usize) -> Result<Split<'_>, RequestError> {
    let events: Vec<&[u8]> = json::lines(body).take(max_events.saturating_add(1)).collect();
    if events.len() > max_events {
        return Err(RequestError::too_many_events(max_events));
    }
    Ok(Split { events, envelope: Vec::new() })
}

/// Several lines, each from brace to brace. No JSON text looks so: it has a comma or bracket between two objects.
fn looks_like_lines(body: &[u8]) -> bool {
    // An array is passed over without a look for its lines.
    if !json::begins_with_brace(body) {
        return false;
    }
    let mut count = 0;
    json::lines(body).all(|line| {
        count += 1;
        line.starts_with(b"{") && line.ends_with(b"}")
    }) && count > 1
}

/// The id of an event that cannot be scanned, so that its sender can tell which one the verdict means: the value of the first
/// `event_id` outside nested values, if it is written without escapes.
pub(crate) fn salvage_event_id(event: &[u8]) -> Option<&str> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = event.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                let (text, after) = quoted(event, at)?;
                let rest = event.get(after..)?.trim_ascii_start();
                if depth == 1 && text == b"event_id" && rest.starts_with(b":") {
                    let value = rest.get(1..)?.trim_ascii_start();
                    let (id, _) = quoted(value, 0)?;
                    return std::str::from_utf8(id).ok();
                }
                at = after;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The raw content of the string that begins at `at`, and where it ends.
fn quoted(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let content = bytes.get(at..)?.strip_prefix(b"\"")?;
    let mut escaped = false;
    let end = content.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    Some((content.get(..end)?, at + end + 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(body: &str, form: ContentType) -> Result<Vec<String>, Code> {
        split(body.as_bytes(), form, 3)
            .map(|split| {
                split.events.iter().map(|event| String::from_utf8_lossy(event).into_owned()).collect()
            })
            .map_err(|error| error.code)
    }

    #[test]
    fn content_types_are_taken_or_refused() {
        for value in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "text/plain;charset=\"utf-8\"",
            "text/plain",
            // What curl sends with -d unless it is told otherwise: a body that is no JSON is refused by its syntax.
            "application/x-www-form-urlencoded",
        ] {
            assert_eq!(ContentType::parse(Some(value)).unwrap(), ContentType::Json, "{value}");
        }
        assert_eq!(ContentType::parse(None).unwrap(), ContentType::Json);
        assert_eq!(ContentType::parse(Some("application/x-ndjson")).unwrap(), ContentType::NdJson);
        for value in ["text/html", "application/json; charset=iso-8859-1", "image/gif"] {
            assert_eq!(ContentType::parse(Some(value)).unwrap_err().code, Code::BodyUnsupported, "{value}");
        }
    }

    #[test]
    fn every_form_gives_its_events_in_order() {
        for body in [
            "{\"a\":1}",
            "\u{feff}{\"a\":1}",
            "  {\"a\":1}\n",
            "[{\"a\":1}]\n",
            "{\"events\":[{\"a\":1}],\"sent_at\":5}",
        ] {
            assert_eq!(texts(body, ContentType::Json).unwrap(), ["{\"a\":1}"], "{body}");
        }
        for form in [ContentType::Json, ContentType::NdJson] {
            assert_eq!(texts("{\"a\":1}\r\n\n{\"a\":2}\n", form).unwrap(), ["{\"a\":1}", "{\"a\":2}"]);
        }
    }

    #[test]
    fn a_body_without_or_with_too_many_events_or_that_cannot_be_split_is_refused() {
        for body in ["", " \n", "[]", "{\"events\":[]}"] {
            assert_eq!(texts(body, ContentType::Json), Err(Code::BodyEmpty), "{body}");
        }
        assert_eq!(texts("\n\n", ContentType::NdJson), Err(Code::BodyEmpty));
        assert_eq!(texts("[{},{},{},{}]", ContentType::Json), Err(Code::BatchTooManyEvents));
        assert_eq!(texts("{}\n{}\n{}\n{}", ContentType::NdJson), Err(Code::BatchTooManyEvents));
        for body in ["[{\"a\":1},", "{\"events\":[\n{\"a\":1},\n{\"b\"", "{\"a\":\"x", "hello"] {
            assert_eq!(texts(body, ContentType::Json), Err(Code::BodySyntax), "{body}");
        }
    }

    #[test]
    fn the_time_of_sending_is_read_from_number_or_text() {
        let sent = |body: &str| {
            let split = split(body.as_bytes(), ContentType::Json, 3).unwrap();
            SentAt::from_envelope(&split.envelope)
        };
        let right = SentAt::At(Timestamp(1_714_054_985_123));
        assert_eq!(sent("{\"events\":[{}],\"sent_at\":1714054985123}"), right);
        assert_eq!(sent("{\"sent_at\":\"2024-04-25T14:23:05.123Z\",\"events\":[{}]}"), right);
        assert_eq!(sent("{\"events\":[{}],\"sent_at\":\"soon\"}"), SentAt::Unreadable);
        assert_eq!(sent("{\"events\":[{}],\"sent_at\":null}"), SentAt::Absent);
        assert_eq!(sent("[{}]"), SentAt::Absent);
    }

    #[test]
    fn the_id_of_a_broken_event_is_found_at_its_top_only() {
        assert_eq!(
            salvage_event_id(b"{\"m\":{\"event_id\":\"no\"},\"event_id\" : \"yes\",\xff"),
            Some("yes")
        );
        assert_eq!(salvage_event_id(b"{\"a\":\"event_id\",\"b\":[\"\\\"event_id\"]}"), None);
        assert_eq!(salvage_event_id(b"{\"event_id\":12}"), None);
        assert_eq!(salvage_event_id(b"}{"), None);
    }

    proptest! {
        #[test]
        fn no_body_panics(bytes: Vec<u8>, text in "[\\[\\]{}\",:\\\\a1 \n]{0,40}") {
            for body in [bytes.as_slice(), text.as_bytes()] {
                let _ = split(body, ContentType::Json, 3);
                let _ = split(body, ContentType::NdJson, 3);
                let _ = salvage_event_id(body);
            }
        }
    }
}
