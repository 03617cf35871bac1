//! A profile as people and topics see it: attributes with JSON values.
//!
//! **Invariant:** numbers and traits are written digit by digit as they are kept; nothing passes through a double but the score.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Profile, json_time};
use crate::output::Change;

/// Room that most objects fit into.
const USUAL_BYTES: usize = 256;

/// Writes a JSON object from names and ready JSON, into one buffer.
#[derive(Debug)]
pub struct ObjectWriter(Vec<u8>);

impl Default for ObjectWriter {
    fn default() -> Self {
        Self::with_room(USUAL_BYTES)
    }
}

impl ObjectWriter {
    /// One with room for so many bytes.
    pub fn with_room(bytes: usize) -> Self {
        let mut object = Vec::with_capacity(bytes);
        object.push(b'{');
        Self(object)
    }

    /// Adds a member that is a text; most texts need no escapes.
    #[must_use]
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.name(name);
        self.string(text);
        self
    }

    /// Adds a member whose value is JSON already.
    #[must_use]
    pub fn raw(mut self, name: &str, json: &str) -> Self {
        self.name(name);
        self.0.extend_from_slice(json.as_bytes());
        self
    }

    /// Adds a member.
    #[must_use]
    pub fn value<T: Serialize + ?Sized>(mut self, name: &str, value: &T) -> Self {
        self.name(name);
        self.json(value);
        self
    }

    /// Adds a member that is a list of objects.
    #[must_use]
    pub fn objects<T>(
        mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        members: impl Fn(Self, T) -> Self,
    ) -> Self {
        self.name(name);
        self.0.push(b'[');
        for (n, item) in items.into_iter().enumerate() {
            self.0.extend_from_slice(if n == 0 { b"{" } else { b",{" });
            self = members(self, item);
            self.0.push(b'}');
        }
        self.0.push(b']');
        self
    }

    /// The object.
    pub fn end(mut self) -> String {
        self.0.push(b'}');
        // Everything in it came from texts and from `serde_json`.
        String::from_utf8(self.0).unwrap_or_default()
    }

    fn name(&mut self, name: &str) {
        if self.0.last() != Some(&b'{') {
            self.0.push(b',');
        }
        self.string(name);
        self.0.push(b':');
    }

    fn string(&mut self, text: &str) {
        if !schemas::json::is_plain(text) {
            return self.json(text);
        }
        self.0.push(b'"');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
    }

    fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        let start = self.0.len();
        if serde_json::to_writer(&mut self.0, value).is_err() {
            self.0.truncate(start);
            self.0.extend_from_slice(b"null");
        }
    }
}

/// The JSON of a value of ours; types of this crate cannot fail to serialise.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

impl Profile {
    /// The profile as `GET /v1/profiles/{id}` gives it; `as_of` is JSON.
    pub fn to_view(&self, as_of: &str) -> String {
        let object = |pairs: &mut dyn Iterator<Item = (String, String)>| {
            pairs.fold(ObjectWriter::default(), |object, (name, json)| object.raw(&name, &json)).end()
        };
        let owned = |(name, json): (&str, &str)| (name.to_owned(), json.to_owned());
        let counted = |(name, n): (&str, u64)| (name.to_owned(), n.to_string());
        let null = || "null".to_owned();
        let mut view = ObjectWriter::default()
            .value("profile", &self.key)
            .raw("as_of", as_of)
            .raw("traits", &object(&mut self.traits.iter().map(owned)))
            .raw("last", &object(&mut self.last_values.iter().map(owned)))
            .raw("counters", &object(&mut self.counters.iter().map(counted)))
            .raw("categories", &object(&mut self.categories.iter().map(counted)))
            .raw("sums", &object(&mut self.sums.iter().map(|(name, sum)| (name.clone(), sum.to_string()))))
            .raw("first_seen", &json_time(self.first_seen).unwrap_or_else(null))
            .raw("last_seen", &json_time(self.last_seen).unwrap_or_else(null))
            .value("session", &self.sessions.current())
            .value("score", &self.score)
            .value("devices", &self.devices.keys().collect::<Vec<_>>())
            .value("decisions", &self.decisions)
            .value("user_agent", &self.user_agent.as_ref().map(|dated| &dated.value))
            .raw("campaign", &self.campaign_view());
        if let Some(redirect) = &self.redirect {
            view = view.value("redirect", redirect);
        }
        view.end()
    }

    fn campaign_view(&self) -> String {
        ObjectWriter::default()
            .value("first", &self.campaign_first.as_ref().map(|dated| &dated.value))
            .value("last", &self.campaign_last.as_ref().map(|dated| &dated.value))
            .end()
    }

    /// Every attribute by its name in changes, with its JSON.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut put = |name: String, json: Option<String>| json.map(|json| all.insert(name, json));
        self.traits
            .iter()
            .for_each(|(name, json)| drop(put(format!("traits.{name}"), Some(json.to_owned()))));
        self.last_values
            .iter()
            .for_each(|(name, json)| drop(put(format!("last.{name}"), Some(json.to_owned()))));
        self.counters.iter().for_each(|(name, n)| drop(put(format!("counters.{name}"), Some(n.to_string()))));
        self.categories
            .iter()
            .for_each(|(name, n)| drop(put(format!("categories.{name}"), Some(n.to_string()))));
        self.sums.iter().for_each(|(name, sum)| drop(put(format!("sums.{name}"), Some(sum.to_string()))));
        self.devices.iter().for_each(|(name, at)| drop(put(format!("devices.{name}"), json_time(Some(*at)))));
        put("first_seen".to_owned(), json_time(self.first_seen));
        put("last_seen".to_owned(), json_time(self.last_seen));
        put("session".to_owned(), self.sessions.current().map(crate::session::Session::attribute));
        put("score".to_owned(), self.score.map(|score| to_json(&score)));
        put("user_agent".to_owned(), self.user_agent.as_ref().map(|dated| to_json(&dated.value)));
        put("campaign.first".to_owned(), self.campaign_first.as_ref().map(|dated| to_json(&dated.value)));
        put("campaign.last".to_owned(), self.campaign_last.as_ref().map(|dated| to_json(&dated.value)));
        put("redirect".to_owned(), self.redirect.as_ref().map(to_json));
        all
    }
}

/// What changed between two sets of attributes, by name.
pub fn difference(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Change> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let change = |name: &String| Change {
        name: name.clone(),
        old: old.get(name).cloned(),
        new: new.get(name).cloned(),
    };
    names.into_iter().map(change).filter(|change| change.old != change.new).collect()
}
