//! Export over OTLP http/protobuf, on a thread of its own, so that a back end that hangs costs nothing but spans.

use std::time::Duration;

use dwell_messages::{Role, Span};
use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::trace::SpanExporter as _;

use super::collector::{ClockOffset, SinkError, SpanSink};
use super::export_queue::{ExportQueue, Place};
use super::sdk;

/// Longest a flush waits for the back end. The last export of metrics has two seconds of its own, behind it: an end takes
/// five at most.
pub const FLUSH_MAX: Duration = Duration::from_secs(3);

/// Where spans go when an exporter is asked for by name and no endpoint is given.
const ENDPOINT_DEFAULT: &str = "http://localhost:4318/v1/traces";

/// Exports this process's own spans; those of other machines are exported by the machines that made them.
#[derive(Debug)]
pub struct OtlpSink {
    queue: ExportQueue,
}

impl OtlpSink {
    /// A sink for an endpoint: the whole URL, path included. Headers, timeout and compression are what the standard
    /// `OTEL_EXPORTER_OTLP_*` variables of this process say.
    ///
    /// # Errors
    /// An endpoint that is none, or an exporter that cannot be built, with the reason.
    pub fn to(role: Role, endpoint: impl Into<String>) -> Result<Self, SinkError> {
        let endpoint = endpoint.into();
        if endpoint.starts_with("https:") {
            return Err(SinkError(format!(
                "TLS to an OTLP endpoint is not built in: send to a collector nearby over http, not to {endpoint}"
            )));
        }
        let queue = ExportQueue::start("dwell-otlp", "the OTLP endpoint", FLUSH_MAX, move || {
            // The exporter's blocking client must be made and used outside every async runtime.
            Ok(Endpoint {
                exporter: exporter(role, &endpoint)?,
                scope: sdk::scope(),
            })
        })?;
        Ok(Self { queue })
    }

    /// The endpoint that the standard variables name; `asked` if `OTEL_TRACES_EXPORTER` has `otlp` in it.
    pub(super) fn endpoint(
        asked: bool,
        set: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<String>, SinkError> {
        let endpoint = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| {
            set("OTEL_EXPORTER_OTLP_ENDPOINT").map(|base| format!("{}/v1/traces", base.trim_end_matches('/')))
        });
        let endpoint = match endpoint {
            Some(endpoint) => endpoint,
            None if asked => ENDPOINT_DEFAULT.to_owned(),
            None => return Ok(None),
        };
        let protocol =
            set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL"));
        match protocol.filter(|protocol| protocol != "http/protobuf") {
            Some(protocol) => Err(SinkError(format!(
                "OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not built in: set it to http/protobuf"
            ))),
            None => Ok(Some(endpoint)),
        }
    }
}

impl SpanSink for OtlpSink {
    fn export(&mut self, _: Role, clock: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        if clock.is_none() {
            self.queue.put(spans.to_vec());
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.queue.flush()
    }

    fn lost(&self) -> u64 {
        self.queue.lost()
    }
}

struct Endpoint {
    exporter: SpanExporter,
    scope: InstrumentationScope,
}

impl Place for Endpoint {
    fn write(&mut self, spans: Vec<Span>) -> Result<(), String> {
        let batch = spans
            .iter()
            .map(|span| sdk::span_data(span, &self.scope))
            .collect();
        futures_executor::block_on(self.exporter.export(batch)).map_err(|error| error.to_string())
    }
}

fn exporter(role: Role, endpoint: &str) -> Result<SpanExporter, SinkError> {
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| SinkError(format!("the OTLP exporter could not be built: {error}")))?;
    exporter.set_resource(&sdk::resource(role, |name| std::env::var(name).ok()));
    Ok(exporter)
}
