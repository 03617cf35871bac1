//! `GET /v1/stream`: the socket, subprotocol `rivulet.v1` (see `docs/protocol.md`).
//!
//! Frames are worked off one after the other, so that a device's batches reach the log in the order sent; at most `credit` of
//! them wait, beyond that the socket is not read.
//!
//! **Invariant:** acks come in the order of the batches; a socket holds bounded memory whatever its peer does; it is closed with
//! a code that says why, and what was acknowledged before stays valid.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use schemas::frame::{ClientHello, SUBPROTOCOL, ServerFrame};
use schemas::json::{self, Body, Kind, Member};
use schemas::verdict::{AckLevel, Code, Reason, Status, Verdict};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::body::Share;
use super::{Client, Visitor};
use crate::Gateway;
use crate::authenticate::{Credential, origin, parameter};
use crate::decode::native::SentAt;
use crate::entropy::mint_session_id;
use crate::error::RequestError;
use crate::push::{Opened, Session};

/// The server goes away; connect again.
const CLOSE_GOING_AWAY: u16 = 1001;
/// The peer broke RFC 6455.
const CLOSE_PROTOCOL: u16 = 1002;
/// Not text.
const CLOSE_UNSUPPORTED: u16 = 1003;
/// Text that is not UTF-8.
const CLOSE_NOT_UTF8: u16 = 1007;
/// A message above the limit.
const CLOSE_TOO_LARGE: u16 = 1009;
/// Too many sessions; connect later.
const CLOSE_TRY_LATER: u16 = 1013;
/// Not a frame of the protocol.
const CLOSE_FRAME: u16 = 4400;
/// No key, or an unknown one.
const CLOSE_KEY: u16 = 4401;
/// The key does not allow the origin.
const CLOSE_ORIGIN: u16 = 4403;
/// No `hello` in time, or silence.
const CLOSE_TIMEOUT: u16 = 4408;
/// Another socket has resumed the session.
const CLOSE_RESUMED: u16 = 4409;

/// Room for a frame's members beside its events, bytes.
const ENVELOPE_BYTES: usize = 4 << 10;
/// Read and write buffers of a socket, bytes; the defaults would be 128 KiB each.
const BUFFER_BYTES: usize = 4 << 10;
/// The largest answer: verdicts of a whole batch, each with its reason, bytes.
const MAX_WRITE_BUFFER_BYTES: usize = 8 << 20;
/// Deepest nesting of `hello` and `ping`.
const CONTROL_DEPTH: usize = 8;
/// After the close frame the peer has this long to take it.
const LINGER: Duration = Duration::from_secs(1);
/// Pause between two looks at a socket that cannot be read any more.
const LINGER_STEP: Duration = Duration::from_millis(50);

/// Why a socket ends.
#[derive(Clone, Debug)]
struct Ending {
    code: u16,
    /// Sent as an error frame before.
    error: Option<(Code, &'static str)>,
}

impl Ending {
    const fn quiet(code: u16) -> Self {
        Self { code, error: None }
    }

    const fn with(code: u16, error: Code, message: &'static str) -> Self {
        Self { code, error: Some((error, message)) }
    }

