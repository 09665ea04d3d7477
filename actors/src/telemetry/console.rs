//! Spans as lines on standard error: `OTEL_TRACES_EXPORTER=console`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use dwell_messages::{Role, Span, SpanId, SpanKind, Value};

use super::collector::{ClockOffset, SinkError, SpanSink};
use super::export_queue::{ExportQueue, Place};
use crate::trace_file::role_name;

/// Longest a flush waits for whoever reads standard error.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Writes this process's own spans, one a line.
#[derive(Debug)]
pub struct ConsoleSink {
    queue: ExportQueue,
}

impl ConsoleSink {
    /// Begins to write.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(role: Role) -> Result<Self, SinkError> {
        let queue = ExportQueue::start("dwell-console", "standard error", FLUSH_MAX, move || {
            Ok(Stderr(role))
        })?;
        Ok(Self { queue })
    }
}

impl SpanSink for ConsoleSink {
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

struct Stderr(Role);

impl Place for Stderr {
    fn write(&mut self, spans: Vec<Span>) -> Result<(), String> {
        let mut text = String::new();
        for span in &spans {
            text.push_str(&line(self.0, span));
            text.push('\n');
        }
        let mut stderr = std::io::stderr().lock();
        stderr
            .write_all(text.as_bytes())
            .map_err(|error| error.to_string())
    }
}

/// One span. Whatever text it has is quoted and escaped, so that a line is a line and a terminal sees no commands.
pub fn line(role: Role, span: &Span) -> String {
    let kind = match span.kind {
        SpanKind::Internal => "internal",
        SpanKind::Client => "client",
        SpanKind::Server => "server",
    };
    let mut line = format!(
        "span {} {kind} {:?} trace={} span={} parent={} start_ns={} duration_ns={}",
        role_name(role),
        span.name,
        span.trace(),
        span.id(),
        SpanId(span.parent),
        span.start_unix_ns,
        span.duration_ns(),
    );
    let error = span
        .error
        .iter()
        .map(|error| ("error", Value::Str(error.clone())));
    let attributes = span
        .attributes
        .iter()
        .map(|(name, value)| (name.as_ref(), value.clone()));
    for (name, value) in error.chain(attributes) {
        // Into a string: this cannot fail.
        let _ = match value {
            Value::Bool(value) => write!(line, " {}={value}", name.escape_debug()),
            Value::I64(value) => write!(line, " {}={value}", name.escape_debug()),
            Value::F64(value) => write!(line, " {}={value}", name.escape_debug()),
            Value::Str(value) => write!(line, " {}={value:?}", name.escape_debug()),
        };
    }
    line
}
