//! Chrome's trace events: one process a role, and so many threads that no two spans of one collide.

use std::collections::HashMap;

use dwell_messages::{Role, Span, SpanId, Value as Attribute};
use serde_json::{Map, Value, json};

use super::ROLES;
use super::lanes::{self, Place};
use crate::telemetry::{semconv, service};
use crate::trace_file::{Trace, role_name};
use crate::waterfall::{Class, Placement, placed};

pub(super) fn write(trace: &Trace) -> String {
    let mut events = Vec::new();
    if let Some((_, placement)) = placed(trace) {
        let starts = trace
            .spans
            .iter()
            .map(|(role, span)| placement.start_ns(*role, span));
        // Times before zero are not drawn everywhere.
        let origin_ns = starts.min().unwrap_or(0);
        for (index, role) in ROLES.into_iter().enumerate() {
            events.extend(of_role(trace, role, index + 1, &placement, origin_ns));
        }
    }
    let clocks: Map<_, _> = trace
        .offsets
        .iter()
        .map(|(role, clock)| {
            let moved = json!({ "offset_us": clock.offset_us, "error_us": clock.error_us });
            (role_name(*role).to_owned(), moved)
        })
        .collect();
    let document = json!({
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": { "trace_id": trace.trace_id.to_string(), "clocks": clocks },
    });
    format!("{document}\n")
}

fn of_role(trace: &Trace, role: Role, pid: usize, placement: &Placement, origin_ns: i64) -> Vec<Value> {
    let mut own: Vec<_> = trace
        .spans
        .iter()
        .filter(|(by, _)| *by == role)
        .map(|(_, span)| {
            let start_ns = placement.start_ns(role, span);
            (
                start_ns,
                start_ns.saturating_add_unsigned(span.duration_ns()),
                span,
            )
        })
        .collect();
    if own.is_empty() {
        return Vec::new();
    }
    own.sort_by_key(|(start_ns, end_ns, _)| (*start_ns, std::cmp::Reverse(*end_ns)));
    let mut before = HashMap::new();
    let mut places = Vec::with_capacity(own.len());
    for (index, (start_ns, end_ns, span)) in own.iter().enumerate() {
        places.push(Place {
            start_ns: *start_ns,
            end_ns: *end_ns,
            parent: before.get(&span.parent).copied(),
        });
        before.insert(span.span_id, index);
    }
    let lanes = lanes::assign(&places);
    let mut events = vec![named("process_name", pid, 0, service(role))];
    let last = lanes.iter().copied().max().unwrap_or(0);
    events.extend((0..=last).map(|lane| named("thread_name", pid, lane + 1, &format!("lane {}", lane + 1))));
    events.extend(own.iter().zip(lanes).map(|((start_ns, _, span), lane)| {
        let ts = (i128::from(*start_ns) - i128::from(origin_ns)) as f64 / 1e3;
        complete(span, pid, lane + 1, ts)
    }));
    events
}

fn named(what: &str, pid: usize, tid: usize, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": pid, "tid": tid, "args": { "name": name } })
}

fn complete(span: &Span, pid: usize, tid: usize, ts: f64) -> Value {
    let mut args: Map<_, _> = span
        .attributes
        .iter()
        .map(|(key, value)| (key.to_string(), plain(value)))
        .collect();
    args.insert("span_id".into(), json!(span.id().to_string()));
    if span.parent != [0; 8] {
        args.insert("parent_span_id".into(), json!(SpanId(span.parent).to_string()));
    }
    if let Some(error) = &span.error {
        args.insert(semconv::ERROR_TYPE.into(), json!(error));
    }
    json!({
        "ph": "X",
        "name": span.name,
        "cat": Class::of(&span.name).name(),
        "pid": pid,
        "tid": tid,
        "ts": ts,
        "dur": span.duration_ns() as f64 / 1e3,
        "args": args,
    })
}

fn plain(value: &Attribute) -> Value {
    match value {
        Attribute::Bool(value) => json!(value),
        Attribute::I64(value) => json!(value),
        Attribute::F64(value) => json!(value),
        Attribute::Str(value) => json!(value),
    }
}
