//! Jitsu's ingest endpoint: one event a request, the call in the path.
//!
//! **Invariant:** `{"ok":true}` says that the event is taken.

use http::StatusCode;
use schemas::json::Tape;
use serde_json::json;

use super::segment::CALLS;
use super::spec::{self, Manner};
use super::{Action, Adapter, Answer, Batch, Call, Reply, Told};
use crate::authenticate::Credential;
use crate::error::RequestError;

const POST: &str = "POST, OPTIONS";

const LOST: &str = "There is nothing here. Jitsu's clients send to POST /api/s/{track,page,identify,group,screen,alias} or \
    /api/s/s2s/{…}.";

pub(super) const ADAPTER: Adapter = Adapter {
    name: "jitsu",
    endpoints: &[(POST, "/api/s/{call}"), (POST, "/api/s/s2s/{call}")],
    strays: &[("/api/{*rest}", LOST)],
    claims: |_| true,
    decode,
    refuse,
};

fn decode(call: &Call<'_>) -> Result<Action, RequestError> {
    let (events, envelope) = spec::split(call, "batch")?;
    let last = call.path().rsplit('/').next().unwrap_or_default();
    let named = CALLS.iter().find(|(name, _)| *name == last).and_then(|(_, call)| *call);
    let sent_at = spec::envelope_instant(&envelope, "sentAt");
    let manner = Manner { vendor: ADAPTER.name, call: named, sent_at, ..Manner::default() };
    let mut tape = Tape::default();
    let items = events.iter().map(|event| spec::item(call, event, &manner, &mut tape)).collect();
    let mut credentials = Vec::new();
    for named in
        call.credential()?.into_iter().chain(call.parameter("writekey").as_deref().map(Credential::in_query))
    {
        // `id:secret`, of which our key may be the whole or the first part.
        let first = named.before(':');
        credentials.push(named);
        credentials.extend(first);
    }
    let answer: Answer = Box::new(|told| {
        if let Some(status) = told.again() {
            return Reply::json(status, &json!({"ok": false, "error": "Not taken now; send it again."}));
        }
        match told.first_refusal() {
            Some(first) if told.all_refused() => Reply::json(
                StatusCode::BAD_REQUEST,
                &json!({"ok": false, "error": first, "errors": told.listed()}),
            ),
            _ => Reply::json(StatusCode::OK, &json!({"ok": true})),
        }
    });
    Ok(Action::Take(Batch { credentials, items, answer }))
}

fn refuse(_: &Call<'_>, error: &RequestError, _: &Told<'_>) -> Reply {
    Reply::json(error.status(), &json!({"ok": false, "error": error.message}))
}
