//! Reads records of a log for a command: of a folder, which a program may be running on, or of Kafka.
//!
//! **Invariant:** reads without the folder's lock and makes no topic; ends at the end of the topic as it is met, unless it follows.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use broker::embedded::reader::Reader;
use broker::log::{Log as _, ReadLimit, Record};
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};

use crate::cli::{LogPlace, StartAt};
use crate::pipeline;

/// How often a followed log is looked at again.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// Which records.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) topic: Topic,
    /// This partition alone.
    pub(super) partition: Option<u32>,
    /// From where in each partition.
    pub(super) from: Starts,
    /// Go on as records come.
    pub(super) follow: bool,
}

/// Where reading starts: one offset for all partitions, and others for some.
#[derive(Clone, Debug, Default)]
pub(super) struct Starts {
    all: u64,
    of: BTreeMap<u32, u64>,
}

impl Starts {
    /// What `--from` says; of two that say the same partition the last one holds.
    pub(super) fn new(said: &[StartAt]) -> Self {
        let mut starts = Self::default();
        for start in said {
            match start.partition {
                Some(partition) => drop(starts.of.insert(partition, start.offset)),
                None => starts.all = start.offset,
            }
        }
        starts
    }

    fn of(&self, partition: PartitionId) -> Offset {
        Offset(self.of.get(&partition.0).copied().unwrap_or(self.all))
    }
}

impl Span {
    /// All that is there.
    pub(super) fn whole(topic: Topic) -> Self {
        Self { topic, partition: None, from: Starts::default(), follow: false }
    }

    fn holds(&self, record: &Record) -> bool {
        let partition = record.at.partition;
        self.partition.is_none_or(|only| only == partition.0) && record.offset >= self.from.of(partition)
    }
}

/// Hands each record to `take`, until that says `false` or there are no more.
pub(super) async fn read(
    place: &LogPlace,
    span: Span,
    mut take: impl FnMut(&Record) -> bool,
) -> anyhow::Result<()> {
    match &place.kafka {
        Some(brokers) => read_kafka(brokers, span, &mut take).await,
        None => read_folder(place, span, &mut take).await,
    }
}

async fn read_folder(
    place: &LogPlace,
    span: Span,
    take: &mut impl FnMut(&Record) -> bool,
) -> anyhow::Result<()> {
    let dir = pipeline::log_folder(&place.data);
    let mut reader =
        Reader::open(&dir).with_context(|| format!("no log in {}", dir.display()))?.topic(span.topic);
    loop {
        while let Some(record) = reader.next_record()? {
            if span.holds(&record) && !take(&record) {
                return Ok(());
            }
        }
        if !span.follow {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

async fn read_kafka(brokers: &str, span: Span, take: &mut impl FnMut(&Record) -> bool) -> anyhow::Result<()> {
    let log = pipeline::kafka_reader(brokers)?;
    let mut places = Vec::new();
    for partition in 0..log.partitions(span.topic).await? {
        let at = TopicPartition { topic: span.topic, partition: PartitionId(partition) };
        if span.partition.is_none_or(|only| only == partition) {
            places.push((at, log.start_offset(at).await?.max(span.from.of(at.partition))));
        }
    }
    loop {
        for (at, from) in &mut places {
            // Asked once a round: each question may wait behind a fetch at the end of another partition.
            let end = log.end_offset(*at).await?;
            while *from < end {
                let records = log.read(*at, *from, ReadLimit::default()).await?;
                for record in &records {
                    if !take(record) {
                        return Ok(());
                    }
                    *from = record.offset.next();
                }
            }
        }
        if !span.follow {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}
