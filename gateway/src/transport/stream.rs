//! NDJSON bodies of any length.
//!
//! Lines are collected into batches; while the log has one batch, the next is read, and the body is read no faster than that. A body
//! that fits into one batch is answered as any other. A longer one is answered, once it has ended, with counts and the verdicts of what
//! was not taken, as far as there is room for them; whoever asks for `application/x-ndjson` in `Accept` gets every verdict, a line
//! each, while it sends, and has to read them while it sends.
//!
//! A compressed body is inflated a step at a time, as it is read.
//!
//! **Invariant:** a stream holds two batches at most, and its decoder's window, all of it booked; a bad line costs that line; what was
//! taken before a fault is told.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use schemas::json;
use schemas::verdict::{AckLevel, Code, Status, Verdict};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Client;
use super::body::Share;
use super::errors;
use super::incoming::Source;
use super::rest::{answered, is_metered, retry_after_s};
use crate::Gateway;
use crate::decode::native::SentAt;
use crate::error::RequestError;

/// Verdicts told of a long body: of what was not taken, the first so many.
const TOLD_PROBLEMS: usize = 1_000;

/// Who reads along waits this long for a verdict at most, while the batch is not full.
const PATIENCE: Duration = Duration::from_millis(50);

/// A body being read.
pub(super) struct Stream {
    gateway: Arc<Gateway>,
    client: Client,
    ack: Option<AckLevel>,
    sent_at: SentAt,
    source: Source,
    pending: BytesMut,
    share: Share,
    /// Bytes of `pending` that were searched for line ends, how many were found, and where the last one ends.
    scanned: usize,
    lines: usize,
    whole: usize,
    /// A batch was handed on.
    taken: bool,
    /// The rest of a line that is too long is skipped.
    skipping: bool,
    ended: bool,
    /// Whole lines that were waited behind for so long are handed on, full batch or not.
    patience: Option<Duration>,
    running: Option<Running>,
    fault: Option<RequestError>,
}

struct Running {
    verdicts: JoinHandle<Vec<Verdict>>,
    _share: Share,
}

/// What is told of a long body.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Summary {
    /// Events by status.
    counts: Counts,
    /// What was not taken, the first of it.
    problems: Vec<Problem>,
    /// How many more there were.
    problems_omitted: u64,
    /// The whole body was read.
    complete: bool,
    /// Why it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<serde_json::Value>,
    #[serde(skip)]
    metered: usize,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
