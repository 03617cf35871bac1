//! `GET /v1/stream`: the protocol `rivulet.v1` on a socket (see `docs/protocol.md`).
//!
//! Frames are worked off one after the other, so that a device's batches reach the log in the order sent; at most `credit` of
//! them wait, beyond that the socket is not read.
//!
//! **Invariant:** acks come in the order of the batches; a socket holds bounded memory whatever its peer does; it is closed with
//! a code that says why, and what was acknowledged before stays valid.

mod ending;
mod frame;
mod packing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use schemas::frame::{Compression, SUBPROTOCOL, ServerFrame};
use schemas::verdict::{Code, Status, Verdict};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use self::ending::{
    CLOSE_GOING_AWAY, CLOSE_KEY, CLOSE_ORIGIN, CLOSE_RESUMED, CLOSE_TIMEOUT, CLOSE_TRY_LATER, Ended, Ending,
    ended, not_text,
};
use self::frame::{ClientFrame, parse};
use self::packing::{Packed, pack};
use super::api::{Access, Answer, Operation, Verb};
use super::body::Share;
use super::socket::{Fault, Incoming, Socket, Upgrade};
use super::{Client, Visitor};
use crate::Gateway;
use crate::authenticate::{Credential, origin};
use crate::decode::compression::Cap;
use crate::entropy::mint_session_id;
use crate::error::RequestError;
use crate::push::{Opened, Session};

pub(crate) const STREAM: Operation = Operation {
    method: Verb::Get,
    path: "/v1/stream",
    summary: "A WebSocket of the protocol `rivulet.v1` (docs/protocol.md).",
    access: Access::AnyKey,
    parameters: &[],
    body: &[],
    answers: &[Answer::new(StatusCode::SWITCHING_PROTOCOLS, "The socket is open.", &[])],
    errors: &[Code::RequestInvalid, Code::Draining, Code::Internal],
};

/// Room for a frame's members beside its events, bytes.
const ENVELOPE_BYTES: usize = 4 << 10;

/// Upgrades, unless key or origin forbid it.
pub(crate) async fn stream(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
) -> Result<Response, RequestError> {
    let upgrade = Upgrade::of(&mut request, SUBPROTOCOL)?;
    let early = admit(&gateway, &request)?;
    let (parts, _) = request.into_parts();
    let visitor = Visitor::new(&parts.extensions, parts.headers);
    let limit = gateway.config.batch_bytes + ENVELOPE_BYTES;
    let write_timeout = Duration::from_millis(gateway.config.socket.write_timeout_ms);
    let (response, socket) = upgrade.accept(limit, write_timeout, gateway.budget.clone());
    tokio::spawn(async move {
        if let Some(socket) = socket.await {
            converse(gateway, socket, visitor, early).await;
        }
    });
    Ok(response)
}

/// The credential in the URL or headers, if there is one; and whether the origin may come in at all.
fn admit(gateway: &Gateway, request: &Request) -> Result<Option<Credential>, RequestError> {
    if gateway.drain.has_begun() {
        return Err(RequestError::new(Code::Draining, "The gateway is shutting down; connect again later."));
    }
    let keys = gateway.keys.load();
    let origin = origin(request.headers());
    if let Some(credential) = Credential::of(request.headers(), request.uri())? {
        keys.admit(&credential, origin)?;
        return Ok(Some(credential));
    }
    if keys.any_allows_origin(origin) {
        return Ok(None);
    }
    Err(RequestError::new(
        Code::OriginNotAllowed,
        "No key allows this page's origin. Add it to a key's `origins`.",
    ))
}

/// One socket from upgrade to close.
async fn converse(gateway: Arc<Gateway>, mut socket: Socket, visitor: Visitor, early: Option<Credential>) {
    let work = gateway.drain.work();
    gateway.metrics.sockets.inc();
    let ended = match greet(&gateway, &mut socket, &visitor, early).await {
        Ok((client, opened, compression)) => {
            let session = opened.session.clone();
            let ended = Conversation::new(&gateway, &mut socket, client, opened, compression).run().await;
            gateway.push.detach(&session, gateway.clock.now());
            ended
        }
        Err(ended) => ended,
    };
    if let Some(Ending { code, error }) = ended {
        let told = match error {
            Some((code, message)) => {
                say(&mut socket, &ServerFrame::Error { code, message: message.to_owned() }).await
            }
            None => Ok(()),
        };
        // The gateway need not wait until the peer has hung up.
        drop(work);
        if told.is_ok() {
            socket.close(code, error.map_or("", |(code, _)| code.as_str())).await;
        }
    }
    gateway.metrics.sockets.dec();
}

