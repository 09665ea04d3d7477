//! The same from the client's side: harness and executor in one process, over a sealed link, with the guard.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dwell_actors::harness::Command;
use dwell_actors::telemetry::semconv;
use dwell_messages::process::{Ending, ExecutorDeath, Limits, SignalTarget, TreeHold};
use dwell_messages::{ErrorCode, ExitStatus, Role, Span, Value};
use dwell_testkit::{Marker, wait_until};

use super::ends::{BOUND, connect, exited, shell, started, until, until_all, wait};
use super::runner::{is_root, tests};
use super::support::run;

tests! {
    RootAndNobody:
        a_start_names_what_contains_it,
        a_terminal_has_its_size_follows_a_resize_and_hears_keys,
        a_wall_time_ends_the_whole_tree_and_keeps_what_was_written,
        stopping_reports_what_had_to_be_killed,
        what_runs_in_the_background_ends_with_its_session,
        signals_reach_whom_they_are_for,
        a_signal_to_the_foreground_spares_the_job_behind,
        a_held_pipe_is_given_up_and_its_holders_are_counted,
        an_end_tells_what_was_used;
    Anyone:
        every_end_of_a_process_has_the_same_spans;
}

fn a_start_names_what_contains_it() {
    run(async {
        let ends = connect().await;
        let mut run = ends.harness.exec(shell("exit 0"));
        let (_, containment) = started(&mut run).await;
        let death = if is_root() {
            ExecutorDeath::PidNamespace
        } else {
            ExecutorDeath::GuardHunt
        };
        assert_eq!(containment.executor_death, death);
        assert!(
            matches!(containment.tree, TreeHold::Cgroup | TreeHold::Subreaper),
            "{containment:?}"
        );
        wait(run).await.unwrap();
    });
}

/// P-22, P-23, P-24 through the roles.
fn a_terminal_has_its_size_follows_a_resize_and_hears_keys() {
    run(async {
        let ends = connect().await;
        let script = "trap 'stty size' WINCH; trap 'echo heard; exit 3' INT; tty; stty size; echo $TERM; \
                      echo ready; while :; do sleep 0.02; done";
        let mut run = ends.harness.exec(shell(script).pty(40, 100).term("vt100"));
        let seen = until(&mut run, "ready").await;
        assert!(
            seen.contains("/dev/pts/") && seen.contains("40 100") && seen.contains("vt100"),
            "{seen}"
        );
        run.resize(30, 90).await.unwrap();
        until(&mut run, "30 90").await;
        run.resize(0, u16::MAX).await.unwrap();
        until(&mut run, "24 4096").await;
        run.write_stdin(Bytes::from_static(b"\x03")).await.unwrap();
        until(&mut run, "heard").await;
        let finished = wait(run).await.unwrap();
        assert_eq!((finished.status, finished.drained), (ExitStatus::Code(3), true));
        let piped = ends.harness.exec(shell("sleep 20"));
        let refused = piped.resize(1, 1).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::BadRequest), "{refused}");
    });
}

fn a_wall_time_ends_the_whole_tree_and_keeps_what_was_written() {
    run(async {
        let ends = connect().await;
        let marker = Marker::new().unwrap();
        let (name, value) = marker.pair();
        let limits = Limits {
            wall_ms: Some(2_000),
            ..Limits::default()
        };
        let script = "echo before; (setsid sleep 1000 &); trap '' TERM; sleep 1000";
        let command = shell(script).env(name, value).limits(limits);
        let begun = Instant::now();
        let finished = wait(ends.harness.exec(command.grace(Duration::from_millis(200))))
            .await
            .unwrap();
        assert_eq!(finished.ending, Some(Ending::Deadline));
        assert_eq!(finished.status, ExitStatus::Signal(9), "TERM is ignored");
        assert_eq!(finished.stdout.to_text(), "before\n");
        assert!(begun.elapsed() < Duration::from_secs(10));
        wait_until(BOUND, || marker.living().unwrap().is_empty())
            .await
            .unwrap();
    });
}

/// P-08, P-12 through the roles.
fn stopping_reports_what_had_to_be_killed() {
    run(async {
        let ends = connect().await;
        let marker = Marker::new().unwrap();
        let (name, value) = marker.pair();
        let script = "trap '' TERM; (setsid sleep 1000 &); echo up; sleep 1000; sleep 1000";
        let mut run = ends.harness.exec(shell(script).env(name, value));
        until(&mut run, "up").await;
        let report = run.stop(Duration::from_millis(200)).await.unwrap();
        assert!(report.killed >= 1 && report.unkillable == 0, "{report:?}");
        assert!(
            marker.living().unwrap().is_empty(),
            "the answer comes when the tree is gone"
        );
        assert_eq!(wait(run).await.unwrap().ending, Some(Ending::Terminated));
    });
}

