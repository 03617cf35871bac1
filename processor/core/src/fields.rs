//! Values of an event by path, as the bytes that were sent.
//!
//! **Invariant:** reading a field never fails and never changes a digit: what is absent or of another kind is `None`.

use schemas::event::LoggedEvent;
use schemas::json::{self, Kind, Limits, Member};
use uuid::Uuid;

use crate::number::{Decimal, canonical};

/// Longest text that is used as a key of a window or count; longer ones are cut and told apart by a hash.
pub const MAX_KEY_BYTES: usize = 128;
/// Namespace of the hash in a cut key.
const LONG_KEY_NAMESPACE: Uuid = Uuid::from_u128(0x5d0e_83f7_21ab_5c94_a6b8_90c2_4e17_fd35);

/// A place in an event: `metadata.category`, `context.page.url`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Path {
    root: Root,
    rest: Vec<String>,
}

/// The members of an event that paths may begin with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Root {
    Metadata,
    Context,
}

impl Path {
    /// Reads `metadata.a.b` or `context.a.b`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut names = text.split('.');
        let root = match names.next()? {
            "metadata" => Root::Metadata,
            "context" => Root::Context,
            _ => return None,
        };
        let rest: Vec<String> = names.map(str::to_owned).collect();
        (!rest.is_empty() && rest.iter().all(|name| !name.is_empty())).then_some(Self { root, rest })
    }

    /// The last name.
    pub fn last(&self) -> &str {
        self.rest.last().map_or("", String::as_str)
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let root = if self.root == Root::Metadata { "metadata" } else { "context" };
        write!(f, "{root}.{}", self.rest.join("."))
    }
}

/// The fields of one event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a> {
    metadata: &'a [Member<'a>],
    context: &'a [Member<'a>],
}

impl<'a> Fields<'a> {
    /// Those of the event's `metadata` and `context`.
    pub fn of(event: &'a LoggedEvent<'a>) -> Self {
        Self { metadata: &event.metadata, context: &event.context }
    }

    /// The members of `metadata`.
    pub fn metadata(&self) -> &'a [Member<'a>] {
        self.metadata
    }

    /// The member of `metadata` of that name.
    pub fn meta(&self, name: &str) -> Option<&Member<'a>> {
        self.metadata.iter().find(|member| member.name == name)
    }

    /// The member of `context` of that name.
    pub fn context(&self, name: &str) -> Option<&Member<'a>> {
        self.context.iter().find(|member| member.name == name)
    }

    /// The value at a path.
    pub fn at(&self, path: &Path) -> Option<Member<'a>> {
        let members = if path.root == Root::Metadata { self.metadata } else { self.context };
        let (first, rest) = path.rest.split_first()?;
        let mut member = members.iter().find(|member| member.name == *first)?.clone();
        for name in rest {
            let inner = children(&member);
            member = inner.into_iter().find(|inner| inner.name == *name)?;
        }
        Some(member)
    }

    /// The number in a member of `metadata`, exactly.
    pub fn decimal(&self, name: &str) -> Option<Decimal> {
        self.meta(name).filter(|member| member.kind == Kind::Number).and_then(raw).and_then(Decimal::parse)
    }
}

/// The members of an object; none for another kind.
pub fn children<'a>(member: &Member<'a>) -> Vec<Member<'a>> {
    if member.kind != Kind::Object {
        return Vec::new();
    }
    json::object(member.value, Limits::default()).unwrap_or_default()
}

/// The member's JSON as text.
pub fn raw<'a>(member: &Member<'a>) -> Option<&'a str> {
    std::str::from_utf8(member.value).ok()
}

/// The member's value as a key: text as it is, numbers by their canonical digits, truth values by name; other kinds are no
/// keys. `5` and `"5"` are one key, `9007199254740992` and `9007199254740993` are two.
pub fn key(member: &Member<'_>) -> Option<String> {
    let text = match member.kind {
        Kind::String => member.text()?,
        Kind::Number => canonical(raw(member)?)?,
        Kind::Boolean => raw(member)?.to_owned(),
        Kind::Object | Kind::Array | Kind::Null => return None,
    };
    (!text.is_empty()).then(|| bounded(text))
}

/// The text, cut to [`MAX_KEY_BYTES`] with a hash of the whole at its end.
pub fn bounded(text: String) -> String {
    if text.len() <= MAX_KEY_BYTES {
        return text;
    }
    let hash = Uuid::new_v5(&LONG_KEY_NAMESPACE, text.as_bytes()).simple().to_string();
    format!("{}#{hash}", cut(&text, MAX_KEY_BYTES - hash.len() - 1))
}

/// The longest beginning of at most `bytes` bytes that ends between characters.
pub fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_stay_two_keys() {
        let (one, two) = (bounded(format!("{}a", "é".repeat(100))), bounded(format!("{}b", "é".repeat(100))));
        assert_ne!(one, two);
        assert!(one.len() <= MAX_KEY_BYTES);
        assert_eq!(bounded("shoes".to_owned()), "shoes");
    }

    #[test]
    fn paths_begin_with_metadata_or_context() {
        assert_eq!(
            Path::parse("metadata.a.b").map(|p| (p.to_string(), p.last().to_owned())),
            Some(("metadata.a.b".to_owned(), "b".to_owned()))
        );
        for text in ["", "metadata", "metadata.", "receipt.ip", "metadata..x"] {
            assert_eq!(Path::parse(text), None, "{text}");
        }
    }

    #[test]
    fn keys_keep_digits_beyond_a_double() {
        let of = |json: &'static str, kind| key(&Member { name: "x".into(), value: json.as_bytes(), kind });
        assert_ne!(of("9007199254740992", Kind::Number), of("9007199254740993", Kind::Number));
        assert_eq!(of("1e2", Kind::Number), of("100.0", Kind::Number));
        assert_eq!(of("null", Kind::Null), None);
        assert_eq!(of("\"\"", Kind::String), None);
    }
}
