//! Limits, priorities and what memory's end looks like.

use dwell_actors::spawn::{ExitStatus, LimitName, Limits, SpawnErrorKind, SpawnRequest, Spawner};

use super::controllers::Group;
use super::executor::Guarded;
use super::runner::{is_root, tests};
use super::support::{failure, finish, run, shell, start};

tests! {
    RootAndNobody:
        limits_are_what_the_command_finds,
        a_limit_above_the_executors_own_is_refused_and_named,
        limits_of_one_command_are_not_the_next_ones,
        a_limit_on_processor_time_and_on_files_ends_a_command,
        a_limit_on_processes_stops_a_bomb,
        no_privilege_is_gained,
    ;
    Anyone: a_kill_for_lack_of_memory_is_told_from_another;
}

fn limited(script: &str, limits: Limits) -> SpawnRequest {
    SpawnRequest {
        limits,
        ..shell(script)
    }
}

/// P-06, P-34.
fn limits_are_what_the_command_finds() {
    for guarded in [Guarded::Fully, Guarded::ByHunt, Guarded::Not] {
        run(async {
            let spawner = Spawner::with_guard(guarded.options()).unwrap();
            let limits = Limits {
                open_files: Some(77),
                address_space_bytes: Some(1 << 30),
                processes: Some(999),
                core_bytes: Some(0),
                file_bytes: Some(512 * 100),
                cpu_seconds: Some(55),
                nice: Some(7),
            };
            let script = "exec bash -c 'ulimit -n; ulimit -v; ulimit -u; ulimit -c; ulimit -f; ulimit -t; ulimit -Ht; nice'";
            let finished = finish(start(&spawner, limited(script, limits)).await).await;
            let text = String::from_utf8(finished.stdout).unwrap();
            // Files are counted in KiB there.
            let expected = ["77", "1048576", "999", "0", "50", "55", "55", "7"];
            assert_eq!(text.lines().collect::<Vec<_>>(), expected, "{guarded:?}");
        });
    }
}

fn a_limit_above_the_executors_own_is_refused_and_named() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let open_files = Some(u64::from(u32::MAX));
        let kind = failure(
            &spawner,
            limited(
                "true",
                Limits {
                    open_files,
                    ..Limits::default()
                },
            ),
        )
        .await;
        assert!(
            matches!(
                kind,
                SpawnErrorKind::LimitRefused {
                    limit: LimitName::OpenFiles,
                    errno: libc_eperm
                } if libc_eperm == rustix::io::Errno::PERM.raw_os_error()
            ),
            "{kind:?}"
        );
        if !is_root() {
            let nice = Some(-5);
            let kind = failure(
                &spawner,
                limited(
                    "true",
                    Limits {
                        nice,
                        ..Limits::default()
                    },
                ),
            )
            .await;
            assert!(matches!(
                kind,
                SpawnErrorKind::LimitRefused {
                    limit: LimitName::Nice,
                    ..
                }
            ));
        }
    });
}

fn limits_of_one_command_are_not_the_next_ones() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let before = finish(start(&spawner, shell("ulimit -n; nice")).await)
            .await
            .stdout;
        let limits = Limits {
            open_files: Some(10),
            nice: Some(19),
            ..Limits::default()
        };
        for _ in 0..3 {
            let limited = finish(start(&spawner, limited("ulimit -n; nice", limits)).await)
                .await
                .stdout;
            assert_eq!(limited, b"10\n19\n");
            assert_eq!(
                finish(start(&spawner, shell("ulimit -n; nice")).await)
                    .await
                    .stdout,
                before
            );
        }
    });
}

/// P-34.
fn a_limit_on_processor_time_and_on_files_ends_a_command() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let cpu = Limits {
            cpu_seconds: Some(1),
            ..Limits::default()
        };
        let exit = finish(start(&spawner, limited("while :; do :; done", cpu)).await)
            .await
            .exit;
        assert!(
            matches!(exit.status, ExitStatus::Signal(9 | 24)),
            "KILL or XCPU: {exit:?}"
        );
        let file = Limits {
            file_bytes: Some(1_000),
            ..Limits::default()
        };
        let script =
            "f=$(mktemp); exec 3>$f; rm $f; trap '' XFSZ; head -c 100000 /dev/zero >&3 || echo refused";
        let finished = finish(start(&spawner, limited(script, file)).await).await;
        assert_eq!(
            finished.stdout,
            b"refused\n",
            "{}",
            String::from_utf8_lossy(&finished.stderr)
        );
    });
}

/// P-34. The user's processes are counted, and root's are not: as root the tree is only ended.
fn a_limit_on_processes_stops_a_bomb() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let limits = Limits {
            processes: Some(40),
            ..Limits::default()
        };
        // For root a bomb that is small by itself: the limit does not hold.
        let script = if is_root() {
            "for i in 1 2 3 4 5 6 7 8; do for j in 1 2 3 4 5 6 7 8; do sleep 1000 & done & done; sleep 0.2; exit 0"
        } else {
            "b() { b | b & }; b; sleep 0.2; exit 0"
        };
        let spawned = start(&spawner, limited(script, limits)).await;
        let mut watcher = spawned.process.watch().unwrap();
        watcher.wait().await.unwrap();
        let _ = spawned.process.terminate(std::time::Duration::ZERO).unwrap();
        assert_eq!(watcher.tree_ended().await.unwrap().unkillable, 0);
    });
}

/// P-32: what the executor may not, its commands may not by us. What a set-user-id bit gives is in `extremes`.
fn no_privilege_is_gained() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let finished = finish(start(&spawner, shell("id -u; grep CapEff /proc/self/status")).await).await;
        let text = String::from_utf8(finished.stdout).unwrap();
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        let own = own.lines().find(|line| line.starts_with("CapEff")).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(text, format!("{uid}\n{own}\n"));
    });
}

/// P-29. Panics where no group can be made that counts memory.
fn a_kill_for_lack_of_memory_is_told_from_another() {
    // The executor and so its guard: what they count is their own group.
    let group = Group::counting("memory");
    group.limit_memory(64 << 20);
    run(async {
        let spawner = Spawner::start().unwrap();
        let killed = finish(start(&spawner, shell("kill -9 $$")).await).await.exit;
        assert_eq!(
            (killed.status, killed.oom_killed),
            (ExitStatus::Signal(9), Some(false))
        );
        let hungry = finish(start(&spawner, shell("exec tail /dev/zero")).await)
            .await
            .exit;
        assert_eq!(
            (hungry.status, hungry.oom_killed),
            (ExitStatus::Signal(9), Some(true))
        );
        assert!(hungry.max_rss_kib.unwrap() > 20_000, "{hungry:?}");
        let next = finish(start(&spawner, shell("kill -9 $$")).await).await.exit;
        assert_eq!(next.oom_killed, Some(false), "and the next is not blamed for it");
    });
}
