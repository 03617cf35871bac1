//! JSON Patch (RFC 6902) that keeps the digits: what a patch does not touch stays as the sender wrote it.
//!
//! Why not a library: those work on `serde_json::Value`, which turns 18446744073709551617 and 1.10 into other numbers.
//!
//! **Invariant:** a patch is applied whole or not at all; scalars keep their bytes; no patch makes the result larger than
//! `MAX_BYTES` or nest deeper than the scanner reads.

use serde::Serialize;

use super::{Body, DEEPEST, Error, Limits, Member, object, split};

/// Operations in one patch.
const MAX_OPERATIONS: usize = 100;
/// Differences told of two documents.
const MAX_DIFFERENCES: usize = 100;
/// Largest document, before and after each operation, bytes.
const MAX_BYTES: usize = 1 << 20;

/// Why a patch was not applied. `index` counts operations from 0.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PatchError {
    /// The document is no JSON object that the scanner takes.
    #[error("the document cannot be patched: {0}")]
    Document(Error),
    /// The patch is no array of operations, or has too many.
    #[error("a patch is an array of at most {MAX_OPERATIONS} operations (RFC 6902)")]
    NotAPatch,
    /// An operation that RFC 6902 does not know, or that lacks a member.
    #[error("operation {index}: {what}")]
    Operation {
        /// Which.
        index: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A pointer leads nowhere.
    #[error("operation {index}: nothing at `{pointer}`")]
    NotFound {
        /// Which.
        index: usize,
        /// The pointer.
        pointer: String,
    },
    /// A `test` found another value.
    #[error("operation {index}: `{pointer}` has another value")]
    TestFailed {
        /// Which.
        index: usize,
        /// The pointer.
        pointer: String,
    },
    /// The result would be too large or too deep.
    #[error("operation {index}: the result is larger than {MAX_BYTES} bytes or nests too deep")]
    TooLarge {
        /// Which.
        index: usize,
    },
}

/// Applies a patch to an object.
///
/// # Errors
/// [`PatchError`]; the document is then unchanged, as everything is done on a copy.
pub fn patch(document: &[u8], operations: &[u8]) -> Result<Vec<u8>, PatchError> {
    object(document, Limits { max_depth: DEEPEST }).map_err(PatchError::Document)?;
    let Ok(Body::Many { events: operations, envelope }) = split(operations, MAX_OPERATIONS) else {
        return Err(PatchError::NotAPatch);
    };
    if !envelope.is_empty() {
        return Err(PatchError::NotAPatch);
    }
    let mut root = Node::parse(document, 0).ok_or(PatchError::NotAPatch)?;
    for (index, operation) in operations.into_iter().enumerate() {
        let operation = Operation::parse(operation).map_err(|what| PatchError::Operation { index, what })?;
        operation.apply(&mut root).map_err(|fault| match fault {
            Fault::NotFound(pointer) => PatchError::NotFound { index, pointer },
            Fault::TestFailed(pointer) => PatchError::TestFailed { index, pointer },
            Fault::TooLarge => PatchError::TooLarge { index },
            Fault::What(what) => PatchError::Operation { index, what },
        })?;
    }
    Ok(root.bytes())
}

/// A place where two documents differ.
#[cfg_attr(feature = "describe", derive(schemars::JsonSchema))]
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Where.
    pub pointer: String,
    /// What stood there, as JSON text; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What stands there now; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Where two objects differ: the innermost places, in the order of the first; at most [`MAX_DIFFERENCES`] of them. Arrays of
/// different length differ as a whole. Empty if one of them is no object.
pub fn differences(before: &[u8], after: &[u8]) -> Vec<Difference> {
    let read = |bytes| object(bytes, Limits { max_depth: DEEPEST }).ok().and_then(|_| Node::parse(bytes, 0));
    let mut found = Vec::new();
    if let (Some(before), Some(after)) = (read(before), read(after)) {
        compare(&before, &after, &mut String::new(), &mut found);
    }
    found
}