    const fn not_a_frame() -> Self {
        let message = "Not a frame of rivulet.v1, or not at this place; see docs/protocol.md.";
        Self::with(CLOSE_FRAME, Code::FrameInvalid, message)
    }
}

/// `None`: the peer is gone, nothing to say.
type Ended = Option<Ending>;

/// What a client says.
enum ClientFrame<'a> {
    Hello(ClientHello),
    Batch { seq: u64, sent_at: SentAt, ack: Option<AckLevel>, events: Vec<&'a [u8]> },
    Ping,
}

/// Upgrades, unless key or origin forbid it.
pub(crate) async fn stream(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let early = match admit(&gateway, &parts) {
        Ok(early) => early,
        Err(error) => return error.into_response(),
    };
    let visitor = Visitor::new(&parts.extensions, parts.headers);
    let limit = gateway.config.batch_bytes + ENVELOPE_BYTES;
    upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
        .max_message_size(limit)
        .max_frame_size(limit)
        .on_upgrade(move |socket| converse(gateway, socket, visitor, early))
}

/// The credential in the URL or headers, if there is one; and whether the origin may come in at all.
fn admit(gateway: &Gateway, parts: &http::request::Parts) -> Result<Option<Credential>, RequestError> {
    if gateway.drain.has_begun() {
        return Err(RequestError::new(Code::Draining, "The gateway is shutting down; connect again later."));
    }
    let keys = gateway.keys.load();
    if let Some(credential) = Credential::of(&parts.headers, &parts.uri)? {
        keys.admit(&credential, origin(&parts.headers))?;
        return Ok(Some(credential));
    }
    debug_assert!(parameter(&parts.uri, "key").is_none());
    if keys.any_allows_origin(origin(&parts.headers)) {
        return Ok(None);
    }
    Err(RequestError::new(
        Code::OriginNotAllowed,
        "No key allows this page's origin. Add it to a key's `origins`.",
    ))
}

/// One socket from upgrade to close.
async fn converse(gateway: Arc<Gateway>, mut socket: WebSocket, visitor: Visitor, early: Option<Credential>) {
    let _work = gateway.drain.work();
    gateway.metrics.sockets.inc();
    let ended = match greet(&gateway, &mut socket, &visitor, early).await {
        Ok((client, opened)) => {
            let session = opened.session.clone();
            let mut conversation = Conversation::new(&gateway, &mut socket, client, opened);
            let ended = conversation.run().await;
            gateway.push.detach(&session, gateway.clock.now());
            ended
        }
        Err(ended) => ended,
    };
    if let Some(ending) = ended {
        close(&mut socket, &ending, &gateway).await;
    }
    gateway.metrics.sockets.dec();
}

/// Waits for `hello` and answers it.
async fn greet(
    gateway: &Arc<Gateway>,
    socket: &mut WebSocket,
    visitor: &Visitor,
    early: Option<Credential>,
) -> Result<(Client, Opened), Ended> {
    let end = Instant::now() + Duration::from_millis(gateway.config.socket.hello_timeout_ms);
    let text = loop {
        let message = tokio::select! {
            message = timeout_at(end, socket.recv()) => message,
            () = gateway.drain.begun() => return Err(Some(Ending::quiet(CLOSE_GOING_AWAY))),
        };
        let Ok(message) = message else {
            let message = "Say hello within the time allowed.";
            return Err(Some(Ending::with(CLOSE_TIMEOUT, Code::BodyTimeout, message)));
        };
        if let Some(text) = text_of(message)? {
            break text;
        }
    };
    let ClientFrame::Hello(hello) = parse(text.as_bytes(), gateway.config.batch_events).map_err(Some)? else {
        return Err(Some(Ending::not_a_frame()));
    };
    let credential = match (&hello.key, early) {
        (Some(key), _) => Credential::in_hello(key),
        (None, Some(credential)) => credential,
        (None, None) => {
            let message = "Name the write key in hello, or as `?key=`.";
            return Err(Some(Ending::with(CLOSE_KEY, Code::KeyMissing, message)));
        }
    };
    let key = gateway.keys.load().admit(&credential, origin(&visitor.headers)).map_err(|error| {
        let (code, message) = match error.code {
            Code::OriginNotAllowed => (CLOSE_ORIGIN, "The key does not allow this page's origin."),
            _ => (CLOSE_KEY, "This key is not known here."),
        };
        Some(Ending::with(code, error.code, message))
    })?;
    let fault = Ending::with(CLOSE_TRY_LATER, Code::Internal, "A fault of the gateway; connect again.");
    let fresh = mint_session_id(&*gateway.entropy).map_err(|_| Some(fault))?;
    let opened = gateway
        .push
        .open(hello.resume.as_deref(), fresh, &key.source, gateway.clock.now())
        .map_err(|_| {
            Some(Ending::with(CLOSE_TRY_LATER, Code::Overloaded, "Too many sessions; connect again later."))
        })?;
    let frame = ServerFrame::Hello {
        session: opened.session.id().to_owned(),
        resumed: opened.resumed,
        credit: gateway.config.socket.credit,
        server_time: gateway.clock.now().as_millis(),
        limits: gateway.limits(),
    };
    send(socket, gateway, text_message(&frame)).await?;
    Ok((Client::new(gateway, key, visitor), opened))
}

/// A socket after `hello`.
struct Conversation<'a> {
    gateway: &'a Arc<Gateway>,
    socket: &'a mut WebSocket,
    client: Client,
    session: Session,
    wake: Arc<Notify>,
    /// Frames not yet worked off, at most `credit`.
    waiting: VecDeque<Waiting>,
    /// The batch that the log has.
    running: Option<Running>,
    /// Number of the last decision sent on this socket.
    sent: u64,
    last_heard: Instant,
    next_ping: Instant,
}

