//! Disks that fail and fill up under a thread, call by call. With `strace`; the full disk as root.

use std::path::Path;
use std::process::{Command, Stdio};

use dwell_actors::metadata_store::{MetadataStore as _, SqliteStore, ThreadId};
use dwell_actors::threads::{Item, ItemKind, NewThread, ThreadError, Threads};
use tempfile::tempdir;

use crate::keeping::{Acks, Mode, begin, command, database, files, threads_dir, verify};
use crate::power_cut::Mounted;
use crate::roles::System;

/// The calls that a promise rests on.
const CALLS: [&str; 7] = [
    "pwrite64",
    "fdatasync",
    "fsync",
    "ftruncate",
    "openat",
    "read",
    "pread64",
];
/// The most calls of one kind in one process that are made to fail one after the other.
const NTH_MAX: u32 = 200;

/// A process under strace, which sees only what concerns the thread's files.
fn traced(log: &Path, dir: &Path, id: ThreadId, mode: Mode, items: u64, options: &[&str]) -> Command {
    let keeper = command(dir, id, mode, items);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-o"]).arg(log).args(options);
    strace.arg(keeper.get_program()).args(keeper.get_args());
    strace.envs(keeper.get_envs().filter_map(|(name, value)| Some((name, value?))));
    strace
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    strace
}

fn spawn(mut strace: Command) -> std::process::Child {
    strace
        .spawn()
        .unwrap_or_else(|error| panic!("strace: {error}; install it: .ci/run names the package"))
}

/// Fails the n-th call of a kind. Whether there was one.
fn fails(call: &str, error: &str, nth: u32) -> bool {
    let dir = tempdir().unwrap();
    let id = begin(dir.path());
    let log = dir.path().join("strace");
    let inject = format!("inject={call}:error={error}:when={nth}");
    let trace = format!("trace={call}");
    let mut options = vec!["-e", &trace, "-e", &inject];
    // With the directories, whose syncs bring names to the disk.
    let dirs = [threads_dir(dir.path()), dir.path().to_owned()];
    let paths: Vec<_> = files(dir.path(), id).into_iter().chain(dirs).collect();
    for path in &paths {
        options.extend(["-P", path.to_str().unwrap()]);
    }
    let mut child = spawn(traced(&log, dir.path(), id, Mode::Honest, 4, &options));
    let acked = Acks::of(&mut child).max().unwrap_or(1);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{nth}. {call} with {error}: it panicked or died: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let kept = verify(dir.path(), id, acked);
    assert!(kept.is_ok(), "{nth}. {call} with {error}: {}", kept.unwrap_err());
    std::fs::read_to_string(&log).unwrap().contains("(INJECTED)")
}

#[test]
fn every_call_of_a_flush_may_fail_and_what_was_acknowledged_is_kept() {
    // In CI each error has every second call; a campaign has all.
    let step = if std::env::var_os("DWELL_SOAK").is_some() {
        1
    } else {
        2
    };
    for (offset, error) in [(1, "EIO"), (2, "ENOSPC")] {
        for call in CALLS {
            let mut injected = 0;
            let mut nth = if step == 1 { 1 } else { offset };
            while nth < NTH_MAX && fails(call, error, nth) {
                injected += 1;
                nth += step;
            }
            assert!(nth < NTH_MAX, "{call}: there is no end to them");
            if matches!(call, "pwrite64" | "fdatasync" | "fsync" | "read" | "pread64") {
                assert!(injected > 0, "{call} is made and was never made to fail");
            }
        }
    }
}

/// How strace shows a write of zeros at the end of an event log, whose records begin with a length.
const ROOM: &str = ".log>, \"\\0\\0\\0\\0\\0\\0\\0\\0";

/// One line of strace: which call on which file began or ended there.
#[derive(Debug)]
enum Call {
    Write(String),
    SyncBegun(u32, String),
    SyncEnded(u32),
    Ack,
}

/// Without those that make room behind an event log ready: nothing rests on them, and they come when there is time.
fn calls(text: &str) -> Vec<Call> {
    let mut preparing: Vec<u32> = Vec::new();
    let file = |line: &str| {
        let (_, rest) = line.split_once('<')?;
        rest.split_once('>').map(|(path, _)| path.to_owned())
    };
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let (thread, rest) = (thread.parse().unwrap_or(0), rest.trim_start());
        let is_sync = rest.starts_with("fdatasync") || rest.starts_with("<... fdatasync");
        if rest.starts_with("pwrite64") && rest.contains(ROOM) {
            preparing.push(thread);
        } else if is_sync && preparing.contains(&thread) {
            if !rest.contains("<unfinished") {
                preparing.retain(|preparing| *preparing != thread);
            }
        } else if rest.starts_with("<... fdatasync") || rest.starts_with("<... fsync") {
            calls.push(Call::SyncEnded(thread));
        } else if rest.starts_with("fdatasync") || rest.starts_with("fsync") {
            calls.push(Call::SyncBegun(thread, file(rest).unwrap()));
            if !rest.contains("<unfinished") {
                calls.push(Call::SyncEnded(thread));
            }
        } else if rest.starts_with("pwrite64") {
            calls.push(Call::Write(file(rest).unwrap()));
        } else if rest.starts_with("write(1") && rest.contains("ack ") {
            calls.push(Call::Ack);
        }
    }
    calls
}

