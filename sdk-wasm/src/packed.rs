//! Inputs as text: one letter, then fields, U+001F between them. [`write`] is for hosts in Rust; the engine takes them apart as it
//! needs them. Commands are written by [`crate::Commands`].
//!
//! **Invariant:** no field holds a separator: JSON has no raw control characters, and hosts remove them from what else they pass.

use alloc::string::String;

use crate::input::{Consent, Greeting, Input, Millis, Priority, Tracked, Verdicts};

pub(crate) const FIELD: u8 = 0x1f;

/// What stands before and after the first `byte`, an ASCII one.
pub(crate) fn cut(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|other| other == byte)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// The next field; empty behind the last.
pub(crate) fn next<'a>(rest: &mut Option<&'a str>) -> &'a str {
    let Some(text) = *rest else { return "" };
    if let Some((field, after)) = cut(text, FIELD) {
        *rest = Some(after);
        field
    } else {
        *rest = None;
        text
    }
}

pub(crate) fn next_u32(rest: &mut Option<&str>) -> u32 {
    whole(number(next(rest)))
}

impl<'a> Verdicts<'a> {
    /// The next verdict: status letter, id, JSON.
    pub(crate) fn next(&mut self) -> Option<(u8, &'a str, &'a str)> {
        self.0?;
        let status = next(&mut self.0).bytes().next().unwrap_or_default();
        Some((status, next(&mut self.0), next(&mut self.0)))
    }

    /// How many there are.
    pub(crate) fn count(mut self) -> usize {
        let mut count = 0;
        while self.next().is_some() {
            count += 1;
        }
        count
    }
}

pub(crate) fn tracked<'a>(rest: &mut Option<&'a str>) -> Tracked<'a> {
    Tracked { priority: priority(next(rest)), id: next(rest), json: next(rest) }
}

/// `0` to `2`; anything else is the usual.
pub(crate) fn priority(word: &str) -> Priority {
    match word {
        "0" => Priority::BestEffort,
        "2" => Priority::Critical,
        _ => Priority::Normal,
    }
}

pub(crate) fn consent(word: &str) -> Consent {
    match word {
        "0" => Consent::Granted,
        "1" => Consent::Pending,
        _ => Consent::Denied,
    }
}

/// The digits at the beginning; 0 if there are none.
pub(crate) fn number(text: &str) -> Millis {
    let mut number = 0.0;
    for byte in text.bytes() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number * 10.0 + f64::from(digit);
    }
    number
}

/// A whole number that is not negative; the largest if it does not fit.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from float saturates")]
pub(crate) const fn whole(number: Millis) -> u32 {
    number as u32
}

/// The text form of an input.
pub fn write(input: &Input<'_>) -> String {
    let mut out = Writer(String::new());
    match *input {
        Input::Restored { key, value } => out.op("R").text(key).text(value),
        Input::Stored { key, value: Some(value) } => out.op("S").text(key).text(value),
        Input::Stored { key, value: None } => out.op("S").text(key),
        Input::Start { socket, consent } => out.op("I").flag(socket).consent(consent),
        Input::PutFailed { key } => out.op("P").text(key),
        Input::Cleared => out.op("X"),
        Input::Track(event) => out.op("T").tracked(&event),
        Input::Identify { user_json, event } => out.op("U").text(user_json).tracked(&event),
        Input::Reset { device } => out.op("Z").text(device),
        Input::Flush => out.op("F"),
        Input::SocketOpen => out.op("o"),
        Input::Greeted(greeting) => {
            let Greeting { resumed, credit, event_bytes, batch_bytes, batch_events } = greeting;
            let out = out.op("g");
            [resumed, credit, event_bytes, batch_bytes, batch_events]
                .into_iter()
                .fold(out, |out, number| out.number(f64::from(number)))
        }
        Input::Ack { seq, cumulative, credit, verdicts } => {
            let out = out.op("a").number(f64::from(seq)).number(f64::from(cumulative));
            out.number(f64::from(credit)).verdicts(verdicts)
        }
        Input::Pace(wait) => out.op("w").number(wait),
        Input::Refused { code } => out.op("e").text(code),
        Input::Heard => out.op("y"),
        Input::SocketClosed => out.op("c"),
        Input::Decision { id, json } => out.op("d").text(id).text(json),
        Input::Http(answer) => {
            let out = out.op("A").number(f64::from(answer.request)).number(f64::from(answer.status));
            out.number(answer.retry_after).text(answer.code).verdicts(answer.verdicts)
        }
        Input::Timer => out.op("t"),
        Input::Online(online) => out.op("n").flag(online),
        Input::Hide { gone } => out.op("h").flag(gone),
        Input::Show => out.op("v"),
        Input::Leader(leader) => out.op("L").flag(leader),
        Input::Consent(consent) => out.op("C").consent(consent),
    };
    out.0
}

struct Writer(String);

impl Writer {
    fn op(&mut self, letter: &str) -> &mut Self {
        self.0.push_str(letter);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.0.push_str("\u{1f}");
        self.0.push_str(text);
        self
    }

    fn flag(&mut self, yes: bool) -> &mut Self {
        self.text(if yes { "1" } else { "0" })
    }

    fn number(&mut self, number: Millis) -> &mut Self {
        self.0.push_str("\u{1f}");
        schemas::wire::push_number(&mut self.0, number);
        self
    }

    fn consent(&mut self, consent: Consent) -> &mut Self {
        self.text(match consent {
            Consent::Granted => "0",
            Consent::Pending => "1",
            Consent::Denied => "2",
        })
    }

    fn tracked(&mut self, event: &Tracked<'_>) -> &mut Self {
        self.text(match event.priority {
            Priority::BestEffort => "0",
            Priority::Normal => "1",
            Priority::Critical => "2",
        });
        self.text(event.id).text(event.json)
    }

    fn verdicts(&mut self, verdicts: Verdicts<'_>) -> &mut Self {
        match verdicts.0 {
            Some(text) => self.text(text),
            None => self,
        }
    }
}
