//! What goes into the engine and what comes out.
//!
//! **Invariant:** every text named `json` is JSON that the host's own serialiser made, without raw control characters.

use crate::id::EventId;

/// How an event ranks when there is no room for all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Priority {
    /// Shed first.
    BestEffort,
    /// The usual.
    #[default]
    Normal,
    /// Shed last.
    Critical,
}

/// Whether anything may be stored or sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consent {
    /// Yes.
    #[default]
    Granted,
    /// Not yet known: events are held in memory.
    Pending,
    /// No: nothing is kept, and what was kept is removed.
    Denied,
}

/// A call of the page that makes an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tracked<'a> {
    /// Rank when there is no room for all.
    pub priority: Priority,
    /// RFC 3339.
    pub timestamp: &'a str,
    /// JSON string.
    pub type_json: &'a str,
    /// JSON object.
    pub metadata_json: &'a str,
    /// JSON object.
    pub context_json: &'a str,
    /// The event's id, if the page brings its own.
    pub id: Option<EventId>,
}

/// What came back for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer<'a> {
    /// The number of [`Command::SendHttp`].
    pub request: u32,
    /// Status code; 0 if there was no answer that could be read.
    pub status: u16,
    /// `Retry-After` in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The body as text.
    pub body: &'a str,
}

/// Something that happened outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input<'a> {
    /// Found in storage: who and the session before [`Input::Start`], events after [`Input::Leader`].
    Restored {
        /// `a`, `u`, `s`, or `e:<event id>`.
        key: &'a str,
        /// What stands there.
        value: &'a str,
    },
    /// Another tab has changed storage.
    Stored {
        /// As above.
        key: &'a str,
        /// `None` if it was removed.
        value: Option<&'a str>,
    },
    /// The page's configuration.
    Start {
        /// The write key.
        key: &'a str,
        /// Name and version of the client.
        sdk: &'a str,
        /// Whether sockets may be used.
        socket: bool,
        /// Whether anything may be stored or sent.
        consent: Consent,
    },
    /// A write to storage failed.
    PutFailed {
        /// The key that could not be written.
        key: &'a str,
    },
    /// Storage was emptied from outside.
    Cleared,
    /// Something happened on the page.
    Track(Tracked<'a>),
    /// The person is known from now on; the call is an event of its own.
    Identify {
        /// The person's id as a JSON string.
        user_json: &'a str,
        /// The event that tells it; the metadata are the traits.
        event: Tracked<'a>,
    },
    /// The person is gone: another device id, no person, another session.
    Reset,
    /// Try to send now.
    Flush,
    /// The socket is open.
    SocketOpen,
    /// The socket received a text.
    SocketFrame(&'a str),
    /// The socket failed or ended.
    SocketClosed,
    /// Another tab was told a decision: its JSON.
    Decision(&'a str),
    /// A request ended.
    Http(Answer<'a>),
    /// The time set by [`Command::SetTimer`] has come.
    Timer,
    /// Whether there is a network.
    Online(bool),
    /// The page is hidden (`gone: false`) or being left.
    Hide {
        /// The page may never come back.
        gone: bool,
    },
    /// The page is visible again, or was taken out of the back-forward cache.
    Show,
    /// Whether this tab sends for all.
    Leader(bool),
    /// The person's choice.
    Consent(Consent),
}

/// How a request is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// The page lives on and waits for the answer.
    Live,
    /// The page may be gone before the answer: keepalive, else a beacon.
    Parting,
}

/// What a delivery to the page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// A verdict with the event's type.
    Verdict,
    /// A decision.
    Decision,
    /// How much waits: `{"events","bytes","discarded"}`.
    Queue,
    /// How events travel and whom they are about: `{"connection","anonymous_id"?,"user_id"?}`.
    State,
    /// Something the developer should see: `{"code","event_id"?}`.
    Error,
}

/// Something for the host to do, as read back from [`crate::Commands`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Write to storage; answer [`Input::PutFailed`] if that fails.
    Put {
        /// The key, without the host's prefix.
        key: &'a str,
        /// The value.
        value: &'a str,
    },
    /// Remove from storage.
    Del {
        /// The key, without the host's prefix.
        key: &'a str,
    },
    /// Open the socket.
    OpenSocket,
    /// Send a text on it.
    SendSocket(&'a str),
    /// Close it; [`Input::SocketClosed`] need not follow.
    CloseSocket,
    /// `POST /v1/events`; answer [`Input::Http`].
    SendHttp {
        /// To be named in the answer.
        request: u32,
        /// How.
        channel: Channel,
        /// The body.
        body: &'a str,
    },
    /// Answer [`Input::Timer`] in so many milliseconds; replaces an earlier one.
    SetTimer(u64),
    /// For the page.
    Deliver(Delivery, &'a str),
    /// The call just made has become the event of this id.
    Tracked(EventId),
}
