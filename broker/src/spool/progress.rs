//! How far the spool is published: what is under way, what is acknowledged, who waits.
//!
//! **Invariant:** a record counts as acknowledged only when every earlier one of its partition is; after a failure nothing of
//! that partition counts until the spool is read again from its acknowledged position.

use std::collections::{BTreeMap, HashMap, HashSet};

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

struct Flight {
    at: TopicPartition,
    bytes: usize,
}

/// The state of publishing. Positions are offsets in the spool.
#[derive(Default)]
pub(crate) struct Progress {
    generation: u64,
    next: u64,
    flights: BTreeMap<u64, Flight>,
    flight_bytes: usize,
    flights_of: HashMap<TopicPartition, usize>,
    /// Behind the last acknowledged record of each partition.
    acknowledged: HashMap<TopicPartition, u64>,
    failed: HashMap<TopicPartition, (u64, Failure)>,
    /// Partitions that go one by one, and until where.
    careful: HashMap<TopicPartition, u64>,
    refused_alone: HashSet<u64>,
    waiters: HashMap<u64, oneshot::Sender<Outcome>>,
    too_large: BTreeMap<u64, (usize, usize)>,
}

impl Progress {
    /// Begins at a stored position.
    pub(crate) fn at(low: u64, acknowledged: HashMap<TopicPartition, u64>) -> Self {
        Self { next: low, acknowledged, ..Self::default() }
    }

    /// Everything before this is done.
    pub(crate) fn low(&self) -> u64 {
        self.flights.keys().next().map_or(self.next, |first| (*first).min(self.next))
    }

