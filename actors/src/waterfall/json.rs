//! The same picture for programs.

use dwell_messages::SpanId;
use serde_json::{Value, json};

use crate::trace_file::{Trace, role_name};

use super::account::{Account, Machine};
use super::model::{Model, Row};

/// A trace as JSON: rows and orphans in drawing order, the account, the clocks and the warnings.
///
/// Times are microseconds with decimals, starts relative to the root's; shares are per cent of the root. `account` is
/// null when the root names no segments. A trace without spans has no rows and a `wall_us` of zero.
pub fn to_json(trace: &Trace) -> Value {
    let Some(model) = Model::new(trace) else {
        return json!({
            "trace_id": trace.trace_id.to_string(), "root": null, "wall_us": 0.0, "rows": [], "orphans": [],
            "account": null, "clocks": [], "warnings": [],
        });
    };
    json!({
        "trace_id": model.trace_id.to_string(),
        "root": model.root_name,
        "wall_us": us(model.wall_ns),
        "rows": model.rows.iter().map(|row| row_json(&model, row)).collect::<Vec<_>>(),
        "orphans": model.orphans.iter().map(|row| row_json(&model, row)).collect::<Vec<_>>(),
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
        "share_percent": model.share(row.duration_ns),
        "count": row.fold.as_ref().map_or(1, |fold| fold.count),
        "folded_below": row.fold.as_ref().map_or(0, |fold| fold.below),
        "error": row.error,
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
