//! A real Apache Kafka broker, one node, on loopback.
//!
//! **Invariant:** one broker a test run, started when first needed and dead with the run; tests that use it hold its lock and
//! tell their own people apart by prefix, because topic names are fixed. Ready means that it answered a metadata request.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};

use crate::faults::{self, LATER, Signal};
use crate::hole::Hole;
use crate::kafka_node::{self, Listener};
use crate::leash::Leash;
use crate::log;

/// How long a clean stop may take.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// How long one answer of a broker may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

const METADATA: (i16, i16) = (3, 4);
const ALTER_CONFIGS: (i16, i16) = (44, 0);

static SHARED: Mutex<Option<Broker>> = Mutex::const_new(None);

/// A broker with its folder.
#[derive(Debug)]
pub struct Broker {
    dir: TempDir,
    process: Option<Leash>,
    port: u16,
    /// The listener that tells clients to come by the proxy, and the proxy's port.
    proxied: u16,
    proxy: u16,
}

/// The shared broker, held.
#[derive(Debug)]
pub struct Shared(MutexGuard<'static, Option<Broker>>);

impl std::ops::Deref for Shared {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        self.0.as_ref().expect("set when taken")
    }
}

impl std::ops::DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut Broker {
        self.0.as_mut().expect("set when taken")
    }
}

/// Takes the broker of this run, starting it if need be. It is up, whatever the test before did to it.
pub async fn shared() -> Shared {
    let mut slot = SHARED.lock().await;
    let broker = slot.get_or_insert_with(Broker::prepared);
    broker.resume();
    broker.start().await;
    Shared(slot)
}

/// A broker of one's own, whose topics are empty.
pub async fn own() -> Broker {
    let mut broker = Broker::prepared();
    broker.start().await;
    broker
}

impl Broker {
    fn prepared() -> Self {
        let dir = tempfile::Builder::new().prefix("rivulet-kafka-").tempdir().expect("a temporary folder");
        let free = || kafka_node::free_port().expect("a free port");
        let (port, proxied, proxy) = (free(), free(), free());
        log::forget(&format!("127.0.0.1:{port}"));
        log::forget(&format!("127.0.0.1:{proxy}"));
        let own = Listener { name: "PLAINTEXT", port, advertised: port };
        let by_proxy = Listener { name: "PROXIED", port: proxied, advertised: proxy };
        kafka_node::write_files(dir.path(), &[own, by_proxy]).expect("the folder is writable");
        let output = kafka_node::format_command(&jars(), dir.path()).output().expect("java starts");
        assert!(output.status.success(), "formatting failed: {}", String::from_utf8_lossy(&output.stderr));
        Self { dir, process: None, port, proxied, proxy }
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A proxy in front of it, and `host:port` for clients that come by it alone.
    pub async fn behind_hole(&self) -> (Hole, String) {
        (Hole::between(self.proxy, self.proxied).await, format!("127.0.0.1:{}", self.proxy))
    }

    /// Starts it, if it is not running, and waits for a real answer.
    pub async fn start(&mut self) {
        if self.process.is_none() {
            let mut command = kafka_node::run_command(&jars(), self.dir.path());
            let output = File::options().create(true).append(true).open(self.dir.path().join("broker.log"));
            let output = output.expect("a log file");
            let errors = output.try_clone().expect("a log file");
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
            self.process = Some(Leash::start(&mut command, Some(self.dir.path())));
        }
        let address = self.address();
        let ready = faults::until(LATER, async || brokers(&address).await.filter(|count| *count == 1));
        let ready = ready.await.is_some();
        assert!(ready, "the broker did not answer: {}", self.output());
    }

    /// Stops it, cleanly if it will.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.terminate(STOP_DEADLINE).await;
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Freezes it: connections stay open, nothing is answered.
    pub fn pause(&self) {
        faults::signal(self.process.as_ref().expect("running").pid(), Signal::Stop);
    }

    /// Thaws it.
    pub fn resume(&self) {
        if let Some(process) = &self.process {
            faults::signal(process.pid(), Signal::Continue);
        }
    }

    /// Sets an option of a topic.
    pub async fn set(&self, topic: &str, option: &str, value: &str) {
        let mut body = Vec::new();
        put_u32(&mut body, 1);
        body.push(2);
        put_text(&mut body, topic);
        put_u32(&mut body, 1);
        put_text(&mut body, option);
        body.push(0);
        put_text(&mut body, value);
        body.push(0);
        let answer = request(&self.address(), ALTER_CONFIGS, &body).await.expect("the broker answers");
        // throttle, number of resources, error code
        assert_eq!(answer.get(8..10), Some(&[0, 0][..]), "cannot set {option} of {topic}: {answer:?}");
    }

    fn output(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("broker.log")).unwrap_or_default();
        text.lines().rev().take(30).collect::<Vec<_>>().join("\n")
    }
}

fn jars() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let jars = std::env::var_os("RIVULET_KAFKA_LIBS")
        .map_or_else(|| root.join(".components/kafka/libs"), PathBuf::from);
    assert!(jars.is_dir(), "{} is missing: run `cargo xtask kafka fetch` first", jars.display());
    jars
}

/// How many brokers a metadata answer names.
async fn brokers(address: &str) -> Option<u32> {
    // no topics, no creation
    let answer = request(address, METADATA, &[0, 0, 0, 0, 0]).await?;
    // throttle, number of brokers
    answer.get(4..8).map(|bytes| u32::from_be_bytes(bytes.try_into().expect("four bytes")))
}

/// One request of Kafka's protocol, header version 1; the answer's body.
async fn request(address: &str, (api, version): (i16, i16), body: &[u8]) -> Option<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let mut message = Vec::new();
        message.extend_from_slice(&api.to_be_bytes());
        message.extend_from_slice(&version.to_be_bytes());
        put_u32(&mut message, 1);
        put_text(&mut message, "tests");
        message.extend_from_slice(body);
        let length = u32::try_from(message.len()).ok()?;
        stream.write_u32(length).await.ok()?;
        stream.write_all(&message).await.ok()?;
        let length = stream.read_u32().await.ok()?;
        let mut answer = vec![0; usize::try_from(length).ok()?];
        stream.read_exact(&mut answer).await.ok()?;
        Some(answer.split_off(4))
    };
    faults::during(ANSWER_DEADLINE, exchange).await.flatten()
}

fn put_u32(message: &mut Vec<u8>, number: u32) {
    message.extend_from_slice(&number.to_be_bytes());
}

fn put_text(message: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("a short text");
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(text.as_bytes());
}
