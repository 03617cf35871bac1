//! The end: nothing new, everything under way answered.
//!
//! **Invariant:** work that began before [`Drain::begin`] is waited for; [`Drain::idle`] never misses the last piece's end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

/// Whether the gateway ends, and how much is under way.
#[derive(Debug)]
pub(crate) struct Drain {
    draining: watch::Sender<bool>,
    under_way: AtomicUsize,
    settled: Notify,
}

/// One piece of work under way; its drop is its end.
#[derive(Debug)]
pub(crate) struct Work(Arc<Drain>);

impl Default for Drain {
    fn default() -> Self {
        Self { draining: watch::Sender::new(false), under_way: AtomicUsize::new(0), settled: Notify::new() }
    }
}

impl Drain {
    /// Begins the end.
    pub(crate) fn begin(&self) {
        self.draining.send_replace(true);
    }

    /// Whether the end has begun.
    pub(crate) fn has_begun(&self) -> bool {
        *self.draining.borrow()
    }

    /// Waits until the end begins.
    pub(crate) async fn begun(&self) {
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// Begins a piece of work.
    pub(crate) fn work(self: &Arc<Self>) -> Work {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        Work(Arc::clone(self))
    }

    /// Pieces of work under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    /// Waits until no work is under way.
    pub(crate) async fn idle(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.under_way() == 0 {
                return;
            }
            settled.await;
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.settled.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_waits_for_the_last_piece_of_work() {
        let drain = Arc::new(Drain::default());
        let (one, two) = (drain.work(), drain.work());
        let waiter = tokio::spawn({
            let drain = Arc::clone(&drain);
            async move { drain.idle().await }
        });
        drop(one);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(two);
        waiter.await.unwrap();
    }
}
