//! The bytes of a long body, as they come and inflated.
//!
//! **Invariant:** nothing is read while there is something to inflate; what the decoder holds is booked with the budget.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use schemas::verdict::Code;
use tokio::time::timeout;

use super::body::{self, Share};
use crate::Gateway;
use crate::decode::inflater::Inflater;
use crate::error::RequestError;

/// Where a stream's bytes come from.
pub(super) struct Source {
    body: Body,
    inflater: Option<Inflater>,
    /// What the inflater holds.
    window: Share,
    window_bytes: usize,
    /// All bytes of the body are there.
    received: bool,
}

impl Source {
    pub(super) fn new(body: Body, inflater: Option<Inflater>) -> Self {
        Self { body, inflater, window: Share::default(), window_bytes: 0, received: false }
    }

    /// The next bytes, inflated, perhaps none; `None` at the end. Can be given up while it waits.
    pub(super) async fn piece(&mut self, gateway: &Gateway) -> Result<Option<Bytes>, RequestError> {
        if self.inflater.as_ref().is_some_and(Inflater::is_busy) {
            // Much can come out of little, without any wait for the sender.
            tokio::task::yield_now().await;
        } else {
            let received = self.receive(gateway).await?;
            let Some(inflater) = &mut self.inflater else { return Ok(received) };
            let Some(coded) = received else {
                let last = inflater.finish()?;
                self.inflater = None;
                return Ok(Some(last));
            };
            inflater.give(coded);
        }
        let Some(inflater) = self.inflater.as_mut().filter(|inflater| inflater.is_busy()) else {
            return Ok(Some(Bytes::new()));
        };
        let plain = inflater.step()?;
        let held = inflater.held_bytes();
        gateway.budget.grow(&mut self.window, held.saturating_sub(self.window_bytes))?;
        self.window_bytes = self.window_bytes.max(held);
        Ok(Some(plain))
    }

    /// The next bytes as sent; `None` at the end.
    async fn receive(&mut self, gateway: &Gateway) -> Result<Option<Bytes>, RequestError> {
        if self.received {
            return Ok(None);
        }
        let wait = Duration::from_millis(gateway.config.body_chunk_timeout_ms);
        let frame = timeout(wait, self.body.frame()).await.map_err(|_| {
            RequestError::new(Code::BodyTimeout, "The body did not go on in time; send the rest again.")
        })?;
        let Some(frame) = frame else {
            self.received = true;
            return Ok(None);
        };
        let cut = |_| RequestError::new(Code::BodySyntax, "The body was cut; send the rest again.");
        let data = frame.map_err(cut)?.into_data().unwrap_or_default();
        gateway.metrics.received_bytes.inc_by(data.len() as u64);
        Ok(Some(data))
    }

    /// Reads and drops what is left, within bounds.
    pub(super) async fn discard(self) {
        if !self.received {
            body::discard(self.body).await;
        }
    }
}
