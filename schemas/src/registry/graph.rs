//! Every subschema of a registry, and which of them judge the same value, a member or an item of it.
//!
//! **Invariant:** a node is one place in one document, however it is reached; references are resolved as the validator resolves
//! them. What the validator could not be bounded on (dynamic references, documents inside documents) is refused.

use std::collections::HashMap;
use std::ptr;

use referencing::{Registry as Resolvable, RegistryBuilder, Resolver};
use serde_json::Value;

use super::Error;
use super::documents::Document;

/// Most subschemas of a registry.
const MAX_NODES: usize = 200_000;

/// The number of a node.
pub(super) type NodeId = usize;

/// All subschemas.
#[derive(Debug, Default)]
pub(super) struct Graph<'r> {
    pub(super) nodes: Vec<Node<'r>>,
    /// The node of each document, in their order.
    pub(super) roots: Vec<NodeId>,
}

/// One subschema, by what it refers to.
#[derive(Debug)]
pub(super) struct Node<'r> {
    pub(super) value: &'r Value,
    /// The document, and the place in it.
    pub(super) place: String,
    /// Judge the same value.
    pub(super) in_place: Vec<NodeId>,
    /// Judge the member of that name.
    pub(super) properties: Vec<(&'r str, NodeId)>,
    /// Judge the members whose names match.
    pub(super) patterns: Vec<(&'r str, NodeId)>,
    /// Judges the members that none of the above judges.
    pub(super) additional: Option<NodeId>,
    /// Judges the members that nothing else judged.
    pub(super) unevaluated: Option<NodeId>,
    /// Judges each name.
    pub(super) names: Option<NodeId>,
    /// Judge the items at the beginning.
    pub(super) prefix_items: Vec<NodeId>,
    /// Judge items: the rest, those that count, those that nothing else judged.
    pub(super) items: [Option<NodeId>; 3],
}

/// The documents, so that references between them are found.
pub(super) fn resolvable(documents: &[Document]) -> Result<Resolvable<'_>, Error> {
    check_ids(documents)?;
    let pairs = documents.iter().map(|document| (document.uri.as_str(), &document.value));
    let fault = |error: referencing::Error| Error::Schema {
        path: "the schemas".to_owned(),
        message: format!("a reference leads nowhere: {error}"),
    };
    Resolvable::new().extend(pairs).and_then(RegistryBuilder::prepare).map_err(fault)
}

