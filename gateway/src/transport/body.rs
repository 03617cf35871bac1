//! Reads a body within bounds of size, time and memory.
//!
//! **Invariant:** bytes of bodies in work never exceed the budget, over all requests; a sender that stalls is gone after
//! the chunk time-out.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use schemas::verdict::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::GatewayConfig;
use crate::error::RequestError;

/// After a refusal this much more is read and dropped: a peer that still writes when the connection closes may never see why.
const DISCARDED_BYTES: usize = 16 << 20;
/// And for this long.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Room that is made for an announced body when its first bytes are there; more comes with the bytes.
const RESERVED_BYTES: usize = 256 << 10;

/// A short body must arrive within this time.
const SHORT_TIME: Duration = Duration::from_secs(10);

/// Bytes that may be in work at once.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    total: usize,
    /// So many bytes are left to others.
    left: usize,
}

/// A share of the budget; given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Share(Option<OwnedSemaphorePermit>);

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(bytes)), total: bytes, left: 0 }
    }

    /// The same budget for somebody who leaves so many bytes to others.
    pub(crate) fn leaving(&self, bytes: usize) -> Self {
        Self { left: bytes, ..self.clone() }
    }

    /// How much it is in all.
    pub(crate) const fn total(&self) -> usize {
        self.total
    }

    /// Bytes that are taken.
    pub(crate) fn used(&self) -> usize {
        self.total.saturating_sub(self.free.available_permits())
    }

    /// Takes a share, if there is that much.
    pub(crate) fn take(&self, bytes: usize) -> Option<Share> {
        let permits = u32::try_from(bytes).ok()?;
        if self.left > 0 && self.free.available_permits() < self.left.saturating_add(bytes) {
            return None;
        }
        Arc::clone(&self.free).try_acquire_many_owned(permits).ok().map(|permit| Share(Some(permit)))
    }

    /// Enlarges a share.
    pub(crate) fn grow(&self, share: &mut Share, bytes: usize) -> Result<(), RequestError> {
        let more = self.take(bytes).and_then(|share| share.0);
        let more =
            more.ok_or_else(|| RequestError::new(Code::Overloaded, "Too much at once; send again later."))?;
        match &mut share.0 {
            Some(permit) => permit.merge(more),
            empty => *empty = Some(more),
        }
        Ok(())
    }
}

impl Share {
    /// All but `kept` bytes stay here; those go with what is returned.
    pub(crate) fn split(&mut self, kept: usize) -> Self {
        Self(self.0.as_mut().and_then(|permit| permit.split(kept.min(permit.num_permits()))))
    }

    /// Gives a part back.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0 {
            drop(permit.split(bytes.min(permit.num_permits())));
        }
    }
}

/// The whole body and its share of the budget. Whatever is wrong, the rest is read and dropped within bounds.
pub(crate) async fn read(
    mut body: Body,
    config: &GatewayConfig,
    budget: &Budget,
) -> Result<(Bytes, Share), RequestError> {
    let whole = read_within(&mut body, config, budget).await;
    if whole.as_ref().is_err_and(|error| error.code != Code::BodyTimeout) {
        discard(body).await;
    }
    whole
}

async fn read_within(
    body: &mut Body,
    config: &GatewayConfig,
    budget: &Budget,
) -> Result<(Bytes, Share), RequestError> {
    let too_large = |size: usize| {
        let message =
            format!("At most {} bytes a body; send fewer events (see GET /v1/limits).", config.batch_bytes);
        RequestError::new(Code::BodyTooLarge, message).exceeding(config.batch_bytes, size)
    };
    // What the sender announces; chunked bodies announce nothing.
    let whole = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if whole > config.batch_bytes {
        return Err(too_large(whole));
    }
    let end = Instant::now() + Duration::from_millis(config.body_timeout_ms);
    let chunk_time = Duration::from_millis(config.body_chunk_timeout_ms);
    let mut share = Share::default();
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let chunk = timeout_at(end.min(Instant::now() + chunk_time), body.frame()).await.map_err(|_| {
            RequestError::new(Code::BodyTimeout, "The body did not arrive in time; send it again.")
        })?;
        let Some(frame) = chunk else { break };
        let frame =
            frame.map_err(|_| RequestError::new(Code::BodySyntax, "The body was cut; send it again."))?;
        let Ok(data) = frame.into_data() else { continue };
        let size = first.len().max(all.len()) + data.len();
        if size > config.batch_bytes {
            return Err(too_large(size));
        }
        budget.grow(&mut share, data.len())?;
        // Most bodies come in one piece, which is then not copied.
        if first.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.reserve(whole.min(RESERVED_BYTES));
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
    }
    Ok((if all.is_empty() { first } else { all.freeze() }, share))
}

