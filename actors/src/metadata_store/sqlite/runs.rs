//! The table of runs.

use dwell_messages::{ProcessId, SpanId, TraceId};
use rusqlite::{Connection, Row, Transaction, named_params};

use super::super::run::{ProgramName, RunDurations, RunRecord, RunStatus};
use super::column;

const UPSERT: &str = "
    INSERT INTO runs (
        trace_id, span_id, process_id, program, status_kind, status_code, started_unix_us,
        total_us, spawn_us, first_byte_us, run_us, drain_us, stdout_bytes, stderr_bytes, host
    ) VALUES (
        :trace_id, :span_id, :process_id, :program, :status_kind, :status_code, :started_unix_us,
        :total_us, :spawn_us, :first_byte_us, :run_us, :drain_us, :stdout_bytes, :stderr_bytes, :host
    ) ON CONFLICT (trace_id, span_id, process_id) DO UPDATE SET
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
        total_us, spawn_us, first_byte_us, run_us, drain_us, stdout_bytes, stderr_bytes, host, span_id
    FROM runs ORDER BY run_id DESC LIMIT ?1
";

pub(super) fn insert(
    transaction: &Transaction<'_>,
    batch: &[RunRecord],
    kept_max: usize,
) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(UPSERT)?;
    for run in batch {
        let (kind, code) = status_columns(run.status);
        upsert.execute(named_params! {
            ":trace_id": run.trace_id.0,
            ":span_id": run.span_id.0,
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
        span_id: SpanId(row.get(14)?),
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

/// At most `limit` runs, those that were recorded first last.
pub(super) fn recent(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<RunRecord>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut select = connection.prepare_cached(SELECT)?;
    let rows = select.query_map([limit], from_row)?;
    rows.collect()
}
