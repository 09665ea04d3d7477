//! Ranking, and giving each measure its cause.

use dwell_messages::{Role, Span, TraceId, Value};

use super::baseline::Baseline;
use super::cause::{Cause, Ranked, Reason};
use super::measure::{Key, Measures, is_disk, number};
use crate::telemetry::{ATTR_ACTOR, ATTR_MESSAGE, semconv};
use crate::trace_file::{Trace, role_name};
use crate::waterfall::{call_span, clean};

/// Less than this beyond the usual, in microseconds, is never out of the ordinary ...
pub const UNUSUAL_MIN_US: u64 = 100;
/// ... nor is less than this part of the usual call, in per cent. Above both, what lies beyond the outlier's fence is.
const UNUSUAL_MIN_PERCENT: u64 = 5;
/// Actors beside the chain: a call does not wait in their mailboxes.
const BESIDE_ACTORS: [&str; 3] = ["TraceCollector", "RunRecorder", "MetadataWriter"];

/// Why a call took as long as it did.
#[derive(Clone, PartialEq, Debug)]
pub struct Explanation {
    /// The call's trace.
    pub trace_id: TraceId,
    /// The program's name without its directory, made printable; `None` when the trace does not say.
    pub program: Option<String>,
    /// How long the call took, in microseconds.
    pub total_us: u64,
    /// How long it usually takes, in microseconds; `None` without a usual.
    pub usual_total_us: Option<u64>,
    /// How many earlier calls were looked at.
    pub earlier_calls: usize,
    /// By what the reasons are ordered.
    pub ranked: Ranked,
    /// Whether the call has an account; without one, the reasons are spans of its critical path.
    pub has_account: bool,
    /// The most telling first. Work beside the call is never before what the call waited for, unless it is out of the
    /// ordinary.
    pub reasons: Vec<Reason>,
}

/// Explains a call, held against a usual. A trace without spans has no reasons.
pub fn explain(trace: &Trace, baseline: &Baseline) -> Explanation {
    let measures = Measures::of(trace);
    let total_us = measures.as_ref().map_or(0, |measures| measures.total_us);
    let mut reasons: Vec<_> = measures
        .iter()
        .flat_map(|measures| &measures.values)
        .map(|(key, us)| reason(trace, baseline, key, *us, total_us))
        .collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(rank(reason)));
    Explanation {
        trace_id: trace.trace_id,
        program: program(trace),
        total_us,
        usual_total_us: baseline.total_us(),
        earlier_calls: baseline.calls(),
        ranked: match (baseline.is_usual(), reasons.iter().any(|reason| reason.unusual)) {
            (true, true) => Ranked::ByExcess,
            (true, false) => Ranked::NothingUnusual,
            (false, _) => Ranked::NoUsual,
        },
        has_account: measures.is_some_and(|measures| measures.has_account),
        reasons,
    }
}

/// First what is out of the ordinary, by its excess; then what the call waited for, by its length; then the rest.
/// An excess beside the call counts half: the caller may not have felt it.
fn rank(reason: &Reason) -> (bool, u64, bool, u64) {
    let beside = reason.cause.is_beside();
    let excess = match (reason.unusual, beside) {
        (true, true) => reason.excess_us() / 2,
        (true, false) => reason.excess_us(),
        (false, _) => 0,
    };
    (reason.unusual, excess, !beside, reason.us)
}

fn reason(trace: &Trace, baseline: &Baseline, key: &Key, us: u64, total_us: u64) -> Reason {
    let usual = baseline.usual(key);
    let unusual = usual.is_some_and(|usual| {
        let least = UNUSUAL_MIN_US.max(baseline.total_us().unwrap_or(0) / 100 * UNUSUAL_MIN_PERCENT);
        us > usual.fence_us && us - usual.median_us.min(us) >= least
    });
    Reason {
        cause: cause(trace, key, us),
        us,
        usual_us: usual.map(|usual| usual.median_us),
        unusual,
        share_percent: if total_us == 0 {
            0.0
        } else {
            us as f64 * 100.0 / total_us as f64
        },
    }
}

fn cause(trace: &Trace, key: &Key, us: u64) -> Cause {
    match key {
        Key::Segment { machine, segment } => of_segment(trace, machine, segment, us),
        Key::Relay => Cause::Relay,
        Key::Distance => Cause::Distance,
        Key::Transit => Cause::Transit {
            relayed: trace
                .spans
                .iter()
                .any(|(_, span)| span.name == semconv::span::RELAY_HOP),
        },
        Key::Disk => Cause::Disk {
            what: longest(trace, |_, span| is_disk(span)).map_or_else(String::new, |span| clean(&span.name)),
            beside: true,
        },
        Key::Span { machine, name } => of_span(trace, machine, name),
    }
}

