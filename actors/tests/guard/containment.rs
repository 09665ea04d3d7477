//! Nothing outlives its welcome: the executor's death, and the end of one command's tree.

use std::io::Read;
use std::time::{Duration, Instant};

use dwell_actors::guard::{ExecutorDeath, GuardProgram, TreeHold};
use dwell_actors::spawn::{Enforcer, ExitStatus, GUARD_RESTARTS_MAX, GuardState, Spawner, TreeReport};
use dwell_testkit::{Census, Marker, descendants, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use super::endings::ready;
use super::executor::{Executor, Guarded, marked, stand};
use super::runner::{is_root, pause, tests};
use super::support::{PATIENCE, failure, finish, read_some, request, run, shell, start};

tests! {
    RootAndNobody:
        nothing_survives_the_executor,
        without_a_guard_there_are_survivors,
        a_hundred_commands_and_their_daemons_die_with_the_executor,
        a_daemon_dies_with_its_command,
        a_tree_that_ignores_term_is_killed_after_the_grace_and_counted,
        a_tree_that_obeys_is_not_waited_for,
        a_stopped_tree_hears_term,
        a_tree_that_forks_while_it_is_killed_ends,
        what_one_command_started_another_can_find_and_kill,
        a_command_that_is_given_up_leaves_its_daemon_until_the_executor_ends,
        a_dropped_command_takes_its_daemons_along,
        a_detached_command_outlives_the_executor,
        a_killed_keeper_is_reported_and_its_command_dies,
        a_killed_guard_is_replaced,
        a_guard_that_keeps_being_killed_is_given_up_and_that_is_said,
        after_the_leader_no_signal_reaches_a_stranger,
        a_second_terminate_only_brings_the_kill_forward;
    Anyone:
        without_a_guard_the_start_says_so_and_detach_is_refused,
        a_program_that_is_no_guard_is_noticed;
}

/// Plain, in a session of its own, orphaned by a double fork, stopped, and deaf to TERM.
const TREES: [&str; 5] = [
    "sleep 1000 & echo up; wait",
    "setsid sleep 1000 & echo up; wait",
    "(setsid sh -c 'sleep 1000 >/dev/null 2>&1 & echo up; exec >/dev/null 2>&1; wait' &)",
    "sleep 1000 & kill -STOP $!; echo up; kill -STOP $$",
    "trap '' TERM HUP INT QUIT; echo up; while :; do sleep 0.1; done",
];

/// What is still alive after the executor's death, when the time is over or nobody is.
fn survivors(marker: &Marker) -> usize {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let living = marker.living().unwrap();
        if living.is_empty() || Instant::now() > deadline {
            return living.len();
        }
        pause(Duration::from_millis(5));
    }
}

/// Waits until so many live: one that is about to execute its program has no environment to be known by.
async fn number_of(marker: &Marker, wanted: usize) {
    let seen = wait_until(PATIENCE, || marker.living().unwrap().len() == wanted).await;
    assert!(seen.is_ok(), "{:?}", marker.living());
}

fn rounds() -> usize {
    if std::env::var_os("DWELL_SOAK").is_some() {
        200
    } else {
        50
    }
}

/// P-26.
fn nothing_survives_the_executor() {
    for round in 0..rounds() {
        let modes: &[Guarded] = if is_root() {
            &[Guarded::Fully, Guarded::ByHunt]
        } else {
            &[Guarded::Fully]
        };
        for guarded in modes {
            let marker = Marker::new().unwrap();
            let mut executor = Executor::with_trees(*guarded, &marker, &TREES);
            assert!(marker.living().unwrap().len() >= 5, "they stand");
            executor.kill();
            assert_eq!(
                survivors(&marker),
                0,
                "round {round}, {guarded:?}: {:?}",
                marker.living()
            );
        }
    }
}

/// The positive control of the test above.
fn without_a_guard_there_are_survivors() {
    let marker = Marker::new().unwrap();
    let mut executor = Executor::with_trees(Guarded::Not, &marker, &TREES);
    executor.kill();
    assert!(survivors(&marker) >= 5);
    for process in marker.living().unwrap() {
        let _ = kill_process(Pid::from_raw(process.pid as i32).unwrap(), Signal::KILL);
    }
    assert_eq!(survivors(&marker), 0);
}

/// P-26, the number of it.
fn a_hundred_commands_and_their_daemons_die_with_the_executor() {
    let marker = Marker::new().unwrap();
    let trees = vec![TREES[2]; 100];
    let mut executor = Executor::with_trees(Guarded::Fully, &marker, &trees);
    run(number_of(&marker, 200));
    executor.kill();
    assert_eq!(survivors(&marker), 0);
}

