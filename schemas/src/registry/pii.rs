//! Which parts of an event are personal data, and what is done to them before they are kept: the keyword `x-pii`.
//!
//! **Invariant:** a mark counts wherever a subschema could apply, whether or not it does for this event (alternatives, conditions),
//! and in every version of the type: what is marked is never kept because an event was judged otherwise.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Value, json};

use super::documents::Document;
use super::graph::{Graph, NodeId};
use super::{Error, compile};
use crate::id::EventType;

/// The keyword.
const KEYWORD: &str = "x-pii";

/// What is done to a value. The later ones leave less of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PiiAction {
    /// A keyed hash in its place: equal values can still be counted and joined.
    Hash,
    /// `***` in its place: that there was one can still be seen.
    Mask,
    /// Nothing in its place.
    Drop,
}

/// The marks of one event type.
#[derive(Clone, Debug)]
pub struct Redaction {
    nodes: Arc<BTreeMap<NodeId, Marks>>,
    roots: Vec<NodeId>,
}

/// A place in an event, as the marks see it.
#[derive(Clone, Debug)]
pub struct Place<'r> {
    nodes: &'r BTreeMap<NodeId, Marks>,
    at: Vec<NodeId>,
}

/// Marks on a value and below it. Only what has any is kept.
#[derive(Debug, Default)]
struct Marks {
    action: Option<PiiAction>,
    in_place: Vec<NodeId>,
    properties: HashMap<String, NodeId>,
    /// Names of the schema's properties that hold no marks: `additional` is not about them.
    unmarked: Vec<String>,
    patterns: Vec<(Validator, Option<NodeId>)>,
    additional: Option<NodeId>,
    unevaluated: Option<NodeId>,
    prefix_items: Vec<Option<NodeId>>,
    items: Vec<NodeId>,
}

/// The marks of every type that has any.
pub(super) fn collect(
    documents: &[Document],
    graph: &Graph<'_>,
) -> Result<BTreeMap<EventType, Redaction>, Error> {
    let actions = actions(graph)?;
    if actions.iter().all(Option::is_none) {
        return Ok(BTreeMap::new());
    }
    let marked = reaching(graph, &actions);
    let mut nodes = BTreeMap::new();
    for (id, _) in graph.nodes.iter().enumerate().filter(|(id, _)| marked.get(*id) == Some(&true)) {
        nodes.insert(id, marks(graph, id, &actions, &marked)?);
    }
    let nodes = Arc::new(nodes);
    let mut all: BTreeMap<EventType, Redaction> = BTreeMap::new();
    for (document, root) in documents.iter().zip(&graph.roots) {
        let Some(id) = &document.id else { continue };
        if marked.get(*root) != Some(&true) {
            continue;
        }
        let redaction = Redaction { nodes: Arc::clone(&nodes), roots: vec![*root] };
        if redaction.metadata().action().is_some() {
            let message = format!("`{KEYWORD}` stands on the members of `metadata`, not on all of it");
            return Err(Error::Schema { path: document.path.clone(), message });
        }
        all.entry(id.event_type.clone()).and_modify(|known| known.roots.push(*root)).or_insert(redaction);
    }
    Ok(all)
}

fn actions(graph: &Graph<'_>) -> Result<Vec<Option<PiiAction>>, Error> {
    let read = graph.nodes.iter().map(|node| match node.value.get(KEYWORD) {
        None => Ok(None),
        Some(value) => serde_json::from_value(value.clone()).map(Some).map_err(|_| Error::Schema {
            path: node.place.clone(),
            message: format!("`{KEYWORD}` is `hash`, `mask` or `drop`"),
        }),
    });
    read.collect()
}

/// Whether a node has a mark on it or below it.
fn reaching(graph: &Graph<'_>, actions: &[Option<PiiAction>]) -> Vec<bool> {
    let mut from: Vec<Vec<NodeId>> = vec![Vec::new(); graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        for target in node.in_place.iter().copied().chain(node.below()) {
            if let Some(from) = from.get_mut(target) {
                from.push(id);
            }
        }
    }
    let mut marked: Vec<bool> = actions.iter().map(Option::is_some).collect();
    let mut left: Vec<NodeId> = (0..marked.len()).filter(|id| marked.get(*id) == Some(&true)).collect();
    while let Some(id) = left.pop() {
        for source in from.get(id).into_iter().flatten() {
            if let Some(mark) = marked.get_mut(*source).filter(|mark| !**mark) {
                *mark = true;
                left.push(*source);
            }
        }
    }
    marked
}

