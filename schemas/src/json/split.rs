//! Where the events of a body begin and end.
//!
//! **Invariant:** only brackets and strings are looked at inside an event, so whatever else is wrong with it stays its own; no
//! recursion.

use super::{Body, Error, Member, Tape, plain, scan, without_bom};
use crate::verdict::Code;

/// Splits a JSON body into events by brackets and strings alone, so that whatever is wrong inside an event stays its own.
/// A leading byte-order mark is skipped. `max_events` bounds the answer: more is [`Code::BatchTooManyEvents`].
///
/// An element whose brackets do not match costs only itself too, as far as that can be told: a closing bracket that nothing
/// opened is passed over, one that skips an open one closes both, and an object cannot go on with `,{`. An array that does
/// not end is [`Code::BodySyntax`]: nobody knows what was cut off.
pub fn split(body: &[u8], max_events: usize) -> Result<Body<'_>, Error> {
    split_by(body, "events", max_events)
}

/// The same where other senders call the array by another name than `events`.
pub fn split_by<'a>(body: &'a [u8], array: &'static str, max_events: usize) -> Result<Body<'a>, Error> {
    let body = without_bom(body).trim_ascii();
    let mut splitter = Splitter { array, ..Splitter::new(body, max_events) };
    match splitter.peek() {
        None => Err(splitter.error(Code::BodyEmpty)),
        Some(b'[') => {
            let events = splitter.elements(Ending::Body)?;
            if splitter.at < body.len() {
                return Err(splitter.error(Code::BodySyntax));
            }
            Ok(Body::Many { events, envelope: Vec::new() })
        }
        Some(b'{') => splitter.envelope(),
        Some(_) => Err(splitter.error(Code::BodySyntax)),
    }
}

/// Whether every bracket of an event is closed. One that is cut is no event: nobody knows what was cut off.
pub fn is_closed(event: &[u8]) -> bool {
    let mut splitter = Splitter::new(event, 1);
    let mut depth = 0_usize;
    loop {
        match splitter.peek() {
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']') => depth = depth.saturating_sub(1),
            Some(b'"') => {
                if !splitter.string() {
                    return false;
                }
                continue;
            }
            Some(_) => {}
            None => return depth == 0,
        }
        splitter.at += 1;
    }
}

/// What may follow the array of events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Body,
    Envelope,
}

struct Splitter<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The envelope's member that holds the events.
    array: &'static str,
    max_events: usize,
    /// The closing brackets that are owed inside the current element, the innermost last.
    open: Vec<u8>,
    /// How many of those close an array.
    open_arrays: usize,
    tape: Tape,
}

impl<'a> Splitter<'a> {
    fn new(bytes: &'a [u8], max_events: usize) -> Self {
        Self {
            bytes,
            at: 0,
            array: "events",
            max_events,
            open: Vec::new(),
            open_arrays: 0,
            tape: Tape::default(),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn error(&self, code: Code) -> Error {
        Error { code, pointer: String::new(), at: self.at }
    }

    fn space(&mut self) {
        self.at += self.rest().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    }

    /// Skips the string that starts here; false if it does not end.
    fn string(&mut self) -> bool {
        self.at += 1;
        loop {
            self.at += plain(self.rest());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return true;
                }
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return false,
            }
        }
    }