struct Counts {
    accepted: u64,
    duplicate: u64,
    quarantined: u64,
    rejected: u64,
    retry: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Problem {
    /// The event's place in the body, from 0.
    index: u64,
    #[serde(flatten)]
    verdict: Verdict,
}

impl Stream {
    pub(super) fn new(
        gateway: &Arc<Gateway>,
        client: Client,
        ack: Option<AckLevel>,
        sent_at: SentAt,
        source: Source,
    ) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            client,
            ack,
            sent_at,
            source,
            pending: BytesMut::new(),
            share: Share::default(),
            scanned: 0,
            lines: 0,
            whole: 0,
            taken: false,
            skipping: false,
            ended: false,
            patience: None,
            running: None,
            fault: None,
        }
    }

    /// Reads it all and answers at the end.
    pub(super) async fn answer(mut self) -> Result<Response, RequestError> {
        self.running = self.submit().await;
        let Some(first) = self.next().await else {
            if self.fault.as_ref().is_some_and(|fault| fault.code != Code::BodyTimeout) {
                self.source.discard().await;
            }
            let empty = || RequestError::new(Code::BodyEmpty, "The body holds no event.");
            return Err(self.fault.unwrap_or_else(empty));
        };
        let second = self.next().await;
        if second.is_none() && self.fault.is_none() {
            return Ok(answered(&self.gateway, &self.client.key, &first));
        }
        let mut summary = Summary::default();
        summary.add(first);
        summary.add(second.unwrap_or_default());
        while let Some(verdicts) = self.next().await {
            summary.add(verdicts);
        }
        Ok(self.long(summary))
    }

    fn long(mut self, mut summary: Summary) -> Response {
        summary.complete = self.fault.is_none();
        summary.error = self.fault.take().map(|fault| errors::object(&fault));
        let status = summary.status();
        let body = serde_json::to_vec(&summary).unwrap_or_default();
        let mut response = errors::json(status, body);
        if summary.counts.retry > 0 {
            let problems: Vec<Verdict> =
                summary.problems.into_iter().map(|problem| problem.verdict).collect();
            let seconds = retry_after_s(&self.gateway, &self.client.key, &problems);
            response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// Answers with a line a verdict while the body is read, and a last line with the counts.
    pub(super) async fn follow(mut self) -> Result<Response, RequestError> {
        self.patience = Some(PATIENCE);
        self.running = self.submit().await;
        if let Some(fault) = self.fault.take_if(|_| self.running.is_none()) {
            return Err(fault);
        }
        let state = (self, Some(Summary::default()));
        let lines = stream::unfold(state, |(mut stream, mut summary)| async move {
            let total = summary.as_mut()?;
            let mut text = Vec::new();
            if let Some(verdicts) = stream.next().await {
                for verdict in &verdicts {
                    text.extend(serde_json::to_vec(verdict).unwrap_or_default());
                    text.push(b'\n');
                }
                total.count(&verdicts);
            } else {
                total.complete = stream.fault.is_none();
                total.error = stream.fault.take().map(|fault| errors::object(&fault));
                let last = serde_json::json!({
                    "summary": {"counts": total.counts, "complete": total.complete, "error": total.error},
                });
                text.extend(last.to_string().into_bytes());
                text.push(b'\n');
                summary = None;
            }
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), (stream, summary)))
        });
        let mut response = Response::new(Body::from_stream(lines));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        Ok(response)
    }

    /// The verdicts of the next batch, while the one behind it is on its way. `None` at the end.
    async fn next(&mut self) -> Option<Vec<Verdict>> {
        // Who reads along is told at once, rather than when the next batch is there.
        let waits = self.patience.is_some();
        let running = match self.running.take() {
            None if waits => self.submit().await?,
            running => running?,
        };
        let following = if waits { None } else { self.submit().await };
        let verdicts = running.verdicts.await;
        self.running = following;
        if verdicts.is_err() {
            self.fault = Some(RequestError::new(Code::Internal, "A fault of the gateway; send again."));
        }
        verdicts.ok()
    }

    /// Reads a batch and hands it on.
    async fn submit(&mut self) -> Option<Running> {
        loop {
            let length = self.fill().await;
            if length == 0 {
                return None;
            }
            let batch = self.pending.split_to(length).freeze();
            (self.scanned, self.lines, self.whole) = (0, 0, 0);
            let mut share = std::mem::take(&mut self.share);
            self.share = share.split(self.pending.len());
            let lines: Vec<&[u8]> = json::lines(&batch).collect();
            if lines.is_empty() {
                continue;
            }
            let transmission = self.client.transmission(&self.gateway, self.ack, self.sent_at, None);
            let verdicts = self.gateway.accept(&lines, transmission);
            self.taken = true;
            return Some(Running { verdicts, _share: share });
        }
    }

    /// Reads until a batch of whole lines is there; gives its length, 0 at the end.
    async fn fill(&mut self) -> usize {
        loop {
            if let Some(length) = self.batch() {
                return length;
            }
            if self.ended {
                return self.pending.len();
            }
            let patience = self.patience.filter(|_| self.whole > 0);
            let read = match patience {
                Some(patience) => match timeout(patience, self.read()).await {
                    Ok(read) => read,
                    Err(_) => return self.whole,
                },
                None => self.read().await,
            };
            match read {
                Ok(true) => {}
                Ok(false) => self.ended = true,
                Err(fault) => {
                    // The last line may be cut: nobody knows what is missing. Where a damage begins nobody knows either. And a body
                    // of one batch is taken whole or not at all.
                    let sound = self.taken && fault.code != Code::BodyCompression;
                    self.pending.truncate(if sound { self.whole } else { 0 });
                    self.fault = Some(fault);
                    self.ended = true;
                }
            }
        }
    }

    /// The length of a full batch, if there is one. Looks at each byte once.
    fn batch(&mut self) -> Option<usize> {
        let config = &self.gateway.config;
        while self.lines < config.batch_events {
            let unseen = self.pending.get(self.scanned..).unwrap_or_default();
            let Some(end) = unseen.iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.pending.len();
                break;
            };
            self.scanned += end + 1;
            self.whole = self.scanned;
            self.lines += 1;
        }
        let full = self.lines >= config.batch_events || self.pending.len() >= config.batch_bytes;
        (full && self.whole > 0).then_some(self.whole)
    }

    /// Reads a piece; `false` at the end.
    async fn read(&mut self) -> Result<bool, RequestError> {
        if self.gateway.drain.has_begun() {
            return Err(RequestError::new(
                Code::Draining,
                "The gateway is shutting down; send the rest again later.",
            ));
        }
        let Some(mut data) = self.source.piece(&self.gateway).await? else { return Ok(false) };
        if self.skipping {
            let end = data.iter().position(|byte| *byte == b'\n');
            data.advance(end.unwrap_or(data.len()));
            self.skipping = end.is_none();
        }
        let budget = self.gateway.overload.budget(self.client.lane());
        budget.grow(&mut self.share, data.len())?;
        self.pending.extend_from_slice(&data);
        if self.batch().is_none() {
            self.cut_long_line();
        }
        Ok(true)
    }

    /// A line without end is kept as far as its verdict needs: it is too large whatever follows.
    fn cut_long_line(&mut self) {
        let longest = self.gateway.config.batch_bytes;
        if self.pending.len() - self.whole > longest {
            self.pending.truncate(self.whole + longest);
            self.scanned = self.scanned.min(self.pending.len());
            self.skipping = true;
        }
    }
}

