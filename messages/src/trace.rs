//! Trace context: 26 fixed bytes and an optional, bounded tracestate.

use std::fmt;
use std::sync::Arc;

/// Bytes of a context on the wire: version, trace id, span id, flags.
pub const TRACE_CONTEXT_BYTES: usize = 26;
/// Most members a tracestate keeps; more are cut from the right.
pub const TRACESTATE_MEMBERS_MAX: usize = 32;
/// Most bytes a tracestate keeps; whole members are cut from the right until it fits.
pub const TRACESTATE_MAX_BYTES: usize = 512;
/// The one version of the binary context that this crate writes.
pub const TRACE_CONTEXT_VERSION: u8 = 0;

/// Names one trace. All zeroes is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TraceId(pub [u8; 16]);

/// Names one span. All zeroes is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SpanId(pub [u8; 8]);

/// W3C trace flags. Only the sampled bit means something to dwell; the others are dropped on output.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct TraceFlags(pub u8);

impl TraceFlags {
    /// Bit 0: whoever began the trace asks for its spans.
    pub const SAMPLED: Self = Self(1);
    /// No flag set.
    pub const NONE: Self = Self(0);

    /// Whether the sampled bit is set.
    #[inline]
    pub fn is_sampled(self) -> bool {
        self.0 & 1 == 1
    }
}

/// A bounded, syntactically valid tracestate.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TraceState(String);

/// The ancestry a message travels under.
///
/// Cloning is cheap: the tracestate is shared.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace this message belongs to.
    pub trace_id: TraceId,
    /// The span of the stage that sent it.
    pub span_id: SpanId,
    /// Whether spans are wanted.
    pub flags: TraceFlags,
    /// Vendor data carried along unread.
    pub state: Option<Arc<TraceState>>,
}

impl TraceContext {
    /// A context without tracestate.
    #[inline]
    pub fn new(trace_id: TraceId, span_id: SpanId, flags: TraceFlags) -> Self {
        Self {
            trace_id,
            span_id,
            flags,
            state: None,
        }
    }

    /// Whether a residence span is wanted for what travels under this context.
    #[inline]
    pub fn is_sampled(&self) -> bool {
        self.flags.is_sampled()
    }

    /// The same trace seen from a wider span: what a stage that opens its own span puts into what it sends.
    pub fn child(&self, span_id: SpanId) -> Self {
        Self {
            span_id,
            ..self.clone()
        }
    }

    /// Whether both ids are set, as W3C demands.
    pub fn is_valid(&self) -> bool {
        self.trace_id.0 != [0; 16] && self.span_id.0 != [0; 8]
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:02x}", self.trace_id, self.span_id, self.flags.0)
    }
}
