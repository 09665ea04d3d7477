//! What can go wrong with an event log.

use std::io;
use std::path::PathBuf;

use super::format::Fault;

/// A thread's history could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file could not be opened or made.
    #[error("cannot open {}; check the directory and the space on its disk", path.display())]
    Open {
        /// The log.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is there is not a file of our own: a link, or one that others may change.
    #[error("{} is not a file of this user alone; remove it, or run `chmod 600` on it", path.display())]
    NotOurs {
        /// The log.
        path: PathBuf,
    },
    /// Items could not be written, also not to the file opened again. They are kept, and written with the next flush.
    #[error("cannot write to {}; free space on its disk and flush again, what was appended is kept", path.display())]
    Write {
        /// The log.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Items could not be brought to the disk. They are kept, and written once more with the next flush.
    #[error("cannot bring {} to the disk; check the disk and flush again, what was appended is kept", path.display())]
    Sync {
        /// The log.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The log.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file, or its end, is gone while this process writes to it: somebody removed or cut it. What is appended now would
    /// lie behind a hole, and is kept in memory instead.
    #[error(
        "{} is not there any more, or shorter than what was kept of it; put it back and flush again, or discard the thread",
        path.display()
    )]
    Gone {
        /// The log.
        path: PathBuf,
    },
    /// Another process has it open for writing.
    #[error("{} is written by another process; end it there", path.display())]
    InUse {
        /// The log.
        path: PathBuf,
    },
    /// What is there is no log of this thread that this dwell can read. It is left as it is.
    #[error("{} cannot be the history of its thread: {fault}; use the dwell that wrote it, or move it away", path.display())]
    Foreign {
        /// The log.
        path: PathBuf,
        /// What is wrong with its first bytes.
        fault: Fault,
    },
    /// What had been on the disk is not there any more.
    #[error(
        "{} is damaged at byte {at} of {durable}: {fault}. The damaged file is kept as {}; resume the thread again to go \
         on with the {items} items before the damage", path.display(), kept.display()
    )]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Where the damaged file is now.
        kept: PathBuf,
        /// Where it begins to be wrong.
        at: u64,
        /// How much of it had been acknowledged.
        durable: u64,
        /// Items before that.
        items: u64,
        /// What is wrong there.
        fault: Fault,
    },
}

impl LogError {
    /// Its `error.type` in spans.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Open { .. } | Self::NotOurs { .. } | Self::Foreign { .. } => "log_open",
            Self::InUse { .. } => "log_in_use",
            Self::Gone { .. } => "log_gone",
            Self::Write { .. } => "log_write",
            Self::Sync { .. } => "log_sync",
            Self::Read { .. } => "log_read",
            Self::Damaged { .. } => "log_damaged",
        }
    }
}