/// P-12.
fn a_daemon_dies_with_its_command() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let (marker, bystander) = (Marker::new().unwrap(), Marker::new().unwrap());
        let (_other, _) = stand(&spawner, TREES[2], bystander.pair()).await;
        let (spawned, _) = stand(&spawner, TREES[2], marker.pair()).await;
        let mut watcher = spawned.process.watch().unwrap();
        assert_eq!(watcher.wait().await.unwrap().status, ExitStatus::Code(0));
        // The daemon and its child.
        number_of(&marker, 2).await;
        let members = spawned.process.members().unwrap().len();
        assert_eq!(members, 2, "and they are known to be its");
        assert_eq!(
            spawned.process.terminate(Duration::ZERO).unwrap(),
            Enforcer::Guard
        );
        let report = watcher.tree_ended().await.unwrap();
        assert_eq!(
            report,
            TreeReport {
                ended_by_term: 0,
                killed: 2,
                unkillable: 0
            }
        );
        assert_eq!(marker.living().unwrap(), []);
        // Another command's daemon is left alone.
        number_of(&bystander, 2).await;
    });
}

/// P-08.
fn a_tree_that_ignores_term_is_killed_after_the_grace_and_counted() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let marker = Marker::new().unwrap();
        let script = "sleep 1000 & exec sh -c \"trap '' TERM; echo up; while :; do read x </dev/null; done\"";
        let (spawned, _) = stand(&spawner, script, marker.pair()).await;
        let mut watcher = spawned.process.watch().unwrap();
        let begun = Instant::now();
        let _ = spawned.process.terminate(Duration::from_secs(2)).unwrap();
        assert_eq!(watcher.wait().await.unwrap().status, ExitStatus::Signal(9));
        assert!(begun.elapsed() >= Duration::from_millis(1_990));
        let report = watcher.tree_ended().await.unwrap();
        assert_eq!(
            report,
            TreeReport {
                ended_by_term: 1,
                killed: 1,
                unkillable: 0
            }
        );
        assert_eq!(marker.living().unwrap(), []);
    });
}

fn a_tree_that_obeys_is_not_waited_for() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let marker = Marker::new().unwrap();
        let (spawned, _) = stand(&spawner, TREES[0], marker.pair()).await;
        let mut watcher = spawned.process.watch().unwrap();
        let begun = Instant::now();
        let _ = spawned.process.terminate(Duration::from_secs(60)).unwrap();
        let report = watcher.tree_ended().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(
            report,
            TreeReport {
                ended_by_term: 2,
                killed: 0,
                unkillable: 0
            }
        );
        assert_eq!(watcher.wait().await.unwrap().status, ExitStatus::Signal(15));
    });
}

/// P-09.
fn a_stopped_tree_hears_term() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let marker = Marker::new().unwrap();
        let script = "trap 'exit 7' TERM; echo up; kill -STOP $$; while :; do sleep 0.01; done";
        let (spawned, _) = stand(&spawner, script, marker.pair()).await;
        let mut watcher = spawned.process.watch().unwrap();
        let _ = spawned.process.terminate(Duration::from_secs(60)).unwrap();
        assert_eq!(watcher.wait().await.unwrap().status, ExitStatus::Code(7));
        let (stopped, _) = stand(&spawner, TREES[3], marker.pair()).await;
        let mut watcher = stopped.process.watch().unwrap();
        let _ = stopped.process.terminate(Duration::ZERO).unwrap();
        assert_eq!(watcher.wait().await.unwrap().status, ExitStatus::Signal(9));
        assert_eq!(watcher.tree_ended().await.unwrap().killed, 2);
    });
}

/// P-34, the bomb that is not contained by a limit.
fn a_tree_that_forks_while_it_is_killed_ends() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let marker = Marker::new().unwrap();
        // Each leaves a successor in a session of its own and ends: at no moment is there a parent to follow.
        let script =
            "echo up; i=0; while :; do (setsid sh -c 'sleep 0.05; sleep 0.05' >/dev/null 2>&1 &); done";
        let (spawned, _) = stand(&spawner, script, marker.pair()).await;
        wait_until(PATIENCE, || marker.living().unwrap().len() > 20)
            .await
            .unwrap();
        let mut watcher = spawned.process.watch().unwrap();
        let _ = spawned.process.terminate(Duration::ZERO).unwrap();
        let report = watcher.tree_ended().await.unwrap();
        assert!(report.killed > 0 && report.unkillable == 0, "{report:?}");
        assert_eq!(marker.living().unwrap(), []);
    });
}

