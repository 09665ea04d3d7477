//! Two roles in one process, and a place that keeps every span.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::harness::{Command, Finished, Harness, HarnessBuilder, Target};
use dwell_actors::telemetry::{ClockOffset, SinkError, SpanSink};
use dwell_messages::{Role, Span, SpanId, SpanKind, TraceContext, TraceFlags, TraceId};
use dwell_relay::{OsRandomness, StaticKeypair};

/// The longest anything here may take.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

pub(crate) async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {BOUND:?}"),
    }
}

/// Keeps every span with the role that made it.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<(Role, Span)>>>);

impl Kept {
    pub(crate) fn all(&self) -> Vec<(Role, Span)> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn named(&self, role: Role, name: &str) -> Vec<Span> {
        let all = self.all().into_iter();
        all.filter(|(by, span)| *by == role && span.name == name)
            .map(|(_, span)| span)
            .collect()
    }
}

impl SpanSink for Kept {
    fn export(&mut self, role: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        let mut kept = self.0.lock().unwrap();
        kept.extend(spans.iter().map(|span| (role, span.clone())));
        Ok(())
    }
}

/// An executor that listens, and a harness on it.
pub(crate) struct Ends {
    pub(crate) executor: ExecutorHandle,
    pub(crate) harness: Harness,
}

impl Ends {
    pub(crate) async fn with(
        harness: impl FnOnce(HarnessBuilder) -> HarnessBuilder,
        sink: impl SpanSink + 'static,
    ) -> Self {
        let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        let executor = Executor::builder()
            .listen("127.0.0.1:0")
            .authorize(client.public())
            .sink(sink);
        let executor = bounded("serving", executor.serve()).await.unwrap();
        let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
        let builder = harness(Harness::builder().identity(client));
        let harness = bounded("connecting", builder.connect(target)).await.unwrap();
        Self { executor, harness }
    }

    pub(crate) async fn run(&self, command: Command) -> Finished {
        bounded("a run", self.harness.exec(command).wait()).await.unwrap()
    }

    pub(crate) async fn end(self) {
        bounded("the harness's end", self.harness.shutdown()).await;
        bounded("the executor's end", self.executor.shutdown()).await;
    }
}

pub(crate) fn shell(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

pub(crate) fn context(n: u8, flags: TraceFlags) -> TraceContext {
    TraceContext::new(TraceId([n; 16]), SpanId([n; 8]), flags)
}

/// A finished span of no particular kind.
pub(crate) fn span(n: u64) -> Span {
    let mut trace_id = [7; 16];
    trace_id[8..].copy_from_slice(&n.to_be_bytes());
    Span {
        trace_id,
        span_id: n.wrapping_add(1).max(1).to_be_bytes(),
        parent: [9; 8],
        name: "mailbox Probe".into(),
        kind: SpanKind::Internal,
        start_unix_ns: 1_000,
        end_unix_ns: 2_000,
        attributes: vec![],
        link: None,
        error: None,
    }
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
