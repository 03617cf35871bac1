//! The WebSocket below the frames: upgrade, messages, close.
//!
//! By hand around tungstenite instead of axum's wrapper, for two things that it hides: what exactly went wrong with a message,
//! and the raw stream behind it, whose rest must be read before the end, or the connection is reset and the peer never sees
//! why it was closed.
//!
//! **Invariant:** bytes read and not yet worked off are within the budget that all requests share; after a close frame the rest
//! of the peer's bytes is read and dropped, within bounds of size and time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use schemas::verdict::Code;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::body::{Budget, Share};
use crate::error::RequestError;

/// Read buffer of a socket, bytes; the default would be 128 KiB.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// The largest answer: verdicts of a whole batch, each with its reason, bytes.
const MAX_WRITE_BUFFER_BYTES: usize = 8 << 20;
/// What a control frame costs on the wire beside its payload, bytes.
const CONTROL_FRAME_BYTES: usize = 6;
/// After the close frame this much is read and dropped.
const DISCARDED_BYTES: usize = 32 << 20;
/// And for this long.
const LINGER: Duration = Duration::from_secs(2);

/// An open WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: WebSocketStream<Metered>,
    write_timeout: Duration,
}

/// A message that came.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Text, with its share of the budget.
    Text(Utf8Bytes, Share),
    /// Bytes, with their share of the budget.
    Binary(Bytes, Share),
    /// A ping, which is answered below.
    Ping,
    /// A pong with the payload of our ping.
    Pong(Bytes),
}

/// Why nothing more comes or goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The peer closed, or is not there any more.
    #[error("the peer is gone")]
    Gone,
    /// A message above the limit.
    #[error("the message is too large")]
    TooLarge,
    /// Text that is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// The peer broke RFC 6455.
    #[error("not the WebSocket protocol")]
    Protocol,
    /// No memory for more bytes now.
    #[error("too much at once")]
    Overloaded,
}

/// A request that may become a WebSocket.
pub(crate) struct Upgrade {
    response: Response,
    pending: OnUpgrade,
}

impl Upgrade {
    /// Checks the request. `protocol` is selected if the client offers it.
    pub(crate) fn of(request: &mut Request, protocol: &'static str) -> Result<Self, RequestError> {
        let headers = request.headers();
        // `HEAD` is routed as `GET` is.
        let asks = request.method() == Method::GET
            && lists(headers, &CONNECTION, "upgrade")
            && lists(headers, &UPGRADE, "websocket");
        let version = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| asks && version).ok_or_else(|| {
            RequestError::new(
                Code::RequestInvalid,
                "This path is a WebSocket (version 13); see docs/protocol.md.",
            )
        })?;
        let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
        let accept = accept.map_err(|_| RequestError::new(Code::Internal, "A fault of the gateway."))?;
        let offered = lists(headers, &SEC_WEBSOCKET_PROTOCOL, protocol);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let answer = response.headers_mut();
        answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
        if offered {
            answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        Ok(Self { response, pending: hyper::upgrade::on(request) })
    }

    /// The answer to send, and the socket that will be there when it is sent.
    pub(crate) fn accept(
        self,
        max_message_bytes: usize,
        write_timeout: Duration,
        budget: Budget,
    ) -> (Response, impl Future<Output = Option<Socket>>) {
        let pending = self.pending;
        let socket = async move {
            let upgraded = pending.await.ok()?;
            let inner = Metered { inner: TokioIo::new(upgraded), budget, share: Share::default() };
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER_BYTES)
                .write_buffer_size(0)
                .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
                .max_message_size(Some(max_message_bytes))
                .max_frame_size(Some(max_message_bytes));
            let stream = WebSocketStream::from_raw_socket(inner, Role::Server, Some(config)).await;
            Some(Socket { stream, write_timeout })
        };
        (self.response, socket)
    }
}

/// Whether a comma-separated header has this word.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
}

impl Socket {
    /// The next message. Can be dropped half-way and called again.
    pub(crate) async fn receive(&mut self) -> Result<Incoming, Fault> {
        let message = self.stream.next().await.ok_or(Fault::Gone)?.map_err(|error| Fault::of(&error))?;
        let metered = self.stream.get_mut();
        match message {
            Message::Text(text) => Ok(Incoming::Text(text, std::mem::take(&mut metered.share))),
            Message::Ping(payload) => {
                metered.share.shrink(payload.len() + CONTROL_FRAME_BYTES);
                Ok(Incoming::Ping)
            }
            Message::Pong(payload) => {
                metered.share.shrink(payload.len() + CONTROL_FRAME_BYTES);
                Ok(Incoming::Pong(payload))
            }
            Message::Binary(bytes) => Ok(Incoming::Binary(bytes, std::mem::take(&mut metered.share))),
            Message::Close(_) => {
                // The answer to the peer's close is only written by the next call, and there is none.
                let _ = timeout(self.write_timeout, self.stream.flush()).await;
                Err(Fault::Gone)
            }
            Message::Frame(_) => Err(Fault::Gone),
        }
    }

    /// Sends text.
    pub(crate) async fn send(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), Fault> {
        self.write(Message::Text(text.into())).await
    }

    /// Sends bytes.
    pub(crate) async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<(), Fault> {
        self.write(Message::Binary(bytes.into())).await
    }

    /// Sends a ping.
    pub(crate) async fn ping(&mut self, payload: Bytes) -> Result<(), Fault> {
        self.write(Message::Ping(payload)).await
    }

    /// A peer that does not read in time is gone.
    async fn write(&mut self, message: Message) -> Result<(), Fault> {
        match timeout(self.write_timeout, self.stream.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Fault::Gone),
        }
    }

    /// Says why, then reads and drops what the peer still sends, until it hangs up too.
    pub(crate) async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: Utf8Bytes::from_static(reason) };
        if self.write(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        let stream = &mut self.stream.get_mut().inner;
        let end = Instant::now() + LINGER;
        if !matches!(timeout_at(end, stream.shutdown()).await, Ok(Ok(()))) {
            return;
        }
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        let mut dropped = 0;
        while dropped < DISCARDED_BYTES {
            match timeout_at(end, stream.read(&mut buffer)).await {
                Ok(Ok(read)) if read > 0 => dropped += read,
                _ => return,
            }
        }
    }
}

impl Fault {
    fn of(error: &Error) -> Self {
        match error {
            Error::Capacity(_) => Self::TooLarge,
            Error::Utf8(_) => Self::NotUtf8,
            Error::Io(error) if error.kind() == io::ErrorKind::OutOfMemory => Self::Overloaded,
            Error::Protocol(
                tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            ) => Self::Gone,
            Error::Protocol(_) | Error::AttackAttempt => Self::Protocol,
            _ => Self::Gone,
        }
    }
}

/// A connection whose unread bytes are counted.
#[derive(Debug)]
struct Metered {
    inner: TokioIo<Upgraded>,
    budget: Budget,
    /// Of bytes read since the last whole text.
    share: Share,
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        let grown = this.budget.grow(&mut this.share, read);
        Poll::Ready(grown.map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error)))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}