    /// The next record to look at.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn in_flight(&self) -> (usize, usize) {
        (self.flights.len(), self.flight_bytes)
    }

    /// The acknowledged positions that lie above the low one.
    pub(crate) fn acknowledged(&self) -> Vec<(TopicPartition, u64)> {
        let low = self.low();
        self.acknowledged.iter().filter(|(_, end)| **end > low).map(|(at, end)| (*at, *end)).collect()
    }

    /// Forgets positions by partition, when partitions are not what they were.
    pub(crate) fn forget_partitions(&mut self) {
        self.acknowledged.clear();
    }

    /// Begins anew from the lowest position that is not acknowledged, with a new client. Deliveries of the old one no longer
    /// count. Partitions that failed go one by one until they are past what was under way.
    pub(crate) fn begin(&mut self) -> u64 {
        for (at, (offset, failure)) in std::mem::take(&mut self.failed) {
            let alone = self.careful.contains_key(&at) && self.flights_of.get(&at) == Some(&1);
            if failure == Failure::TooLarge && alone {
                self.refused_alone.insert(offset);
            }
            let last =
                self.flights.iter().rev().find(|(_, flight)| flight.at == at).map(|(offset, _)| *offset);
            let until = last.unwrap_or(offset) + 1;
            let before = self.careful.entry(at).or_default();
            *before = (*before).max(until);
        }
        self.next = self.low();
        self.flights.clear();
        self.flights_of.clear();
        self.flight_bytes = 0;
        self.generation += 1;
        self.generation
    }

    /// What to do with the record at `offset`, for partition `at`.
    pub(crate) fn step(&self, offset: u64, at: TopicPartition) -> Step {
        if self.acknowledged.get(&at).is_some_and(|end| offset < *end) {
            return Step::Skip;
        }
        let busy = self.flights_of.get(&at).is_some_and(|count| *count > 0);
        if self.refused_alone.contains(&offset) {
            return if busy { Step::Wait } else { Step::Refused };
        }
        if self.failed.contains_key(&at) || (busy && self.careful.contains_key(&at)) {
            return Step::Wait;
        }
        Step::Send
    }

    /// Whether nothing of the partition is under way.
    pub(crate) fn is_idle(&self, at: TopicPartition) -> bool {
        self.flights_of.get(&at).is_none_or(|count| *count == 0)
    }

    /// The record goes to the client.
    pub(crate) fn send(&mut self, offset: u64, at: TopicPartition, bytes: usize) {
        self.flights.insert(offset, Flight { at, bytes });
        self.flight_bytes += bytes;
        *self.flights_of.entry(at).or_default() += 1;
        self.next = offset + 1;
    }

    /// The client did not take it.
    pub(crate) fn unsend(&mut self, offset: u64) {
        self.land(offset);
        self.next = offset;
    }

    /// The record needs nothing more.
    pub(crate) fn skip(&mut self, offset: u64) {
        self.next = offset + 1;
        if let Some(waiter) = self.waiters.remove(&offset) {
            let _ = waiter.send(Outcome::Broker(None));
        }
    }

    /// Records up to `start` are gone from the spool.
    pub(crate) fn skip_to(&mut self, start: u64) {
        self.next = self.next.max(start);
    }

    /// The record will never be published; nothing of its partition is under way.
    pub(crate) fn refuse(&mut self, offset: u64, at: TopicPartition, bytes: usize, max: usize) {
        self.next = offset + 1;
        self.refused_alone.remove(&offset);
        self.acknowledge(at, offset);
        self.too_large.insert(offset, (bytes, max));
        if self.too_large.len() > MAX_REFUSED {
            self.too_large.pop_first();
        }
        if let Some(waiter) = self.waiters.remove(&offset) {
            let _ = waiter.send(Outcome::TooLarge { bytes, max });
        }
    }

    /// Takes a delivery. Says whether it was a success that counts.
    pub(crate) fn deliver(&mut self, generation: u64, delivery: &Delivery) -> bool {
        let offset = delivery.ticket;
        if generation != self.generation {
            return false;
        }
        let Some(at) = self.flights.get(&offset).map(|flight| flight.at) else { return false };
        match delivery.result {
            Ok(place) => {
                if self.failed.contains_key(&at) {
                    return false;
                }
                self.land(offset);
                self.acknowledge(at, offset);
                if let Some(waiter) = self.waiters.remove(&offset) {
                    let _ = waiter.send(Outcome::Broker(Some(place)));
                }
                true
            }
            Err(failure) => {
                if failure.is_cause() {
                    self.failed.entry(at).or_insert((offset, failure));
                }
                false
            }
        }
    }

    /// Whether the record at `offset` is not known to be published.
    pub(crate) fn is_waiting(&self, offset: u64) -> bool {
        offset >= self.next || self.flights.contains_key(&offset)
    }

    /// Waits for the record at `offset`, or tells what has become of it.
    pub(crate) fn wait_for(&mut self, offset: u64) -> Result<oneshot::Receiver<Outcome>, Outcome> {
        if let Some((bytes, max)) = self.too_large.get(&offset) {
            return Err(Outcome::TooLarge { bytes: *bytes, max: *max });
        }
        if !self.is_waiting(offset) {
            return Err(Outcome::Broker(None));
        }
        let (tell, told) = oneshot::channel();
        self.waiters.insert(offset, tell);
        Ok(told)
    }

    /// Nobody waits for it any more.
    pub(crate) fn give_up(&mut self, offset: u64) {
        self.waiters.remove(&offset);
    }

    fn land(&mut self, offset: u64) {
        if let Some(flight) = self.flights.remove(&offset) {
            self.flight_bytes -= flight.bytes;
            if let Some(count) = self.flights_of.get_mut(&flight.at) {
                *count = count.saturating_sub(1);
            }
        }
    }

    fn acknowledge(&mut self, at: TopicPartition, offset: u64) {
        let end = self.acknowledged.entry(at).or_default();
        *end = (*end).max(offset + 1);
        if self.careful.get(&at).is_some_and(|until| *until <= *end) {
            self.careful.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

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
        assert_eq!(progress.wait_for(1).unwrap_err(), Outcome::TooLarge { bytes: 10, max: 5 });
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
        let mut early = progress.wait_for(0).unwrap();
        progress.send(0, at(0), 1);
        assert!(early.try_recv().is_err());
        progress.deliver(generation, &ok(0));
        assert_eq!(early.try_recv().unwrap(), Outcome::Broker(Some((PartitionId(0), Offset(0)))));
        assert_eq!(progress.wait_for(0).unwrap_err(), Outcome::Broker(None));
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
