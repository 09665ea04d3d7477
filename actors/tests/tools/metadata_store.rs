use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dwell_actors::metadata_store::{
    APPLICATION_ID, Change, Holder, MemoryStore, MetadataStore, PROGRAM_NAME_MAX_BYTES, PageMark,
    ProgramName, RunDurations, RunRecord, RunStatus, SCHEMA_VERSION, SqliteStore, StoreError, ThreadId,
    ThreadPatch, ThreadQuery, ThreadRecord, ThreadStatus,
};
use dwell_messages::{ProcessId, SpanId, TraceContext, TraceFlags, TraceId};
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::{TempDir, tempdir};

fn place() -> (TempDir, PathBuf) {
    let dir = tempdir().unwrap();
    let path = dir.path().join("state/runs.db");
    (dir, path)
}

fn started(trace: u8, process: u64) -> RunRecord {
    let program = ProgramName::from_argv0(b"/usr/bin/true");
    RunRecord::started(
        &TraceContext::new(TraceId([trace; 16]), SpanId([7; 8]), TraceFlags::NONE),
        ProcessId(process),
        program,
        1_700_000_000_000_000,
    )
}

fn ended(trace: u8, process: u64) -> RunRecord {
    RunRecord {
        status: RunStatus::Exited(3),
        durations: RunDurations {
            total_us: Some(9),
            run_us: Some(7),
            ..RunDurations::default()
        },
        stdout_bytes: Some(11),
        host: Some("box".to_owned()),
        ..started(trace, process)
    }
}

/// A second, bare connection to the same file, as another program would have.
fn raw(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

/// From now on every commit that inserts a run fails, and only at the commit.
fn break_commits(path: &Path) {
    raw(path)
        .execute_batch(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY);
             CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
             CREATE TRIGGER fail AFTER INSERT ON runs BEGIN INSERT INTO child VALUES (1); END;",
        )
        .unwrap();
}

#[test]
fn a_run_is_there_when_the_store_is_opened_again() {
    let (_dir, path) = place();
    let run = ended(1, u64::MAX);
    SqliteStore::open(&path)
        .unwrap()
        .record_runs(std::slice::from_ref(&run))
        .unwrap();
    assert_eq!(SqliteStore::open(&path).unwrap().recent_runs(10).unwrap(), [run]);
}

#[test]
fn the_end_of_a_run_fills_in_its_start() {
    let (_dir, path) = place();
    let mut store = SqliteStore::open(&path).unwrap();
    let start = RunRecord {
        stderr_bytes: Some(5),
        ..started(1, 1)
    };
    store.record_runs(&[start, started(1, 2)]).unwrap();
    store
        .record_runs(&[RunRecord {
            started_unix_us: 0,
            ..ended(1, 1)
        }])
        .unwrap();
    let expected = RunRecord {
        stderr_bytes: Some(5),
        ..ended(1, 1)
    };
    assert_eq!(store.recent_runs(10).unwrap(), [started(1, 2), expected]);
}

#[test]
fn a_late_start_does_not_make_an_ended_run_run_again() {
    let (_dir, path) = place();
    let mut store = SqliteStore::open(&path).unwrap();
    store.record_runs(&[ended(1, 1), started(1, 1)]).unwrap();
    assert_eq!(store.recent_runs(10).unwrap(), [ended(1, 1)]);
}

#[test]
fn every_status_survives() {
    let (_dir, path) = place();
    let mut store = SqliteStore::open(&path).unwrap();
    let statuses = [
        RunStatus::Running,
        RunStatus::Exited(-1),
        RunStatus::Signaled(9),
        RunStatus::SpawnFailed(2),
        RunStatus::Unknown,
    ];
    let runs: Vec<_> = (1..)
        .zip(statuses)
        .map(|(n, status)| RunRecord {
            status,
            ..started(1, n)
        })
        .collect();
    store.record_runs(&runs).unwrap();
    let mut read = store.recent_runs(10).unwrap();
    read.reverse();
    assert_eq!(read, runs);
}

