//! Our spans as the OpenTelemetry SDK's, for whoever plugs an exporter of its own.

use std::time::Duration;

use dwell_messages::{Role, Span, SpanKind, Value};
use opentelemetry::trace as otel;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::semconv;
use crate::trace_file::role_name;

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
        parent_span_is_remote: is_remote(span),
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
    InstrumentationScope::builder(semconv::SCOPE)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(semconv::SCHEMA_URL)
        .build()
}

/// Whose spans they are: the role, its version, one life of it, and the machine's kind. Neither the machine's name nor a
/// user's nor a path is among it. `OTEL_RESOURCE_ATTRIBUTES` of this process's environment, and `OTEL_SERVICE_NAME` by
/// the lookup, win over all of it.
pub fn resource(role: Role, lookup: impl Fn(&str) -> Option<String>) -> Resource {
    let own = [
        KeyValue::new(semconv::SERVICE_NAME, super::service(role)),
        KeyValue::new(semconv::SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
        KeyValue::new(semconv::SERVICE_INSTANCE_ID, super::trace_id().to_string()),
        KeyValue::new(semconv::ROLE, role_name(role)),
        KeyValue::new(semconv::PROCESS_PID, i64::from(std::process::id())),
        KeyValue::new(semconv::HOST_ARCH, arch()),
        KeyValue::new(semconv::OS_TYPE, std::env::consts::OS),
    ];
    let builder = Resource::builder_empty()
        .with_schema_url(own, semconv::SCHEMA_URL)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match lookup("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
        Some(name) => builder.with_service_name(name).build(),
        None => builder.build(),
    }
}

/// The architecture by the conventions' word for it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Whether the span's parent was made by another process. In OTLP that is a flag, so there is no attribute of it.
fn is_remote(span: &Span) -> bool {
    span.attribute(semconv::PARENT_REMOTE).is_some()
}

fn attributes(span: &Span) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(span.attributes.len() + usize::from(span.error.is_some()));
    let own = span
        .attributes
        .iter()
        .filter(|(name, _)| name != semconv::PARENT_REMOTE);
    attributes.extend(own.map(|(name, value)| {
        let value: opentelemetry::Value = match value {
            Value::Bool(value) => (*value).into(),
            Value::I64(value) => (*value).into(),
            Value::F64(value) => (*value).into(),
            Value::Str(value) => value.clone().into(),
        };
        KeyValue::new(name.clone(), value)
    }));
    if let Some(error) = &span.error {
        attributes.push(KeyValue::new(semconv::ERROR_TYPE, error.clone()));
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
