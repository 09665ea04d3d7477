//! The same from the client's side: harness and executor in one process, over a sealed link, with the guard.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::harness::{Command, Finished, Harness, Run, RunError, RunEvent, Target};
use dwell_actors::telemetry::{ClockOffset, SinkError, SpanSink};
use dwell_messages::process::{Ending, ExecutorDeath, Limits, SignalTarget, TreeHold};
use dwell_messages::{ErrorCode, ExitStatus, Role, Span, Value};
use dwell_relay::{OsRandomness, StaticKeypair};
use dwell_testkit::{Marker, wait_until};

use super::executor::Guarded;
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
        a_held_pipe_is_given_up_and_its_holders_are_counted,
        an_end_tells_what_was_used;
    Anyone:
        every_end_of_a_process_has_the_same_spans;
}

const BOUND: Duration = Duration::from_secs(25);

/// Keeps every span.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(Role, Span)>>>);

impl SpanSink for Spans {
    fn export(&mut self, role: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        let mut kept = self.0.lock().unwrap();
        kept.extend(spans.iter().map(|span| (role, span.clone())));
        Ok(())
    }
}

struct Ends {
    harness: Harness,
    executor: ExecutorHandle,
    spans: Spans,
}

async fn connect() -> Ends {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .guard(Guarded::Fully.options())
        .serve()
        .await
        .unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let spans = Spans::default();
    let builder = Harness::builder().identity(client).sink(spans.clone());
    let harness = builder.connect(target).await.unwrap();
    Ends {
        harness,
        executor,
        spans,
    }
}

fn shell(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

async fn wait(run: Run) -> Result<Finished, RunError> {
    tokio::time::timeout(BOUND, run.wait()).await.expect("a run ends")
}

/// Takes events until the output holds `text`, and gives it.
async fn until(run: &mut Run, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let event = tokio::time::timeout(BOUND, run.next()).await;
        match event.unwrap_or_else(|_| panic!("no {text:?} in {seen:?}")) {
            Some(RunEvent::Stdout(data) | RunEvent::Stderr(data)) => {
                seen.push_str(&String::from_utf8_lossy(&data));
            }
            Some(RunEvent::Started { .. } | RunEvent::Gap(_) | RunEvent::Exited(_)) => {}
            None => panic!("it ended without {text:?}: {seen:?}"),
        }
    }
    seen
}

fn a_start_names_what_contains_it() {
    run(async {
        let ends = connect().await;
        let mut run = ends.harness.exec(shell("exit 0"));
        let Some(RunEvent::Started { containment, .. }) = run.next().await else {
            panic!("a start comes first");
        };
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
            wall_ms: Some(300),
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
        assert_eq!(
            marker.living().unwrap().len(),
            1,
            "it lives while the session does"
        );
        ends.harness.shutdown().await;
        wait_until(BOUND, || marker.living().unwrap().is_empty())
            .await
            .unwrap();
        drop(ends.executor);
    });
}

fn signals_reach_whom_they_are_for() {
    run(async {
        let ends = connect().await;
        let script = "trap 'echo leader' USR1; sh -c \"trap 'echo child' USR1; echo up; while :; do sleep 0.02; done\" & \
                      while :; do sleep 0.02; done";
        let mut run = ends.harness.exec(shell(script));
        until(&mut run, "up").await;
        let number = dwell_actors::harness::signal_number("USR1").unwrap();
        run.signal(number).await.unwrap();
        assert!(!until(&mut run, "leader").await.contains("child"));
        let tree = ends.harness.exec(shell("trap '' USR1; sleep 20"));
        tree.signal_to(SignalTarget::Tree, number).await.unwrap();
        drop(tree);
        run.signal_to(SignalTarget::Tree, 15).await.unwrap();
        assert_eq!(wait(run).await.unwrap().status, ExitStatus::Signal(15));
        let unknown = ends.harness.exec(shell("sleep 20"));
        let refused = unknown.signal(99).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::BadSignal), "{refused}");
    });
}

/// P-10, P-11 through the roles.
fn a_held_pipe_is_given_up_and_its_holders_are_counted() {
    run(async {
        let ends = connect().await;
        let (idle, total) = (Duration::from_millis(100), Duration::from_millis(400));
        let mut run = ends
            .harness
            .exec(shell("sleep 1000 & echo hi").drain(idle, total));
        let begun = Instant::now();
        loop {
            match run.next().await {
                Some(RunEvent::Exited(status)) => break assert_eq!(status, ExitStatus::Code(0)),
                Some(_) => {}
                None => panic!("it ended without an exit"),
            }
        }
        let finished = wait(run).await.unwrap();
        assert_eq!((finished.drained, finished.holders), (false, 1));
        assert!(begun.elapsed() >= idle && begun.elapsed() < Duration::from_secs(5));
        // Somebody who goes on writing is heard until the whole grace is over, and what was written is all there.
        let script = "(while :; do echo more; sleep 0.02; done) & echo hi";
        let finished = wait(ends.harness.exec(shell(script).drain(idle, total)))
            .await
            .unwrap();
        assert!(!finished.drained && finished.stdout.to_text().matches("more").count() > 3);
    });
}

fn an_end_tells_what_was_used() {
    run(async {
        let ends = connect().await;
        let script = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done";
        let finished = wait(ends.harness.exec(shell(script))).await.unwrap();
        let usage = finished.usage.expect("the guard waits for its commands");
        assert!(
            usage.user_us > 1_000 && usage.max_rss_bytes > 256 * 1024,
            "{usage:?}"
        );
        assert_eq!(
            (finished.ending, finished.core_dumped, finished.holders),
            (None, false, 0)
        );
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
            (shell("kill -9 $$"), ended(None, Some("signal"))),
            (
                shell("exec sleep 1000").limits(limits),
                ended(None, Some("signal")),
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
            .any(|(key, value)| key == "error.errno" && matches!(value, Value::I64(2)));
        assert!(errno, "{:?}", named("spawn").attributes);
    });
}

fn names(spans: &[(Role, Span)]) -> Vec<&str> {
    spans.iter().map(|(_, span)| span.name.as_ref()).collect()
}
