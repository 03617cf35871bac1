//! The configuration: built-in defaults, then a TOML file, then the environment, then flags.
//!
//! **Invariant:** an option that is misspelt is refused by name; every limit has its unit in its name and its default in its doc.

pub(crate) mod environment;
pub(crate) mod keys;
pub(crate) mod watch;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use broker::clock::SystemClock;
use broker::embedded::JournalConfig;
use gateway::authenticate::Keys;
use gateway::{GatewayConfig, KeyConfig, ServerConfig, TlsFiles};
use schemas::token::SecretText;
use serde::Deserialize;

use crate::cli::ServeOptions;

/// Every option with its default, as TOML; what `--help` shows. Lines behind `#:` have no default.
pub(crate) const REFERENCE: &str = include_str!("reference.toml");

/// Shortest control key, bytes.
const CONTROL_KEY_BYTES: usize = 32;

/// A segment holds at least a few records, and its offsets are counted in 32 bits.
const SEGMENT_BYTES: RangeInclusive<u64> = 4 << 10..=1 << 30;

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Address to listen on. 127.0.0.1:8080.
    pub(crate) listen: SocketAddr,
    /// Folder for everything kept. `rivulet-data`.
    pub(crate) data: PathBuf,
    /// The embedded log, or the spool in front of Kafka.
    pub(crate) log: LogSection,
    /// Apache Kafka as the log. Absent: the embedded log.
    pub(crate) kafka: Option<KafkaSection>,
    /// Limits and time-outs of the edge.
    pub(crate) gateway: GatewayConfig,
    /// Bounds of the HTTP server.
    pub(crate) server: ServerConfig,
    /// Certificate and key, for HTTPS and HTTP/2; read again when they change. Absent: HTTP.
    pub(crate) tls: Option<TlsFiles>,
    /// Who may write and read. Default: the development keys `wk_dev` and `sk_dev`.
    pub(crate) keys: Vec<KeyConfig>,
    /// TOML file with the `[[keys]]`, instead of `keys` here; read again when it changes.
    pub(crate) keys_file: Option<PathBuf>,
    /// TOML file with the `[[kill]]` rules; read again when it changes. Default: `kill.toml` in the data folder.
    pub(crate) kill_file: Option<PathBuf>,
    /// Where the schemas are.
    pub(crate) schemas: SchemasSection,
    /// Rules, model and windows.
    pub(crate) processor: ProcessorSection,
    /// The demo shop and console.
    pub(crate) demo: DemoSection,
}

/// The embedded log, or the spool in front of Kafka.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSection {
    /// Partitions of every topic of the embedded log; fixed when the folder is first used. 8.
    pub(crate) partitions: u32,
    /// Size at which a segment is sealed, bytes, from 4 KiB to 1 GiB. 64 MiB.
    pub(crate) segment_bytes: u64,
    /// Age at which a segment is deleted, hours; 0 keeps all. 168.
    pub(crate) retention_hours: u64,
    /// Size beyond which the oldest segments are deleted, bytes; 0 keeps all. 0.
    pub(crate) retention_bytes: u64,
    /// Free disk space below which no events are taken, bytes. 256 MiB.
    pub(crate) headroom_bytes: u64,
}

/// Apache Kafka as the log.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KafkaSection {
    /// Brokers to start from: host:port, more separated by commas.
    pub(crate) brokers: String,
    /// Partitions of topics that are made. 64.
    pub(crate) partitions: u32,
    /// Copies of topics that are made; -1 takes the broker's default. -1.
    pub(crate) replication: i32,
    /// How long a request for `ack=broker` waits before it is answered `disk`, milliseconds. 10,000.
    pub(crate) ack_deadline_ms: u64,
}

/// Where the schemas are.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SchemasSection {
    /// Folder of `<type>/<version>.json`. Default: the shop's schemas, built in.
    pub(crate) dir: Option<PathBuf>,
    /// How often the folder is looked at for changes, milliseconds; 0 never. 1,000.
    pub(crate) reload_ms: u64,
}