#[test]
fn the_oldest_runs_are_forgotten_past_the_bound() {
    let (_dir, path) = place();
    let mut store = SqliteStore::open(&path).unwrap().with_runs_kept_max(2);
    store
        .record_runs(&[started(1, 1), started(1, 2), started(1, 3)])
        .unwrap();
    store.record_runs(&[ended(1, 2)]).unwrap();
    assert_eq!(store.recent_runs(10).unwrap(), [started(1, 3), ended(1, 2)]);
    assert_eq!(store.recent_runs(1).unwrap(), [started(1, 3)]);
}

#[test]
fn the_database_is_ours_private_write_ahead_and_without_temporary_files() {
    let (_dir, path) = place();
    let mut store = SqliteStore::open(&path).unwrap();
    store.record_runs(&[started(1, 1)]).unwrap();
    let pragma = |name: &str| {
        raw(&path)
            .query_row(&format!("PRAGMA {name}"), [], |row| {
                row.get::<_, rusqlite::types::Value>(0)
            })
            .unwrap()
    };
    assert_eq!(pragma("application_id"), i64::from(APPLICATION_ID).into());
    assert_eq!(pragma("user_version"), SCHEMA_VERSION.into());
    assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut names = Vec::new();
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.path());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["runs.db", "runs.db-shm", "runs.db-wal"]);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}

#[test]
fn a_newer_schema_is_refused_and_not_written_to() {
    let (_dir, path) = place();
    drop(SqliteStore::open(&path).unwrap());
    raw(&path)
        .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
        .unwrap();
    let before = fs::read(&path).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(
        matches!(error, StoreError::NewerSchema { found, .. } if found == SCHEMA_VERSION + 1),
        "{error}"
    );
    assert!(error.to_string().contains("use the newer dwell"));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_database_of_another_program_is_refused_and_not_written_to() {
    for application_id in [0, 7] {
        let dir = tempdir().unwrap();
        let path = dir.path().join("theirs.db");
        let theirs = raw(&path);
        theirs.execute_batch("CREATE TABLE t (x)").unwrap();
        theirs
            .pragma_update(None, "application_id", application_id)
            .unwrap();
        drop(theirs);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let before = fs::read(&path).unwrap();
        let error = SqliteStore::open(&path).unwrap_err();
        assert!(
            matches!(error, StoreError::NotOurs { application_id: found, .. } if found == application_id)
        );
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn a_file_that_is_no_database_is_damaged_and_kept() {
    let (_dir, path) = place();
    drop(SqliteStore::open(&path).unwrap());
    let garbage = vec![b'x'; 9_000];
    fs::write(&path, &garbage).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), garbage);
}

#[test]
fn a_database_damaged_anywhere_is_an_error_or_readable_and_never_a_panic() {
    let (dir, path) = place();
    let mut store = SqliteStore::open(&path).unwrap();
    let runs: Vec<_> = (1..200).map(|n| started(1, n)).collect();
    store.record_runs(&runs).unwrap();
    drop(store);
    let sound = fs::read(&path).unwrap();
    let (mut refused, mut read) = (0, 0);
    // Densely in the header, then here and there in the pages.
    for at in (0..100).step_by(8).chain((100..sound.len()).step_by(1_021)) {
        let copy = dir.path().join("copy.db");
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", copy.display()));
        }
        let mut damaged = sound.clone();
        let end = (at + 97).min(if at < 100 { at + 8 } else { damaged.len() });
        damaged[at..end].fill(0xff);
        fs::write(&copy, damaged).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
        let outcome = SqliteStore::open(&copy).and_then(|mut store| {
            store.record_runs(&[ended(2, 1)])?;
            store.recent_runs(1_000)
        });
        match outcome {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0 && read > 0, "refused {refused}, read {read}");
}

#[test]
fn a_database_others_may_read_or_a_link_is_refused() {
    let (dir, path) = place();
    drop(SqliteStore::open(&path).unwrap());
    let link = dir.path().join("link.db");
    symlink(&path, &link).unwrap();
    assert!(matches!(
        SqliteStore::open(&link),
        Err(StoreError::NotAFile { .. })
    ));
    assert!(matches!(
        SqliteStore::open(dir.path()),
        Err(StoreError::NotAFile { .. })
    ));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        SqliteStore::open(&path),
        Err(StoreError::Mode { mode: 0o644, .. })
    ));
}

