//! Appends batches and answers record by record.
//!
//! **Invariant:** records are handed to one client at a time, in the order of `append`. The broker refuses whole batches of its
//! own making; which record of them is too large is found out one by one, while nobody overtakes.

use std::sync::Arc;

use schemas::partition;
use schemas::topic::{Offset, PartitionId};
use schemas::verdict::AckLevel;
use tokio::sync::{MutexGuard, mpsc};
use tokio::time::{Instant, timeout_at};

use super::producer::{Delivery, Failure, Outgoing, Producer, SendError, record_bytes};
use super::{KafkaLog, Topics, blocking};
use crate::log::{Answers, AppendError, Appended, NewRecord, RecordError};

/// What is said of a record that the broker does not answer for in time.
const LATE: &str = "the broker does not answer";

/// What became of a record that was handed to the client; `None` while that is not known.
type Told = Option<Result<(PartitionId, Offset), Failure>>;

/// The client, held by the one who hands records to it.
type Client<'a> = MutexGuard<'a, Option<Producer>>;

/// A record that is not refused at once.
struct Fit<'a> {
    record: &'a NewRecord,
    partition: PartitionId,
    bytes: usize,
    told: Told,
}

impl KafkaLog {
    pub(super) async fn produce(
        &self,
        batch: Vec<NewRecord>,
        want: AckLevel,
    ) -> Result<Answers, AppendError> {
        let deadline = Instant::now() + self.config.ack_deadline;
        let late = || AppendError::Unavailable(LATE.to_owned());
        let topics = self.known_topics(deadline).await.ok_or_else(late)?;
        let mut fits: Vec<_> = batch.iter().map(|record| fit(&topics, record)).collect();
        let bytes = fits.iter().flatten().map(|fit| fit.bytes).sum::<usize>();
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.config.queue_bytes);
        let room = timeout_at(deadline, Arc::clone(&self.room).acquire_many_owned(permits)).await;
        let room = room.map_err(|_| late())?.map_err(|_| AppendError::Closed)?;
        let mut sent: Vec<&mut Fit<'_>> = fits.iter_mut().flatten().collect();
        let mut deliveries = self.hand_over(&mut self.producer.lock().await, &topics, &sent).await?;
        if want == AckLevel::Received {
            tokio::spawn(async move {
                while deliveries.recv().await.is_some() {}
                drop(room);
            });
            let received = Appended { level: AckLevel::Received, at: None };
            return Ok(fits.into_iter().map(|fit| fit.map(|_| received)).collect());
        }
        let _ = timeout_at(deadline, self.gather(deliveries, &mut sent)).await;
        if sent.iter().any(|fit| fit.told == Some(Err(Failure::TooLarge))) {
            self.one_by_one(&topics, &mut sent, deadline).await;
        }
        drop(room);
        let written = sent.iter().filter(|fit| matches!(fit.told, Some(Ok(_)))).count();
        self.counters.published_records.add(written as u64);
        if sent.iter().any(|fit| matches!(fit.told, Some(Err(_)))) {
            self.counters.produce_errors.add(1);
        }
        Ok(fits.into_iter().map(|fit| fit.and_then(|fit| answer(&topics, &fit))).collect())
    }

    /// Hands records to the client in order, to a new one if the last is of no more use.
    async fn hand_over(
        &self,
        client: &mut Client<'_>,
        topics: &Arc<Topics>,
        records: &[&mut Fit<'_>],
    ) -> Result<mpsc::UnboundedReceiver<Delivery>, AppendError> {
        let unavailable = |text: String| AppendError::Unavailable(text);
        give_up(client).await;
        if client.is_none() {
            let answer = |delivery: (Delivery, Option<mpsc::UnboundedSender<Delivery>>)| {
                if let (delivery, Some(done)) = delivery {
                    let _ = done.send(delivery);
                }
            };
            let made = Producer::new(&self.config, &self.link, Some(topics), Arc::new(answer));
            **client = Some(made.map_err(|error| unavailable(error.to_string()))?);
        }
        let Some(producer) = client.as_ref() else { return Err(AppendError::Closed) };
        let (done, deliveries) = mpsc::unbounded_channel();
        for (ticket, fit) in records.iter().enumerate() {
            let NewRecord { topic, key, headers, value, .. } = fit.record;
            let outgoing = Outgoing { topic: *topic, partition: fit.partition, key, headers, value };
            producer.send(&outgoing, ticket as u64, Some(done.clone())).map_err(|error| match error {
                SendError::Full => unavailable("the queue to the broker is full".to_owned()),
                SendError::Refused(text) => unavailable(text),
            })?;
        }
        Ok(deliveries)
    }

    /// Sends what failed again, each record after the answer for the one before.
    async fn one_by_one(&self, topics: &Arc<Topics>, records: &mut [&mut Fit<'_>], deadline: Instant) {
        // Held to the end, so that nobody comes between.
        let mut client = self.producer.lock().await;
        for record in records.iter_mut().filter(|fit| matches!(fit.told, Some(Err(_)))) {
            record.told = None;
            let alone = std::slice::from_mut(record);
            let Ok(deliveries) = self.hand_over(&mut client, topics, alone).await else { return };
            let _ = timeout_at(deadline, self.gather(deliveries, alone)).await;
            if !matches!(record.told, Some(Ok(_) | Err(Failure::TooLarge))) {
                return;
            }
        }
    }

    /// Waits for the answers, as many as there are records.
    async fn gather(&self, mut deliveries: mpsc::UnboundedReceiver<Delivery>, records: &mut [&mut Fit<'_>]) {
        let mut left = records.len();
        while let Some(Delivery { ticket, result }) = deliveries.recv().await {
            if let Some(fit) = usize::try_from(ticket).ok().and_then(|ticket| records.get_mut(ticket)) {
                fit.told = Some(result);
            }
            left = left.saturating_sub(1);
            if left == 0 {
                return;
            }
            if result.is_err() {
                // The client has stopped at the gap; given up, it answers for the rest.
                give_up(&mut self.producer.lock().await).await;
            }
        }
    }
}

/// Drops a client that is of no more use.
async fn give_up(client: &mut Client<'_>) {
    if client.as_ref().is_some_and(Producer::is_broken) {
        let broken = client.take();
        let _ = blocking(move || drop(broken)).await;
    }
}

/// Where the record goes, unless it can go nowhere.
fn fit<'a>(topics: &Topics, record: &'a NewRecord) -> Result<Fit<'a>, RecordError> {
    let count = topics.partitions(record.topic);
    let partition = record.partition.unwrap_or_else(|| partition::for_key(&record.key, count));
    if partition.0 >= count {
        return Err(RecordError::NoPartition(partition));
    }
    let bytes = record_bytes(&record.key, &record.headers, &record.value);
    let max = topics.max_bytes(record.topic);
    if bytes > max {
        return Err(RecordError::TooLarge { bytes, max });
    }
    Ok(Fit { record, partition, bytes, told: None })
}

fn answer(topics: &Topics, fit: &Fit<'_>) -> Result<Appended, RecordError> {
    match fit.told {
        Some(Ok(place)) => Ok(Appended { level: AckLevel::Broker, at: Some(place) }),
        Some(Err(Failure::TooLarge)) => {
            // The broker knows a lower limit than it has told us.
            let max = topics.max_bytes(fit.record.topic).min(fit.bytes.saturating_sub(1));
            Err(RecordError::TooLarge { bytes: fit.bytes, max })
        }
        Some(Err(failure)) => Err(RecordError::Unavailable(failure.to_string())),
        None => Err(RecordError::Unavailable(LATE.to_owned())),
    }
}
