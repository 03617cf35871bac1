//! A connection may end anywhere: cut after each byte in turn, up and down, plain and compressed.

use std::collections::HashMap;

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tests::client::gzip;
use tests::cut::{self, Way};
use tests::events::{self, Random, of_device};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::{Rivulet, sum};
use tests::socket::{Received, Socket};
use tokio_tungstenite::tungstenite::Message;

/// Conversations at the same time.
const AT_ONCE: usize = 8;
/// The upgrade is HTTP, whose cuts all look alike: every so many bytes of it are enough.
const UPGRADE_STEP: u64 = 32;
/// Below the shortest upgrade either way, bytes.
const UPGRADE_BYTES: u64 = 128;

/// One page visit: two batches of one event each.
struct Visit {
    batches: [Value; 2],
    packed: bool,
    session: Option<String>,
    answered: usize,
    base: usize,
}

impl Visit {
    fn new(device: &str, packed: bool) -> Self {
        let mut random = Random::new(
            device.bytes().fold(1_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into())),
        );
        let batches = [(); 2].map(|()| events::page_view(&mut random, &of_device(device)));
        Self { batches, packed, session: None, answered: 0, base: 0 }
    }

    /// Says what is unanswered and reads answers until all is answered (true) or the connection ends.
    async fn go_on(&mut self, address: &str) -> bool {
        let Ok(mut socket) = Socket::open(address, "", None).await else { return false };
        let mut hello = json!({ "type": "hello", "key": "wk_dev", "compression": ["lz4"] });
        if self.packed {
            hello["compression"] = json!(["gzip"]);
        }
        if let Some(session) = &self.session {
            hello["resume"] = json!(session);
        }
        if !socket.raw(Message::text(hello.to_string())).await {
            return false;
        }
        loop {
            match socket.next().await {
                Received::Frame(frame) => match frame["type"].as_str() {
                    Some("hello") => {
                        self.resume(&frame);
                        self.send(&mut socket).await;
                    }
                    Some("ack") => {
                        let cumulative = usize::try_from(frame["cumulative"].as_u64().unwrap()).unwrap();
                        self.answered = self.answered.max(self.base + cumulative);
                    }
                    _ => panic!("{frame}"),
                },
                Received::Packed(_) | Received::Pong(_) => {}
                Received::Closed(_) => return false,
            }
            if self.answered == self.batches.len() {
                return true;
            }
        }
    }

    fn resume(&mut self, hello: &Value) {
        assert_eq!(hello["compression"] == "gzip", self.packed, "{hello}");
        let session = hello["session"].as_str().unwrap().to_owned();
        if self.session.as_ref() != Some(&session) {
            self.base = self.answered;
        }
        self.session = Some(session);
        self.answered =
            self.answered.max(self.base + usize::try_from(hello["resumed"].as_u64().unwrap()).unwrap());
    }

    async fn send(&self, socket: &mut Socket) {
        for (place, event) in self.batches.iter().enumerate().skip(self.answered) {
            let seq = place - self.base + 1;
            let frame =
                json!({ "type": "batch", "seq": seq, "sent_at": events::now_millis(), "events": [event] });
            let text = frame.to_string();
            let message =
                if self.packed { Message::binary(gzip(text.as_bytes())) } else { Message::text(text) };
            if !socket.raw(message).await {
                return;
            }
        }
    }
}

/// Cuts one visit there, lets it go on, and tells whether the cut came before its end.
async fn visit(rivulet: &Rivulet, way: Way, packed: bool, bytes: u64) -> (Visit, bool) {
    let mut visit = Visit::new(&format!("cut-{way:?}-{packed}-{bytes}"), packed);
    let broken = cut::after(rivulet.address(), way, bytes).await;
    let done = visit.go_on(&broken.to_string()).await;
    if !done {
        assert!(visit.go_on(rivulet.address()).await, "{way:?} {bytes}: the second connection was cut too");
    }
    (visit, !done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_after_any_byte_loses_nothing_and_counts_nothing_twice() {
    let _timed = Timed::new("websocket: cut after each byte");
    let rivulet = Rivulet::up().await;
    let mut visits: Vec<Visit> = Vec::new();
    for (way, packed) in [(Way::Up, false), (Way::Down, false), (Way::Up, true)] {
        let upgrade = (0..UPGRADE_BYTES).step_by(usize::try_from(UPGRADE_STEP).unwrap());
        let mut places = stream::iter(upgrade.chain(UPGRADE_BYTES..))
            .map(|bytes| visit(&rivulet, way, packed, bytes))
            .buffered(AT_ONCE);
        let mut cuts = 0;
        loop {
            let (visit, was_cut) = places.next().await.unwrap();
            visits.push(visit);
            if !was_cut {
                break;
            }
            cuts += 1;
        }
        assert!(cuts > 300, "{way:?}: only {cuts} places");
    }
    let records = log::events(&rivulet).await;
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (place, record) in records.iter().enumerate() {
        first.entry(record.event_id()).or_insert(place);
    }
    for visit in &visits {
        let [one, two] = visit.batches.each_ref().map(|event| first.get(events::id(event)));
        assert!(one.is_some() && two.is_some(), "an answered event is not on the log");
        assert!(one < two, "out of order");
    }
    let applied = faults::until(SOON, async || {
        let metrics = rivulet.metrics().await;
        let consumed = sum(&metrics, "rivulet_processor_records_total", &[])?;
        // Visits under way when the last place was found were dropped: their events may be there or not.
        let applied = sum(&metrics, "rivulet_processor_records_total", &["\"applied\""])?;
        (consumed >= records.len() as u64).then_some((consumed, applied))
    });
    let (consumed, applied) = applied.await.expect("everything is consumed");
    assert!(consumed >= applied && applied >= 2 * visits.len() as u64, "{applied} of {consumed}");
    for visit in visits.iter().step_by(97) {
        let device = visit.batches[0]["anonymous_id"].as_str().unwrap();
        let profile = rivulet.profile(&format!("anonymous:{device}")).await.expect("a profile");
        assert_eq!(profile["counters"]["page_view"], 2, "{profile}");
    }
    eprintln!("cut at {} places; {} records on the log for {} events", visits.len(), records.len(), applied);
}
