//! What was dropped knowingly, until the server has counted it.
//!
//! A report is a key in storage, as an event is: the id of the first event that was lost so, the reason, and how many since. It
//! travels with each batch until one is answered; the server counts an id's highest number once.
//!
//! **Invariant:** a report leaves when a batch that carried its present number was answered.

use alloc::string::String;
use alloc::vec::Vec;

use schemas::wire::{push_discarded, push_number};

use crate::commands::Commands;
use crate::packed::{cut, number, whole};
use crate::queue::Flight;

/// Most reports of other tabs and earlier pages that are carried at once; the rest stays in storage until there is room.
const REPORTS: usize = 16;

/// Why an event was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// The queue was full.
    Full,
    /// No verdict for 7 days.
    Expired,
    /// Larger than the server takes.
    TooLarge,
}

impl Why {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Full => "queue.full",
            Self::Expired => "event.expired",
            Self::TooLarge => "event.too_large",
        }
    }

    const fn letter(self) -> &'static str {
        match self {
            Self::Full => "f",
            Self::Expired => "x",
            Self::TooLarge => "l",
        }
    }
}

#[derive(Clone, Debug)]
struct Report {
    id: String,
    why: Why,
    events: u32,
    /// The number that is on its way.
    sent: u32,
    flight: Flight,
    /// Counted by this tab; another tab's number is its own to change.
    own: bool,
}

/// All reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses(Vec<Report>);

impl Losses {
    /// One more event was lost.
    pub(crate) fn count(&mut self, id: &str, why: Why, store: bool, out: &mut Commands) {
        let at = self.0.iter().position(|report| report.own && report.why == why);
        let at = at.unwrap_or(self.0.len());
        if at == self.0.len() {
            let flight = Flight::Here;
            self.0.push(Report { id: id.into(), why, events: 0, sent: 0, flight, own: true });
        }
        if let Some(report) = self.0.get_mut(at) {
            report.events += 1;
            if store {
                put(report, out);
            }
        }
    }

    pub(crate) fn put_all(&self, out: &mut Commands) {
        for report in &self.0 {
            put(report, out);
        }
    }

    /// Found in storage, or written there by another tab.
    pub(crate) fn restored(&mut self, id: &str, value: &str) {
        let Some((letter, events)) = cut(value, b' ') else { return };
        let whys = [Why::Full, Why::Expired, Why::TooLarge];
        let Some(why) = whys.into_iter().find(|why| why.letter() == letter) else { return };
        let events = whole(number(events));
        if let Some(report) = self.0.iter_mut().find(|report| report.id == id) {
            report.events = report.events.max(events);
        } else if self.0.len() < REPORTS {
            let flight = Flight::Here;
            self.0.push(Report { id: id.into(), why, events, sent: 0, flight, own: false });
        }
    }

    /// Another tab has told it, or removed it for another reason.
    pub(crate) fn removed(&mut self, id: &str) {
        self.0.retain(|report| report.id != id);
    }

    /// Writes what is not on its way yet into the batch of this flight.
    pub(crate) fn send(&mut self, flight: Flight, body: &mut String) {
        let mut first = true;
        for report in &mut self.0 {
            if report.flight == Flight::Here {
                report.flight = flight;
                report.sent = report.events;
                push_discarded(body, first, &report.id, report.why.code(), report.events);
                first = false;
            }
        }
        if !first {
            body.push_str("]");
        }
    }

    /// The batch of this flight was answered, or is lost.
    pub(crate) fn landed(&mut self, flight: Flight, answered: bool, out: &mut Commands) {
        self.0.retain_mut(|report| {
            if report.flight != flight {
                return true;
            }
            report.flight = Flight::Here;
            let done = answered && report.sent == report.events;
            if done {
                out.del_of("d:", &report.id);
            }
            !done
        });
    }
}

fn put(report: &Report, out: &mut Commands) {
    let value = out.put_of("d:", &report.id);
    value.push_str(report.why.letter());
    value.push_str(" ");
    push_number(value, f64::from(report.events));
}
