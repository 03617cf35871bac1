//! What a Kafka of one node is started with: its settings, how it logs, how java is called. `xtask/src/kafka.rs` includes this file.
//!
//! **Invariant:** every listener is on loopback; std alone, so that whoever includes it stays light.

use std::fmt::Write as _;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// Any cluster id will do on one machine.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";

const LOG4J: &str = "\
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
";

/// Everything but listeners and folder: small, quick to start, quick to notice that it was away.
const SETTINGS: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=2
background.threads=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=4194304
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
";

/// Where clients reach the node: its own port, and the port it tells them, which may be a proxy's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listener {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) advertised: u16,
}

/// Writes the node's files into its folder; the data is kept below it.
pub(crate) fn write_files(dir: &Path, listeners: &[Listener]) -> io::Result<()> {
    std::fs::write(dir.join("server.properties"), properties(listeners, free_port()?, &dir.join("data")))?;
    std::fs::write(dir.join("log4j2.properties"), LOG4J)
}

/// The command that formats the folder's data.
pub(crate) fn format_command(libs: &Path, dir: &Path) -> Command {
    let mut java = java(libs, dir, &["-Xmx64m"]);
    java.args(["kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID]);
    java.args(["-c", "server.properties"]);
    java
}

/// The command that runs the node.
pub(crate) fn run_command(libs: &Path, dir: &Path) -> Command {
    let mut java = java(libs, dir, &["-Xms128m", "-Xmx256m"]);
    java.args(["kafka.Kafka", "server.properties"]);
    java
}

/// A port that nobody uses now.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn java(libs: &Path, dir: &Path, heap: &[&str]) -> Command {
    let mut java = Command::new("java");
    java.current_dir(dir).args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
    java.args(heap).arg("-cp").arg(libs.join("*")).arg("-Dlog4j2.configurationFile=log4j2.properties");
    java
}

fn properties(listeners: &[Listener], controller: u16, data: &Path) -> String {
    let controller = format!("CONTROLLER://127.0.0.1:{controller}");
    let (mut own, mut advertised) = (controller.clone(), controller.clone());
    let mut protocols = "CONTROLLER:PLAINTEXT".to_owned();
    for Listener { name, port, advertised: told } in listeners {
        let _ = write!(own, ",{name}://127.0.0.1:{port}");
        let _ = write!(advertised, ",{name}://127.0.0.1:{told}");
        let _ = write!(protocols, ",{name}:PLAINTEXT");
    }
    let quorum = controller.trim_start_matches("CONTROLLER://");
    format!(
        "{SETTINGS}controller.quorum.bootstrap.servers={quorum}
listeners={own}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
log.dirs={}
",
        data.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listener_is_on_loopback() {
        let proxied = Listener { name: "PROXIED", port: 1, advertised: 2 };
        let text = properties(&[proxied, Listener { name: "PLAINTEXT", ..proxied }], 3, Path::new("data"));
        let lists = text.lines().filter(|line| line.contains("listeners="));
        let listeners: Vec<&str> = lists.flat_map(|line| line.split(',')).collect();
        assert_eq!(listeners.len(), 6);
        assert!(listeners.iter().all(|listener| listener.contains("://127.0.0.1:")), "{listeners:?}");
    }
}