#[test]
fn after_a_failed_commit_nothing_is_acknowledged_until_the_store_is_opened_again() {
    let (_dir, path) = place();
    let mut store = SqliteStore::open(&path).unwrap();
    store.record_runs(&[started(1, 1)]).unwrap();
    break_commits(&path);
    assert!(matches!(
        store.record_runs(&[started(1, 2)]),
        Err(StoreError::Write { .. })
    ));
    raw(&path).execute_batch("DROP TRIGGER fail").unwrap();
    // The disk would take it now; the store must not say so.
    assert!(matches!(
        store.record_runs(&[started(1, 3)]),
        Err(StoreError::Poisoned)
    ));
    assert!(matches!(store.record_runs(&[]), Err(StoreError::Poisoned)));
    assert_eq!(store.recent_runs(10).unwrap(), [started(1, 1)]);
    let mut again = SqliteStore::open(&path).unwrap();
    again.record_runs(&[started(1, 3)]).unwrap();
    assert_eq!(again.recent_runs(10).unwrap(), [started(1, 3), started(1, 1)]);
}

#[test]
fn a_batch_is_kept_whole_or_not_at_all() {
    let (_dir, path) = place();
    let mut store = SqliteStore::open(&path).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON runs WHEN NEW.process_id = 2 BEGIN SELECT raise(ABORT, 'no'); END";
    raw(&path).execute_batch(refuse).unwrap();
    assert!(matches!(
        store.record_runs(&[started(1, 1), started(1, 2)]),
        Err(StoreError::Write { .. })
    ));
    assert_eq!(store.recent_runs(10).unwrap(), []);
}

#[test]
fn a_database_held_by_another_is_busy_and_not_poisoned() {
    let (_dir, path) = place();
    let mut store = SqliteStore::open(&path)
        .unwrap()
        .with_busy_timeout(Duration::ZERO)
        .unwrap();
    let other = raw(&path);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(
        store.record_runs(&[started(1, 1)]),
        Err(StoreError::Busy { .. })
    ));
    other.execute_batch("COMMIT").unwrap();
    store.record_runs(&[started(1, 1)]).unwrap();
}

#[test]
fn many_stores_open_one_new_file_at_once_and_all_write_to_it() {
    let (_dir, path) = place();
    std::thread::scope(|scope| {
        for n in 1..=8 {
            let path = &path;
            scope.spawn(move || {
                let mut store = SqliteStore::open(path).unwrap();
                store.record_runs(&[started(1, n)]).unwrap();
                store.record_runs(&[ended(1, n)]).unwrap();
            });
        }
    });
    let runs = SqliteStore::open(&path).unwrap().recent_runs(100).unwrap();
    assert_eq!(runs.len(), 8);
    assert!(runs.iter().all(|run| run.status == RunStatus::Exited(3)));
}

#[test]
fn a_row_of_an_unknown_kind_is_an_error_and_not_a_guess() {
    let (_dir, path) = place();
    let mut store = SqliteStore::open(&path).unwrap();
    store.record_runs(&[started(1, 1)]).unwrap();
    raw(&path)
        .execute_batch("UPDATE runs SET status_kind = 99")
        .unwrap();
    assert!(matches!(store.recent_runs(1), Err(StoreError::Read { .. })));
}

#[test]
fn a_programs_name_is_its_last_part_and_safe_to_print() {
    let name = |argv0: &[u8]| ProgramName::from_argv0(argv0).as_str().to_owned();
    assert_eq!(name(b"/usr/bin/cargo"), "cargo");
    assert_eq!(name(b"cargo"), "cargo");
    assert_eq!(name(b"/"), "?");
    assert_eq!(name(b""), "?");
    assert_eq!(name(b"a\x1b[2J\nb"), "a\\u{1b}[2J\\nb");
    assert_eq!(name("x\u{202e}y".as_bytes()), "x\\u{202e}y");
    assert_eq!(name(b"\xff\xfe"), "\\xff\\xfe");
    assert_eq!(name(&[b'a'; 64]), "a".repeat(64));
    assert_eq!(name(&[b'a'; 65]), "a".repeat(61) + "…");
}

