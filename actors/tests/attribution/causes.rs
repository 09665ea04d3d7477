//! Six causes, one at a time in real runs: the trace of the slow call, held against those of usual ones, names it first.

use std::path::Path;
use std::time::Duration;

use dwell_actors::fault_point::delay::{DelayPoint, lift, plant};
use dwell_actors::harness::{Command, Harness};
use dwell_actors::trace_file::{ROOT_SPAN_NAME, Trace, find_trace};
use dwell_actors::trace_why::{Baseline, Cause as Told, explain};
use dwell_messages::{Span, Value};

use super::world::{Route, World, alone, bounded, shell};

/// How long the planted cause takes.
const DELAY: Duration = Duration::from_millis(50);
/// Usual calls before the slow one.
const USUAL: usize = 7;
/// Attempts before a cause counts as not named: a machine that is shared has causes of its own.
const ATTEMPTS: usize = 6;

/// What a trace has to be explained by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    BusyMailbox,
    ThrottledRelay,
    SlowSpawn,
    SlowChild,
    HeldPipe,
    SlowDisk,
}

/// How a slow call differs from a usual one.
#[derive(Clone, Copy)]
struct Scenario {
    cause: Cause,
    usual: &'static str,
    slow: &'static str,
    planted: Option<DelayPoint>,
}

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        cause: Cause::BusyMailbox,
        usual: "exit 0",
        slow: "exit 0",
        planted: Some(DelayPoint::ExecutorSupervisorMailbox),
    },
    Scenario {
        cause: Cause::ThrottledRelay,
        usual: "exit 0",
        slow: "exit 0",
        planted: Some(DelayPoint::Relay),
    },
    Scenario {
        cause: Cause::SlowSpawn,
        usual: "exit 0",
        slow: "exit 0",
        planted: Some(DelayPoint::ExecutorSpawn),
    },
    Scenario {
        cause: Cause::SlowChild,
        usual: "exec sleep 0",
        slow: "exec sleep 0.05",
        planted: None,
    },
    Scenario {
        cause: Cause::HeldPipe,
        usual: "sleep 0.05 >/dev/null 2>&1 & exit 0",
        slow: "sleep 0.05 & exit 0",
        planted: None,
    },
    Scenario {
        cause: Cause::SlowDisk,
        usual: "exit 0",
        slow: "exit 0",
        planted: Some(DelayPoint::HarnessStore),
    },
];

/// Runs a command and reads its trace when the files have all of it.
async fn traced(harness: &Harness, dir: &Path, command: Command) -> Trace {
    let finished = bounded("a run", harness.exec(command).wait()).await.unwrap();
    bounded("the store", harness.flush()).await.unwrap();
    bounded("the traces", harness.flush_traces()).await;
    find_trace(dir, finished.trace_id).unwrap().unwrap()
}

/// The slow call's trace, and those of usual ones of the same program before it.
async fn run(harness: &Harness, dir: &Path, scenario: Scenario) -> (Trace, Vec<Trace>) {
    let mut usual = Vec::new();
    for _ in 0..USUAL {
        usual.push(traced(harness, dir, shell(scenario.usual)).await);
    }
    if let Some(point) = scenario.planted {
        plant(point, DELAY);
    }
    let slow = traced(harness, dir, shell(scenario.slow)).await;
    if let Some(point) = scenario.planted {
        assert!(!lift(point), "nobody came by {point:?}");
    }
    (slow, usual)
}

/// What people are told first. Another cause is given back as it was told.
fn explained(slow: &Trace, usual: &[Trace]) -> Result<Cause, String> {
    let explanation = explain(slow, &Baseline::of(usual));
    let first = explanation.reasons.into_iter().next();
    let first = first.ok_or("nothing was told at all")?.cause;
    match &first {
        Told::Mailbox {
            machine,
            actor: Some(actor),
        } if machine == "executor" && actor == "ProcessSupervisor" => Ok(Cause::BusyMailbox),
        Told::Relay => Ok(Cause::ThrottledRelay),
        Told::Spawn => Ok(Cause::SlowSpawn),
        Told::Command { .. } => Ok(Cause::SlowChild),
        Told::HeldPipe { .. } => Ok(Cause::HeldPipe),
        Told::Disk { .. } => Ok(Cause::SlowDisk),
        _ => Err(format!("{first:?}")),
    }
}

/// All segments that a call's trace names, in microseconds.
fn chain_us(trace: &Trace) -> u64 {
    let mut spans = trace.spans.iter().map(|(_, span)| span);
    let root: &Span = spans.find(|span| span.name == ROOT_SPAN_NAME).unwrap();
    let chain = root
        .attributes
        .iter()
        .filter(|(name, _)| name.starts_with("chain."));
    chain
        .map(|(name, value)| match value {
            Value::I64(us) => u64::try_from(*us).unwrap_or_else(|_| panic!("{name} is negative")),
            Value::Bool(_) | Value::F64(_) | Value::Str(_) => panic!("{name} is no number"),
        })
        .sum()
}

#[tokio::test]
async fn each_of_six_planted_causes_is_named_first() {
    let _alone = alone().await;
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let harness = world.traced(Route::Relay, dir.path()).await;
    for scenario in SCENARIOS {
        let mut named = Vec::new();
        while named.last() != Some(&Ok(scenario.cause)) {
            assert!(
                named.len() < ATTEMPTS,
                "{:?} was taken for {named:?}",
                scenario.cause
            );
            let (slow, usual) = run(&harness, dir.path(), scenario).await;
            named.push(explained(&slow, &usual));
        }
    }
}

/// A call's trace says of every microsecond of the whole where it went, or that nobody knows.
#[tokio::test]
async fn the_segments_in_a_trace_and_what_is_unattributed_are_the_whole() {
    let _alone = alone().await;
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let harness = world.traced(Route::Relay, dir.path()).await;
    for _ in 0..5 {
        let finished = bounded("a run", harness.exec(shell("echo out")).wait())
            .await
            .unwrap();
        bounded("the traces", harness.flush_traces()).await;
        let trace = find_trace(dir.path(), finished.trace_id).unwrap().unwrap();
        assert_eq!(
            chain_us(&trace),
            finished.timings.total_us,
            "{}",
            finished.timings
        );
    }
}
