//! Spans as OTLP/JSON: hexadecimal ids, 64-bit numbers as decimal text, enumerations as numbers.

mod read;
mod write;

pub(super) use read::parse_line;
pub(super) use write::push_lines;

/// The instrumentation scope of every span of ours.
const SCOPE_NAME: &str = "dwell";
const SERVICE_NAME: &str = "service.name";
const ROLE: &str = "dwell.role";
const ERROR_TYPE: &str = "error.type";

const KIND_INTERNAL: u8 = 1;
const KIND_SERVER: u8 = 2;
const KIND_CLIENT: u8 = 3;
const STATUS_ERROR: u8 = 2;
