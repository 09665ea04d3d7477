//! The database's tables, and how an older one becomes a newer one.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::super::error::StoreError;
use super::fault;

/// Written into the header of every database of ours: "dwel".
pub const APPLICATION_ID: i32 = i32::from_be_bytes(*b"dwel");
/// The newest schema that this version knows.
pub const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// The step at index n makes schema n + 1 from schema n. Never edited once released: a change is a new step.
const MIGRATIONS: [&str; 3] = [RUNS, THREADS, RUNS_BY_SPAN];

const RUNS: &str = "
    CREATE TABLE runs (
        run_id          INTEGER PRIMARY KEY,
        trace_id        BLOB NOT NULL,
        process_id      INTEGER NOT NULL,
        program         TEXT NOT NULL,
        status_kind     INTEGER NOT NULL,
        status_code     INTEGER NOT NULL,
        started_unix_us INTEGER NOT NULL,
        total_us        INTEGER,
        spawn_us        INTEGER,
        first_byte_us   INTEGER,
        run_us          INTEGER,
        drain_us        INTEGER,
        stdout_bytes    INTEGER,
        stderr_bytes    INTEGER,
        host            TEXT,
        UNIQUE (trace_id, process_id),
        CHECK (length(trace_id) = 16)
    ) STRICT;
";

const THREADS: &str = "
    CREATE TABLE threads (
        thread_id       BLOB PRIMARY KEY NOT NULL,
        created_unix_us INTEGER NOT NULL,
        updated_unix_us INTEGER NOT NULL,
        title           TEXT,
        preview         TEXT,
        cwd             TEXT,
        repo_root       TEXT,
        repo_branch     TEXT,
        repo_commit     TEXT,
        model           TEXT,
        tokens_input    INTEGER NOT NULL,
        tokens_cached   INTEGER NOT NULL,
        tokens_output   INTEGER NOT NULL,
        turns           INTEGER NOT NULL,
        status          INTEGER NOT NULL,
        parent          BLOB,
        items           INTEGER NOT NULL,
        log_bytes       INTEGER NOT NULL,
        CHECK (length(thread_id) = 16),
        CHECK (parent IS NULL OR length(parent) = 16)
    ) STRICT;
    CREATE INDEX threads_by_recency ON threads (updated_unix_us, thread_id);
    CREATE INDEX threads_by_cwd ON threads (cwd, updated_unix_us, thread_id);
    CREATE INDEX threads_by_status ON threads (status, updated_unix_us, thread_id);
    CREATE TABLE leases (
        thread_id   BLOB PRIMARY KEY NOT NULL,
        pid         INTEGER NOT NULL,
        start_ticks INTEGER NOT NULL,
        boot        TEXT NOT NULL,
        writer      INTEGER NOT NULL,
        CHECK (length(thread_id) = 16)
    ) STRICT;
";

/// A run is known by its call's span: process ids begin at 1 in every session, and several sessions may be in one trace.
const RUNS_BY_SPAN: &str = "
    CREATE TABLE runs_by_span (
        run_id          INTEGER PRIMARY KEY,
        trace_id        BLOB NOT NULL,
        span_id         BLOB NOT NULL,
        process_id      INTEGER NOT NULL,
        program         TEXT NOT NULL,
        status_kind     INTEGER NOT NULL,
        status_code     INTEGER NOT NULL,
        started_unix_us INTEGER NOT NULL,
        total_us        INTEGER,
        spawn_us        INTEGER,
        first_byte_us   INTEGER,
        run_us          INTEGER,
        drain_us        INTEGER,
        stdout_bytes    INTEGER,
        stderr_bytes    INTEGER,
        host            TEXT,
        UNIQUE (trace_id, span_id, process_id),
        CHECK (length(trace_id) = 16),
        CHECK (length(span_id) = 8)
    ) STRICT;
    INSERT INTO runs_by_span
        SELECT run_id, trace_id, zeroblob(8), process_id, program, status_kind, status_code, started_unix_us,
            total_us, spawn_us, first_byte_us, run_us, drain_us, stdout_bytes, stderr_bytes, host
        FROM runs;
    DROP TABLE runs;
    ALTER TABLE runs_by_span RENAME TO runs;
";

/// Refuses what is not ours, writing nothing. The answer is the file's schema; 0 for an empty database.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let number = |sql| {
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(|error| fault(path, error))
    };
    let application_id = number("PRAGMA application_id")? as i32;
    let version = number("PRAGMA user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let empty = application_id == 0 && version == 0 && tables == 0;
    if !empty && application_id != APPLICATION_ID {
        return Err(StoreError::NotOurs {
            path: path.to_owned(),
            application_id,
        });
    }
    if version > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found: version,
            supported: SCHEMA_VERSION,
        });
    }
    if version < 0 || (version == 0 && !empty) {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            source: format!("schema {version}").into(),
        });
    }
    Ok(version)
}

/// Brings the file to the newest schema in one transaction: a crash leaves the old one or the new one.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let at = |error| fault(path, error);
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(at)?;
    // Asked again under the lock: another process may have been quicker.
    let version = check(&transaction, path)?;
    let done = usize::try_from(version).unwrap_or(MIGRATIONS.len());
    for step in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(step).map_err(at)?;
    }
    if version < SCHEMA_VERSION {
        transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(at)?;
        transaction
            .pragma_update(None, "user_version", SCHEMA_VERSION)
            .map_err(at)?;
    }
    transaction.commit().map_err(at)
}
