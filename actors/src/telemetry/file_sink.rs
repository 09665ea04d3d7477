//! The local trace file as a sink.

use std::path::Path;

use dwell_messages::{Role, Span};

use super::collector::{ClockOffset, SinkError, SpanSink};
use crate::trace_file::{Resource, TraceFile};

/// Writes spans to this role's trace file, those of other machines included.
#[derive(Debug)]
pub struct FileSink {
    file: TraceFile,
}

impl FileSink {
    /// Opens, or makes, the role's trace file in this directory.
    ///
    /// # Errors
    /// When that is not possible; the message says what to change.
    pub fn open(dir: &Path, role: Role) -> Result<Self, SinkError> {
        TraceFile::open(dir, role)
            .map(|file| Self { file })
            .map_err(|error| SinkError(error.to_string()))
    }
}

impl SpanSink for FileSink {
    fn export(&mut self, role: Role, clock: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        let resource = Resource::new(role, service(role));
        let resource = match clock.filter(|clock| clock.error_us != u64::MAX) {
            Some(clock) => resource.with_clock(crate::trace_file::ClockOffset {
                offset_us: clock.offset_us,
                error_us: i64::try_from(clock.error_us).unwrap_or(i64::MAX),
            }),
            None => resource,
        };
        self.file
            .append(&resource, spans)
            .map_err(|error| SinkError(error.to_string()))
    }
}

/// A role's `service.name` unless the environment names another.
pub fn service(role: Role) -> &'static str {
    match role {
        Role::Harness => "dwell-harness",
        Role::Executor => "dwell-executor",
        Role::Relay => "dwell-relay",
    }
}