struct Waiting {
    text: Utf8Bytes,
    /// `None`: there was no memory for it, and its events are to be sent again.
    share: Option<Share>,
}

struct Running {
    seq: u64,
    verdicts: JoinHandle<Vec<Verdict>>,
    /// Given back with the answer.
    _share: Share,
}

/// What happened next.
enum Happening {
    Answered(u64, Option<Vec<Verdict>>),
    Message(Option<Result<Message, axum::Error>>),
    Decisions,
    Ping,
    Silence,
    Drain,
}

impl<'a> Conversation<'a> {
    fn new(gateway: &'a Arc<Gateway>, socket: &'a mut WebSocket, client: Client, opened: Opened) -> Self {
        let Opened { session, wake, .. } = opened;
        let now = Instant::now();
        Self {
            gateway,
            socket,
            client,
            session,
            wake,
            waiting: VecDeque::new(),
            running: None,
            sent: 0,
            last_heard: now,
            next_ping: now + Duration::from_millis(gateway.config.socket.ping_interval_ms),
        }
    }

    async fn run(&mut self) -> Ended {
        loop {
            let done = match self.next().await {
                Happening::Answered(seq, verdicts) => self.acknowledge(seq, verdicts).await,
                Happening::Message(message) => self.hear(message),
                Happening::Decisions => self.push().await,
                Happening::Ping => self.ping().await,
                Happening::Silence => Err(Some(Ending::quiet(CLOSE_TIMEOUT))),
                Happening::Drain => self.finish().await,
            };
            let done = match done {
                Ok(()) => self.work_off().await,
                ended => ended,
            };
            if let Err(ended) = done {
                return ended;
            }
        }
    }

    async fn next(&mut self) -> Happening {
        let settings = &self.gateway.config.socket;
        let reading = self.waiting.len() < settings.credit as usize;
        let silence = self.last_heard + Duration::from_millis(settings.silence_timeout_ms);
        let running = &mut self.running;
        let answered = async {
            match running {
                Some(Running { seq, verdicts, .. }) => Happening::Answered(*seq, verdicts.await.ok()),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answered = answered => answered,
            message = self.socket.recv(), if reading => Happening::Message(message),
            () = self.wake.notified() => Happening::Decisions,
            () = sleep_until(self.next_ping) => Happening::Ping,
            () = sleep_until(silence), if reading => Happening::Silence,
            () = self.gateway.drain.begun() => Happening::Drain,
        }
    }

    /// Takes a message in; text waits for its turn.
    fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), Ended> {
        self.last_heard = Instant::now();
        if let Some(Ok(Message::Pong(payload))) = &message {
            if let Ok(number) = <[u8; 8]>::try_from(payload.as_ref()) {
                self.gateway.push.confirm(&self.session, u64::from_be_bytes(number));
            }
            return Ok(());
        }
        if let Some(text) = text_of(message)? {
            self.gateway.metrics.received_bytes.inc_by(text.len() as u64);
            let share = self.gateway.budget.take(text.len());
            self.waiting.push_back(Waiting { text, share });
        }
        Ok(())
    }

