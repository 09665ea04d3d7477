//! Clocks that step, run backwards and disagree: nothing is negative and nothing overflows.

use dwell_actors::telemetry::{Anchor, ClockOffset, FileSink, Record, SpanSink as _, Stage, Tick};
use dwell_actors::trace_file;
use dwell_actors::waterfall::{Options, render, to_json};
use dwell_messages::{Role, TraceFlags};

use crate::support::{context, span};

#[test]
fn no_duration_is_negative_whatever_clocks_do() {
    let anchor = Anchor::take();
    let context = context(5, TraceFlags::SAMPLED);
    let ticks = [0, 1, Tick::now().to_raw(), u64::MAX / 2, u64::MAX - 1, u64::MAX].map(Tick::from_raw);
    for start in ticks {
        for end in ticks {
            let stage = Stage::new(&context, "a stage", start, end).into_span(&anchor);
            assert!(stage.end_unix_ns >= stage.start_unix_ns);
            let record = Record {
                enqueued: start.to_raw(),
                dequeued: end.to_raw(),
                turn_ticks: u32::MAX,
                ..Record::new(&context, [1; 8], 0, 0)
            };
            for span in [record.residence(&anchor), record.turn(&anchor)] {
                assert!(span.end_unix_ns >= span.start_unix_ns, "{span:?}");
            }
        }
    }
}

#[test]
fn an_offset_at_its_limits_is_written_read_and_drawn() {
    for (offset_us, error_us) in [
        (i64::MIN, u64::MAX - 1),
        (i64::MAX, u64::MAX - 1),
        (i64::MIN, 0),
        (-3_600_000_000, 5),
        (i64::MAX, u64::MAX),
    ] {
        let dir = tempfile::TempDir::new().unwrap();
        let mut file = FileSink::open(dir.path(), Role::Harness).unwrap();
        let mut call = span(1);
        (call.name, call.parent) = ("call".into(), [0; 8]);
        let mut far = span(1);
        (far.span_id, far.parent) = ([0xee; 8], call.span_id);
        (far.start_unix_ns, far.end_unix_ns) = (u64::MAX - 5, u64::MAX);
        let mut near = far.clone();
        (near.span_id, near.start_unix_ns, near.end_unix_ns) = ([0xef; 8], 0, u64::MAX);
        let clock = ClockOffset { offset_us, error_us };
        file.export(Role::Executor, Some(clock), &[far, near]).unwrap();
        file.export(Role::Harness, None, &[call]).unwrap();
        file.flush().unwrap();
        let trace = trace_file::last_trace(dir.path()).unwrap().unwrap();
        assert_eq!(trace.spans.len(), 3);
        let options = Options {
            width: 100,
            color: false,
            ascii: false,
        };
        assert!(!render(&trace, &options).is_empty());
        assert!(to_json(&trace).is_object());
    }
}