/// Waits for `hello` and answers it.
async fn greet(
    gateway: &Arc<Gateway>,
    socket: &mut Socket,
    visitor: &Visitor,
    early: Option<Credential>,
) -> Result<(Client, Opened, Option<Compression>), Ended> {
    let end = Instant::now() + Duration::from_millis(gateway.config.socket.hello_timeout_ms);
    let text = tokio::select! {
        text = timeout_at(end, first_text(socket)) => text,
        () = gateway.drain.begun() => return Err(Some(Ending::quiet(CLOSE_GOING_AWAY))),
    };
    let late = Ending::with(CLOSE_TIMEOUT, Code::BodyTimeout, "Say hello within the time allowed.");
    let text = text.map_err(|_| Some(late))??;
    let ClientFrame::Hello(hello) = parse(text.as_bytes(), gateway.config.batch_events).map_err(Some)? else {
        return Err(Some(Ending::not_a_frame()));
    };
    let credential = hello.key.as_deref().map(Credential::in_hello).or(early);
    let missing = Ending::with(CLOSE_KEY, Code::KeyMissing, "Name the write key in hello, or as `?key=`.");
    let credential = credential.ok_or(Some(missing))?;
    let key = gateway.keys.load().admit(&credential, origin(&visitor.headers)).map_err(|error| {
        let (code, message) = match error.code {
            Code::OriginNotAllowed => (CLOSE_ORIGIN, "The key does not allow this page's origin."),
            _ => (CLOSE_KEY, "This key is not known here."),
        };
        Some(Ending::with(code, error.code, message))
    })?;
    let fresh = mint_session_id(&*gateway.entropy).map_err(|_| Some(Ending::fault()))?;
    let opened = gateway.push.open(hello.resume.as_deref(), fresh, &key.source, gateway.clock.now());
    let full = Ending::with(CLOSE_TRY_LATER, Code::Overloaded, "Too many sessions; connect again later.");
    let opened = opened.map_err(|_| Some(full))?;
    let compression = Compression::agree(&hello.compression);
    let frame = ServerFrame::Hello {
        session: opened.session.id().to_owned(),
        resumed: opened.resumed,
        credit: gateway.config.socket.credit,
        server_time: gateway.clock.now().as_millis(),
        limits: gateway.limits(),
        compression,
    };
    if let Err(fault) = say(socket, &frame).await {
        gateway.push.detach(&opened.session, gateway.clock.now());
        return Err(ended(fault));
    }
    Ok((Client::new(gateway, key, visitor), opened, compression))
}

async fn first_text(socket: &mut Socket) -> Result<Utf8Bytes, Ended> {
    loop {
        match socket.receive().await.map_err(ended)? {
            Incoming::Text(text, _) => return Ok(text),
            Incoming::Binary(..) => return Err(Some(not_text())),
            Incoming::Ping | Incoming::Pong(_) => {}
        }
    }
}

async fn say(socket: &mut Socket, frame: &ServerFrame) -> Result<(), Fault> {
    socket.send(serde_json::to_string(frame).unwrap_or_default()).await
}

/// A socket after `hello`.
struct Conversation<'a> {
    gateway: &'a Arc<Gateway>,
    socket: &'a mut Socket,
    client: Client,
    session: Session,
    wake: Arc<Notify>,
    compression: Option<Compression>,
    /// Frames not yet worked off, at most `credit`.
    waiting: VecDeque<(Packed, Share)>,
    /// The batch that the log has.
    running: Option<Running>,
    /// Number of the last decision sent on this socket.
    sent: u64,
    last_heard: Instant,
    next_ping: Instant,
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
    Message(Result<Incoming, Fault>),
    Decisions,
    Ping,
    Silence,
    Drain,
}

impl<'a> Conversation<'a> {
    fn new(
        gateway: &'a Arc<Gateway>,
        socket: &'a mut Socket,
        client: Client,
        opened: Opened,
        compression: Option<Compression>,
    ) -> Self {
        let Opened { session, wake, .. } = opened;
        let now = Instant::now();
        Self {
            gateway,
            socket,
            client,
            session,
            wake,
            compression,
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
            message = self.socket.receive(), if reading => Happening::Message(message),
            () = self.wake.notified() => Happening::Decisions,
            () = sleep_until(self.next_ping) => Happening::Ping,
            () = sleep_until(silence), if reading => Happening::Silence,
            () = self.gateway.drain.begun() => Happening::Drain,
        }
    }

