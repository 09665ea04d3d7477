//! Our spans as the OpenTelemetry SDK's, for whoever plugs an exporter of its own.

use std::time::Duration;

use dwell_messages::{Span, SpanKind, Value};
use opentelemetry::trace as otel;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

/// Makes the SDK's span of ours. Costs one allocation for the attributes and one for a link.
pub fn span_data(span: &Span, scope: &InstrumentationScope) -> SpanData {
    let context = |span_id: [u8; 8]| {
        otel::SpanContext::new(
            otel::TraceId::from_bytes(span.trace_id),
            otel::SpanId::from_bytes(span_id),
            otel::TraceFlags::SAMPLED,
            false,
            otel::TraceState::NONE,
        )
    };
    let mut links = SpanLinks::default();
    if let Some(link) = span.link {
        // Exactly one: a vector that grows takes four.
        links.links = vec![otel::Link::with_context(context(link))];
    }
    SpanData {
        span_context: context(span.span_id),
        parent_span_id: otel::SpanId::from_bytes(span.parent),
        parent_span_is_remote: false,
        span_kind: kind(span.kind),
        name: span.name.clone(),
        start_time: time(span.start_unix_ns),
        end_time: time(span.end_unix_ns),
        attributes: attributes(span),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: span
            .error
            .as_ref()
            .map_or(otel::Status::Unset, |error| otel::Status::Error {
                description: error.clone(),
            }),
        instrumentation_scope: scope.clone(),
    }
}

/// The scope all of dwell's spans are made under.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("dwell")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

fn attributes(span: &Span) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(span.attributes.len() + usize::from(span.error.is_some()));
    attributes.extend(span.attributes.iter().map(|(name, value)| {
        let value: opentelemetry::Value = match value {
            Value::Bool(value) => (*value).into(),
            Value::I64(value) => (*value).into(),
            Value::F64(value) => (*value).into(),
            Value::Str(value) => value.clone().into(),
        };
        KeyValue::new(name.clone(), value)
    }));
    if let Some(error) = &span.error {
        attributes.push(KeyValue::new("error.type", error.clone()));
    }
    attributes
}

fn kind(kind: SpanKind) -> otel::SpanKind {
    match kind {
        SpanKind::Internal => otel::SpanKind::Internal,
        SpanKind::Client => otel::SpanKind::Client,
        SpanKind::Server => otel::SpanKind::Server,
    }
}

#[expect(
    clippy::disallowed_types,
    reason = "the SDK's spans hold this type; the wall clock is not read"
)]
fn time(unix_ns: u64) -> std::time::SystemTime {
    std::time::SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_ns)
}
