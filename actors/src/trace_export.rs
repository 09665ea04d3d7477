//! A trace for other tools: OTLP/JSON, Jaeger's upload format, Chrome's trace events (Perfetto), and one HTML file.
//!
//! Pure: a [`Trace`] in, text out. OTLP and Jaeger get every machine's own times, with the clock's estimated offset beside
//! them; those tools align clocks by their own rules. Perfetto and the HTML file have one time line: there the spans of
//! other machines are moved by the estimate, as in the terminal.

mod html;
mod jaeger;
mod lanes;
mod otlp;
mod perfetto;

use crate::trace_file::Trace;

/// What a trace can be written as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One OTLP `TracesData` object in its JSON mapping: any OpenTelemetry collector takes it.
    OtlpJson,
    /// What Jaeger's user interface uploads and downloads.
    JaegerJson,
    /// Chrome's trace events: Perfetto and `chrome://tracing` open it.
    Perfetto,
    /// A page of its own, for any browser, that loads nothing from anywhere.
    Html,
}

/// Writes a trace. Without spans it is a document of the format with nothing in it.
pub fn export(trace: &Trace, format: Format) -> String {
    match format {
        Format::OtlpJson => otlp::write(trace),
        Format::JaegerJson => jaeger::write(trace),
        Format::Perfetto => perfetto::write(trace),
        Format::Html => html::write(trace),
    }
}

const ROLES: [dwell_messages::Role; 3] = [
    dwell_messages::Role::Harness,
    dwell_messages::Role::Executor,
    dwell_messages::Role::Relay,
];
