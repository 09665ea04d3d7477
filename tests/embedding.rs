//! An embedding application's spans are the parents of dwell's, and its telemetry stays its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell::messages::{Role, Span, TraceFlags};
use dwell::telemetry::{ClockOffset, SinkError, SpanSink};
use dwell::{Command, Executor, ExecutorHandle, Harness, Target, TraceContext};
use opentelemetry::trace::{TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt as _;

const BOUND: Duration = Duration::from_secs(30);

/// Keeps every span.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(Role, Span)>>>);

impl SpanSink for Kept {
    fn export(&mut self, role: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        let mut kept = self.0.lock().unwrap();
        kept.extend(spans.iter().map(|span| (role, span.clone())));
        Ok(())
    }
}

struct Ends {
    executor: ExecutorHandle,
    harness: Harness,
    kept: Kept,
}

impl Ends {
    async fn new() -> Self {
        let client = dwell::relay::StaticKeypair::generate(&mut dwell::relay::OsRandomness::new()).unwrap();
        let executor = Executor::builder()
            .listen("127.0.0.1:0")
            .authorize(client.public())
            .serve()
            .await
            .unwrap();
        let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
        let kept = Kept::default();
        let builder = Harness::builder().identity(client).sink(kept.clone());
        let harness = builder.connect(target).await.unwrap();
        Self {
            executor,
            harness,
            kept,
        }
    }

    /// Ends both, and gives the spans of both.
    async fn end(self) -> Vec<(Role, Span)> {
        tokio::time::timeout(BOUND, self.harness.shutdown())
            .await
            .unwrap();
        tokio::time::timeout(BOUND, self.executor.shutdown())
            .await
            .unwrap();
        self.kept.0.lock().unwrap().clone()
    }
}

/// The application's SDK, which keeps what it exports, and a subscriber with its layer for this thread only.
fn application(sampler: Sampler) -> (SdkTracerProvider, InMemorySpanExporter, impl tracing::Subscriber) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler)
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let subscriber = tracing_subscriber::registry().with(layer);
    (provider, exporter, subscriber)
}

fn call(spans: &[(Role, Span)]) -> &Span {
    let mut calls = spans.iter().filter(|(_, span)| span.name == "call");
    let (role, call) = calls.next().expect("the call has a span");
    assert_eq!((*role, calls.next()), (Role::Harness, None));
    call
}

#[tokio::test]
async fn the_applications_span_is_the_parent_of_dwells_on_every_machine() {
    let ends = Ends::new().await;
    let (provider, exporter, subscriber) = application(Sampler::AlwaysOn);
    let finished = {
        let _guard = tracing::subscriber::set_default(subscriber);
        let run = tracing::info_span!("handle request")
            .in_scope(|| ends.harness.exec(Command::new("printenv").arg("TRACEPARENT")));
        tokio::time::timeout(BOUND, run.wait()).await.unwrap().unwrap()
    };
    let spans = ends.end().await;
    provider.force_flush().unwrap();
    let own = exporter.get_finished_spans().unwrap();
    assert_eq!(own.len(), 1, "dwell adds none to the application's: {own:?}");
    let (trace, id) = (own[0].span_context.trace_id(), own[0].span_context.span_id());
    assert_eq!(own[0].name, "handle request");

    assert_eq!(finished.trace_id.0, trace.to_bytes());
    let call = call(&spans);
    assert_eq!(call.parent, id.to_bytes());
    assert!(
        call.attribute("dwell.parent.remote").is_none(),
        "it is of this process"
    );
    for role in [Role::Harness, Role::Executor] {
        let mut of = spans.iter().filter(|(by, _)| *by == role).peekable();
        assert!(of.peek().is_some(), "{role:?} made spans");
        assert!(of.all(|(_, span)| span.trace_id == trace.to_bytes()), "{role:?}");
    }
    let told = finished.stdout.to_text();
    assert!(
        told.starts_with(&format!("00-{trace}-")),
        "and the command is below it: {told}"
    );
}

