//! Runs and threads in one SQLite file, shared by several processes, durable when a write returns.

mod place;
mod runs;
mod schema;
mod threads;

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::error::StoreError;
use super::lease::Holder;
use super::query::{ThreadPage, ThreadQuery};
use super::run::RunRecord;
use super::thread::{ThreadId, ThreadPatch, ThreadRecord};
use super::{MetadataStore, RUNS_KEPT_MAX};
use place::prepare_file;
pub use schema::{APPLICATION_ID, SCHEMA_VERSION};

/// How long another process's transaction is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the switch to the write-ahead log is tried against others who switch at the same moment.
const WAL_ATTEMPTS_MAX: usize = 16;
/// How much of the write-ahead log is rewritten at a time.
const REWRITE_CHUNK_BYTES: usize = 1 << 20;

/// Runs and threads in a SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    path: PathBuf,
    poisoned: bool,
    runs_kept_max: usize,
    busy_timeout: Duration,
    synchronous: Synchronous,
}

/// When a commit is on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Synchronous {
    /// When it returns.
    Full,
    /// When the kernel likes: for the control of a test, which must then lose something.
    Off,
}

/// Why a transaction did not happen: something that may be asked again, or the disk.
enum Unwritten {
    Refused(StoreError),
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for Unwritten {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

impl SqliteStore {
    /// Opens or makes the database at `path`, mode 0600; its directory is made with mode 0700 if need be.
    ///
    /// Blocks on the disk, and up to 5 s on another process. An empty file is a new database.
    ///
    /// # Errors
    ///
    /// A file of another program or of a newer dwell is refused and not written to.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Synchronous::Full, BUSY_TIMEOUT)
    }

    /// A store whose commits are not on the disk when they return. For the control of the power-cut tests, and for
    /// nothing else: what is acknowledged by it is lost in a power cut.
    ///
    /// # Errors
    /// As `open`.
    #[doc(hidden)]
    pub fn open_without_durability(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Synchronous::Off, BUSY_TIMEOUT)
    }

    /// A store that could not be opened yet, for whoever goes on without it: poisoned, so that every write first tries to
    /// open it, and says why not.
    ///
    /// # Errors
    /// When SQLite has no memory.
    pub fn unopened(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            connection: Connection::open_in_memory().map_err(|error| fault(path, error))?,
            path: path.to_owned(),
            poisoned: true,
            runs_kept_max: RUNS_KEPT_MAX,
            busy_timeout: BUSY_TIMEOUT,
            synchronous: Synchronous::Full,
        })
    }

    fn open_with(path: &Path, synchronous: Synchronous, busy_timeout: Duration) -> Result<Self, StoreError> {
        Ok(Self {
            connection: connect(path, synchronous, busy_timeout)?,
            path: path.to_owned(),
            poisoned: false,
            runs_kept_max: RUNS_KEPT_MAX,
            busy_timeout,
            synchronous,
        })
    }

    /// With another bound on the runs that are kept.
    #[must_use = "the bound is that of the returned store"]
    pub fn with_runs_kept_max(mut self, kept_max: usize) -> Self {
        self.runs_kept_max = kept_max;
        self
    }

    /// With another patience than 5 s for the transactions of other processes.
    ///
    /// # Errors
    ///
    /// When SQLite refuses the number.
    pub fn with_busy_timeout(mut self, timeout: Duration) -> Result<Self, StoreError> {
        self.busy_timeout = timeout;
        self.connection
            .busy_timeout(timeout)
            .map_err(|error| fault(&self.path, error))?;
        Ok(self)
    }

    /// One transaction that takes its turn among all processes before it reads, and is on the disk when this returns.
    fn write<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Unwritten>,
    ) -> Result<T, StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let begun = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        let outcome = match begun {
            Ok(transaction) => work(&transaction)
                .and_then(|value| transaction.commit().map(|()| value).map_err(Unwritten::Failed))
                .map_err(|unwritten| match unwritten {
                    Unwritten::Refused(error) => error,
                    // Past its beginning a transaction does not wait for others: whatever failed is a failed write.
                    Unwritten::Failed(error) => failed_write(&self.path, error),
                }),
            Err(error) => Err(writing(&self.path, error)),
        };
        self.poisoned = outcome.as_ref().is_err_and(|error| match error {
            StoreError::Busy { .. } | StoreError::ThreadBusy { .. } | StoreError::LeaseLost { .. } => false,
            StoreError::Open { .. }
            | StoreError::NotAFile { .. }
            | StoreError::Mode { .. }
            | StoreError::NotOurs { .. }
            | StoreError::NewerSchema { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Write { .. }
            | StoreError::Read { .. }
            | StoreError::Poisoned => true,
        });
        outcome
    }

    /// The write-ahead log's bytes once more, and synced. A sync that failed has told the kernel's cache to forget that they
    /// are not on the disk; only new writes make the next sync cover them. Others wait at the write lock meanwhile, and
    /// readers find the same bytes.
    fn rewrite_log(&mut self) -> Result<(), StoreError> {
        let at = |error| fault(&self.path, error);
        let turn = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(at)?;
        let mut name = self.path.clone().into_os_string();
        name.push("-wal");
        rewrite(Path::new(&name)).map_err(|error| open_error(&self.path, error))?;
        turn.rollback().map_err(at)
    }
}

fn rewrite(path: &Path) -> std::io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut chunk = vec![0; REWRITE_CHUNK_BYTES];
    let mut at = 0_u64;
    loop {
        file.seek(SeekFrom::Start(at))?;
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return file.sync_data();
        }
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&chunk[..read])?;
        at += read as u64;
    }
}