fn what_runs_in_the_background_ends_with_its_session() {
    run(async {
        let ends = connect().await;
        let marker = Marker::new().unwrap();
        let (name, value) = marker.pair();
        let script = "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo started";
        let finished = wait(ends.harness.exec(shell(script).env(name, value)))
            .await
            .unwrap();
        assert!(finished.drained);
        // It lives while the session does. In the moment of executing something it has no environment to be known by.
        wait_until(BOUND, || marker.living().unwrap().len() == 1)
            .await
            .unwrap();
        ends.harness.shutdown().await;
        wait_until(BOUND, || marker.living().unwrap().is_empty())
            .await
            .unwrap();
        drop(ends.executor);
    });
}

/// A leader, its child, and a daemon in a session of its own: each says which signal it hears.
const EARS: &str = r#"
ear() { trap "echo $1-usr1" USR1; trap "echo $1-usr2" USR2; echo $1-up; while :; do sleep 0.02; done; }
ear child &
(setsid sh -c 'trap "echo daemon-usr1" USR1; trap "echo daemon-usr2" USR2; echo daemon-up
while :; do sleep 0.02; done' &)
ear leader"#;

/// Each target hears, and nobody else. The second signal goes to everybody and comes behind the first.
fn signals_reach_whom_they_are_for() {
    run(async {
        let ends = connect().await;
        let number = |name| dwell_actors::harness::signal_number(name).unwrap();
        let mut run = ends.harness.exec(shell(EARS));
        until_all(&mut run, &["leader-up", "child-up", "daemon-up"]).await;
        run.signal(number("USR1")).await.unwrap();
        let mut heard = until(&mut run, "leader-usr1").await;
        run.signal_to(SignalTarget::Tree, number("USR2")).await.unwrap();
        let all = ["leader-usr2", "child-usr2", "daemon-usr2"];
        heard += &until_all(&mut run, &all).await;
        assert!(
            !heard.contains("child-usr1") && !heard.contains("daemon-usr1"),
            "the leader's signal is the leader's: {heard}"
        );
        run.signal_to(SignalTarget::Tree, number("USR1")).await.unwrap();
        let all = ["leader-usr1", "child-usr1", "daemon-usr1"];
        until_all(&mut run, &all).await;
        run.signal_to(SignalTarget::Tree, number("TERM")).await.unwrap();
        assert_eq!(wait(run).await.unwrap().status, ExitStatus::Signal(15));
        let unknown = ends.harness.exec(shell("sleep 20"));
        let refused = unknown.signal(99).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::BadSignal), "{refused}");
    });
}

/// An interactive shell gives each job a group of its own, and the terminal to the one in front.
fn a_signal_to_the_foreground_spares_the_job_behind() {
    run(async {
        let ends = connect().await;
        let number = |name| dwell_actors::harness::signal_number(name).unwrap();
        let script = "sleep 1000 & bg=$!; (trap 'echo heard usr1' USR1; trap 'echo heard int; exit' INT; echo up; \
                      while :; do sleep 0.01; done); kill -0 $bg && echo spared; kill $bg";
        let bash = Command::new("bash").args(["--norc", "--noprofile", "-ic", script]);
        let mut run = ends.harness.exec(bash.pty(24, 80));
        until(&mut run, "up\r\n").await;
        run.signal_to(SignalTarget::Foreground, number("USR1"))
            .await
            .unwrap();
        until(&mut run, "heard usr1").await;
        run.signal_to(SignalTarget::Foreground, number("INT"))
            .await
            .unwrap();
        let rest = until(&mut run, "spared").await;
        assert!(rest.contains("heard int"), "{rest}");
        wait(run).await.unwrap();
    });
}

/// P-10, P-11 through the roles.
fn a_held_pipe_is_given_up_and_its_holders_are_counted() {
    run(async {
        let ends = connect().await;
        let (idle, total) = (Duration::from_secs(1), Duration::from_secs(3));
        let mut run = ends
            .harness
            .exec(shell("sleep 1000 & echo hi").drain(idle, total));
        assert_eq!(exited(&mut run).await, ExitStatus::Code(0));
        let exited_at = Instant::now();
        let finished = wait(run).await.unwrap();
        let held = exited_at.elapsed();
        assert_eq!((finished.drained, finished.holders), (false, 1));
        assert!(
            held >= idle / 2,
            "the exit is told at once, {held:?} before the end of the pipe"
        );
        assert!(held < total + Duration::from_secs(2), "given up after {held:?}");
        // Somebody who goes on writing is heard until the whole grace is over, and what was written is all there.
        let (idle, total) = (Duration::from_millis(400), Duration::from_millis(1_600));
        let script = "(while :; do echo more; sleep 0.02; done) & echo hi";
        let mut run = ends.harness.exec(shell(script).drain(idle, total));
        exited(&mut run).await;
        let exited_at = Instant::now();
        until(&mut run, "more").await;
        let finished = wait(run).await.unwrap();
        let held = exited_at.elapsed();
        assert!(!finished.drained && finished.stdout.to_text().matches("more").count() > 3);
        assert!(
            held >= total / 2,
            "output still came, and it was given up after {held:?}"
        );
    });
}

