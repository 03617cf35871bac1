//! Whether a person wants to be known: Global Privacy Control, Do Not Track and the purposes granted, by the key's policy.
//!
//! **Invariant:** decided before anything of an event is kept; an event whose consent cannot be read counts as one without. Of what is
//! dropped nothing is kept; of what is anonymised neither who it is about, nor the device, nor the page.

use http::HeaderMap;
use schemas::id::{EventId, NO_PROFILE_PREFIX, ProfileKey, ProfileKind};
use schemas::json::{self, Limits, Member};
use schemas::verdict::{Code, Reason};

use crate::config::{Objection, PrivacyConfig};

/// Members of an event that say nothing of a person, as far as nobody marked them; its id is written anew.
const IMPERSONAL: [&str; 5] = ["event_type", "timestamp", "metadata", "consent", "schema"];
/// Members that do, and are named in the receipt when they are gone. Others may be named after somebody.
const PERSONAL: [&str; 4] = ["user_id", "anonymous_id", "session_id", "context"];

/// What a browser says in headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Signals {
    gpc: bool,
    dnt: bool,
}

/// Why an event is not kept as it came, and what is done instead.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Objected {
    pub(crate) cause: Cause,
    pub(crate) drops: bool,
}

/// By what somebody objects.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Cause {
    Gpc,
    Dnt,
    Consent,
}

impl Cause {
    /// The word for verdicts and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Gpc => "gpc",
            Self::Dnt => "dnt",
            Self::Consent => "consent",
        }
    }
}

impl Signals {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let says = |name| headers.get_all(name).iter().any(|value| value.as_bytes().trim_ascii() == b"1");
        Self { gpc: says("sec-gpc"), dnt: says("dnt") }
    }
}

impl Objected {
    /// By a key's policy; the strictest of what applies. `consent` is the event's member of that name.
    pub(crate) fn by(policy: &PrivacyConfig, signals: Signals, consent: Option<&Member<'_>>) -> Option<Self> {
        let required = policy.consent.as_ref().filter(|required| !grants_all(consent, &required.require));
        let causes = [
            (Cause::Gpc, signals.gpc.then_some(policy.gpc)),
            (Cause::Dnt, signals.dnt.then_some(policy.dnt)),
            (Cause::Consent, required.map(|required| required.otherwise)),
        ];
        let objections = causes.into_iter().filter_map(|(cause, action)| match action? {
            Objection::Ignore => None,
            Objection::Anonymise => Some(Self { cause, drops: false }),
            Objection::Drop => Some(Self { cause, drops: true }),
        });
        let mut strictest = None;
        for objected in objections {
            if strictest.is_none_or(|found: Self| objected.drops && !found.drops) {
                strictest = Some(objected);
            }
        }
        strictest
    }

    pub(crate) fn reason(self) -> Reason {
        let mut reason = Reason::new(Code::EventNoConsent)
            .expecting("nothing of you: who this is about does not want to be measured; it is not kept");
        reason.keyword = Some(self.cause.as_str().to_owned());
        reason
    }
}

/// Whether each purpose is there with `true`.
fn grants_all(consent: Option<&Member<'_>>, purposes: &[String]) -> bool {
    let Some(consent) = consent else { return purposes.is_empty() };
    let Ok(members) = json::object(consent.value, Limits { max_depth: json::DEEPEST }) else { return false };
    purposes.iter().all(|purpose| {
        members.iter().any(|member| member.name == purpose.as_str() && member.value == b"true")
    })
}

/// About whom an anonymised event is: nobody of whom a profile is kept.
pub(crate) fn nobody(event_id: EventId) -> ProfileKey {
    ProfileKey { kind: ProfileKind::Anonymous, id: format!("{NO_PROFILE_PREFIX}{event_id}") }
}

