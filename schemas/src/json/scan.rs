//! The strict scan of one event.
//!
//! **Invariant:** one pass, no recursion; the pointer of an error names the innermost place that was reached.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;

use super::{DEEPEST, Error, Kind, Limits, Member, plain};
use crate::verdict::Code;

/// Up to so many names of an object are compared one by one; beyond, a set is kept.
const COMPARED_NAMES: usize = 16;
/// Numbers without exponent and shorter than this fit a double.
const SAFE_NUMBER_BYTES: usize = 300;

/// Scans one event: the whole value is checked (UTF-8, syntax, depth, names once, whole surrogate pairs, numbers a double can
/// hold, no control characters in names), the members of the outermost object are returned.
pub fn object(bytes: &[u8], limits: Limits) -> Result<Vec<Member<'_>>, Error> {
    let mut scanner = Scanner::new(bytes, limits);
    scanner.space();
    if scanner.peek() != Some(b'{') {
        scanner.value()?;
        scanner.end()?;
        return Err(Error { code: Code::EventNotObject, pointer: String::new(), at: 0 });
    }
    let mut members = Vec::with_capacity(8);
    let mut more = scanner.open(b'{')?;
    while more {
        let name = scanner.name()?;
        scanner.space();
        let start = scanner.at;
        let kind = scanner.value()?;
        members.push(Member { name, value: bytes.get(start..scanner.at).unwrap_or_default(), kind });
        more = scanner.more()?;
    }
    scanner.end()?;
    Ok(members)
}

/// Checks one whole JSON value, without white space around.
pub(super) fn check(bytes: &[u8]) -> Result<Kind, Error> {
    let mut scanner = Scanner::new(bytes, Limits { max_depth: DEEPEST });
    let kind = scanner.value()?;
    scanner.end()?;
    Ok(kind)
}

/// An array or object that is open.
struct Frame<'a> {
    is_array: bool,
    /// Inside an element or member, as opposed to between two.
    inside: bool,
    /// Of an array: the element's number.
    index: usize,
    /// Of an object: where its names begin in [`Scanner::names`].
    names_from: usize,
    /// Of an object with many names: all of them.
    set: Option<HashSet<Cow<'a, str>>>,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the bytes stop to be UTF-8.
    utf8_until: usize,
    max_depth: usize,
    frames: Vec<Frame<'a>>,
    /// The names of every open object, the innermost last.
    names: Vec<Cow<'a, str>>,
}

