//! A strict JSON scanner that keeps bytes: finds the events in a body and the members of an object, without building a tree.
//!
//! Why not a library: the log carries the sender's own bytes, so spans are needed; names that occur twice, halves of surrogate
//! pairs and over-deep nesting must be named by pointer, which no tree parser does; and `serde_json::Value` turns an object
//! with a magic key into something else when its features `raw_value` or `arbitrary_precision` are on.
//!
//! **Invariant:** what [`object`] accepts, `serde_json` accepts too, and reads to the same names (property test). No input makes
//! it recurse deeper than [`Limits::max_depth`] or panic.

mod patch;
mod scan;
mod split;
mod tape;
#[cfg(test)]
pub(crate) mod tests;

use std::borrow::Cow;

use crate::verdict::Code;

pub use patch::{Difference, PatchError, differences, patch};
pub use split::{is_closed, split, split_by};
pub use tape::{Children, Scanned, Tape, object, object_and};

/// `serde_json` reads no deeper than this, so neither does the scanner, whatever [`Limits`] say.
pub const DEEPEST: usize = 127;

/// Bounds of one event.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nested arrays and objects, the outermost counted; more than [`DEEPEST`] counts as that.
    pub max_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_depth: 32 }
    }
}

/// What kind of value a [`Member`] has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `null`
    Null,
}

/// A member of an object: its decoded name and the bytes of its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member<'a> {
    /// The name, escapes decoded.
    pub name: Cow<'a, str>,
    /// The value's bytes as sent, without white space around.
    pub value: &'a [u8],
    /// What the value is.
    pub kind: Kind,
}

impl<'a> Member<'a> {
    /// The text of a string value, escapes decoded; `None` for other kinds.
    pub fn text(&self) -> Option<String> {
        self.str().map(Cow::into_owned)
    }

    /// The same, without a copy where nothing is escaped.
    pub fn str(&self) -> Option<Cow<'a, str>> {
        if self.kind != Kind::String {
            return None;
        }
        if self.value.contains(&b'\\') {
            return serde_json::from_slice(self.value).ok().map(Cow::Owned);
        }
        let inner = self.value.get(1..self.value.len().saturating_sub(1))?;
        std::str::from_utf8(inner).ok().map(Cow::Borrowed)
    }
}

/// What is wrong with an event's bytes, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} at `{pointer}`, byte {at}", code.as_str())]
pub struct Error {
    /// One of the `json.*` codes, or `event.not_object`.
    pub code: Code,
    /// RFC 6901 pointer from the event's root to the innermost place that is known.
    pub pointer: String,
    /// Byte offset in the scanned slice.
    pub at: usize,
}

/// How a body holds its events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// `{…}` that is one event.
    One(&'a [u8]),
    /// `[…]`, or `{"events":[…]}` with its other members (such as `sent_at`).
    Many {
        /// The elements' bytes, in order; not yet scanned, so a broken one costs only itself.
        events: Vec<&'a [u8]>,
        /// Members beside `events`; empty for a bare array.
        envelope: Vec<Member<'a>>,
    },
}

/// Splits NDJSON: one event a line, blank lines skipped, `\r\n` allowed, a leading byte-order mark skipped.
pub fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    without_bom(body).split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

/// Whether the first thing in a body is an object.
pub fn begins_with_brace(body: &[u8]) -> bool {
    without_bom(body).trim_ascii_start().starts_with(b"{")
}

fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}

/// Whether a text stands in JSON as it is, between quotes.
pub fn is_plain(text: &str) -> bool {
    plain(text.as_bytes()) == text.len()
}

/// Length of the run of plain string bytes that `bytes` begins with: none is a quote, a backslash or a control character.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut at = 0;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let special = zero_byte(word ^ (ONES * 0x22)) | zero_byte(word ^ (ONES * 0x5c)) | control;
        if special != 0 {
            // The lowest mark is exact; borrows reach only marks above it.
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count()
}
