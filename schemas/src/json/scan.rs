//! The strict scan of one event.
//!
//! **Invariant:** one pass, no recursion; the pointer of an error names the innermost place that was reached; what is on
//! the tape afterwards is what `serde_json` would read from the same bytes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;

use super::tape::{Entry, Frame, Name, Scanned, Tape, has_late_controls, name_bit};
use super::{DEEPEST, Error, Kind, Limits, plain};
use crate::verdict::Code;

/// Up to so many names of an object are compared one by one; beyond, a set is kept.
const COMPARED_NAMES: u32 = 16;
/// Numbers without exponent and shorter than this fit a double.
const SAFE_NUMBER_BYTES: usize = 300;

/// Checks one whole JSON value, without white space around.
pub(super) fn check(bytes: &[u8], tape: &mut Tape) -> Result<Kind, Error> {
    let mut scanner = Scanner::new(bytes, Limits { max_depth: DEEPEST }, tape)?;
    let kind = scanner.value()?;
    scanner.end()?;
    Ok(kind)
}

impl Tape {
    /// Scans one event as [`super::object`] does, and gives all that is in it. The tape's memory is used again by the next event.
    pub fn object<'a>(&'a mut self, bytes: &'a [u8], limits: Limits) -> Result<Scanned<'a>, Error> {
        let text = self.fill(bytes, limits)?;
        Ok(Scanned { text, entries: &self.entries })
    }

    /// Fills the tape with one object; gives the object's text.
    pub(super) fn fill<'a>(&mut self, bytes: &'a [u8], limits: Limits) -> Result<&'a str, Error> {
        let mut scanner = Scanner::new(bytes, limits, self)?;
        scanner.space();
        let is_object = scanner.peek() == Some(b'{');
        scanner.value()?;
        scanner.end()?;
        if !is_object {
            return Err(Error { code: Code::EventNotObject, pointer: String::new(), at: 0 });
        }
        // What is not UTF-8 does not come so far: outside strings it is no JSON, and strings are looked at.
        scanner.text.ok_or_else(|| scanner.error(Code::JsonUnicode))
    }
}

struct Scanner<'a, 't> {
    bytes: &'a [u8],
    /// The same, if they are UTF-8.
    text: Option<&'a str>,
    at: usize,
    /// Where the bytes stop to be UTF-8.
    utf8_until: usize,
    max_depth: usize,
    /// A byte stands somewhere that a control character beyond ASCII's first ones begins with.
    has_late_controls: bool,
    entries: &'t mut Vec<Entry>,
    frames: &'t mut Vec<Frame>,
    /// Of open objects with many names: how deep they are, and all their names.
    sets: Vec<(usize, HashSet<Cow<'a, str>>)>,
}

impl<'a, 't> Scanner<'a, 't> {
    fn new(bytes: &'a [u8], limits: Limits, tape: &'t mut Tape) -> Result<Self, Error> {
        // Places on the tape have 32 bits.
        if u32::try_from(bytes.len()).is_err() {
            return Err(Error { code: Code::EventTooLarge, pointer: String::new(), at: 0 });
        }
        let text = simdutf8::compat::from_utf8(bytes);
        let utf8_until = text.as_ref().map_or_else(simdutf8::compat::Utf8Error::valid_up_to, |_| usize::MAX);
        tape.empty_for(bytes.len());
        Ok(Self {
            bytes,
            text: text.ok(),
            at: 0,
            utf8_until,
            max_depth: limits.max_depth.min(DEEPEST),
            has_late_controls: has_late_controls(bytes),
            entries: &mut tape.entries,
            frames: &mut tape.frames,
            sets: Vec::new(),
        })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Nothing but white space may follow.
    fn end(&mut self) -> Result<(), Error> {
        self.space();
        if self.peek().is_none() { Ok(()) } else { Err(self.syntax()) }
    }

    /// Scans the value that starts here, with all that is in it, and names its kind.
    fn value(&mut self) -> Result<Kind, Error> {
        loop {
            self.space();
            let mut more = self.begin()?;
            while !more {
                if self.frames.is_empty() {
                    return Ok(self.entries.first().map_or(Kind::Null, |entry| entry.kind));
                }
                more = self.more()?;
            }
            if self.frames.last().is_some_and(|frame| !frame.is_array) {
                self.name()?;
            }
        }
    }

    /// Scans a scalar, or opens an array or object; true if something stands inside that.
    fn begin(&mut self) -> Result<bool, Error> {
        let start = self.at;
        let (kind, escaped) = match self.peek() {
            Some(b'"') => (Kind::String, self.string(false)?),
            Some(b'{') => return self.open(false),
            Some(b'[') => return self.open(true),
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                (Kind::Number, false)
            }
            Some(b't') => (Kind::Boolean, self.word(b"true")?),
            Some(b'f') => (Kind::Boolean, self.word(b"false")?),
            Some(b'n') => (Kind::Null, self.word(b"null")?),
            _ => return Err(self.syntax()),
        };
        self.push(kind, start, escaped);
        Ok(false)
    }

