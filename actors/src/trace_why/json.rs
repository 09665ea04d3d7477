//! An explanation for programs.

use serde_json::{Value, json};

use super::cause::{Cause, Ranked, Reason};
use super::explain::Explanation;

/// An explanation as JSON: all reasons in their order, `cause` one word of a small set, times in microseconds.
pub fn to_json(explanation: &Explanation) -> Value {
    json!({
        "trace_id": explanation.trace_id.to_string(),
        "program": explanation.program,
        "total_us": explanation.total_us,
        "usual_total_us": explanation.usual_total_us,
        "earlier_calls": explanation.earlier_calls,
        "ranked": match explanation.ranked {
            Ranked::ByExcess => "by_excess",
            Ranked::NothingUnusual => "nothing_unusual",
            Ranked::NoUsual => "no_usual",
        },
        "has_account": explanation.has_account,
        "reasons": explanation.reasons.iter().map(reason).collect::<Vec<_>>(),
    })
}

fn reason(reason: &Reason) -> Value {
    let (machine, detail) = place(&reason.cause);
    json!({
        "cause": reason.cause.kind(),
        "machine": machine,
        "detail": detail,
        "us": reason.us,
        "usual_us": reason.usual_us,
        "excess_us": reason.usual_us.map(|_| reason.excess_us()),
        "unusual": reason.unusual,
        "beside": reason.cause.is_beside(),
        "share_percent": reason.share_percent,
        "sentence": reason.sentence(),
        "advice": reason.advice(),
    })
}

/// On which machine, and what more is known: an actor, a segment, a stream, a span.
fn place(cause: &Cause) -> (Option<&str>, Option<&str>) {
    match cause {
        Cause::Mailbox { machine, actor } => (Some(machine), actor.as_deref()),
        Cause::Admission { machine }
        | Cause::Dispatch { machine }
        | Cause::Delivery { machine }
        | Cause::Handler { machine }
        | Cause::Unattributed { machine } => (Some(machine), None),
        Cause::Sending { machine, segment }
        | Cause::Receiving { machine, segment }
        | Cause::Segment { machine, segment } => (Some(machine), Some(segment)),
        Cause::Span { machine, name } => (Some(machine), Some(name)),
        Cause::HeldPipe { stream, .. } => (Some("executor"), *stream),
        Cause::Disk { what, .. } => (None, Some(what)),
        Cause::SpawnQueue | Cause::Spawn | Cause::Command { .. } => (Some("executor"), None),
        Cause::Relay => (Some("relay"), None),
        Cause::HandOff | Cause::Outage => (Some("harness"), None),
        Cause::Distance | Cause::Transit { .. } => (None, None),
    }
}