impl MetadataStore for SqliteStore {
    fn record_runs(&mut self, batch: &[RunRecord]) -> Result<(), StoreError> {
        if batch.is_empty() && !self.poisoned {
            return Ok(());
        }
        let kept_max = self.runs_kept_max;
        self.write(|transaction| Ok(runs::insert(transaction, batch, kept_max)?))
    }

    fn lease(&mut self, id: ThreadId, holder: &Holder) -> Result<Option<ThreadRecord>, StoreError> {
        self.write(|transaction| {
            threads::free_for(transaction, id, holder)?;
            threads::lease(transaction, id, holder)?;
            Ok(threads::one(transaction, id)?)
        })
    }

    fn release(&mut self, id: ThreadId, holder: &Holder) -> Result<(), StoreError> {
        self.write(|transaction| Ok(threads::release(transaction, id, holder)?))
    }

    fn update_thread(
        &mut self,
        id: ThreadId,
        holder: &Holder,
        patch: &ThreadPatch,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            threads::held_by(transaction, id, holder)?;
            let mut thread = threads::one(transaction, id)?.unwrap_or_else(|| ThreadRecord::new(id));
            thread.apply(patch.clone());
            Ok(threads::put(transaction, &thread)?)
        })
    }

    fn delete_thread(&mut self, id: ThreadId, holder: &Holder) -> Result<bool, StoreError> {
        self.write(|transaction| {
            threads::held_by(transaction, id, holder)?;
            Ok(threads::delete(transaction, id)?)
        })
    }

    fn thread(&self, id: ThreadId) -> Result<Option<ThreadRecord>, StoreError> {
        threads::one(&self.connection, id).map_err(|error| reading(&self.path, error))
    }

    fn threads(&self, query: &ThreadQuery) -> Result<ThreadPage, StoreError> {
        threads::page(&self.connection, query).map_err(|error| reading(&self.path, error))
    }

    fn recent_runs(&self, limit: usize) -> Result<Vec<RunRecord>, StoreError> {
        runs::recent(&self.connection, limit).map_err(|error| reading(&self.path, error))
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        // The old connection first: when it is the only one, its close leaves no log that holds the failed write.
        let stub = Connection::open_in_memory().map_err(|error| fault(&self.path, error))?;
        drop(std::mem::replace(&mut self.connection, stub));
        self.connection = connect(&self.path, self.synchronous, self.busy_timeout)?;
        self.rewrite_log()?;
        self.poisoned = false;
        Ok(())
    }
}

fn connect(path: &Path, synchronous: Synchronous, busy_timeout: Duration) -> Result<Connection, StoreError> {
    prepare_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let at = |error| fault(path, error);
    let mut connection = Connection::open_with_flags(path, flags).map_err(at)?;
    connection.busy_timeout(busy_timeout).map_err(at)?;
    // Before anything that writes, so that a file that is not ours stays as it is; and in one transaction, so that
    // one that another process is just making is seen before or after, never in between.
    let look = connection.transaction().map_err(at)?;
    schema::check(&look, path)?;
    look.rollback().map_err(at)?;
    write_ahead(&mut connection, path)?;
    // SQLite's numbers for the levels.
    let (level, number) = match synchronous {
        Synchronous::Full => ("FULL", 2),
        Synchronous::Off => ("OFF", 0),
    };
    connection.pragma_update(None, "synchronous", level).map_err(at)?;
    connection
        .pragma_update(None, "cell_size_check", true)
        .map_err(at)?;
    let set: i64 = connection
        .query_row("PRAGMA synchronous", [], |row| row.get(0))
        .map_err(at)?;
    if set != number {
        return Err(open_error(path, format!("synchronous is {set}")));
    }
    schema::migrate(&mut connection, path)?;
    Ok(connection)
}

/// SQLite's integers are signed; nothing of ours lasts or fills that much.
fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What a failure within a transaction means. It waits for nobody there, so it is the disk, or the file: a page that is
/// none, or a row that no dwell has written.
fn failed_write(path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let is_damage = match &error {
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => true,
        error => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ),
    };
    let source = error.into();
    if is_damage {
        return StoreError::Corrupt { path, source };
    }
    StoreError::Write { path, source }
}

/// Switches to the write-ahead log. SQLite does not wait for those who switch at the same moment, so we wait our turn
/// for the write lock and look again.
fn write_ahead(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    for _ in 0..WAL_ATTEMPTS_MAX {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        match mode.map_err(|error| fault(path, error)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => return Err(open_error(path, format!("its journal mode stays {mode}"))),
            Err(StoreError::Busy { .. }) => {
                let turn = connection.transaction_with_behavior(TransactionBehavior::Immediate);
                turn.and_then(Transaction::rollback)
                    .map_err(|error| fault(path, error))?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Busy {
        path: path.to_owned(),
    })
}

/// What a failure while opening means.
pub(super) fn fault(path: &Path, error: rusqlite::Error) -> StoreError {
    classify(path, error).unwrap_or_else(|error| open_error(path, error))
}

fn writing(path: &Path, error: rusqlite::Error) -> StoreError {
    classify(path, error).unwrap_or_else(|error| failed_write(path, error))
}

fn reading(path: &Path, error: rusqlite::Error) -> StoreError {
    classify(path, error).unwrap_or_else(|error| StoreError::Read {
        path: path.to_owned(),
        source: error.into(),
    })
}

fn classify(path: &Path, error: rusqlite::Error) -> Result<StoreError, rusqlite::Error> {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Ok(StoreError::Busy {
            path: path.to_owned(),
        }),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Ok(StoreError::Corrupt {
            path: path.to_owned(),
            source: error.into(),
        }),
        Some(_) | None => Err(error),
    }
}

pub(super) fn open_error(
    path: &Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Open {
        path: path.to_owned(),
        source: source.into(),
    }
}
