//! The tables of `tests/hostile`: cases as data.
//!
//! **Invariant:** a case says nothing that is not looked at: an unknown member of it fails the load.

use std::path::Path;

use toml::{Table, Value};

/// One case of a table.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is about: its `name`, or the member named when the table was loaded.
    pub name: String,
    members: Table,
}

/// The cases `[[kind]]` of a file. `title` is the member that tells them apart, `known` the other members they may have.
pub fn load(file: &str, kind: &str, title: &str, known: &[&str]) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut table: Table = text.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
    let Some(Value::Array(cases)) = table.remove(kind) else { panic!("{file} has no [[{kind}]]") };
    assert!(table.is_empty(), "{file} has more than [[{kind}]]: {table:?}");
    let case = |case: Value| {
        let Value::Table(members) = case else { panic!("{file}: {case} is no case") };
        let name = members.get(title).and_then(Value::as_str);
        let name = name.unwrap_or_else(|| panic!("{file}: no {title}: {members:?}")).to_owned();
        let unknown = members.keys().find(|member| *member != title && !known.contains(&member.as_str()));
        assert!(unknown.is_none(), "{file}: {name}: {unknown:?} is not looked at");
        Case { name, members }
    };
    cases.into_iter().map(case).collect()
}

impl Case {
    /// A text, as written.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.members.get(member)?.as_str()
    }

    /// A text, written out.
    pub fn bytes(&self, member: &str) -> Option<Vec<u8>> {
        self.text(member).map(expand)
    }

    /// A number.
    pub fn number(&self, member: &str) -> Option<u64> {
        u64::try_from(self.members.get(member)?.as_integer()?).ok()
    }

    /// Whether a flag is set; `default` if it is not there.
    pub fn flag(&self, member: &str, default: bool) -> bool {
        self.members.get(member).and_then(Value::as_bool).unwrap_or(default)
    }

    /// A list of texts; empty if it is not there.
    pub fn texts(&self, member: &str) -> Vec<&str> {
        self.list(member).iter().filter_map(Value::as_str).collect()
    }

    /// A list of numbers; empty if it is not there.
    pub fn numbers(&self, member: &str) -> Vec<u16> {
        let number = |value: &Value| u16::try_from(value.as_integer()?).ok();
        self.list(member).iter().filter_map(number).collect()
    }

    /// A list of pairs of texts; empty if it is not there.
    pub fn pairs(&self, member: &str) -> Vec<(&str, &str)> {
        let mut pairs = Vec::new();
        for value in self.list(member) {
            let pair: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let [first, second] = pair[..] else { panic!("{}: no pair: {value}", self.name) };
            pairs.push((first, second));
        }
        pairs
    }

    fn list(&self, member: &str) -> &[Value] {
        self.members.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

/// Writes out what stands between `«` and `»`: `repeat N text`, `repeat N hex bytes`, `hex bytes`.
pub fn expand(text: &str) -> Vec<u8> {
    expand_with(text, |mark| panic!("«{mark}»?"))
}

/// The same, and what `mark` gives for anything else.
pub fn expand_with(text: &str, mut mark: impl FnMut(&str) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('«') {
        bytes.extend_from_slice(before.as_bytes());
        let (inside, after) = after.split_once('»').unwrap_or_else(|| panic!("« without » in {text}"));
        match inside.strip_prefix("repeat ").and_then(|inside| inside.split_once(' ')) {
            Some((count, what)) => {
                let count = count.parse().unwrap_or_else(|_| panic!("how often? {inside}"));
                bytes.extend_from_slice(&plain(what).repeat(count));
            }
            None if inside.starts_with("hex ") => bytes.extend_from_slice(&plain(inside)),
            None => bytes.extend(mark(inside)),
        }
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

fn plain(what: &str) -> Vec<u8> {
    let Some(hex) = what.strip_prefix("hex ") else { return what.as_bytes().to_vec() };
    let byte = |text: &str| u8::from_str_radix(text, 16).unwrap_or_else(|_| panic!("no byte: {text}"));
    hex.split_whitespace().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_written_out() {
        let text = "a«repeat 3 [»b«hex 00 ff»«repeat 2 hex 01 02»«good»c";
        let right = b"a[[[b\x00\xff\x01\x02\x01\x02GOODc";
        assert_eq!(expand_with(text, |mark| mark.to_uppercase().into()), right);
    }
}