fn thread(n: u8) -> ThreadId {
    ThreadId([n; 16])
}

fn titled(title: &str, at: i64) -> ThreadPatch {
    ThreadPatch {
        title: Change::Set(title.to_owned()),
        updated_unix_us: Some(at),
        ..ThreadPatch::default()
    }
}

/// A store with a writer of its own for each of these threads.
fn with_threads(path: &Path, threads: &[(u8, ThreadPatch)]) -> (SqliteStore, Vec<Holder>) {
    let mut store = SqliteStore::open(path).unwrap();
    let holders = threads.iter().map(|(n, patch)| {
        let holder = Holder::of_this_process();
        assert_eq!(store.lease(thread(*n), &holder).unwrap(), None);
        store.update_thread(thread(*n), &holder, patch).unwrap();
        holder
    });
    let holders = holders.collect();
    (store, holders)
}

fn ids(store: &dyn MetadataStore, query: &ThreadQuery) -> Vec<u8> {
    let page = store.threads(query).unwrap();
    page.threads.iter().map(|thread| thread.id.0[0]).collect()
}

#[test]
fn a_threads_record_survives_and_changes_field_by_field() {
    let (_dir, path) = place();
    let first = ThreadPatch {
        created_unix_us: Some(1),
        cwd: Change::Set("/src".into()),
        model: Change::Set("m".into()),
        parent: Change::Set(thread(9)),
        tokens_input: Some(u64::MAX / 2),
        status: Some(ThreadStatus::Active),
        ..titled("one", 5)
    };
    let (store, holders) = with_threads(&path, &[(1, first)]);
    drop(store);
    let mut store = SqliteStore::open(&path).unwrap();
    let second = ThreadPatch {
        model: Change::Clear,
        turns: Some(3),
        ..ThreadPatch::default()
    };
    store.update_thread(thread(1), &holders[0], &second).unwrap();
    let mut expected = ThreadRecord::new(thread(1));
    expected.created_unix_us = 1;
    expected.updated_unix_us = 5;
    expected.title = Some("one".into());
    expected.cwd = Some("/src".into());
    expected.parent = Some(thread(9));
    expected.tokens_input = u64::MAX / 2;
    expected.status = ThreadStatus::Active;
    expected.turns = 3;
    assert_eq!(store.thread(thread(1)).unwrap(), Some(expected));
    assert_eq!(store.thread(thread(2)).unwrap(), None);
}

#[test]
fn threads_are_listed_newest_first_by_directory_state_and_text_and_in_pages() {
    let (_dir, path) = place();
    let at = |n: u8, title: &str, cwd: &str, status| {
        let patch = ThreadPatch {
            cwd: Change::Set(cwd.into()),
            status: Some(status),
            ..titled(title, i64::from(n) * 10)
        };
        (n, patch)
    };
    let (store, _holders) = with_threads(
        &path,
        &[
            at(1, "Fix the parser", "/a", ThreadStatus::Idle),
            at(2, "100% of it", "/b", ThreadStatus::Active),
            at(3, "fix the LINKER", "/a", ThreadStatus::Active),
            at(4, "other", "/b", ThreadStatus::Idle),
        ],
    );
    let all = ThreadQuery::default();
    assert_eq!(ids(&store, &all), [4, 3, 2, 1]);
    let cwd = ThreadQuery {
        cwd: Some("/a".into()),
        ..all.clone()
    };
    assert_eq!(ids(&store, &cwd), [3, 1]);
    let active = ThreadQuery {
        status: Some(ThreadStatus::Active),
        ..all.clone()
    };
    assert_eq!(ids(&store, &active), [3, 2]);
    let fix = ThreadQuery {
        text: Some("FIX the".into()),
        ..all.clone()
    };
    assert_eq!(ids(&store, &fix), [3, 1]);
    // A text is a text and no pattern.
    let percent = ThreadQuery {
        text: Some("%".into()),
        ..all.clone()
    };
    assert_eq!(ids(&store, &percent), [2]);
    let mut seen = Vec::new();
    let mut query = ThreadQuery { limit: 3, ..all };
    loop {
        let page = store.threads(&query).unwrap();
        seen.push(page.threads.len());
        match page.next {
            Some(mark) => query.after = Some(mark),
            None => break,
        }
    }
    assert_eq!(seen, [3, 1]);
    query.after = Some(PageMark {
        updated_unix_us: 20,
        id: thread(2),
    });
    assert_eq!(ids(&store, &query), [1]);
}

