//! Jaeger's JSON: what its user interface uploads. Times are whole microseconds there.

use dwell_messages::{Role, Span, SpanId, SpanKind, Value as Attribute};
use serde_json::{Value, json};

use crate::telemetry::{semconv, service};
use crate::trace_file::{Trace, role_name};

use super::ROLES;

pub(super) fn write(trace: &Trace) -> String {
    let processes: serde_json::Map<_, _> = ROLES
        .into_iter()
        .filter(|role| trace.spans.iter().any(|(by, _)| by == role))
        .map(|role| (role_name(role).to_owned(), process(trace, role)))
        .collect();
    let spans: Vec<_> = trace.spans.iter().map(|(role, one)| span(*role, one)).collect();
    let data = json!({
        "traceID": trace.trace_id.to_string(),
        "spans": spans,
        "processes": processes,
        "warnings": null,
    });
    format!(
        "{}\n",
        json!({ "data": [data], "total": 1, "limit": 0, "offset": 0, "errors": null })
    )
}

fn process(trace: &Trace, role: Role) -> Value {
    let mut tags = vec![tag(semconv::ROLE, &Attribute::Str(role_name(role).into()))];
    if let Some((_, clock)) = trace.offsets.iter().find(|(by, _)| *by == role) {
        tags.push(tag(semconv::CLOCK_OFFSET_US, &Attribute::I64(clock.offset_us)));
        tags.push(tag(semconv::CLOCK_ERROR_US, &Attribute::I64(clock.error_us)));
    }
    json!({ "serviceName": service(role), "tags": tags })
}

fn span(role: Role, span: &Span) -> Value {
    let trace_id = span.trace().to_string();
    let references: Vec<_> = (span.parent != [0; 8])
        .then(|| json!({ "refType": "CHILD_OF", "traceID": trace_id, "spanID": SpanId(span.parent).to_string() }))
        .into_iter()
        .collect();
    let kind = match span.kind {
        SpanKind::Internal => "internal",
        SpanKind::Client => "client",
        SpanKind::Server => "server",
    };
    let mut tags = vec![tag("span.kind", &Attribute::Str(kind.into()))];
    if let Some(error) = &span.error {
        tags.push(tag("error", &Attribute::Bool(true)));
        tags.push(tag(semconv::ERROR_TYPE, &Attribute::Str(error.clone())));
    }
    tags.extend(span.attributes.iter().map(|(key, value)| tag(key, value)));
    json!({
        "traceID": trace_id,
        "spanID": span.id().to_string(),
        "flags": 1,
        "operationName": span.name,
        "references": references,
        "startTime": span.start_unix_ns / 1_000,
        "duration": span.duration_ns() / 1_000,
        "tags": tags,
        "logs": [],
        "processID": role_name(role),
        "warnings": null,
    })
}

fn tag(key: &str, value: &Attribute) -> Value {
    let (kind, value) = match value {
        Attribute::Bool(value) => ("bool", json!(value)),
        Attribute::I64(value) => ("int64", json!(value)),
        Attribute::F64(value) if value.is_finite() => ("float64", json!(value)),
        // JSON has no such numbers.
        Attribute::F64(value) => ("string", json!(value.to_string())),
        Attribute::Str(value) => ("string", json!(value)),
    };
    json!({ "key": key, "type": kind, "value": value })
}
