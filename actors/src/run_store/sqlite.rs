//! Runs in one SQLite file, shared by several processes, durable when `record` returns.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dwell_messages::{ProcessId, TraceId};
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, TransactionBehavior, named_params};

use super::error::StoreError;
use super::place::prepare_file;
use super::record::{ProgramName, RunDurations, RunRecord, RunStatus};
use super::{RUNS_KEPT_MAX, RunStore, schema};

/// How long another process's transaction is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the switch to the write-ahead log is tried against others who switch at the same moment.
const WAL_ATTEMPTS_MAX: usize = 16;
/// SQLite's number for `synchronous = FULL`.
const SYNCHRONOUS_FULL: i64 = 2;

/// Runs in a SQLite file.
#[derive(Debug)]
pub struct SqliteRunStore {
    connection: Connection,
    path: PathBuf,
    poisoned: bool,
    kept_max: usize,
}

impl SqliteRunStore {
    /// Opens or makes the database at `path`, mode 0600; its directory is made with mode 0700 if need be.
    ///
    /// Blocks on the disk, and up to 5 s on another process. An empty file is a new database.
    ///
    /// # Errors
    ///
    /// A file of another program or of a newer dwell is refused and not written to.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        prepare_file(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let at = |error| fault(path, error);
        let mut connection = Connection::open_with_flags(path, flags).map_err(at)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(at)?;
        // Before anything that writes, so that a file that is not ours stays as it is; and in one transaction, so that
        // one that another process is just making is seen before or after, never in between.
        let look = connection.transaction().map_err(at)?;
        schema::check(&look, path)?;
        look.rollback().map_err(at)?;
        write_ahead(&mut connection, path)?;
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(at)?;
        connection
            .pragma_update(None, "cell_size_check", true)
            .map_err(at)?;
        let level: i64 = connection
            .query_row("PRAGMA synchronous", [], |row| row.get(0))
            .map_err(at)?;
        if level != SYNCHRONOUS_FULL {
            return Err(open_error(path, format!("synchronous is {level}")));
        }
        schema::migrate(&mut connection, path)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            poisoned: false,
            kept_max: RUNS_KEPT_MAX,
        })
    }

    /// With another bound on the runs that are kept.
    #[must_use = "the bound is that of the returned store"]
    pub fn with_kept_max(mut self, kept_max: usize) -> Self {
        self.kept_max = kept_max;
        self
    }

    /// With another patience than 5 s for the transactions of other processes.
    ///
    /// # Errors
    ///
    /// When SQLite refuses the number.
    pub fn with_busy_timeout(self, timeout: Duration) -> Result<Self, StoreError> {
        self.connection
            .busy_timeout(timeout)
            .map_err(|error| fault(&self.path, error))?;
        Ok(self)
    }

    /// At most `limit` runs, those that were recorded first last.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or holds a row that this version does not understand.
    pub fn recent(&self, limit: usize) -> Result<Vec<RunRecord>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = |error| reading(&self.path, error);
        let mut select = self.connection.prepare_cached(SELECT).map_err(read)?;
        let rows = select.query_map([limit], from_row).map_err(read)?;
        rows.collect::<Result<_, _>>().map_err(read)
    }

    fn write(&mut self, batch: &[RunRecord]) -> Result<(), StoreError> {
        let begun = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(|error| writing(&self.path, error))?;
        let written = insert(&transaction, batch, self.kept_max).and_then(|()| transaction.commit());
        written.map_err(|error| {
            // Past its beginning a transaction does not wait for others: whatever failed is a failed write.
            StoreError::Write {
                path: self.path.clone(),
                source: error.into(),
            }
        })
    }
}

impl RunStore for SqliteRunStore {
    fn record(&mut self, batch: &[RunRecord]) -> Result<(), StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let written = self.write(batch);
        self.poisoned = !matches!(written, Ok(()) | Err(StoreError::Busy { .. }));
        written
    }
}

