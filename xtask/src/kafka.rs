//! `xtask kafka`: one real Kafka broker on 127.0.0.1, from the jars of its Maven artifacts.
//!
//! **Invariant:** the broker listens on loopback only; started means that it answered a request of its own protocol; only the
//! process whose id is in the folder, and which is a Kafka, is ever stopped.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::flags::Flags;
use crate::kafka_node::{self, Listener};
use crate::{step, toolchain};

const KAFKA_VERSION: &str = "4.3.1";
const LOG4J_VERSION: &str = "2.25.1";
const COPY_GOAL: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";

const DEFAULT_PORT: u16 = 9092;
const START_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);

/// Dispatches `xtask kafka …`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(args, &["dir", "port"])?;
    let broker = Broker::at(flags.value("dir"));
    match flags.words.first().map_or("start", String::as_str) {
        "fetch" => fetch().map(|libs| println!("{}", libs.display())),
        "start" => {
            let port = flags.value("port").map(str::parse).transpose().context("--port wants a number")?;
            let address = broker.start(port)?;
            println!("    Kafka answers on {address}; `cargo xtask kafka stop` stops it");
            Ok(())
        }
        "stop" => broker.stop(),
        "status" => broker.status(),
        other => bail!("`kafka {other}`: want fetch, start, stop or status"),
    }
}

/// The folder of the jars.
pub(crate) fn libs() -> PathBuf {
    home().join("libs")
}

/// Starts the default broker if it is not running, and returns its address.
pub(crate) fn ensure_started() -> Result<String> {
    Broker::at(None).start(None)
}

/// Fetches the jars if they are not there, and returns their folder.
pub(crate) fn fetch() -> Result<PathBuf> {
    let (home, libs) = (home(), libs());
    let stamp = home.join("version");
    let wanted = format!("kafka {KAFKA_VERSION}, log4j {LOG4J_VERSION}\n");
    fs::create_dir_all(&home)?;
    if libs.is_dir() && fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(libs);
    }
    toolchain::need_java()?;
    toolchain::need_maven()?;
    step::step(&format!("fetch Kafka {KAFKA_VERSION} (about 55 MB) by Maven"), || {
        if libs.exists() {
            fs::remove_dir_all(&libs)?;
        }
        fs::write(home.join("pom.xml"), pom())?;
        let mut mvn = step::command("mvn");
        mvn.current_dir(&home).args([
            "-q",
            "-B",
            COPY_GOAL,
            "-DoutputDirectory=libs",
            "-DincludeScope=runtime",
        ]);
        step::run(&mut mvn).context(
            "Maven could not fetch the jars: check the network and Maven's settings, then try again",
        )?;
        let core = libs.join(format!("kafka_2.13-{KAFKA_VERSION}.jar"));
        ensure!(core.is_file(), "Maven ended well, but {} is missing", core.display());
        fs::write(&stamp, wanted)?;
        println!("    {} in {}", step::size(step::folder_size(&libs)), libs.display());
        Ok(())
    })?;
    Ok(libs)
}

fn home() -> PathBuf {
    step::root().join(".components").join("kafka")
}

/// One broker with its folder.
struct Broker {
    dir: PathBuf,
}

impl Broker {
    fn at(dir: Option<&str>) -> Self {
        // A relative folder is the caller's, not the workspace's.
        let given = dir.map(|dir| std::env::current_dir().unwrap_or_default().join(dir));
        Self { dir: given.unwrap_or_else(|| home().join("broker")) }
    }

    fn start(&self, port: Option<u16>) -> Result<String> {
        if let Some(address) =
            self.address().filter(|address| self.pid().is_some_and(is_kafka) && answers(*address))
        {
            step::skip("start Kafka", &format!("already answers on {address}"));
            return Ok(address.to_string());
        }
        let libs = fetch()?;
        toolchain::need_java()?;
        step::step("start Kafka", || {
            let address = self.prepare(&libs, port)?;
            let mut java = self.launch(&libs)?;
            fs::write(self.dir.join("pid"), java.id().to_string())?;
            fs::write(self.dir.join("address"), address.to_string())?;
            self.wait(address, &mut java)?;
            Ok(address.to_string())
        })
    }

