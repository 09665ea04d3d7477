use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dwell_actors::run_store::{
    APPLICATION_ID, MemoryRunStore, PROGRAM_NAME_MAX_BYTES, ProgramName, RunDurations, RunRecord, RunStatus,
    RunStore, SCHEMA_VERSION, SqliteRunStore, StoreError,
};
use dwell_messages::{ProcessId, TraceId};
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
        TraceId([trace; 16]),
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
    SqliteRunStore::open(&path)
        .unwrap()
        .record(std::slice::from_ref(&run))
        .unwrap();
    assert_eq!(SqliteRunStore::open(&path).unwrap().recent(10).unwrap(), [run]);
}

#[test]
fn the_end_of_a_run_fills_in_its_start() {
    let (_dir, path) = place();
    let mut store = SqliteRunStore::open(&path).unwrap();
    let start = RunRecord {
        stderr_bytes: Some(5),
        ..started(1, 1)
    };
    store.record(&[start, started(1, 2)]).unwrap();
    store
        .record(&[RunRecord {
            started_unix_us: 0,
            ..ended(1, 1)
        }])
        .unwrap();
    let expected = RunRecord {
        stderr_bytes: Some(5),
        ..ended(1, 1)
    };
    assert_eq!(store.recent(10).unwrap(), [started(1, 2), expected]);
}

#[test]
fn a_late_start_does_not_make_an_ended_run_run_again() {
    let (_dir, path) = place();
    let mut store = SqliteRunStore::open(&path).unwrap();
    store.record(&[ended(1, 1), started(1, 1)]).unwrap();
    assert_eq!(store.recent(10).unwrap(), [ended(1, 1)]);
}

#[test]
fn every_status_survives() {
    let (_dir, path) = place();
    let mut store = SqliteRunStore::open(&path).unwrap();
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
    store.record(&runs).unwrap();
    let mut read = store.recent(10).unwrap();
    read.reverse();
    assert_eq!(read, runs);
}

#[test]
fn the_oldest_runs_are_forgotten_past_the_bound() {
    let (_dir, path) = place();
    let mut store = SqliteRunStore::open(&path).unwrap().with_kept_max(2);
    store
        .record(&[started(1, 1), started(1, 2), started(1, 3)])
        .unwrap();
    store.record(&[ended(1, 2)]).unwrap();
    assert_eq!(store.recent(10).unwrap(), [started(1, 3), ended(1, 2)]);
    assert_eq!(store.recent(1).unwrap(), [started(1, 3)]);
}

#[test]
fn the_database_is_ours_private_write_ahead_and_without_temporary_files() {
    let (_dir, path) = place();
    let mut store = SqliteRunStore::open(&path).unwrap();
    store.record(&[started(1, 1)]).unwrap();
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
    drop(SqliteRunStore::open(&path).unwrap());
    raw(&path)
        .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
        .unwrap();
    let before = fs::read(&path).unwrap();
    let error = SqliteRunStore::open(&path).unwrap_err();
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
        let error = SqliteRunStore::open(&path).unwrap_err();
        assert!(
            matches!(error, StoreError::NotOurs { application_id: found, .. } if found == application_id)
        );
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn a_file_that_is_no_database_is_damaged_and_kept() {
    let (_dir, path) = place();
    drop(SqliteRunStore::open(&path).unwrap());
    let garbage = vec![b'x'; 9_000];
    fs::write(&path, &garbage).unwrap();
    let error = SqliteRunStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), garbage);
}

#[test]
fn a_database_damaged_anywhere_is_an_error_or_readable_and_never_a_panic() {
    let (dir, path) = place();
    let mut store = SqliteRunStore::open(&path).unwrap();
    let runs: Vec<_> = (1..200).map(|n| started(1, n)).collect();
    store.record(&runs).unwrap();
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
        let outcome = SqliteRunStore::open(&copy).and_then(|mut store| {
            store.record(&[ended(2, 1)])?;
            store.recent(1_000)
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
    drop(SqliteRunStore::open(&path).unwrap());
    let link = dir.path().join("link.db");
    symlink(&path, &link).unwrap();
    assert!(matches!(
        SqliteRunStore::open(&link),
        Err(StoreError::NotAFile { .. })
    ));
    assert!(matches!(
        SqliteRunStore::open(dir.path()),
        Err(StoreError::NotAFile { .. })
    ));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        SqliteRunStore::open(&path),
        Err(StoreError::Mode { mode: 0o644, .. })
    ));
}

