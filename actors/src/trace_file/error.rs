//! What can go wrong with a trace file. None of it may fail a call.

use std::io;
use std::path::PathBuf;

/// A trace file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TraceFileError {
    /// The operating system refused a step.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else stands in the file's place.
    #[error("{} is not a regular file; remove it or choose another $DWELL_HOME", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A line is not what a trace file holds; the lines behind it are still read.
    #[error("the line at byte {offset_bytes} of {} is no trace line: {problem}", path.display())]
    Line {
        /// The path.
        path: PathBuf,
        /// Where the line begins.
        offset_bytes: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A line is longer than any that dwell writes; it was passed over unread.
    #[error("the line at byte {offset_bytes} of {} is longer than {max_bytes} bytes", path.display())]
    LineTooLong {
        /// The path.
        path: PathBuf,
        /// Where the line begins.
        offset_bytes: u64,
        /// The most a line may hold.
        max_bytes: usize,
    },
    /// The file is past its size, and whoever rotates it has stopped over it.
    #[error("{} has {bytes} bytes and another process holds it: end that process, or remove the file", path.display())]
    Full {
        /// The path.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The batch could not be put into text.
    #[error("cannot encode a batch of spans")]
    Encode(#[source] serde_json::Error),
}

impl TraceFileError {
    pub(super) fn io(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether it concerns one line only, so that reading goes on behind it.
    pub fn is_line(&self) -> bool {
        match self {
            Self::Line { .. } | Self::LineTooLong { .. } => true,
            Self::Io { .. } | Self::NotAFile { .. } | Self::Full { .. } | Self::Encode(_) => false,
        }
    }
}
