//! What goes into the engine and what comes out.
//!
//! **Invariant:** every text named `json` is JSON that the host's own serialiser made, without raw control characters; ids are UUIDs in
//! canonical form.

/// Milliseconds, of a span or since 1970: whole numbers. JavaScript has no other number, and the build without WebAssembly would
/// split every 64-bit integer into halves.
pub type Millis = f64;

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
    /// The event's id: the page's own, else minted by the host, rising.
    pub id: &'a str,
    /// The event's members from `"event_type"` on, without braces; who it is about is added here.
    pub json: &'a str,
}

/// The verdicts of an answer, in the order sent: for each the first letter of its `status` if that is `accepted`, `duplicate`,
/// `rejected` or `quarantined` (else nothing: the event is to be sent again), its `event_id` (nothing if it names none) and its
/// JSON, U+001F between all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verdicts<'a>(pub Option<&'a str>);

/// What came back for a request.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Answer<'a> {
    /// The number of [`Command::SendHttp`].
    pub request: u32,
    /// Status code; 0 if there was no answer that could be read.
    pub status: u32,
    /// `Retry-After`; 0 if there is none.
    pub retry_after: Millis,
    /// The refused request's `error.code`; empty if there is none.
    pub code: &'a str,
    /// What it says about the events.
    pub verdicts: Verdicts<'a>,
}

/// The server's greeting on the socket. Numbers that it does not name are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Greeting {
    /// Highest `seq` answered in the resumed session.
    pub resumed: u32,
    /// Batches that may be unanswered at once.
    pub credit: u32,
    /// Largest event, in bytes.
    pub event_bytes: u32,
    /// Largest batch, in bytes.
    pub batch_bytes: u32,
    /// Most events in a batch.
    pub batch_events: u32,
}

/// Something that happened outside.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Input<'a> {
    /// Found in storage: who and the session before [`Input::Start`], events and losses after [`Input::Leader`].
    Restored {
        /// `a`, `u`, `s`, `e:<event id>` or `d:<report id>`.
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
    /// The person is gone: another device, no person, another session.
    Reset {
        /// The device's new id.
        device: &'a str,
    },
    /// Try to send now.
    Flush,
    /// The socket is open, and the host has said `hello`.
    SocketOpen,
    /// The server has answered `hello`.
    Greeted(Greeting),
    /// The server has answered a batch.
    Ack {
        /// The batch.
        seq: u32,
        /// Everything up to here is answered.
        cumulative: u32,
        /// Batches that may be unanswered at once; 0 if it does not say.
        credit: u32,
        /// What it says about the events.
        verdicts: Verdicts<'a>,
    },
    /// The server wants a pause before the next batch.
    Pace(Millis),
    /// The server ends the socket: why.
    Refused {
        /// Letters, digits, `.` and `_`.
        code: &'a str,
    },
    /// The server said something else.
    Heard,
    /// The socket failed or ended.
    SocketClosed,
    /// A decision, from the socket or from another tab.
    Decision {
        /// Its id.
        id: &'a str,
        /// Its JSON.
        json: &'a str,
    },
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
#[derive(Clone, Copy, PartialEq, Debug)]
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
    /// Remove everything from storage, other tabs' events too: the visitor wants nothing kept.
    Purge,
    /// Open the socket; once it is open say `hello` and answer [`Input::SocketOpen`].
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
    SetTimer(Millis),
    /// For the page.
    Deliver(Delivery, &'a str),
}
