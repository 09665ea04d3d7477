//! Starts and ends by way of the guard.

use dwell_actors::guard::{ExecutorDeath, TreeHold};
use dwell_actors::spawn::{Environment, ExitStatus, GuardState, OutputPipe, SpawnRequest, Spawner};
use dwell_testkit::{Census, Leak, descendants, wait_until};

use super::runner::{is_root, tests};
use super::support::{PATIENCE, finish, read_some, request, run, shell, start, submit_later, with_stdin};

tests! {
    RootAndNobody:
        a_command_is_started_by_the_guard_and_says_on_what_its_containment_rests,
        exit_codes_and_signals_come_with_what_was_used,
        ends_that_come_before_anybody_looks_are_not_lost,
        stdin_reaches_the_command,
        the_child_has_three_descriptors_its_own_environment_and_default_signals,
        a_long_request_travels_by_file,
        keepers_are_used_again_and_nothing_is_left,
        two_hundred_at_once,
        a_thousand_at_once_leave_a_bounded_reserve_and_no_descriptor,
        an_end_is_told_at_once_while_a_grandchild_holds_the_pipe,
        a_spawner_that_is_dropped_ends_its_guard_and_its_commands,
        the_thread_that_spawned_may_end;
    Anyone: a_mark_without_a_connection_makes_no_guard;
}

pub(crate) async fn ready(spawner: &Spawner) -> ExecutorDeath {
    wait_until(PATIENCE, || spawner.guard_state() != GuardState::Starting)
        .await
        .unwrap();
    match spawner.guard_state() {
        GuardState::Running(death) => death,
        GuardState::Starting => unreachable!("it was waited for"),
        GuardState::Absent(why) => panic!("no guard: {why}"),
    }
}

fn a_command_is_started_by_the_guard_and_says_on_what_its_containment_rests() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let promised = ready(&spawner).await;
        let spawned = start(&spawner, shell("echo $$; cat /proc/$$/stat")).await;
        let containment = spawned.containment;
        assert_eq!(containment.executor_death, promised);
        if is_root() {
            assert_eq!(promised, ExecutorDeath::PidNamespace);
            assert_eq!(containment.tree, TreeHold::Cgroup);
        } else {
            assert_eq!(promised, ExecutorDeath::GuardHunt);
            assert_eq!(containment.tree, TreeHold::Subreaper);
        }
        let pid = spawned.process.pid();
        let finished = finish(spawned).await;
        let text = String::from_utf8(finished.stdout).unwrap();
        let (shell, stat) = text.split_once('\n').unwrap();
        assert_eq!(
            shell,
            pid.to_string(),
            "the process id is the one commands see: {text}"
        );
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        assert_eq!(fields[2], shell, "it leads its group");
        assert_eq!(fields[3], shell, "and its session");
        assert_eq!(finished.exit.status, ExitStatus::Code(0));
    });
}

fn exit_codes_and_signals_come_with_what_was_used() {
    run(async {
        let spawner = Spawner::start().unwrap();
        for (script, status) in [
            ("exit 0", ExitStatus::Code(0)),
            ("exit 255", ExitStatus::Code(255)),
            ("kill -KILL $$", ExitStatus::Signal(9)),
            ("kill -SEGV $$", ExitStatus::Signal(11)),
        ] {
            let exit = finish(start(&spawner, shell(script)).await).await.exit;
            assert_eq!(exit.status, status);
            assert!(exit.max_rss_kib.unwrap() > 100, "{exit:?}");
        }
        let busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        let exit = finish(start(&spawner, shell(busy)).await).await.exit;
        assert!(exit.user_us.unwrap() > 10_000, "{exit:?}");
    });
}

/// P-14.
fn ends_that_come_before_anybody_looks_are_not_lost() {
    run(async {
        let spawner = Spawner::start().unwrap();
        for _ in 0..50 {
            let spawned = start(&spawner, request(&["printf", "all of it"])).await;
            // It is over and reaped long before anybody watches it.
            wait_until(PATIENCE, || spawned.process.is_tree_empty() == Some(true))
                .await
                .unwrap();
            spawned.process.signal_leader(15).unwrap();
            let finished = finish(spawned).await;
            assert_eq!(finished.stdout, b"all of it");
            assert_eq!(finished.exit.status, ExitStatus::Code(0));
        }
    });
}