    /// Skips what stands here up to the comma or closing bracket that ends it, and gives its bytes; `None` if it does not end.
    fn element(&mut self, ending: Ending) -> Option<&'a [u8]> {
        self.space();
        let start = self.at;
        self.open.clear();
        self.open_arrays = 0;
        loop {
            match self.peek()? {
                b'"' => {
                    if !self.string() {
                        return None;
                    }
                    continue;
                }
                b'{' => self.owe(b'}'),
                b'[' => self.owe(b']'),
                b',' if self.open.is_empty() || self.object_cannot_go_on() => break,
                b']' if self.open.is_empty() || self.array_must_end(ending) => break,
                bracket @ (b'}' | b']') => self.pay(bracket),
                _ => {}
            }
            self.at += 1;
        }
        Some(self.bytes.get(start..self.at).unwrap_or_default().trim_ascii_end())
    }

    fn owe(&mut self, bracket: u8) {
        self.open.push(bracket);
        self.open_arrays += usize::from(bracket == b']');
    }

    /// Closes down to the innermost bracket of this sort, if one is open. Each look at `open` takes something off it, so that
    /// a body of nothing but brackets takes linear time too.
    fn pay(&mut self, bracket: u8) {
        let owed = if bracket == b']' { self.open_arrays } else { self.open.len() - self.open_arrays };
        if owed == 0 {
            return;
        }
        while let Some(top) = self.open.pop() {
            self.open_arrays -= usize::from(top == b']');
            if top == bracket {
                break;
            }
        }
    }

    /// At a comma directly in an object: what follows must be a name; a brace there begins the next event.
    fn object_cannot_go_on(&self) -> bool {
        self.open.last() == Some(&b'}')
            && self.rest().iter().skip(1).find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
    }

    /// At a bracket that the element did not open and behind which the body ends.
    fn array_must_end(&self, ending: Ending) -> bool {
        let after = match ending {
            Ending::Body => &b""[..],
            Ending::Envelope => b"}",
        };
        let rest = self.rest();
        rest.len() < 64
            && self.open_arrays == 0
            && rest.get(1..).is_some_and(|rest| rest.trim_ascii() == after)
    }

    /// Splits the array that starts here and steps behind it.
    fn elements(&mut self, ending: Ending) -> Result<Vec<&'a [u8]>, Error> {
        let mut events = Vec::new();
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(events);
        }
        loop {
            let Some(event) = self.element(ending) else { return Err(self.error(Code::BodySyntax)) };
            if events.len() >= self.max_events {
                return Err(self.error(Code::BatchTooManyEvents));
            }
            events.push(event);
            let last = self.peek() == Some(b']');
            self.at += 1;
            if last {
                return Ok(events);
            }
        }
    }

    /// An object: an event, unless it has the array of events and no `event_type`.
    fn envelope(&mut self) -> Result<Body<'a>, Error> {
        let one = Ok(Body::One(self.bytes));
        let mut events = None;
        let mut envelope: Vec<Member<'a>> = Vec::new();
        self.at += 1;
        while let Some(name) = self.name() {
            if name == "event_type" {
                return one;
            }
            if name == self.array && self.peek() == Some(b'[') && events.is_none() {
                events = Some(self.elements(Ending::Envelope)?);
            } else {
                let Some((value, kind)) = self.member_value() else { break };
                let twice = name == self.array && events.is_some()
                    || envelope.iter().any(|member| member.name == name);
                if twice {
                    return if events.is_some() { Err(self.error(Code::BodySyntax)) } else { one };
                }
                envelope.push(Member { name: name.into(), value, kind });
                // An event with as many members is none of ours to split, and the comparison above stays short.
                if envelope.len() > MAX_ENVELOPE_MEMBERS {
                    break;
                }
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') if self.at + 1 == self.bytes.len() => {
                    return match events {
                        Some(events) => Ok(Body::Many { events, envelope }),
                        None => one,
                    };
                }
                _ => break,
            }
        }
        // Broken: as one event it gets a verdict with the place; as a batch nobody knows what is missing.
        if events.is_some() { Err(self.error(Code::BodySyntax)) } else { one }
    }

    /// A name with its colon, and the space behind.
    fn name(&mut self) -> Option<String> {
        self.space();
        let start = self.at;
        if self.peek() != Some(b'"') || !self.string() {
            return None;
        }
        let name = serde_json::from_slice(self.bytes.get(start..self.at)?).ok()?;
        self.space();
        if self.peek() != Some(b':') {
            return None;
        }
        self.at += 1;
        self.space();
        Some(name)
    }

    /// The value of an envelope's member: valid JSON up to the comma or brace behind it.
    fn member_value(&mut self) -> Option<(&'a [u8], super::Kind)> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    if !self.string() {
                        return None;
                    }
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b',' | b'}' | b']' if depth == 0 => break,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        let value = self.bytes.get(start..self.at)?.trim_ascii_end();
        Some((value, scan::check(value, &mut self.tape).ok()?))
    }
}

/// Most members of an envelope beside `events`.
const MAX_ENVELOPE_MEMBERS: usize = 32;
