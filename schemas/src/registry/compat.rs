//! Whether a new version of a schema takes what the old one took, and if not, where and why.
//!
//! The proof is the validator library's (`canonical`); it answers yes, no, or that it does not know, and only a yes counts. What
//! stands here says where the proof fails, keyword by keyword.
//!
//! **Invariant:** no difference means proven: every event that fits the one fits the other. A doubt is told as a difference.

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use jsonschema::canonical::{self, CanonicalSchema, Containment};
use serde_json::{Map, Value, json};

use super::{Error, Registry, SchemaId, compile};
use crate::id::EventType;

/// Differences told of one pair of versions.
const MAX_DIFFERENCES: usize = 100;
/// Proofs tried for one pair of versions, to say where it fails.
const MAX_PROOFS: usize = 2_000;

/// Which events must fit which version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compatibility {
    /// What fitted the old version fits the new one: senders can stay as they are.
    #[default]
    Backward,
    /// What fits the new version fitted the old one: readers can stay as they are.
    Forward,
    /// Both.
    Full,
}

/// Something that one version takes and the other does not.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Difference {
    /// `backward` or `forward`.
    pub breaks: &'static str,
    /// Where in the event, as a JSON pointer; `*` stands for each item.
    pub pointer: String,
    /// The keyword; `schema` where no single one is to blame.
    pub keyword: String,
    /// What changed for whom.
    pub why: String,
    /// What to do about it.
    pub advice: String,
}

/// Two versions, compared.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Comparison {
    /// The older version; with its type.
    pub from: String,
    /// The newer one, or nothing if it is gone.
    pub to: Option<String>,
    /// Whether the numbers allow that something breaks: the major number was raised.
    pub allowed: bool,
    /// What breaks.
    pub differences: Vec<Difference>,
}

/// Compares the versions of each type with their predecessors, and with what was published before.
///
/// Within a major number each version must be compatible with the one before. What `published` has must still be there and accept
/// the same; its newest version is compared with the newest of all.
pub fn compare(
    now: &Registry,
    published: Option<&Registry>,
    mode: Compatibility,
) -> Result<Vec<Comparison>, Error> {
    let new = now.bundles()?;
    let mut all = Vec::new();
    for (from, to) in neighbours(&new) {
        all.push(pair(mode, (from, &new), (to, &new)));
    }
    let Some(published) = published else { return Ok(all) };
    let old = published.bundles()?;
    for id in old.keys() {
        if new.contains_key(id) {
            let mut comparison = pair(Compatibility::Full, (id, &old), (id, &new));
            for difference in &mut comparison.differences {
                "a published version must not change: leave it as it was, and give this a version of its own"
                    .clone_into(&mut difference.advice);
            }
            comparison.allowed = false;
            all.push(comparison);
        } else {
            all.push(gone(id));
        }
    }
    for (from, to) in newest(&old, &new) {
        if from.version != to.version && !all.iter().any(|done| done.is_of(from, to)) {
            all.push(pair(mode, (from, &old), (to, &new)));
        }
    }
    Ok(all)
}

type Bundles = BTreeMap<SchemaId, Value>;

/// Each version of a type with the next one.
fn neighbours(bundles: &Bundles) -> impl Iterator<Item = (&SchemaId, &SchemaId)> {
    bundles.keys().zip(bundles.keys().skip(1)).filter(|(one, next)| one.event_type == next.event_type)
}

/// The newest versions of each type that both have.
fn newest<'b>(old: &'b Bundles, new: &'b Bundles) -> Vec<(&'b SchemaId, &'b SchemaId)> {
    let of = |bundles: &'b Bundles| -> BTreeMap<&'b EventType, &'b SchemaId> {
        bundles.keys().map(|id| (&id.event_type, id)).collect()
    };
    let new = of(new);
    of(old).into_iter().filter_map(|(event_type, from)| Some((from, *new.get(event_type)?))).collect()
}

impl Comparison {
    fn is_of(&self, from: &SchemaId, to: &SchemaId) -> bool {
        self.from == from.to_string() && self.to.as_deref() == Some(&to.to_string())
    }

    /// Whether something breaks that must not.
    pub const fn is_broken(&self) -> bool {
        !self.allowed && !self.differences.is_empty()
    }
}

fn gone(id: &SchemaId) -> Comparison {
    let difference = Difference {
        breaks: "backward",
        pointer: "/schema".to_owned(),
        keyword: "schema".to_owned(),
        why: format!("{id} is gone: events that pin it would be refused"),
        advice: "put the document back; a version that was published stays".to_owned(),
    };
    Comparison { from: id.to_string(), to: None, allowed: false, differences: vec![difference] }
}

fn pair(mode: Compatibility, from: (&SchemaId, &Bundles), to: (&SchemaId, &Bundles)) -> Comparison {
    let mut differences = Vec::new();
    let nothing = Value::Bool(true);
    let old = from.1.get(from.0).unwrap_or(&nothing);
    let new = to.1.get(to.0).unwrap_or(&nothing);
    let (old_name, new_name) = (from.0.version.to_string(), to.0.version.to_string());
    if mode != Compatibility::Forward {
        differences.extend(differ("backward", (&old_name, old), (&new_name, new)));
    }
    if mode != Compatibility::Backward {
        differences.extend(differ("forward", (&new_name, new), (&old_name, old)));
    }
    Comparison {
        from: from.0.to_string(),
        to: Some(to.0.to_string()),
        allowed: to.0.version.major > from.0.version.major,
        differences,
    }
}