    /// Takes a message in; text waits for its turn.
    fn hear(&mut self, message: Result<Incoming, Fault>) -> Result<(), Ended> {
        self.last_heard = Instant::now();
        match message.map_err(ended)? {
            Incoming::Text(text, share) => self.queue(Packed::Plain(text), share),
            Incoming::Binary(..) if self.compression.is_none() => return Err(Some(not_text())),
            Incoming::Binary(bytes, share) => self.queue(Packed::Binary(bytes), share),
            Incoming::Pong(payload) => {
                if let Ok(number) = <[u8; 8]>::try_from(payload.as_ref()) {
                    self.gateway.push.confirm(&self.session, u64::from_be_bytes(number));
                }
            }
            Incoming::Ping => {}
        }
        Ok(())
    }

    fn queue(&mut self, message: Packed, share: Share) {
        self.gateway.metrics.received_bytes.inc_by(message.len() as u64);
        self.waiting.push_back((message, share));
    }

    /// Sends a frame, compressed where that was agreed on and is worth it.
    async fn tell(&mut self, frame: &ServerFrame) -> Result<(), Ended> {
        let text = serde_json::to_string(frame).unwrap_or_default();
        self.tell_text(text.into()).await
    }

    async fn tell_text(&mut self, text: Utf8Bytes) -> Result<(), Ended> {
        match pack(&text, self.compression) {
            Some(bytes) => self.socket.send_binary(bytes).await.map_err(ended),
            None => self.socket.send(text).await.map_err(ended),
        }
    }

    /// Works off frames until one has to wait for the log. A drain leaves them: the client sends them again.
    async fn work_off(&mut self) -> Result<(), Ended> {
        let config = &self.gateway.config;
        let cap = Cap { max_bytes: config.batch_bytes + ENVELOPE_BYTES, max_ratio: config.inflate_ratio };
        while self.running.is_none() && !self.gateway.drain.has_begun() {
            let Some((message, mut share)) = self.waiting.pop_front() else { break };
            let budget = self.gateway.overload.budget(self.client.lane());
            let text = message.open(self.compression, cap, &budget, &mut share).map_err(Some)?;
            match parse(&text, config.batch_events).map_err(Some)? {
                ClientFrame::Hello(_) => return Err(Some(Ending::not_a_frame())),
                ClientFrame::Ping => {
                    let server_time = self.gateway.clock.now().as_millis();
                    self.tell(&ServerFrame::Pong { server_time }).await?;
                }
                ClientFrame::Batch { seq, sent_at, ack, envelope, events } => {
                    let session = Some(self.session.clone());
                    self.gateway.note_discarded(self.client.source(), &envelope);
                    let transmission = self.client.transmission(self.gateway, ack, sent_at, session);
                    let verdicts = self.gateway.accept(&events, transmission);
                    self.running = Some(Running { seq, verdicts, _share: share });
                }
            }
        }
        Ok(())
    }

    async fn acknowledge(&mut self, seq: u64, verdicts: Option<Vec<Verdict>>) -> Result<(), Ended> {
        self.running = None;
        let events = verdicts.ok_or(Some(Ending::fault()))?;
        if events.iter().any(|verdict| verdict.status == Status::Retry) {
            let retry_after_ms = self.gateway.config.retry_after_s.saturating_mul(1_000);
            self.tell(&ServerFrame::Pace { retry_after_ms }).await?;
        }
        let frame = ServerFrame::Ack {
            seq,
            cumulative: self.gateway.push.answered(&self.session, seq),
            credit: self.gateway.config.socket.credit,
            server_time: self.gateway.clock.now().as_millis(),
            events,
        };
        self.tell(&frame).await
    }

    /// Sends decisions that are new to this socket, and a ping whose pong will confirm them.
    async fn push(&mut self) -> Result<(), Ended> {
        let Some(decisions) = self.gateway.push.decisions_after(&self.session, self.sent) else {
            return Err(Some(Ending::quiet(CLOSE_RESUMED)));
        };
        for (number, frame) in &decisions {
            self.tell_text(frame.as_ref().into()).await?;
            self.gateway.metrics.decisions_pushed.inc();
            self.sent = *number;
        }
        if decisions.is_empty() {
            return Ok(());
        }
        self.socket.ping(Bytes::copy_from_slice(&self.sent.to_be_bytes())).await.map_err(ended)
    }

    async fn ping(&mut self) -> Result<(), Ended> {
        self.next_ping = Instant::now() + Duration::from_millis(self.gateway.config.socket.ping_interval_ms);
        self.socket.ping(Bytes::new()).await.map_err(ended)
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

#[cfg(test)]
mod tests;