/// Names the document of a reference that leads nowhere, which the library does not, and of an `$id` that is taken.
fn check_ids(documents: &[Document]) -> Result<(), Error> {
    let mut known: HashMap<String, &str> = HashMap::new();
    let mut bases = Vec::new();
    for document in documents {
        let fault = |message: String| Error::Schema { path: document.path.clone(), message };
        let own = referencing::uri::from_str(&document.uri).map_err(|error| fault(error.to_string()))?;
        let base = match document.value.get("$id").and_then(Value::as_str) {
            Some(id) => referencing::uri::resolve_against(&own.borrow(), id)
                .map_err(|error| fault(format!("`$id`: {error}")))?,
            None => own.clone(),
        };
        for name in [own.as_str(), base.as_str()] {
            match known.insert(name.trim_end_matches('#').to_owned(), &document.path) {
                Some(other) if other != document.path => {
                    return Err(fault(format!("is known as `{name}`, and so is {other}")));
                }
                _ => {}
            }
        }
        bases.push(base);
    }
    for (document, base) in documents.iter().zip(bases) {
        let mut left = vec![&document.value];
        while let Some(value) = left.pop() {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                let fault = |message: String| Error::Schema { path: document.path.clone(), message };
                let target = referencing::uri::resolve_against(&base.borrow(), reference)
                    .map_err(|error| fault(format!("`$ref`: {error}")))?;
                let target = target.as_str().split('#').next().unwrap_or_default();
                let ours = known.contains_key(target) || target.starts_with("https://json-schema.org/");
                if !ours {
                    let message = format!(
                        "`$ref` to `{reference}`, which is `{target}`: no document here is that; nothing is fetched"
                    );
                    return Err(fault(message));
                }
            }
            match value {
                Value::Object(members) => {
                    let data = |name: &str| ["const", "enum", "examples", "default"].contains(&name);
                    left.extend(members.iter().filter(|(name, _)| !data(name)).map(|(_, value)| value));
                }
                Value::Array(items) => left.extend(items),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Walks all documents.
pub(super) fn build<'r>(documents: &[Document], resolvable: &'r Resolvable<'r>) -> Result<Graph<'r>, Error> {
    let mut walk = Walk { graph: Graph::default(), known: HashMap::new(), left: Vec::new() };
    for document in documents {
        let fault = |message: String| Error::Schema { path: document.path.clone(), message };
        let uri = referencing::uri::from_str(&document.uri).map_err(|error| fault(error.to_string()))?;
        let root = resolvable.resolver(uri).lookup("").map_err(|error| fault(error.to_string()))?;
        let (value, resolver, _) = root.into_inner();
        let node = walk.node(value, &resolver, || format!("{}#", document.path))?;
        walk.graph.roots.push(node);
    }
    walk.finish()?;
    Ok(walk.graph)
}

struct Walk<'r> {
    graph: Graph<'r>,
    /// By the subschema's address: two places are two nodes, even where they read the same.
    known: HashMap<*const Value, NodeId>,
    /// Nodes whose own subschemas are not looked at yet.
    left: Vec<(NodeId, Resolver<'r>)>,
}

impl<'r> Walk<'r> {
    fn node(
        &mut self,
        value: &'r Value,
        resolver: &Resolver<'r>,
        place: impl FnOnce() -> String,
    ) -> Result<NodeId, Error> {
        if let Some(known) = self.known.get(&ptr::from_ref(value)) {
            return Ok(*known);
        }
        let id = self.graph.nodes.len();
        if id >= MAX_NODES {
            return Err(Error::Schema {
                path: place(),
                message: format!("more than {MAX_NODES} subschemas in all"),
            });
        }
        self.known.insert(ptr::from_ref(value), id);
        self.graph.nodes.push(Node::empty(value, place()));
        self.left.push((id, resolver.clone()));
        Ok(id)
    }

    fn finish(&mut self) -> Result<(), Error> {
        while let Some((id, resolver)) = self.left.pop() {
            let Some(node) = self.graph.nodes.get(id) else { continue };
            let mut found = Node::empty(node.value, node.place.clone());
            self.look(&mut found, &resolver)?;
            if let Some(node) = self.graph.nodes.get_mut(id) {
                *node = found;
            }
        }
        Ok(())
    }

    fn look(&mut self, node: &mut Node<'r>, resolver: &Resolver<'r>) -> Result<(), Error> {
        let Value::Object(schema) = node.value else { return Ok(()) };
        let here = node.place.clone();
        let fault = |message: String| Error::Schema { path: here.clone(), message };
        supported(schema, &here)?;
        for (keyword, value) in schema {
            let child = |walk: &mut Self, value: &'r Value, path: &str| {
                walk.node(value, resolver, || format!("{here}/{keyword}{path}"))
            };
            match (keyword.as_str(), value) {
                ("$ref", Value::String(reference)) => {
                    let target = resolver.lookup(reference).map_err(|error| fault(error.to_string()))?;
                    let (value, resolver, _) = target.into_inner();
                    let place = || {
                        format!(
                            "{}#{}",
                            resolver.base_uri().as_str(),
                            reference.split_once('#').map_or("", |(_, place)| place)
                        )
                    };
                    node.in_place.push(self.node(value, &resolver, place)?);
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => {
                    for (index, value) in all.iter().enumerate() {
                        node.in_place.push(child(self, value, &format!("/{index}"))?);
                    }
                }
                ("not" | "if" | "then" | "else", value) => node.in_place.push(child(self, value, "")?),
                ("dependentSchemas", Value::Object(all)) => {
                    for (name, value) in all {
                        node.in_place.push(child(self, value, &format!("/{name}"))?);
                    }
                }
                ("properties", Value::Object(all)) => {
                    for (name, value) in all {
                        node.properties.push((name, child(self, value, &format!("/{name}"))?));
                    }
                }
                ("patternProperties", Value::Object(all)) => {
                    for (name, value) in all {
                        node.patterns.push((name, child(self, value, &format!("/{name}"))?));
                    }
                }
                ("additionalProperties", value) => node.additional = Some(child(self, value, "")?),
                ("unevaluatedProperties", value) => node.unevaluated = Some(child(self, value, "")?),
                ("propertyNames", value) => node.names = Some(child(self, value, "")?),
                ("prefixItems", Value::Array(all)) => {
                    for (index, value) in all.iter().enumerate() {
                        node.prefix_items.push(child(self, value, &format!("/{index}"))?);
                    }
                }
                ("items", value) => node.items[0] = Some(child(self, value, "")?),
                ("contains", value) => node.items[1] = Some(child(self, value, "")?),
                ("unevaluatedItems", value) => node.items[2] = Some(child(self, value, "")?),
                ("$defs", Value::Object(all)) => {
                    for (name, value) in all {
                        child(self, value, &format!("/{name}"))?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the bounds could not be worked out for is refused.
fn supported(schema: &serde_json::Map<String, Value>, place: &str) -> Result<(), Error> {
    let fault = |message: String| Error::Schema { path: place.to_owned(), message };
    for dynamic in ["$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"] {
        if schema.contains_key(dynamic) {
            return Err(fault(format!("`{dynamic}` is not supported; use `$ref`")));
        }
    }
    if schema.get("$id").is_some_and(Value::is_string) && !place.ends_with('#') {
        return Err(fault(
            "`$id` stands at a document's root alone: give this one a file of its own".to_owned(),
        ));
    }
    Ok(())
}

impl<'r> Node<'r> {
    const fn empty(value: &'r Value, place: String) -> Self {
        Self {
            value,
            place,
            in_place: Vec::new(),
            properties: Vec::new(),
            patterns: Vec::new(),
            additional: None,
            unevaluated: None,
            names: None,
            prefix_items: Vec::new(),
            items: [None; 3],
        }
    }

    /// Every node that judges a part of the value, or its names.
    pub(super) fn below(&self) -> impl Iterator<Item = NodeId> + '_ {
        let named = self.properties.iter().chain(&self.patterns).map(|(_, node)| *node);
        let rest = [self.additional, self.unevaluated, self.names].into_iter().chain(self.items).flatten();
        named.chain(self.prefix_items.iter().copied()).chain(rest)
    }
}
