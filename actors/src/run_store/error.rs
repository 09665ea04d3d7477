//! What can go wrong with a store of runs.

use std::error::Error;
use std::path::PathBuf;

type Source = Box<dyn Error + Send + Sync>;

/// Runs could not be kept or read.
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
    #[error("{} is damaged; move it away, and a new one is made", path.display())]
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
    /// A batch could not be written; the store is poisoned now.
    #[error("cannot write to {}; its runs may be lost, open it again", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: Source,
    },
    /// Runs could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: Source,
    },
    /// An earlier write failed.
    #[error("the store of runs is poisoned by an earlier failed write; open it again")]
    Poisoned,
}