    /// Puts the value that starts at `start` and ends here on the tape.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`new` refuses what is longer than 32 bits can count"
    )]
    fn push(&mut self, kind: Kind, start: usize, escaped: bool) {
        let Name { start: name_start, end: name_end, escaped: name_escaped } =
            self.frames.last().map(|frame| frame.name).unwrap_or_default();
        let (start, end) = (start as u32, self.at as u32);
        self.entries.push(Entry {
            start,
            end,
            name_start,
            name_end,
            size: 1,
            children: 0,
            kind,
            escaped,
            name_escaped,
        });
    }

    #[expect(clippy::cast_possible_truncation, reason = "a tape has fewer entries than the event has bytes")]
    fn open(&mut self, is_array: bool) -> Result<bool, Error> {
        if self.frames.len() >= self.max_depth {
            return Err(self.error(Code::JsonDepth));
        }
        let entry = self.entries.len() as u32;
        self.push(if is_array { Kind::Array } else { Kind::Object }, self.at, false);
        self.at += 1;
        self.frames.push(Frame { is_array, entry, ..Frame::default() });
        self.space();
        match self.peek() {
            Some(b']') if is_array => self.close(0),
            Some(b'}') if !is_array => self.close(0),
            _ => {
                self.enter(is_array);
                return Ok(true);
            }
        }
        Ok(false)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "`new` refuses what is longer than 32 bits can count"
    )]
    fn close(&mut self, children: u32) {
        self.at += 1;
        if self.sets.last().is_some_and(|(depth, _)| *depth == self.frames.len()) {
            self.sets.pop();
        }
        let Some(frame) = self.frames.pop() else { return };
        let (end, entries) = (self.at as u32, self.entries.len() as u32);
        if let Some(entry) = self.entries.get_mut(frame.entry as usize) {
            entry.end = end;
            entry.size = entries - frame.entry;
            entry.children = children;
        }
    }

    /// Elements begin at once, members with their name.
    fn enter(&mut self, inside: bool) {
        if let Some(frame) = self.frames.last_mut() {
            frame.inside = inside;
        }
    }

    /// Behind a value: true if a comma says that another one follows, false if the array or object was closed.
    fn more(&mut self) -> Result<bool, Error> {
        self.space();
        let next = self.peek();
        let Some(frame) = self.frames.last_mut() else { return Err(self.syntax()) };
        frame.inside = false;
        match (next, frame.is_array) {
            (Some(b','), is_array) => {
                frame.index += 1;
                frame.inside = is_array;
                self.at += 1;
                Ok(true)
            }
            (Some(b'}'), false) | (Some(b']'), true) => {
                let children = frame.index + 1;
                self.close(children);
                Ok(false)
            }
            _ => Err(self.syntax()),
        }
    }

    /// Scans a name and its colon.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`new` refuses what is longer than 32 bits can count"
    )]
    fn name(&mut self) -> Result<(), Error> {
        self.space();
        if self.peek() != Some(b'"') {
            return Err(self.syntax());
        }
        let start = self.at + 1;
        let escaped = self.string(true)?;
        let name = Name { start: start as u32, end: self.at as u32 - 1, escaped };
        let plain = self.bytes.get(start..self.at - 1).unwrap_or_default();
        // Before the slow look at characters.
        let suspicious = escaped || self.has_late_controls && has_late_controls(plain);
        if suspicious && self.decoded(name)?.chars().any(char::is_control) {
            return Err(self.error(Code::JsonControlCharacter));
        }
        let bit = if escaped { name_bit(self.decoded(name)?.as_bytes()) } else { name_bit(plain) };
        let is_new = self.is_new(name, bit)?;
        if let Some(frame) = self.frames.last_mut() {
            frame.inside = true;
            frame.name = name;
            frame.seen |= bit;
        }
        if !is_new {
            return Err(self.error(Code::JsonDuplicateName));
        }
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.syntax());
        }
        self.at += 1;
        Ok(())
    }

    /// A name with its escapes decoded.
    fn decoded(&self, name: Name) -> Result<Cow<'a, str>, Error> {
        let (start, end) = (name.start as usize, name.end as usize);
        if name.escaped {
            let quoted = self.bytes.get(start - 1..=end).unwrap_or_default();
            return Ok(Cow::Owned(serde_json::from_slice(quoted).map_err(|_| self.syntax())?));
        }
        let plain = std::str::from_utf8(self.bytes.get(start..end).unwrap_or_default());
        Ok(Cow::Borrowed(plain.map_err(|_| self.error(Code::JsonUnicode))?))
    }

    /// Whether the innermost object did not have this name before.
    fn is_new(&mut self, name: Name, bit: u64) -> Result<bool, Error> {
        let Some(frame) = self.frames.last().copied() else { return Ok(true) };
        if frame.index < COMPARED_NAMES {
            return if frame.seen & bit == 0 { Ok(true) } else { self.is_not_among(&frame, name) };
        }
        let depth = self.frames.len();
        if self.sets.last().is_none_or(|(of, _)| *of != depth) {
            let names = self.names(&frame)?.into_iter().collect();
            self.sets.push((depth, names));
        }
        let name = self.decoded(name)?;
        Ok(self.sets.last_mut().is_none_or(|(_, names)| names.insert(name)))
    }

    /// Whether no name of an open object is this one. Names without escapes are compared as they stand.
    fn is_not_among(&self, frame: &Frame, name: Name) -> Result<bool, Error> {
        let wanted = self.decoded(name)?;
        let mut at = frame.entry as usize + 1;
        while let Some(entry) = self.entries.get(at) {
            let (start, end, escaped) = (entry.name_start, entry.name_end, entry.name_escaped);
            let plain = self.bytes.get(start as usize..end as usize) == Some(wanted.as_bytes());
            let same = if escaped { self.decoded(Name { start, end, escaped })? == wanted } else { plain };
            if same {
                return Ok(false);
            }
            at += entry.size as usize;
        }
        Ok(true)
    }

    /// The names that an open object has so far.
    fn names(&self, frame: &Frame) -> Result<Vec<Cow<'a, str>>, Error> {
        let mut names = Vec::with_capacity(frame.index as usize);
        let mut at = frame.entry as usize + 1;
        while let Some(entry) = self.entries.get(at) {
            names.push(self.decoded(Name {
                start: entry.name_start,
                end: entry.name_end,
                escaped: entry.name_escaped,
            })?);
            at += entry.size as usize;
        }
        Ok(names)
    }

    /// Scans a string; says whether it holds escapes.
    fn string(&mut self, is_name: bool) -> Result<bool, Error> {
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at += plain(self.bytes.get(self.at..).unwrap_or_default());
            if self.at > self.utf8_until {
                self.at = self.utf8_until;
                return Err(self.error(Code::JsonUnicode));
            }
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) if is_name => return Err(self.error(Code::JsonControlCharacter)),
                _ => return Err(self.syntax()),
            }
        }
        self.at += 1;
        Ok(escaped)
    }

    fn escape(&mut self) -> Result<(), Error> {
        let backslash = self.at;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                let half = |at, code| Error { at, ..self.error(code) };
                match self.hex(self.at + 1) {
                    None => return Err(self.syntax()),
                    Some(0xdc00..=0xdfff) => return Err(half(backslash, Code::JsonUnicode)),
                    Some(0xd800..=0xdbff) => {
                        let second = self.bytes.get(self.at + 5..self.at + 7) == Some(b"\\u");
                        if !second || !matches!(self.hex(self.at + 7), Some(0xdc00..=0xdfff)) {
                            return Err(half(backslash, Code::JsonUnicode));
                        }
                        self.at += 11;
                    }
                    Some(_) => self.at += 5,
                }
                Ok(())
            }
            _ => Err(self.syntax()),
        }
    }

    fn hex(&self, at: usize) -> Option<u32> {
        let digits = self.bytes.get(at..at + 4)?;
        digits.iter().try_fold(0, |number, digit| Some(number * 16 + char::from(*digit).to_digit(16)?))
    }

    fn digits(&mut self) -> Result<(), Error> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.syntax()) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), Error> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let has_exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if has_exponent {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        if has_exponent || self.at - start >= SAFE_NUMBER_BYTES {
            // serde_json itself is asked, because at the edge of the range it refuses numbers that would round down.
            let number = self.bytes.get(start..self.at).unwrap_or_default();
            if !serde_json::from_slice::<f64>(number).is_ok_and(f64::is_finite) {
                self.at = start;
                return Err(self.error(Code::JsonNumber));
            }
        }
        Ok(())
    }

    /// Scans this word, which has no escapes.
    fn word(&mut self, word: &[u8]) -> Result<bool, Error> {
        if self.bytes.get(self.at..self.at + word.len()) != Some(word) {
            return Err(self.syntax());
        }
        self.at += word.len();
        Ok(false)
    }

    /// Something else stands here than JSON allows.
    fn syntax(&self) -> Error {
        self.error(if self.at >= self.utf8_until { Code::JsonUnicode } else { Code::JsonSyntax })
    }

    #[cold]
    fn error(&self, code: Code) -> Error {
        let mut pointer = String::new();
        for frame in self.frames.iter().take_while(|frame| frame.inside) {
            pointer.push('/');
            if frame.is_array {
                let _ = write!(pointer, "{}", frame.index);
                continue;
            }
            let name = self.decoded(frame.name).unwrap_or_default();
            pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        }
        Error { code, pointer, at: self.at }
    }
}