fn what_one_command_started_another_can_find_and_kill() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let marker = Marker::new().unwrap();
        let (daemon, _) = stand(&spawner, "sleep 987654 & echo $! up; wait", marker.pair()).await;
        wait_until(PATIENCE, || {
            let living = marker.living().unwrap();
            living.iter().any(|process| process.name == "sleep")
        })
        .await
        .unwrap();
        let killed = finish(start(&spawner, shell("kill $(pgrep -f '^sleep 987654')")).await).await;
        assert_eq!(
            killed.exit.status,
            ExitStatus::Code(0),
            "{}",
            String::from_utf8_lossy(&killed.stderr)
        );
        let mut watcher = daemon.process.watch().unwrap();
        assert!(watcher.wait().await.is_ok());
        assert_eq!(marker.living().unwrap(), []);
    });
}

fn a_command_that_is_given_up_leaves_its_daemon_until_the_executor_ends() {
    let marker = Marker::new().unwrap();
    run(async {
        let spawner = Spawner::start().unwrap();
        for _ in 0..3 {
            let (spawned, _) = stand(&spawner, TREES[2], marker.pair()).await;
            spawned.process.watch().unwrap().wait().await.unwrap();
            drop(spawned.process.reap().unwrap());
        }
        number_of(&marker, 6).await;
        // Keepers that still keep are not asked to keep another.
        assert_eq!(
            finish(start(&spawner, request(&["echo", "x"])).await)
                .await
                .stdout,
            b"x\n"
        );
    });
    assert_eq!(survivors(&marker), 0);
}

fn a_dropped_command_takes_its_daemons_along() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let marker = Marker::new().unwrap();
        for tree in TREES {
            drop(stand(&spawner, tree, marker.pair()).await);
        }
        wait_until(PATIENCE, || marker.living().unwrap().is_empty())
            .await
            .unwrap();
    });
}

/// P-12: what is detached is let live.
fn a_detached_command_outlives_the_executor() {
    for guarded in [Guarded::Fully, Guarded::ByHunt] {
        let (marker, detached) = (Marker::new().unwrap(), "detach:sleep 1000 & echo up; wait");
        let mut executor = Executor::with_trees(guarded, &marker, &[detached]);
        run(number_of(&marker, 2));
        executor.kill();
        // The guard ends its part first: the executor's standard output is at its end when the last of it is gone.
        let mut rest = String::new();
        executor.said.read_to_string(&mut rest).unwrap();
        pause(Duration::from_millis(300));
        assert_eq!(marker.living().unwrap().len(), 2, "{guarded:?}");
        for process in marker.living().unwrap() {
            let _ = kill_process(Pid::from_raw(process.pid as i32).unwrap(), Signal::KILL);
        }
        assert_eq!(survivors(&marker), 0);
    }
    run(async {
        let spawner = Spawner::start().unwrap();
        let marker = Marker::new().unwrap();
        let spawned = start(&spawner, marked("detach:exit 3", marker.pair())).await;
        assert_eq!(spawned.containment.executor_death, ExecutorDeath::Outlives);
        let exit = spawned.process.watch().unwrap().wait().await.unwrap();
        assert_eq!(
            exit.status,
            ExitStatus::Code(3),
            "while the executor lives it is a command like any other"
        );
    });
}

fn without_a_guard_the_start_says_so_and_detach_is_refused() {
    run(async {
        let spawner = Spawner::with_guard(Guarded::Not.options()).unwrap();
        let spawned = start(&spawner, request(&["true"])).await;
        assert_eq!(spawned.containment.executor_death, ExecutorDeath::Nothing);
        assert_eq!(spawned.containment.tree, TreeHold::ProcessGroup);
        assert!(matches!(spawner.guard_state(), GuardState::Absent(_)));
        assert_eq!(
            spawned.process.terminate(Duration::ZERO).unwrap(),
            Enforcer::Caller
        );
        finish(spawned).await;
        let kind = failure(&spawner, marked("detach:true", ("A", "b"))).await;
        assert_eq!(kind, dwell_actors::spawn::SpawnErrorKind::DetachUnavailable);
    });
}

fn a_program_that_is_no_guard_is_noticed() {
    run(async {
        for program in ["/bin/true", "/no/such/program", "/etc/passwd"] {
            let mut options = Guarded::Fully.options();
            options.program = GuardProgram::At(program.into(), Vec::new());
            let spawner = Spawner::with_guard(options).unwrap();
            assert_eq!(
                finish(start(&spawner, request(&["echo", "x"])).await)
                    .await
                    .stdout,
                b"x\n"
            );
            let GuardState::Absent(why) = spawner.guard_state() else {
                panic!("no guard can be running")
            };
            assert!(why.contains("dwell::guard::init()"), "{why}");
        }
    });
}