fn of_segment(trace: &Trace, machine: &str, segment: &str, us: u64) -> Cause {
    let owned = || machine.to_owned();
    match segment {
        "mailbox" => Cause::Mailbox {
            machine: owned(),
            actor: busiest(trace, machine, us, is_waited_for),
        },
        "admission" => Cause::Admission { machine: owned() },
        "dispatch" => Cause::Dispatch { machine: owned() },
        "spawn_queue" => Cause::SpawnQueue,
        "spawn" => Cause::Spawn,
        "run" => command(trace, us),
        "drain" => drain(trace, machine, us),
        "delivery" | "consume" => Cause::Delivery { machine: owned() },
        "submit" => Cause::HandOff,
        "outage" => Cause::Outage,
        "handler" => Cause::Handler { machine: owned() },
        "unattributed" => Cause::Unattributed { machine: owned() },
        // There the wait in the framer's mailbox is in it.
        "send" | "queue" if machine == "executor" => sending(trace, machine, segment, us),
        "send" | "queue" | "serialize" | "seal" | "write" => Cause::Sending {
            machine: owned(),
            segment: segment.to_owned(),
        },
        "receive" | "open" | "decode" | "hand_off" => Cause::Receiving {
            machine: owned(),
            segment: segment.to_owned(),
        },
        _ if segment.starts_with("mailbox.") => Cause::Mailbox {
            machine: owned(),
            actor: waited_for(segment)
                .map(str::to_owned)
                .or_else(|| busiest(trace, machine, us, |_, _| true)),
        },
        _ => Cause::Segment {
            machine: owned(),
            segment: segment.to_owned(),
        },
    }
}

/// The actor whose mailbox a segment of the chain names.
fn waited_for(segment: &str) -> Option<&'static str> {
    match segment {
        "mailbox.rpc" => Some("RpcQueue"),
        "mailbox.dispatcher" => Some("Dispatcher"),
        "mailbox.supervisor" => Some("ProcessSupervisor"),
        "mailbox.process" => Some("Process"),
        "mailbox.framer" => Some("RelayFramer"),
        "mailbox.delivery" => Some("TerminalDelivery"),
        _ => None,
    }
}

/// The command, unless most of its run was its output's way to a disk.
fn command(trace: &Trace, us: u64) -> Cause {
    let most = |name: &str| {
        let readers = trace.spans.iter().filter(|(_, span)| is_reader(span));
        readers
            .filter_map(|(_, span)| number(span, name))
            .max()
            .unwrap_or(0)
    };
    if is_most(most(semconv::STREAM_SPOOL_US), us) {
        return Cause::Disk {
            what: "spool".into(),
            beside: false,
        };
    }
    // While output goes to the spool the wait for credit is no wait of the command.
    let blocked_us = match most(semconv::STREAM_SPOOLED_BYTES) {
        0 => most(semconv::STREAM_CREDIT_WAIT_US)
            .saturating_add(most(semconv::STREAM_ROOM_WAIT_US))
            .saturating_add(most(semconv::STREAM_YIELDED_US)),
        _ => 0,
    };
    Cause::Command {
        blocked_us: blocked_us.min(us),
    }
}

/// A held pipe, unless the news of the end lay in a mailbox.
fn drain(trace: &Trace, machine: &str, us: u64) -> Cause {
    let told = |actor: &str, message: &str| actor == "Process" && matches!(message, "Exited" | "ReaderEnded");
    let (waited_us, actor) = residence(trace, machine, room(us), told).unzip();
    if is_most(waited_us.unwrap_or(0), us) {
        return Cause::Mailbox {
            machine: machine.to_owned(),
            actor,
        };
    }
    let ends = |name: &str| {
        let readers = trace.spans.iter().map(|(_, span)| span);
        readers
            .filter(|span| span.name == name)
            .max_by_key(|span| span.end_unix_ns)
    };
    let [stdout, stderr] = [semconv::span::STDOUT_READER, semconv::span::STDERR_READER].map(ends);
    let stream = match (stdout, stderr) {
        (None, None) => None,
        (Some(_), None) => Some("stdout"),
        (None, Some(_)) => Some("stderr"),
        (Some(out), Some(err)) => {
            let apart_us = out.end_unix_ns.abs_diff(err.end_unix_ns) / 1_000;
            if !is_most(apart_us, us) {
                Some("stdout and stderr")
            } else if out.end_unix_ns > err.end_unix_ns {
                Some("stdout")
            } else {
                Some("stderr")
            }
        }
    };
    let given_up =
        |reader: Option<&Span>| reader.is_some_and(|span| span.error.as_deref() == Some("drain_timeout"));
    Cause::HeldPipe {
        stream,
        given_up: given_up(stdout) || given_up(stderr),
    }
}

