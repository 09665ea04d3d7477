//! What a running relay gives its owner.

use dwell_messages::{PublicKey, TraceContext};
use dwell_relay::rendezvous::{Census, DropCounts, RefusalCounts};
use tokio::task::JoinHandle;

use super::server::{RelayServer, ToRelay};
use crate::mailbox::{AskError, Mailbox};
use crate::oversight::Overseen;
use crate::runtime::{Place, Runtime};

/// How many of what a relay has.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RelayCensus {
    /// Connections, executors and streams now.
    pub core: Census,
    /// Frames dropped since the start, by reason.
    pub dropped: DropCounts,
    /// Who was turned away since the start, by reason.
    pub refused: RefusalCounts,
}

/// The tasks of a running relay: dropping it ends them.
#[derive(Debug)]
pub(super) struct Running {
    accepting: JoinHandle<()>,
    mailbox: Mailbox<RelayServer>,
}

impl Running {
    pub(super) fn new(accepting: JoinHandle<()>, mailbox: Mailbox<RelayServer>) -> Self {
        Self { accepting, mailbox }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.accepting.abort();
        self.mailbox.begin_drain();
    }
}

/// A running relay. Dropping it ends the relay as [`RelayHandle::shutdown`] does, without waiting for it.
#[must_use = "dropping it ends the relay"]
#[derive(Debug)]
pub struct RelayHandle {
    address: String,
    public_key: PublicKey,
    // In this order: the tasks end before the thread they run on.
    running: Running,
    overseen: Option<Overseen>,
    _seat: Place,
    _runtime: Runtime,
}

impl RelayHandle {
    pub(super) fn new(
        address: String,
        public_key: PublicKey,
        running: Running,
        (seat, runtime): (Place, Runtime),
        overseen: Option<Overseen>,
    ) -> Self {
        Self {
            address,
            public_key,
            running,
            overseen,
            _seat: seat,
            _runtime: runtime,
        }
    }

    /// Where it listens, as a dialler writes it.
    pub fn local_addr(&self) -> String {
        self.address.clone()
    }

    /// The key it proves to executors.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// The socket at which it answers `dwell inspect`, if it does.
    pub fn inspect_socket(&self) -> Option<&std::path::Path> {
        self.overseen.as_ref()?.socket()
    }

    /// Where its metrics are, if they are anywhere.
    pub fn metrics_addr(&self) -> Option<std::net::SocketAddr> {
        self.overseen.as_ref()?.metrics_addr()
    }

    /// Counts what is there. Cancellation safe.
    ///
    /// # Errors
    /// [`AskError::Stopped`] and [`AskError::ActorFailed`] when the relay's actor is gone, or restarts just then.
    pub async fn census(&self) -> Result<RelayCensus, AskError> {
        self.running
            .mailbox
            .ask(TraceContext::default(), ToRelay::Census)
            .await
    }

    /// Stops accepting, closes every connection as it is, and returns when both have happened. Peers see their
    /// connection end. Dropping the future does not stop the end.
    pub async fn shutdown(mut self) {
        self._runtime.collector().board().meters().set_ready(false);
        self.running.accepting.abort();
        // Cancelled or not, the listener is dropped with its task.
        drop((&mut self.running.accepting).await);
        self.running.mailbox.drain().await;
    }
}