fn stdin_reaches_the_command() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let mut spawned = start(&spawner, with_stdin(request(&["cat"]))).await;
        let mut stdin = dwell_actors::spawn::InputPipe::from_fd(spawned.stdin.take().unwrap()).unwrap();
        stdin.write_all(&mut "through".into()).await.unwrap();
        stdin.close();
        assert_eq!(finish(spawned).await.stdout, b"through");
    });
}

/// P-30, P-31.
fn the_child_has_three_descriptors_its_own_environment_and_default_signals() {
    run(async {
        let spawner = Spawner::start().unwrap();
        // Running neighbours' descriptors must not leak either.
        let neighbour = start(&spawner, with_stdin(request(&["sleep", "60"]))).await;
        let listed = finish(start(&spawner, request(&["ls", "/proc/self/fd"])).await).await;
        assert_eq!(
            String::from_utf8(listed.stdout).unwrap(),
            "0\n1\n2\n3\n",
            "3 is the listing's own"
        );
        let env = SpawnRequest {
            env: Environment::exact([(b"ONLY".to_vec(), b"this".to_vec())]),
            ..request(&["/usr/bin/env"])
        };
        assert_eq!(finish(start(&spawner, env).await).await.stdout, b"ONLY=this\n");
        let signals =
            finish(start(&spawner, request(&["grep", "^Sig[BI]", "/proc/self/status"])).await).await;
        let signals = String::from_utf8(signals.stdout).unwrap();
        for line in signals.lines() {
            assert!(line.ends_with("0000000000000000"), "{signals}");
        }
        assert_eq!(signals.lines().count(), 2);
        drop(neighbour);
    });
}

fn a_long_request_travels_by_file() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let long = "x".repeat(100_000);
        let mut argv = vec!["sh", "-c", "shift; echo ${#1} $#", "sh", "0"];
        argv.extend(std::iter::repeat_n(long.as_str(), 10));
        let finished = finish(start(&spawner, request(&argv)).await).await;
        assert_eq!(finished.stdout, b"100000 10\n");
    });
}

/// Bytes of memory of this process's own, in which the executor's side of every command lives.
pub(crate) fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

/// P-13, P-36: what two thousand (with `DWELL_SOAK` ten thousand) short processes leave.
fn keepers_are_used_again_and_nothing_is_left() {
    let rounds = if std::env::var_os("DWELL_SOAK").is_some() {
        10_000
    } else {
        2_000
    };
    run(async {
        let spawner = Spawner::start().unwrap();
        for _ in 0..10 {
            finish(start(&spawner, request(&["true"])).await).await;
        }
        let before = Census::take().unwrap();
        let processes = count_processes();
        assert!(processes > 0, "a guard has its keepers");
        let mut last = None;
        let mut memory = 0;
        for round in 0..rounds {
            if round == 1_000 {
                memory = own_memory();
            }
            let spawned = start(&spawner, request(&["true"])).await;
            let pid = spawned.process.pid();
            assert_ne!(last.replace(pid), Some(pid));
            finish(spawned).await;
        }
        let leak = Census::take().unwrap().leak_since(&before);
        assert_eq!(leak, Leak::default());
        let grown = own_memory().saturating_sub(memory);
        assert!(grown <= 1 << 20, "{grown} bytes more than after a thousand");
        let now = count_processes();
        assert!(now <= processes + 1, "{processes} processes became {now}");
    });
}

/// The guards and keepers that are left, and commands, zombies included.
fn count_processes() -> usize {
    descendants()
        .unwrap()
        .values()
        .filter(|name| name.starts_with("dwell-") || *name == "true")
        .count()
}

