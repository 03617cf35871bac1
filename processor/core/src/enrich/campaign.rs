//! The campaign that brought the visitor: `context.campaign`, else the `utm_*` parameters of the page's address.
//!
//! **Invariant:** values are bounded, and a broken address gives no campaign instead of an error.

use schemas::json::Member;
use serde::{Deserialize, Serialize};

use crate::codec::wire;
use crate::fields::{Fields, children, cut};

/// Longest value kept, in bytes.
const MAX_VALUE_BYTES: usize = 128;
/// Longest address that is looked at, in bytes.
const MAX_URL_BYTES: usize = 8 << 10;

/// A campaign by the five usual names.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Campaign {
    /// `utm_source`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `utm_medium`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
    /// `utm_campaign`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `utm_term`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
    /// `utm_content`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

wire!(Campaign { source, medium, name, term, content });

impl Campaign {
    fn set(&mut self, name: &str, value: &str) {
        let place = match name {
            "source" => &mut self.source,
            "medium" => &mut self.medium,
            "name" | "campaign" => &mut self.name,
            "term" => &mut self.term,
            "content" => &mut self.content,
            _ => return,
        };
        if place.is_none() && !value.is_empty() {
            *place = Some(cut(value, MAX_VALUE_BYTES).to_owned());
        }
    }

    fn named(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

/// The campaign that the event names.
pub fn of(fields: &Fields<'_>) -> Option<Campaign> {
    let declared = fields.context("campaign").and_then(declared);
    declared.or_else(|| {
        let page = fields.context("page").map(children).unwrap_or_default();
        let url = fields.meta("url").or_else(|| page.iter().find(|member| member.name == "url"))?.text()?;
        from_url(&url)
    })
}

fn declared(object: &Member<'_>) -> Option<Campaign> {
    let mut campaign = Campaign::default();
    for member in children(object) {
        if let Some(value) = member.text() {
            campaign.set(&member.name, &value);
        }
    }
    campaign.named()
}

fn from_url(url: &str) -> Option<Campaign> {
    let (_, query) = cut(url, MAX_URL_BYTES).split_once('?')?;
    let query = query.split('#').next().unwrap_or("");
    let mut campaign = Campaign::default();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if let Some(name) = name.strip_prefix("utm_") {
            campaign.set(name, &decoded(value));
        }
    }
    campaign.named()
}

/// Percent-decoding as in forms; what is no escape stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = |at: usize| {
            tail.get(at).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok())
        };
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high * 16 + low);
                rest = tail.get(2..).unwrap_or(&[]);
            }
            (b'+', ..) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utm_parameters_are_read_and_bounded() {
        let campaign =
            from_url("https://shop/?x=1&utm_source=news%20letter&utm_campaign=a+b&utm_medium=#utm_term=no");
        let right =
            Campaign { source: Some("news letter".into()), name: Some("a b".into()), ..Campaign::default() };
        assert_eq!(campaign, Some(right));
        assert_eq!(from_url("https://shop/?utm_source=%zz%").and_then(|c| c.source).as_deref(), Some("%zz%"));
        assert_eq!(from_url("https://shop/"), None);
        let long = from_url(&format!("/?utm_source={}", "x".repeat(500)));
        assert_eq!(long.and_then(|c| c.source).map(|s| s.len()), Some(MAX_VALUE_BYTES));
    }
}
