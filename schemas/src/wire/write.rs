//! Writing client frames and bodies.
//!
//! **Invariant:** every text that is not handed over as JSON is escaped.

use alloc::string::String;

/// Appends a `hello` frame.
pub fn hello_frame(out: &mut String, key: Option<&str>, sdk: Option<&str>, resume: Option<&str>) {
    out.push_str(r#"{"type":"hello""#);
    for (name, value) in [("key", key), ("sdk", sdk), ("resume", resume)] {
        if let Some(value) = value {
            out.push_str(",\"");
            out.push_str(name);
            out.push_str("\":");
            push_string(out, value);
        }
    }
    out.push('}');
}

/// Appends a `batch` frame around events that are JSON objects already. `sent_at_ms` is the sender's clock, since 1970.
pub fn batch_frame<'e>(
    out: &mut String,
    seq: u64,
    sent_at_ms: u64,
    events: impl IntoIterator<Item = &'e str>,
) {
    out.push_str(r#"{"type":"batch","seq":"#);
    push_u64(out, seq);
    out.push_str(r#","sent_at":"#);
    push_u64(out, sent_at_ms);
    push_events(out, events);
}

/// Appends a body for `POST /v1/events` around events that are JSON objects already.
pub fn batch_body<'e>(out: &mut String, sent_at_ms: u64, events: impl IntoIterator<Item = &'e str>) {
    out.push_str(r#"{"sent_at":"#);
    push_u64(out, sent_at_ms);
    push_events(out, events);
}

fn push_events<'e>(out: &mut String, events: impl IntoIterator<Item = &'e str>) {
    out.push_str(r#","events":["#);
    let mut first = true;
    for event in events {
        if !first {
            out.push(',');
        }
        first = false;
        out.push_str(event);
    }
    out.push_str("]}");
}

/// Appends a number in decimal digits.
pub fn push_u64(out: &mut String, number: u64) {
    let mut divisor = 1_u64;
    while number / divisor >= 10 {
        divisor *= 10;
    }
    while divisor > 0 {
        out.push(char::from(b'0' + (number / divisor % 10) as u8));
        divisor /= 10;
    }
}

/// Appends a JSON string with its quotes; control characters, quotes and backslashes are escaped.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' => {
                out.push_str("\\u00");
                for nibble in [letter as u8 >> 4, letter as u8 & 15] {
                    out.push(char::from(if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }));
                }
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}
