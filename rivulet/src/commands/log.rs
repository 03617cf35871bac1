//! `rivulet log cat`: records as JSON, one a line.
//!
//! **Invariant:** a value that is JSON is printed with the digits and bytes it has on the log, on one line; anything else as
//! base64. Reads a running program's folder without its lock.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use broker::embedded::reader::Reader;
use broker::log::{Log, ReadLimit, Record};
use schemas::json::{self, Limits};
use schemas::topic::{Offset, PartitionId, Topic, TopicPartition};
use serde_json::Value;

use crate::cli::CatOptions;
use crate::console::say;
use crate::pipeline;

/// How often a followed folder is looked at again.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// Prints until the end of the topic, or until interrupted with `--follow`.
pub(super) async fn cat(options: CatOptions) -> anyhow::Result<ExitCode> {
    let topic = Topic::parse(&options.topic).with_context(|| {
        let names: Vec<_> = Topic::ALL.iter().map(|topic| topic.name()).collect();
        format!("no topic `{}`; there are {}", options.topic, names.join(", "))
    })?;
    match &options.place.kafka {
        Some(brokers) => cat_kafka(&options, topic, brokers).await?,
        None => cat_folder(&options, topic).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn cat_folder(options: &CatOptions, topic: Topic) -> anyhow::Result<()> {
    let dir = pipeline::log_folder(&options.place.data);
    let mut reader = Reader::open(&dir).with_context(|| format!("no log in {}", dir.display()))?.topic(topic);
    loop {
        while let Some(record) = reader.next_record()? {
            if wanted(options, &record) && !say(&line(&record)) {
                return Ok(());
            }
        }
        if !options.follow {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

async fn cat_kafka(options: &CatOptions, topic: Topic, brokers: &str) -> anyhow::Result<()> {
    let log = pipeline::kafka_reader(brokers)?;
    let mut places = Vec::new();
    for partition in 0..log.partitions(topic).await? {
        let at = TopicPartition { topic, partition: PartitionId(partition) };
        if options.partition.is_none_or(|only| only == partition) {
            places.push((at, log.start_offset(at).await?.max(Offset(options.from))));
        }
    }
    loop {
        for (at, from) in &mut places {
            // Asked once a round: each question may wait behind a fetch at the end of another partition.
            let end = log.end_offset(*at).await?;
            while *from < end {
                let records = log.read(*at, *from, ReadLimit::default()).await?;
                for record in &records {
                    if !say(&line(record)) {
                        return Ok(());
                    }
                    *from = record.offset.next();
                }
            }
        }
        if !options.follow {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

fn wanted(options: &CatOptions, record: &Record) -> bool {
    options.partition.is_none_or(|only| only == record.at.partition.0) && record.offset.0 >= options.from
}

/// The record as one line of JSON.
fn line(record: &Record) -> String {
    let headers: BTreeMap<&str, String> = record
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value).into_owned()))
        .collect();
    let key = std::str::from_utf8(&record.key).map_or_else(|_| Value::Null, Value::from);
    let value = match one_line(&record.value) {
        Some(json) => format!("\"value\":{json}"),
        None if record.value.is_empty() => "\"value\":null".to_owned(),
        None => format!("\"value_base64\":\"{}\"", BASE64.encode(&record.value)),
    };
    format!(
        "{{\"topic\":\"{}\",\"partition\":{},\"offset\":{},\"key\":{key},\"headers\":{},{value}}}",
        record.at.topic,
        record.at.partition.0,
        record.offset.0,
        serde_json::to_string(&headers).unwrap_or_else(|_| "{}".to_owned()),
    )
}

/// The bytes as JSON on one line, if they are an object of JSON. Line ends can only stand between tokens there.
fn one_line(bytes: &[u8]) -> Option<String> {
    json::object(bytes, Limits { max_depth: 128 }).ok()?;
    Some(std::str::from_utf8(bytes).ok()?.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use schemas::time::Timestamp;

    use super::*;

    #[test]
    fn a_value_keeps_its_digits_and_anything_else_is_base64() {
        let mut record = Record {
            at: TopicPartition { topic: Topic::Events, partition: PartitionId(3) },
            offset: Offset(7),
            appended_at: Timestamp(0),
            key: Bytes::from_static(b"u1"),
            headers: vec![("ce_id".to_owned(), Bytes::from_static(b"x"))],
            value: Bytes::from_static(b"{\"n\":9007199254740993,\n\"z\":-0.0}"),
        };
        let right = r#"{"topic":"rivulet.events","partition":3,"offset":7,"key":"u1","headers":{"ce_id":"x"},"value":{"n":9007199254740993, "z":-0.0}}"#;
        assert_eq!(line(&record), right);
        record.value = Bytes::from_static(&[0xff, 0xfe, 0]);
        assert!(line(&record).ends_with(r#""value_base64":"//4A"}"#), "{}", line(&record));
    }
}
