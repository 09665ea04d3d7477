//! An application with traces of its own: dwell's spans hang below the span that makes the call, on every machine.
//!
//! With `dwell = { default-features = false, features = ["tracing-parent"] }`, tracing-opentelemetry 0.33 and
//! opentelemetry 0.32. With any other version: `Command::parent(TraceContext::from_traceparent(..))`. dwell reads the
//! application's current span and nothing more: its subscriber and its provider stay the application's.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::sync::{Arc, Mutex};

use dwell::messages::{Role, Span};
use dwell::telemetry::{ClockOffset, SinkError, SpanSink};
use dwell::{Command, Executor, Harness, Target};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// dwell's spans, those of the executor included, for whatever the application wants with them.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(Role, Span)>>>);

impl SpanSink for Spans {
    fn export(&mut self, role: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        let mut all = self.0.lock().map_err(|_| SinkError("poisoned".into()))?;
        all.extend(spans.iter().map(|span| (role, span.clone())));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The application's own telemetry. Its exporter would send somewhere; this one keeps.
    let exported = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exported.clone())
        .build();
    tracing_subscriber::registry()
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("app")))
        .init();

    let client = dwell::relay::StaticKeypair::generate(&mut dwell::relay::OsRandomness::new())?;
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .serve()
        .await?;
    let address = executor.local_addr().ok_or("the executor listens")?;
    let spans = Spans::default();
    let harness = Harness::builder()
        .identity(client)
        .sink(spans.clone())
        .connect(Target::direct(address, executor.public_key()))
        .await?;

    // Nothing is said about parents: the call is made within a span.
    let answer = async { harness.exec(Command::new("uname").arg("-s")).wait().await };
    let finished = answer.instrument(tracing::info_span!("handle request")).await?;
    print!("{}", finished.stdout.to_text());

    harness.shutdown().await;
    executor.shutdown().await;
    provider.force_flush()?;
    let own = exported.get_finished_spans()?;
    let own = own.first().ok_or("the application's span was exported")?;
    let trace = own.span_context.trace_id().to_string();
    println!("the application's span {:?}, trace {trace}", own.name);
    let spans = spans.0.lock().map_err(|_| "poisoned")?;
    for role in [Role::Harness, Role::Executor] {
        let of = spans.iter().filter(|(by, _)| *by == role);
        let (below, all) = of.fold((0, 0), |(below, all), (_, span)| {
            (below + u32::from(span.trace().to_string() == trace), all + 1)
        });
        println!("{role:?}: {below} of {all} spans are in it");
        if below == 0 || below != all {
            return Err("every span of the call is the application's".into());
        }
    }
    let call = spans
        .iter()
        .map(|(_, span)| span)
        .find(|span| span.name == "call");
    let call = call.ok_or("the call has a span")?;
    if call.parent != own.span_context.span_id().to_bytes() {
        return Err("the call hangs below the application's span".into());
    }
    Ok(())
}
