//! What is printed of a turn: the answer, where the time went, the picture.

use std::time::Duration;

use dwell_actors::trace_file::Trace;
use dwell_actors::waterfall;
use dwell_messages::{Role, Span, TraceId};
use serde_json::{Value, json};

use super::agent::{Asked, Ran, Told};
use crate::cli::output::{self, Surroundings, printable};

/// What a harness waits for, once a request of its has been written.
const WAIT: &str = "response wait";
/// A wait for the connection that is worth telling, in microseconds.
const QUEUE_TOLD_US: u64 = 500;
/// A request to the model.
const MODEL: &str = "model request";

pub(super) fn print(told: &Told, trace_id: TraceId, spans: Option<&Trace>, json: bool) {
    if json {
        return output::print_json(&to_json(told, trace_id, spans));
    }
    let mut text = String::from("\n");
    for line in told.answer.lines() {
        text.push_str(&printable(line));
        text.push('\n');
    }
    if let Some(why) = &told.incomplete {
        text.push_str(&format!("(cut short: {})\n", printable(why)));
    }
    text.push('\n');
    if let Some(spans) = spans {
        let rounds = round_trips(spans);
        let s = if rounds == 1 { "" } else { "s" };
        text.push_str(&format!(
            "{rounds} round trip{s} to the executor before the first model request, the handshake included\n"
        ));
    }
    text.push_str(&account(told));
    if let Some(spans) = spans {
        text.push('\n');
        text.push_str(&waterfall::render(
            spans,
            &Surroundings::of_stdout().options(None),
        ));
    }
    output::print(&text);
}

/// Round trips to the executor that lie one behind the other before the first model request: one for the handshake, and
/// one for each request whose answer was waited for, those at the same time counted once.
fn round_trips(trace: &Trace) -> usize {
    let own = |name| {
        let spans = trace.spans.iter();
        spans.filter(move |(role, span)| *role == Role::Harness && span.name == name)
    };
    let asked = own(MODEL).map(|(_, span)| span.start_unix_ns).min();
    let before = |span: &&Span| asked.is_none_or(|asked| span.end_unix_ns <= asked);
    let mut waits: Vec<_> = own(WAIT).map(|(_, span)| span).filter(before).collect();
    waits.sort_by_key(|span| span.end_unix_ns);
    let mut free_from = 0;
    let mut rounds = 1;
    for wait in waits {
        if wait.start_unix_ns >= free_from {
            rounds += 1;
            free_from = wait.end_unix_ns;
        }
    }
    rounds
}

/// Where the time went: steps that follow on one another, so they and the rest are the whole.
fn account(told: &Told) -> String {
    let total = told.total.max(Duration::from_nanos(1));
    let mut text = format!("where the turn's {} went\n", ms(total));
    let mut row = |what: &str, took: Duration, how: &str| {
        let share = 100.0 * took.as_secs_f64() / total.as_secs_f64();
        let line = format!("  {what:<12} {:>12} {share:>5.1}%  {how}", ms(took));
        text.push_str(line.trim_end());
        text.push('\n');
    };
    row(
        "connect",
        told.connected,
        "to the executor, and proving both ends",
    );
    let learned = &told.learned;
    row("workspace", learned.took, &learned.said());
    let mut left = total.saturating_sub(told.connected + learned.took);
    for (n, asked) in told.requests.iter().enumerate() {
        let took = micros(asked.timings.total_us);
        row(&format!("model {}", n + 1), took, &how(asked));
        left = left.saturating_sub(took);
        let commands = told.commands.iter().enumerate();
        for (at, ran) in commands.filter(|(_, ran)| ran.after == n + 1) {
            let how = format!("{}: {}", program(ran), printable(&ran.status));
            row(&format!("command {}", at + 1), ran.took, &how);
            left = left.saturating_sub(ran.took);
        }
    }
    row("rest", left, "");
    text
}

fn program(ran: &Ran) -> String {
    printable(ran.argv.first().map_or("?", String::as_str))
}

fn how(asked: &Asked) -> String {
    let timings = &asked.timings;
    let mut parts = Vec::new();
    if timings.queue_us >= QUEUE_TOLD_US {
        parts.push(format!(
            "waited {} for the connection",
            ms(micros(timings.queue_us))
        ));
    }
    if let Some(us) = timings.connect_us {
        parts.push(format!("connect {}", ms(micros(us))));
    }
    if let Some(us) = timings.first_token_us {
        parts.push(format!("first token after {}", ms(micros(us))));
    }
    if let Some(server_ms) = asked.server.and_then(|server| server.at_least_ms()) {
        parts.push(format!("the server names {server_ms:.1} ms"));
    }
    if let Some(left) = asked.server.and_then(|server| timings.unaccounted(&server)) {
        parts.push(format!("{} unaccounted", ms(micros(left.us))));
    }
    if asked.attempts > 1 {
        parts.push(format!("sent {} times", asked.attempts));
    }
    parts.join(", ")
}

fn micros(us: u64) -> Duration {
    Duration::from_micros(us)
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn to_json(told: &Told, trace_id: TraceId, spans: Option<&Trace>) -> Value {
    let requests = told.requests.iter().map(|asked| {
        let timings = &asked.timings;
        json!({
            "queue_us": timings.queue_us,
            "connect_us": timings.connect_us,
            "send_us": timings.send_us,
            "first_event_us": timings.first_event_us,
            "first_token_us": timings.first_token_us,
            "token_gaps": {
                "count": timings.gaps.count,
                "total_us": timings.gaps.total_us,
                "longest_us": timings.gaps.longest_us,
            },
            "total_us": timings.total_us,
            "attempts": asked.attempts,
            "server_at_least_ms": asked.server.and_then(|server| server.at_least_ms()),
            "unaccounted_us": asked
                .server
                .and_then(|server| timings.unaccounted(&server))
                .map(|left| left.us),
        })
    });
    let commands = told
        .commands
        .iter()
        .map(|ran| json!({ "argv": ran.argv, "status": ran.status, "took_us": us(ran.took) }));
    json!({
        "answer": told.answer,
        "incomplete": told.incomplete,
        "round_trips_before_first_model_request": spans.map(round_trips),
        "connect_us": us(told.connected),
        "workspace_us": us(told.learned.took),
        "instruction_files": told.learned.counts[0],
        "skills": told.learned.counts[1],
        "model_requests": requests.collect::<Vec<_>>(),
        "commands": commands.collect::<Vec<_>>(),
        "total_us": us(told.total),
        "trace_id": trace_id.to_string(),
        "waterfall": spans.map_or(Value::Null, waterfall::to_json),
    })
}
