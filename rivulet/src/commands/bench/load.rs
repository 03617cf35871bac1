//! Load over HTTP or WebSocket: each connection sends its next batch when the last one is answered, or at a given rate.
//!
//! **Invariant:** only answered batches count, and an answer other than 200 fails the run unless refusals are what is looked
//! at. At a rate, latency counts from the moment a batch was due, so that a server that stalls is not spared the batches that waited behind.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::events::{Generator, product_view};
use super::socket;

/// What to send.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Load {
    /// The server.
    pub(in crate::commands) address: SocketAddr,
    /// The key to send with.
    pub(in crate::commands) key: &'static str,
    /// Requests of one connection that are made ahead.
    pub(in crate::commands) prepared: usize,
    /// 429 and 503 are counted, and the next batch is sent; not over sockets.
    pub(in crate::commands) may_refuse: bool,
    /// The level asked for, such as `disk`; none for a server that knows no levels.
    pub(in crate::commands) ack: Option<&'static str>,
    /// Over sockets of `rivulet.v1` instead of requests.
    pub(in crate::commands) socket: bool,
    /// Connections at once.
    pub(in crate::commands) connections: usize,
    /// Events in a batch.
    pub(in crate::commands) batch: usize,
    /// Events a second over all connections; `None` is a closed loop.
    pub(in crate::commands) rate: Option<f64>,
    /// How long to send.
    pub(in crate::commands) duration: Duration,
    /// Start of the event ids.
    pub(in crate::commands) seed: u64,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub(in crate::commands) struct Answered {
    /// Events in answered batches.
    pub(in crate::commands) events: u64,
    /// Events in batches that were refused.
    pub(in crate::commands) refused: u64,
    /// Wall time of the run.
    pub(in crate::commands) elapsed: Duration,
    /// Time from the first byte sent, or due, to the whole answer, a batch each, sorted.
    pub(in crate::commands) latencies: Vec<Duration>,
}

