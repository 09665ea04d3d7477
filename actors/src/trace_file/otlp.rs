//! Spans as OTLP/JSON: hexadecimal ids, 64-bit numbers as decimal text, enumerations as numbers.

mod read;
mod write;

pub(super) use read::parse_line;
pub(crate) use write::document;
pub(super) use write::push_lines;

use crate::telemetry::semconv::{ERROR_TYPE, ROLE, SCOPE as SCOPE_NAME, SERVICE_NAME};

const KIND_INTERNAL: u8 = 1;
const KIND_SERVER: u8 = 2;
const KIND_CLIENT: u8 = 3;
const STATUS_ERROR: u8 = 2;
