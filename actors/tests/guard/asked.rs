//! What a client asks for beside the command itself: limits, an environment, a life beyond the executor's.

use std::time::Duration;

use dwell_actors::harness::{Command, Inherit};
use dwell_messages::process::{ExecutorDeath, Limits, TreeHold};
use dwell_messages::{ErrorCode, ExitStatus};
use dwell_testkit::{Marker, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use super::ends::{BOUND, assert_works, connect, connect_with, shell, started, until, wait};
use super::executor::Guarded;
use super::runner::tests;
use super::support::run;

tests! {
    RootAndNobody:
        every_limit_is_what_the_command_finds,
        a_limit_that_cannot_be_had_is_refused_and_named,
        each_policy_passes_what_it_says_and_the_answer_names_what_was_withheld,
        what_is_detached_outlives_session_and_executor,
        without_a_guard_a_start_says_that_nothing_contains_it,
    ;
}

fn every_limit_is_what_the_command_finds() {
    for guarded in [Guarded::Fully, Guarded::Not] {
        run(async {
            let ends = connect_with(guarded).await;
            let limits = Limits {
                wall_ms: Some(60_000),
                open_files: Some(77),
                address_space_bytes: Some(1 << 30),
                processes: Some(999),
                core_bytes: Some(1_024),
                file_bytes: Some(51_200),
                cpu_seconds: Some(55),
                nice: Some(7),
            };
            // Memory, files and cores are counted in KiB there.
            let script = "ulimit -n; ulimit -v; ulimit -u; ulimit -c; ulimit -f; ulimit -t; nice";
            let bash = Command::new("bash").args(["-c", script]).limits(limits);
            let finished = wait(ends.harness.exec(bash)).await.unwrap();
            let text = finished.stdout.to_text();
            let expected = ["77", "1048576", "999", "1", "50", "55", "7"];
            assert_eq!(text.lines().collect::<Vec<_>>(), expected, "{guarded:?}");
        });
    }
}

fn a_limit_that_cannot_be_had_is_refused_and_named() {
    run(async {
        let ends = connect().await;
        let limits = Limits {
            open_files: Some(u64::from(u32::MAX)),
            ..Limits::default()
        };
        let refused = wait(ends.harness.exec(shell("true").limits(limits)))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::BadRequest), "{refused}");
        assert_eq!(refused.errno(), Some(1), "{refused}");
        assert!(refused.to_string().contains("open files"), "{refused}");
        // P-06: so little memory that nothing can be executed.
        let limits = Limits {
            address_space_bytes: Some(4_096),
            ..Limits::default()
        };
        match wait(ends.harness.exec(shell("true").limits(limits))).await {
            Ok(finished) => assert!(
                matches!(finished.status, ExitStatus::Signal(_) | ExitStatus::Code(127)),
                "{:?}",
                finished.status
            ),
            Err(refused) => assert!(refused.errno().is_some(), "{refused}"),
        }
        assert_works(&ends.harness).await;
    });
}

/// P-31 through the roles. The runner gives every test the variables with `PROBE` in their names.
fn each_policy_passes_what_it_says_and_the_answer_names_what_was_withheld() {
    run(async {
        let ends = connect().await;
        let all = || Command::new("env").inherit(Inherit::All);
        let both = ["PROBE_OTHER=other", "PROBE_PLAIN=plain"];
        let cases = [
            (Command::new("env"), &["LC_PROBE=C"][..], true),
            (all(), &["LC_PROBE=C", both[0], both[1]], true),
            (
                all().env_secrets(),
                &["LC_PROBE=C", "PROBE_API_KEY=hidden", both[0], both[1]],
                false,
            ),
            (Command::new("/usr/bin/env").inherit(Inherit::None), &[], true),
            (all().env_include("PROBE_*"), &both, true),
            (
                all().env_include("*PROBE*").env_exclude("PROBE_OTHE?"),
                &["LC_PROBE=C", both[1]],
                true,
            ),
            (all().env_remove("LC_PROBE"), &both, true),
            (
                all().env_include("PROBE_O*").env("PROBE_PLAIN", "set"),
                &[both[0], "PROBE_PLAIN=set"],
                true,
            ),
        ];
        for (command, expected, is_withheld) in cases {
            let what = format!("{command:?}");
            let mut run = ends.harness.exec(command);
            let (withheld, _) = started(&mut run).await;
            let finished = wait(run).await.unwrap();
            let text = finished.stdout.to_text();
            let mut probes: Vec<_> = text.lines().filter(|line| line.contains("PROBE")).collect();
            probes.sort_unstable();
            assert_eq!(probes, expected, "{what}");
            let named = withheld.iter().any(|name| name == "PROBE_API_KEY");
            assert_eq!(named, is_withheld, "{what}: {withheld:?}");
            assert!(!withheld.iter().any(|name| name.contains("hidden")));
            let parent = text.lines().find_map(|line| line.strip_prefix("TRACEPARENT="));
            let trace = finished.trace_id.to_string();
            assert!(
                parent.is_some_and(|parent| parent.contains(&trace)),
                "{what}: {parent:?}"
            );
        }
    });
}

/// As `setsid nohup` would have it, and only when asked for.
fn what_is_detached_outlives_session_and_executor() {
    let marker = Marker::new().unwrap();
    let (name, value) = marker.pair();
    run(async {
        let ends = connect().await;
        let contained = Marker::new().unwrap();
        let script = "trap '' HUP; echo up; exec sleep 1000";
        let mut detached = ends
            .harness
            .exec(shell(script).env(name, value).outlive_executor());
        let (_, containment) = started(&mut detached).await;
        assert_eq!(containment.executor_death, ExecutorDeath::Outlives);
        until(&mut detached, "up").await;
        let mut other = ends.harness.exec(shell(script).env(name, contained.pair().1));
        until(&mut other, "up").await;
        ends.harness.shutdown().await;
        ends.executor.shutdown().await;
        wait_until(BOUND, || contained.living().unwrap().is_empty())
            .await
            .unwrap();
        drop((detached, other));
    });
    let living = marker.living().unwrap();
    for process in &living {
        let _ = kill_process(Pid::from_raw(process.pid as i32).unwrap(), Signal::KILL);
    }
    assert_eq!(living.len(), 1, "it lives on, and nothing but this test ends it");
}

fn without_a_guard_a_start_says_that_nothing_contains_it() {
    run(async {
        let ends = connect_with(Guarded::Not).await;
        let mut run = ends.harness.exec(shell("exit 3"));
        let (_, containment) = started(&mut run).await;
        assert_eq!(containment.executor_death, ExecutorDeath::Nothing);
        assert_eq!(containment.tree, TreeHold::ProcessGroup);
        assert_eq!(wait(run).await.unwrap().status, ExitStatus::Code(3));
        let refused = wait(ends.harness.exec(shell("true").outlive_executor()))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::BadRequest));
        assert!(refused.to_string().contains("guard"), "{refused}");
        // What it can do is done: the group is ended.
        let mut run = ends
            .harness
            .exec(shell("trap '' TERM; echo up; while :; do sleep 0.02; done"));
        until(&mut run, "up").await;
        run.terminate(Duration::from_millis(50));
        assert_eq!(wait(run).await.unwrap().status, ExitStatus::Signal(9));
    });
}
