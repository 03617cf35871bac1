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

/// Appends the beginning of a `batch` frame, or without `seq` of a body for `POST /v1/events`. [`push_discarded`] may follow, then
/// [`push_events`]. `sent_at` is the sender's clock, in milliseconds since 1970.
pub fn batch_head(out: &mut String, seq: Option<u32>, sent_at: f64) {
    out.push_str("{");
    if let Some(seq) = seq {
        out.push_str(r#""type":"batch","seq":"#);
        push_number(out, f64::from(seq));
        out.push_str(",");
    }
    out.push_str(r#""sent_at":"#);
    push_number(out, sent_at);
}

/// Appends a report of events that were dropped knowingly; a `]` has to follow the last. `id` and `code` need no escapes.
pub fn push_discarded(out: &mut String, first: bool, id: &str, code: &str, events: u32) {
    out.push_str(if first { r#","discarded":[{"id":""# } else { r#",{"id":""# });
    for text in [id, r#"","code":""#, code, r#"","events":"#] {
        out.push_str(text);
    }
    push_number(out, f64::from(events));
    out.push_str("}");
}

/// Appends the events, which are JSON objects already, and ends the batch.
pub fn push_events<'e>(out: &mut String, events: impl IntoIterator<Item = &'e str>) {
    let mut before = r#","events":["#;
    for event in events {
        out.push_str(before);
        out.push_str(event);
        before = ",";
    }
    if before.len() > 1 {
        out.push_str(before);
    }
    out.push_str("]}");
}

/// Appends a whole number below 10^18 that is not negative, in decimal digits.
pub fn push_number(out: &mut String, number: f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and not negative")]
    let high = (number / BILLION) as u32;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and below a billion")]
    let low = (number - f64::from(high) * BILLION) as u32;
    if high > 0 {
        push_digits(out, high, 1);
        push_digits(out, low, 9);
    } else {
        push_digits(out, low, 1);
    }
}

const BILLION: f64 = 1e9;

/// At least so many digits.
fn push_digits(out: &mut String, number: u32, least: u32) {
    let mut divisor = 1_000_000_000;
    let mut place = 10;
    while divisor > 0 {
        if place <= least || number >= divisor {
            let digit = (number / divisor % 10) as usize;
            out.push_str("0123456789".get(digit..=digit).unwrap_or_default());
        }
        divisor /= 10;
        place -= 1;
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
