//! Who made a batch of spans, and how far its clock is off.

use dwell_messages::{Role, Value};

pub use crate::telemetry::semconv::{CLOCK_ERROR_US, CLOCK_OFFSET_US};

/// Who made a batch of spans.
#[derive(Clone, PartialEq, Debug)]
pub struct Resource {
    /// Its role; written as `dwell.role`.
    pub role: Role,
    /// `service.name`.
    pub service: String,
    /// Everything else, the clock's offset included.
    pub attributes: Vec<(String, Value)>,
}

/// A clock's estimated offset from the harness's. For drawing only, never for a sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockOffset {
    /// Microseconds by which this clock is ahead of the harness's.
    pub offset_us: i64,
    /// The most by which the estimate can be wrong, in microseconds; never negative.
    pub error_us: i64,
}

impl Resource {
    /// A resource without further attributes.
    pub fn new(role: Role, service: impl Into<String>) -> Self {
        Self {
            role,
            service: service.into(),
            attributes: Vec::new(),
        }
    }

    /// With one attribute more.
    #[must_use = "the attribute is on the returned resource"]
    pub fn with(mut self, name: impl Into<String>, value: Value) -> Self {
        self.attributes.push((name.into(), value));
        self
    }

    /// With an estimate of its clock's offset.
    #[must_use = "the offset is on the returned resource"]
    pub fn with_clock(self, clock: ClockOffset) -> Self {
        self.with(CLOCK_OFFSET_US, Value::I64(clock.offset_us))
            .with(CLOCK_ERROR_US, Value::I64(clock.error_us))
    }

    /// The estimate of its clock's offset, if both numbers are there.
    pub fn clock(&self) -> Option<ClockOffset> {
        Some(ClockOffset {
            offset_us: self.integer(CLOCK_OFFSET_US)?,
            error_us: self.integer(CLOCK_ERROR_US)?.max(0),
        })
    }

    fn integer(&self, name: &str) -> Option<i64> {
        self.attributes.iter().find_map(|(key, value)| match value {
            Value::I64(number) if key == name => Some(*number),
            Value::I64(_) | Value::Bool(_) | Value::F64(_) | Value::Str(_) => None,
        })
    }
}