#[test]
fn a_thread_has_one_writer_and_a_dead_one_is_followed() {
    let (_dir, path) = place();
    let (mut store, holders) = with_threads(&path, &[(1, titled("x", 1))]);
    let second = Holder::of_this_process();
    let busy = store.lease(thread(1), &second);
    assert!(matches!(busy, Err(StoreError::ThreadBusy { pid, .. }) if pid == std::process::id()));
    assert!(matches!(
        store.delete_thread(thread(1), &second),
        Err(StoreError::LeaseLost { .. })
    ));
    assert!(matches!(
        store.update_thread(thread(1), &second, &titled("y", 2)),
        Err(StoreError::LeaseLost { .. })
    ));
    // Neither poisons: another process's hold is nobody's failure.
    store.release(thread(1), &second).unwrap();
    assert!(store.lease(thread(1), &second).is_err());
    // A process of the same number that started at another moment, or before the machine did, is another process.
    for dead in [
        Holder {
            start_ticks: 1,
            ..holders[0].clone()
        },
        Holder {
            boot: "another".into(),
            ..holders[0].clone()
        },
    ] {
        store.release(thread(1), &holders[0]).unwrap();
        store.lease(thread(1), &dead).unwrap();
        assert!(store.lease(thread(1), &holders[0]).unwrap().is_some());
        assert!(matches!(
            store.update_thread(thread(1), &dead, &titled("y", 2)),
            Err(StoreError::LeaseLost { .. })
        ));
    }
    store.release(thread(1), &holders[0]).unwrap();
    store.lease(thread(1), &second).unwrap();
    assert!(store.delete_thread(thread(1), &second).unwrap());
    // The lease went with it.
    assert!(store.lease(thread(1), &holders[0]).unwrap().is_none());
    assert!(!store.delete_thread(thread(1), &holders[0]).unwrap());
}

/// Regression: every session counts its processes from 1, so that runs of one trace overwrote each other.
#[test]
fn runs_of_several_sessions_in_one_trace_are_each_kept() {
    let (_dir, path) = place();
    let runs: Vec<RunRecord> = (1..=4)
        .map(|session| RunRecord {
            span_id: SpanId([session; 8]),
            ..ended(1, 1)
        })
        .collect();
    let mut memory = MemoryStore::new();
    let mut store = SqliteStore::open(&path).unwrap();
    for keep in [&mut memory as &mut dyn MetadataStore, &mut store] {
        for run in &runs {
            let began = RunRecord {
                span_id: run.span_id,
                ..started(1, 1)
            };
            keep.record_runs(&[began]).unwrap();
        }
        keep.record_runs(&runs).unwrap();
        let mut kept = keep.recent_runs(10).unwrap();
        kept.reverse();
        assert_eq!(kept, runs);
    }
}

/// What the schema was before there were threads, to the letter.
const SCHEMA_1: &str = "
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
    PRAGMA user_version = 1;
";

/// And what was added for them.
const SCHEMA_2: &str = "
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
    INSERT INTO threads VALUES (x'01010101010101010101010101010101', 5, 6, 'kept', NULL, '/a', NULL, NULL, NULL, NULL,
        1, 2, 3, 4, 0, NULL, 9, 99);
    PRAGMA user_version = 2;
";

fn of_schema_1(path: &Path) {
    of_schema(path, &[SCHEMA_1]);
}

