//! A task of this arbiter that ends with whoever began it.

use std::time::Duration;

use tokio::task::JoinHandle;

/// Ends its task when it is dropped.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(future: impl Future<Output = ()> + 'static) -> Self {
        Self(tokio::task::spawn_local(future))
    }

    /// Lets it come to its own end, for so long.
    pub(super) async fn finish(mut self, within: Duration) {
        drop(tokio::time::timeout(within, &mut self.0).await);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