fn compare(before: &Node, after: &Node, pointer: &mut String, found: &mut Vec<Difference>) {
    let length = pointer.len();
    let mut step = |token: &str, before: Option<&Node>, after: Option<&Node>| {
        pointer.push('/');
        pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
        match (before, after) {
            (Some(before), Some(after)) => compare(before, after, pointer, found),
            (before, after) => note(before, after, pointer, found),
        }
        pointer.truncate(length);
    };
    match (before, after) {
        (Node::Object(one), Node::Object(two)) => {
            let get =
                |members: &[(String, Node)], name: &str| members.iter().position(|(known, _)| known == name);
            for (name, value) in one {
                step(name, Some(value), get(two, name).and_then(|at| two.get(at)).map(|(_, value)| value));
            }
            for (name, value) in two.iter().filter(|(name, _)| get(one, name).is_none()) {
                step(name, None, Some(value));
            }
        }
        (Node::Array(one), Node::Array(two)) if one.len() == two.len() => {
            for (index, (before, after)) in one.iter().zip(two).enumerate() {
                step(&index.to_string(), Some(before), Some(after));
            }
        }
        _ if before.bytes() != after.bytes() => note(Some(before), Some(after), pointer, found),
        _ => {}
    }
}

fn note(before: Option<&Node>, after: Option<&Node>, pointer: &str, found: &mut Vec<Difference>) {
    if found.len() < MAX_DIFFERENCES {
        let text = |node: &Node| String::from_utf8_lossy(&node.bytes()).into_owned();
        let (before, after) = (before.map(text), after.map(text));
        found.push(Difference { pointer: pointer.to_owned(), before, after });
    }
}

/// A value whose scalars are still as they were written.
#[derive(Clone, Debug)]
enum Node {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Scalar(Vec<u8>),
}

impl Node {
    /// Reads a value that was checked before; `None` below the deepest level.
    fn parse(bytes: &[u8], depth: usize) -> Option<Self> {
        if depth > DEEPEST {
            return None;
        }
        match bytes.first()? {
            b'{' => {
                let members = object(bytes, Limits { max_depth: DEEPEST }).ok()?;
                let members = members.into_iter();
                let read = |Member { name, value, .. }: Member<'_>| {
                    Some((name.into_owned(), Self::parse(value, depth + 1)?))
                };
                members.map(read).collect::<Option<_>>().map(Self::Object)
            }
            b'[' => {
                let Ok(Body::Many { events, .. }) = split(bytes, MAX_BYTES) else { return None };
                let elements = events.into_iter().map(|element| Self::parse(element, depth + 1));
                elements.collect::<Option<_>>().map(Self::Array)
            }
            _ => Some(Self::Scalar(bytes.to_vec())),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Scalar(bytes) => out.extend_from_slice(bytes),
            Self::Array(elements) => {
                out.push(b'[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    element.write(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(&serde_json::to_vec(name).unwrap_or_default());
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }

    /// Bytes that [`Node::write`] will make, and levels.
    fn measure(&self) -> (usize, usize) {
        let children: Vec<(usize, usize)> = match self {
            Self::Scalar(bytes) => return (bytes.len(), 0),
            Self::Array(elements) => elements.iter().map(Self::measure).collect(),
            // A name may take six bytes a character when escaped.
            Self::Object(members) => members
                .iter()
                .map(|(name, value)| {
                    let (bytes, depth) = value.measure();
                    (bytes + 6 * name.len() + 4, depth)
                })
                .collect(),
        };
        let bytes = children.iter().map(|(bytes, _)| bytes + 1).sum::<usize>() + 2;
        (bytes, 1 + children.iter().map(|(_, depth)| *depth).max().unwrap_or(0))
    }

    fn child(&mut self, token: &str) -> Option<&mut Self> {
        match self {
            Self::Object(members) => {
                members.iter_mut().find(|(name, _)| name == token).map(|(_, value)| value)
            }
            Self::Array(elements) => elements.get_mut(index(token)?),
            Self::Scalar(_) => None,
        }
    }

    fn find(&mut self, path: &[String]) -> Option<&mut Self> {
        path.iter().try_fold(self, |node, token| node.child(token))
    }

    /// As RFC 6902 compares: numbers by value, objects whatever their order.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scalar(one), Self::Scalar(two)) => {
                one == two || scalar(one).is_some_and(|one| Some(one) == scalar(two))
            }
            (Self::Array(one), Self::Array(two)) => {
                one.len() == two.len() && one.iter().zip(two).all(|(one, two)| one.same(two))
            }
            (Self::Object(one), Self::Object(two)) => {
                one.len() == two.len()
                    && one.iter().all(|(name, value)| {
                        two.iter().any(|(other, twin)| name == other && value.same(twin))
                    })
            }
            _ => false,
        }
    }
}

fn scalar(bytes: &[u8]) -> Option<serde_json::Value> {
    serde_json::from_slice(bytes).ok()
}

/// An array's index: no sign, no leading zero.
fn index(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with('0');
    (plain && token.bytes().all(|byte| byte.is_ascii_digit())).then(|| token.parse().ok()).flatten()
}

