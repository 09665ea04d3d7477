//! The span an embedding program is in, where it is one of our line of OpenTelemetry. Only ever read: no subscriber and
//! no provider of the program's is replaced or set up.

use std::sync::Once;

use dwell_messages::{SpanId, TraceContext, TraceFlags, TraceId, TraceState};
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The current `tracing` span's context, else OpenTelemetry's own current one.
pub(super) fn current() -> Option<TraceContext> {
    let span = tracing::Span::current();
    let of_span = (!span.is_none()).then(|| span.context());
    let found = of_span
        .as_ref()
        .and_then(|context| ours(context.span().span_context()))
        .or_else(|| opentelemetry::Context::map_current(|context| ours(context.span().span_context())));
    if found.is_none() && of_span.is_some() {
        say_once();
    }
    found
}

fn ours(span: &SpanContext) -> Option<TraceContext> {
    if !span.is_valid() {
        return None;
    }
    let flags = if span.is_sampled() {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::NONE
    };
    let mut context = TraceContext::new(
        TraceId(span.trace_id().to_bytes()),
        SpanId(span.span_id().to_bytes()),
        flags,
    );
    context.state = TraceState::parse(&span.trace_state().header()).map(Into::into);
    Some(if span.is_remote() {
        context.received()
    } else {
        context
    })
}

/// A subscriber of another line of OpenTelemetry, or of none, cannot be seen through.
fn say_once() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::info!(
            "the current span has no OpenTelemetry context that dwell can see, so its calls begin traces of their own: \
             use tracing-opentelemetry 0.33 with opentelemetry 0.32, or hand the parent over with `Command::parent`"
        );
    });
}
