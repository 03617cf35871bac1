//! How far the spool is published: what is under way, what is acknowledged, who waits.
//!
//! **Invariant:** a record counts as acknowledged only when every earlier one of its partition is; after a failure nothing of
//! that partition counts until the spool is read again from its acknowledged position.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use schemas::topic::{Offset, PartitionId, TopicPartition};
use tokio::sync::oneshot;

use crate::kafka::{Delivery, Failure};

/// Refused records that are remembered for waiters who come late.
const MAX_REFUSED: usize = 10_000;

/// What a waiter for `broker` is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Acknowledged; the place, when it is still known.
    Broker(Option<(PartitionId, Offset)>),
    /// The topic will never take it.
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The topic's limit.
        max: usize,
    },
}

/// What is to be done with a record of the spool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// It is acknowledged already.
    Skip,
    /// Something must be acknowledged first.
    Wait,
    /// Hand it to the client.
    Send,
    /// The broker has refused it alone in its batch.
    Refused,
}

/// A record on its way to the broker.
#[derive(Clone, Copy)]
struct Flight {
    at: TopicPartition,
    bytes: usize,
}

/// Records on their way, by offset. Nearly all of a stretch of offsets fly, so they stand in a row.
#[derive(Default)]
struct Flights {
    /// The offset of the first in the row.
    first: u64,
    row: VecDeque<Option<Flight>>,
    count: usize,
    bytes: usize,
}

/// What is known of one partition.
#[derive(Clone, Copy, Default)]
struct Lane {
    /// Records on their way.
    flights: usize,
    /// Behind the last acknowledged record.
    acknowledged: Option<u64>,
    failed: Option<(u64, Failure)>,
    /// It goes one by one until there.
    careful_until: Option<u64>,
}

/// Somebody who waits for the records of one batch.
struct Waiter {
    outcomes: Vec<Option<Outcome>>,
    open: usize,
    tell: oneshot::Sender<Vec<Option<Outcome>>>,
}

/// What a waiter gets: one outcome a record, now or later.
pub(crate) enum Waiting {
    /// All are known.
    Over(Vec<Option<Outcome>>),
    /// They will be told.
    Open(oneshot::Receiver<Vec<Option<Outcome>>>),
}

/// The state of publishing. Positions are offsets in the spool.
#[derive(Default)]
pub(crate) struct Progress {
    generation: u64,
    next: u64,
    flights: Flights,
    lanes: HashMap<TopicPartition, Lane>,
    refused_alone: HashSet<u64>,
    /// By the first offset of the batch.
    waiters: BTreeMap<u64, Waiter>,
    too_large: BTreeMap<u64, (usize, usize)>,
}

impl Progress {
    /// Begins at a stored position.
    pub(crate) fn at(low: u64, acknowledged: HashMap<TopicPartition, u64>) -> Self {
        let lane = |end| Lane { acknowledged: Some(end), ..Lane::default() };
        let lanes = acknowledged.into_iter().map(|(at, end)| (at, lane(end))).collect();
        Self { next: low, lanes, ..Self::default() }
    }

    /// Everything before this is done.
    pub(crate) fn low(&self) -> u64 {
        self.flights.lowest().map_or(self.next, |first| first.min(self.next))
    }

