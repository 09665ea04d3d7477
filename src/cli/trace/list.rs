//! `dwell trace list`: a line a call.

use std::path::Path;

use dwell_actors::telemetry::unix_now_ns;
use dwell_actors::trace_file::{CallStatus, CallSummary, Calls, list_calls};
use serde_json::{Value, json};

use super::List;
use crate::cli::failure::Failure;
use crate::cli::output;

/// The most columns of a program's name.
const PROGRAM_COLUMNS_MAX: usize = 24;

pub(super) fn list(dir: &Path, ask: &List, json: bool) -> Result<u8, Failure> {
    let limit = usize::try_from(ask.limit).unwrap_or(usize::MAX);
    let calls = list_calls(dir, limit).map_err(|error| Failure::of("trace", &error))?;
    if json {
        output::print_json(&to_json(&calls));
        return Ok(0);
    }
    if calls.calls.is_empty() {
        output::note(&format!("{} holds no call yet", dir.display()));
        return Ok(0);
    }
    output::print(&table(&calls, unix_now_ns()));
    for line in left_out(&calls) {
        output::note(&line);
    }
    Ok(0)
}

fn table(calls: &Calls, now_unix_ns: u64) -> String {
    let head = ["WHEN", "PROGRAM", "DURATION", "STATUS", "MOST OF IT", "TRACE"].map(str::to_owned);
    let rows: Vec<[String; 6]> = calls.calls.iter().map(|call| row(call, now_unix_ns)).collect();
    let mut widths = [0; 6];
    for row in std::iter::once(&head).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&head).chain(&rows) {
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            // Durations end where the column does, so that their sizes can be compared.
            match at {
                2 => text.push_str(&format!("{padding}{cell}  ")),
                5 => text.push_str(cell),
                _ => text.push_str(&format!("{cell}{padding}  ")),
            }
        }
        text.push('\n');
    }
    text
}

fn row(call: &CallSummary, now_unix_ns: u64) -> [String; 6] {
    let program = call.program.as_deref().unwrap_or("?");
    [
        ago(now_unix_ns.saturating_sub(call.start_unix_ns) / 1_000_000_000),
        output::printable(program)
            .chars()
            .take(PROGRAM_COLUMNS_MAX)
            .collect(),
        milliseconds(call.duration_ns / 1_000),
        status(&call.status),
        call.biggest
            .as_ref()
            .map_or_else(String::new, |(machine, segment, us)| {
                output::printable(&format!("{machine} {segment} {}", milliseconds(*us)))
            }),
        call.trace_id.to_string(),
    ]
}

fn status(status: &CallStatus) -> String {
    match status {
        CallStatus::Exited(0) => "ok".to_owned(),
        CallStatus::Exited(code) => format!("exit {code}"),
        CallStatus::Signalled(signal) => format!("signal {signal}"),
        CallStatus::Failed(error) => output::printable(error),
        CallStatus::Ended => "ended".to_owned(),
    }
}

/// To the microsecond, in one unit: a column of them can be read down.
fn milliseconds(us: u64) -> String {
    format!("{}.{:03} ms", us / 1_000, us % 1_000)
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

fn left_out(calls: &Calls) -> Vec<String> {
    let mut lines = Vec::new();
    if calls.omitted > 0 {
        lines.push(format!("{} older: raise --limit to see more", calls.omitted));
    }
    if calls.unread_lines > 0 {
        lines.push(format!(
            "{} lines of the trace files could not be read",
            calls.unread_lines
        ));
    }
    lines
}

fn to_json(calls: &Calls) -> Value {
    json!({
        "calls": calls.calls.iter().map(call_json).collect::<Vec<_>>(),
        "omitted": calls.omitted,
        "unread_lines": calls.unread_lines,
    })
}

fn call_json(call: &CallSummary) -> Value {
    let (kind, detail) = match &call.status {
        CallStatus::Exited(code) => ("exited", json!(code)),
        CallStatus::Signalled(signal) => ("signalled", json!(signal)),
        CallStatus::Failed(error) => ("failed", json!(error)),
        CallStatus::Ended => ("ended", Value::Null),
    };
    json!({
        "trace_id": call.trace_id.to_string(),
        "start_unix_ns": call.start_unix_ns,
        "duration_us": call.duration_ns / 1_000,
        "program": call.program,
        "status": kind,
        "status_detail": detail,
        "biggest": call.biggest.as_ref().map(|(machine, segment, us)| {
            json!({ "machine": machine, "segment": segment, "us": us })
        }),
    })
}

#[cfg(test)]
mod tests {
    use dwell_messages::TraceId;

    use super::*;

    fn call(program: &str, status: CallStatus) -> CallSummary {
        CallSummary {
            trace_id: TraceId([0xab; 16]),
            start_unix_ns: 1_000_000_000,
            duration_ns: 12_345_678,
            program: Some(program.to_owned()),
            status,
            biggest: Some(("executor".into(), "run".into(), 9_001)),
        }
    }

    #[test]
    fn a_call_is_a_line_with_its_columns_under_the_heads() {
        let calls = Calls {
            calls: vec![
                call("sh", CallStatus::Exited(0)),
                call("a\u{1b}[2J", CallStatus::Signalled(9)),
            ],
            ..Calls::default()
        };
        let text = table(&calls, 120_000_000_000);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            "1 min ago  sh       12.345 ms  ok        executor run 9.001 ms  abababababababababababababababab"
        );
        assert_eq!(
            lines[0].find("DURATION"),
            lines[1].find("12.345 ms").map(|at| at + 1)
        );
        assert!(!text.contains('\u{1b}') && text.contains("signal 9"));
    }

    #[test]
    fn an_age_has_one_unit() {
        assert_eq!(
            [5, 61, 7_200, 200_000].map(ago),
            ["5 s ago", "1 min ago", "2 h ago", "2 d ago"]
        );
    }
}
