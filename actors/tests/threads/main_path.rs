//! The way of a command does not wait for what is kept of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell_actors::executor::Executor;
use dwell_actors::harness::{Command, Harness, Target};
use dwell_actors::telemetry::{ClockOffset, SinkError, SpanSink};
use dwell_actors::threads::{Append, NewThread};
use dwell_messages::{Role, Span};
use dwell_relay::{OsRandomness, StaticKeypair};
use tokio::time::Instant;

use crate::gated::{bounded, gated, turn};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Span>>>);

impl SpanSink for Kept {
    fn export(&mut self, _: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        self.0.lock().unwrap().extend_from_slice(spans);
        Ok(())
    }
}

#[tokio::test]
async fn a_store_that_takes_a_hundred_milliseconds_does_not_move_a_commands_end() {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .serve()
        .await
        .unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let (store, gate) = gated();
    let kept = Kept::default();
    let harness = Harness::builder()
        .identity(client)
        .metadata_store(store)
        .sink(kept.clone())
        .connect(target)
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let threads = harness.threads(dir.path()).unwrap();
    let thread = bounded(threads.create(NewThread::default())).await.unwrap();
    // Nothing gets through until the command has long ended.
    gate.block();
    let mut run = harness.exec(Command::new("cat").stdin_piped());
    let turned = Append::new([turn("cat")]).parent(run.context().clone());
    bounded(thread.append(turned)).await.unwrap();
    gate.begun(1).await;
    bounded(run.close_stdin()).await.unwrap();
    let finished = bounded(run.wait()).await.unwrap();
    assert_eq!(gate.updates(), [], "the command has ended, and its store has not");
    let held = Instant::now() + Duration::from_millis(100);
    bounded(tokio::time::sleep_until(held)).await;
    gate.open();
    bounded(thread.shutdown()).await.unwrap();
    bounded(harness.shutdown()).await;
    executor.shutdown().await;

    let spans = kept.0.lock().unwrap().clone();
    let one = |name: &str| {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        assert!(!found.is_empty(), "no span {name}");
        found[0].clone()
    };
    let (call, delivery) = (one("call"), one("terminal delivery"));
    assert_eq!(call.trace_id, finished.trace_id.0);
    let apply = spans
        .iter()
        .find(|span| span.name == "metadata apply" && span.parent == one("metadata observe").span_id)
        .expect("the thread's update");
    assert_eq!(apply.trace_id, call.trace_id, "in the same picture");
    assert!(
        apply.start_unix_ns < delivery.end_unix_ns && apply.end_unix_ns > call.end_unix_ns,
        "it lay over the delivery and ended after the call"
    );
    assert!(apply.duration_ns() >= 100_000_000);
    let names: Vec<_> = finished.timings.to_string().lines().map(str::to_owned).collect();
    assert!(!names.iter().any(|line| line.contains("metadata")), "{names:?}");
}