    /// The next record to look at.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn in_flight(&self) -> (usize, usize) {
        (self.flights.count, self.flights.bytes)
    }

    /// The acknowledged positions that lie above the low one.
    pub(crate) fn acknowledged(&self) -> Vec<(TopicPartition, u64)> {
        let low = self.low();
        let ahead =
            |(at, lane): (&TopicPartition, &Lane)| Some((*at, lane.acknowledged.filter(|end| *end > low)?));
        self.lanes.iter().filter_map(ahead).collect()
    }

    /// Forgets positions by partition, when partitions are not what they were.
    pub(crate) fn forget_partitions(&mut self) {
        self.lanes.values_mut().for_each(|lane| lane.acknowledged = None);
    }

    /// Begins anew from the lowest position that is not acknowledged, with a new client. Deliveries of the old one no longer
    /// count. Partitions that failed go one by one until they are past what was under way.
    pub(crate) fn begin(&mut self) -> u64 {
        for (at, lane) in &mut self.lanes {
            if let Some((offset, failure)) = lane.failed.take() {
                let alone = lane.careful_until.is_some() && lane.flights == 1;
                if failure == Failure::TooLarge && alone {
                    self.refused_alone.insert(offset);
                }
                let until = self.flights.last_of(*at).unwrap_or(offset) + 1;
                lane.careful_until = lane.careful_until.max(Some(until));
            }
            lane.flights = 0;
        }
        self.next = self.low();
        self.flights = Flights::default();
        self.generation += 1;
        self.generation
    }

    /// What to do with the record at `offset`, for partition `at`.
    pub(crate) fn step(&self, offset: u64, at: TopicPartition) -> Step {
        let lane = self.lanes.get(&at).copied().unwrap_or_default();
        if lane.acknowledged.is_some_and(|end| offset < end) {
            return Step::Skip;
        }
        let busy = lane.flights > 0;
        if !self.refused_alone.is_empty() && self.refused_alone.contains(&offset) {
            return if busy { Step::Wait } else { Step::Refused };
        }
        if lane.failed.is_some() || (busy && lane.careful_until.is_some()) {
            return Step::Wait;
        }
        Step::Send
    }

    /// Whether nothing of the partition is under way.
    pub(crate) fn is_idle(&self, at: TopicPartition) -> bool {
        self.lanes.get(&at).is_none_or(|lane| lane.flights == 0)
    }

    /// The record goes to the client.
    pub(crate) fn send(&mut self, offset: u64, at: TopicPartition, bytes: usize) {
        self.flights.begin(offset, Flight { at, bytes });
        self.lanes.entry(at).or_default().flights += 1;
        self.next = offset + 1;
    }

    /// The client did not take it.
    pub(crate) fn unsend(&mut self, offset: u64) {
        if let Some(flight) = self.flights.end(offset) {
            let lane = self.lanes.entry(flight.at).or_default();
            lane.flights = lane.flights.saturating_sub(1);
        }
        self.next = offset;
    }

    /// The record needs nothing more.
    pub(crate) fn skip(&mut self, offset: u64) {
        self.next = offset + 1;
        self.tell(offset, Outcome::Broker(None));
    }

    /// Records up to `start` are gone from the spool.
    pub(crate) fn skip_to(&mut self, start: u64) {
        self.next = self.next.max(start);
    }

    /// The record will never be published; nothing of its partition is under way.
    pub(crate) fn refuse(&mut self, offset: u64, at: TopicPartition, bytes: usize, max: usize) {
        self.next = offset + 1;
        self.refused_alone.remove(&offset);
        self.lanes.entry(at).or_default().acknowledge(offset);
        self.too_large.insert(offset, (bytes, max));
        if self.too_large.len() > MAX_REFUSED {
            self.too_large.pop_first();
        }
        self.tell(offset, Outcome::TooLarge { bytes, max });
    }

    /// Takes a delivery. Says whether it was a success that counts.
    pub(crate) fn deliver(&mut self, generation: u64, delivery: &Delivery) -> bool {
        let offset = delivery.ticket;
        if generation != self.generation {
            return false;
        }
        let Some(at) = self.flights.get(offset).map(|flight| flight.at) else { return false };
        let lane = self.lanes.entry(at).or_default();
        match delivery.result {
            Ok(place) => {
                if lane.failed.is_some() {
                    return false;
                }
                lane.flights = lane.flights.saturating_sub(1);
                lane.acknowledge(offset);
                self.flights.end(offset);
                self.tell(offset, Outcome::Broker(Some(place)));
                true
            }
            Err(failure) => {
                if failure.is_cause() {
                    lane.failed.get_or_insert((offset, failure));
                }
                false
            }
        }
    }

    /// Whether the record at `offset` is not known to be published.
    pub(crate) fn is_waiting(&self, offset: u64) -> bool {
        offset >= self.next || self.flights.get(offset).is_some()
    }

    /// Waits for the `count` records from `first` on, or tells what has become of them.
    pub(crate) fn wait_for(&mut self, first: u64, count: usize) -> Waiting {
        let outcomes: Vec<Option<Outcome>> =
            (first..).take(count).map(|offset| self.outcome(offset)).collect();
        let open = outcomes.iter().filter(|outcome| outcome.is_none()).count();
        if open == 0 {
            return Waiting::Over(outcomes);
        }
        let (tell, told) = oneshot::channel();
        self.waiters.insert(first, Waiter { outcomes, open, tell });
        Waiting::Open(told)
    }

    /// What has become of a record, if that is over.
    fn outcome(&self, offset: u64) -> Option<Outcome> {
        if let Some((bytes, max)) = self.too_large.get(&offset) {
            return Some(Outcome::TooLarge { bytes: *bytes, max: *max });
        }
        (!self.is_waiting(offset)).then_some(Outcome::Broker(None))
    }

    /// Nobody waits for the batch from `first` on any more. What is known of it.
    pub(crate) fn give_up(&mut self, first: u64) -> Vec<Option<Outcome>> {
        self.waiters.remove(&first).map(|waiter| waiter.outcomes).unwrap_or_default()
    }

    fn tell(&mut self, offset: u64, outcome: Outcome) {
        let Some((first, waiter)) = self.waiters.range_mut(..=offset).next_back() else { return };
        let (first, place) = (*first, usize::try_from(offset - first).unwrap_or(usize::MAX));
        let Some(place) = waiter.outcomes.get_mut(place).filter(|place| place.is_none()) else { return };
        *place = Some(outcome);
        waiter.open -= 1;
        if waiter.open == 0
            && let Some(waiter) = self.waiters.remove(&first)
        {
            let _ = waiter.tell.send(waiter.outcomes);
        }
    }
}

