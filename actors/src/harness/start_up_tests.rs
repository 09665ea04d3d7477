use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use dwell_messages::{Role, Span};
use dwell_relay::{OsRandomness, StaticKeypair};

use super::*;
use crate::executor::{Executor, ExecutorHandle};
use crate::harness::{Command, ConnectError, Harness, HarnessBuilder, Target};
use crate::telemetry::{ClockOffset, STAGES_MAX, SinkError, SpanSink, root};

const BOUND: Duration = Duration::from_secs(20);
/// Spans that are made one after the other are put on the wall clock by rates that may differ.
const CLOCK_NS: u64 = 5_000_000;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Span>>>);

impl SpanSink for Kept {
    fn export(&mut self, _: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        self.0.lock().unwrap().extend_from_slice(spans);
        Ok(())
    }
}

impl Kept {
    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap();
        spans.iter().filter(|span| span.name == name).cloned().collect()
    }

    /// The start-up's own span, and its stages in the order in which they ended, which is that of their begins too.
    fn start_up(&self) -> (Span, Vec<Span>) {
        let mut whole = self.named(semconv::span::START_UP);
        assert_eq!(whole.len(), 1, "one a harness: {whole:?}");
        let whole = whole.remove(0);
        let spans = self.0.lock().unwrap();
        let below = |span: &&Span| span.parent == whole.span_id;
        let stages: Vec<_> = spans.iter().filter(below).cloned().collect();
        for pair in stages.windows(2) {
            assert!(
                pair[0].start_unix_ns <= pair[1].start_unix_ns + CLOCK_NS,
                "{pair:?}"
            );
        }
        (whole, stages)
    }
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_ref()).collect()
}

async fn serve(builder: HarnessBuilder) -> (ExecutorHandle, Result<Harness, ConnectError>) {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .serve()
        .await
        .unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let connected = builder.identity(client).sampled(true).connect(target).await;
    (executor, connected)
}

#[tokio::test]
async fn the_stages_of_a_start_up_are_spans_in_a_fixed_order_under_one() {
    let kept = Kept::default();
    let parent = root(true);
    let builder = Harness::builder().sink(kept.clone()).parent(parent.clone());
    let (executor, harness) = serve(builder).await;
    let harness = harness.unwrap();
    // As a load of the workspace does.
    let workspace = harness.start_up().stage(StartUpStage::Workspace);
    let below = workspace.context().unwrap();
    workspace.finish();
    harness.start_up().stage(StartUpStage::Shell).finish();
    harness.exec(Command::new("true")).wait().await.unwrap();
    // Neither a second command nor a stage that comes too late is of it.
    harness.start_up().stage(StartUpStage::Workspace).finish();
    harness.exec(Command::new("true")).wait().await.unwrap();
    harness.shutdown().await;
    executor.shutdown().await;
    let (whole, stages) = kept.start_up();
    assert_eq!(
        (whole.trace_id, whole.parent),
        (parent.trace_id.0, parent.span_id.0)
    );
    assert_eq!(names(&stages), StartUpStage::ALL.map(StartUpStage::name));
    assert_eq!(
        (below.trace_id.0, below.span_id.0),
        (whole.trace_id, stages[2].span_id)
    );
    for stage in &stages {
        assert!(stage.start_unix_ns + CLOCK_NS >= whole.start_unix_ns, "{stage:?}");
        assert!(stage.end_unix_ns <= whole.end_unix_ns + CLOCK_NS, "{stage:?}");
        assert_eq!(stage.error, None);
    }
    let command = kept.named(semconv::span::CALL).remove(0);
    let first = stages[4].duration_ns();
    assert!(
        first.abs_diff(command.duration_ns()) <= CLOCK_NS,
        "the first command is the call"
    );
}

#[tokio::test]
async fn a_harness_without_a_workspace_has_the_other_stages() {
    let kept = Kept::default();
    let (executor, harness) = serve(Harness::builder().sink(kept.clone()).parent(root(true))).await;
    let harness = harness.unwrap();
    harness.exec(Command::new("true")).wait().await.unwrap();
    harness.shutdown().await;
    executor.shutdown().await;
    let (whole, stages) = kept.start_up();
    assert_eq!(whole.error, None);
    assert_eq!(
        names(&stages),
        ["connect", "environment", "shell", "first command"]
    );
    assert_eq!(stages[2].duration_ns(), 0, "only the instant");
}

