//! Why something with a thread did not happen.

use std::sync::Arc;
use std::time::Duration;

use crate::event_log::LogError;
use crate::mailbox::AskError;
use crate::metadata_store::{StoreError, ThreadId};

/// Why something with a thread did not happen. Cheap to clone: one failure may be told to many.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ThreadError {
    /// Its history could not be kept or read.
    #[error(transparent)]
    Log(Arc<LogError>),
    /// Its metadata could not be kept or read. `StoreError::ThreadBusy` is one of these.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// It was shut down or discarded.
    #[error("the thread is closed; resume it")]
    Closed,
    /// There is no thread of this id.
    #[error("there is no thread {0}; `dwell threads list` shows those there are")]
    Missing(ThreadId),
    /// The items of one append are too large. Nothing was taken.
    #[error(
        "the append has {bytes} bytes and may have {max}; keep large content in files and append their names"
    )]
    TooLarge {
        /// How much it was.
        bytes: usize,
        /// How much it may be.
        max: usize,
    },
    /// History cannot be written, and what waits for it has reached its bound. Nothing was taken.
    #[error(
        "{max} bytes of history wait for a disk that takes nothing; free space and flush, then append again"
    )]
    Backlog {
        /// The bound.
        max: usize,
    },
    /// As many threads are open as may be.
    #[error("{max} threads are open in this process already; shut some down")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// More questions wait for the store than it takes. Nothing was begun.
    #[error("the store has too much to do; ask again later")]
    Overloaded,
    /// The time for a barrier was over while it was under way.
    #[error("the barrier was not over within {0:?}: whether it holds is unknown, flush again to know")]
    OutcomeUnknown(Duration),
    /// The time for a barrier was over before it was begun.
    #[error("the barrier was not begun within {0:?}: flush again")]
    NotStarted(Duration),
    /// A thread of the library, or an actor, failed on it.
    #[error("dwell failed while it kept the thread: whether this holds is unknown, flush again to know")]
    WorkerFailed,
    /// Something of this machine could not be had.
    #[error("{what}")]
    Local {
        /// What could not be done.
        what: &'static str,
        /// Why not.
        source: Arc<std::io::Error>,
    },
}

impl ThreadError {
    /// Its `error.type` in spans.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Log(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Closed => "thread_closed",
            Self::Missing(_) => "thread_missing",
            Self::TooLarge { .. } => "append_too_large",
            Self::Backlog { .. } => "append_backlog",
            Self::TooMany { .. } => "too_many_threads",
            Self::Overloaded => "store_overloaded",
            Self::OutcomeUnknown(_) => "outcome_unknown",
            Self::NotStarted(_) => "not_started",
            Self::WorkerFailed => "worker_failed",
            Self::Local { .. } => "local",
        }
    }

    pub(super) fn asked(error: AskError, within: Option<Duration>) -> Self {
        match (error, within) {
            (AskError::Stopped, _) => Self::Closed,
            (AskError::NotStarted, Some(limit)) => Self::NotStarted(limit),
            (AskError::OutcomeUnknown, Some(limit)) => Self::OutcomeUnknown(limit),
            (AskError::NotStarted | AskError::OutcomeUnknown | AskError::ActorFailed, _) => {
                Self::WorkerFailed
            }
        }
    }
}
