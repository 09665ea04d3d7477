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
    /// Never on the wire: the context was received, so its span was not made by whoever holds it.
    const REMOTE: u8 = 0x80;

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
#[derive(Clone, PartialEq, Eq, Hash, Default)]
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
            flags: TraceFlags(self.flags.0 & !TraceFlags::REMOTE),
            ..self.clone()
        }
    }

    /// The same context, marked as one that came from another process: spans below it say that their parent is remote.
    /// The mark stays here: neither the wire nor a header carries it.
    #[must_use]
    #[inline]
    pub fn received(mut self) -> Self {
        self.flags.0 |= TraceFlags::REMOTE;
        self
    }

    /// Whether it came from another process.
    #[inline]
    pub fn is_remote(&self) -> bool {
        self.flags.0 & TraceFlags::REMOTE != 0
    }

    /// The 26 bytes on the wire. Flags dwell gives no meaning are dropped.
    pub fn encode(&self) -> [u8; TRACE_CONTEXT_BYTES] {
        let mut bytes = [0; TRACE_CONTEXT_BYTES];
        bytes[0] = TRACE_CONTEXT_VERSION;
        bytes[1..17].copy_from_slice(&self.trace_id.0);
        bytes[17..25].copy_from_slice(&self.span_id.0);
        bytes[25] = self.flags.0 & TraceFlags::SAMPLED.0;
        bytes
    }

    /// A context from its 26 bytes, without tracestate. `None` for another version or an id of zeroes: what came
    /// malformed is counted by the caller and never fails a message.
    pub fn decode(bytes: &[u8; TRACE_CONTEXT_BYTES]) -> Option<Self> {
        let mut context = Self::default();
        context.trace_id.0.copy_from_slice(&bytes[1..17]);
        context.span_id.0.copy_from_slice(&bytes[17..25]);
        context.flags = TraceFlags(bytes[25] & TraceFlags::SAMPLED.0);
        (bytes[0] == TRACE_CONTEXT_VERSION && context.is_valid()).then_some(context)
    }

    /// A context from W3C `traceparent` and, if given, `tracestate`. `None` when `traceparent` is malformed; a
    /// malformed `tracestate` is dropped alone.
    pub fn from_traceparent(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let mut parts = traceparent.trim().split('-');
        let version: [u8; 1] = unhex(parts.next()?)?;
        let trace_id = TraceId(unhex(parts.next()?)?);
        let span_id = SpanId(unhex(parts.next()?)?);
        let flags: [u8; 1] = unhex(parts.next()?)?;
        // Later versions may append fields; version 0 may not, and 0xff is forbidden.
        if version[0] == 0xff || (version[0] == 0 && parts.next().is_some()) {
            return None;
        }
        let state = tracestate.and_then(TraceState::parse).map(Arc::new);
        let context = Self {
            trace_id,
            span_id,
            flags: TraceFlags(flags[0] & TraceFlags::SAMPLED.0),
            state,
        };
        context.is_valid().then_some(context)
    }

    /// W3C `traceparent`.
    pub fn to_traceparent(&self) -> String {
        format!(
            "00-{}-{}-{:02x}",
            self.trace_id,
            self.span_id,
            self.flags.0 & TraceFlags::SAMPLED.0
        )
    }

    /// Whether both ids are set, as W3C demands.
    pub fn is_valid(&self) -> bool {
        self.trace_id.0 != [0; 16] && self.span_id.0 != [0; 8]
    }
}

impl TraceState {
    /// A tracestate within bounds: members past the limits are cut from the right, whole. `None` when a member is not
    /// `key=value` in W3C's characters, or a key comes twice.
    pub fn parse(text: &str) -> Option<Self> {
        let mut kept = String::new();
        let mut keys: Vec<&str> = Vec::new();
        for member in text.split(',').map(str::trim).filter(|member| !member.is_empty()) {
            let (key, value) = member.split_once('=')?;
            if !is_key(key) || !is_value(value) || keys.contains(&key) {
                return None;
            }
            keys.push(key);
            let separator = usize::from(!kept.is_empty());
            if keys.len() > TRACESTATE_MEMBERS_MAX
                || kept.len() + separator + member.len() > TRACESTATE_MAX_BYTES
            {
                break;
            }
            if separator == 1 {
                kept.push(',');
            }
            kept.push_str(member);
        }
        (!kept.is_empty()).then_some(Self(kept))
    }

    /// The members, separated by commas.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_key(key: &str) -> bool {
    let first = key
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    first
        && key.len() <= 256
        && key.bytes().all(|byte| {
            byte.is_ascii_lowercase()
                || byte.is_ascii_digit()
                || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@')
        })
}

fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 256
        && value
            .bytes()
            .all(|byte| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=')
}

/// Lower-case hexadecimal of exactly `N` bytes.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N
        || digits
            .iter()
            .any(|digit| !matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
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