#[tokio::test]
async fn a_start_up_without_a_command_ends_with_its_harness() {
    let kept = Kept::default();
    let (executor, harness) = serve(Harness::builder().sink(kept.clone()).parent(root(true))).await;
    let harness = harness.unwrap();
    let collector = harness.start_up().0.collector.clone();
    harness.shutdown().await;
    collector.flush().await;
    executor.shutdown().await;
    let (whole, stages) = kept.start_up();
    assert_eq!(names(&stages), ["connect", "environment"]);
    assert!(whole.end_unix_ns.abs_diff(stages[1].end_unix_ns) <= CLOCK_NS);
}

#[tokio::test]
async fn a_start_up_that_fails_says_at_which_stage() {
    let kept = Kept::default();
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let target = Target::direct("127.0.0.1:1".to_owned(), client.public());
    let builder = Harness::builder().parent(root(true)).sink(kept.clone());
    assert!(builder.connect(target).await.is_err());
    let told = || !kept.named(semconv::span::START_UP).is_empty();
    tokio::time::timeout(BOUND, async {
        while !told() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a failed one is told too");
    let (whole, stages) = kept.start_up();
    assert_eq!(names(&stages), ["connect"]);
    assert_eq!(stages[0].error.as_deref(), Some("unreachable"));
    assert_eq!(whole.error.as_deref(), Some("unreachable"));
}

#[tokio::test]
async fn a_start_up_that_is_not_sampled_or_that_nobody_asked_for_leaves_no_span() {
    for parent in [Some(root(false)), None] {
        let kept = Kept::default();
        let mut builder = Harness::builder().sink(kept.clone());
        if let Some(parent) = parent {
            builder = builder.parent(parent);
        }
        let (executor, harness) = serve(builder).await;
        let harness = harness.unwrap();
        harness.exec(Command::new("true")).wait().await.unwrap();
        harness.shutdown().await;
        executor.shutdown().await;
        assert!(kept.named(semconv::span::START_UP).is_empty());
        assert!(kept.named(semconv::span::CONNECT).is_empty());
        assert!(!kept.named(semconv::span::CALL).is_empty(), "the sink works");
    }
}

/// A sink that takes nothing before it is let.
struct Stuck(Receiver<()>);

impl SpanSink for Stuck {
    fn export(&mut self, _: Role, _: Option<ClockOffset>, _: &[Span]) -> Result<(), SinkError> {
        self.0
            .recv_timeout(BOUND)
            .map_err(|error| SinkError(error.to_string()))
    }
}

#[tokio::test]
async fn nothing_waits_for_the_measurement_of_a_start_up() {
    let (let_go, wait) = sync_channel(64);
    let (executor, harness) = serve(Harness::builder().sink(Stuck(wait)).parent(root(true))).await;
    let harness = harness.unwrap();
    // Far more than the collector has room for.
    let collector = &harness.start_up().0.collector;
    for _ in 0..2 * STAGES_MAX {
        collector.stage(Stage::new(
            &root(true),
            semconv::span::CALL,
            Tick::now(),
            Tick::now(),
        ));
    }
    assert!(collector.stats().stages_dropped > 0);
    harness.start_up().stage(StartUpStage::Workspace).finish();
    harness.exec(Command::new("true")).wait().await.unwrap();
    drop(let_go);
    harness.shutdown().await;
    executor.shutdown().await;
}

#[test]
fn no_stage_begins_before_an_earlier_one_and_none_twice() {
    let mut progress = Progress::default();
    assert!(progress.begin(StartUpStage::Connect));
    assert!(!progress.begin(StartUpStage::Connect));
    assert!(progress.begin(StartUpStage::Shell));
    assert!(!progress.begin(StartUpStage::Workspace));
    assert!(progress.begin(StartUpStage::FirstCommand));
    assert!(StartUpStage::ALL.is_sorted());
}
