//! What a peer that has proven nothing may make a transport hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that such a peer may send over a WebSocket: the upgrade, the preamble with its token, message 1, and room.
pub const STRANGERS_BYTES_MAX: usize = 16 * 1024;
/// The same once its message 1 was answered: the first record, and what was read ahead of it.
pub const ANSWERED_BYTES_MAX: usize = 96 * 1024;

/// Shared by a connection's transport, which counts, and whoever finds out who its peer is. A transport that hands
/// on what comes as it comes, as TCP does, holds nothing and needs none: `default`.
#[derive(Clone, Debug, Default)]
pub struct Restraint(Option<Arc<AtomicUsize>>);

impl Restraint {
    /// For a peer of which nothing is known.
    pub(super) fn of_a_stranger() -> Self {
        Self(Some(Arc::new(AtomicUsize::new(STRANGERS_BYTES_MAX))))
    }

    /// Its message 1 was answered.
    pub fn answered(&self) {
        self.set(ANSWERED_BYTES_MAX);
    }

    /// It has proven who it is.
    pub fn lift(&self) {
        self.set(usize::MAX);
    }

    fn set(&self, bytes: usize) {
        if let Some(most) = &self.0 {
            most.store(bytes, Ordering::Relaxed);
        }
    }

    /// Whether so many bytes may have come in all.
    pub(super) fn admits(&self, received: usize) -> bool {
        let most = self.0.as_ref().map(|most| most.load(Ordering::Relaxed));
        most.is_none_or(|most| received <= most)
    }
}
