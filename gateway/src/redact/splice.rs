//! Replaces values in an event's bytes without touching any other byte.
//!
//! **Invariant:** reads only what the strict scanner has accepted, so it needs no errors; recursion is as deep as that scanner
//! allowed. Where bytes are not what they should be it goes to the end, and changes nothing behind.

use std::fmt::Write as _;
use std::ops::Range;

use schemas::receipt::MAX_REDACTED;
use schemas::registry::{PiiAction, Place};

use super::{Pointers, replacement};

/// A place in the event with all marks on it.
pub(super) struct Spot<'r> {
    schema: Option<Place<'r>>,
    /// The schema is about `metadata`, not about the event.
    is_event: bool,
    pointers: Vec<&'r Pointers>,
}

impl<'r> Spot<'r> {
    /// The whole event.
    pub(super) fn event(metadata: Option<Place<'r>>, pointers: &'r Pointers) -> Self {
        Self { schema: metadata, is_event: true, pointers: vec![pointers] }
    }

    fn action(&self) -> Option<PiiAction> {
        let by_schema = self.schema.as_ref().filter(|_| !self.is_event).and_then(Place::action);
        self.pointers.iter().filter_map(|pointers| pointers.action()).max().max(by_schema)
    }

    fn is_empty(&self) -> bool {
        self.pointers.is_empty() && self.schema.as_ref().is_none_or(Place::is_empty)
    }

    fn member(&self, name: &str) -> Self {
        let schema = match &self.schema {
            Some(place) if self.is_event => (name == "metadata").then(|| place.clone()),
            Some(place) => Some(place.member(name)),
            None => None,
        };
        self.below(schema, name)
    }

    fn item(&self, index: usize) -> Self {
        self.below(self.schema.as_ref().map(|place| place.item(index)), &index.to_string())
    }

    fn below(&self, schema: Option<Place<'r>>, step: &str) -> Self {
        let pointers = self.pointers.iter().flat_map(|pointers| pointers.step(step)).collect();
        Self { schema, is_event: false, pointers }
    }
}

/// Collects the changes.
pub(super) struct Splicer<'e> {
    bytes: &'e [u8],
    secret: Option<&'e str>,
    path: String,
    pointers: Vec<String>,
    edits: Vec<(Range<usize>, Vec<u8>)>,
}

/// A member's bytes.
struct Span {
    start: usize,
    end: usize,
    is_dropped: bool,
}

impl<'e> Splicer<'e> {
    pub(super) fn new(bytes: &'e [u8], secret: Option<&'e str>) -> Self {
        Self { bytes, secret, path: String::new(), pointers: Vec::new(), edits: Vec::new() }
    }

    /// The bytes that remain, and the pointers of what does not.
    pub(super) fn splice(mut self, spot: &Spot<'_>) -> (Vec<u8>, Vec<String>) {
        let start = self.space(0);
        self.value(start, spot);
        self.edits.sort_by_key(|(range, _)| range.start);
        let mut kept = Vec::with_capacity(self.bytes.len());
        let mut from = 0;
        for (range, text) in &self.edits {
            kept.extend_from_slice(self.bytes.get(from..range.start).unwrap_or_default());
            kept.extend_from_slice(text);
            from = range.end;
        }
        kept.extend_from_slice(self.bytes.get(from..).unwrap_or_default());
        (kept, self.pointers)
    }

    /// Handles the value that starts here; gives its end.
    fn value(&mut self, start: usize, spot: &Spot<'_>) -> usize {
        if spot.is_empty() {
            return self.skip(start);
        }
        if let Some(action) = spot.action() {
            let end = self.skip(start);
            let value = self.bytes.get(start..end).unwrap_or_default();
            if let Some(text) = replacement(action, self.secret, value) {
                self.edits.push((start..end, text));
                self.note();
            }
            return end;
        }
        match self.peek(start) {
            Some(b'{') => self.object(start, spot),
            Some(b'[') => self.array(start, spot),
            _ => self.skip(start),
        }
    }