impl Lane {
    fn acknowledge(&mut self, offset: u64) {
        self.acknowledged = self.acknowledged.max(Some(offset + 1));
        if self.careful_until <= self.acknowledged {
            self.careful_until = None;
        }
    }
}

impl Flights {
    fn place(&self, offset: u64) -> Option<usize> {
        usize::try_from(offset.checked_sub(self.first)?).ok()
    }

    fn get(&self, offset: u64) -> Option<&Flight> {
        self.row.get(self.place(offset)?)?.as_ref()
    }

    /// The lowest offset that is on its way.
    fn lowest(&self) -> Option<u64> {
        (self.count > 0).then_some(self.first)
    }

    /// The highest offset that is on its way to this partition.
    fn last_of(&self, at: TopicPartition) -> Option<u64> {
        let place = self.row.iter().rposition(|flight| flight.is_some_and(|flight| flight.at == at))?;
        Some(self.first + place as u64)
    }

    /// Offsets come in rising order, with gaps where something was passed over.
    fn begin(&mut self, offset: u64, flight: Flight) {
        if self.row.is_empty() {
            self.first = offset;
        }
        let Some(place) = self.place(offset) else { return };
        if place >= self.row.len() {
            self.row.resize(place + 1, None);
        }
        if let Some(empty) = self.row.get_mut(place).filter(|flight| flight.is_none()) {
            *empty = Some(flight);
            self.count += 1;
            self.bytes += flight.bytes;
        }
    }