const UPSERT: &str = "
    INSERT INTO runs (
        trace_id, process_id, program, status_kind, status_code, started_unix_us,
        total_us, spawn_us, first_byte_us, run_us, drain_us, stdout_bytes, stderr_bytes, host
    ) VALUES (
        :trace_id, :process_id, :program, :status_kind, :status_code, :started_unix_us,
        :total_us, :spawn_us, :first_byte_us, :run_us, :drain_us, :stdout_bytes, :stderr_bytes, :host
    ) ON CONFLICT (trace_id, process_id) DO UPDATE SET
        program = excluded.program,
        status_code = iif(excluded.status_kind = 0, status_code, excluded.status_code),
        status_kind = iif(excluded.status_kind = 0, status_kind, excluded.status_kind),
        total_us = coalesce(excluded.total_us, total_us),
        spawn_us = coalesce(excluded.spawn_us, spawn_us),
        first_byte_us = coalesce(excluded.first_byte_us, first_byte_us),
        run_us = coalesce(excluded.run_us, run_us),
        drain_us = coalesce(excluded.drain_us, drain_us),
        stdout_bytes = coalesce(excluded.stdout_bytes, stdout_bytes),
        stderr_bytes = coalesce(excluded.stderr_bytes, stderr_bytes),
        host = coalesce(excluded.host, host)
";

const FORGET: &str = "DELETE FROM runs WHERE run_id <= (SELECT max(run_id) FROM runs) - ?1";

const SELECT: &str = "
    SELECT trace_id, process_id, program, status_kind, status_code, started_unix_us,
        total_us, spawn_us, first_byte_us, run_us, drain_us, stdout_bytes, stderr_bytes, host
    FROM runs ORDER BY run_id DESC LIMIT ?1
";

fn insert(transaction: &Transaction<'_>, batch: &[RunRecord], kept_max: usize) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(UPSERT)?;
    for run in batch {
        let (kind, code) = status_columns(run.status);
        upsert.execute(named_params! {
            ":trace_id": run.trace_id.0,
            ":process_id": run.process.0.cast_signed(),
            ":program": run.program.as_str(),
            ":status_kind": kind,
            ":status_code": code,
            ":started_unix_us": run.started_unix_us,
            ":total_us": run.durations.total_us.map(column),
            ":spawn_us": run.durations.spawn_us.map(column),
            ":first_byte_us": run.durations.first_byte_us.map(column),
            ":run_us": run.durations.run_us.map(column),
            ":drain_us": run.durations.drain_us.map(column),
            ":stdout_bytes": run.stdout_bytes.map(column),
            ":stderr_bytes": run.stderr_bytes.map(column),
            ":host": run.host,
        })?;
    }
    let kept_max = i64::try_from(kept_max).unwrap_or(i64::MAX);
    transaction.prepare_cached(FORGET)?.execute([kept_max])?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<RunRecord> {
    let amount = |index| {
        row.get::<_, Option<i64>>(index)
            .map(|value| value.map(i64::unsigned_abs))
    };
    Ok(RunRecord {
        trace_id: TraceId(row.get(0)?),
        process: ProcessId(row.get::<_, i64>(1)?.cast_unsigned()),
        program: ProgramName::from_stored(row.get_ref(2)?.as_str()?),
        status: status_from_columns(row.get(3)?, row.get(4)?)
            .ok_or(rusqlite::Error::IntegralValueOutOfRange(3, row.get(3)?))?,
        started_unix_us: row.get(5)?,
        durations: RunDurations {
            total_us: amount(6)?,
            spawn_us: amount(7)?,
            first_byte_us: amount(8)?,
            run_us: amount(9)?,
            drain_us: amount(10)?,
        },
        stdout_bytes: amount(11)?,
        stderr_bytes: amount(12)?,
        host: row.get(13)?,
    })
}

/// Kind 0 is the only one that a later record does not bring; `UPSERT` relies on it.
fn status_columns(status: RunStatus) -> (i64, i32) {
    match status {
        RunStatus::Running => (0, 0),
        RunStatus::Exited(code) => (1, code),
        RunStatus::Signaled(signal) => (2, signal),
        RunStatus::SpawnFailed(errno) => (3, errno),
        RunStatus::Unknown => (4, 0),
    }
}

fn status_from_columns(kind: i64, code: i32) -> Option<RunStatus> {
    match kind {
        0 => Some(RunStatus::Running),
        1 => Some(RunStatus::Exited(code)),
        2 => Some(RunStatus::Signaled(code)),
        3 => Some(RunStatus::SpawnFailed(code)),
        4 => Some(RunStatus::Unknown),
        _ => None,
    }
}

/// SQLite's integers are signed; nothing of ours lasts or fills that much.
fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
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
    classify(path, error).unwrap_or_else(|error| StoreError::Write {
        path: path.to_owned(),
        source: error.into(),
    })
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