/// Why an operation did not work.
enum Fault {
    NotFound(String),
    TestFailed(String),
    TooLarge,
    What(&'static str),
}

struct Operation {
    kind: OperationKind,
    pointer: String,
    path: Vec<String>,
}

enum OperationKind {
    Add(Node),
    Remove,
    Replace(Node),
    Move(Vec<String>),
    Copy(Vec<String>),
    Test(Node),
}

impl Operation {
    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let members = object(bytes, Limits { max_depth: DEEPEST }).map_err(|_| "is no valid JSON object")?;
        let text = |name: &str| members.iter().find(|member| member.name == name)?.text();
        let pointer = text("path").ok_or("has no `path`")?;
        let path = tokens(&pointer)?;
        let value = || {
            let member = members.iter().find(|member| member.name == "value").ok_or("has no `value`")?;
            Node::parse(member.value, 0).ok_or("has a value that nests too deep")
        };
        let from = || tokens(&text("from").ok_or("has no `from`")?);
        let kind = match text("op").as_deref() {
            Some("add") => OperationKind::Add(value()?),
            Some("remove") => OperationKind::Remove,
            Some("replace") => OperationKind::Replace(value()?),
            Some("move") => OperationKind::Move(from()?),
            Some("copy") => OperationKind::Copy(from()?),
            Some("test") => OperationKind::Test(value()?),
            _ => return Err("has no `op` out of add, remove, replace, move, copy, test"),
        };
        Ok(Self { kind, pointer, path })
    }

    fn apply(self, root: &mut Node) -> Result<(), Fault> {
        let Self { kind, pointer, path } = self;
        let missing = || Fault::NotFound(pointer.clone());
        match kind {
            OperationKind::Add(value) => add(root, &path, value).ok_or_else(missing)?,
            OperationKind::Remove => drop(remove(root, &path).ok_or_else(missing)?),
            OperationKind::Replace(value) => *root.find(&path).ok_or_else(missing)? = value,
            OperationKind::Move(from) if path.len() > from.len() && path.starts_with(&from) => {
                return Err(Fault::What("moves a value into itself"));
            }
            OperationKind::Move(from) if from == path => drop(root.find(&from).ok_or_else(missing)?),
            OperationKind::Move(from) => {
                let value = remove(root, &from).ok_or_else(missing)?;
                add(root, &path, value).ok_or_else(missing)?;
            }
            OperationKind::Copy(from) => {
                let value = root.find(&from).ok_or_else(missing)?.clone();
                add(root, &path, value).ok_or_else(missing)?;
            }
            OperationKind::Test(value) => {
                let found = root.find(&path).ok_or_else(missing)?;
                if !found.same(&value) {
                    return Err(Fault::TestFailed(pointer));
                }
            }
        }
        let (bytes, depth) = root.measure();
        if bytes > MAX_BYTES || depth > DEEPEST { Err(Fault::TooLarge) } else { Ok(()) }
    }
}

/// The tokens of a pointer (RFC 6901), escapes undone.
fn tokens(pointer: &str) -> Result<Vec<String>, &'static str> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let rest = pointer.strip_prefix('/').ok_or("has a pointer that does not begin with `/`")?;
    Ok(rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
}

fn add(root: &mut Node, path: &[String], value: Node) -> Option<()> {
    let Some((last, parents)) = path.split_last() else {
        *root = value;
        return Some(());
    };
    match root.find(parents)? {
        Node::Object(members) => match members.iter_mut().find(|(name, _)| name == last) {
            Some((_, old)) => *old = value,
            None => members.push((last.clone(), value)),
        },
        Node::Array(elements) => {
            let at = if last == "-" { elements.len() } else { index(last)? };
            if at > elements.len() {
                return None;
            }
            elements.insert(at, value);
        }
        Node::Scalar(_) => return None,
    }
    Some(())
}

