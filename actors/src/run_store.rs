//! What ran, how it ended and how long it took: one row a run, kept past the process that made it.
//!
//! A run is known by its trace and its process. It may be recorded when it starts and again when it ends; the later
//! record fills in what the earlier one left open. Several processes may share one database.

mod error;
mod memory;
#[cfg(feature = "store")]
mod place;
mod record;
#[cfg(feature = "store")]
mod schema;
#[cfg(feature = "store")]
mod sqlite;

pub use error::StoreError;
pub use memory::MemoryRunStore;
pub use record::{PROGRAM_NAME_MAX_BYTES, ProgramName, RunDurations, RunRecord, RunStatus};
#[cfg(feature = "store")]
pub use schema::{APPLICATION_ID, SCHEMA_VERSION};
#[cfg(feature = "store")]
pub use sqlite::SqliteRunStore;

/// The most runs a store keeps; the oldest are forgotten.
pub const RUNS_KEPT_MAX: usize = 100_000;

/// Keeps runs.
pub trait RunStore: Send {
    /// Keeps a batch: all of it or, on an error, nothing that may be relied upon.
    ///
    /// May block on a disk; belongs on a thread that may.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] leaves the store as it was. After any other error it is poisoned, and every later call
    /// is [`StoreError::Poisoned`] until the store is opened again: what the disk did with the failed write is
    /// unknown, and a later success would wrongly cover it.
    fn record(&mut self, batch: &[RunRecord]) -> Result<(), StoreError>;
}
