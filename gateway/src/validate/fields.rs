//! The members at the top of an event, found once.
//!
//! **Invariant:** a member is what the strict scanner has found; what is said about a fault never repeats what was sent.

use std::borrow::Cow;

use schemas::event::KNOWN_MEMBERS;
use schemas::json::{Kind, Member, Scanned};
use schemas::verdict::{Code, Reason};

use super::{Checks, Findings, MAX_ATTRIBUTE_BYTES, WARN_UNKNOWN_FIELD};

/// The members at the top of an event.
pub(super) struct Fields<'e> {
    /// Those of [`KNOWN_MEMBERS`], in that order.
    known: [Option<Member<'e>>; KNOWN_MEMBERS.len()],
    /// Whether there are others: most events have none.
    has_unknown: bool,
    pub(super) metadata: Option<Scanned<'e>>,
    event: Scanned<'e>,
}

impl<'e> Fields<'e> {
    pub(super) fn of(event: Scanned<'e>) -> Self {
        let known = [const { None }; KNOWN_MEMBERS.len()];
        let mut fields = Self { known, has_unknown: false, metadata: None, event };
        for child in event.children() {
            let member = child.member();
            if member.name == "metadata" {
                fields.metadata = Some(child);
            }
            let place = place_of(&member.name).and_then(|place| fields.known.get_mut(place));
            match place {
                Some(place) => *place = Some(member),
                None => fields.has_unknown = true,
            }
        }
        fields
    }

    /// A member that is there and not `null`.
    pub(super) fn get(&self, name: &str) -> Option<&Member<'e>> {
        self.known.get(place_of(name)?)?.as_ref().filter(|member| member.kind != Kind::Null)
    }

    /// Names that the contract does not know.
    pub(super) fn unknown(&self) -> impl Iterator<Item = Cow<'e, str>> {
        let children = self.has_unknown.then(|| self.event.children()).into_iter().flatten();
        children.map(|child| child.name()).filter(|name| place_of(name).is_none())
    }

    /// Members that readers of the log take for objects or text must be that.
    pub(super) fn check_kinds(&self) -> Checks<()> {
        for name in ["metadata", "context", "consent"] {
            if self.get(name).is_some_and(|member| member.kind != Kind::Object) {
                return Err(invalid(name, "an object").into());
            }
        }
        if let Some(member) = self.get("session_id") {
            let id = member.str().filter(|id| id.len() <= MAX_ATTRIBUTE_BYTES);
            let id = id.ok_or_else(|| invalid("session_id", "a string of at most 512 bytes"))?;
            no_control_characters("session_id", &id)?;
        }
        Ok(())
    }

    pub(super) fn pinned_schema(&self) -> Checks<Option<String>> {
        let Some(member) = self.get("schema") else { return Ok(None) };
        match member.kind {
            Kind::String => Ok(member.text()),
            Kind::Number => Ok(String::from_utf8(member.value.to_vec()).ok()),
            _ => Err(invalid("schema", "`type@version`, or a version").into()),
        }
    }

    pub(super) fn warn_of_unknown(&self, findings: &mut Findings) {
        for name in self.unknown() {
            findings.warn(WARN_UNKNOWN_FIELD, &pointer_to(&name));
        }
    }
}

/// Where [`KNOWN_MEMBERS`] has the name.
fn place_of(name: &str) -> Option<usize> {
    KNOWN_MEMBERS.iter().position(|known| *known == name)
}

/// A name as RFC 6901 writes it.
fn pointer_to(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

pub(super) fn invalid(name: &str, expected: &str) -> Reason {
    Reason::new(Code::EventFieldInvalid).at(format!("/{name}")).expecting(expected)
}

pub(super) fn missing(name: &str, expected: &str) -> Reason {
    Reason::new(Code::EventFieldMissing).at(format!("/{name}")).expecting(expected)
}

pub(super) fn no_control_characters(name: &str, text: &str) -> Checks<()> {
    if text.contains(char::is_control) {
        let reason = Reason::new(Code::JsonControlCharacter).at(format!("/{name}"));
        return Err(Box::new(reason.expecting("no control characters")));
    }
    Ok(())
}
