//! The log as an operator sees it: `rivulet log cat` and `rivulet fate`.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use serde_json::Value;

use crate::rivulet::Rivulet;

/// A record, as printed.
#[derive(Clone, Debug)]
pub struct Record {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u64,
    /// Offset.
    pub offset: u64,
    /// Key.
    pub key: String,
    /// Headers.
    pub headers: Value,
    /// The value as JSON; null when it is none.
    pub value: Value,
    /// The line as printed, for digits and escapes that a JSON tree would change.
    pub line: String,
}

impl Record {
    fn read(line: &str) -> Self {
        let json: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
        let number = |name: &str| json[name].as_u64().unwrap_or_else(|| panic!("no {name}: {line}"));
        Self {
            topic: json["topic"].as_str().unwrap_or_else(|| panic!("no topic: {line}")).to_owned(),
            partition: number("partition"),
            offset: number("offset"),
            key: json["key"].as_str().unwrap_or_else(|| panic!("no key: {line}")).to_owned(),
            headers: json["headers"].clone(),
            value: json["value"].clone(),
            line: line.to_owned(),
        }
    }

    /// The canonical event id in the receipt.
    pub fn event_id(&self) -> &str {
        self.value["receipt"]["event_id"].as_str().unwrap_or_default()
    }

    /// The raw bytes of the `value` member, as printed.
    pub fn raw_value(&self) -> &str {
        let start = self.line.find("\"value\":").expect("a value") + "\"value\":".len();
        self.line[start..].trim_end().strip_suffix('}').expect("an object")
    }
}

/// What was read of the brokers' topics, by broker and topic: records of a broker stay as they are, and other tests share it.
static SEEN: LazyLock<Mutex<HashMap<Place, Vec<Record>>>> = LazyLock::new(Mutex::default);

/// A broker's address and a topic.
type Place = (String, String);

/// A new broker may get the address of one that is gone.
pub(crate) fn forget(kafka: &str) {
    SEEN.lock().expect("never poisoned").retain(|(address, _), _| address != kafka);
}

/// Everything on a topic, by partition and offset. Works on a running program's folder and on a stopped one's.
pub async fn cat(rivulet: &Rivulet, topic: &str) -> Vec<Record> {
    let mut records = match rivulet.kafka() {
        Some(kafka) => {
            let place = (kafka.to_owned(), topic.to_owned());
            let mut seen = SEEN.lock().expect("never poisoned").remove(&place).unwrap_or_default();
            let from = resume(&seen);
            seen.extend(read(rivulet, &["--kafka", kafka, "--topic", topic, "--from", &from]).await);
            SEEN.lock().expect("never poisoned").insert(place, seen.clone());
            seen
        }
        None => read(rivulet, &["--data", &rivulet.data().to_string_lossy(), "--topic", topic]).await,
    };
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// `--from` for what comes after these.
fn resume(seen: &[Record]) -> String {
    let mut next: HashMap<u64, u64> = HashMap::new();
    for record in seen {
        let next = next.entry(record.partition).or_default();
        *next = (*next).max(record.offset + 1);
    }
    let starts = next.iter().map(|(partition, offset)| format!(",{partition}={offset}"));
    std::iter::once("0".to_owned()).chain(starts).collect()
}

async fn read(rivulet: &Rivulet, options: &[&str]) -> Vec<Record> {
    let output = rivulet.run(&[&["log", "cat"], options].concat()).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "log cat failed: {errors}");
    let text = String::from_utf8(output.stdout).expect("log cat prints UTF-8");
    text.lines().filter(|line| !line.is_empty()).map(Record::read).collect()
}

/// The events on `rivulet.events`.
pub async fn events(rivulet: &Rivulet) -> Vec<Record> {
    let mut records = cat(rivulet, "rivulet.events").await;
    records.retain(|record| !record.value["event_type"].as_str().unwrap_or_default().starts_with("rivulet."));
    records
}

/// The records of one key, in order.
pub fn of_key<'a>(records: &'a [Record], key: &str) -> Vec<&'a Record> {
    records.iter().filter(|record| record.key == key).collect()
}

/// The first record of an event.
pub fn find<'a>(records: &'a [Record], event_id: &str) -> Option<&'a Record> {
    records.iter().find(|record| record.event_id() == event_id)
}

/// `rivulet fate EVENT_ID --json`, asking the running program.
pub async fn fate(rivulet: &Rivulet, event_id: &str) -> Value {
    let url = format!("http://{}", rivulet.address());
    let output = rivulet.run(&["fate", event_id, "--url", &url, "--key", "sk_dev", "--json"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("fate is not JSON ({error}): {text} {}", String::from_utf8_lossy(&output.stderr))
    })
}