fn a_killed_keeper_is_reported_and_its_command_dies() {
    run(async {
        let spawner = Spawner::start().unwrap();
        ready(&spawner).await;
        let marker = Marker::new().unwrap();
        let (spawned, _) = stand(&spawner, TREES[1], marker.pair()).await;
        // As a command that kills all of its user's processes would: commands see the keepers, their own among them.
        for (pid, name) in descendants().unwrap() {
            if name == "dwell-keeper" {
                kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
            }
        }
        let error = spawned.process.watch().unwrap().wait().await.unwrap_err();
        assert!(error.to_string().contains("status is lost"), "{error}");
        wait_until(PATIENCE, || marker.living().unwrap().is_empty())
            .await
            .unwrap();
        assert_eq!(
            finish(start(&spawner, request(&["echo", "x"])).await)
                .await
                .stdout,
            b"x\n"
        );
    });
}

fn a_killed_guard_is_replaced() {
    run(async {
        let spawner = Spawner::start().unwrap();
        ready(&spawner).await;
        let marker = Marker::new().unwrap();
        let (spawned, _) = stand(&spawner, TREES[4], marker.pair()).await;
        for child in Census::take().unwrap().children.keys() {
            kill_process(Pid::from_raw(*child as i32).unwrap(), Signal::KILL).unwrap();
        }
        wait_until(PATIENCE, || {
            Census::take().unwrap().zombies().len() == 1 || Census::take().unwrap().children.is_empty()
        })
        .await
        .unwrap();
        let next = start(&spawner, request(&["echo", "x"])).await;
        assert_ne!(next.containment.executor_death, ExecutorDeath::Nothing);
        assert_eq!(finish(next).await.stdout, b"x\n");
        drop(spawned);
        wait_until(PATIENCE, || marker.living().unwrap().is_empty())
            .await
            .unwrap();
    });
}

fn a_guard_that_keeps_being_killed_is_given_up_and_that_is_said() {
    run(async {
        let spawner = Spawner::start().unwrap();
        ready(&spawner).await;
        for _ in 0..=GUARD_RESTARTS_MAX {
            for child in Census::take().unwrap().children.keys() {
                kill_process(Pid::from_raw(*child as i32).unwrap(), Signal::KILL).unwrap();
            }
            let is_dead = || Census::take().unwrap().zombies().len() == 1;
            wait_until(PATIENCE, is_dead).await.unwrap();
            finish(start(&spawner, request(&["true"])).await).await;
        }
        let GuardState::Absent(why) = spawner.guard_state() else {
            panic!("{:?}", spawner.guard_state())
        };
        assert!(why.contains("find out who kills it"), "{why}");
    });
}

/// P-25: the first one's keeper keeps the second, so a word that is late would reach it.
fn after_the_leader_no_signal_reaches_a_stranger() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let first = start(&spawner, request(&["true"])).await;
        first.process.watch().unwrap().wait().await.unwrap();
        let (bystander, mut out) = stand(
            &spawner,
            "trap 'echo hit' TERM; echo up; while :; do sleep 0.01; done",
            ("A", "b"),
        )
        .await;
        for _ in 0..100 {
            first.process.signal_leader(15).unwrap();
            first.process.signal_group(15).unwrap();
        }
        // The keeper has heard all of it when it has answered this.
        let _ = first.process.terminate(Duration::ZERO).unwrap();
        let mut watcher = first.process.watch().unwrap();
        assert_eq!(watcher.tree_ended().await.unwrap(), TreeReport::default());
        bystander.process.signal_leader(15).unwrap();
        assert_eq!(
            read_some(&mut out).await.unwrap(),
            "hit\n",
            "hit once, by the signal meant for it"
        );
    });
}

fn a_second_terminate_only_brings_the_kill_forward() {
    run(async {
        let spawner = Spawner::start().unwrap();
        let (spawned, _) = stand(&spawner, TREES[4], ("A", "b")).await;
        let mut watcher = spawned.process.watch().unwrap();
        let _ = spawned.process.terminate(Duration::from_secs(3_000)).unwrap();
        let _ = spawned.process.terminate(Duration::from_millis(10)).unwrap();
        let _ = spawned.process.terminate(Duration::from_secs(3_000)).unwrap();
        assert_eq!(watcher.wait().await.unwrap().status, ExitStatus::Signal(9));
        assert!(watcher.tree_ended().await.unwrap().killed >= 1);
    });
}
