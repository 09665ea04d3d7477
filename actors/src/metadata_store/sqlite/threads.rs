//! The tables of threads and of their leases.

use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, named_params, params};

use super::super::error::StoreError;
use super::super::lease::Holder;
use super::super::query::{ThreadPage, ThreadQuery};
use super::super::thread::{ThreadId, ThreadRecord, ThreadStatus, clean_text};
use super::super::{PATH_MAX_BYTES, TEXT_MAX_BYTES};
use super::{Unwritten, column};

const COLUMNS: &str = "thread_id, created_unix_us, updated_unix_us, title, preview, cwd, repo_root, repo_branch, \
                       repo_commit, model, tokens_input, tokens_cached, tokens_output, turns, status, parent, \
                       items, log_bytes";

const PUT: &str = "
    INSERT OR REPLACE INTO threads (
        thread_id, created_unix_us, updated_unix_us, title, preview, cwd, repo_root, repo_branch, repo_commit, model,
        tokens_input, tokens_cached, tokens_output, turns, status, parent, items, log_bytes
    ) VALUES (
        :thread_id, :created_unix_us, :updated_unix_us, :title, :preview, :cwd, :repo_root, :repo_branch,
        :repo_commit, :model, :tokens_input, :tokens_cached, :tokens_output, :turns, :status, :parent, :items,
        :log_bytes
    )
";

pub(super) fn put(connection: &Connection, thread: &ThreadRecord) -> rusqlite::Result<()> {
    connection.prepare_cached(PUT)?.execute(named_params! {
        ":thread_id": thread.id.0,
        ":created_unix_us": thread.created_unix_us,
        ":updated_unix_us": thread.updated_unix_us,
        ":title": thread.title,
        ":preview": thread.preview,
        ":cwd": thread.cwd,
        ":repo_root": thread.repo_root,
        ":repo_branch": thread.repo_branch,
        ":repo_commit": thread.repo_commit,
        ":model": thread.model,
        ":tokens_input": column(thread.tokens_input),
        ":tokens_cached": column(thread.tokens_cached),
        ":tokens_output": column(thread.tokens_output),
        ":turns": column(thread.turns),
        ":status": status_column(thread.status),
        ":parent": thread.parent.map(|parent| parent.0),
        ":items": column(thread.items),
        ":log_bytes": column(thread.log_bytes),
    })?;
    Ok(())
}

pub(super) fn one(connection: &Connection, id: ThreadId) -> rusqlite::Result<Option<ThreadRecord>> {
    let sql = format!("SELECT {COLUMNS} FROM threads WHERE thread_id = ?1");
    connection
        .prepare_cached(&sql)?
        .query_row([id.0], from_row)
        .optional()
}

/// The conditions are put together from constants; what is asked for is only ever bound.
pub(super) fn page(connection: &Connection, query: &ThreadQuery) -> rusqlite::Result<ThreadPage> {
    let mut conditions = Vec::new();
    let status = query.status.map(status_column);
    let after = query.after.map(|mark| (mark.updated_unix_us, mark.id.0));
    let limit = column(query.limit() as u64 + 1);
    let mut values: Vec<(&str, &dyn ToSql)> = vec![(":limit", &limit)];
    if let Some(cwd) = &query.cwd {
        conditions.push("cwd = :cwd");
        values.push((":cwd", cwd));
    }
    if let Some(status) = &status {
        conditions.push("status = :status");
        values.push((":status", status));
    }
    if let Some(text) = &query.text {
        conditions.push("(instr(lower(title), lower(:text)) OR instr(lower(preview), lower(:text)))");
        values.push((":text", text));
    }
    if let Some((updated, id)) = &after {
        conditions.push("(updated_unix_us, thread_id) < (:updated, :id)");
        values.push((":updated", updated));
        values.push((":id", id));
    }
    let filter = if conditions.is_empty() {
        String::new()
    } else {
        format!("WHERE {}", conditions.join(" AND "))
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM threads {filter} ORDER BY updated_unix_us DESC, thread_id DESC LIMIT :limit"
    );
    let mut select = connection.prepare_cached(&sql)?;
    let rows = select.query_map(values.as_slice(), from_row)?;
    Ok(query.page(rows.collect::<Result<_, _>>()?))
}