    /// Writes the configuration, and formats the folder the first time.
    fn prepare(&self, libs: &Path, port: Option<u16>) -> Result<SocketAddr> {
        fs::create_dir_all(&self.dir)?;
        if let Some(port) = port {
            ensure!(is_free(port), "port {port} is taken; choose another with --port");
        }
        // The same port as last time, so that whoever knows the address finds the broker again.
        let last = self.address().map(|address| address.port()).filter(|port| is_free(*port));
        let port = port
            .or(last)
            .or(Some(DEFAULT_PORT).filter(|port| is_free(*port)))
            .map_or_else(kafka_node::free_port, Ok)?;
        kafka_node::write_files(&self.dir, &[Listener { name: "PLAINTEXT", port, advertised: port }])?;
        if !self.dir.join("data/meta.properties").is_file() {
            step::output(&mut kafka_node::format_command(libs, &self.dir))?;
        }
        Ok(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn launch(&self, libs: &Path) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.dir.join("broker.log"))?;
        let mut java = kafka_node::run_command(libs, &self.dir);
        java.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        #[cfg(unix)]
        {
            // Its own group: Ctrl-C is for what runs in the terminal, not for the broker.
            std::os::unix::process::CommandExt::process_group(&mut java, 0);
        }
        java.spawn().context("cannot start java")
    }

    fn wait(&self, address: SocketAddr, java: &mut Child) -> Result<()> {
        let start = Instant::now();
        while !answers(address) {
            let log = self.dir.join("broker.log");
            ensure!(java.try_wait()?.is_none(), "the broker ended; its last words are in {}", log.display());
            ensure!(
                start.elapsed() < START_DEADLINE,
                "no answer after {START_DEADLINE:?}; see {}",
                log.display()
            );
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn stop(&self) -> Result<()> {
        let Some(pid) = self.pid().filter(|pid| is_kafka(*pid)) else {
            step::skip("stop Kafka", "none is running here");
            return Ok(());
        };
        step::step("stop Kafka", || {
            step::run(step::command("sh").args(["-c", &format!("kill -s TERM {pid}")]))?;
            let start = Instant::now();
            while is_kafka(pid) {
                ensure!(start.elapsed() < STOP_DEADLINE, "process {pid} still runs after {STOP_DEADLINE:?}");
                std::thread::sleep(POLL);
            }
            fs::remove_file(self.dir.join("pid")).context("cannot remove the pid file")
        })
    }

    fn status(&self) -> Result<()> {
        match (self.pid().filter(|pid| is_kafka(*pid)), self.address()) {
            (Some(pid), Some(address)) if answers(address) => {
                println!("Kafka answers on {address} (process {pid}, folder {})", self.dir.display());
                Ok(())
            }
            (Some(pid), _) => {
                bail!("process {pid} runs but does not answer; see {}", self.dir.join("broker.log").display())
            }
            (None, _) => {
                bail!("no broker runs in {}; `cargo xtask kafka start` starts one", self.dir.display())
            }
        }
    }

    fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join("pid")).ok()?.trim().parse().ok()
    }

    fn address(&self) -> Option<SocketAddr> {
        fs::read_to_string(self.dir.join("address")).ok()?.trim().parse().ok()
    }
}

/// Whether the process runs and is a Kafka: ids are used again.
fn is_kafka(pid: u32) -> bool {
    let proc =
        fs::read(format!("/proc/{pid}/cmdline")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    // Where there is no /proc, ask ps. A zombie has no command line and counts as ended.
    let words =
        proc.or_else(|_| step::output(step::command("ps").args(["-o", "args=", "-p", &pid.to_string()])));
    words.is_ok_and(|words| words.contains("kafka.Kafka"))
}

/// Whether a broker answers `ApiVersions` (key 18, version 0) there: an open port is not yet a broker.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_DEADLINE)?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
        // Length; key, version, correlation id, empty client id.
        stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0, 0])?;
        let mut head = [0; 10];
        stream.read_exact(&mut head)?;
        // Length; correlation id, error code 0.
        Ok(head.ends_with(&[0, 0, 0, 7, 0, 0]))
    };
    ask().unwrap_or(false)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn pom() -> String {
    let mut dependencies = String::new();
    for (group, artifact, version) in [
        ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
        ("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
        // slf4j is 1.7 in Kafka: this binding, not the one for slf4j 2.
        ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION),
        ("org.apache.logging.log4j", "log4j-core", LOG4J_VERSION),
    ] {
        let _ = writeln!(
            dependencies,
            "  <dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        );
    }
    format!(
        "<project><modelVersion>4.0.0</modelVersion>
 <groupId>local</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
 <dependencies>
{dependencies} </dependencies>
</project>
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_without_a_broker_does_not_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let silent = std::thread::spawn(move || drop(listener.accept()));
        assert!(!answers(address));
        silent.join().unwrap();
    }

    #[test]
    fn a_broker_that_answers_is_recognised() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let broker = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 14]).unwrap();
            stream.write_all(&[0, 0, 0, 10, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0]).unwrap();
        });
        assert!(answers(address));
        broker.join().unwrap();
    }

    #[test]
    fn our_own_process_is_no_kafka() {
        assert!(!is_kafka(std::process::id()));
    }
}
