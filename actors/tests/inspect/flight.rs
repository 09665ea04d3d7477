//! The flight recorder: calls that were not sampled, and turn out to have failed or to have been slow.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use dwell_actors::harness::{Command, Finished, Harness, RunError};
use dwell_actors::trace_file::find_trace;
use dwell_messages::{Role, TraceId};

use crate::support::{World, bounded};

/// Which roles' spans a trace has in the harness's files, and their names.
fn kept(dir: &Path, trace: TraceId) -> (BTreeSet<Role>, BTreeSet<String>) {
    let Some(trace) = find_trace(dir, trace).unwrap() else {
        return Default::default();
    };
    let roles = trace.spans.iter().map(|(role, _)| *role).collect();
    let names = trace
        .spans
        .iter()
        .map(|(_, span)| span.name.to_string())
        .collect();
    (roles, names)
}

async fn run(harness: &Harness, command: Command) -> (TraceId, Result<Finished, RunError>) {
    let run = harness.exec(command);
    let trace = run.trace_id();
    let finished = bounded("the run", run.wait()).await;
    bounded("its spans", harness.flush_traces()).await;
    (trace, finished)
}

async fn remembering(world: &World, traces: &Path, slower_than: Duration) -> Harness {
    let set =
        |builder: dwell_actors::harness::HarnessBuilder| builder.traces(traces).flight_threshold(slower_than);
    world.harness(world.relayed(), set).await
}

#[tokio::test]
async fn a_call_that_failed_unsampled_leaves_both_ends_of_its_trace_and_one_that_did_well_leaves_none() {
    let world = World::with(|builder| builder.flight_recorder(true)).await;
    let traces = tempfile::tempdir().unwrap();
    let harness = remembering(&world, traces.path(), Duration::MAX).await;
    let (well, finished) = run(&harness, Command::new("true")).await;
    assert!(finished.is_ok());
    let (failed, finished) = run(&harness, Command::new("sh").args(["-c", "kill -9 $$"])).await;
    assert!(finished.is_ok(), "a signal is a status");
    let (refused, finished) = run(&harness, Command::new("/nowhere/to/be/found")).await;
    assert!(finished.is_err());
    harness.shutdown().await;
    assert_eq!(
        kept(traces.path(), well),
        Default::default(),
        "nothing is kept of what did well"
    );
    let both = BTreeSet::from([Role::Harness, Role::Executor]);
    let (roles, names) = kept(traces.path(), failed);
    assert_eq!(roles, both, "{names:?}");
    for name in [
        "call",
        "process",
        "spawn",
        "exit watcher",
        "mailbox Process",
        "mailbox Dispatcher",
    ] {
        assert!(names.contains(name), "{name} is missing from {names:?}");
    }
    let (roles, names) = kept(traces.path(), refused);
    assert_eq!(roles, both, "{names:?}");
    assert!(names.contains("spawn") && names.contains("call"), "{names:?}");
}

#[tokio::test]
async fn a_call_that_was_slower_than_it_may_be_leaves_its_trace_although_it_did_well() {
    let world = World::with(|builder| builder.flight_recorder(true)).await;
    let traces = tempfile::tempdir().unwrap();
    let harness = remembering(&world, traces.path(), Duration::from_millis(500)).await;
    let (slow, _) = run(&harness, Command::new("sleep").arg("0.6")).await;
    harness.shutdown().await;
    let (roles, names) = kept(traces.path(), slow);
    assert_eq!(
        roles,
        BTreeSet::from([Role::Harness, Role::Executor]),
        "{names:?}"
    );
}

/// An executor without a recorder is not asked, and nothing waits for it.
#[tokio::test]
async fn without_the_executors_recorder_this_ends_part_is_kept_and_nothing_is_waited_for() {
    let world = World::start().await;
    let traces = tempfile::tempdir().unwrap();
    let harness = remembering(&world, traces.path(), Duration::ZERO).await;
    let (trace, _) = run(&harness, Command::new("true")).await;
    let begun = std::time::Instant::now();
    harness.shutdown().await;
    println!("the shutdown took {:?}", begun.elapsed());
    let (roles, names) = kept(traces.path(), trace);
    assert_eq!(roles, BTreeSet::from([Role::Harness]), "{names:?}");
}

/// The control: without a threshold nothing is remembered, whatever the executor does.
#[tokio::test]
async fn without_a_threshold_a_failed_unsampled_call_leaves_nothing() {
    let world = World::with(|builder| builder.flight_recorder(true)).await;
    let traces = tempfile::tempdir().unwrap();
    let harness = world
        .harness(world.relayed(), |builder| builder.traces(traces.path()))
        .await;
    let (trace, _) = run(&harness, Command::new("sh").args(["-c", "kill -9 $$"])).await;
    harness.shutdown().await;
    assert_eq!(kept(traces.path(), trace), Default::default());
}