/// The way out, unless the message lay in the framer's mailbox first.
fn sending(trace: &Trace, machine: &str, segment: &str, us: u64) -> Cause {
    let framer = |actor: &str, _: &str| actor == "RelayFramer";
    // Of the answer to the start, which nobody waits for, there is one too: usually it has no room here.
    match residence(trace, machine, room(us), framer) {
        Some((waited_us, actor)) if is_most(waited_us, us) => Cause::Mailbox {
            machine: machine.to_owned(),
            actor: Some(actor),
        },
        Some(_) | None => Cause::Sending {
            machine: machine.to_owned(),
            segment: segment.to_owned(),
        },
    }
}

fn of_span(trace: &Trace, machine: &str, name: &str) -> Cause {
    let named = |role: Role, span: &Span| role_name(role) == machine && clean(&span.name) == name;
    let is_mailbox = |span: &&Span| span.name.starts_with("mailbox ");
    match longest(trace, named).filter(is_mailbox) {
        Some(span) => Cause::Mailbox {
            machine: machine.to_owned(),
            actor: actor(span),
        },
        None => Cause::Span {
            machine: machine.to_owned(),
            name: name.to_owned(),
        },
    }
}

/// The actor whose mailbox held a message longest, of those that held one no longer than the segment says there was to
/// hold; of all when none did.
fn busiest(trace: &Trace, machine: &str, us: u64, wanted: impl Fn(&str, &str) -> bool) -> Option<String> {
    let found =
        residence(trace, machine, room(us), &wanted).or_else(|| residence(trace, machine, u64::MAX, &wanted));
    found.map(|(_, actor)| actor)
}

/// The longest span that a segment can hold: both are read at the same stamps, but rounded apart.
fn room(us: u64) -> u64 {
    us.saturating_add(us / 10).saturating_add(50)
}

/// Whether a message's wait is in the chain's mailbox segments: the others came while the command ran, or are what the
/// framer's own segment is about.
fn is_waited_for(actor: &str, message: &str) -> bool {
    !matches!(
        (actor, message),
        ("RelayFramer", _)
            | ("Process", "Spawned" | "ReaderEnded" | "Exited")
            | ("RpcQueue", "Respond" | "Response")
            | ("TerminalDelivery", "Exited")
    )
}

/// The longest residence of at most `max_us` in a mailbox on a machine's chain, and whose mailbox that was.
fn residence(
    trace: &Trace,
    machine: &str,
    max_us: u64,
    wanted: impl Fn(&str, &str) -> bool,
) -> Option<(u64, String)> {
    let waits = trace.spans.iter().filter(|(role, span)| {
        role_name(*role) == machine
            && span.name.starts_with("mailbox ")
            && span.duration_ns() / 1_000 <= max_us
            && !text(span, ATTR_ACTOR).is_some_and(|actor| BESIDE_ACTORS.contains(&actor))
            && wanted(
                text(span, ATTR_ACTOR).unwrap_or_default(),
                text(span, ATTR_MESSAGE).unwrap_or_default(),
            )
    });
    let (_, span) = waits.max_by_key(|(_, span)| span.duration_ns())?;
    Some((span.duration_ns() / 1_000, actor(span)?))
}

fn longest(trace: &Trace, wanted: impl Fn(Role, &Span) -> bool) -> Option<&Span> {
    let found = trace.spans.iter().filter(|(role, span)| wanted(*role, span));
    found.map(|(_, span)| span).max_by_key(|span| span.duration_ns())
}

fn actor(span: &Span) -> Option<String> {
    text(span, ATTR_ACTOR)
        .or_else(|| span.name.strip_prefix("mailbox "))
        .map(clean)
}

fn program(trace: &Trace) -> Option<String> {
    let call = call_span(trace)?.span_id;
    let of_call = |_: Role, span: &Span| span.name == semconv::span::PROCESS && span.parent == call;
    longest(trace, of_call)
        .or_else(|| longest(trace, |_, span| span.name == semconv::span::PROCESS))
        .and_then(|span| text(span, semconv::PROCESS_EXECUTABLE_NAME))
        .map(clean)
}

fn is_reader(span: &Span) -> bool {
    span.name == semconv::span::STDOUT_READER || span.name == semconv::span::STDERR_READER
}

/// Whether a part is more than half of a whole.
fn is_most(part: u64, whole: u64) -> bool {
    part > whole / 2 && part > 0
}

fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    match span.attribute(name)? {
        Value::Str(text) => Some(text),
        Value::Bool(_) | Value::I64(_) | Value::F64(_) => None,
    }
}