#[test]
fn after_a_failed_commit_nothing_is_acknowledged_until_the_store_is_opened_again() {
    let (_dir, path) = place();
    let mut store = SqliteRunStore::open(&path).unwrap();
    store.record(&[started(1, 1)]).unwrap();
    break_commits(&path);
    assert!(matches!(
        store.record(&[started(1, 2)]),
        Err(StoreError::Write { .. })
    ));
    raw(&path).execute_batch("DROP TRIGGER fail").unwrap();
    // The disk would take it now; the store must not say so.
    assert!(matches!(
        store.record(&[started(1, 3)]),
        Err(StoreError::Poisoned)
    ));
    assert!(matches!(store.record(&[]), Err(StoreError::Poisoned)));
    assert_eq!(store.recent(10).unwrap(), [started(1, 1)]);
    let mut again = SqliteRunStore::open(&path).unwrap();
    again.record(&[started(1, 3)]).unwrap();
    assert_eq!(again.recent(10).unwrap(), [started(1, 3), started(1, 1)]);
}

#[test]
fn a_batch_is_kept_whole_or_not_at_all() {
    let (_dir, path) = place();
    let mut store = SqliteRunStore::open(&path).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON runs WHEN NEW.process_id = 2 BEGIN SELECT raise(ABORT, 'no'); END";
    raw(&path).execute_batch(refuse).unwrap();
    assert!(matches!(
        store.record(&[started(1, 1), started(1, 2)]),
        Err(StoreError::Write { .. })
    ));
    assert_eq!(store.recent(10).unwrap(), []);
}

#[test]
fn a_database_held_by_another_is_busy_and_not_poisoned() {
    let (_dir, path) = place();
    let mut store = SqliteRunStore::open(&path)
        .unwrap()
        .with_busy_timeout(Duration::ZERO)
        .unwrap();
    let other = raw(&path);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(
        store.record(&[started(1, 1)]),
        Err(StoreError::Busy { .. })
    ));
    other.execute_batch("COMMIT").unwrap();
    store.record(&[started(1, 1)]).unwrap();
}

#[test]
fn many_stores_open_one_new_file_at_once_and_all_write_to_it() {
    let (_dir, path) = place();
    std::thread::scope(|scope| {
        for n in 1..=8 {
            let path = &path;
            scope.spawn(move || {
                let mut store = SqliteRunStore::open(path).unwrap();
                store.record(&[started(1, n)]).unwrap();
                store.record(&[ended(1, n)]).unwrap();
            });
        }
    });
    let runs = SqliteRunStore::open(&path).unwrap().recent(100).unwrap();
    assert_eq!(runs.len(), 8);
    assert!(runs.iter().all(|run| run.status == RunStatus::Exited(3)));
}

#[test]
fn a_row_of_an_unknown_kind_is_an_error_and_not_a_guess() {
    let (_dir, path) = place();
    let mut store = SqliteRunStore::open(&path).unwrap();
    store.record(&[started(1, 1)]).unwrap();
    raw(&path)
        .execute_batch("UPDATE runs SET status_kind = 99")
        .unwrap();
    assert!(matches!(store.recent(1), Err(StoreError::Read { .. })));
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
    (0..2_u8, 1..6_u64, any::<i64>(), status, names, amounts).prop_map(
        |(trace, process, at, status, (name, host), a)| RunRecord {
            trace_id: TraceId([trace; 16]),
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
        let mut disk = SqliteRunStore::open(&path).unwrap().with_kept_max(kept);
        let mut memory = MemoryRunStore::with_kept_max(kept);
        for batch in &batches {
            disk.record(batch).unwrap();
            memory.record(batch).unwrap();
            prop_assert_eq!(disk.recent(99).unwrap(), memory.recent(99));
        }
    }

    #[test]
    fn any_first_argument_gives_a_name_that_fits_and_stays(argv0 in proptest::collection::vec(any::<u8>(), 0..200)) {
        let name = ProgramName::from_argv0(&argv0);
        prop_assert!(!name.as_str().is_empty() && name.as_str().len() <= PROGRAM_NAME_MAX_BYTES);
        prop_assert!(!name.as_str().chars().any(char::is_control));
        prop_assert_eq!(ProgramName::from_argv0(name.as_str().as_bytes()), name);
    }
}
