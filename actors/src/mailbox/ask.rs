//! Asking: a reply, or the truth about why there is none.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::oneshot;

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Decides, once, whether a question was begun or withdrawn.
#[derive(Debug, Default)]
pub(super) struct AskCell(AtomicU8);

impl AskCell {
    /// The host takes the question up. False: the caller withdrew it first.
    pub(super) fn begin(&self) -> bool {
        self.0
            .compare_exchange(QUEUED, RUNNING, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The caller gives up. True: the host has not begun and never will.
    pub(super) fn withdraw(&self) -> bool {
        self.0
            .compare_exchange(QUEUED, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// Where the answer goes. Dropping it unanswered tells the caller `ActorFailed`.
#[must_use = "an unanswered question is reported to its caller as a failed actor"]
pub struct Reply<T>(pub(super) oneshot::Sender<T>);

impl<T> Reply<T> {
    /// Answers. The value is dropped when the caller no longer waits.
    pub fn send(self, value: T) {
        drop(self.0.send(value));
    }

    /// A reply with its receiving end, for code outside the mailbox layer.
    pub fn channel() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AskError {
    /// The actor never began on it: asking again is safe.
    #[error("the actor did not begin on this before the deadline: ask again")]
    NotStarted,
    /// The actor began on it and the deadline passed: it may yet happen.
    #[error(
        "the deadline passed while the actor worked on this: its outcome is unknown, look before asking again"
    )]
    OutcomeUnknown,
    /// The actor panicked on it, or dropped the reply.
    #[error("the actor failed while it worked on this: its outcome is unknown")]
    ActorFailed,
    /// The actor has stopped: nothing was begun.
    #[error("the actor has stopped: nothing was begun")]
    Stopped,
}
