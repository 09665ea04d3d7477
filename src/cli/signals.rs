//! Being asked to end.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

/// The longest a role takes to end once it was asked; asked again, it ends at once.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Interrupt, terminate and hang-up, from its making on.
#[derive(Debug)]
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Stop {
    /// Takes the signals over: from now on they end nothing by themselves.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::because("signals", "signals cannot be received", &error))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The next of them. Cancellation safe.
    pub(crate) async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }

    /// `work`, unless it is given up because dwell was asked to end.
    pub(crate) async fn or<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            () = self.recv() => Err(Failure::interrupted()),
        }
    }

    /// Waits for an orderly end, unless it takes too long or dwell is asked again. Says which it was.
    pub(crate) async fn orderly(&mut self, end: impl Future<Output = ()>) -> bool {
        tokio::select! {
            () = end => true,
            () = tokio::time::sleep(SHUTDOWN_TIMEOUT) => {
                tracing::warn!(seconds = SHUTDOWN_TIMEOUT.as_secs(), "not everything ended in time");
                false
            }
            () = self.recv() => false,
        }
    }
}