impl Summary {
    fn count(&mut self, verdicts: &[Verdict]) {
        for verdict in verdicts {
            let count = match verdict.status {
                Status::Accepted => &mut self.counts.accepted,
                Status::Duplicate => &mut self.counts.duplicate,
                Status::Quarantined => &mut self.counts.quarantined,
                Status::Rejected => &mut self.counts.rejected,
                Status::Retry => &mut self.counts.retry,
            };
            *count += 1;
        }
    }

    fn add(&mut self, verdicts: Vec<Verdict>) {
        let before = self.counts.total();
        self.count(&verdicts);
        for (index, verdict) in (before..).zip(verdicts) {
            if matches!(verdict.status, Status::Accepted | Status::Duplicate) {
                continue;
            }
            self.metered += usize::from(is_metered(&verdict));
            if self.problems.len() < TOLD_PROBLEMS {
                self.problems.push(Problem { index, verdict });
            } else {
                self.problems_omitted += 1;
            }
        }
    }

    fn status(&self) -> StatusCode {
        let Counts { accepted, duplicate, quarantined, rejected, retry } = self.counts;
        match (accepted + duplicate, quarantined + rejected, retry) {
            _ if !self.complete => StatusCode::MULTI_STATUS,
            (_, 0, 0) => StatusCode::OK,
            (0, _, 0) => StatusCode::UNPROCESSABLE_ENTITY,
            (0, 0, _) if self.metered > 0 => StatusCode::TOO_MANY_REQUESTS,
            (0, 0, _) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::MULTI_STATUS,
        }
    }
}

impl Counts {
    fn total(&self) -> u64 {
        self.accepted + self.duplicate + self.quarantined + self.rejected + self.retry
    }
}
