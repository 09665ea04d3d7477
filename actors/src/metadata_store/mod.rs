//! What ran and which threads there are, kept past the process that made them.
//!
//! A *run* is one command: how it ended and how long it took. It is known by its call's span, and may be recorded when it
//! starts and again when it ends. A *thread* is an agent's conversation: its record says what a list
//! shows of it, and how much of its history it covers; the history itself is in its event log. Several processes may
//! share one database.

mod error;
mod lease;
mod memory;
mod query;
mod run;
#[cfg(feature = "store")]
mod sqlite;
mod thread;
pub(crate) mod worker;

pub use error::StoreError;
pub use lease::Holder;
pub use memory::MemoryStore;
pub use query::{PAGE_MAX, PageMark, ThreadPage, ThreadQuery};
pub use run::{PROGRAM_NAME_MAX_BYTES, ProgramName, RunDurations, RunRecord, RunStatus};
#[cfg(feature = "store")]
pub use sqlite::{APPLICATION_ID, SCHEMA_VERSION, SqliteStore};
pub(crate) use thread::clean_text;
pub use thread::{
    Change, PATH_MAX_BYTES, ParseThreadIdError, TEXT_MAX_BYTES, ThreadId, ThreadPatch, ThreadRecord,
    ThreadStatus,
};
pub use worker::METADATA_QUEUE_MAX;

/// The most runs a store keeps; the oldest are forgotten.
pub const RUNS_KEPT_MAX: usize = 100_000;

/// Keeps runs and threads. May block on a disk: it belongs on a thread that may.
///
/// What a method that writes has answered with `Ok` survives a power cut. [`StoreError::Busy`],
/// [`StoreError::ThreadBusy`] and [`StoreError::LeaseLost`] leave the store as it was. After any other error of a write
/// it is poisoned, and every later write is [`StoreError::Poisoned`] until `reopen`: what the disk did with the
/// failed write is unknown, and a later success would wrongly cover it.
pub trait MetadataStore: Send {
    /// Keeps a batch of runs: all of it or, on an error, nothing that may be relied upon.
    ///
    /// # Errors
    /// See the trait.
    fn record_runs(&mut self, batch: &[RunRecord]) -> Result<(), StoreError>;

    /// Makes `holder` the one writer of a thread, which need not exist yet, and says what is known of it. The lease of
    /// a process that has died is taken over.
    ///
    /// # Errors
    /// [`StoreError::ThreadBusy`] names the writer that it has; else see the trait.
    fn lease(&mut self, id: ThreadId, holder: &Holder) -> Result<Option<ThreadRecord>, StoreError>;

    /// Lets another be a thread's writer. Nothing when `holder` is not it.
    ///
    /// # Errors
    /// See the trait.
    fn release(&mut self, id: ThreadId, holder: &Holder) -> Result<(), StoreError>;

    /// Changes a thread's record, and makes it when there is none.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when `holder` is not its writer any more; else see the trait.
    fn update_thread(&mut self, id: ThreadId, holder: &Holder, patch: &ThreadPatch)
    -> Result<(), StoreError>;

    /// Forgets a thread and the lease of `holder`, its writer. False when there is none.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when `holder` is not its writer; else see the trait.
    fn delete_thread(&mut self, id: ThreadId, holder: &Holder) -> Result<bool, StoreError>;

    /// What is known of one thread.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn thread(&self, id: ThreadId) -> Result<Option<ThreadRecord>, StoreError>;

    /// A page of threads.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn threads(&self, query: &ThreadQuery) -> Result<ThreadPage, StoreError>;

    /// At most `limit` runs, those that were recorded first last.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn recent_runs(&self, limit: usize) -> Result<Vec<RunRecord>, StoreError>;

    /// Whether an earlier write has failed, so that nothing is acknowledged before `reopen`.
    fn is_poisoned(&self) -> bool;

    /// Opens a poisoned store again: what it holds is written once more and synced before anything else is acknowledged.
    ///
    /// # Errors
    /// When it still cannot be written; it stays poisoned.
    fn reopen(&mut self) -> Result<(), StoreError>;
}