    /// Works off frames until one has to wait for the log.
    async fn work_off(&mut self) -> Result<(), Ended> {
        while self.running.is_none() {
            let Some(Waiting { text, share }) = self.waiting.pop_front() else { break };
            match parse(text.as_bytes(), self.gateway.config.batch_events).map_err(Some)? {
                ClientFrame::Hello(_) => return Err(Some(Ending::not_a_frame())),
                ClientFrame::Ping => {
                    let server_time = self.gateway.clock.now().as_millis();
                    send(self.socket, self.gateway, text_message(&ServerFrame::Pong { server_time })).await?;
                }
                ClientFrame::Batch { seq, sent_at, ack, events } => match share {
                    Some(share) => {
                        let session = Some(self.session.clone());
                        let transmission = self.client.transmission(self.gateway, ack, sent_at, session);
                        let verdicts = self.gateway.accept(&events, transmission);
                        self.running = Some(Running { seq, verdicts, _share: share });
                    }
                    None => self.pace(seq, events.len()).await?,
                },
            }
        }
        Ok(())
    }

    /// Tells a client to send a batch again later.
    async fn pace(&mut self, seq: u64, events: usize) -> Result<(), Ended> {
        let retry_after_ms = self.gateway.config.retry_after_s.saturating_mul(1_000);
        send(self.socket, self.gateway, text_message(&ServerFrame::Pace { retry_after_ms })).await?;
        let verdict = || Verdict {
            event_id: None,
            status: Status::Retry,
            acked: None,
            reason: Some(Reason::new(Code::Overloaded)),
            warnings: Vec::new(),
        };
        self.acknowledge(seq, Some((0..events).map(|_| verdict()).collect())).await
    }

    async fn acknowledge(&mut self, seq: u64, verdicts: Option<Vec<Verdict>>) -> Result<(), Ended> {
        self.running = None;
        let fault = Ending::with(
            CLOSE_TRY_LATER,
            Code::Internal,
            "A fault of the gateway; send again, ids make that safe.",
        );
        let events = verdicts.ok_or(Some(fault))?;
        let frame = ServerFrame::Ack {
            seq,
            cumulative: self.gateway.push.answered(&self.session, seq),
            credit: self.gateway.config.socket.credit,
            server_time: self.gateway.clock.now().as_millis(),
            events,
        };
        send(self.socket, self.gateway, text_message(&frame)).await
    }

    /// Sends decisions that are new to this socket, and a ping whose pong will confirm them.
    async fn push(&mut self) -> Result<(), Ended> {
        let Some(decisions) = self.gateway.push.decisions_after(&self.session, self.sent) else {
            return Err(Some(Ending::quiet(CLOSE_RESUMED)));
        };
        for (number, frame) in &decisions {
            send(self.socket, self.gateway, Message::Text(frame.as_ref().into())).await?;
            self.gateway.metrics.decisions_pushed.inc();
            self.sent = *number;
        }
        if decisions.is_empty() {
            return Ok(());
        }
        let number = Bytes::copy_from_slice(&self.sent.to_be_bytes());
        send(self.socket, self.gateway, Message::Ping(number)).await
    }

    async fn ping(&mut self) -> Result<(), Ended> {
        self.next_ping = Instant::now() + Duration::from_millis(self.gateway.config.socket.ping_interval_ms);
        send(self.socket, self.gateway, Message::Ping(Bytes::new())).await
    }

    /// The gateway drains: the batch under way is answered, what waits is sent again by the client.
    async fn finish(&mut self) -> Result<(), Ended> {
        if let Some(Running { seq, verdicts, .. }) = self.running.take() {
            let verdicts = verdicts.await.ok();
            self.acknowledge(seq, verdicts).await?;
        }
        Err(Some(Ending::quiet(CLOSE_GOING_AWAY)))
    }
}

/// The text of a message; pings and pongs are answered below us.
fn text_of(message: Option<Result<Message, axum::Error>>) -> Result<Option<Utf8Bytes>, Ended> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        Some(Ok(Message::Binary(_))) => {
            let message = "Frames are JSON text, not binary.";
            Err(Some(Ending::with(CLOSE_UNSUPPORTED, Code::FrameInvalid, message)))
        }
        Some(Ok(Message::Close(_))) | None => Err(None),
        Some(Err(error)) => Err(ending_of(&error)),
    }
}