    fn object(&mut self, start: usize, spot: &Spot<'_>) -> usize {
        let mut members = Vec::new();
        let mut at = self.space(start + 1);
        while self.peek(at) == Some(b'"') {
            let name_start = at;
            let name_end = self.skip(at);
            let name: String =
                serde_json::from_slice(self.bytes.get(name_start..name_end).unwrap_or_default())
                    .unwrap_or_default();
            // Behind the colon.
            let value_start = self.space(self.space(name_end) + 1);
            let inner = spot.member(&name);
            let above = self.path.len();
            let _ = write!(self.path, "/{}", name.replace('~', "~0").replace('/', "~1"));
            let is_dropped = inner.action() == Some(PiiAction::Drop);
            let end = if is_dropped {
                self.note();
                self.skip(value_start)
            } else {
                self.value(value_start, &inner)
            };
            self.path.truncate(above);
            members.push(Span { start: name_start, end, is_dropped });
            at = self.space(end);
            if self.peek(at) == Some(b',') {
                at = self.space(at + 1);
            }
        }
        self.remove(&members);
        at + 1
    }

    /// Takes dropped members out, each with one comma.
    fn remove(&mut self, members: &[Span]) {
        let behind_kept = members.iter().rposition(|member| !member.is_dropped).map_or(0, |last| last + 1);
        for (member, next) in members.iter().zip(members.iter().skip(1)).take(behind_kept) {
            if member.is_dropped {
                self.edits.push((member.start..next.start, Vec::new()));
            }
        }
        let Some(first) = members.get(behind_kept) else { return };
        let start = behind_kept
            .checked_sub(1)
            .and_then(|last| members.get(last))
            .map_or(first.start, |kept| kept.end);
        self.edits.push((start..members.last().map_or(start, |last| last.end), Vec::new()));
    }

    fn array(&mut self, start: usize, spot: &Spot<'_>) -> usize {
        let mut at = self.space(start + 1);
        let mut index = 0;
        while !matches!(self.peek(at), None | Some(b']')) {
            let above = self.path.len();
            let _ = write!(self.path, "/{index}");
            let end = self.value(at, &spot.item(index));
            self.path.truncate(above);
            index += 1;
            at = self.space(end);
            if self.peek(at) == Some(b',') {
                at = self.space(at + 1);
            }
        }
        at + 1
    }

    fn note(&mut self) {
        if self.pointers.len() < MAX_REDACTED {
            self.pointers.push(self.path.clone());
        }
    }

    /// The end of the value that starts here.
    fn skip(&self, start: usize) -> usize {
        let mut depth = 0_usize;
        let mut at = start;
        loop {
            match self.peek(at) {
                None => return self.bytes.len(),
                Some(b'"') => at = self.string_end(at),
                Some(b'{' | b'[') => {
                    depth += 1;
                    at += 1;
                }
                Some(b'}' | b']') => {
                    depth = depth.saturating_sub(1);
                    at += 1;
                }
                Some(b',' | b':' | b' ' | b'\n' | b'\r' | b'\t') => {
                    at += 1;
                    continue;
                }
                Some(_) => {
                    let rest = self.bytes.get(at..).unwrap_or_default();
                    at += rest.iter().take_while(|byte| !b",:]} \n\r\t".contains(byte)).count();
                }
            }
            if depth == 0 {
                return at;
            }
        }
    }

    fn string_end(&self, start: usize) -> usize {
        let mut at = start + 1;
        loop {
            match self.peek(at) {
                None => return self.bytes.len(),
                Some(b'"') => return at + 1,
                Some(b'\\') => at += 2,
                Some(_) => at += 1,
            }
        }
    }

    fn space(&self, start: usize) -> usize {
        let rest = self.bytes.get(start..).unwrap_or_default();
        start + rest.iter().take_while(|byte| b" \n\r\t".contains(byte)).count()
    }

    fn peek(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }
}
