//! Reading server frames and answers.
//!
//! **Invariant:** every step goes forward, none recurses; nothing is copied.

/// What a server frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FrameKind {
    /// Answer to `hello`.
    Hello,
    /// Answer to `batch`.
    Ack,
    /// Something for the page to show.
    Decision,
    /// Answer to `ping`.
    Pong,
    /// Send slower.
    Pace,
    /// The connection ends.
    Error,
    /// Not told, as in the answer of `POST /v1/events`, or a later version's frame: to be ignored.
    #[default]
    Other,
}

/// The numbers of `limits`; 0 where the server named none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WireLimits {
    /// Largest event, in bytes.
    pub event_bytes: u64,
    /// Largest body or batch frame, in bytes.
    pub batch_bytes: u64,
    /// Most events in a body or batch frame.
    pub batch_events: u64,
    /// Deepest nesting.
    pub depth: u64,
}

/// A server frame, or the answer of `POST /v1/events`, with what the engine needs of it. Absent members are `None`.
/// Texts are as they stand between the quotes: ids, codes and sessions never hold escapes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: FrameKind,
    /// `ack`: the batch answered.
    pub seq: Option<u64>,
    /// `ack`: everything up to here is answered.
    pub cumulative: Option<u64>,
    /// `hello`, `ack`: batches that may be unanswered at once.
    pub credit: Option<u64>,
    /// `hello`, `ack`, `pong`: milliseconds since 1970.
    pub server_time: Option<u64>,
    /// `hello`: what to name in `resume` after a cut.
    pub session: Option<&'a str>,
    /// `hello`: highest `seq` answered in the resumed session.
    pub resumed: Option<u64>,
    /// `pace`: milliseconds to wait before the next batch.
    pub retry_after_ms: Option<u64>,
    /// `hello`: what the server takes.
    pub limits: Option<WireLimits>,
    /// `error`, or a refused request's `error.code`.
    pub code: Option<&'a str>,
    /// `decision`: its JSON.
    pub decision: Option<&'a str>,
    /// `decision`: its `decision_id`.
    pub decision_id: Option<&'a str>,
    /// `decision`: its `slot`.
    pub slot: Option<&'a str>,
    events: Option<&'a str>,
}

impl<'a> Frame<'a> {
    /// Reads a frame or an answer; `None` when it is no JSON object (an offline page, a captive portal).
    pub fn read(text: &'a str) -> Option<Self> {
        let mut frame = Self::default();
        let mut members = Members::of(text)?;
        for (name, value) in members.by_ref() {
            match name {
                "type" => frame.kind = kind_of(string(value)),
                "seq" => frame.seq = number(value),
                "cumulative" => frame.cumulative = number(value),
                "credit" => frame.credit = number(value),
                "server_time" => frame.server_time = number(value),
                "session" => frame.session = string(value),
                "resumed" => frame.resumed = number(value),
                "retry_after_ms" => frame.retry_after_ms = number(value),
                "limits" => frame.limits = read_limits(value),
                "code" => frame.code = string(value),
                "error" => frame.code = member_text(value, "code"),
                "decision" if value.starts_with('{') => {
                    frame.decision = Some(value);
                    frame.decision_id = member_text(value, "decision_id");
                    frame.slot = member_text(value, "slot");
                }
                "events" if value.starts_with('[') => frame.events = Some(value),
                _ => {}
            }
        }
        members.ended_well().then_some(frame)
    }

    /// The verdicts of an `ack` or an answer, in the order sent; none if there are no `events`.
    pub fn verdicts(&self) -> Verdicts<'a> {
        Verdicts { elements: Elements::of(self.events.unwrap_or("[]")) }
    }

    /// Whether it has an `events` member: an answer without one is no answer to our events.
    pub fn has_verdicts(&self) -> bool {
        self.events.is_some()
    }
}

/// What became of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WireStatus {
    /// On the log.
    Accepted,
    /// Was on the log already.
    Duplicate,
    /// Kept aside, fixable; not on the log.
    Quarantined,
    /// Refused; sending it again unchanged will not help.
    Rejected,
    /// Not taken now; send it again later.
    Retry,
    /// A word this version does not know: keep the event.
    #[default]
    Unknown,
}

/// The answer for one event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WireVerdict<'a> {
    /// The event's canonical id.
    pub event_id: Option<&'a str>,
    /// What became of it.
    pub status: WireStatus,
    /// The level reached: `received`, `disk` or `broker`.
    pub acked: Option<&'a str>,
    /// `reason.code`.
    pub code: Option<&'a str>,
    /// The verdict's JSON, to hand to the page.
    pub json: &'a str,
}

/// Iterates over the verdicts of a frame; ends at the first thing that is no object.
#[derive(Clone, Debug)]
pub struct Verdicts<'a> {
    elements: Elements<'a>,
}

