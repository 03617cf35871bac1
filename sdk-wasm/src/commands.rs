//! The commands of one step, written as the text that crosses to the host: one letter, then fields, U+001F between them, and
//! U+001E between commands.
//!
//! **Invariant:** no field holds a separator: JSON has no raw control characters, and texts with them are refused on the way in.

use alloc::string::String;

use schemas::wire::push_number;

use crate::input::{Channel, Command, Delivery, Millis};
use crate::packed::{FIELD, cut, number, whole};

const COMMAND: u8 = 0x1e;

/// The commands of one step, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Commands(String);

impl Commands {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, taken out.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Reads the commands back.
    pub fn iter(&self) -> impl Iterator<Item = Command<'_>> {
        let mut rest = Some(self.0.as_str()).filter(|text| !text.is_empty());
        core::iter::from_fn(move || {
            let text = rest?;
            let (command, after) = match cut(text, COMMAND) {
                Some((command, after)) => (command, Some(after)),
                None => (text, None),
            };
            rest = after;
            read(command)
        })
    }

    /// Begins a command; its fields follow by [`Self::field`].
    pub(crate) fn begin(&mut self, op: &str) -> &mut Self {
        if !self.0.is_empty() {
            self.0.push_str("\u{1e}");
        }
        self.0.push_str(op);
        self
    }

    /// The next field of the command begun; what is written to the text is its content.
    pub(crate) fn field(&mut self) -> &mut String {
        self.0.push_str("\u{1f}");
        &mut self.0
    }

    pub(crate) fn put(&mut self, key: &str) -> &mut String {
        self.begin("P").field().push_str(key);
        self.field()
    }

    pub(crate) fn del(&mut self, key: &str) {
        self.begin("D").field().push_str(key);
    }

    /// Writes under a key made of a letter and an id.
    pub(crate) fn put_of(&mut self, kind: &str, id: &str) -> &mut String {
        self.begin("P").key_of(kind, id);
        self.field()
    }

    pub(crate) fn del_of(&mut self, kind: &str, id: &str) {
        self.begin("D").key_of(kind, id);
    }

    fn key_of(&mut self, kind: &str, id: &str) {
        let field = self.field();
        field.push_str(kind);
        field.push_str(id);
    }

    pub(crate) fn send_http(&mut self, request: u32, channel: Channel) -> &mut String {
        push_number(self.begin("H").field(), f64::from(request));
        self.field().push_str(if channel == Channel::Parting { "1" } else { "0" });
        self.field()
    }

    pub(crate) fn set_timer(&mut self, millis: Millis) {
        push_number(self.begin("T").field(), millis);
    }

    pub(crate) fn deliver(&mut self, kind: Delivery) -> &mut String {
        self.begin("V").field().push_str(word(kind));
        self.field()
    }
}

/// The page's names of deliveries.
const fn word(kind: Delivery) -> &'static str {
    match kind {
        Delivery::Verdict => "verdict",
        Delivery::Decision => "decision",
        Delivery::Queue => "queue",
        Delivery::State => "state",
        Delivery::Error => "error",
    }
}

fn read(text: &str) -> Option<Command<'_>> {
    let (op, rest) = cut(text, FIELD).unwrap_or((text, ""));
    Some(match op {
        "P" => cut(rest, FIELD).map(|(key, value)| Command::Put { key, value })?,
        "D" => Command::Del { key: rest },
        "Z" => Command::Purge,
        "O" => Command::OpenSocket,
        "S" => Command::SendSocket(rest),
        "X" => Command::CloseSocket,
        "H" => {
            let (request, rest) = cut(rest, FIELD)?;
            let (channel, body) = cut(rest, FIELD)?;
            let channel = if channel == "1" { Channel::Parting } else { Channel::Live };
            Command::SendHttp { request: whole(number(request)), channel, body }
        }
        "T" => Command::SetTimer(number(rest)),
        "V" => {
            let (name, json) = cut(rest, FIELD)?;
            let kinds =
                [Delivery::Verdict, Delivery::Decision, Delivery::Queue, Delivery::State, Delivery::Error];
            Command::Deliver(kinds.into_iter().find(|kind| word(*kind) == name)?, json)
        }
        _ => return None,
    })
}