fn marks(
    graph: &Graph<'_>,
    id: NodeId,
    actions: &[Option<PiiAction>],
    marked: &[bool],
) -> Result<Marks, Error> {
    let Some(node) = graph.nodes.get(id) else { return Ok(Marks::default()) };
    let fault = |message: String| Error::Schema { path: node.place.clone(), message };
    let only = |id: NodeId| (marked.get(id) == Some(&true)).then_some(id);
    if node.names.is_some_and(|names| only(names).is_some()) {
        return Err(fault(format!(
            "`{KEYWORD}` below `propertyNames` would be about names; only values are redacted"
        )));
    }
    let mut patterns = Vec::new();
    for (pattern, target) in &node.patterns {
        let matcher = compile::options::<jsonschema::json::SerdeJson>().build(&json!({"pattern": pattern}));
        patterns.push((matcher.map_err(|error| fault(error.to_string()))?, only(*target)));
    }
    let [rest, contains, unevaluated] = node.items.map(|item| item.and_then(only));
    Ok(Marks {
        action: actions.get(id).copied().flatten(),
        in_place: node.in_place.iter().copied().filter_map(only).collect(),
        properties: node
            .properties
            .iter()
            .filter_map(|(name, id)| Some(((*name).to_owned(), only(*id)?)))
            .collect(),
        unmarked: node
            .properties
            .iter()
            .filter(|(_, id)| only(*id).is_none())
            .map(|(name, _)| (*name).to_owned())
            .collect(),
        patterns,
        additional: node.additional.and_then(only),
        unevaluated: node.unevaluated.and_then(only),
        prefix_items: node.prefix_items.iter().map(|id| only(*id)).collect(),
        items: [contains, unevaluated].into_iter().flatten().chain(rest).collect(),
    })
}

impl Redaction {
    /// Where an event's `metadata` is.
    pub fn metadata(&self) -> Place<'_> {
        Place { nodes: &self.nodes, at: Vec::new() }.with(self.roots.iter().copied())
    }

    /// Whether any mark asks for a hash.
    pub fn hashes(&self) -> bool {
        self.nodes.values().any(|marks| marks.action == Some(PiiAction::Hash))
    }
}

impl Place<'_> {
    /// What is done to the value here: of several marks the one that leaves least.
    pub fn action(&self) -> Option<PiiAction> {
        self.marks().filter_map(|marks| marks.action).max()
    }

    /// Whether nothing here or below is marked.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// The member of that name.
    #[must_use]
    pub fn member(&self, name: &str) -> Self {
        let mut next = Vec::new();
        for marks in self.marks() {
            let mut named = marks.properties.get(name).copied();
            let mut known = named.is_some() || marks.unmarked.iter().any(|own| own == name);
            next.extend(named.take());
            for (pattern, target) in &marks.patterns {
                if matches(pattern, name) {
                    known = true;
                    next.extend(*target);
                }
            }
            if !known {
                next.extend(marks.additional);
            }
            next.extend(marks.unevaluated);
        }
        self.at(next)
    }

    /// The item at that place.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        let next = self.marks().flat_map(|marks| {
            let first = marks.prefix_items.get(index).copied().flatten();
            // Conservative where `prefixItems` and `items` both stand: a mark on either counts.
            first.into_iter().chain(marks.items.iter().copied())
        });
        self.at(next.collect())
    }

    fn marks(&self) -> impl Iterator<Item = &Marks> {
        self.at.iter().filter_map(|id| self.nodes.get(id))
    }

    fn at(&self, next: Vec<NodeId>) -> Self {
        Self { nodes: self.nodes, at: Vec::new() }.with(next.into_iter())
    }

    /// With these nodes and all that judge the same value.
    fn with(mut self, nodes: impl Iterator<Item = NodeId>) -> Self {
        let mut left: Vec<NodeId> = nodes.collect();
        while let Some(id) = left.pop() {
            if !self.at.contains(&id) {
                self.at.push(id);
                left.extend(self.nodes.get(&id).into_iter().flat_map(|marks| &marks.in_place));
            }
        }
        self
    }
}