/// Rules, model and windows.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ProcessorSection {
    /// YAML file of rules. Default: the demo's rules, built in.
    pub(crate) rules: Option<PathBuf>,
    /// JSON file of the intent model. Default: the demo's model, built in.
    pub(crate) model: Option<PathBuf>,
    /// How long an event id is remembered, hours. 192.
    pub(crate) dedup_window_hours: u32,
    /// Silence that ends a session, minutes. 30.
    pub(crate) session_gap_minutes: u32,
    /// Authenticates the control records of all processors of one log; 32 bytes at least, the same for each of them. Default: made
    /// at the first start and kept in the data folder, which is enough for one processor.
    pub(crate) control_key: Option<SecretText>,
}

/// The demo shop and console.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DemoSection {
    /// Whether to serve them, and the demo's token service (the latter on loopback only). true.
    pub(crate) enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data: PathBuf::from("rivulet-data"),
            log: LogSection::default(),
            kafka: None,
            gateway: GatewayConfig::default(),
            server: ServerConfig::default(),
            tls: None,
            keys: KeyConfig::development(),
            keys_file: None,
            kill_file: None,
            schemas: SchemasSection::default(),
            processor: ProcessorSection::default(),
            demo: DemoSection { enabled: true },
        }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            partitions: 8,
            segment_bytes: 64 << 20,
            retention_hours: 7 * 24,
            retention_bytes: 0,
            headroom_bytes: 256 << 20,
        }
    }
}

impl Default for KafkaSection {
    fn default() -> Self {
        Self { brokers: String::new(), partitions: 64, replication: -1, ack_deadline_ms: 10_000 }
    }
}

impl Default for ProcessorSection {
    fn default() -> Self {
        Self { rules: None, model: None, dedup_window_hours: 192, session_gap_minutes: 30, control_key: None }
    }
}

impl Default for SchemasSection {
    fn default() -> Self {
        Self { dir: None, reload_ms: 1_000 }
    }
}

impl Default for DemoSection {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Config {
    /// Reads the file, lays the environment and the flags over it.
    pub(crate) fn load(
        options: &ServeOptions,
        variables: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        let mut table = match &options.config {
            Some(path) => read_table(path)?,
            None => toml::Table::new(),
        };
        environment::overlay(&mut table, variables)?;
        let place = options.config.as_deref().unwrap_or_else(|| Path::new("the environment"));
        anyhow::ensure!(
            !(table.contains_key("keys") && table.contains_key("keys_file")),
            "give `[[keys]]` or `keys_file`, not both: one of them would be ignored"
        );
        let mut config: Self =
            toml::Value::Table(table).try_into().with_context(|| format!("in {}", place.display()))?;
        if let Some(listen) = options.listen {
            config.listen = listen;
        }
        if let Some(data) = &options.data {
            config.data.clone_from(data);
        }
        if let Some(brokers) = &options.kafka {
            config.kafka.get_or_insert_default().brokers.clone_from(brokers);
        }
        config.demo.enabled &= !options.no_demo;
        if let Some(path) = &config.keys_file {
            config.keys = keys::read(path).with_context(|| format!("in {}", path.display()))?;
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.log.partitions > 0, "log.partitions must be at least 1");
        if let Some(key) = &self.processor.control_key {
            anyhow::ensure!(
                key.as_str().len() >= CONTROL_KEY_BYTES,
                "processor.control_key must have {CONTROL_KEY_BYTES} bytes at least: `openssl rand -hex 32` makes one"
            );
        }
        anyhow::ensure!(
            SEGMENT_BYTES.contains(&self.log.segment_bytes),
            "log.segment_bytes must be from {} to {}",
            SEGMENT_BYTES.start(),
            SEGMENT_BYTES.end()
        );
        // Here, before anything is made on disk.
        self.gateway.check().context("in [gateway]")?;
        Keys::new(&self.keys, Arc::new(SystemClock)).context("in [[keys]]")?;
        if let Some(kafka) = &self.kafka {
            anyhow::ensure!(
                !kafka.brokers.trim().is_empty(),
                "kafka.brokers must name a broker, as host:port"
            );
            anyhow::ensure!(kafka.partitions > 0, "kafka.partitions must be at least 1");
        }
        Ok(())
    }

