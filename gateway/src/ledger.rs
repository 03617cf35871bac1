//! What came in and what became of it, per source.
//!
//! **Invariant:** `received = delivered + duplicate + quarantined + rejected + discarded + in_flight`, always, per source. An event
//! that the log could not take now (`retry`) is `discarded`: the sender was told, and its next attempt is received anew. An event
//! that a client says it has dropped is received, by that report, and `discarded`. So is one that a kill rule or the
//! person's objection drops.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use schemas::id::SourceName;
use schemas::verdict::{Code, Status, Verdict};

use crate::telemetry::{Metrics, Outcome};

/// Counts of every source.
#[derive(Debug)]
pub struct Ledger {
    metrics: Metrics,
    sources: Mutex<BTreeMap<String, Arc<Account>>>,
}

/// Counts of one source: handles of the metrics, so that there is one truth.
#[derive(Debug)]
struct Account {
    received: crate::telemetry::Counter,
    in_flight: crate::telemetry::Gauge,
    outcomes: [crate::telemetry::Counter; Outcome::ALL.len()],
}

/// A source's counts at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Events that came in.
    pub received: u64,
    /// On the log.
    pub delivered: u64,
    /// Were on the log already.
    pub duplicate: u64,
    /// Kept aside.
    pub quarantined: u64,
    /// Refused.
    pub rejected: u64,
    /// Not taken, told so; or dropped by the client, which told us so.
    pub discarded: u64,
    /// Not yet answered.
    pub in_flight: u64,
}

/// Events received whose outcome is not known yet. Dropped without one, they count as discarded.
#[derive(Debug)]
pub(crate) struct Entry {
    account: Arc<Account>,
    open: usize,
}

impl Ledger {
    /// An empty ledger that shows its counts in `metrics`.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self { metrics: metrics.clone(), sources: Mutex::default() }
    }

    /// Books `events` received from a source.
    pub(crate) fn receive(&self, source: &SourceName, events: usize) -> Entry {
        let account = self.account(source.as_str());
        account.received.inc_by(events as u64);
        account.in_flight.inc_by(i64::try_from(events).unwrap_or(i64::MAX));
        Entry { account, open: events }
    }

    /// Books events that never came: their client says that it dropped them.
    pub(crate) fn discarded_by_client(&self, source: &SourceName, events: u64) {
        let account = self.account(source.as_str());
        account.received.inc_by(events);
        if let Some(discarded) = account.outcomes.get(Outcome::Discarded as usize) {
            discarded.inc_by(events);
        }
    }

    /// The counts of a source.
    pub fn totals(&self, source: &str) -> Totals {
        let account = self.account(source);
        let [delivered, duplicate, quarantined, rejected, discarded] =
            account.outcomes.each_ref().map(crate::telemetry::Counter::get);
        let in_flight = u64::try_from(account.in_flight.get()).unwrap_or(0);
        Totals {
            received: account.received.get(),
            delivered,
            duplicate,
            quarantined,
            rejected,
            discarded,
            in_flight,
        }
    }

    fn account(&self, source: &str) -> Arc<Account> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = sources.get(source) {
            return Arc::clone(account);
        }
        let account = Arc::new(Account {
            received: self.metrics.received(source),
            in_flight: self.metrics.in_flight(source),
            outcomes: Outcome::ALL.map(|outcome| self.metrics.outcome(source, outcome)),
        });
        sources.insert(source.to_owned(), Arc::clone(&account));
        account
    }
}

impl Entry {
    /// Books the outcomes.
    pub(crate) fn settle(mut self, verdicts: &[Verdict]) {
        let mut counts = [0_u64; Outcome::ALL.len()];
        for verdict in verdicts {
            if let Some(count) = counts.get_mut(outcome(verdict) as usize) {
                *count += 1;
            }
        }
        for (counter, count) in self.account.outcomes.iter().zip(counts) {
            if count > 0 {
                counter.inc_by(count);
            }
        }
        self.close(verdicts.len());
    }

    fn close(&mut self, events: usize) {
        self.account.in_flight.dec_by(i64::try_from(events).unwrap_or(i64::MAX));
        self.open = self.open.saturating_sub(events);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.open > 0 {
            if let Some(discarded) = self.account.outcomes.get(Outcome::Discarded as usize) {
                discarded.inc_by(self.open as u64);
            }
            self.close(self.open);
        }
    }
}

fn outcome(verdict: &Verdict) -> Outcome {
    match verdict.status {
        Status::Rejected if is_discarded(verdict) => Outcome::Discarded,
        Status::Accepted => Outcome::Delivered,
        Status::Duplicate => Outcome::Duplicate,
        Status::Quarantined => Outcome::Quarantined,
        Status::Rejected => Outcome::Rejected,
        Status::Retry => Outcome::Discarded,
    }
}

/// Refused although nothing was wrong with it: an operator or the person wanted it dropped.
fn is_discarded(verdict: &Verdict) -> bool {
    verdict
        .reason
        .as_ref()
        .is_some_and(|reason| matches!(reason.code, Code::EventKilled | Code::EventNoConsent))
}

impl Totals {
    /// Whether the counts add up.
    pub fn balances(&self) -> bool {
        self.received
            == self.delivered
                + self.duplicate
                + self.quarantined
                + self.rejected
                + self.discarded
                + self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn verdict(status: Status) -> Verdict {
        Verdict { event_id: None, status, acked: None, reason: None, warnings: Vec::new() }
    }

    #[test]
    fn every_received_event_ends_in_exactly_one_outcome() {
        let ledger = Ledger::new(&Metrics::new(&testing::log()));
        let web = SourceName::new("web");
        let entry = ledger.receive(&web, 5);
        assert!(ledger.totals("web").balances());
        assert_eq!(ledger.totals("web").in_flight, 5);
        let statuses =
            [Status::Accepted, Status::Duplicate, Status::Quarantined, Status::Rejected, Status::Retry];
        entry.settle(&statuses.map(verdict));
        let right = Totals {
            received: 5,
            delivered: 1,
            duplicate: 1,
            quarantined: 1,
            rejected: 1,
            discarded: 1,
            in_flight: 0,
        };
        assert_eq!(ledger.totals("web"), right);
        drop(ledger.receive(&web, 2));
        assert_eq!(ledger.totals("web").discarded, 3);
        ledger.discarded_by_client(&web, 40);
        assert_eq!((ledger.totals("web").discarded, ledger.totals("web").received), (43, 47));
        assert!(ledger.totals("web").balances());
    }
}
