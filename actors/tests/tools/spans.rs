//! Spans for tests, by hand: one microsecond is the unit.

use dwell_actors::trace_file::{ClockOffset, Trace};
use dwell_messages::{Role, Span, SpanKind, TraceId, Value};

pub(crate) const TRACE: TraceId = TraceId([0xab; 16]);
/// When the root begins, in Unix nanoseconds.
pub(crate) const BEGIN_NS: u64 = 1_700_000_000_000_000_000;

/// A span from `start_us` for `length_us`, both relative to [`BEGIN_NS`].
pub(crate) fn span(id: u8, parent: u8, name: &str, start_us: i64, length_us: u64) -> Span {
    let start = BEGIN_NS.saturating_add_signed(start_us * 1000);
    Span {
        trace_id: TRACE.0,
        span_id: [id; 8],
        parent: [parent; 8],
        name: name.to_owned().into(),
        kind: SpanKind::Internal,
        start_unix_ns: start,
        end_unix_ns: start + length_us * 1000,
        attributes: Vec::new(),
        link: None,
        error: None,
    }
}

pub(crate) fn with_segments(mut span: Span, segments: &[(&str, i64)]) -> Span {
    let attributes = segments
        .iter()
        .map(|(name, us)| (format!("chain.{name}_us").into(), Value::I64(*us)));
    span.attributes.extend(attributes);
    span
}

pub(crate) fn trace(spans: Vec<(Role, Span)>) -> Trace {
    Trace {
        trace_id: TRACE,
        spans,
        offsets: Vec::new(),
        omitted_spans: 0,
        unread_lines: 0,
    }
}

/// A whole call through a relay, the executor's clock 500 ms ahead and its error 40 µs.
pub(crate) fn call() -> Trace {
    use Role::{Executor, Harness, Relay};
    let ahead = 500_000;
    let root = with_segments(
        span(1, 0, "call", 0, 4_200),
        &[
            ("harness.dispatch", 31),
            ("harness.encode", 12),
            ("harness.write", 40),
            ("harness.unattributed", 4),
            ("transit.both_ways", 1_180),
            ("executor.admission", 9),
            ("executor.mailbox", 21),
            ("executor.spawn", 640),
            ("executor.run", 1_900),
            ("executor.drain", 310),
            ("executor.delivery", 22),
            ("executor.unattributed", 6),
        ],
    );
    let mut failed = span(14, 9, "stderr reader", ahead + 1_300, 1_800);
    failed.error = Some("pipe_closed".into());
    let spans = vec![
        (Harness, root),
        (Harness, span(2, 1, "mailbox Dispatcher", 3, 28)),
        (Harness, span(3, 1, "turn Dispatcher", 31, 9)),
        (Harness, span(4, 1, "rpc", 45, 4_100)),
        (Harness, span(5, 4, "mailbox RelayFramer", 50, 180)),
        (Harness, span(6, 4, "response wait", 260, 3_800)),
        (Relay, span(7, 4, "relay residence", 420, 60)),
        (Executor, span(8, 4, "Executor/StartProcess", ahead + 600, 700)),
        (Executor, span(9, 8, "process", ahead + 640, 2_900)),
        (
            Executor,
            span(10, 8, "mailbox ProcessSupervisor", ahead + 605, 21),
        ),
        (Executor, span(11, 8, "turn ProcessSupervisor", ahead + 626, 14)),
        (Executor, span(12, 9, "spawn", ahead + 640, 640)),
        (Executor, span(13, 9, "stdout reader", ahead + 1_290, 2_200)),
        (Executor, failed),
        (Executor, span(15, 9, "exit watcher", ahead + 1_280, 1_900)),
        (
            Executor,
            span(16, 9, "mailbox TerminalDelivery", ahead + 3_490, 45),
        ),
    ];
    let clock = ClockOffset {
        offset_us: ahead,
        error_us: 40,
    };
    Trace {
        offsets: vec![(Executor, clock)],
        ..trace(spans)
    }
}