    /// Where the kill rules are.
    pub(crate) fn kill_file(&self) -> PathBuf {
        self.kill_file.clone().unwrap_or_else(|| self.data.join("kill.toml"))
    }

    /// How the journal is kept, in the folder `name` of the data folder.
    pub(crate) fn journal(&self, name: &str) -> JournalConfig {
        let log = &self.log;
        JournalConfig {
            partitions: log.partitions,
            segment_bytes: log.segment_bytes,
            retention_age: (log.retention_hours > 0).then(|| Duration::from_secs(log.retention_hours * 3600)),
            retention_bytes: (log.retention_bytes > 0).then_some(log.retention_bytes),
            headroom_bytes: log.headroom_bytes,
            ..JournalConfig::new(self.data.join(name))
        }
    }
}

fn read_table(path: &Path) -> anyhow::Result<toml::Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse().with_context(|| format!("in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference with its examples in force.
    fn whole_reference() -> String {
        REFERENCE.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }

    /// The names of a section, as the reader of the configuration itself lists them when it meets another.
    fn names_of(section: &str) -> Vec<String> {
        let heading = if section.is_empty() { String::new() } else { format!("{section}\n") };
        let error = toml::from_str::<Config>(&format!("{heading}none_such = 1")).unwrap_err().to_string();
        let (_, expected) = error.split_once("expected").unwrap_or_else(|| panic!("{section}: {error}"));
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn what_help_shows_are_the_defaults() {
        let shown: Config = toml::from_str(REFERENCE).unwrap();
        assert_eq!(format!("{shown:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn what_help_shows_is_every_option_of_every_section() {
        let text = whole_reference();
        toml::from_str::<Config>(&text).unwrap_or_else(|error| panic!("{error}"));
        let mut section = String::new();
        let mut shown: Vec<(String, String)> = Vec::new();
        for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
            if line.starts_with('[') {
                line.clone_into(&mut section);
                let outermost = line.trim_matches(['[', ']']).to_owned();
                let (parent, name) = match outermost.split_once('.') {
                    Some((parent, name)) => (format!("[{parent}]"), name.to_owned()),
                    None => (String::new(), outermost),
                };
                shown.push((parent, name));
            } else if let Some((name, _)) = line.split_once(" = ") {
                shown.push((section.clone(), name.to_owned()));
            }
        }
        let mut sections: Vec<String> = shown.iter().map(|(section, _)| section.clone()).collect();
        sections.dedup();
        assert!(sections.len() >= 11, "{sections:?}");
        for section in sections {
            for name in names_of(&section) {
                assert!(
                    shown.contains(&(section.clone(), name.clone())),
                    "{section} {name} is not documented"
                );
            }
        }
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_defaults() {
        let options =
            ServeOptions { listen: Some("127.0.0.1:1".parse().unwrap()), ..ServeOptions::default() };
        let variables = [
            ("RIVULET__LISTEN", "127.0.0.1:2"),
            ("RIVULET__DATA", "elsewhere"),
            ("RIVULET__LOG__PARTITIONS", "3"),
        ];
        let variables = variables.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let config = Config::load(&options, variables.into_iter()).unwrap();
        assert_eq!((config.listen.port(), config.log.partitions), (1, 3));
        assert_eq!(config.data, PathBuf::from("elsewhere"));
    }

    #[test]
    fn a_control_key_must_be_long_and_is_never_printed() {
        let with = |key: &str| {
            let variables = [("RIVULET__PROCESSOR__CONTROL_KEY".to_owned(), key.to_owned())];
            Config::load(&ServeOptions::default(), variables.into_iter())
        };
        assert!(with("short").is_err());
        let long = "hush-hush-hush-hush-hush-hush-hush";
        let config = with(long).unwrap();
        assert_eq!(config.processor.control_key.as_ref().map(SecretText::as_str), Some(long));
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn a_misspelt_option_is_refused_by_name() {
        let variables = [("RIVULET__LOG__PARTITION".to_owned(), "3".to_owned())];
        let error = Config::load(&ServeOptions::default(), variables.into_iter()).unwrap_err();
        assert!(format!("{error:#}").contains("partition"), "{error:#}");
    }
}