/// Looks at the first piece of a body, which stays part of it.
pub(crate) async fn peek(mut body: Body, config: &GatewayConfig) -> Result<(Bytes, Body), RequestError> {
    let first = timeout(Duration::from_millis(config.body_chunk_timeout_ms), body.frame()).await;
    let first = first.map_err(|_| {
        RequestError::new(Code::BodyTimeout, "The body did not arrive in time; send it again.")
    })?;
    let Some(first) = first else { return Ok((Bytes::new(), Body::empty())) };
    let cut = |_| RequestError::new(Code::BodySyntax, "The body was cut; send it again.");
    let first = first.map_err(cut)?.into_data().unwrap_or_default();
    let rest = stream::once(std::future::ready(Ok(first.clone()))).chain(body.into_data_stream());
    Ok((first, Body::from_stream(rest)))
}

/// A short body; nothing if it is longer, broken or late. What is too much is read and dropped within bounds, so that the sender
/// sees the answer.
pub async fn short(mut body: Body, max_bytes: usize) -> Option<Bytes> {
    let end = Instant::now() + SHORT_TIME;
    let mut all = BytesMut::new();
    while let Some(frame) = timeout_at(end, body.frame()).await.ok()? {
        let data = frame.ok()?.into_data().unwrap_or_default();
        if all.len() + data.len() > max_bytes {
            discard(body).await;
            return None;
        }
        all.extend_from_slice(&data);
    }
    Some(all.freeze())
}

/// Reads and drops what is left, within bounds.
pub(crate) async fn discard(mut body: Body) {
    let end = Instant::now() + DISCARD_TIME;
    let mut dropped = 0;
    while dropped < DISCARDED_BYTES {
        match timeout_at(end, body.frame()).await {
            Ok(Some(Ok(frame))) => dropped += frame.into_data().map_or(0, |data| data.len()),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Piece = Result<&'static str, std::convert::Infallible>;

    fn config() -> GatewayConfig {
        GatewayConfig { batch_bytes: 8, body_chunk_timeout_ms: 20, ..GatewayConfig::default() }
    }

    async fn outcome(body: Body, budget: usize) -> Result<Bytes, Code> {
        let budget = Budget::new(budget);
        read(body, &config(), &budget).await.map(|(bytes, _)| bytes).map_err(|error| error.code)
    }

    #[tokio::test]
    async fn a_body_is_read_in_pieces_up_to_the_limit() {
        let pieces = |pieces: &'static [&'static str]| {
            Body::from_stream(stream::iter(pieces.iter().map(|p| Piece::Ok(*p))))
        };
        assert_eq!(outcome(pieces(&["1234", "56", "78"]), 100).await.unwrap(), "12345678");
        assert_eq!(outcome(Body::empty(), 100).await.unwrap(), "");
        assert_eq!(outcome(pieces(&["1234", "56", "789"]), 100).await, Err(Code::BodyTooLarge));
        assert_eq!(outcome(Body::from("123456789"), 100).await, Err(Code::BodyTooLarge));
        assert_eq!(outcome(Body::from("1234567"), 6).await, Err(Code::Overloaded));
    }

    #[tokio::test]
    async fn a_body_that_stalls_times_out() {
        let stalled = stream::iter([Piece::Ok("12")]).chain(stream::pending());
        assert_eq!(outcome(Body::from_stream(stalled), 100).await, Err(Code::BodyTimeout));
    }

    #[tokio::test]
    async fn a_share_of_the_budget_comes_back() {
        let budget = Budget::new(10);
        let share = budget.take(8).unwrap();
        assert!(budget.take(3).is_none());
        drop(share);
        assert!(budget.take(10).is_some());
    }
}
