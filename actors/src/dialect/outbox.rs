//! What waits to be written to one connection: bounded by messages and by bytes, so that a client that does not read makes
//! its own commands wait and nothing grow.

use std::sync::Arc;

use tokio::sync::mpsc::{Permit, Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Messages that may wait for a connection.
pub const OUTBOUND_MAX: usize = 128;
/// Bytes of those, one message in any case.
pub const OUTBOUND_MAX_BYTES: usize = 32 * 1024 * 1024;
/// In what bytes are counted.
const UNIT_BYTES: usize = 1_024;

/// A message on its way; its room is given back when it was written.
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

/// The connection is gone.
#[derive(Debug)]
pub(super) struct Gone;

/// The way to a connection.
#[derive(Clone)]
pub(super) struct Outbox {
    /// In boxes: a channel keeps room for a block of them, also where nothing is ever said.
    messages: Sender<Box<Outgoing>>,
    bytes: Arc<Semaphore>,
}

impl Outbox {
    /// A way, and its other end.
    pub(super) fn new() -> (Self, Receiver<Box<Outgoing>>) {
        let (messages, other) = channel(OUTBOUND_MAX);
        let bytes = Arc::new(Semaphore::new(OUTBOUND_MAX_BYTES / UNIT_BYTES));
        (Self { messages, bytes }, other)
    }

    /// Sends, once there is room. Cancellation safe: sent or not.
    pub(super) async fn send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        let room = tokio::select! {
            room = Arc::clone(&self.bytes).acquire_many_owned(units(bytes.len())) => room.ok(),
            () = self.messages.closed() => return Err(Gone),
        };
        let permit = self.reserve().await?;
        permit.send(Outgoing { bytes, _room: room });
        Ok(())
    }

    /// Room for one small message, which is then sent without waiting.
    pub(super) async fn reserve(&self) -> Result<Reserved<'_>, Gone> {
        self.messages.reserve().await.map(Reserved).map_err(|_| Gone)
    }
}

/// See `Outbox::reserve`.
pub(super) struct Reserved<'a>(Permit<'a, Box<Outgoing>>);

impl Reserved<'_> {
    fn send(self, message: Outgoing) {
        self.0.send(Box::new(message));
    }

    /// Sends a message that is small by what it is.
    pub(super) fn send_small(self, bytes: Vec<u8>) {
        self.send(Outgoing { bytes, _room: None });
    }
}

fn units(bytes: usize) -> u32 {
    let units = bytes.div_ceil(UNIT_BYTES).min(OUTBOUND_MAX_BYTES / UNIT_BYTES);
    u32::try_from(units).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_larger_than_the_room_goes_alone_and_the_next_waits_for_it() {
        let (outbox, mut other) = Outbox::new();
        outbox.send(vec![0; OUTBOUND_MAX_BYTES + 1]).await.unwrap();
        let next = outbox.send(vec![1; 1]);
        let mut next = std::pin::pin!(next);
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        drop(other.recv().await.unwrap());
        next.await.unwrap();
        assert_eq!(other.recv().await.unwrap().bytes, [1]);
    }

    #[tokio::test]
    async fn whoever_waits_is_told_that_the_connection_is_gone() {
        let (outbox, other) = Outbox::new();
        outbox.send(vec![0; OUTBOUND_MAX_BYTES]).await.unwrap();
        drop(other);
        assert!(outbox.send(vec![1]).await.is_err());
        assert!(outbox.reserve().await.is_err());
    }
}