#[tokio::test]
async fn a_parent_by_opentelemetrys_own_context_is_seen_too() {
    let ends = Ends::new().await;
    let (provider, _exporter, _) = application(Sampler::AlwaysOn);
    let span = provider.tracer("app").start("without tracing");
    let context = opentelemetry::Context::new().with_span(span);
    let expected = context.span().span_context().clone();
    let run = {
        let _guard = context.attach();
        ends.harness.exec(Command::new("true"))
    };
    tokio::time::timeout(BOUND, run.wait()).await.unwrap().unwrap();
    let spans = ends.end().await;
    let call = call(&spans);
    assert_eq!(call.trace_id, expected.trace_id().to_bytes());
    assert_eq!(call.parent, expected.span_id().to_bytes());
}

#[tokio::test]
async fn a_parent_that_is_named_goes_before_the_current_one() {
    let ends = Ends::new().await;
    let (_provider, _exporter, subscriber) = application(Sampler::AlwaysOn);
    let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let named = TraceContext::from_traceparent(text, None).unwrap();
    let run = {
        let _guard = tracing::subscriber::set_default(subscriber);
        tracing::info_span!("current")
            .in_scope(|| ends.harness.exec(Command::new("true").parent(named.clone())))
    };
    tokio::time::timeout(BOUND, run.wait()).await.unwrap().unwrap();
    let spans = ends.end().await;
    assert_eq!(call(&spans).parent, named.span_id.0);
}

#[tokio::test]
async fn an_application_that_does_not_sample_gets_no_spans_of_dwells() {
    let ends = Ends::new().await;
    let (provider, exporter, subscriber) = application(Sampler::AlwaysOff);
    let run = {
        let _guard = tracing::subscriber::set_default(subscriber);
        tracing::info_span!("unsampled").in_scope(|| ends.harness.exec(Command::new("true")))
    };
    assert_eq!(run.context().flags, TraceFlags::NONE);
    tokio::time::timeout(BOUND, run.wait()).await.unwrap().unwrap();
    assert_eq!(ends.end().await, vec![]);
    provider.force_flush().unwrap();
    assert!(exporter.get_finished_spans().unwrap().is_empty());
}

/// What is logged.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl Write for Logs {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_subscriber_without_opentelemetry_is_said_once_and_the_call_is_a_root() {
    let ends = Ends::new().await;
    let logs = Logs::default();
    let writer = logs.clone();
    let foreign = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let runs: Vec<_> = {
        let _guard = tracing::subscriber::set_default(foreign);
        let span = tracing::info_span!("of somebody else");
        let run = || ends.harness.exec(Command::new("true"));
        vec![span.in_scope(run), span.in_scope(run), run()]
    };
    for run in runs {
        tokio::time::timeout(BOUND, run.wait()).await.unwrap().unwrap();
    }
    let text = String::from_utf8(logs.0.lock().unwrap().clone()).unwrap();
    assert_eq!(
        text.matches("no OpenTelemetry context that dwell can see")
            .count(),
        1,
        "{text}"
    );
    assert!(text.contains("Command::parent"), "it says what to do: {text}");
    let spans = ends.end().await;
    let calls: Vec<_> = spans.iter().filter(|(_, span)| span.name == "call").collect();
    assert_eq!(calls.len(), 3);
    assert!(
        calls.iter().all(|(_, call)| call.parent == [0; 8]),
        "each begins a trace of its own"
    );
}

/// The application may set up its telemetry after dwell, and find the seats free.
#[tokio::test]
async fn the_seats_of_the_global_subscriber_and_provider_stay_free() {
    let ends = Ends::new().await;
    let run = ends.harness.exec(Command::new("true"));
    tokio::time::timeout(BOUND, run.wait()).await.unwrap().unwrap();
    let free = tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default());
    assert!(free.is_ok(), "no global subscriber");
    let span = opentelemetry::global::tracer("app").start("a span");
    let context = opentelemetry::Context::new().with_span(span);
    assert!(!context.span().span_context().is_valid(), "no global provider");
    ends.end().await;
}