/// Acknowledgements, those of them that found nothing to do, and those without a sync behind every write.
fn judge(calls: &[Call], files: &[String]) -> (u32, u32, u32) {
    let mut unsynced: Vec<&str> = Vec::new();
    let mut under_way: Vec<(u32, &str)> = Vec::new();
    let (mut acks, mut idle, mut uncovered, mut io) = (0, 0, 0, 0);
    for call in calls {
        match call {
            Call::Write(file) if files.contains(file) => {
                io += 1;
                // A sync that is under way does not cover it.
                under_way.retain(|(_, synced)| synced != file);
                if !unsynced.contains(&file.as_str()) {
                    unsynced.push(file);
                }
            }
            Call::Write(_) => {}
            Call::SyncBegun(thread, file) => {
                io += 1;
                under_way.push((*thread, file));
            }
            Call::SyncEnded(thread) => {
                let ended = under_way.iter().position(|(begun, _)| begun == thread);
                if let Some(at) = ended {
                    let (_, file) = under_way.remove(at);
                    unsynced.retain(|unsynced| *unsynced != file);
                }
            }
            Call::Ack => {
                acks += 1;
                idle += u32::from(io == 0);
                uncovered += u32::from(!unsynced.is_empty());
                io = 0;
            }
        }
    }
    (acks, idle, uncovered)
}

fn watch(mode: Mode) -> (u32, u32, u32) {
    let dir = tempdir().unwrap();
    let id = begin(dir.path());
    let log = dir.path().join("strace");
    let options = ["-e", "trace=pwrite64,fdatasync,fsync,write"];
    let mut child = spawn(traced(&log, dir.path(), id, mode, 20, &options));
    assert!(Acks::of(&mut child).count() >= 20);
    assert!(child.wait().unwrap().success());
    // The database itself is written by checkpoints, which nothing acknowledged rests on.
    let [events, wal, _] = files(dir.path(), id).map(|path| path.to_str().unwrap().to_owned());
    judge(&calls(&std::fs::read_to_string(&log).unwrap()), &[events, wal])
}

#[test]
fn a_flush_is_acknowledged_only_by_a_sync_that_began_after_its_write_also_when_nothing_is_pending() {
    let (acks, idle, uncovered) = watch(Mode::Honest);
    assert!(acks >= 20, "{acks}");
    assert!(
        idle >= 10,
        "a flush with nothing pending does nothing: {idle} of {acks}"
    );
    assert_eq!(uncovered, 0, "of {acks}");
}

/// The control: a store that does not sync is seen not to.
#[test]
fn a_store_that_does_not_sync_is_seen_not_to() {
    let (acks, _, uncovered) = watch(Mode::Undurable);
    assert!(uncovered > acks / 2, "{uncovered} of {acks}");
}

/// Fills a file system up to its last byte; the file to remove.
fn fill(disk: &Path) -> std::path::PathBuf {
    use std::io::Write as _;
    let path = disk.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut chunk = 64 << 10;
    while chunk > 0 {
        match file.write_all(&vec![1; chunk]) {
            Ok(()) => {}
            Err(_) => chunk /= 2,
        }
    }
    path
}

#[tokio::test]
async fn on_a_full_disk_a_flush_fails_and_all_is_well_again_when_there_is_space() {
    let disk = Mounted::in_memory("4m");
    let dir = disk.path();
    let threads = Threads::builder(threads_dir(&dir))
        .store(database(&dir))
        .open()
        .unwrap();
    let thread = threads.create(NewThread::default()).await.unwrap();
    let item = |n: u32| Item::now(ItemKind::TurnStarted, format!("{n} {}", "x".repeat(3_000)));
    thread.append_and_flush(item(0)).await.unwrap();
    let filler = fill(&dir);
    let mut failures = 0;
    for n in 1..20 {
        thread.append(item(n)).await.unwrap();
        match thread.flush().await {
            Ok(()) => {}
            Err(error) => {
                assert!(
                    matches!(error, ThreadError::Log(_) | ThreadError::Store(_)),
                    "{error}"
                );
                failures += 1;
            }
        }
    }
    assert!(failures > 10, "{failures}");
    std::fs::remove_file(filler).unwrap();
    thread.flush().await.unwrap();
    let record = threads.get(thread.id()).await.unwrap().unwrap();
    assert_eq!((record.turns, record.items), (20, 20));
    assert_eq!(threads.history(thread.id()).unwrap().count(), 20);
    thread.shutdown().await.unwrap();
}

#[test]
fn on_a_full_disk_output_still_reaches_the_caller_and_runs_are_recorded_again_when_there_is_space() {
    let system = System::start(&[]);
    let disk = Mounted::in_memory("2m");
    let state = disk.path();
    let environment = [("XDG_STATE_HOME", state.to_str().unwrap())];
    let said = |text: &str| {
        let output = system.run(&environment, &["echo", text]);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("{text}\n"),
            "{output:?}"
        );
        String::from_utf8(output.stderr).unwrap()
    };
    said("before");
    let filler = fill(&disk.path());
    let warned = said("full");
    assert!(warned.contains("not every run was recorded"), "{warned}");
    std::fs::remove_file(filler).unwrap();
    said("after");
    let store = SqliteStore::open(&state.join("dwell/runs.db")).unwrap();
    assert_eq!(store.recent_runs(10).unwrap().len(), 2, "before and after");
}
