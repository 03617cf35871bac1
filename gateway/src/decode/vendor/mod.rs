//! Requests of other vendors' clients, and what becomes of them.
//!
//! To add a vendor, write one file here with a `pub(super) const ADAPTER: Adapter` and name it in [`ADAPTERS`]:
//! - `endpoints` are the vendor's own paths as axum writes them, each with its methods. Several adapters may have the same path:
//!   `claims` then looks at the head and the inflated body of a [`Call`], and the first that claims it gets it (the first of all if none
//!   does, which is also who answers a body that cannot be read).
//! - `strays` are wildcards below the vendor's prefix, with the sentence that a 404 there says.
//! - `decode` gives an [`Action`]: events (a [`Batch`] of [`Item`]s, the credentials in the order in which they are to be
//!   tried, and the builder of the answer from the verdicts), or a ready reply for configuration endpoints and handshakes.
//! - `refuse` says an error of the whole request in the vendor's form.
//!
//! A [`Draft`] writes one event in our form: give it the vendor's bytes (`raw`), never numbers that went through a float. Times stay
//! as they were sent; a correction by the sender's clock is told by `Draft::sent_at`, so that a repeated request has the same
//! bytes. Ids that are no UUID are given as they are. An event that means nobody gets its `none:` id in [`Draft::finish`]. What
//! cannot be scanned is handed on as [`Item::Broken`]: the verdict then names the place. `text` reads base64 and forms, `told`
//! sums verdicts up, `spec` is the event of Segment's family, which others may share for their `context`, `around`
//! groups flat members there.
//!
//! **Invariant:** adapters are pure: no clock, no randomness, no I/O, no keys looked up; no bytes make one panic; one bad event costs
//! only itself.

mod amplitude;
mod around;
pub(crate) mod cloudevents;
mod draft;
mod ga4;
mod jitsu;
mod mixpanel;
mod posthog;
mod rudder;
mod segment;
mod spec;
#[cfg(test)]
mod tests;
mod text;
mod told;

use std::borrow::Cow;

use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use schemas::json::Limits;

pub(crate) use self::draft::Draft;
pub(crate) use self::told::Told;
use crate::authenticate::Credential;
use crate::decode::compression::Cap;
use crate::error::RequestError;

/// Every vendor that is understood, in the order in which they are asked.
pub(crate) const ADAPTERS: &[Adapter] = &[
    rudder::ADAPTER,
    segment::ADAPTER,
    jitsu::ADAPTER,
    ga4::ADAPTER,
    mixpanel::ADAPTER,
    amplitude::ADAPTER,
    posthog::ADAPTER,
    cloudevents::ADAPTER,
];

/// How one vendor's clients speak.
pub(crate) struct Adapter {
    /// As it stands in `context.vendor`.
    pub(crate) name: &'static str,
    /// Methods (as `Allow` says them) and path, the latter in the router's syntax.
    pub(crate) endpoints: &'static [(&'static str, &'static str)],
    /// Wildcards for what is asked for below the vendor's prefix and is not there, with what to do instead.
    pub(crate) strays: &'static [(&'static str, &'static str)],
    /// Whether a call is this vendor's, where several have the same path.
    pub(crate) claims: fn(&Call<'_>) -> bool,
    pub(crate) decode: fn(&Call<'_>) -> Result<Action, RequestError>,
    pub(crate) refuse: fn(&Call<'_>, &RequestError, &Told<'_>) -> Reply,
}

/// A request, its body inflated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
    pub(crate) limits: Limits,
    /// For what is compressed inside the body.
    pub(crate) cap: Cap,
    pub(crate) max_events: usize,
}

impl<'a> Call<'a> {
    /// The path without the slash at its end.
    pub(crate) fn path(&self) -> &'a str {
        let path = self.uri.path();
        path.strip_suffix('/').unwrap_or(path)
    }

    /// The first query parameter of that name, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        text::field(self.uri.query()?.as_bytes(), name)
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The key in `Authorization` (Bearer or Basic's user) or `X-Write-Key`.
    pub(crate) fn credential(&self) -> Result<Option<Credential>, RequestError> {
        if !self.headers.contains_key(AUTHORIZATION) && self.header("x-write-key").is_none() {
            return Ok(None);
        }
        let named = Credential::of(self.headers, &Uri::from_static("/"))?;
        Ok(named.filter(|credential| !credential.is_blank()))
    }
}

/// A transparent GIF of one pixel.
const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

/// What a request asks for.
pub(crate) enum Action {
    /// To take events.
    Take(Batch),
    /// An answer that needs nothing taken; if there are credentials, for whoever has one that is good.
    Reply { credentials: Vec<Credential>, reply: Reply },
}

/// The events of a request.
pub(crate) struct Batch {
    /// Tried in this order.
    pub(crate) credentials: Vec<Credential>,
    pub(crate) items: Vec<Item>,
    /// Says the verdicts, one an item, as the vendor would.
    pub(crate) answer: Answer,
}

/// Makes the answer from the verdicts.
pub(crate) type Answer = Box<dyn FnOnce(&Told<'_>) -> Reply + Send>;

/// One event.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// In our form.
    Event(Draft),
    /// Bytes that are no JSON object: they are judged as they are, so that the verdict says what is wrong.
    Broken(Vec<u8>),
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reply {
    pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Self {
        let body = value.to_string().into_bytes();
        Self { status, content_type: "application/json", body, headers: Vec::new() }
    }

    pub(crate) fn text(status: StatusCode, text: &str) -> Self {
        let body = text.as_bytes().to_vec();
        Self { status, content_type: "text/plain; charset=utf-8", body, headers: Vec::new() }
    }

    /// A picture that nobody sees, for mails and pages without scripts.
    pub(crate) fn pixel() -> Self {
        let headers = vec![(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        Self { status: StatusCode::OK, content_type: "image/gif", body: GIF.to_vec(), headers }
    }

    /// Caches may keep it for a while: what configuration endpoints say changes rarely.
    pub(crate) fn cacheable(mut self) -> Self {
        self.headers.push((CACHE_CONTROL, HeaderValue::from_static("private, max-age=300")));
        self
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<HeaderValue>) -> Self {
        self.headers.push((HeaderName::from_static(name), value.into()));
        self
    }
}