fn an_end_tells_what_was_used() {
    run(async {
        let ends = connect().await;
        // What the kernel itself counts of the shell just before its end: user and system time, in hundredths.
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; cut -d' ' -f14,15 /proc/$$/stat";
        let finished = wait(ends.harness.exec(shell(script))).await.unwrap();
        let usage = finished.usage.expect("the guard waits for its commands");
        let counted: u64 = finished
            .stdout
            .to_text()
            .split_whitespace()
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum();
        assert!(counted >= 2, "the loop takes time: {counted}");
        let told = usage.user_us + usage.system_us;
        assert!(
            told + 20_000 >= counted * 10_000,
            "{usage:?}, and the kernel counts {counted} hundredths"
        );
        assert_eq!(
            (finished.ending, finished.core_dumped, finished.holders),
            (None, false, 0)
        );
        // To give the end of a pipe, `tail` keeps as much of it.
        let script = "head -c 67108864 /dev/zero | tail -c 67108864 >/dev/null";
        let finished = wait(ends.harness.exec(shell(script))).await.unwrap();
        let usage = finished.usage.unwrap();
        assert!(usage.max_rss_bytes >= 64 << 20, "{usage:?}");
    });
}

/// What hangs below the process span, by name, with its error.
fn below_process(spans: &[(Role, Span)]) -> Vec<(String, Option<String>)> {
    let stage = |name: &str| {
        let found: Vec<_> = spans
            .iter()
            .filter(|(role, span)| *role == Role::Executor && span.name == name)
            .collect();
        assert_eq!(found.len(), 1, "one span {name}");
        found[0].1.clone()
    };
    let process = stage("process");
    let mut below: Vec<_> = spans
        .iter()
        .filter(|(role, span)| *role == Role::Executor && span.parent == process.span_id)
        .filter(|(_, span)| !span.name.starts_with("mailbox ") && !span.name.starts_with("turn "))
        .filter(|(_, span)| span.name != "relay hop")
        .map(|(_, span)| {
            assert!(span.end_unix_ns >= span.start_unix_ns);
            (span.name.to_string(), span.error.as_deref().map(str::to_owned))
        })
        .collect();
    below.sort();
    below.push(("process".into(), process.error.as_deref().map(str::to_owned)));
    below
}

fn every_end_of_a_process_has_the_same_spans() {
    run(async {
        let ended = |readers: Option<&str>, process: Option<&str>| {
            let row = |name: &str, error: Option<&str>| (name.to_owned(), error.map(str::to_owned));
            vec![
                row("close", None),
                row("exit watcher", None),
                row("spawn", None),
                row("stderr reader", readers),
                row("stdout reader", readers),
                row("process", process),
            ]
        };
        let limits = Limits {
            wall_ms: Some(100),
            ..Limits::default()
        };
        let drain = Duration::from_millis(50);
        let cases = [
            (shell("head -c 1000000 /dev/zero"), ended(None, None)),
            (shell("exit 3"), ended(None, Some("exit_code"))),
            (shell("kill -9 $$"), ended(None, Some("signal:SIGKILL"))),
            (
                shell("exec sleep 1000").limits(limits),
                ended(None, Some("signal:SIGTERM")),
            ),
            (
                shell("sleep 1000 &").drain(drain, drain),
                ended(Some("drain_timeout"), None),
            ),
        ];
        for (command, expected) in cases {
            let ends = connect().await;
            wait(ends.harness.exec(command)).await.unwrap();
            ends.harness.flush_traces().await;
            let spans = ends.spans.0.lock().unwrap().clone();
            assert_eq!(below_process(&spans), expected);
        }
        // What could not be started has an end too, and says why.
        let ends = connect().await;
        let refused = wait(ends.harness.exec(Command::new("/nonexistent/program")))
            .await
            .unwrap_err();
        assert_eq!(refused.errno(), Some(2), "{refused}");
        ends.harness.flush_traces().await;
        let spans = ends.spans.0.lock().unwrap().clone();
        let named = |name: &str| {
            let found: Vec<_> = spans.iter().filter(|(_, span)| span.name == name).collect();
            assert_eq!(found.len(), 1, "one span {name} in {:?}", names(&spans));
            found[0].1.clone()
        };
        assert_eq!(named("spawn").error.as_deref(), Some("spawn_failed"));
        assert!(named("process").error.is_some());
        let errno = named("spawn")
            .attributes
            .iter()
            .any(|(key, value)| key == semconv::ERRNO && matches!(value, Value::I64(2)));
        assert!(errno, "{:?}", named("spawn").attributes);
    });
}

fn names(spans: &[(Role, Span)]) -> Vec<&str> {
    spans.iter().map(|(_, span)| span.name.as_ref()).collect()
}
