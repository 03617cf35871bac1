//! The log as an operator sees it: `rivulet log cat` and `rivulet fate`.

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

/// Everything on a topic, by partition and offset. Works on a running program's folder and on a stopped one's.
pub async fn cat(rivulet: &Rivulet, topic: &str) -> Vec<Record> {
    let data = rivulet.data();
    let data = data.to_string_lossy();
    let place = match rivulet.kafka() {
        Some(kafka) => ["--kafka", kafka],
        None => ["--data", &data],
    };
    let output = rivulet.run(&["log", "cat", place[0], place[1], "--topic", topic]).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "log cat failed: {errors}");
    let text = String::from_utf8(output.stdout).expect("log cat prints UTF-8");
    let mut records: Vec<Record> = text.lines().filter(|line| !line.is_empty()).map(Record::read).collect();
    records.sort_by_key(|record| (record.partition, record.offset));
    records
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