/// Why what fits the first does not fit the second; empty if it is proven to.
fn differ(breaks: &'static str, narrow: (&str, &Value), wide: (&str, &Value)) -> Vec<Difference> {
    let (narrow_schema, wide_schema) = (object_only(narrow.1), object_only(wide.1));
    if narrow_schema == wide_schema {
        return Vec::new();
    }
    let mut search = Search {
        breaks,
        names: (narrow.0, wide.0),
        narrow_defs: narrow.1.get("$defs"),
        wide_defs: wide.1.get("$defs"),
        proofs: MAX_PROOFS,
        found: Vec::new(),
    };
    if search.covers(&wide_schema, &narrow_schema) {
        return Vec::new();
    }
    search.explain(&narrow_schema, &wide_schema, "/metadata", 0);
    search.found
}

/// `metadata` is always an object.
fn object_only(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(schema) = schema.as_object_mut() {
        let takes_objects = match schema.get("type") {
            None => true,
            Some(Value::Array(types)) => types.iter().any(|one| one == "object"),
            Some(_) => false,
        };
        if takes_objects {
            schema.insert("type".to_owned(), json!("object"));
        }
    }
    without_notes(&mut schema);
    schema
}

fn without_notes(schema: &mut Value) {
    if let Value::Object(members) = schema {
        // A property may have such a name too; its schema is an object, a note is text.
        members
            .retain(|name, value| !(value.is_string() && ["title", "description"].contains(&name.as_str())));
    }
    match schema {
        Value::Object(members) => members
            .iter_mut()
            .filter(|(name, _)| !["const", "enum"].contains(&name.as_str()))
            .for_each(|(_, value)| without_notes(value)),
        Value::Array(items) => items.iter_mut().for_each(without_notes),
        _ => {}
    }
}

struct Search<'b> {
    breaks: &'static str,
    names: (&'b str, &'b str),
    narrow_defs: Option<&'b Value>,
    wide_defs: Option<&'b Value>,
    proofs: usize,
    found: Vec<Difference>,
}

