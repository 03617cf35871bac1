//! What a record of `rivulet.events` is: an event, a control record, or neither.
//!
//! **Invariant:** any bytes get an answer; what is neither is poison, with a reason that holds nothing of its content.

use broker::log::Record;
use schemas::event::{LoggedEvent, RESERVED_TYPE_PREFIX};
use schemas::id::{NO_PROFILE_PREFIX, ProfileKey};
use schemas::json::Limits;
use schemas::verdict::{Code, Reason};

use crate::control::{ControlKey, Read};

/// A record understood.
#[derive(Debug)]
pub(crate) enum Decoded<'a> {
    /// An event; without a profile if it names nobody by intent.
    Event(Box<LoggedEvent<'a>>, Option<ProfileKey>),
    /// A control record of ours.
    Control(Read),
    /// Neither.
    Poison(Reason),
}

/// Understands a record.
pub(crate) fn decode<'a>(record: &'a Record, key: &ControlKey) -> Decoded<'a> {
    let poison = |code: Code, expected: &str| Decoded::Poison(Reason::new(code).expecting(expected));
    if record.value.is_empty() {
        return poison(Code::EventNotObject, "a record with a value");
    }
    let event = match LoggedEvent::read(&record.value, Limits::default()) {
        Ok(event) => event,
        Err(error) => {
            let reason = Reason::new(error.code).at(error.pointer);
            return Decoded::Poison(reason.expecting("an event with the gateway's receipt"));
        }
    };
    if event.event_type.as_str().starts_with(RESERVED_TYPE_PREFIX) {
        return match key.read(&record.value) {
            Ok(read) if record_is_for(record, &read) => Decoded::Control(read),
            Ok(_) => poison(Code::EventTypeReserved, "a control record under its subject's key"),
            Err(forged) => poison(Code::EventTypeReserved, &forged.to_string()),
        };
    }
    let Some(profile) = event.profile_key() else {
        return poison(Code::IdentityMissing, "user_id or anonymous_id");
    };
    if record.key.as_ref() != profile.record_key().as_bytes() {
        return poison(
            Code::EventFieldInvalid,
            "a record key that is the event's user_id, else its anonymous_id",
        );
    }
    let kept = event.user_id.is_some() || !profile.id.starts_with(NO_PROFILE_PREFIX);
    Decoded::Event(Box::new(event), kept.then_some(profile))
}

fn record_is_for(record: &Record, read: &Read) -> bool {
    read.control.subject().is_none_or(|subject| subject.record_key().as_bytes() == record.key.as_ref())
}
