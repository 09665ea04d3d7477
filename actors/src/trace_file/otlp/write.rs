//! From spans to lines. Borrows everything: a burst of spans costs one growing buffer.

use std::fmt;

use dwell_messages::{Span, SpanId, SpanKind, TraceId, Value};
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use super::super::names::role_name;
use super::super::resource::Resource;
use super::{
    ERROR_TYPE, KIND_CLIENT, KIND_INTERNAL, KIND_SERVER, ROLE, SCOPE_NAME, SERVICE_NAME, STATUS_ERROR,
};

/// The most spans of one line. With the bounds below, and all text escaped, a line stays under what a reader takes.
const LINE_SPANS_MAX: usize = 64;
/// The most bytes of one text; the rest is cut off.
const TEXT_MAX_BYTES: usize = 256;
/// The most bytes of one attribute's name; the rest is cut off.
const KEY_MAX_BYTES: usize = 128;
/// The most attributes of one span or resource; the rest is left out.
const ATTRIBUTES_MAX: usize = 48;

/// Appends whole lines to `out`; on an error `out` is what it was.
pub(in super::super) fn push_lines(
    out: &mut Vec<u8>,
    resource: &Resource,
    spans: &[Span],
) -> Result<(), serde_json::Error> {
    let start = out.len();
    for spans in spans.chunks(LINE_SPANS_MAX) {
        if let Err(error) = serde_json::to_writer(&mut *out, &traces_data(resource, spans)) {
            out.truncate(start);
            return Err(error);
        }
        out.push(b'\n');
    }
    Ok(())
}

/// One object with the spans of several resources.
pub(crate) fn document(batches: &[(Resource, Vec<Span>)]) -> String {
    let resource_spans = batches
        .iter()
        .map(|(resource, spans)| resource_spans(resource, spans))
        .collect();
    serde_json::to_string(&TracesData { resource_spans })
        .expect("memory takes every byte, and every key and number has a form in JSON")
}

fn traces_data<'a>(resource: &'a Resource, spans: &'a [Span]) -> TracesData<'a> {
    TracesData {
        resource_spans: vec![resource_spans(resource, spans)],
    }
}

fn resource_spans<'a>(resource: &'a Resource, spans: &'a [Span]) -> ResourceSpans<'a> {
    ResourceSpans {
        resource: ResourceOut {
            attributes: ResourceAttributes(resource),
        },
        scope_spans: [ScopeSpans {
            scope: Scope {
                name: SCOPE_NAME,
                version: env!("CARGO_PKG_VERSION"),
            },
            spans: Spans(spans),
        }],
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TracesData<'a> {
    resource_spans: Vec<ResourceSpans<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: ResourceOut<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct ResourceOut<'a> {
    attributes: ResourceAttributes<'a>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Spans<'a>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanOut<'a> {
    trace_id: Text<TraceId>,
    span_id: Text<SpanId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<Text<SpanId>>,
    name: &'a str,
    kind: u8,
    start_time_unix_nano: Text<u64>,
    end_time_unix_nano: Text<u64>,
    attributes: SpanAttributes<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<[Link; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    trace_id: Text<TraceId>,
    span_id: Text<SpanId>,
}

#[derive(Serialize)]
struct Status {
    code: u8,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'a str,
    value: AnyValue<'a>,
}

#[derive(Serialize)]
enum AnyValue<'a> {
    #[serde(rename = "stringValue")]
    Str(&'a str),
    #[serde(rename = "boolValue")]
    Bool(bool),
    #[serde(rename = "intValue")]
    Int(Text<i64>),
    #[serde(rename = "doubleValue")]
    Double(Double),
}

/// A value in its text form, as JSON text.
struct Text<T>(T);

struct Double(f64);
struct Spans<'a>(&'a [Span]);
struct SpanAttributes<'a>(&'a Span);
struct ResourceAttributes<'a>(&'a Resource);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // JSON has no such numbers; protobuf's mapping spells them out.
        match self.0 {
            value if value.is_nan() => serializer.serialize_str("NaN"),
            f64::INFINITY => serializer.serialize_str("Infinity"),
            f64::NEG_INFINITY => serializer.serialize_str("-Infinity"),
            value => serializer.serialize_f64(value),
        }
    }
}

impl Serialize for Spans<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(SpanOut::from))
    }
}

impl Serialize for SpanAttributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        // First, so that it is there however many others there are.
        if let Some(error) = &self.0.error {
            list.serialize_element(&Attribute {
                key: ERROR_TYPE,
                value: AnyValue::Str(cut(error)),
            })?;
        }
        for (key, value) in self.0.attributes.iter().take(ATTRIBUTES_MAX) {
            list.serialize_element(&Attribute {
                key: cut_key(key),
                value: any_value(value),
            })?;
        }
        list.end()
    }
}

impl Serialize for ResourceAttributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        let service = AnyValue::Str(cut(&self.0.service));
        list.serialize_element(&Attribute {
            key: SERVICE_NAME,
            value: service,
        })?;
        let role = AnyValue::Str(role_name(self.0.role));
        list.serialize_element(&Attribute {
            key: ROLE,
            value: role,
        })?;
        for (key, value) in self.0.attributes.iter().take(ATTRIBUTES_MAX) {
            list.serialize_element(&Attribute {
                key: cut_key(key),
                value: any_value(value),
            })?;
        }
        list.end()
    }
}

impl<'a> From<&'a Span> for SpanOut<'a> {
    fn from(span: &'a Span) -> Self {
        Self {
            trace_id: Text(span.trace()),
            span_id: Text(span.id()),
            parent_span_id: (span.parent != [0; 8]).then_some(Text(SpanId(span.parent))),
            name: cut(&span.name),
            kind: match span.kind {
                SpanKind::Internal => KIND_INTERNAL,
                SpanKind::Server => KIND_SERVER,
                SpanKind::Client => KIND_CLIENT,
            },
            start_time_unix_nano: Text(span.start_unix_ns),
            end_time_unix_nano: Text(span.end_unix_ns),
            attributes: SpanAttributes(span),
            links: span.link.map(|link| {
                [Link {
                    trace_id: Text(span.trace()),
                    span_id: Text(SpanId(link)),
                }]
            }),
            status: span.error.is_some().then_some(Status { code: STATUS_ERROR }),
        }
    }
}

fn any_value(value: &Value) -> AnyValue<'_> {
    match value {
        Value::Bool(value) => AnyValue::Bool(*value),
        Value::I64(value) => AnyValue::Int(Text(*value)),
        Value::F64(value) => AnyValue::Double(Double(*value)),
        Value::Str(value) => AnyValue::Str(cut(value)),
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX_BYTES)]
}

fn cut_key(key: &str) -> &str {
    &key[..key.floor_char_boundary(KEY_MAX_BYTES)]
}
