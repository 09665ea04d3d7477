//! The local trace file: what `dwell trace` reads, and any OpenTelemetry collector too.
//!
//! One JSON object a line, each in the shape of OTLP's `TracesData`. A role appends to `traces-<role>.jsonl`; at its
//! bound the file becomes `traces-<role>.jsonl.1` and a new one begins. Several processes may share a file.

mod error;
mod names;
mod otlp;
mod reader;
mod resource;
mod trace;
mod writer;

pub use error::TraceFileError;
pub(crate) use names::role_name;
pub use names::{current_path, rotated_path};
pub use reader::{READ_MAX_BYTES, TRACE_LINE_MAX_BYTES, TraceLine, TraceLines, read_traces};
pub use resource::{CLOCK_ERROR_US, CLOCK_OFFSET_US, ClockOffset, Resource};
pub use trace::{ROOT_SPAN_NAME, TRACE_SPANS_MAX, Trace, find_trace, last_trace};
pub use writer::{TRACE_FILE_MAX_BYTES, TraceFile};
