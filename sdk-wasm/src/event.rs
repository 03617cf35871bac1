//! An event's JSON, put together from strings that the host's serialiser made.
//!
//! **Invariant:** the text begins with `{"event_id":"<36 letters>","event_type":"…"`, by which a stored event is recognised.

use alloc::string::String;

use crate::identity::Identity;
use crate::input::Tracked;

const HEAD: &str = r#"{"event_id":""#;
const TYPE: &str = r#"","event_type":"#;
const ID: usize = HEAD.len() + 36;

/// The event's JSON.
pub(crate) fn json(who: &Identity, event: &Tracked<'_>) -> String {
    let mut out = String::with_capacity(256 + event.json.len());
    for text in [HEAD, event.id, "\",", event.json] {
        out.push_str(text);
    }
    for (name, value, quote) in [
        ("user_id", &who.user_json, ""),
        ("anonymous_id", &who.device, "\""),
        ("session_id", &who.session, "\""),
    ] {
        if !value.is_empty() {
            for text in [",\"", name, "\":", quote, value, quote] {
                out.push_str(text);
            }
        }
    }
    out.push('}');
    out
}

/// The event's id.
pub(crate) fn id(json: &str) -> &str {
    json.get(HEAD.len()..ID).unwrap_or_default()
}

/// The event's type, as JSON.
pub(crate) fn type_json(json: &str) -> &str {
    let rest = json.get(ID + TYPE.len()..).unwrap_or_default();
    let mut escaped = true;
    let end = rest.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.and_then(|end| rest.get(..=end)).unwrap_or("null")
}

/// Whether a stored text looks like an event of this id as [`json`] writes it. What is damaged further inside the server refuses.
pub(crate) fn is_event(text: &str, of: &str) -> bool {
    id(text) == of && of.len() == 36 && text.ends_with('}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Priority;

    #[test]
    fn a_type_is_found_whatever_stands_in_it() {
        let mut who = Identity::default();
        who.user_json = r#""u\"1""#.into();
        for kind in [r#""page_view""#, r#""a\"b""#, r#""\\""#, r#""""#] {
            let mut members = String::from(r#""event_type":"#);
            members.push_str(kind);
            members.push_str(r#","metadata":{"event_type":"x"}"#);
            let id = "018f15a3-75a3-77ff-bfff-ffffffffffff";
            let text = json(&who, &Tracked { priority: Priority::Normal, id, json: &members });
            assert_eq!(type_json(&text), kind);
            assert!(is_event(&text, id) && !is_event(&text, "x"), "{text}");
            let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(parsed["user_id"], "u\"1");
        }
    }
}