impl<'a> Scanner<'a> {
    fn new(bytes: &'a [u8], limits: Limits) -> Self {
        let utf8_until = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), |_| usize::MAX);
        let max_depth = limits.max_depth.min(DEEPEST);
        Self {
            bytes,
            at: 0,
            utf8_until,
            max_depth,
            frames: Vec::with_capacity(4),
            names: Vec::with_capacity(16),
        }
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
        let outside = self.frames.len();
        let mut outermost = None;
        loop {
            self.space();
            let (kind, mut more) = self.begin()?;
            outermost.get_or_insert(kind);
            while !more {
                if self.frames.len() == outside {
                    return Ok(outermost.unwrap_or(kind));
                }
                more = self.more()?;
            }
            if self.frames.last().is_some_and(|frame| !frame.is_array) {
                self.name()?;
            }
        }
    }

    /// Scans a scalar, or opens an array or object; true if something stands inside that.
    fn begin(&mut self) -> Result<(Kind, bool), Error> {
        match self.peek() {
            Some(b'"') => self.string(false).map(|_| (Kind::String, false)),
            Some(b'{') => Ok((Kind::Object, self.open(b'{')?)),
            Some(b'[') => Ok((Kind::Array, self.open(b'[')?)),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| (Kind::Number, false)),
            Some(b't') => self.word(b"true").map(|()| (Kind::Boolean, false)),
            Some(b'f') => self.word(b"false").map(|()| (Kind::Boolean, false)),
            Some(b'n') => self.word(b"null").map(|()| (Kind::Null, false)),
            _ => Err(self.syntax()),
        }
    }

    fn open(&mut self, bracket: u8) -> Result<bool, Error> {
        if self.frames.len() >= self.max_depth {
            return Err(self.error(Code::JsonDepth));
        }
        self.at += 1;
        let is_array = bracket == b'[';
        self.frames.push(Frame {
            is_array,
            inside: false,
            index: 0,
            names_from: self.names.len(),
            set: None,
        });
        self.space();
        match self.peek() {
            Some(b']') if is_array => self.close(),
            Some(b'}') if !is_array => self.close(),
            _ => {
                self.enter(is_array);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn close(&mut self) {
        self.at += 1;
        if let Some(frame) = self.frames.pop() {
            self.names.truncate(frame.names_from);
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
                self.close();
                Ok(false)
            }
            _ => Err(self.syntax()),
        }
    }

    /// Scans a name and its colon.
    fn name(&mut self) -> Result<Cow<'a, str>, Error> {
        self.space();
        if self.peek() != Some(b'"') {
            return Err(self.syntax());
        }
        let (quoted, escaped) = self.string(true)?;
        let name = if escaped {
            Cow::Owned(serde_json::from_slice(quoted).map_err(|_| self.syntax())?)
        } else {
            let inner = quoted.get(1..quoted.len() - 1).unwrap_or_default();
            Cow::Borrowed(std::str::from_utf8(inner).map_err(|_| self.error(Code::JsonUnicode))?)
        };
        // DEL, and the lead byte of the second block of control characters, before the slow look at characters.
        let suspicious = escaped || name.bytes().any(|byte| matches!(byte, 0x7f | 0xc2));
        if suspicious && name.chars().any(char::is_control) {
            return Err(self.error(Code::JsonControlCharacter));
        }
        self.names.push(name.clone());
        let is_new = self.last_is_new();
        self.enter(true);
        if !is_new {
            return Err(self.error(Code::JsonDuplicateName));
        }
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.syntax());
        }
        self.at += 1;
        Ok(name)
    }

    /// Whether the innermost object did not have its newest name before.
    fn last_is_new(&mut self) -> bool {
        let Some(frame) = self.frames.last_mut() else { return true };
        let names = self.names.get(frame.names_from..).unwrap_or_default();
        let Some((last, earlier)) = names.split_last() else { return true };
        if earlier.len() < COMPARED_NAMES {
            return !earlier.contains(last);
        }
        frame.set.get_or_insert_with(|| earlier.iter().cloned().collect()).insert(last.clone())
    }

    /// Scans a string; gives its bytes with the quotes, and whether it holds escapes.
    fn string(&mut self, is_name: bool) -> Result<(&'a [u8], bool), Error> {
        let start = self.at;
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
        Ok((self.bytes.get(start..self.at).unwrap_or_default(), escaped))
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

    fn word(&mut self, word: &[u8]) -> Result<(), Error> {
        if self.bytes.get(self.at..self.at + word.len()) != Some(word) {
            return Err(self.syntax());
        }
        self.at += word.len();
        Ok(())
    }

    /// Something else stands here than JSON allows.
    fn syntax(&self) -> Error {
        self.error(if self.at >= self.utf8_until { Code::JsonUnicode } else { Code::JsonSyntax })
    }

    #[cold]
    fn error(&self, code: Code) -> Error {
        let mut pointer = String::new();
        for (position, frame) in self.frames.iter().enumerate() {
            if !frame.inside {
                break;
            }
            pointer.push('/');
            if frame.is_array {
                let _ = write!(pointer, "{}", frame.index);
                continue;
            }
            let names_to = self.frames.get(position + 1).map_or(self.names.len(), |inner| inner.names_from);
            let name = names_to.checked_sub(1).and_then(|last| self.names.get(last));
            pointer.push_str(&name.map_or("", |name| name).replace('~', "~0").replace('/', "~1"));
        }
        Error { code, pointer, at: self.at }
    }
}