impl Search<'_> {
    /// Whether it is proven that what fits `narrow` fits `wide`.
    fn covers(&mut self, wide: &Value, narrow: &Value) -> bool {
        if self.proofs == 0 {
            return false;
        }
        self.proofs -= 1;
        let (wide, narrow) = (with_defs(wide, self.wide_defs), with_defs(narrow, self.narrow_defs));
        // The library calls its comparison experimental: a panic is a doubt.
        catch_unwind(|| {
            let (Some(wide), Some(narrow)) = (canonical(&wide), canonical(&narrow)) else { return false };
            matches!(wide.covers(&narrow), Ok(Containment::Yes))
        })
        .unwrap_or(false)
    }

    /// Finds the keywords of `wide` that what fits `narrow` need not satisfy.
    fn explain(&mut self, narrow: &Value, wide: &Value, pointer: &str, depth: usize) {
        let before = self.found.len();
        let Value::Object(schema) = wide else { return self.tell(pointer, "schema", narrow, wide) };
        for (keyword, value) in schema {
            match (keyword.as_str(), value) {
                ("properties", Value::Object(all)) => {
                    for (name, wide) in all {
                        let narrow = self.member(narrow, name);
                        self.descend(&narrow, wide, &format!("{pointer}/{}", escaped(name)), depth);
                    }
                }
                ("items", wide) => {
                    let narrow = part_of(narrow, "items");
                    self.descend(&narrow, wide, &format!("{pointer}/*"), depth);
                }
                ("prefixItems", Value::Array(all)) => {
                    for (index, wide) in all.iter().enumerate() {
                        let at = narrow.get("prefixItems").and_then(|items| items.get(index));
                        let narrow = at.cloned().unwrap_or_else(|| part_of(narrow, "items"));
                        self.descend(&narrow, wide, &format!("{pointer}/{index}"), depth);
                    }
                }
                ("allOf", Value::Array(all)) => {
                    for wide in all {
                        self.descend(narrow, wide, pointer, depth);
                    }
                }
                ("$ref", Value::String(reference)) => {
                    if let Some(target) = target(reference, self.wide_defs).cloned() {
                        self.descend(narrow, &target, pointer, depth);
                    }
                }
                // Read with others, or only with the whole.
                (
                    "$defs"
                    | "then"
                    | "else"
                    | "minContains"
                    | "maxContains"
                    | "unevaluatedProperties"
                    | "unevaluatedItems",
                    _,
                ) => {}
                (word, _) => {
                    if !self.covers(&alone(schema, word), narrow) {
                        self.tell(pointer, word, narrow, wide);
                    }
                }
            }
        }
        if self.found.len() == before {
            self.tell(pointer, "schema", narrow, wide);
        }
    }

    fn descend(&mut self, narrow: &Value, wide: &Value, pointer: &str, depth: usize) {
        // Recursion ends here at the latest.
        const MAX_DEPTH: usize = 16;
        if self.covers(wide, narrow) {
            return;
        }
        if depth >= MAX_DEPTH || self.found.len() >= MAX_DIFFERENCES || self.proofs == 0 {
            return self.tell(pointer, "schema", narrow, wide);
        }
        self.explain(narrow, wide, pointer, depth + 1);
    }

    /// What the narrow side says of a member, as far as that is easily told.
    fn member(&self, narrow: &Value, name: &str) -> Value {
        if let Some(own) = narrow.get("properties").and_then(|all| all.get(name)) {
            return own.clone();
        }
        let inner = narrow.get("allOf").and_then(Value::as_array).into_iter().flatten();
        let referred = narrow.get("$ref").and_then(Value::as_str).and_then(|it| target(it, self.narrow_defs));
        let mut inner = inner.chain(referred).map(|inner| self.member(inner, name));
        inner
            .find(|inner| *inner != Value::Bool(true))
            .unwrap_or_else(|| part_of(narrow, "additionalProperties"))
    }

    fn tell(&mut self, pointer: &str, keyword: &str, narrow: &Value, wide: &Value) {
        if self.found.len() >= MAX_DIFFERENCES {
            return;
        }
        let (narrow_name, wide_name) = self.names;
        let (was, is) = (narrow.get(keyword), wide.get(keyword));
        let mut push = |why: String, what: &str| {
            let advice = format!("{what}, or raise the major version");
            let (pointer, keyword) = (pointer.to_owned(), keyword.to_owned());
            self.found.push(Difference { breaks: self.breaks, pointer, keyword, why, advice });
        };
        let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        match keyword {
            "required" => {
                let known = list(was);
                for name in list(is).iter().filter(|name| !known.contains(name)).filter_map(Value::as_str) {
                    push(
                        format!("{narrow_name} lets `{name}` be absent, {wide_name} requires it"),
                        &format!("require `{name}` in both or in neither"),
                    );
                }
            }
            "enum" => {
                let allowed = list(is);
                let gone: Vec<String> =
                    list(was).iter().filter(|value| !allowed.contains(value)).map(Value::to_string).collect();
                let gone =
                    if gone.is_empty() { "values that it does not list".to_owned() } else { gone.join(", ") };
                push(
                    format!("{wide_name} does not take {gone}, {narrow_name} does"),
                    "list the same values in both",
                );
            }
            "additionalProperties" => push(
                format!(
                    "{wide_name} restricts members that it does not describe, {narrow_name} allows more of them"
                ),
                "describe the same members in both, or allow others in both",
            ),
            "schema" => push(
                format!("it cannot be shown that what {narrow_name} takes here fits {wide_name}"),
                "write both versions alike here",
            ),
            _ => {
                let shown = |value: Option<&Value>| {
                    value.map_or_else(|| "absent".to_owned(), |value| format!("`{value}`"))
                };
                push(
                    format!(
                        "`{keyword}` is {} in {narrow_name} and {} in {wide_name}",
                        shown(was),
                        shown(is)
                    ),
                    "let it allow the same or more",
                );
            }
        }
    }
}

/// The proof has to be of the same engine and formats as the judgement.
fn canonical(schema: &Value) -> Option<CanonicalSchema> {
    canonical::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .with_pattern_options(compile::patterns())
        .offline()
        .canonicalize(schema)
        .ok()
}

fn with_defs(schema: &Value, defs: Option<&Value>) -> Value {
    match (schema, defs) {
        (Value::Object(members), Some(defs)) => {
            let mut members = members.clone();
            members.insert("$defs".to_owned(), defs.clone());
            Value::Object(members)
        }
        _ => schema.clone(),
    }
}

fn target<'d>(reference: &str, defs: Option<&'d Value>) -> Option<&'d Value> {
    defs?.get(reference.strip_prefix("#/$defs/")?)
}

fn part_of(schema: &Value, keyword: &str) -> Value {
    schema.get(keyword).cloned().unwrap_or(Value::Bool(true))
}

/// One keyword of a schema, with those that it cannot be read without.
fn alone(schema: &Map<String, Value>, keyword: &str) -> Value {
    let mut members = Map::new();
    let with: &[&str] = match keyword {
        "if" => &["if", "then", "else"],
        "contains" => &["contains", "minContains", "maxContains"],
        _ => &[keyword],
    };
    for word in with {
        if let Some(value) = schema.get(*word) {
            members.insert((*word).to_owned(), value.clone());
        }
    }
    if keyword == "additionalProperties" {
        for word in ["properties", "patternProperties"] {
            let names = schema.get(word).and_then(Value::as_object).into_iter().flatten();
            let open: Map<String, Value> = names.map(|(name, _)| (name.clone(), Value::Bool(true))).collect();
            members.insert(word.to_owned(), Value::Object(open));
        }
    }
    Value::Object(members)
}

/// A name as RFC 6901 writes it.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests;