fn remove(root: &mut Node, path: &[String]) -> Option<Node> {
    let (last, parents) = path.split_last()?;
    match root.find(parents)? {
        Node::Object(members) => {
            let at = members.iter().position(|(name, _)| name == last)?;
            Some(members.remove(at).1)
        }
        Node::Array(elements) => {
            let at = index(last).filter(|at| *at < elements.len())?;
            Some(elements.remove(at))
        }
        Node::Scalar(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn patched(document: &str, operations: &Value) -> Result<String, PatchError> {
        let bytes = patch(document.as_bytes(), operations.to_string().as_bytes())?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn what_is_not_touched_keeps_its_digits() {
        let document =
            r#"{ "big":18446744073709551617, "money":1.10,"text":"\u00e9","m":{"quantity":"two","z":-0.0} }"#;
        let patch = json!([{"op": "replace", "path": "/m/quantity", "value": 2}]);
        assert_eq!(
            patched(document, &patch).unwrap(),
            r#"{"big":18446744073709551617,"money":1.10,"text":"\u00e9","m":{"quantity":2,"z":-0.0}}"#
        );
    }

    #[test]
    fn the_operations_of_the_rfc_do_what_its_examples_say() {
        for (document, operation, result) in [
            (
                r#"{"foo":"bar"}"#,
                json!({"op": "add", "path": "/baz", "value": "qux"}),
                r#"{"foo":"bar","baz":"qux"}"#,
            ),
            (
                r#"{"foo":["bar","baz"]}"#,
                json!({"op": "add", "path": "/foo/1", "value": "qux"}),
                r#"{"foo":["bar","qux","baz"]}"#,
            ),
            (r#"{"baz":"qux","foo":"bar"}"#, json!({"op": "remove", "path": "/baz"}), r#"{"foo":"bar"}"#),
            (
                r#"{"foo":["bar","qux","baz"]}"#,
                json!({"op": "remove", "path": "/foo/1"}),
                r#"{"foo":["bar","baz"]}"#,
            ),
            (
                r#"{"baz":"qux","foo":"bar"}"#,
                json!({"op": "replace", "path": "/baz", "value": "boo"}),
                r#"{"baz":"boo","foo":"bar"}"#,
            ),
            (
                r#"{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}"#,
                json!({"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}),
                r#"{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}"#,
            ),
            (
                r#"{"foo":["all","grass","cows","eat"]}"#,
                json!({"op": "move", "from": "/foo/1", "path": "/foo/3"}),
                r#"{"foo":["all","cows","eat","grass"]}"#,
            ),
            (
                r#"{"foo":["bar"]}"#,
                json!({"op": "add", "path": "/foo/-", "value": ["abc", "def"]}),
                r#"{"foo":["bar",["abc","def"]]}"#,
            ),
            (r#"{"/":9,"~1":10}"#, json!({"op": "test", "path": "/~01", "value": 10}), r#"{"/":9,"~1":10}"#),
            (
                r#"{"a":{"b":1}}"#,
                json!({"op": "copy", "from": "/a", "path": "/c"}),
                r#"{"a":{"b":1},"c":{"b":1}}"#,
            ),
            (r#"{"a":1e2}"#, json!({"op": "test", "path": "/a", "value": 100.0}), r#"{"a":1e2}"#),
        ] {
            assert_eq!(patched(document, &json!([operation])).as_deref(), Ok(result), "{operation}");
        }
    }

    #[test]
    fn a_patch_that_does_not_fit_names_the_operation_and_changes_nothing() {
        let first = json!({"op": "replace", "path": "/a", "value": 2});
        let fails = |operation: Value| patched(r#"{"a":[1]}"#, &json!([first, operation])).unwrap_err();
        let not_found = |pointer: &str| PatchError::NotFound { index: 1, pointer: pointer.to_owned() };
        assert_eq!(fails(json!({"op": "remove", "path": "/b"})), not_found("/b"));
        assert_eq!(fails(json!({"op": "add", "path": "/b/c", "value": 1})), not_found("/b/c"));
        assert_eq!(fails(json!({"op": "replace", "path": "/a/0", "value": 1})), not_found("/a/0"));
        assert_eq!(
            fails(json!({"op": "test", "path": "/a", "value": 3})),
            PatchError::TestFailed { index: 1, pointer: "/a".to_owned() }
        );
        for operation in [
            json!({"op": "add", "path": "/b"}),
            json!({"op": "merge", "path": "/b"}),
            json!({"op": "move", "path": "/b"}),
            json!({"op": "remove", "path": "b"}),
            json!({"op": "move", "from": "/a", "path": "/a/b"}),
            json!(7),
        ] {
            assert!(
                matches!(fails(operation.clone()), PatchError::Operation { index: 1, .. }),
                "{operation}"
            );
        }
        assert_eq!(patched(r#"{"a":1}"#, &json!({"op": "remove"})), Err(PatchError::NotAPatch));
        let long: Vec<&Value> = std::iter::repeat_n(&first, MAX_OPERATIONS + 1).collect();
        assert_eq!(patched(r#"{"a":1}"#, &json!(long)), Err(PatchError::NotAPatch));
        assert!(matches!(patched("{\"a\":", &json!([])), Err(PatchError::Document(_))));
    }

    #[test]
    fn differences_are_named_at_their_innermost_place() {
        let before = br#"{"a":1,"m":{"quantity":"two","gone":true},"list":[1,2],"same":[{"x":1.10}]}"#;
        let after = br#"{"m":{"quantity":2,"~/":null},"list":[1],"same":[{"x":1.1}],"a":1}"#;
        let text = |before: Option<&str>| before.map(str::to_owned);
        let expected = [
            ("/m/quantity", Some("\"two\""), Some("2")),
            ("/m/gone", Some("true"), None),
            ("/m/~0~1", None, Some("null")),
            ("/list", Some("[1,2]"), Some("[1]")),
            ("/same/0/x", Some("1.10"), Some("1.1")),
        ];
        let expected = expected.map(|(pointer, before, after)| Difference {
            pointer: pointer.to_owned(),
            before: text(before),
            after: text(after),
        });
        assert_eq!(differences(before, after), expected);
        assert!(differences(before, before).is_empty());
        assert!(differences(b"[", after).is_empty());
    }

    #[test]
    fn copies_of_copies_are_stopped() {
        let bomb: Vec<Value> =
            (0..MAX_OPERATIONS).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})).collect();
        let error = patched(r#"{"a":["0123456789"]}"#, &json!(bomb)).unwrap_err();
        assert!(matches!(error, PatchError::TooLarge { .. }), "{error:?}");
    }

    /// A naive patch on a tree, for values without surprising numbers.
    fn oracle(mut document: Value, operations: &[Value]) -> Option<Value> {
        fn parent<'a>(root: &'a mut Value, pointer: &str) -> Option<(&'a mut Value, String)> {
            let (parents, last) = pointer.rsplit_once('/')?;
            Some((root.pointer_mut(parents)?, last.to_owned()))
        }
        for operation in operations {
            let pointer = operation["path"].as_str()?;
            match operation["op"].as_str()? {
                "replace" => *document.pointer_mut(pointer)? = operation["value"].clone(),
                "remove" => {
                    let (parent, last) = parent(&mut document, pointer)?;
                    match parent {
                        Value::Object(members) => drop(members.remove(&last)?),
                        Value::Array(elements) => {
                            let at: usize = last.parse().ok()?;
                            elements.get(at)?;
                            elements.remove(at);
                        }
                        _ => return None,
                    }
                }
                "add" => {
                    let (parent, last) = parent(&mut document, pointer)?;
                    match parent {
                        Value::Object(members) => drop(members.insert(last, operation["value"].clone())),
                        Value::Array(elements) => {
                            let at: usize = last.parse().ok()?;
                            if at > elements.len() {
                                return None;
                            }
                            elements.insert(at, operation["value"].clone());
                        }
                        _ => return None,
                    }
                }
                _ => return None,
            }
        }
        Some(document)
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<i32>().prop_map(|n| json!(n)),
            "[a-c]{0,2}".prop_map(|s| json!(s))
        ];
        let value = leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(|v| json!(v)),
                prop::collection::btree_map("[ab]", inner, 0..3).prop_map(|v| json!(v)),
            ]
        });
        prop::collection::btree_map("[ab]", value, 0..3).prop_map(|v| json!(v))
    }

    fn operation() -> impl Strategy<Value = Value> {
        let path = prop::collection::vec("[ab01]", 1..4).prop_map(|tokens| format!("/{}", tokens.join("/")));
        (prop::sample::select(&["add", "remove", "replace"][..]), path, document())
            .prop_map(|(op, path, value)| json!({"op": op, "path": path, "value": value}))
    }

    proptest! {
        #[test]
        fn it_does_what_a_naive_patch_of_a_tree_does(document in document(), operations in prop::collection::vec(operation(), 0..4)) {
            let ours = patched(&document.to_string(), &json!(operations)).ok();
            let ours = ours.map(|text| serde_json::from_str::<Value>(&text).unwrap());
            prop_assert_eq!(ours, oracle(document, &operations));
        }

        #[test]
        fn no_bytes_make_it_panic_and_what_comes_out_is_an_object_or_value(document: Vec<u8>, operations in "[\\[{}\\]\",:a-z/0-9]{0,60}") {
            let _ = patch(&document, operations.as_bytes());
            let _ = patch(br#"{"a":[1,{"b":2}]}"#, operations.as_bytes());
        }
    }
}
