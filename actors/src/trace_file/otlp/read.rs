//! From lines to spans. What another tool wrote is read as far as it says what we need.

use std::borrow::Cow;

use dwell_messages::{Span, SpanKind, Value};
use serde::Deserialize;

use super::super::names::role_from_name;
use super::super::reader::TraceLine;
use super::super::resource::Resource;
use super::{ERROR_TYPE, KIND_CLIENT, KIND_SERVER, ROLE, SERVICE_NAME, STATUS_ERROR};

/// The batches of one line; the error says what is wrong with it.
pub(in super::super) fn parse_line(line: &[u8]) -> Result<Vec<TraceLine>, String> {
    let data: TracesData = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    data.resource_spans.into_iter().map(batch).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TracesData {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    #[serde(default)]
    resource: ResourceIn,
    #[serde(default)]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Deserialize, Default)]
struct ResourceIn {
    #[serde(default)]
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
struct ScopeSpans {
    #[serde(default)]
    spans: Vec<SpanIn>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpanIn {
    trace_id: String,
    span_id: String,
    #[serde(default)]
    parent_span_id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    kind: u8,
    start_time_unix_nano: Number,
    end_time_unix_nano: Number,
    #[serde(default)]
    attributes: Vec<Attribute>,
    #[serde(default)]
    links: Vec<LinkIn>,
    #[serde(default)]
    status: StatusIn,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinkIn {
    span_id: String,
}

#[derive(Deserialize, Default)]
struct StatusIn {
    #[serde(default)]
    code: u8,
}

#[derive(Deserialize)]
struct Attribute {
    key: String,
    #[serde(default)]
    value: AnyValue,
}

/// One of these is set; none of them where the value is of a kind that dwell does not write.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct AnyValue {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<Number>,
    double_value: Option<Double>,
}

/// A 64-bit number: text by the standard, a bare number from some writers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Unsigned(u64),
    Signed(i64),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Double {
    Number(f64),
    Text(String),
}

fn batch(batch: ResourceSpans) -> Result<TraceLine, String> {
    let mut role = None;
    let mut service = String::new();
    let mut attributes = Vec::new();
    for attribute in batch.resource.attributes {
        match (attribute.key.as_str(), attribute.value.string_value.as_deref()) {
            (ROLE, Some(name)) => role = role_from_name(name),
            (SERVICE_NAME, Some(name)) => name.clone_into(&mut service),
            (_, _) => attributes.extend(value(attribute.value).map(|value| (attribute.key, value))),
        }
    }
    let role = role.ok_or("its resource has no known dwell.role")?;
    let spans = batch
        .scope_spans
        .into_iter()
        .flat_map(|scope| scope.spans)
        .map(span)
        .collect::<Result<_, _>>()?;
    Ok(TraceLine {
        resource: Resource {
            role,
            service,
            attributes,
        },
        spans,
    })
}

fn span(span: SpanIn) -> Result<Span, String> {
    let failed = span.status.code == STATUS_ERROR;
    let mut error = None;
    let mut attributes = Vec::new();
    for Attribute { key, value: raw } in span.attributes {
        let Some(value) = value(raw) else { continue };
        match value {
            Value::Str(text) if failed && error.is_none() && key == ERROR_TYPE => error = Some(text),
            Value::Str(_) | Value::Bool(_) | Value::I64(_) | Value::F64(_) => {
                attributes.push((Cow::Owned(key), value))
            }
        }
    }
    if failed && error.is_none() {
        error = Some(Cow::Borrowed("_OTHER"));
    }
    let parent = if span.parent_span_id.is_empty() {
        [0; 8]
    } else {
        id(&span.parent_span_id, "parentSpanId")?
    };
    Ok(Span {
        trace_id: id(&span.trace_id, "traceId")?,
        span_id: id(&span.span_id, "spanId")?,
        parent,
        name: span.name.into(),
        kind: match span.kind {
            KIND_CLIENT => SpanKind::Client,
            KIND_SERVER => SpanKind::Server,
            _ => SpanKind::Internal,
        },
        start_unix_ns: nanos(&span.start_time_unix_nano, "startTimeUnixNano")?,
        end_unix_ns: nanos(&span.end_time_unix_nano, "endTimeUnixNano")?,
        attributes,
        link: span
            .links
            .first()
            .map(|link| id(&link.span_id, "link"))
            .transpose()?,
        error,
    })
}

fn value(raw: AnyValue) -> Option<Value> {
    if let Some(text) = raw.string_value {
        return Some(Value::Str(text.into()));
    }
    if let Some(truth) = raw.bool_value {
        return Some(Value::Bool(truth));
    }
    if let Some(number) = raw.int_value {
        return match number {
            Number::Text(text) => text.parse().ok(),
            Number::Unsigned(number) => i64::try_from(number).ok(),
            Number::Signed(number) => Some(number),
        }
        .map(Value::I64);
    }
    raw.double_value.and_then(|double| match double {
        Double::Number(number) => Some(Value::F64(number)),
        Double::Text(text) => text.parse().ok().map(Value::F64),
    })
}

fn nanos(number: &Number, field: &str) -> Result<u64, String> {
    match number {
        Number::Text(text) => text.parse().ok(),
        Number::Unsigned(number) => Some(*number),
        Number::Signed(_) => None,
    }
    .ok_or_else(|| format!("{field} is no time"))
}

fn id<const N: usize>(text: &str, field: &str) -> Result<[u8; N], String> {
    let wrong = || format!("{field} is not {} hexadecimal digits", 2 * N);
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(wrong());
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0]).ok_or_else(wrong)? << 4 | nibble(pair[1]).ok_or_else(wrong)?;
    }
    Ok(bytes)
}
