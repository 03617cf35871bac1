//! `rivulet log cat`: records as JSON, one a line.
//!
//! **Invariant:** a value that is JSON is printed with the digits and bytes it has on the log, on one line; anything else as
//! base64. Reads a running program's folder without its lock.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use broker::log::Record;
use schemas::json::{self, Limits};
use schemas::topic::Topic;
use serde_json::Value;

use super::records::{self, Span, Starts};
use crate::cli::CatOptions;
use crate::console::say;

/// Prints until the end of the topic, or until interrupted with `--follow`.
pub(super) async fn cat(options: CatOptions) -> anyhow::Result<ExitCode> {
    let topic = Topic::parse(&options.topic).with_context(|| {
        let names: Vec<_> = Topic::ALL.iter().map(|topic| topic.name()).collect();
        format!("no topic `{}`; there are {}", options.topic, names.join(", "))
    })?;
    let from = Starts::new(&options.from);
    let span = Span { topic, partition: options.partition, from, follow: options.follow };
    records::read(&options.place, span, |record| say(&line(record))).await?;
    Ok(ExitCode::SUCCESS)
}

/// The record as one line of JSON.
fn line(record: &Record) -> String {
    let headers: BTreeMap<&str, String> = record
        .headers
        .iter()
        .map(|(name, value)| (name, String::from_utf8_lossy(value).into_owned()))
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
    use schemas::topic::{Offset, PartitionId, TopicPartition};

    use super::*;

    #[test]
    fn a_value_keeps_its_digits_and_anything_else_is_base64() {
        let mut record = Record {
            at: TopicPartition { topic: Topic::Events, partition: PartitionId(3) },
            offset: Offset(7),
            appended_at: Timestamp(0),
            key: Bytes::from_static(b"u1"),
            headers: broker::headers::Headers::of([("ce_id", "x")]),
            value: Bytes::from_static(b"{\"n\":9007199254740993,\n\"z\":-0.0}"),
        };
        let right = r#"{"topic":"rivulet.events","partition":3,"offset":7,"key":"u1","headers":{"ce_id":"x"},"value":{"n":9007199254740993, "z":-0.0}}"#;
        assert_eq!(line(&record), right);
        record.value = Bytes::from_static(&[0xff, 0xfe, 0]);
        assert!(line(&record).ends_with(r#""value_base64":"//4A"}"#), "{}", line(&record));
    }
}
