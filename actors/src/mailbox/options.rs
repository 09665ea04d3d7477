//! How an actor is hosted.

use std::fmt;

use super::supervise::Failure;

/// How an actor is hosted.
pub struct HostOptions {
    /// Messages its mailbox holds, those whose effects have not left included. At least 1.
    pub capacity: usize,
    /// Whether a panic is answered by a new state from the factory, within the bounded intensity.
    pub restart: bool,
    /// Told once when the actor is gone for good without having been asked to stop.
    pub escalate: Option<Box<dyn FnOnce(Failure) + Send>>,
}

impl fmt::Debug for HostOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostOptions")
            .field("capacity", &self.capacity)
            .field("restart", &self.restart)
            .finish_non_exhaustive()
    }
}

impl HostOptions {
    /// A mailbox of `capacity`, not restarted, failures only logged.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            restart: false,
            escalate: None,
        }
    }

    /// Restarts the actor by its factory when it panics.
    #[must_use]
    pub fn restarting(mut self) -> Self {
        self.restart = true;
        self
    }

    /// Tells `escalate` when the actor is gone for good.
    #[must_use]
    pub fn escalating(mut self, escalate: impl FnOnce(Failure) + Send + 'static) -> Self {
        self.escalate = Some(Box::new(escalate));
        self
    }
}
