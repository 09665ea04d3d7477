//! Starts that fail, by way of the guard: the same typed errors as without it, and nothing left.

use std::os::unix::fs::PermissionsExt;

use dwell_actors::spawn::{OutputPipe, Reap, SpawnErrorKind, SpawnRequest, Spawned, Spawner, TerminalSize};
use dwell_testkit::{Census, Leak};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::controllers::Group;
use super::executor::Guarded;
use super::runner::{is_root, tests};
use super::support::{
    PATIENCE, failure, finish, in_directory, read_all, request, run, start, submit, with_stdin,
};

tests! {
    RootAndNobody:
        programs_that_cannot_run_are_typed_errors,
        directories_that_cannot_be_entered_are_typed_errors,
        too_long_is_said_before_and_after_asking_the_kernel,
        out_of_descriptors_at_any_step_leaves_nothing,
        out_of_processes_is_retryable,
    ;
}

/// P-01.
fn programs_that_cannot_run_are_typed_errors() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8], mode| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let plain = file("plain", b"#!/bin/sh\n", 0o644);
    let garbage = file("garbage", b"\x7fELF no more", 0o755);
    let lost = file("lost", b"#!/no/such/interpreter\n", 0o755);
    for guarded in [Guarded::Fully, Guarded::Not] {
        run(async {
            let spawner = Spawner::with_guard(guarded.options()).unwrap();
            for program in ["/no/such", "no-such-program"] {
                let kind = failure(&spawner, request(&[program])).await;
                assert!(
                    matches!(kind, SpawnErrorKind::ProgramMissing { errno: 2 }),
                    "{kind:?}"
                );
            }
            for program in [plain.as_str(), "/tmp", garbage.as_str()] {
                let kind = failure(&spawner, request(&[program])).await;
                assert!(
                    matches!(kind, SpawnErrorKind::NotExecutable { .. }),
                    "{program}: {kind:?}"
                );
            }
            let kind = failure(&spawner, request(&[&lost])).await;
            assert!(
                matches!(kind, SpawnErrorKind::InterpreterMissing { .. }),
                "{kind:?}"
            );
        });
    }
}

/// P-02.
fn directories_that_cannot_be_entered_are_typed_errors() {
    run(async {
        let spawner = Spawner::start().unwrap();
        for directory in ["/no/such", "/etc/passwd", ""] {
            let kind = failure(&spawner, in_directory(request(&["true"]), directory.as_ref())).await;
            assert!(
                matches!(kind, SpawnErrorKind::CwdUnusable { .. }),
                "{directory}: {kind:?}"
            );
        }
        let closed = tempfile::tempdir().unwrap();
        std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o000)).unwrap();
        let result = submit(&spawner, in_directory(request(&["true"]), closed.path()))
            .await
            .result;
        match result {
            Ok(spawned) => assert!(is_root(), "{spawned:?}"),
            Err(error) => assert_eq!(error.kind, SpawnErrorKind::CwdUnusable { errno: 13 }),
        }
        let own = std::env::current_dir().unwrap();
        let finished = finish(start(&spawner, request(&["pwd"])).await).await;
        assert_eq!(finished.stdout, format!("{}\n", own.display()).into_bytes());
        std::env::set_current_dir("/usr").unwrap();
        let finished = finish(start(&spawner, request(&["pwd"])).await).await;
        assert_eq!(
            finished.stdout, b"/usr\n",
            "where the executor is now, not where the guard began"
        );
    });
}

/// P-03.
fn too_long_is_said_before_and_after_asking_the_kernel() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let kind = failure(&spawner, request(&["true", &"x".repeat(131_072)])).await;
        assert!(matches!(kind, SpawnErrorKind::ArgumentTooLong { .. }));
        for (length, count) in [(100_000, 40), (130_000, 80)] {
            let long = "x".repeat(length);
            let argv: Vec<&str> = std::iter::once("true")
                .chain(std::iter::repeat_n(long.as_str(), count))
                .collect();
            let kind = failure(&spawner, request(&argv)).await;
            assert_eq!(kind, SpawnErrorKind::ArgumentsTooLong, "{length} x {count}");
        }
        finish(start(&spawner, request(&["true"])).await).await;
    });
}

