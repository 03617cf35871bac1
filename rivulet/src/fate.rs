//! What became of an event: every record that names its id, and what they add up to.
//!
//! **Invariant:** says `unknown` only when an index of the whole log, or reading each partition from its start to its end, has
//! shown nothing.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use broker::log::{self, Log, Record, SharedLog};
use gateway::Gateway;
use gateway::error::RequestError;
use gateway::transport::api::{Access, Answer, Api, Content, Operation, Parameter, Verb, shape};
use schemars::JsonSchema;
use schemas::id::EventId;
use schemas::topic::{Offset, Topic, TopicPartition};
use schemas::verdict::Code;
use serde::Serialize;
use serde_json::Value;

use crate::pipeline::ProcessorCell;

const FATE: Operation = Operation {
    method: Verb::Get,
    path: "/v1/fate/{event_id}",
    summary: "What became of an event.",
    access: Access::SecretKey,
    parameters: &[Parameter {
        name: "event_id",
        place: "path",
        about: "In any spelling of a UUID.",
        shape: shape::<EventId>,
    }],
    body: &[],
    answers: &[Answer::ok("Its outcome, and the records that name it.", &[Content::json(shape::<Fate>)])],
    errors: &[Code::RequestInvalid, Code::LogUnavailable],
};

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Fate {
    pub(crate) event_id: EventId,
    pub(crate) outcome: Outcome,
    /// The records that name it, in the order found.
    pub(crate) records: Vec<Sighting>,
}

/// The one outcome of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// On the log.
    Accepted,
    /// Not on the log; its raw bytes are in quarantine, with the reason.
    Quarantined,
    /// Dropped by a kill rule: id and length alone are in quarantine.
    Discarded,
    /// Nothing names it.
    Unknown,
}

/// One record that names the event.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Sighting {
    pub(crate) topic: &'static str,
    /// Absent while it waits in the spool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<u32>,
    /// Absent while it waits in the spool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
    /// Where it waits in the spool in front of Kafka, when it is not yet published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spool_offset: Option<u64>,
    /// How the record names it: `event`, `quarantine`, `trigger`.
    pub(crate) role: &'static str,
    /// Reason of a quarantined event; rule and slot of a decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<Value>,
}

impl Fate {
    /// What the records add up to.
    pub(crate) fn of(event_id: EventId, found: &[log::Sighting]) -> Self {
        let mut fate = Self { event_id, outcome: Outcome::Unknown, records: Vec::new() };
        for sighting in found {
            fate.consider(&sighting.record, sighting.published);
        }
        fate
    }

    /// With places on Kafka that a spool has noted, of which no record was read.
    pub(crate) fn standing(mut self, places: &[(TopicPartition, Offset)]) -> Self {
        for (at, offset) in places {
            let Some(role) = role_in(at.topic) else { continue };
            self.note(at.topic, None);
            self.records.push(Sighting {
                topic: at.topic.name(),
                partition: Some(at.partition.0),
                offset: Some(offset.0),
                spool_offset: None,
                role,
                detail: None,
            });
        }
        self
    }

    fn note(&mut self, topic: Topic, detail: Option<&Value>) {
        let code = detail.and_then(|detail| detail.get("code")).and_then(Value::as_str);
        let was_dropped = code == Some(Code::EventKilled.as_str())
            && detail.is_some_and(|detail| detail.get("withheld") == Some(&Value::Bool(true)));
        self.outcome = match (topic, self.outcome) {
            (Topic::Events, _) => Outcome::Accepted,
            (Topic::Quarantine, Outcome::Unknown) if was_dropped => Outcome::Discarded,
            (Topic::Quarantine, Outcome::Unknown | Outcome::Discarded) => Outcome::Quarantined,
            (_, outcome) => outcome,
        };
    }

    /// Takes a record into account if it names the event.
    fn consider(&mut self, record: &Record, published: bool) {
        if record.event_id() != Some(self.event_id) {
            return;
        }
        let Some(role) = role_in(record.at.topic) else { return };
        let detail = detail(record);
        self.note(record.at.topic, detail.as_ref());
        self.records.push(Sighting {
            topic: record.at.topic.name(),
            partition: published.then_some(record.at.partition.0),
            offset: published.then_some(record.offset.0),
            spool_offset: (!published).then_some(record.offset.0),
            role,
            detail,
        });
    }
}

/// Asks the log for an event.
pub(crate) async fn search(log: &dyn Log, event_id: EventId) -> anyhow::Result<Fate> {
    Ok(Fate::of(event_id, &log.find(event_id).await?))
}

