//! Shows the validator what a scan has found, so that it judges the sender's bytes without a tree of them.
//!
//! **Invariant:** the validator learns the same of a value as it would of `serde_json`'s tree of the same bytes (the crate's own
//! conformance checks, and a property test over schemas and values).

use std::borrow::Cow;
use std::ops::ControlFlow;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object};
use serde_json::{Number, Value};

use crate::json::{Children, Kind, Scanned};

/// Integers of so few bytes fit 64 bits.
const SHORT_INTEGER_BYTES: usize = 18;

/// Scanned bytes as a form of JSON.
pub(super) struct ScannedJson;

/// A value of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    /// A scanned one.
    Scanned(Scanned<'a>),
    /// A name, as a value of its own: what `propertyNames` looks at.
    Name(&'a str),
}

/// The members of an object.
pub(super) struct Members<'a>(Children<'a>);

/// The elements of an array.
pub(super) struct Elements<'a>(Children<'a>);

impl Json for ScannedJson {
    type Node<'a> = Part<'a>;
    type PreparedKey = Box<str>;
    type StringBuffer = String;

    // To find one member all are passed, so one pass for all names is never dearer.
    const KEYS_PER_LOOKUP: usize = 1 << 16;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> Box<str> {
        key.into()
    }

    fn with_string_node<T>(buffer: &mut String, string: &str, f: impl FnOnce(Part<'_>) -> T) -> T {
        buffer.clear();
        buffer.push_str(string);
        f(Part::Name(buffer))
    }
}

impl<'a> Part<'a> {
    fn scanned(self, kind: Kind) -> Option<Scanned<'a>> {
        match self {
            Self::Scanned(scanned) => (scanned.kind() == kind).then_some(scanned),
            Self::Name(_) => None,
        }
    }
}

impl<'a> Node<'a, ScannedJson> for Part<'a> {
    type Object = Scanned<'a>;
    type Array = Scanned<'a>;
    type Number = Number;

    fn as_object(&self) -> Option<Scanned<'a>> {
        self.scanned(Kind::Object)
    }

    fn as_array(&self) -> Option<Scanned<'a>> {
        self.scanned(Kind::Array)
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Scanned(scanned) => scanned.string(),
            Self::Name(name) => Some(Cow::Borrowed(name)),
        }
    }

    fn as_number(&self) -> Option<Number> {
        self.scanned(Kind::Number).map(|scanned| number(scanned.raw()))
    }

    fn as_boolean(&self) -> Option<bool> {
        self.scanned(Kind::Boolean).map(|scanned| scanned.raw() == "true")
    }

    fn is_null(&self) -> bool {
        self.scanned(Kind::Null).is_some()
    }

    fn is_number(&self) -> bool {
        self.scanned(Kind::Number).is_some()
    }

    fn json_type(&self) -> JsonType {
        match self {
            Self::Name(_) => JsonType::String,
            Self::Scanned(scanned) => match scanned.kind() {
                Kind::Object => JsonType::Object,
                Kind::Array => JsonType::Array,
                Kind::String => JsonType::String,
                Kind::Number => JsonType::Number,
                Kind::Boolean => JsonType::Boolean,
                Kind::Null => JsonType::Null,
            },
        }
    }

    fn string_length_within(&self, min: u64, max: u64) -> Option<bool> {
        let text = self.as_string()?;
        // A code point has one to four bytes, which mostly decides.
        let bytes = text.len() as u64;
        let fewest = bytes.div_ceil(4);
        if bytes < min || fewest > max {
            return Some(false);
        }
        if min <= fewest && bytes <= max {
            return Some(true);
        }
        Some((min..=max).contains(&(text.chars().count() as u64)))
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match expected {
            Value::String(expected) => self.as_string().is_some_and(|text| text == expected.as_str()),
            Value::Null => self.is_null(),
            Value::Bool(expected) => self.as_boolean() == Some(*expected),
            Value::Number(expected) => {
                self.as_number().is_some_and(|number| jsonschema::json::cmp::equal_numbers(&number, expected))
            }
            Value::Array(_) | Value::Object(_) => jsonschema::json::cmp::equal(&self.to_value(), expected),
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(match self {
            Self::Scanned(scanned) => serde_json::from_str(scanned.raw()).unwrap_or_default(),
            Self::Name(name) => Value::String((*name).to_owned()),
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        match self {
            Self::Scanned(scanned) => Some(NodeIdentity::new(scanned.address())),
            Self::Name(_) => None,
        }
    }
}

impl<'a> Object<'a, ScannedJson> for Scanned<'a> {
    type Node = Part<'a>;
    type MemberName = Cow<'a, str>;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        Scanned::len(self)
    }

    fn get(&self, key: &Box<str>) -> Option<Part<'a>> {
        self.children().find(|child| child.is_named(key)).map(Part::Scanned)
    }

    fn members(&self) -> Members<'a> {
        Members(self.children())
    }

    fn try_for_each_name_node<B>(
        &self,
        _buffer: &mut String,
        mut f: impl FnMut(Part<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.children().try_for_each(|child| f(Part::Name(&child.name())))
    }
}

impl<'a> Array<'a, ScannedJson> for Scanned<'a> {
    type Node = Part<'a>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        Scanned::len(self)
    }

    fn elements(&self) -> Elements<'a> {
        Elements(self.children())
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Part<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|child| (child.name(), Part::Scanned(child)))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Part::Scanned)
    }
}

/// The number as `serde_json` reads it: 64 bits if it is written as an integer and fits, a double otherwise.
fn number(raw: &str) -> Number {
    let plain = raw.len() <= SHORT_INTEGER_BYTES && raw.bytes().all(|byte| byte.is_ascii_digit());
    let short = if plain { raw.parse::<u64>().ok().map(Number::from) } else { None };
    // A scanned number is one that serde_json takes.
    short.or_else(|| serde_json::from_str(raw).ok()).unwrap_or_else(|| Number::from(0))
}