/// P-05, P-07: the executor may open one descriptor more each time, so every step of a start fails once.
fn out_of_descriptors_at_any_step_leaves_nothing() {
    run(async {});
    for guarded in [Guarded::Fully, Guarded::Not] {
        run(async {
            let spawner = Spawner::with_guard(guarded.options()).unwrap();
            // Two keepers, so that the pool is settled; and whatever the runtime opens once.
            for _ in 0..4 {
                finish(start(&spawner, with_stdin(request(&["true"]))).await).await;
            }
            let before = Census::take().unwrap();
            let limits = getrlimit(Resource::Nofile);
            // The first number that is free; those that are open above it stay open.
            let first_free = u64::from((0..).find(|fd| !before.fds.contains_key(fd)).unwrap());
            let (mut failed, mut worked) = (0, 0);
            for more in 0..48 {
                let is_terminal = more % 2 == 1;
                let more = more / 2;
                let wanted = SpawnRequest {
                    terminal: is_terminal.then(TerminalSize::default),
                    ..with_stdin(request(&["true"]))
                };
                let low = Rlimit {
                    current: Some(first_free + more),
                    ..limits
                };
                setrlimit(Resource::Nofile, low).unwrap();
                let outcome = submit(&spawner, wanted).await.result;
                setrlimit(Resource::Nofile, limits).unwrap();
                match outcome {
                    Ok(spawned) => {
                        worked += 1;
                        end(spawned).await;
                    }
                    Err(error) => {
                        failed += 1;
                        assert!(
                            matches!(
                                error.kind,
                                SpawnErrorKind::ResourceExhausted { .. }
                                    | SpawnErrorKind::Unwatchable { .. }
                                    | SpawnErrorKind::TerminalUnavailable { .. }
                            ),
                            "{error:?}"
                        );
                    }
                }
            }
            assert!(failed >= 10 && worked >= 10, "{failed} failed, {worked} worked");
            finish(start(&spawner, with_stdin(request(&["true"]))).await).await;
            let leak = Census::take().unwrap().leak_since(&before);
            // A keeper whose answer was lost for want of a descriptor is replaced by another.
            let kept = |(_, what): &&(u32, String)| {
                guarded == Guarded::Fully && (what.starts_with("socket") || what == "anon_inode:[pidfd]")
            };
            assert_eq!(leak.fds.iter().filter(|fd| !kept(fd)).count(), 0, "{leak:?}");
            assert!(leak.fds.len() <= 4, "{leak:?}");
            assert_eq!((leak.children, leak.threads), <_>::default());
        });
    }
    assert_eq!(Census::take().unwrap().children, <_>::default());
}

/// Its end and its grave, on a terminal or not.
async fn end(spawned: Spawned) {
    let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
    read_all(&mut out).await;
    spawned.process.watch().unwrap().wait().await.unwrap();
    assert!(matches!(spawned.process.reap(), Ok(Reap::Done(_))));
}

/// P-04: for root by a group that counts processes, for anybody else by the user's own limit, which root has none of.
fn out_of_processes_is_retryable() {
    if !is_root() {
        return out_of_the_users_processes();
    }
    let group = Group::counting("pids");
    for guarded in [Guarded::Fully, Guarded::Not] {
        run(async {
            let spawner = Spawner::with_guard(guarded.options()).unwrap();
            for _ in 0..4 {
                finish(start(&spawner, request(&["true"])).await).await;
            }
            for terminal in [None, Some(TerminalSize::default())] {
                let now = group.read("pids.current");
                group.write("pids.max", now.trim());
                let before = Census::take().unwrap();
                let refused = SpawnRequest {
                    terminal,
                    ..request(&["true"])
                };
                let kind = failure(&spawner, refused).await;
                assert_eq!(
                    kind,
                    SpawnErrorKind::ResourceExhausted { errno: 11 },
                    "{guarded:?}"
                );
                assert!(kind.is_retryable());
                assert_eq!(Census::take().unwrap().leak_since(&before), Leak::default());
                group.write("pids.max", "max");
                finish(start(&spawner, request(&["true"])).await).await;
            }
        });
    }
}

/// Processes are started until no more can be; when some have ended, one can be again.
fn out_of_the_users_processes() {
    /// Above what this user may run besides, in other tests.
    const MORE: u64 = 64;
    let used = procs_of(rustix::process::geteuid().as_raw());
    let limits = getrlimit(Resource::Nproc);
    let low = Rlimit {
        current: Some(used + MORE),
        ..limits
    };
    setrlimit(Resource::Nproc, low).unwrap();
    for guarded in [Guarded::Fully, Guarded::Not] {
        run(async {
            let spawner = Spawner::with_guard(guarded.options()).unwrap();
            let mut running = Vec::new();
            let kind = loop {
                assert!(running.len() < 4 * MORE as usize, "{guarded:?}: no limit was met");
                match submit(&spawner, request(&["sleep", "1000"])).await.result {
                    Ok(spawned) => running.push(spawned),
                    Err(error) => break error.kind,
                }
            };
            assert_eq!(
                kind,
                SpawnErrorKind::ResourceExhausted { errno: 11 },
                "{guarded:?}"
            );
            assert!(kind.is_retryable());
            drop(running);
            let deadline = std::time::Instant::now() + PATIENCE;
            while submit(&spawner, request(&["true"])).await.result.is_err() {
                assert!(
                    std::time::Instant::now() < deadline,
                    "{guarded:?}: it does not recover"
                );
            }
        });
    }
    setrlimit(Resource::Nproc, limits).unwrap();
}

/// Threads of a user's, which is what the kernel counts.
fn procs_of(user: u32) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let own = processes.filter(|entry| entry.metadata().is_ok_and(|data| data.uid() == user));
    own.map(|entry| std::fs::read_dir(entry.path().join("task")).map_or(0, |tasks| tasks.count() as u64))
        .sum()
}