/// How a record of this topic names its event.
const fn role_in(topic: Topic) -> Option<&'static str> {
    match topic {
        Topic::Events => Some("event"),
        Topic::Quarantine => Some("quarantine"),
        Topic::Decisions => Some("trigger"),
        Topic::Profiles | Topic::Rules | Topic::DeadLetter => None,
    }
}

/// What else of a record is told.
fn detail(record: &Record) -> Option<Value> {
    let value = || serde_json::from_slice::<Value>(&record.value).ok();
    match record.at.topic {
        Topic::Quarantine => {
            let value = value()?;
            let mut reason = value.get("reason")?.clone();
            if let (Some(withheld), Some(reason)) = (value.get("withheld"), reason.as_object_mut()) {
                reason.insert("withheld".to_owned(), withheld.clone());
            }
            Some(reason)
        }
        Topic::Decisions => {
            let value = value()?;
            let keep = ["decision_id", "rule", "slot"].into_iter();
            let detail = keep.filter_map(|name| Some((name.to_owned(), value.get(name)?.clone())));
            Some(Value::Object(detail.collect()))
        }
        Topic::Events | Topic::Profiles | Topic::Rules | Topic::DeadLetter => None,
    }
}

/// `GET /v1/fate/{event_id}`, for secret keys.
#[derive(Clone)]
pub(crate) struct Service {
    gateway: Arc<Gateway>,
    log: SharedLog,
    processor: ProcessorCell,
}

impl Service {
    /// A service over the running parts.
    pub(crate) const fn new(gateway: Arc<Gateway>, log: SharedLog, processor: ProcessorCell) -> Self {
        Self { gateway, log, processor }
    }

    /// Its path.
    pub(crate) fn api(self) -> Api<()> {
        Api::new().route(FATE, answer).with_state(self)
    }
}

async fn answer(
    State(service): State<Service>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    if let Err(error) = service.gateway.keys().authenticate_secret(&headers, &uri) {
        return error.into_response();
    }
    let Some(event_id) = EventId::parse(&id) else {
        return RequestError::new(Code::RequestInvalid, "an event id is a UUID").into_response();
    };
    let Ok(fate) = search(service.log.as_ref(), event_id).await else {
        return RequestError::new(Code::LogUnavailable, "the log cannot be read now; ask again later")
            .into_response();
    };
    let mut fate = serde_json::to_value(fate).unwrap_or_default();
    if let (Some(processor), Some(fate)) = (service.processor.get(), fate.as_object_mut()) {
        let applied = processor.was_applied(event_id).await.unwrap_or_default();
        fate.insert("processor".to_owned(), serde_json::to_value(applied).unwrap_or_default());
    }
    ([(header::CONTENT_TYPE, "application/json")], fate.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use schemas::header::CE_ID;
    use schemas::time::Timestamp;
    use schemas::topic::PartitionId;

    use super::*;

    fn record(topic: Topic, key: &str, header: Option<&str>, value: &str) -> Record {
        Record {
            at: TopicPartition { topic, partition: PartitionId(0) },
            offset: Offset(7),
            appended_at: Timestamp(0),
            key: Bytes::copy_from_slice(key.as_bytes()),
            headers: broker::headers::Headers::of(header.map(|id| (CE_ID, id))),
            value: Bytes::copy_from_slice(value.as_bytes()),
        }
    }

    #[test]
    fn an_event_that_was_refused_and_then_accepted_counts_as_accepted() {
        let id = "123e4567-e89b-12d3-a456-426614174000";
        let mut fate = Fate::of(EventId::parse(id).unwrap(), &[]);
        fate.consider(&record(Topic::Quarantine, id, None, r#"{"reason":{"code":"schema.invalid"}}"#), true);
        assert_eq!(fate.outcome, Outcome::Quarantined);
        fate.consider(&record(Topic::Events, "u1", Some(id), "{}"), true);
        fate.consider(&record(Topic::Events, "u1", Some("00000000-0000-0000-0000-000000000001"), "{}"), true);
        fate.consider(
            &record(Topic::Decisions, "u1", None, &format!(r#"{{"trigger":"{id}","rule":"r","slot":"s"}}"#)),
            true,
        );
        assert_eq!(fate.outcome, Outcome::Accepted);
        assert_eq!(
            fate.records.iter().map(|seen| seen.role).collect::<Vec<_>>(),
            ["quarantine", "event", "trigger"]
        );
    }
}