pub(super) fn delete(connection: &Connection, id: ThreadId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("DELETE FROM leases WHERE thread_id = ?1")?
        .execute([id.0])?;
    let deleted = connection
        .prepare_cached("DELETE FROM threads WHERE thread_id = ?1")?
        .execute([id.0])?;
    Ok(deleted > 0)
}

fn holder(connection: &Connection, id: ThreadId) -> rusqlite::Result<Option<Holder>> {
    connection
        .prepare_cached("SELECT pid, start_ticks, boot, writer FROM leases WHERE thread_id = ?1")?
        .query_row([id.0], |row| {
            Ok(Holder {
                pid: row.get(0)?,
                start_ticks: row.get::<_, i64>(1)?.cast_unsigned(),
                boot: row.get(2)?,
                writer: row.get::<_, i64>(3)?.cast_unsigned(),
            })
        })
        .optional()
}

/// Refuses when `own` is not the thread's writer.
pub(super) fn held_by(connection: &Connection, id: ThreadId, own: &Holder) -> Result<(), Unwritten> {
    if holder(connection, id)?.as_ref() == Some(own) {
        return Ok(());
    }
    Err(Unwritten::Refused(StoreError::LeaseLost { id }))
}

/// Refuses when a live process other than `own` writes to the thread.
pub(super) fn free_for(connection: &Connection, id: ThreadId, own: &Holder) -> Result<(), Unwritten> {
    match holder(connection, id)? {
        Some(other) if other != *own && other.is_alive() => {
            Err(Unwritten::Refused(StoreError::ThreadBusy { id, pid: other.pid }))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn lease(connection: &Connection, id: ThreadId, holder: &Holder) -> rusqlite::Result<()> {
    let put = "INSERT OR REPLACE INTO leases (thread_id, pid, start_ticks, boot, writer) VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.prepare_cached(put)?.execute(params![
        id.0,
        holder.pid,
        holder.start_ticks.cast_signed(),
        holder.boot,
        holder.writer.cast_signed(),
    ])?;
    Ok(())
}

pub(super) fn release(connection: &Connection, id: ThreadId, own: &Holder) -> rusqlite::Result<()> {
    if holder(connection, id)?.as_ref() == Some(own) {
        connection
            .prepare_cached("DELETE FROM leases WHERE thread_id = ?1")?
            .execute([id.0])?;
    }
    Ok(())
}

/// Texts are made safe once more: the file may have been changed.
fn from_row(row: &Row<'_>) -> rusqlite::Result<ThreadRecord> {
    let text = |index, max_bytes| {
        row.get::<_, Option<String>>(index)
            .map(|text| text.map(|text| clean_text(&text, max_bytes)))
    };
    let amount = |index| row.get::<_, i64>(index).map(|value| value.max(0).cast_unsigned());
    Ok(ThreadRecord {
        id: ThreadId(row.get(0)?),
        created_unix_us: row.get(1)?,
        updated_unix_us: row.get(2)?,
        title: text(3, TEXT_MAX_BYTES)?,
        preview: text(4, TEXT_MAX_BYTES)?,
        cwd: text(5, PATH_MAX_BYTES)?,
        repo_root: text(6, PATH_MAX_BYTES)?,
        repo_branch: text(7, TEXT_MAX_BYTES)?,
        repo_commit: text(8, TEXT_MAX_BYTES)?,
        model: text(9, TEXT_MAX_BYTES)?,
        tokens_input: amount(10)?,
        tokens_cached: amount(11)?,
        tokens_output: amount(12)?,
        turns: amount(13)?,
        status: status_from_column(row.get(14)?)
            .ok_or(rusqlite::Error::IntegralValueOutOfRange(14, row.get(14)?))?,
        parent: row.get::<_, Option<[u8; 16]>>(15)?.map(ThreadId),
        items: amount(16)?,
        log_bytes: amount(17)?,
    })
}

fn status_column(status: ThreadStatus) -> i64 {
    match status {
        ThreadStatus::Idle => 0,
        ThreadStatus::Active => 1,
        ThreadStatus::Archived => 2,
    }
}

fn status_from_column(column: i64) -> Option<ThreadStatus> {
    match column {
        0 => Some(ThreadStatus::Idle),
        1 => Some(ThreadStatus::Active),
        2 => Some(ThreadStatus::Archived),
        _ => None,
    }
}