/// What is left of an event without the person, and which members are gone. Values keep their bytes. `None` if it cannot be read.
pub(crate) fn anonymise(
    event: &[u8],
    event_id: Option<EventId>,
    limits: Limits,
) -> Option<(Vec<u8>, Vec<String>)> {
    let members = json::object(event, limits).ok()?;
    let mut text = Vec::with_capacity(event.len());
    let mut separator = b'{';
    let mut write = |name: &str, value: &[u8]| {
        text.push(separator);
        separator = b',';
        text.extend_from_slice(format!("\"{name}\":").as_bytes());
        text.extend_from_slice(value);
    };
    if let Some(id) = event_id {
        write("event_id", format!("\"{id}\"").as_bytes());
        write("anonymous_id", format!("\"{}\"", nobody(id).id).as_bytes());
    }
    let mut gone = Vec::new();
    for member in &members {
        if let Some(name) = IMPERSONAL.iter().find(|name| member.name == **name) {
            write(name, member.value);
        } else if let Some(name) = PERSONAL.iter().find(|name| member.name == **name) {
            gone.push(format!("/{name}"));
        }
    }
    if separator == b'{' {
        text.push(b'{');
    }
    text.push(b'}');
    Some((text, gone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConsentConfig;

    fn policy(gpc: Objection, dnt: Objection, require: &[&str], otherwise: Objection) -> PrivacyConfig {
        let require: Vec<String> = require.iter().map(|purpose| (*purpose).to_owned()).collect();
        let consent = (!require.is_empty()).then_some(ConsentConfig { require, otherwise });
        PrivacyConfig { gpc, dnt, consent }
    }

    fn told(policy: &PrivacyConfig, signals: (bool, bool), event: &str) -> Option<(&'static str, bool)> {
        let members = json::object(event.as_bytes(), Limits { max_depth: 9 }).unwrap();
        let consent = members.iter().find(|member| member.name == "consent");
        let signals = Signals { gpc: signals.0, dnt: signals.1 };
        Objected::by(policy, signals, consent).map(|objected| (objected.cause.as_str(), objected.drops))
    }

    #[test]
    fn the_strictest_of_what_applies_decides() {
        let all = policy(Objection::Anonymise, Objection::Drop, &["analytics", "ads"], Objection::Anonymise);
        let granted = r#"{"consent":{"analytics":true,"ads":true,"other":false}}"#;
        assert_eq!(told(&all, (false, false), granted), None);
        assert_eq!(told(&all, (true, false), granted), Some(("gpc", false)));
        assert_eq!(told(&all, (true, true), granted), Some(("dnt", true)));
        for refused in [
            r#"{"consent":{"analytics":true,"ads":false}}"#,
            r#"{"consent":{"analytics":true}}"#,
            "{}",
            r#"{"consent":"yes"}"#,
        ] {
            assert_eq!(told(&all, (false, false), refused), Some(("consent", false)), "{refused}");
        }
        assert_eq!(told(&PrivacyConfig::default(), (true, true), "{}"), None, "nobody asked for it");
    }

    #[test]
    fn what_is_left_has_the_digits_of_the_rest_and_nobody() {
        let id = EventId::parse("123e4567-e89b-12d3-a456-426614174000").unwrap();
        let event = br#"{ "event_id":"mine-7","user_id":"ada","x":"ada", "metadata" : {"n":1.50}, "context":{"ip":"::1"},"event_type":"x" }"#;
        let limits = Limits { max_depth: 9 };
        let (left, gone) = anonymise(event, Some(id), limits).unwrap();
        assert_eq!(
            String::from_utf8(left.clone()).unwrap(),
            r#"{"event_id":"123e4567-e89b-12d3-a456-426614174000","anonymous_id":"none:123e4567-e89b-12d3-a456-426614174000","metadata":{"n":1.50},"event_type":"x"}"#
        );
        assert_eq!(gone, ["/user_id", "/context"]);
        assert_eq!(anonymise(&left, Some(id), limits).unwrap().0, left, "twice is once");
        assert!(anonymise(b"[1]", None, limits).is_none());
        assert_eq!(anonymise(b"{\"user_id\":1}", None, limits).unwrap().0, b"{}");
    }
}
