//! What a scan has found: every value of an event, in the order of its bytes, without a tree and without a copy.
//!
//! **Invariant:** an entry's values follow it directly, so that a value with all that is in it is one slice; places are those of
//! the scanned text, always at the borders of characters.

use std::borrow::Cow;

use super::{Error, Kind, Limits, Member};

/// Memory for scans, used again from event to event.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    pub(super) entries: Vec<Entry>,
    pub(super) frames: Vec<Frame>,
}

/// Bytes that a value takes in most events, so that the tape seldom grows.
const BYTES_A_VALUE: usize = 16;
/// Values that there is room for before any is seen, at most.
const MOST_RESERVED: usize = 4_096;

impl Tape {
    /// Empties it, with room for the values of so many bytes.
    pub(super) fn empty_for(&mut self, bytes: usize) {
        self.entries.clear();
        self.entries.reserve((bytes / BYTES_A_VALUE).min(MOST_RESERVED));
        self.frames.clear();
    }
}

/// One value. Places are byte offsets in the scanned text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) start: u32,
    pub(super) end: u32,
    /// Of a member: its name, without quotes.
    pub(super) name_start: u32,
    pub(super) name_end: u32,
    /// Entries of this value, itself counted.
    pub(super) size: u32,
    /// Elements or members.
    pub(super) children: u32,
    pub(super) kind: Kind,
    /// Of a string: it holds escapes.
    pub(super) escaped: bool,
    pub(super) name_escaped: bool,
}

/// An array or object that is open.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frame {
    pub(super) is_array: bool,
    /// Inside an element or member, as opposed to between two.
    pub(super) inside: bool,
    /// Its entry on the tape.
    pub(super) entry: u32,
    /// The element's or member's number.
    pub(super) index: u32,
    /// Of an object: one bit for each name there was, by a hash. A name without its bit is new.
    pub(super) seen: u64,
    /// Of an object: the newest name, without quotes.
    pub(super) name: Name,
}

/// Where a name stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Name {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) escaped: bool,
}

/// A scanned value with all that is in it.
#[derive(Clone, Copy, Debug)]
pub struct Scanned<'a> {
    pub(super) text: &'a str,
    /// The value's entry, then those of its values.
    pub(super) entries: &'a [Entry],
}

/// The values directly in an array or object, in order.
#[derive(Clone, Debug)]
pub struct Children<'a> {
    text: &'a str,
    entries: &'a [Entry],
}

/// Values that most events have at most.
const USUAL_ENTRIES: usize = 64;
/// Depth that most events have at most.
const USUAL_DEPTH: usize = 8;

impl Tape {
    /// One that most events fit into.
    pub(super) fn with_room() -> Self {
        Self { entries: Vec::with_capacity(USUAL_ENTRIES), frames: Vec::with_capacity(USUAL_DEPTH) }
    }
}

impl<'a> Scanned<'a> {
    /// What it is.
    pub fn kind(&self) -> Kind {
        self.entries.first().map_or(Kind::Null, |entry| entry.kind)
    }

    /// Its text as sent, without white space around.
    pub fn raw(&self) -> &'a str {
        self.entries.first().map_or("", |entry| slice(self.text, entry.start, entry.end))
    }

    /// The text of a string, escapes decoded; `None` for other kinds.
    pub fn string(&self) -> Option<Cow<'a, str>> {
        let entry = self.entries.first().filter(|entry| entry.kind == Kind::String)?;
        if entry.escaped {
            return serde_json::from_str(self.raw()).ok().map(Cow::Owned);
        }
        Some(Cow::Borrowed(slice(self.text, entry.start + 1, entry.end - 1)))
    }

    /// How many elements or members are directly in it.
    pub fn len(&self) -> usize {
        self.entries.first().map_or(0, |entry| entry.children as usize)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values directly in it.
    pub fn children(&self) -> Children<'a> {
        Children { text: self.text, entries: self.entries.get(1..).unwrap_or_default() }
    }

    /// Its name, escapes decoded; empty when it is no member.
    pub fn name(&self) -> Cow<'a, str> {
        self.entries.first().map_or(Cow::Borrowed(""), |entry| name_of(self.text, entry))
    }

    /// Whether it is the member of this name.
    pub fn is_named(&self, name: &str) -> bool {
        let Some(entry) = self.entries.first() else { return false };
        if entry.name_escaped {
            return self.name() == name;
        }
        slice(self.text, entry.name_start, entry.name_end) == name
    }

    /// It as a member of the object it stands in.
    pub fn member(&self) -> Member<'a> {
        Member { name: self.name(), value: self.raw().as_bytes(), kind: self.kind() }
    }

    /// The address of its entry, which no other value of the same scan has.
    pub fn address(&self) -> usize {
        self.entries.as_ptr().addr()
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = Scanned<'a>;

    fn next(&mut self) -> Option<Scanned<'a>> {
        let size = self.entries.first()?.size as usize;
        let (entries, rest) = self.entries.split_at_checked(size)?;
        self.entries = rest;
        Some(Scanned { text: self.text, entries })
    }
}

