//! Inputs as text: one letter, then fields, U+001F between them. Commands are written by [`crate::Commands`].
//!
//! **Invariant:** no field but the last of an input holds a separator: JSON has no raw control characters, and what comes from
//! the network stands last.

use alloc::string::String;

use crate::engine::Engine;
use crate::id::{Entropy, EventId};
use crate::input::{Answer, Consent, Input, Priority, Tracked};

pub(crate) const FIELD: u8 = 0x1f;

/// One step: reads the input, writes the commands. Unreadable input does nothing.
pub fn step(engine: &mut Engine, input: &str, now: u64, entropy: Entropy) -> String {
    match read(input) {
        Some(input) => engine.step(input, now, entropy).into_string(),
        None => String::new(),
    }
}

/// What stands before and after the first `byte`, an ASCII one.
pub(crate) fn cut(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|other| other == byte)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// The next field, and what follows it.
fn next<'a>(rest: &mut Option<&'a str>) -> Option<&'a str> {
    let text = (*rest)?;
    let (field, after) = match cut(text, FIELD) {
        Some((field, after)) => (field, Some(after)),
        None => (text, None),
    };
    *rest = after;
    Some(field)
}

/// Reads an input.
pub fn read(text: &str) -> Option<Input<'_>> {
    let (op, rest) = cut(text, FIELD).unwrap_or((text, ""));
    let bare = text.len() == op.len();
    let pair = || cut(rest, FIELD);
    Some(match op {
        "R" => pair().map(|(key, value)| Input::Restored { key, value })?,
        "S" => match pair() {
            Some((key, value)) => Input::Stored { key, value: Some(value) },
            None => Input::Stored { key: rest, value: None },
        },
        "I" => {
            let fields = &mut Some(rest);
            let (key, sdk) = (next(fields)?, next(fields)?);
            Input::Start { key, sdk, socket: next(fields)? == "1", consent: consent(next(fields)?) }
        }
        "P" => Input::PutFailed { key: rest },
        "X" if bare => Input::Cleared,
        "T" => Input::Track(tracked(rest)?),
        "U" => pair()
            .and_then(|(user_json, event)| Some(Input::Identify { user_json, event: tracked(event)? }))?,
        "Z" if bare => Input::Reset,
        "F" if bare => Input::Flush,
        "o" if bare => Input::SocketOpen,
        "f" => Input::SocketFrame(rest),
        "c" if bare => Input::SocketClosed,
        "d" => Input::Decision(rest),
        "A" => {
            let fields = &mut Some(rest);
            let request = u32::try_from(number(next(fields)?)?).ok()?;
            let status = u16::try_from(number(next(fields)?)?).ok()?;
            Input::Http(Answer { request, status, retry_after_ms: number(next(fields)?), body: (*fields)? })
        }
        "t" if bare => Input::Timer,
        "n" => Input::Online(rest == "1"),
        "h" => Input::Hide { gone: rest == "1" },
        "v" if bare => Input::Show,
        "L" => Input::Leader(rest == "1"),
        "C" => Input::Consent(consent(rest)),
        _ => return None,
    })
}

fn tracked(rest: &str) -> Option<Tracked<'_>> {
    let fields = &mut Some(rest);
    let priority = match next(fields)? {
        "0" => Priority::BestEffort,
        "2" => Priority::Critical,
        _ => Priority::Normal,
    };
    Some(Tracked {
        priority,
        timestamp: next(fields)?,
        type_json: next(fields)?,
        metadata_json: next(fields)?,
        context_json: next(fields)?,
        id: next(fields).and_then(EventId::parse),
    })
}

fn consent(word: &str) -> Consent {
    match word {
        "0" => Consent::Granted,
        "1" => Consent::Pending,
        _ => Consent::Denied,
    }
}

pub(crate) fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { number.checked_mul(10)?.checked_add(u64::from(digit)) }
    });
    digits.filter(|_| !text.is_empty())
}
