//! Every command's dispatch is told once, whatever becomes of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell_messages::{Role, Span, Value};
use dwell_relay::{OsRandomness, StaticKeypair};

use super::*;
use crate::executor::{Executor, ExecutorHandle};
use crate::metrics::gather;
use crate::relay_framer::FramerControl;
use crate::telemetry::{ClockOffset, Collector, SinkError, SpanSink, semconv};

const BOUND: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Span>>>);

impl SpanSink for Kept {
    fn export(&mut self, role: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        if role == Role::Harness {
            self.0.lock().unwrap().extend_from_slice(spans);
        }
        Ok(())
    }
}

impl Kept {
    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap();
        spans.iter().filter(|span| span.name == name).cloned().collect()
    }
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a Value> {
    span.attributes
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value)
}

async fn connect() -> (ExecutorHandle, Harness, Kept) {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .serve()
        .await
        .unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let kept = Kept::default();
    let harness = Harness::builder()
        .identity(client)
        .sampled(true)
        .sink(kept.clone())
        .connect(target)
        .await
        .unwrap();
    (executor, harness, kept)
}

/// How often each outcome was told, by kind and outcome.
fn told(collector: &Collector) -> BTreeMap<(&'static str, &'static str), u64> {
    let dispatches = collector.board().meters().dispatches();
    dispatches
        .iter()
        .flat_map(|(kind, own)| {
            own.outcomes
                .iter()
                .map(move |(outcome, count)| ((*kind, *outcome), *count))
        })
        .collect()
}

async fn bounded<F: IntoFuture>(what: F) -> F::Output {
    tokio::time::timeout(BOUND, what.into_future())
        .await
        .expect("in time")
}

/// A command that runs until its input ends.
async fn until_told(harness: &Harness, command: Command) -> Run {
    let mut run = harness.exec(command.stdin_piped());
    let first = bounded(run.next()).await;
    assert!(matches!(first, Some(RunEvent::Started { .. })), "{first:?}");
    run
}

#[tokio::test]
async fn the_wait_for_the_lock_is_dispatch_of_serial_and_of_parallel_calls() {
    let (executor, harness, kept) = connect().await;
    let mut first = until_told(&harness, Command::new("cat")).await;
    // Runs for longer than it takes to ask for the third.
    let second = harness.exec(Command::new("sleep").arg("0.3").serial());
    let third = harness.exec(Command::new("true"));
    let waits = (second.context().clone(), third.context().clone());
    first.close_stdin().await.unwrap();
    let (first, second, third) = bounded(async {
        let first = first.wait().await.unwrap().timings;
        (
            first,
            second.wait().await.unwrap().timings,
            third.wait().await.unwrap().timings,
        )
    })
    .await;
    for timings in [&first, &second, &third] {
        let dispatch = timings.dispatch;
        assert!(dispatch.execution_started);
        assert_eq!(dispatch.dispatch_us + dispatch.handler_us, dispatch.total_us);
        let chain: u64 = timings
            .harness
            .iter()
            .filter(|(name, _)| ["submit", "dispatch"].contains(name))
            .map(|(_, micros)| micros)
            .sum();
        assert!(chain.abs_diff(dispatch.dispatch_us) <= 2, "{dispatch:?} {chain}");
    }
    assert!(first.dispatch.lock_us < second.dispatch.lock_us);
    assert!(
        second.dispatch.lock_us < third.dispatch.lock_us,
        "it waited for both"
    );
    bounded(harness.flush_traces()).await;
    for (context, wait) in [
        (waits.0, second.dispatch.lock_us),
        (waits.1, third.dispatch.lock_us),
    ] {
        let of_call = |name: &str| -> Vec<Span> {
            let spans = kept.named(name).into_iter();
            spans.filter(|span| span.trace_id == context.trace_id.0).collect()
        };
        let dispatch = of_call(semconv::span::TOOL_DISPATCH).remove(0);
        let lock = of_call(semconv::span::LOCK).remove(0);
        assert_eq!(
            (dispatch.parent, lock.parent),
            (context.span_id.0, dispatch.span_id)
        );
        assert!(lock.duration_ns().abs_diff(wait * 1_000) <= 2_000);
        let handler = of_call(semconv::span::HANDLER);
        assert_eq!((handler.len(), handler[0].parent), (1, dispatch.span_id));
    }
    assert!(kept.named(semconv::span::READINESS).is_empty(), "the link was up");
    let expected = BTreeMap::from([(("parallel", "success"), 2), (("serial", "success"), 1)]);
    assert_eq!(told(&harness.collector), expected);
    harness.shutdown().await;
    executor.shutdown().await;
}

