//! Jaeger's `uber-trace-id`, and the only place that knows the crate for it.
//!
//! That crate is deprecated upstream and its 0.32 is the last that fits our OpenTelemetry; whoever replaces it changes
//! this file. It is only ever given one field, in one form, because of what it does with others: it reads a flag as a
//! decimal number, takes a sign for a digit, puts `uberctx-*` fields into the tracestate and refuses the whole context
//! when that does not fit there.

use dwell_messages::{SpanId, TraceContext, TraceFlags, TraceId};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace as otel;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_jaeger_propagator::Propagator;

/// The field.
pub(super) const HEADER: &str = "uber-trace-id";
/// What stands before a baggage member's name in a field of its own.
pub(super) const BAGGAGE_PREFIX: &str = "uberctx-";
/// The longest field: three ids of 32 digits, flags, and colons that somebody has percent-encoded.
const FIELD_MAX_BYTES: usize = 128;

/// A field of one carrier.
#[derive(Default)]
struct Field(Option<String>);

impl Extractor for Field {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.as_deref().filter(|_| key == HEADER)
    }

    fn keys(&self) -> Vec<&str> {
        vec![HEADER]
    }
}

impl Injector for Field {
    fn set(&mut self, key: &str, value: String) {
        if key == HEADER {
            self.0 = Some(value);
        }
    }
}

/// The parent that a field names. `None`: it names none.
pub(super) fn extract(field: &str) -> Option<TraceContext> {
    let field = Field(Some(normal(field)?));
    let context = Propagator::new().extract_with_context(&Context::new(), &field);
    let span = context.span();
    let span = span.span_context();
    // An id of zeroes is accepted there.
    span.is_valid().then(|| {
        TraceContext::new(
            TraceId(span.trace_id().to_bytes()),
            SpanId(span.span_id().to_bytes()),
            if span.is_sampled() {
                TraceFlags::SAMPLED
            } else {
                TraceFlags::NONE
            },
        )
    })
}

/// The field of a valid context.
pub(super) fn inject(context: &TraceContext) -> String {
    let flags = if context.is_sampled() {
        otel::TraceFlags::SAMPLED
    } else {
        otel::TraceFlags::NOT_SAMPLED
    };
    let span = otel::SpanContext::new(
        otel::TraceId::from_bytes(context.trace_id.0),
        otel::SpanId::from_bytes(context.span_id.0),
        flags,
        false,
        otel::TraceState::NONE,
    );
    let mut field = Field::default();
    Propagator::new().inject_context(&Context::new().with_remote_span_context(span), &mut field);
    field.0.unwrap_or_default()
}

/// The same with ids of full length, no parent, and flags that both ways of reading them agree on.
fn normal(field: &str) -> Option<String> {
    if field.len() > FIELD_MAX_BYTES {
        return None;
    }
    let field = field.trim().replace("%3A", ":").replace("%3a", ":");
    let mut parts = field.split(':');
    let (trace, span, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
        return None;
    }
    // Nobody reads the parent any more; some write it empty.
    if !parent.is_empty() && !is_hex(parent, 32) {
        return None;
    }
    // Sampled and debug; what else there is says nothing to anybody here.
    let flags = u8::from_str_radix(flags, 16).ok()? & 0x03;
    Some(format!("{trace:0>32}:{span:0>16}:0:{flags}"))
}

fn is_hex(text: &str, digits_max: usize) -> bool {
    (1..=digits_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