impl Answered {
    /// The latency below which `share` (0 to 1) of the batches lie, in milliseconds.
    pub(in crate::commands) fn percentile_ms(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a length is an index"
        )]
        let index =
            ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    }

    /// Events a second.
    pub(in crate::commands) fn rate(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

impl Load {
    /// Time between two batches of a connection.
    fn pace(&self) -> Option<Duration> {
        let rate = self.rate?;
        Some(Duration::from_secs_f64((self.connections * self.batch) as f64 / rate.max(1.0)))
    }
}

/// Requests of one connection, made ahead so that the loop only sends. Longer runs go round with fresh ids patched in.
pub(in crate::commands) const PREPARED_REQUESTS: usize = 64;
/// Largest answer that is read, bytes.
const ANSWER_MAX: usize = 4 << 20;

/// What a connection will send.
struct Ready {
    number: usize,
    generator: Generator,
    requests: Vec<Request>,
}

/// Runs the load to its end. Requests are made, then connections opened, before the first is sent: that work would stand in the way
/// of the first answers, and count as their latency.
pub(in crate::commands) async fn run(load: &Load) -> anyhow::Result<Answered> {
    let ready: Vec<Ready> = (0..load.connections).map(|number| Ready::new(load, number)).collect();
    let mut streams = Vec::with_capacity(load.connections);
    for _ in &ready {
        streams.push(connect(load).await?);
    }
    let started = now();
    let mut tasks = tokio::task::JoinSet::new();
    for (ready, stream) in ready.into_iter().zip(streams) {
        let load = load.clone();
        tasks.spawn(async move { ready.send(&load, stream, started).await });
    }
    let mut total = Answered::default();
    while let Some(done) = tasks.join_next().await {
        let one = done.context("a connection's task failed")??;
        total.events += one.events;
        total.refused += one.refused;
        total.latencies.extend(one.latencies);
    }
    total.elapsed = started.elapsed();
    total.latencies.sort_unstable();
    Ok(total)
}

async fn connect(load: &Load) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(load.address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    if load.socket {
        socket::greet(&mut stream, load.address).await?;
    }
    Ok(stream)
}

impl Ready {
    fn new(load: &Load, number: usize) -> Self {
        let seed = load.seed ^ (number as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d);
        let mut generator = Generator::new(seed);
        let requests = (0..load.prepared).map(|_| Request::new(load, &mut generator)).collect();
        Self { number, generator, requests }
    }

    async fn send(
        mut self,
        load: &Load,
        mut stream: TcpStream,
        started: Instant,
    ) -> anyhow::Result<Answered> {
        let mut answered = Answered::default();
        let mut buffer = Vec::with_capacity(64 << 10);
        let pace = load.pace();
        // Connections are spread over the interval, so that their batches do not come all at once.
        let share = self.number as f64 / load.connections as f64;
        let mut sequence = 0;
        let mut due = started + pace.map_or(Duration::ZERO, |every| every.mul_f64(share));
        while started.elapsed() < load.duration {
            for request in &mut self.requests {
                if started.elapsed() >= load.duration {
                    break;
                }
                sequence += 1;
                request.renew(&mut self.generator, sequence);
                let sent = if let Some(every) = pace {
                    tokio::time::sleep_until(due.into()).await;
                    let sent = due;
                    due += every;
                    sent
                } else {
                    now()
                };
                stream.write_all(&request.bytes).await?;
                let taken = if load.socket {
                    socket::read_ack(&mut stream, &mut buffer).await.map(|()| true)?
                } else {
                    read_answer(&mut stream, &mut buffer, load.may_refuse).await?
                };
                if taken {
                    answered.latencies.push(sent.elapsed());
                    answered.events += load.batch as u64;
                } else {
                    answered.refused += load.batch as u64;
                }
            }
        }
        Ok(answered)
    }
}

/// A whole HTTP request or WebSocket message, and where the event ids stand in it.
struct Request {
    bytes: Vec<u8>,
    ids: Vec<usize>,
    /// Where a message's number stands.
    sequence: Option<usize>,
}

impl Request {
    fn new(load: &Load, generator: &mut Generator) -> Self {
        let millis = unix_millis();
        let events: Vec<String> = (0..load.batch).map(|_| product_view(generator, millis)).collect();
        let body = format!("[{}]", events.join(","));
        let (bytes, sequence) = if load.socket {
            let (bytes, at) = socket::batch(load.ack.unwrap_or("disk"), &body);
            (bytes, Some(at))
        } else {
            let query = load.ack.map(|level| format!("?ack={level}")).unwrap_or_default();
            let head = format!(
                "POST /v1/events{query} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                load.address,
                load.key,
                body.len()
            );
            ([head.into_bytes(), body.into_bytes()].concat(), None)
        };
        let marker = b"{\"event_id\":\"";
        let ids = bytes.windows(marker.len()).enumerate().filter(|(_, window)| window == marker);
        let ids = ids.map(|(at, _)| at + marker.len()).collect();
        Self { bytes, ids, sequence }
    }

    /// Writes new event ids, so that no batch is a repetition, and the message's number.
    fn renew(&mut self, generator: &mut Generator, sequence: u64) {
        if let Some(place) = self.sequence.and_then(|at| self.bytes.get_mut(at..at + socket::SEQUENCE_BYTES))
        {
            place.copy_from_slice(socket::sequence(sequence).as_bytes());
        }
        let millis = unix_millis();
        for at in &self.ids {
            let id = generator.event_id(millis).to_string();
            if let Some(place) = self.bytes.get_mut(*at..at + id.len()) {
                place.copy_from_slice(id.as_bytes());
            }
        }
    }
}

/// Reads one answer with a `content-length`; whether the batch was taken.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>, may_refuse: bool) -> anyhow::Result<bool> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        let Some(head_end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(buffer.get(..head_end).unwrap_or_default()).to_ascii_lowercase();
        let taken = head.starts_with("http/1.1 200");
        let refused = ["http/1.1 503", "http/1.1 429"].iter().any(|line| head.starts_with(line));
        if !(taken || (may_refuse && refused && head.contains("retry-after:"))) {
            bail!(
                "the server answered {}: {}",
                head.lines().next().unwrap_or(""),
                String::from_utf8_lossy(buffer)
            );
        }
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let whole = head_end + 4 + length.context("the answer has no content-length")?;
        if whole > ANSWER_MAX {
            bail!("the answer is larger than {ANSWER_MAX} bytes");
        }
        while buffer.len() < whole {
            if stream.read_buf(buffer).await? == 0 {
                bail!("the server closed the connection in an answer");
            }
        }
        return Ok(taken);
    }
}

fn unix_millis() -> u64 {
    use broker::clock::Clock as _;
    u64::try_from(broker::clock::SystemClock.now().as_millis()).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}