#[tokio::test]
async fn a_call_that_is_cancelled_while_it_waits_is_told_at_once_as_not_started() {
    let (executor, harness, kept) = connect().await;
    let alone = until_told(&harness, Command::new("cat").serial()).await;
    let waits = harness.exec(Command::new("true"));
    let trace = waits.trace_id();
    drop(waits);
    let cancelled = (("parallel", "not_started"), 1);
    assert_eq!(
        told(&harness.collector),
        BTreeMap::from([cancelled]),
        "its turn has not come"
    );
    bounded(alone.stop(Duration::ZERO)).await.unwrap();
    drop(bounded(alone.wait()).await);
    let expected = BTreeMap::from([cancelled, (("serial", "terminated"), 1)]);
    assert_eq!(told(&harness.collector), expected, "and not again when it does");
    bounded(harness.flush_traces()).await;
    let dispatches = kept.named(semconv::span::TOOL_DISPATCH);
    let dispatch: Vec<_> = dispatches
        .iter()
        .filter(|span| span.trace_id == trace.0)
        .collect();
    assert_eq!(dispatch.len(), 1);
    let started = attribute(dispatch[0], semconv::DISPATCH_STARTED);
    assert_eq!(started, Some(&Value::Bool(false)));
    assert_eq!(dispatch[0].error.as_deref(), Some("not_started"));
    let handlers = kept.named(semconv::span::HANDLER);
    assert!(handlers.iter().all(|span| span.trace_id != trace.0));
    harness.shutdown().await;
    executor.shutdown().await;
}

#[tokio::test]
async fn every_launch_has_an_end_that_is_told_once() {
    let (executor, harness, kept) = connect().await;
    let collector = harness.collector.clone();
    let stays = || Command::new("sleep").arg("1000");
    bounded(harness.exec(Command::new("true"))).await.unwrap();
    bounded(harness.exec(Command::new("false"))).await.unwrap();
    bounded(harness.exec(Command::new("/none"))).await.unwrap_err();
    bounded(harness.exec(Command::from_argv::<&str>([])))
        .await
        .unwrap_err();
    bounded(harness.exec(stays().deadline(Duration::from_millis(1))))
        .await
        .unwrap_err();
    let killed = until_told(&harness, Command::new("cat")).await;
    killed.signal(9).await.unwrap();
    bounded(killed.wait()).await.unwrap();
    let asked = until_told(&harness, Command::new("cat")).await;
    asked.terminate(Duration::ZERO);
    bounded(asked.wait()).await.unwrap();
    let lost = until_told(&harness, Command::new("cat")).await;
    harness.shutdown().await;
    bounded(lost.wait()).await.unwrap_err();
    executor.shutdown().await;
    let told = told(&collector);
    assert_eq!(told.values().sum::<u64>(), 8, "{told:?}");
    assert_eq!(told.get(&("parallel", "success")), Some(&2), "{told:?}");
    assert_eq!(told.get(&("parallel", "terminated")), Some(&1), "{told:?}");
    assert_eq!(
        told.get(&("parallel", "not_started")),
        Some(&1),
        "refused here: {told:?}"
    );
    assert_eq!(told.get(&("parallel", "error")), Some(&4), "{told:?}");
    bounded(collector.flush()).await;
    assert_eq!(kept.named(semconv::span::TOOL_DISPATCH).len(), 8);
    assert_eq!(kept.named(semconv::span::HANDLER).len(), 7);
    let families = gather(&collector);
    let counted = |family: &str| families.0.get(family).map_or(0, |(_, samples)| samples.len());
    assert_eq!(counted("dwell.dispatches"), 4);
    assert_eq!(counted("dwell.dispatch.duration"), 4);
}

#[tokio::test]
async fn a_panic_in_a_session_is_told_of_its_calls() {
    let (executor, harness, _) = connect().await;
    let run = until_told(&harness, Command::new("cat")).await;
    let panics = FramerControl::Upper(Box::new(|_| panic!("injected")));
    assert!(harness.connected.framer.control(panics).is_ok());
    bounded(run.wait()).await.unwrap_err();
    assert_eq!(
        told(&harness.collector),
        BTreeMap::from([(("parallel", "error"), 1)])
    );
    executor.shutdown().await;
}
