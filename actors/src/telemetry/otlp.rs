//! Export over OTLP http/protobuf, on a thread of its own, so that a back end that hangs costs nothing but spans.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell_messages::{Role, Span};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};

use super::collector::{ClockOffset, SinkError, SpanSink};
use super::sdk;

/// Batches that may wait for a slow back end; more are dropped and counted.
pub const BATCHES_MAX: usize = 256;
/// Longest a flush waits for the back end.
const FLUSH_MAX: Duration = Duration::from_secs(5);

enum Job {
    Batch(Vec<SpanData>),
    Flush(SyncSender<()>),
}

/// Exports this process's own spans; those of other machines are exported by the machines that made them.
#[derive(Debug)]
pub struct OtlpSink {
    jobs: Option<SyncSender<Job>>,
    dropped: Arc<AtomicU64>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    scope: opentelemetry::InstrumentationScope,
}

impl OtlpSink {
    /// A sink as the standard `OTEL_*` variables say: `None` when no endpoint is configured, the SDK is disabled, or
    /// `OTEL_TRACES_EXPORTER` names another exporter.
    ///
    /// # Errors
    /// A configured exporter that cannot be built, with the reason.
    pub fn from_environment(
        role: Role,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SinkError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let exporter =
            set("OTEL_TRACES_EXPORTER").is_none_or(|names| names.split(',').any(|n| n.trim() == "otlp"));
        let endpoint = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| {
            set("OTEL_EXPORTER_OTLP_ENDPOINT").map(|base| format!("{}/v1/traces", base.trim_end_matches('/')))
        });
        let Some(endpoint) = endpoint.filter(|_| exporter && !disabled) else {
            return Ok(None);
        };
        let protocol =
            set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if let Some(protocol) = protocol.filter(|protocol| protocol != "http/protobuf") {
            return Err(SinkError(format!(
                "OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not built in: set it to http/protobuf"
            )));
        }
        Self::start(role, endpoint).map(Some)
    }

    fn start(role: Role, endpoint: String) -> Result<Self, SinkError> {
        let (jobs, queue) = sync_channel(BATCHES_MAX);
        let (ready, built) = sync_channel(1);
        // The exporter's blocking client must be made and used outside every async runtime.
        let thread = std::thread::Builder::new()
            .name("dwell-otlp".into())
            .spawn(move || match exporter(role, &endpoint) {
                Ok(exporter) => {
                    ready.send(Ok(())).ok();
                    serve(&exporter, &queue);
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(|error| SinkError(format!("the export thread could not be started: {error}")))?;
        built
            .recv()
            .map_err(|_| SinkError("the export thread ended while it was set up".into()))??;
        Ok(Self {
            jobs: Some(jobs),
            dropped: Arc::default(),
            thread: Mutex::new(Some(thread)),
            scope: sdk::scope(),
        })
    }

    /// Spans dropped because the back end was too slow.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

impl SpanSink for OtlpSink {
    fn export(&mut self, _: Role, clock: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        let (None, Some(jobs)) = (clock, &self.jobs) else {
            return Ok(());
        };
        let batch: Vec<_> = spans
            .iter()
            .map(|span| sdk::span_data(span, &self.scope))
            .collect();
        let count = batch.len() as u64;
        jobs.try_send(Job::Batch(batch)).map_err(|_| {
            self.dropped.fetch_add(count, Ordering::Relaxed);
            SinkError(format!(
                "{BATCHES_MAX} batches wait for the OTLP endpoint already"
            ))
        })
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let Some(jobs) = &self.jobs else { return Ok(()) };
        let (done, wait) = sync_channel(1);
        let late = || {
            SinkError(format!(
                "the OTLP endpoint did not take all spans within {FLUSH_MAX:?}"
            ))
        };
        jobs.try_send(Job::Flush(done)).map_err(|_| late())?;
        wait.recv_timeout(FLUSH_MAX).map_err(|_| late())
    }
}

impl Drop for OtlpSink {
    fn drop(&mut self) {
        // Closing the queue ends the thread after what it is sending; a back end that hangs is left to its timeout.
        self.jobs = None;
        self.thread
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take();
    }
}

fn exporter(role: Role, endpoint: &str) -> Result<opentelemetry_otlp::SpanExporter, SinkError> {
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| SinkError(format!("the OTLP exporter could not be built: {error}")))?;
    exporter.set_resource(&resource(role));
    Ok(exporter)
}

/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win over the role's own name.
fn resource(role: Role) -> Resource {
    let name = match role {
        Role::Harness => "dwell-harness",
        Role::Executor => "dwell-executor",
        Role::Relay => "dwell-relay",
    };
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some()
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
    let builder = Resource::builder();
    if named {
        builder.build()
    } else {
        builder.with_service_name(name).build()
    }
}

fn serve(exporter: &opentelemetry_otlp::SpanExporter, queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        match job {
            Job::Batch(batch) => {
                if let Err(error) = futures_executor::block_on(exporter.export(batch)) {
                    tracing::warn!(%error, "spans could not be exported over OTLP");
                }
            }
            Job::Flush(done) => drop(done.send(())),
        }
    }
}
