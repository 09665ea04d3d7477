//! Whether a request that waits has been withdrawn: decided once, by whichever comes first, its service or its client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const CANCELLED: u8 = 2;

/// See the module. Its service may live on another thread, where a session asks another one.
#[derive(Debug, Default)]
pub(crate) struct Cancellation {
    state: AtomicU8,
    news: Notify,
}

impl Cancellation {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn decide(&self, to: u8) -> bool {
        self.state
            .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The service begins. False: the client has withdrawn it, and has been told so. Beginning twice is beginning.
    pub(crate) fn begin(&self) -> bool {
        self.decide(BEGUN) || self.state.load(Ordering::Acquire) == BEGUN
    }

    /// The client withdraws it. True: nothing was begun, and nothing will be.
    pub(crate) fn cancel(&self) -> bool {
        let cancelled = self.decide(CANCELLED);
        if cancelled {
            self.news.notify_one();
        }
        cancelled
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.state.load(Ordering::Acquire) == CANCELLED
    }

    /// Returns when it is withdrawn, if it ever is. Cancellation safe.
    pub(crate) async fn cancelled(&self) {
        while !self.is_cancelled() {
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_beginning_and_withdrawing_only_the_first_counts() {
        let begun = Cancellation::default();
        assert!(begun.begin() && begun.begin() && !begun.cancel() && !begun.is_cancelled());
        let withdrawn = Cancellation::default();
        assert!(withdrawn.cancel() && !withdrawn.cancel() && !withdrawn.begin());
    }

    #[tokio::test]
    async fn whoever_waits_for_a_withdrawal_hears_of_it_also_when_it_was_there_first() {
        let cancellation = Cancellation::new();
        assert!(cancellation.cancel());
        cancellation.cancelled().await;
        let later = Cancellation::new();
        let waiting = later.cancelled();
        tokio::pin!(waiting);
        assert!(
            tokio::time::timeout(std::time::Duration::ZERO, &mut waiting)
                .await
                .is_err()
        );
        assert!(later.cancel());
        waiting.await;
    }
}