/// With one run, in a file of our own.
fn of_schema(path: &Path, steps: &[&str]) {
    drop(SqliteStore::open(path).unwrap());
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", path.display()));
    }
    let old = raw(path);
    for step in steps {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    old.execute_batch("INSERT INTO runs VALUES (1, x'01010101010101010101010101010101', 7, 'true', 1, 0, 5, 1, 2, 3, 4, 5, 6, 7, NULL)").unwrap();
    drop(old);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_database_of_every_earlier_schema_becomes_the_newest_with_all_that_was_in_it() {
    for steps in [&[SCHEMA_1][..], &[SCHEMA_1, SCHEMA_2]] {
        let (_dir, path) = place();
        of_schema(&path, steps);
        let mut store = SqliteStore::open(&path).unwrap();
        let runs = store.recent_runs(10).unwrap();
        assert_eq!(
            (runs.len(), runs[0].process, runs[0].stderr_bytes),
            (1, ProcessId(7), Some(7))
        );
        assert_eq!(runs[0].span_id, SpanId([0; 8]));
        let known = store.lease(thread(1), &Holder::of_this_process()).unwrap();
        let title = known.and_then(|thread| thread.title);
        assert_eq!(title.as_deref(), (steps.len() == 2).then_some("kept"));
        let version: i64 = raw(&path)
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap();
        assert_eq!((version, SCHEMA_VERSION), (3, 3));
    }
}

#[test]
fn a_migration_that_is_cut_short_leaves_the_earlier_schema() {
    let (_dir, path) = place();
    of_schema_1(&path);
    // The second half of the step cannot happen: what the first half has made must not stay.
    raw(&path).execute_batch("CREATE TABLE leases (x)").unwrap();
    assert!(SqliteStore::open(&path).is_err());
    let old = raw(&path);
    let version: i64 = old
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    let threads: i64 = old
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE name = 'threads'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!((version, threads), (1, 0));
    old.execute_batch("DROP TABLE leases").unwrap();
    drop(old);
    assert_eq!(
        SqliteStore::open(&path).unwrap().recent_runs(10).unwrap().len(),
        1
    );
}

#[test]
fn a_store_that_is_opened_again_takes_writes_and_has_all_that_was_acknowledged() {
    let (_dir, path) = place();
    let (mut store, holders) = with_threads(&path, &[(1, titled("one", 1))]);
    raw(&path)
        .execute_batch("CREATE TRIGGER refuse BEFORE INSERT ON threads BEGIN SELECT raise(ABORT, 'no'); END")
        .unwrap();
    let failed = store.update_thread(thread(1), &holders[0], &titled("two", 2));
    assert!(matches!(failed, Err(StoreError::Write { .. })));
    assert!(store.is_poisoned());
    raw(&path).execute_batch("DROP TRIGGER refuse").unwrap();
    assert!(matches!(
        store.update_thread(thread(1), &holders[0], &titled("two", 2)),
        Err(StoreError::Poisoned)
    ));
    store.reopen().unwrap();
    assert_eq!(
        store.thread(thread(1)).unwrap().unwrap().title.as_deref(),
        Some("one")
    );
    store
        .update_thread(thread(1), &holders[0], &titled("two", 2))
        .unwrap();
    assert_eq!(
        store.thread(thread(1)).unwrap().unwrap().title.as_deref(),
        Some("two")
    );
}

/// A database whose log holds ten commits that are in no page yet, as a power cut leaves it.
fn cut_off(dir: &Path) -> (Vec<u8>, Vec<u8>, Holder) {
    let path = dir.join("whole/runs.db");
    let mut store = SqliteStore::open(&path).unwrap();
    let holder = Holder::of_this_process();
    store.lease(thread(1), &holder).unwrap();
    raw(&path)
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    for n in 1..=10 {
        let patch = ThreadPatch {
            turns: Some(n),
            items: Some(n),
            ..titled(&"x".repeat(300), 1)
        };
        store.update_thread(thread(1), &holder, &patch).unwrap();
    }
    let bytes = |suffix: &str| fs::read(format!("{}{suffix}", path.display())).unwrap();
    (bytes(""), bytes("-wal"), holder)
}

#[test]
fn a_log_of_the_database_cut_or_flipped_anywhere_leaves_whole_commits_and_no_panic() {
    let dir = tempdir().unwrap();
    let (database, log, holder) = cut_off(dir.path());
    let step = if std::env::var_os("DWELL_SOAK").is_some() {
        1
    } else {
        499
    };
    let mut seen = std::collections::BTreeSet::new();
    for at in (0..log.len()).step_by(step) {
        for cut in [true, false] {
            let copy = dir.path().join("copy.db");
            let wal = dir.path().join("copy.db-wal");
            let _ = fs::remove_file(dir.path().join("copy.db-shm"));
            let mut torn = log.clone();
            if cut {
                torn.truncate(at);
            } else {
                torn[at] ^= 0x40;
            }
            for (path, bytes) in [(&copy, &database), (&wal, &torn)] {
                fs::write(path, bytes).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
            }
            let opened = SqliteStore::open(&copy).and_then(|mut store| {
                let found = store.thread(thread(1))?;
                store.update_thread(thread(1), &holder, &titled("after", 2))?;
                Ok(found)
            });
            let Ok(found) = opened else { continue };
            let (turns, items) = found.map_or((0, 0), |found| (found.turns, found.items));
            assert_eq!(turns, items, "half a commit at {at}");
            seen.insert(turns);
        }
    }
    assert!(seen.len() > 8, "{seen:?}");
}

#[test]
fn threads_in_a_damaged_database_are_an_error_or_readable_and_never_a_panic() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("whole/runs.db");
    let many: Vec<_> = (1..200)
        .map(|n| (n, titled(&format!("{n} {}", "x".repeat(200)), i64::from(n))))
        .collect();
    drop(with_threads(&path, &many));
    let sound = fs::read(&path).unwrap();
    let (mut refused, mut read) = (0, 0);
    for at in (0..100).step_by(4).chain((100..sound.len()).step_by(1_777)) {
        let copy = dir.path().join("copy.db");
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", copy.display()));
        }
        let mut damaged = sound.clone();
        let end = (at + 97).min(if at < 100 { at + 4 } else { damaged.len() });
        damaged[at..end].fill(0xff);
        fs::write(&copy, damaged).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
        let outcome = SqliteStore::open(&copy).and_then(|mut store| {
            let holder = Holder::of_this_process();
            store.lease(thread(201), &holder)?;
            store.update_thread(thread(201), &holder, &titled("new", 1))?;
            store.threads(&ThreadQuery::default())
        });
        match outcome {
            Ok(_) => read += 1,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                // Not for want of space: its disk is well.
                assert!(!matches!(error, StoreError::Write { .. }), "byte {at}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && read > 0, "refused {refused}, read {read}");
}

/// Regression: it was told like a full disk, and what to do was never said.
#[test]
fn damage_that_a_write_meets_is_damage_and_says_what_to_do() {
    let (_dir, path) = place();
    let (mut store, holders) = with_threads(&path, &[(1, titled("one", 1))]);
    raw(&path)
        .execute_batch("UPDATE threads SET status = 99")
        .unwrap();
    let error = store
        .update_thread(thread(1), &holders[0], &titled("two", 2))
        .unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");
    assert!(store.is_poisoned());
}

fn any_record() -> impl Strategy<Value = RunRecord> {
    let amount = || proptest::option::of(0..1_000_u64);
    let amounts = (
        amount(),
        amount(),
        amount(),
        amount(),
        amount(),
        amount(),
        amount(),
    );
    let status = prop_oneof![
        Just(RunStatus::Running),
        any::<i32>().prop_map(RunStatus::Exited),
        Just(RunStatus::Signaled(9)),
        Just(RunStatus::SpawnFailed(2)),
        Just(RunStatus::Unknown),
    ];
    let names = (".{0,30}", proptest::option::of("[a-z]{0,5}"));
    let call = (0..2_u8, 0..2_u8, 1..4_u64);
    (call, any::<i64>(), status, names, amounts).prop_map(
        |((trace, span, process), at, status, (name, host), a)| RunRecord {
            trace_id: TraceId([trace; 16]),
            span_id: SpanId([span; 8]),
            process: ProcessId(process),
            program: ProgramName::from_argv0(name.as_bytes()),
            status,
            started_unix_us: at,
            durations: RunDurations {
                total_us: a.0,
                spawn_us: a.1,
                first_byte_us: a.2,
                run_us: a.3,
                drain_us: a.4,
            },
            stdout_bytes: a.5,
            stderr_bytes: a.6,
            host,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_database_and_the_memory_keep_the_same_runs(
        batches in proptest::collection::vec(proptest::collection::vec(any_record(), 0..5), 0..6), kept in 1..8_usize,
    ) {
        let (_dir, path) = place();
        let mut disk = SqliteStore::open(&path).unwrap().with_runs_kept_max(kept);
        let mut memory = MemoryStore::with_runs_kept_max(kept);
        for batch in &batches {
            disk.record_runs(batch).unwrap();
            memory.record_runs(batch).unwrap();
            prop_assert_eq!(disk.recent_runs(99).unwrap(), memory.recent_runs(99).unwrap());
        }
    }

    #[test]
    fn any_first_argument_gives_a_name_that_fits_and_stays(argv0 in proptest::collection::vec(any::<u8>(), 0..200)) {
        let name = ProgramName::from_argv0(&argv0);
        prop_assert!(!name.as_str().is_empty() && name.as_str().len() <= PROGRAM_NAME_MAX_BYTES);
        prop_assert!(!name.as_str().chars().any(char::is_control));
        prop_assert_eq!(ProgramName::from_argv0(name.as_str().as_bytes()), name);
    }

    #[test]
    fn the_database_and_the_memory_keep_and_list_the_same_threads(
        changes in proptest::collection::vec((0..4_u8, any_patch()), 0..12), text in proptest::option::of("[a-c]"),
    ) {
        let (_dir, path) = place();
        let mut disk = SqliteStore::open(&path).unwrap();
        let mut memory = MemoryStore::new();
        let holder = Holder::of_this_process();
        for (n, patch) in &changes {
            for store in [&mut disk as &mut dyn MetadataStore, &mut memory] {
                store.lease(thread(*n), &holder).unwrap();
                store.update_thread(thread(*n), &holder, patch).unwrap();
            }
        }
        let mut query = ThreadQuery { text, limit: 2, ..ThreadQuery::default() };
        loop {
            let page = disk.threads(&query).unwrap();
            prop_assert_eq!(&page, &memory.threads(&query).unwrap());
            match page.next {
                Some(mark) => query.after = Some(mark),
                None => break,
            }
        }
    }

    #[test]
    fn merged_patches_do_what_they_do_one_after_another(
        patches in proptest::collection::vec(any_patch(), 0..6),
    ) {
        let mut merged = ThreadPatch::default();
        let mut one_by_one = ThreadRecord::new(thread(1));
        for patch in patches {
            one_by_one.apply(patch.clone());
            merged.merge(patch);
        }
        let mut at_once = ThreadRecord::new(thread(1));
        at_once.apply(merged);
        prop_assert_eq!(at_once, one_by_one);
    }
}

fn any_change() -> impl Strategy<Value = Change<String>> {
    prop_oneof![
        Just(Change::Keep),
        Just(Change::Clear),
        "[a-cA-C ]{0,3}".prop_map(|text| Change::Set(text.trim().to_owned()))
    ]
}

fn any_patch() -> impl Strategy<Value = ThreadPatch> {
    let texts = (
        any_change(),
        any_change(),
        any_change(),
        any_change(),
        any_change(),
    );
    let amount = || proptest::option::of(0..1_000_u64);
    let status = proptest::option::of(prop_oneof![
        Just(ThreadStatus::Idle),
        Just(ThreadStatus::Active),
        Just(ThreadStatus::Archived),
    ]);
    let parent = prop_oneof![
        Just(Change::Keep),
        Just(Change::Clear),
        Just(Change::Set(ThreadId([7; 16])))
    ];
    let rest = (
        amount(),
        amount(),
        amount(),
        proptest::option::of(0..50_i64),
        status,
        parent,
    );
    (texts, rest).prop_map(
        |((title, preview, cwd, repo_branch, model), (input, turns, items, at, status, parent))| {
            ThreadPatch {
                title,
                preview,
                cwd,
                repo_branch,
                model,
                tokens_input: input,
                turns,
                items,
                updated_unix_us: at,
                status,
                parent,
                ..ThreadPatch::default()
            }
        },
    )
}