impl<'a> Iterator for Verdicts<'a> {
    type Item = WireVerdict<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let json = self.elements.next()?;
        let mut verdict = WireVerdict { json, ..WireVerdict::default() };
        for (name, value) in Members::of(json)? {
            match name {
                "event_id" => verdict.event_id = string(value),
                "status" => verdict.status = status_of(string(value)),
                "acked" => verdict.acked = string(value),
                "reason" => verdict.code = member_text(value, "code"),
                _ => {}
            }
        }
        Some(verdict)
    }
}

/// The text of a member of a JSON object, if it is a string without escapes.
pub fn member_text<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    string(member(object, name)?)
}

/// The JSON of a member of a JSON object.
pub fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    Members::of(object)?.find(|(found, _)| *found == name).map(|(_, value)| value)
}

fn kind_of(word: Option<&str>) -> FrameKind {
    match word {
        Some("hello") => FrameKind::Hello,
        Some("ack") => FrameKind::Ack,
        Some("decision") => FrameKind::Decision,
        Some("pong") => FrameKind::Pong,
        Some("pace") => FrameKind::Pace,
        Some("error") => FrameKind::Error,
        _ => FrameKind::Other,
    }
}

fn status_of(word: Option<&str>) -> WireStatus {
    match word {
        Some("accepted") => WireStatus::Accepted,
        Some("duplicate") => WireStatus::Duplicate,
        Some("quarantined") => WireStatus::Quarantined,
        Some("rejected") => WireStatus::Rejected,
        Some("retry") => WireStatus::Retry,
        _ => WireStatus::Unknown,
    }
}

fn read_limits(value: &str) -> Option<WireLimits> {
    let mut limits = WireLimits::default();
    for (name, value) in Members::of(value)? {
        let value = number(value).unwrap_or(0);
        match name {
            "event_bytes" => limits.event_bytes = value,
            "batch_bytes" => limits.batch_bytes = value,
            "batch_events" => limits.batch_events = value,
            "depth" => limits.depth = value,
            _ => {}
        }
    }
    Some(limits)
}

/// What stands between the quotes, unless it holds an escape.
fn string(value: &str) -> Option<&str> {
    let text = value.strip_prefix('"')?.strip_suffix('"')?;
    (!text.as_bytes().contains(&b'\\')).then_some(text)
}

/// A whole number that is not negative; fractions, exponents and what does not fit are `None`.
fn number(value: &str) -> Option<u64> {
    let mut number = 0_u64;
    for byte in value.bytes() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (!value.is_empty()).then_some(number)
}

/// A place in a text. Every step goes forward, so that every loop over it ends.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Skips white space, then `byte` if it stands there.
    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// Skips a string that starts here, quotes included.
    fn skip_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(())
    }

    /// The JSON of the value that starts here: a string, what brackets enclose, or a word.
    fn value(&mut self) -> Option<&'a str> {
        self.space();
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                Some(b'"') => self.skip_string()?,
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') | None if depth == 0 => break,
                Some(_) => {
                    self.at += 1;
                    if depth == 0 {
                        continue;
                    }
                }
                None => return None,
            }
            if depth == 0 {
                break;
            }
        }
        self.text.get(start..self.at).filter(|value| !value.is_empty())
    }
}

/// Iterates over the members of an object: name between its quotes, value as JSON.
struct Members<'a> {
    cursor: Cursor<'a>,
    first: bool,
    ended: bool,
}

impl<'a> Members<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let mut cursor = Cursor { text, at: 0 };
        cursor.take(b'{').then_some(Self { cursor, first: true, ended: false })
    }

    /// Whether the closing brace was reached and nothing follows it.
    fn ended_well(mut self) -> bool {
        self.cursor.space();
        self.ended && self.cursor.peek().is_none()
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.cursor.take(b'}') {
            self.ended = true;
            return None;
        }
        if !self.first && !self.cursor.take(b',') {
            return None;
        }
        self.first = false;
        self.cursor.space();
        let name = self.cursor.value()?.strip_prefix('"')?.strip_suffix('"')?;
        if !self.cursor.take(b':') {
            return None;
        }
        Some((name, self.cursor.value()?))
    }
}

/// Iterates over the elements of an array, as JSON.
#[derive(Clone, Debug)]
struct Elements<'a> {
    cursor: Cursor<'a>,
    first: bool,
    ended: bool,
}

impl<'a> Elements<'a> {
    fn of(text: &'a str) -> Self {
        let mut cursor = Cursor { text, at: 0 };
        let ended = !cursor.take(b'[');
        Self { cursor, first: true, ended }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.cursor.take(b']') || (!self.first && !self.cursor.take(b',')) {
            self.ended = true;
            return None;
        }
        self.first = false;
        let element = self.cursor.value();
        self.ended = element.is_none();
        element
    }
}