fn two_hundred_at_once() {
    // The runtime keeps a pair of sockets of its own once there was one.
    run(async {});
    let before = Census::take().unwrap();
    run(async {
        let spawner = Spawner::start().unwrap();
        let outcomes: Vec<_> = (0..200)
            .map(|_| submit_later(&spawner, shell("read x; echo $x")))
            .collect();
        let mut running = tokio::task::JoinSet::new();
        for outcome in outcomes {
            running.spawn(async { finish(outcome.await.unwrap().result.unwrap()).await.stdout });
        }
        while let Some(output) = running.join_next().await {
            assert_eq!(output.unwrap(), b"\n");
        }
    });
    assert_eq!(
        Census::take().unwrap().leak_since(&before),
        Leak::default(),
        "and the guard is gone"
    );
}

fn a_spawner_that_is_dropped_ends_its_guard_and_its_commands() {
    // The runtime keeps a pair of sockets of its own once there was one.
    run(async {});
    let before = Census::take().unwrap();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, shell("trap '' TERM; while :; do sleep 1; done")).await;
        let host_pid = spawned.process.host_pid().unwrap();
        drop(spawner);
        wait_until(PATIENCE, || {
            !std::path::Path::new(&format!("/proc/{host_pid}")).exists()
        })
        .await
        .unwrap();
        assert!(
            spawned.process.watch().unwrap().wait().await.is_err(),
            "nobody is left who knows its status"
        );
        drop(spawned);
    });
    assert_eq!(Census::take().unwrap().leak_since(&before), Leak::default());
}

/// P-35.
fn the_thread_that_spawned_may_end() {
    run(async {
        let spawner = std::thread::spawn(|| Spawner::start().unwrap()).join().unwrap();
        let spawned = start(&spawner, with_stdin(shell("read x; echo still here"))).await;
        for _ in 0..8 {
            std::thread::spawn(|| ()).join().unwrap();
        }
        let mut spawned = spawned;
        drop(spawned.stdin.take());
        assert_eq!(finish(spawned).await.stdout, b"still here\n");
    });
}

/// P-36.
fn a_thousand_at_once_leave_a_bounded_reserve_and_no_descriptor() {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = rustix::process::Rlimit {
        current: limits.maximum,
        ..limits
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, most).unwrap();
    run(async {});
    let before = Census::take().unwrap();
    run(async {
        let spawner = Spawner::start().unwrap();
        let mut running = Vec::new();
        for _ in 0..1_000 {
            running.push(start(&spawner, with_stdin(request(&["cat"]))).await);
        }
        for spawned in &mut running {
            drop(spawned.stdin.take());
        }
        for spawned in running {
            assert_eq!(finish(spawned).await.exit.status, ExitStatus::Code(0));
        }
        let settled = || {
            let leak = Census::take().unwrap().leak_since(&before);
            // A connection and a pidfd for each that is kept in reserve, and what the spawner and the runtime hold.
            leak.fds.len() <= 2 * 65 + 10
        };
        wait_until(PATIENCE, settled).await.unwrap();
    });
    assert_eq!(Census::take().unwrap().leak_since(&before), Leak::default());
}

/// P-10, P-11, as far as starting and ending go.
fn an_end_is_told_at_once_while_a_grandchild_holds_the_pipe() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, shell("sleep 1000 & echo hi")).await;
        let mut out = OutputPipe::from_fd(spawned.stdout.try_clone().unwrap()).unwrap();
        let mut watcher = spawned.process.watch().unwrap();
        assert_eq!(watcher.wait().await.unwrap().status, ExitStatus::Code(0));
        assert_eq!(read_some(&mut out).await.unwrap(), "hi\n");
        assert_eq!(spawned.process.is_tree_empty(), Some(false));
        wait_until(PATIENCE, || spawned.process.members().unwrap().len() == 1)
            .await
            .unwrap();
        let _ = spawned.process.terminate(std::time::Duration::ZERO).unwrap();
        assert_eq!(
            read_some(&mut out).await,
            None,
            "the pipe is at its end with its holder"
        );
        assert_eq!(watcher.tree_ended().await.unwrap().killed, 1);
    });
}

fn a_mark_without_a_connection_makes_no_guard() {
    let output = std::process::Command::new("/proc/self/exe")
        .env("DWELL_GUARD", "1")
        .env_remove("DWELL_GUARD_TEST")
        .arg("--list")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("a_mark_without_a_connection")
    );
}
