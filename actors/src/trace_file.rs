//! The local trace file: what `dwell trace` reads, and any OpenTelemetry collector too.
//!
//! One JSON object a line, each in the shape of OTLP's `TracesData`. A role appends to `traces-<role>.jsonl`; at its
//! bound the file becomes `traces-<role>.jsonl.1` and a new one begins. Several processes may share a file.

mod calls;
mod error;
mod names;
mod otlp;
mod prefix;
mod reader;
mod resource;
mod trace;
mod writer;

pub use calls::{CALLS_OF_TRACE_MAX, CALLS_TRACES_MAX, CallStatus, CallSummary, Calls, list_calls};
pub use error::TraceFileError;
pub(crate) use names::role_name;
pub use names::{current_path, rotated_path};
pub(crate) use otlp::document;
pub use prefix::{Named, TracePrefix};
pub use reader::{READ_MAX_BYTES, TRACE_LINE_MAX_BYTES, TraceLine, TraceLines, read_traces};
pub use resource::{CLOCK_ERROR_US, CLOCK_OFFSET_US, ClockOffset, Resource};
pub use trace::{ROOT_SPAN_NAME, TRACE_SPANS_MAX, Trace, find_trace, find_traces, last_trace};
pub use writer::{TRACE_FILE_MAX_BYTES, TraceFile};
