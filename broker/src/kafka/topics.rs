//! Knows the topics: makes missing ones, learns partition counts and size limits, sees whether the broker is there.
//!
//! **Invariant:** what is told was answered by a broker; until one has answered nothing is told, and asking goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::KafkaResult;
use schemas::topic::Topic;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::KafkaConfig;
use super::client::{Context, Link, blocking, configure};

/// How long one question to the broker may take.
const ASK: Duration = Duration::from_secs(5);
/// How often a broker that is away is asked.
const AWAY: Duration = Duration::from_millis(500);
/// How often a broker that is there is asked.
const THERE: Duration = Duration::from_secs(3);
/// How many rounds lie between two looks at the topics' settings.
const SETTINGS_ROUNDS: u32 = 20;
/// Kafka's own default of `max.message.bytes`.
const DEFAULT_MAX_BYTES: usize = 1_048_588;

/// What is known of one topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    partitions: u32,
    max_bytes: usize,
}

/// What is known of the topics.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Topics(HashMap<Topic, Known>);

impl Topics {
    /// Partitions of a topic; 1 for one that does not exist.
    pub(crate) fn partitions(&self, topic: Topic) -> u32 {
        self.known(topic).unwrap_or(1)
    }

    pub(crate) fn known(&self, topic: Topic) -> Option<u32> {
        self.0.get(&topic).map(|known| known.partitions)
    }

    /// The largest batch that the topic takes, in bytes.
    pub(crate) fn max_bytes(&self, topic: Topic) -> usize {
        self.0.get(&topic).map_or(DEFAULT_MAX_BYTES, |known| known.max_bytes)
    }

    /// The largest batch that every topic takes, in bytes.
    pub(crate) fn least_max_bytes(&self) -> usize {
        self.0.values().map(|known| known.max_bytes).min().unwrap_or(DEFAULT_MAX_BYTES)
    }
}

/// Starts the watcher.
#[expect(clippy::type_complexity, reason = "a task and what it tells")]
pub(crate) fn watch(
    config: &KafkaConfig,
    link: &Arc<Link>,
) -> KafkaResult<(JoinHandle<()>, watch::Receiver<Option<Arc<Topics>>>)> {
    let context = Context { link: Arc::clone(link) };
    let client = configure(config, &[("topic.metadata.refresh.interval.ms", "30000".to_owned())]);
    let admin: Arc<AdminClient<Context>> = Arc::new(client.create_with_context(context)?);
    let (tell, told) = watch::channel(None);
    let (config, link) = (config.clone(), Arc::clone(link));
    let task = tokio::spawn(async move {
        let mut round = 0_u32;
        loop {
            let fresh = tell.borrow().is_none() || round.is_multiple_of(SETTINGS_ROUNDS);
            let up = look(&admin, &config, &tell, fresh).await;
            link.set(up);
            round = if up { round.wrapping_add(1) } else { 0 };
            sleep(if up { THERE } else { AWAY }).await;
        }
    });
    Ok((task, told))
}

/// One look at the broker. Says whether it answered.
async fn look(
    admin: &Arc<AdminClient<Context>>,
    config: &KafkaConfig,
    tell: &watch::Sender<Option<Arc<Topics>>>,
    settings: bool,
) -> bool {
    let Some(mut counts) = partitions(admin).await else { return false };
    let missing: Vec<Topic> =
        Topic::ALL.iter().copied().filter(|topic| !counts.contains_key(topic)).collect();
    if config.create_topics && !missing.is_empty() {
        if !create(admin, config, &missing).await {
            return true;
        }
        let Some(now) = partitions(admin).await else { return false };
        counts = now;
        if Topic::ALL.iter().any(|topic| !counts.contains_key(topic)) {
            return true;
        }
    }
    let before = tell.borrow().clone();
    let limits = if settings { max_bytes(admin, &counts).await } else { HashMap::new() };
    let mut topics = Topics::default();
    for (topic, partitions) in counts {
        let known = before.as_ref().map(|topics| topics.max_bytes(topic));
        let max_bytes = limits.get(&topic).copied().or(known).unwrap_or(DEFAULT_MAX_BYTES);
        topics.0.insert(topic, Known { partitions, max_bytes });
    }
    tell.send_if_modified(|told| {
        let changed = told.as_deref() != Some(&topics);
        if changed {
            *told = Some(Arc::new(topics));
        }
        changed
    });
    true
}

/// Partition counts of our topics that exist and have all their leaders.
async fn partitions(admin: &Arc<AdminClient<Context>>) -> Option<HashMap<Topic, u32>> {
    let admin = Arc::clone(admin);
    let metadata = blocking(move || admin.inner().fetch_metadata(None, ASK)).await?.ok()?;
    let count = |topic: &rdkafka::metadata::MetadataTopic| {
        let count = u32::try_from(topic.partitions().len()).ok().filter(|count| *count > 0)?;
        let led = topic.error().is_none();
        Some((Topic::parse(topic.name())?, led.then_some(count)?))
    };
    Some(metadata.topics().iter().filter_map(count).collect())
}

async fn create(admin: &AdminClient<Context>, config: &KafkaConfig, missing: &[Topic]) -> bool {
    let partitions = i32::try_from(config.partitions).unwrap_or(i32::MAX);
    let make =
        |topic: &Topic| NewTopic::new(topic.name(), partitions, TopicReplication::Fixed(config.replication));
    let topics: Vec<NewTopic<'_>> = missing.iter().map(make).collect();
    let options = AdminOptions::new().request_timeout(Some(ASK)).operation_timeout(Some(ASK));
    match admin.create_topics(&topics, &options).await {
        Ok(results) => {
            let refused = results.iter().filter_map(|result| result.as_ref().err());
            let refused: Vec<_> = refused
                .filter(|(_, code)| *code != rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)
                .collect();
            for (topic, code) in &refused {
                tracing::warn!(topic, %code, "the broker refuses to make a topic");
            }
            refused.is_empty()
        }
        Err(error) => {
            tracing::debug!(%error, "topics could not be made yet");
            false
        }
    }
}

async fn max_bytes(admin: &AdminClient<Context>, counts: &HashMap<Topic, u32>) -> HashMap<Topic, usize> {
    let resources: Vec<ResourceSpecifier<'_>> =
        counts.keys().map(|topic| ResourceSpecifier::Topic(topic.name())).collect();
    let options = AdminOptions::new().request_timeout(Some(ASK));
    let Ok(described) = admin.describe_configs(&resources, &options).await else { return HashMap::new() };
    let limit = |resource: &rdkafka::admin::ConfigResource| {
        let rdkafka::admin::OwnedResourceSpecifier::Topic(name) = &resource.specifier else { return None };
        Some((Topic::parse(name)?, resource.get("max.message.bytes")?.value.as_ref()?.parse().ok()?))
    };
    described.iter().filter_map(|resource| limit(resource.as_ref().ok()?)).collect()
}