    fn end(&mut self, offset: u64) -> Option<Flight> {
        let place = self.place(offset)?;
        let flight = self.row.get_mut(place)?.take()?;
        self.count -= 1;
        self.bytes -= flight.bytes;
        while self.row.front().is_some_and(Option::is_none) {
            self.row.pop_front();
            self.first += 1;
        }
        Some(flight)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::topic::Topic;

    use super::*;

    fn at(partition: u32) -> TopicPartition {
        TopicPartition { topic: Topic::Events, partition: PartitionId(partition) }
    }

    fn ok(ticket: u64) -> Delivery {
        Delivery { ticket, result: Ok((PartitionId(0), Offset(ticket))) }
    }

    #[test]
    fn a_batch_that_is_too_large_goes_one_by_one_and_only_the_large_record_is_refused() {
        let mut progress = Progress::default();
        let mut generation = progress.begin();
        let too_large = |ticket| Delivery { ticket, result: Err(Failure::TooLarge) };
        for offset in 0..3 {
            assert_eq!(progress.step(offset, at(0)), Step::Send);
            progress.send(offset, at(0), 10);
        }
        progress.deliver(generation, &too_large(0));
        assert!(!progress.deliver(generation, &ok(1)), "behind a gap nothing counts");
        assert_eq!(progress.step(3, at(0)), Step::Wait);
        generation = progress.begin();
        assert_eq!(progress.next(), 0);
        progress.send(0, at(0), 10);
        assert_eq!(progress.step(1, at(0)), Step::Wait, "one by one");
        assert!(progress.deliver(generation, &ok(0)));
        assert_eq!(progress.step(1, at(0)), Step::Send);
        progress.send(1, at(0), 10);
        progress.deliver(generation, &too_large(1));
        generation = progress.begin();
        assert_eq!((progress.next(), progress.step(1, at(0))), (1, Step::Refused));
        progress.refuse(1, at(0), 10, 5);
        assert_eq!(over(progress.wait_for(1, 1)), [Outcome::TooLarge { bytes: 10, max: 5 }]);
        assert_eq!(progress.step(2, at(0)), Step::Send);
        progress.send(2, at(0), 10);
        assert!(progress.deliver(generation, &ok(2)));
        progress.send(3, at(0), 10);
        assert_eq!(progress.step(4, at(0)), Step::Send, "past the trouble it goes on as before");
        assert_eq!(progress.low(), 3);
    }

    #[test]
    fn waiters_are_told_whether_they_come_early_or_late() {
        let mut progress = Progress::default();
        let generation = progress.begin();
        let Waiting::Open(mut early) = progress.wait_for(0, 2) else { panic!("nothing is sent yet") };
        let Waiting::Open(mut other) = progress.wait_for(2, 1) else { panic!("nothing is sent yet") };
        for offset in 0..3 {
            progress.send(offset, at(u32::try_from(offset).unwrap()), 1);
        }
        progress.deliver(generation, &ok(1));
        assert!(early.try_recv().is_err());
        let places = [0, 1].map(|n| Some(Outcome::Broker(Some((PartitionId(0), Offset(n))))));
        progress.deliver(generation, &ok(0));
        assert_eq!(early.try_recv().unwrap(), places);
        assert_eq!(over(progress.wait_for(0, 2)), [Outcome::Broker(None); 2]);
        let Waiting::Open(_) = progress.wait_for(1, 2) else { panic!("one is under way") };
        assert_eq!(progress.give_up(1), [Some(Outcome::Broker(None)), None]);
        progress.deliver(generation, &ok(2));
        assert_eq!(other.try_recv().unwrap().len(), 1);
        assert_eq!(progress.in_flight(), (0, 0));
    }

    fn over(waiting: Waiting) -> Vec<Outcome> {
        match waiting {
            Waiting::Over(outcomes) => outcomes.into_iter().flatten().collect(),
            Waiting::Open(_) => panic!("it is not over"),
        }
    }

    proptest! {
        /// A broker that takes records in order and fails at random, and a spool that is read again after each failure.
        #[test]
        fn whatever_fails_every_record_is_written_and_first_occurrences_keep_their_order(
            partitions in prop::collection::vec(0_u32..3, 1..40),
            luck in prop::collection::vec(0_u8..8, 1..200),
        ) {
            let mut progress = Progress::default();
            let mut written: HashMap<u32, Vec<u64>> = HashMap::new();
            let mut queue: VecDeque<u64> = VecDeque::new();
            let mut generation = progress.begin();
            let mut luck = luck.into_iter().chain(std::iter::repeat(7));
            while progress.low() < partitions.len() as u64 {
                let chance = luck.next().unwrap();
                let next = progress.next();
                if chance == 0 {
                    // Written, but the answer is lost, and the client dies.
                    if let Some(first) = queue.pop_front() {
                        written.entry(partitions[usize::try_from(first).unwrap()]).or_default().push(first);
                        let failure = Failure::Other(rdkafka::error::RDKafkaErrorCode::RequestTimedOut);
                        progress.deliver(generation, &Delivery { ticket: first, result: Err(failure) });
                    }
                    queue.clear();
                    generation = progress.begin();
                } else if chance < 4 && !queue.is_empty() {
                    let first = queue.pop_front().unwrap();
                    written.entry(partitions[usize::try_from(first).unwrap()]).or_default().push(first);
                    progress.deliver(generation, &ok(first));
                } else if next < partitions.len() as u64 {
                    let place = at(partitions[usize::try_from(next).unwrap()]);
                    match progress.step(next, place) {
                        Step::Skip => progress.skip(next),
                        Step::Send => {
                            progress.send(next, place, 1);
                            queue.push_back(next);
                        }
                        Step::Wait | Step::Refused => {
                            if let Some(first) = queue.pop_front() {
                                written.entry(partitions[usize::try_from(first).unwrap()]).or_default().push(first);
                                progress.deliver(generation, &ok(first));
                            }
                        }
                    }
                } else if let Some(first) = queue.pop_front() {
                    written.entry(partitions[usize::try_from(first).unwrap()]).or_default().push(first);
                    progress.deliver(generation, &ok(first));
                }
            }
            for (partition, offsets) in written {
                let mut seen = HashSet::new();
                let firsts: Vec<u64> = offsets.into_iter().filter(|offset| seen.insert(*offset)).collect();
                let right: Vec<u64> = (0..partitions.len() as u64).filter(|n| partitions[usize::try_from(*n).unwrap()] == partition).collect();
                prop_assert_eq!(firsts, right);
            }
        }
    }
}
