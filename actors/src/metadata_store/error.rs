//! What can go wrong with a store.

use std::error::Error;
use std::path::PathBuf;

use super::thread::ThreadId;

type Source = Box<dyn Error + Send + Sync>;

/// Something could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not be opened.
    #[error("cannot open {}; check the directory and the space on its disk", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// Why not.
        source: Source,
    },
    /// A link, a directory or a device stands in the file's place.
    #[error("{} is not a regular file; remove it or choose another $DWELL_HOME", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Others may read or change the file.
    #[error("{} has mode {mode:04o}, which lets others in; run `chmod 600` on it", path.display())]
    Mode {
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A database of another program.
    #[error("{} belongs to another program (application id {application_id:#x}); choose another $DWELL_HOME", path.display())]
    NotOurs {
        /// The path.
        path: PathBuf,
        /// What its header says.
        application_id: i32,
    },
    /// A later dwell has written it.
    #[error("{} has schema {found} and this dwell knows up to {supported}; use the newer dwell, or move the file away", path.display())]
    NewerSchema {
        /// The path.
        path: PathBuf,
        /// The file's schema.
        found: i64,
        /// The newest that is known here.
        supported: i64,
    },
    /// The file is damaged, or no database.
    #[error("{} is damaged; move it away, and a new one is made, which `dwell threads rebuild` fills from the event logs", path.display())]
    Corrupt {
        /// The path.
        path: PathBuf,
        /// How that was seen.
        source: Source,
    },
    /// Another process has held the database for too long. Nothing was written.
    #[error("{} is held by another process; try again", path.display())]
    Busy {
        /// The path.
        path: PathBuf,
    },
    /// Something could not be written; the store is poisoned now.
    #[error("cannot write to {}; check the space on its disk, what waits is written again with the next flush", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: Source,
    },
    /// Something could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: Source,
    },
    /// An earlier write failed.
    #[error("the store is poisoned by an earlier failed write; open it again")]
    Poisoned,
    /// A live process writes to the thread. Nothing was written.
    #[error("thread {id} is open in process {pid}; end it there, or begin another thread")]
    ThreadBusy {
        /// The thread.
        id: ThreadId,
        /// Who writes to it.
        pid: u32,
    },
    /// Another writer has taken the thread over. Nothing was written.
    #[error("thread {id} was taken over by another writer; resume it again")]
    LeaseLost {
        /// The thread.
        id: ThreadId,
    },
}

impl StoreError {
    /// Its `error.type` in spans.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Open { .. } => "store_open",
            Self::NotAFile { .. } | Self::Mode { .. } | Self::NotOurs { .. } => "store_refused",
            Self::NewerSchema { .. } => "store_newer",
            Self::Corrupt { .. } => "store_corrupt",
            Self::Busy { .. } => "store_busy",
            Self::Write { .. } => "store_write",
            Self::Read { .. } => "store_read",
            Self::Poisoned => "store_poisoned",
            Self::ThreadBusy { .. } => "thread_busy",
            Self::LeaseLost { .. } => "lease_lost",
        }
    }
}