/// The members of an object that was scanned in `text`.
pub(super) fn members<'a>(text: &'a str, object: Scanned<'_>) -> Vec<Member<'a>> {
    let mut members = Vec::with_capacity(object.len());
    let member = |child: Scanned<'_>| {
        let entry = child.entries.first()?;
        let value = text.as_bytes().get(entry.start as usize..entry.end as usize)?;
        Some(Member { name: name_of(text, entry), value, kind: entry.kind })
    };
    members.extend(object.children().filter_map(member));
    members
}

/// Scans one event: the whole value is checked (UTF-8, syntax, depth, names once, whole surrogate pairs, numbers a double can
/// hold, no control characters in names), the members of the outermost object are returned.
pub fn object(bytes: &[u8], limits: Limits) -> Result<Vec<Member<'_>>, Error> {
    Ok(object_and(bytes, limits, [])?.0)
}

/// The same, and the members of those members that `inside` names; none of what is absent or no object.
pub fn object_and<'a, const N: usize>(
    bytes: &'a [u8],
    limits: Limits,
    inside: [&str; N],
) -> Result<(Vec<Member<'a>>, [Vec<Member<'a>>; N]), Error> {
    let mut tape = Tape::with_room();
    let text = tape.fill(bytes, limits)?;
    let outer = Scanned { text, entries: &tape.entries };
    let inside = inside.map(|name| {
        let found = outer.children().find(|child| child.is_named(name));
        found.filter(|child| child.kind() == Kind::Object).map_or_else(Vec::new, |child| members(text, child))
    });
    Ok((members(text, outer), inside))
}

/// A member's name, escapes decoded.
pub(super) fn name_of<'a>(text: &'a str, entry: &Entry) -> Cow<'a, str> {
    if entry.name_escaped {
        let quoted = slice(text, entry.name_start - 1, entry.name_end + 1);
        return serde_json::from_str(quoted).ok().map_or(Cow::Borrowed(""), Cow::Owned);
    }
    Cow::Borrowed(slice(text, entry.name_start, entry.name_end))
}

fn slice(text: &str, start: u32, end: u32) -> &str {
    text.get(start as usize..end as usize).unwrap_or_default()
}

/// Whether there is DEL, or the lead byte of the second block of control characters.
pub(super) fn has_late_controls(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let (words, rest) = bytes.as_chunks::<8>();
    let marks = words.iter().fold(0, |marks, word| {
        let word = u64::from_le_bytes(*word);
        marks | zero_byte(word ^ (ONES * 0x7f)) | zero_byte(word ^ (ONES * 0xc2))
    });
    marks != 0 || rest.iter().any(|byte| matches!(byte, 0x7f | 0xc2))
}

/// One of 64 bits, by a name's length and some of its bytes.
pub(super) fn name_bit(name: &[u8]) -> u64 {
    let byte = |at: usize| u64::from(name.get(at).copied().unwrap_or_default());
    let last = name.len().saturating_sub(1);
    let mixed = (name.len() as u64) ^ (byte(0) << 8) ^ (byte(last) << 16) ^ (byte(last / 2) << 24);
    1 << (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
}