/// A name that the pattern cannot be matched with in bounded time counts as one that matches.
fn matches(pattern: &Validator, name: &str) -> bool {
    let name = Value::String(name.to_owned());
    pattern.iter_errors(&name).all(|error| !matches!(error.kind(), ValidationErrorKind::Pattern { .. }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::registry;
    use super::*;

    fn action(document: &Value, path: &[&str]) -> Option<PiiAction> {
        let registry = registry(&[("x", "1", &serde_json::to_vec(document).unwrap())]).unwrap();
        let redaction = registry.redaction(&EventType::new("x"))?.clone();
        let mut place = redaction.metadata();
        for step in path {
            place = match step.parse() {
                Ok(index) => place.item(index),
                Err(_) => place.member(step),
            };
        }
        place.action()
    }

    #[test]
    fn a_mark_is_found_wherever_its_subschema_could_apply() {
        use PiiAction::{Drop, Hash, Mask};
        let hash = json!({"x-pii": "hash"});
        for (document, path, right) in [
            (json!({"properties":{"a":hash}}), vec!["a"], Some(Hash)),
            (json!({"properties":{"a":hash}}), vec!["b"], None),
            (json!({"properties":{"a":{"properties":{"b":hash}}}}), vec!["a", "b"], Some(Hash)),
            (
                json!({"properties":{"a":{"items":{"properties":{"b":hash}}}}}),
                vec!["a", "7", "b"],
                Some(Hash),
            ),
            (json!({"properties":{"a":{"prefixItems":[{},hash]}}}), vec!["a", "1"], Some(Hash)),
            (json!({"properties":{"a":{"prefixItems":[{},hash]}}}), vec!["a", "0"], None),
            (json!({"patternProperties":{"mail$":{"x-pii":"mask"}}}), vec!["email"], Some(Mask)),
            (json!({"patternProperties":{"mail$":{"x-pii":"mask"}}}), vec!["name"], None),
            (
                json!({"properties":{"id":{}},"additionalProperties":{"x-pii":"drop"}}),
                vec!["any"],
                Some(Drop),
            ),
            (json!({"properties":{"id":{}},"additionalProperties":{"x-pii":"drop"}}), vec!["id"], None),
            (json!({"anyOf":[{"properties":{"a":hash}},{"properties":{"b":{}}}]}), vec!["a"], Some(Hash)),
            (json!({"if":{"required":["k"]},"then":{"properties":{"a":hash}}}), vec!["a"], Some(Hash)),
            (json!({"dependentSchemas":{"k":{"properties":{"a":hash}}}}), vec!["a"], Some(Hash)),
            (
                json!({"$ref":"#/$defs/d","$defs":{"d":{"properties":{"a":{"$ref":"#/$defs/e"}}},"e":hash}}),
                vec!["a"],
                Some(Hash),
            ),
            (
                json!({"allOf":[{"properties":{"a":hash}},{"properties":{"a":{"x-pii":"drop"}}}]}),
                vec!["a"],
                Some(Drop),
            ),
            (json!({"properties":{"child":{"$ref":"#"},"a":hash}}), vec!["child", "child", "a"], Some(Hash)),
            (json!({"properties":{"id":{}},"unevaluatedProperties":{"x-pii":"mask"}}), vec!["z"], Some(Mask)),
        ] {
            assert_eq!(action(&document, &path), right, "{document} {path:?}");
        }
    }

    #[test]
    fn a_mark_that_cannot_be_obeyed_is_refused() {
        for (document, word) in [
            (json!({"properties":{"a":{"x-pii":"Hash"}}}), "`hash`"),
            (json!({"properties":{"a":{"x-pii":true}}}), "`hash`"),
            (json!({"x-pii":"drop"}), "members"),
            (json!({"propertyNames":{"x-pii":"drop"}}), "names"),
        ] {
            let error =
                registry(&[("x", "1", &serde_json::to_vec(&document).unwrap())]).unwrap_err().to_string();
            assert!(error.contains("events/x/1.json") && error.contains(word), "{document}: {error}");
        }
    }

    #[test]
    fn marks_of_every_version_count() {
        let registry = registry(&[
            ("x", "1", br#"{"properties":{"a":{"x-pii":"mask"}}}"#),
            ("x", "2", br#"{"properties":{"b":{"x-pii":"drop"}}}"#),
            ("y", "1", b"{}"),
        ]);
        let registry = registry.unwrap();
        let redaction = registry.redaction(&EventType::new("x")).unwrap();
        assert_eq!(redaction.metadata().member("a").action(), Some(PiiAction::Mask));
        assert_eq!(redaction.metadata().member("b").action(), Some(PiiAction::Drop));
        assert!(registry.redaction(&EventType::new("y")).is_none() && registry.redacts());
        assert!(!redaction.hashes());
    }
}
