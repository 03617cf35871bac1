//! A schema as one document: what it refers to stands in its own `$defs`, and annotations are gone.
//!
//! **Invariant:** a bundle accepts what the schema accepts, whatever it refers to and however it recurs. Two bundles that are
//! equal accept the same.

use std::collections::{BTreeMap, HashMap};
use std::ptr;

use referencing::Resolver;
use serde_json::{Map, Value, json};

use super::{Error, Registry, SchemaId, graph};

/// Keywords of the dialect that assert something, and the two annotations that people read.
const KEPT: &[&str] = &[
    "title",
    "description",
    "type",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minContains",
    "maxContains",
    "minProperties",
    "maxProperties",
    "required",
    "dependentRequired",
];
/// Keywords whose value is a schema.
const ONE: &[&str] = &[
    "not",
    "if",
    "then",
    "else",
    "items",
    "contains",
    "unevaluatedItems",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
];
/// Keywords whose value is a list of schemas.
const LIST: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is an object of schemas.
const NAMED: &[&str] = &["properties", "patternProperties", "dependentSchemas"];

impl Registry {
    /// Every schema as one document of its own, without references to others.
    ///
    /// # Errors
    /// None that loading did not find before.
    pub fn bundles(&self) -> Result<BTreeMap<SchemaId, Value>, Error> {
        let resolvable = graph::resolvable(&self.documents)?;
        let mut all = BTreeMap::new();
        for document in self.documents.iter() {
            let Some(id) = &document.id else { continue };
            let fault = |error: referencing::Error| Error::Schema {
                path: document.path.clone(),
                message: error.to_string(),
            };
            let uri = referencing::uri::from_str(&document.uri).map_err(fault)?;
            let (value, resolver, _) = resolvable.resolver(uri).lookup("").map_err(fault)?.into_inner();
            let mut bundle = Bundle { defs: Vec::new(), known: HashMap::new() };
            let mut root = bundle.rewrite(value, &resolver).map_err(fault)?;
            if let (Some(root), false) = (root.as_object_mut(), bundle.defs.is_empty()) {
                let defs =
                    bundle.defs.into_iter().enumerate().map(|(number, def)| (format!("r{number}"), def));
                root.insert("$defs".to_owned(), Value::Object(defs.collect()));
            }
            all.insert(id.clone(), root);
        }
        Ok(all)
    }

    /// Keywords that no version of the dialect knows, with the document and place: most often a word that is misspelt.
    ///
    /// # Errors
    /// None that loading did not find before.
    pub fn unknown_keywords(&self) -> Result<Vec<(String, String)>, Error> {
        let resolvable = graph::resolvable(&self.documents)?;
        let graph = graph::build(&self.documents, &resolvable)?;
        let mut unknown = Vec::new();
        for node in &graph.nodes {
            for keyword in node.value.as_object().into_iter().flat_map(Map::keys) {
                let known =
                    [KEPT, ONE, LIST, NAMED, OTHERS].iter().any(|list| list.contains(&keyword.as_str()));
                if !known && !is_ours(keyword) {
                    unknown.push((node.place.clone(), keyword.clone()));
                }
            }
        }
        Ok(unknown)
    }
}

/// Keywords of the dialect that are not part of a bundle.
const OTHERS: &[&str] = &[
    "$schema",
    "$id",
    "$ref",
    "$anchor",
    "$defs",
    "$comment",
    "$vocabulary",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
];

fn is_ours(keyword: &str) -> bool {
    keyword.starts_with("x-")
}

struct Bundle {
    defs: Vec<Value>,
    known: HashMap<*const Value, usize>,
}

impl Bundle {
    fn rewrite<'r>(
        &mut self,
        value: &'r Value,
        resolver: &Resolver<'r>,
    ) -> Result<Value, referencing::Error> {
        let Value::Object(schema) = value else { return Ok(value.clone()) };
        let mut rewritten = Map::new();
        for (keyword, value) in schema {
            let word = keyword.as_str();
            let value = match value {
                Value::String(reference) if word == "$ref" => {
                    let (target, resolver, _) = resolver.lookup(reference)?.into_inner();
                    json!(format!("#/$defs/r{}", self.def(target, &resolver)?))
                }
                value if ONE.contains(&word) => self.rewrite(value, resolver)?,
                Value::Array(list) if LIST.contains(&word) => {
                    list.iter().map(|value| self.rewrite(value, resolver)).collect::<Result<_, _>>()?
                }
                Value::Object(named) if NAMED.contains(&word) => {
                    let named =
                        named.iter().map(|(name, value)| Ok((name.clone(), self.rewrite(value, resolver)?)));
                    Value::Object(named.collect::<Result<_, referencing::Error>>()?)
                }
                value if KEPT.contains(&word) => value.clone(),
                _ => continue,
            };
            rewritten.insert(keyword.clone(), value);
        }
        Ok(Value::Object(rewritten))
    }

    fn def<'r>(&mut self, target: &'r Value, resolver: &Resolver<'r>) -> Result<usize, referencing::Error> {
        if let Some(known) = self.known.get(&ptr::from_ref(target)) {
            return Ok(*known);
        }
        let number = self.defs.len();
        self.known.insert(ptr::from_ref(target), number);
        self.defs.push(Value::Bool(true));
        let rewritten = self.rewrite(target, resolver)?;
        if let Some(def) = self.defs.get_mut(number) {
            *def = rewritten;
        }
        Ok(number)
    }
}
