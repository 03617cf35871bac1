//! A client of the WebSocket protocol `rivulet.v1` that can also break the rules of it.

use std::collections::VecDeque;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::faults::{self, SOON};

/// The subprotocol.
pub const PROTOCOL: &str = "rivulet.v1";

/// What came.
#[derive(Clone, PartialEq, Debug)]
pub enum Received {
    /// A text frame of the protocol.
    Frame(Value),
    /// A frame that came compressed.
    Packed(Value),
    /// An answer to a ping of the WebSocket layer.
    Pong(Vec<u8>),
    /// The end, with the close code if there was one.
    Closed(Option<u16>),
}

/// An open connection.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    aside: VecDeque<Value>,
    /// The session that the server named in `hello`.
    pub session: String,
}

impl Socket {
    /// Opens a connection without saying hello. `query` such as `?key=wk_dev`.
    pub async fn open(address: &str, query: &str, origin: Option<&str>) -> Result<Self, Box<Error>> {
        let mut request =
            format!("ws://{address}/v1/stream{query}").into_client_request().map_err(Box::new)?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(PROTOCOL));
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", HeaderValue::from_str(origin).expect("a header value"));
        }
        let connect = tokio_tungstenite::connect_async(request);
        let (stream, _) = faults::bounded("the upgrade", SOON, connect).await.map_err(Box::new)?;
        Ok(Self { stream, aside: VecDeque::new(), session: String::new() })
    }

    /// Opens a connection and says hello, naming a session to resume; gives the server's `hello` too.
    pub async fn hello(address: &str, resume: Option<&str>) -> (Self, Value) {
        let mut socket = Self::open(address, "", None).await.expect("the upgrade is accepted");
        let mut hello = json!({ "type": "hello", "key": "wk_dev", "sdk": "tests/0" });
        if let Some(resume) = resume {
            hello["resume"] = json!(resume);
        }
        socket.send(&hello).await;
        let answer = socket.expect("hello").await;
        answer["session"].as_str().expect("a session").clone_into(&mut socket.session);
        (socket, answer)
    }

    /// Sends a text message.
    pub async fn send(&mut self, frame: &Value) {
        self.stream.send(Message::text(frame.to_string())).await.expect("the connection is open");
    }

    /// Sends a batch.
    pub async fn batch(&mut self, seq: u64, events: &[Value]) {
        let sent_at = crate::events::now_millis();
        self.send(&json!({ "type": "batch", "seq": seq, "sent_at": sent_at, "events": events })).await;
    }

    /// Sends a batch and gives its ack.
    pub async fn acked(&mut self, seq: u64, events: &[Value]) -> Value {
        self.batch(seq, events).await;
        let ack = self.expect("ack").await;
        assert_eq!(ack["seq"], seq, "{ack}");
        ack
    }

    /// Sends any message; false if the connection is gone.
    pub async fn raw(&mut self, message: Message) -> bool {
        self.stream.send(message).await.is_ok()
    }

    /// A fragment of a text message.
    pub fn fragment(bytes: &[u8], first: bool, last: bool) -> Message {
        let opcode = OpCode::Data(if first { Data::Text } else { Data::Continue });
        Message::Frame(Frame::message(bytes.to_vec(), opcode, last))
    }

    /// What comes next.
    pub async fn next(&mut self) -> Received {
        loop {
            return match faults::bounded("a frame from the server", SOON, self.stream.next()).await {
                Some(Ok(Message::Text(text))) => Received::Frame(
                    serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}")),
                ),
                // Only sockets that agreed on gzip get these.
                Some(Ok(Message::Binary(bytes))) => Received::Packed(
                    serde_json::from_reader(flate2::read::GzDecoder::new(bytes.as_ref()))
                        .expect("JSON in gzip"),
                ),
                Some(Ok(Message::Pong(bytes))) => Received::Pong(bytes.to_vec()),
                Some(Ok(Message::Close(close))) => Received::Closed(close.map(|close| close.code.into())),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => Received::Closed(None),
            };
        }
    }

    /// The next frame of a type; others are kept for later.
    pub async fn expect(&mut self, kind: &str) -> Value {
        if let Some(at) = self.aside.iter().position(|frame| frame["type"] == kind) {
            return self.aside.remove(at).expect("just found");
        }
        loop {
            match self.next().await {
                Received::Frame(frame) | Received::Packed(frame) if frame["type"] == kind => return frame,
                Received::Frame(frame) | Received::Packed(frame) => self.aside.push_back(frame),
                Received::Pong(_) => {}
                Received::Closed(code) => {
                    panic!("closed with {code:?} instead of `{kind}`; came before: {:?}", self.aside)
                }
            }
        }
    }

    /// Reads to the end; the close code.
    pub async fn end(&mut self) -> Option<u16> {
        loop {
            if let Received::Closed(code) = self.next().await {
                return code;
            }
        }
    }

    /// Cuts the connection without a close.
    pub fn cut(self) {
        drop(self.stream);
    }
}
