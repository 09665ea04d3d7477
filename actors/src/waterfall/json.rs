//! The same picture for programs.

use std::collections::HashMap;

use dwell_messages::SpanId;
use serde_json::{Value, json};

use crate::trace_file::{Trace, role_name};

use super::account::{Account, Machine};
use super::critical::Step;
use super::model::{ClockError, Model, Row, clean};

/// A trace as JSON: rows and orphans in drawing order, the account, the clocks and the warnings.
///
/// Times are microseconds with decimals, starts relative to the root's; shares are per cent of the root. `account` is
/// null when the root names no segments. `critical_path` has the stretches of the root in the order of time, each with the
/// one span that the end waited for, and which row shows that, counted through rows and orphans (null where it is folded
/// away below another); a row's `critical_us` is the sum of its own. `extent_us` is from the start of the first to the end
/// of the last span of a row. `clock_error_us` is given where a row of another machine stands below its caller, and
/// `clock_unknown` says that there is none to give. A trace without spans has no rows and a `wall_us` of zero.
pub fn to_json(trace: &Trace) -> Value {
    let Some(model) = Model::new(trace) else {
        return json!({
            "trace_id": trace.trace_id.to_string(), "root": null, "wall_us": 0.0, "rows": [], "orphans": [],
            "critical_path": [], "account": null, "clocks": [], "warnings": [],
        });
    };
    let row_of: HashMap<usize, usize> = (model.rows.iter().chain(&model.orphans).enumerate())
        .flat_map(|(row, one)| one.members.iter().map(move |member| (*member, row)))
        .collect();
    let steps = model.critical.steps.iter();
    json!({
        "trace_id": model.trace_id.to_string(),
        "root": model.root_name,
        "wall_us": us(model.wall_ns),
        "rows": model.rows.iter().map(|row| row_json(&model, row)).collect::<Vec<_>>(),
        "orphans": model.orphans.iter().map(|row| row_json(&model, row)).collect::<Vec<_>>(),
        "critical_path": steps.map(|step| step_json(trace, step, &row_of)).collect::<Vec<_>>(),
        "account": model.account.as_ref().map(account_json),
        "clocks": model.clocks.iter().map(|(role, clock)| json!({
            "role": role_name(*role), "offset_us": clock.offset_us, "error_us": clock.error_us,
        })).collect::<Vec<_>>(),
        "warnings": model.warnings,
    })
}

fn row_json(model: &Model, row: &Row) -> Value {
    json!({
        "role": role_name(row.role),
        "name": row.name,
        "class": row.class.name(),
        "depth": row.depth,
        "span_id": SpanId(row.span_id).to_string(),
        "parent_span_id": (row.parent != [0; 8]).then(|| SpanId(row.parent).to_string()),
        "start_us": row.start_ns as f64 / 1000.0,
        "duration_us": us(row.duration_ns),
        "extent_us": us(row.extent_ns),
        "share_percent": model.share(row.duration_ns),
        "count": row.fold.as_ref().map_or(1, |fold| fold.count),
        "folded_below": row.fold.as_ref().map_or(0, |fold| fold.below),
        "error": row.error,
        "critical": row.critical,
        "critical_us": us(row.critical_ns),
        "clock_error_us": match row.clock_error {
            Some(ClockError::Within(us)) => Some(us),
            Some(ClockError::Unknown) | None => None,
        },
        "clock_unknown": row.clock_error == Some(ClockError::Unknown),
    })
}

fn step_json(trace: &Trace, step: &Step, row_of: &HashMap<usize, usize>) -> Value {
    let (role, span) = &trace.spans[step.index];
    json!({
        "role": role_name(*role),
        "name": clean(&span.name),
        "span_id": span.id().to_string(),
        "row": row_of.get(&step.index),
        "start_us": step.start_ns as f64 / 1000.0,
        "duration_us": us(step.start_ns.abs_diff(step.end_ns)),
    })
}

fn account_json(account: &Account) -> Value {
    json!({
        "machines": account.machines.iter().map(|machine| machine_json(account, machine)).collect::<Vec<_>>(),
        "sum_us": account.sum_us,
        "unattributed_us": account.unattributed_us,
        "unattributed_percent": account.share(account.unattributed_us),
    })
}

fn machine_json(account: &Account, machine: &Machine) -> Value {
    let segments = machine
        .segments
        .iter()
        .map(|(name, us)| json!({ "segment": name, "us": us, "share_percent": account.share(*us as f64) }));
    json!({
        "machine": machine.name,
        "segments": segments.collect::<Vec<_>>(),
        "sum_us": machine.sum_us,
        "unattributed_us": machine.unattributed_us,
    })
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}