/// How a fault below us ends the socket. Axum hides the type of the fault, so it is told by the words.
fn ending_of(error: &axum::Error) -> Ended {
    let words = error.to_string();
    if words.contains("Space limit exceeded") {
        let message = "The message is larger than `batch_bytes`; send fewer events.";
        Some(Ending::with(CLOSE_TOO_LARGE, Code::BodyTooLarge, message))
    } else if words.contains("UTF-8") {
        Some(Ending::quiet(CLOSE_NOT_UTF8))
    } else if words.contains("without closing handshake") {
        None
    } else if words.contains("WebSocket protocol error") {
        Some(Ending::quiet(CLOSE_PROTOCOL))
    } else {
        None
    }
}

/// Reads one frame. Events stay bytes, so that a broken one costs only itself.
fn parse(text: &[u8], max_events: usize) -> Result<ClientFrame<'_>, Ending> {
    let body = json::split(text, max_events).map_err(|error| match error.code {
        Code::BatchTooManyEvents => Ending::with(
            CLOSE_FRAME,
            Code::BatchTooManyEvents,
            "Too many events in one batch; see `limits` in hello.",
        ),
        _ => Ending::not_a_frame(),
    })?;
    match body {
        Body::One(frame) => {
            let limits = json::Limits { max_depth: CONTROL_DEPTH };
            let members = json::object(frame, limits).map_err(|_| Ending::not_a_frame())?;
            match member_text(&members, "type").as_deref() {
                Some("hello") => {
                    serde_json::from_slice(frame).map(ClientFrame::Hello).map_err(|_| Ending::not_a_frame())
                }
                Some("ping") => Ok(ClientFrame::Ping),
                _ => Err(Ending::not_a_frame()),
            }
        }
        Body::Many { events, envelope } => {
            if member_text(&envelope, "type").as_deref() != Some("batch") {
                return Err(Ending::not_a_frame());
            }
            let seq = envelope.iter().find(|member| member.name == "seq" && member.kind == Kind::Number);
            let seq = seq.and_then(|member| std::str::from_utf8(member.value).ok()?.parse().ok());
            let ack = match envelope.iter().find(|member| member.name == "ack" && member.kind != Kind::Null) {
                Some(member) => {
                    let level = member.text().and_then(|word| AckLevel::parse(&word));
                    Some(level.ok_or_else(Ending::not_a_frame)?)
                }
                None => None,
            };
            let seq = seq.ok_or_else(Ending::not_a_frame)?;
            Ok(ClientFrame::Batch { seq, sent_at: SentAt::from_envelope(&envelope), ack, events })
        }
    }
}

fn member_text(members: &[Member<'_>], name: &str) -> Option<String> {
    members.iter().find(|member| member.name == name)?.text()
}

fn text_message(frame: &ServerFrame) -> Message {
    Message::Text(serde_json::to_string(frame).unwrap_or_default().into())
}

/// Sends within the time allowed; a peer that does not read is gone.
async fn send(socket: &mut WebSocket, gateway: &Gateway, message: Message) -> Result<(), Ended> {
    let limit = Duration::from_millis(gateway.config.socket.write_timeout_ms);
    match timeout(limit, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(None),
    }
}

/// Says why, and gives the peer a moment to take it: bytes left unread would reset the connection and lose the close frame.
async fn close(socket: &mut WebSocket, ending: &Ending, gateway: &Gateway) {
    if let Some((code, message)) = ending.error {
        let frame = ServerFrame::Error { code, message: message.to_owned() };
        if send(socket, gateway, text_message(&frame)).await.is_err() {
            return;
        }
    }
    let reason = ending.error.map_or("", |(code, _)| code.as_str());
    let frame = CloseFrame { code: ending.code, reason: reason.into() };
    if send(socket, gateway, Message::Close(Some(frame))).await.is_err() {
        return;
    }
    let end = Instant::now() + LINGER;
    loop {
        match timeout_at(end, socket.recv()).await {
            Ok(Some(Ok(Message::Close(_))) | None) | Err(_) => return,
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(_))) => tokio::time::sleep(LINGER_STEP).await,
        }
    }
}

#[cfg(test)]
mod tests;
