//! Starts that fail, by way of the guard: the same typed errors as without it, and nothing left.

use std::os::unix::fs::PermissionsExt;

use dwell_actors::spawn::{SpawnErrorKind, SpawnRequest, Spawner};
use dwell_testkit::{Census, Leak};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::executor::Guarded;
use super::runner::{is_root, tests};
use super::support::{failure, finish, in_directory, request, run, start, submit, with_stdin};

tests! {
    RootAndNobody:
        programs_that_cannot_run_are_typed_errors,
        directories_that_cannot_be_entered_are_typed_errors,
        too_long_is_said_before_and_after_asking_the_kernel,
        out_of_descriptors_at_any_step_leaves_nothing,
    ;
    Anyone: out_of_processes_is_retryable;
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

/// P-05, P-06: the executor may open one descriptor more each time, so every step of a start fails once.
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
            for more in 0..24 {
                let low = Rlimit {
                    current: Some(first_free + more),
                    ..limits
                };
                setrlimit(Resource::Nofile, low).unwrap();
                let outcome = submit(&spawner, with_stdin(request(&["true"]))).await.result;
                setrlimit(Resource::Nofile, limits).unwrap();
                match outcome {
                    Ok(spawned) => {
                        worked += 1;
                        finish(spawned).await;
                    }
                    Err(error) => {
                        failed += 1;
                        assert!(
                            matches!(
                                error.kind,
                                SpawnErrorKind::ResourceExhausted { .. } | SpawnErrorKind::Unwatchable { .. }
                            ),
                            "{error:?}"
                        );
                    }
                }
            }
            assert!(failed >= 5 && worked >= 5, "{failed} failed, {worked} worked");
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

/// P-04. Needs to make a group that counts processes, which here root can.
fn out_of_processes_is_retryable() {
    let group = std::path::Path::new("/sys/fs/cgroup/pids").join(format!("dwell-{}", std::process::id()));
    if !is_root() || std::fs::create_dir(&group).is_err() {
        println!("no group that counts processes can be made here: the lack of them is not tested");
        return;
    }
    std::fs::write(group.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    for guarded in [Guarded::Fully, Guarded::Not] {
        run(async {
            let spawner = Spawner::with_guard(guarded.options()).unwrap();
            for _ in 0..4 {
                finish(start(&spawner, request(&["true"])).await).await;
            }
            let now = std::fs::read_to_string(group.join("pids.current")).unwrap();
            std::fs::write(group.join("pids.max"), now.trim()).unwrap();
            let before = Census::take().unwrap();
            let outcome = submit(&spawner, SpawnRequest { ..request(&["true"]) }).await;
            let kind = outcome.result.unwrap_err().kind;
            assert_eq!(
                kind,
                SpawnErrorKind::ResourceExhausted { errno: 11 },
                "{guarded:?}"
            );
            assert!(kind.is_retryable());
            assert_eq!(Census::take().unwrap().leak_since(&before), Leak::default());
            std::fs::write(group.join("pids.max"), "max").unwrap();
            finish(start(&spawner, request(&["true"])).await).await;
        });
    }
    let out = std::path::Path::new("/sys/fs/cgroup/pids/cgroup.procs");
    std::fs::write(out, std::process::id().to_string()).unwrap();
    let _ = std::fs::remove_dir(group);
}
