use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use dwell_actors::telemetry::semconv;
use dwell_actors::trace_file::{
    CALLS_OF_TRACE_MAX, CallStatus, ClockOffset, Named, READ_MAX_BYTES, Resource, TRACE_LINE_MAX_BYTES,
    TraceFile, TraceFileError, TraceLine, TracePrefix, current_path, find_trace, find_traces, last_trace,
    list_calls, read_traces, rotated_path,
};
use dwell_messages::{Role, Span, SpanKind, TraceId, Value};
use proptest::prelude::*;
use tempfile::tempdir;

use crate::spans::{TRACE, span, with_segments};

fn harness() -> Resource {
    Resource::new(Role::Harness, "agent")
}

fn of_trace(mut span: Span, trace: u8) -> Span {
    span.trace_id = [trace; 16];
    span
}

fn write(dir: &Path, resource: &Resource, spans: &[Span]) {
    TraceFile::open(dir, resource.role)
        .unwrap()
        .append(resource, spans)
        .unwrap();
}

fn read(path: &Path) -> Vec<TraceLine> {
    read_traces(path).unwrap().collect::<Result<_, _>>().unwrap()
}

fn append_text(path: &Path, text: &[u8]) {
    fs::OpenOptions::new()
        .append(true)
        .open(path)
        .unwrap()
        .write_all(text)
        .unwrap();
}

#[test]
fn a_line_has_the_shape_that_collectors_read() {
    let dir = tempdir().unwrap();
    let mut call = span(1, 0, "call", 0, 5);
    call.kind = SpanKind::Client;
    call.attributes = vec![
        ("a".into(), Value::I64(-3)),
        ("b".into(), Value::Bool(true)),
        ("c".into(), Value::F64(0.5)),
        ("d".into(), Value::Str("x\"y".into())),
    ];
    call.link = Some([9; 8]);
    call.error = Some("timeout".into());
    let clock = ClockOffset {
        offset_us: -7,
        error_us: 2,
    };
    write(
        dir.path(),
        &harness().with_clock(clock),
        &[call, span(2, 1, "rpc", 1, 2)],
    );

    let text = fs::read_to_string(current_path(dir.path(), Role::Harness)).unwrap();
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    let batch = &line["resourceSpans"][0];
    let text = |key: &str, value: &str| serde_json::json!({"key": key, "value": {"stringValue": value}});
    let int = |key: &str, value: &str| serde_json::json!({"key": key, "value": {"intValue": value}});
    assert_eq!(
        batch["resource"]["attributes"],
        serde_json::json!([
            text("service.name", "agent"),
            text("dwell.role", "harness"),
            int("clock.offset_us", "-7"),
            int("clock.error_us", "2"),
        ])
    );
    assert_eq!(batch["scopeSpans"][0]["scope"]["name"], "dwell");
    assert_eq!(
        batch["scopeSpans"][0]["spans"],
        serde_json::json!([
            {
                "traceId": "abababababababababababababababab", "spanId": "0101010101010101", "name": "call", "kind": 3,
                "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000000005000",
                "attributes": [
                    text("error.type", "timeout"), int("a", "-3"), {"key": "b", "value": {"boolValue": true}},
                    {"key": "c", "value": {"doubleValue": 0.5}}, text("d", "x\"y"),
                ],
                "links": [{"traceId": "abababababababababababababababab", "spanId": "0909090909090909"}],
                "status": {"code": 2},
            },
            {
                "traceId": "abababababababababababababababab", "spanId": "0202020202020202",
                "parentSpanId": "0101010101010101", "name": "rpc", "kind": 1,
                "startTimeUnixNano": "1700000000000001000", "endTimeUnixNano": "1700000000000003000", "attributes": [],
            },
        ])
    );
}

#[test]
fn a_resource_and_its_clock_survive_the_file() {
    let dir = tempdir().unwrap();
    let clock = ClockOffset {
        offset_us: i64::MIN,
        error_us: 12,
    };
    let resource = Resource::new(Role::Executor, "box")
        .with("host.arch", Value::Str("arm".into()))
        .with_clock(clock);
    write(dir.path(), &resource, &[span(1, 0, "call", 0, 5)]);
    let lines = read(&current_path(dir.path(), Role::Executor));
    assert_eq!(lines[0].resource, resource);
    assert_eq!(lines[0].resource.clock(), Some(clock));
}

#[test]
fn what_other_writers_put_into_such_a_file_is_read_as_far_as_it_is_understood() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("foreign.jsonl");
    let line = r#"{"resourceSpans":[{"schemaUrl":"x","resource":{"droppedAttributesCount":0,"attributes":[
        {"key":"dwell.role","value":{"stringValue":"relay"}}]},"scopeSpans":[{"spans":[{"traceId":
        "ABABABABABABABABABABABABABABABAB","spanId":"0101010101010101","parentSpanId":"","flags":257,"kind":5,
        "name":"n","startTimeUnixNano":7,"endTimeUnixNano":"9","status":{"code":2,"message":"m"},"events":[{}],
        "attributes":[{"key":"list","value":{"arrayValue":{"values":[]}}},{"key":"i","value":{"intValue":4}}]}]}]}]}"#;
    fs::write(&path, line.replace('\n', "") + "\n").unwrap();
    let lines = read(&path);
    let span = &lines[0].spans[0];
    assert_eq!(
        (span.trace(), span.start_unix_ns, span.end_unix_ns),
        (TRACE, 7, 9)
    );
    assert_eq!(span.attributes, [("i".into(), Value::I64(4))]);
    assert_eq!(span.error.as_deref(), Some("_OTHER"));
}

#[test]
fn a_torn_last_line_ends_the_reading_quietly() {
    let dir = tempdir().unwrap();
    let path = current_path(dir.path(), Role::Harness);
    write(dir.path(), &harness(), &[span(1, 0, "call", 0, 5)]);
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, [&whole[..], &whole[..cut]].concat()).unwrap();
        assert_eq!(read(&path).len(), 1, "cut at {cut}");
    }
}

#[test]
fn a_broken_line_is_named_and_those_behind_it_are_read() {
    let dir = tempdir().unwrap();
    let path = current_path(dir.path(), Role::Harness);
    write(dir.path(), &harness(), &[span(1, 0, "call", 0, 5)]);
    let offset = fs::metadata(&path).unwrap().len();
    append_text(&path, b"{\"resourceSpans\":[{}]}\n\n\xff\xfe\nnull\n");
    write(dir.path(), &harness(), &[span(2, 0, "call", 0, 5)]);
    let lines: Vec<_> = read_traces(&path).unwrap().collect();
    assert_eq!(lines.iter().filter(|line| line.is_ok()).count(), 2);
    assert!(lines[0].is_ok() && lines[4].is_ok());
    let named =
        matches!(&lines[1], Err(TraceFileError::Line { offset_bytes, .. }) if *offset_bytes == offset);
    assert!(named, "{:?}", lines[1]);
}

#[test]
fn a_writer_begins_a_new_line_behind_a_torn_one() {
    let dir = tempdir().unwrap();
    let path = current_path(dir.path(), Role::Harness);
    fs::write(&path, b"{\"resourceSp").unwrap();
    write(dir.path(), &harness(), &[span(1, 0, "call", 0, 5)]);
    let lines: Vec<_> = read_traces(&path).unwrap().collect();
    assert!(lines[0].is_err() && lines[1].is_ok() && lines.len() == 2);
}

#[test]
fn a_line_longer_than_any_of_ours_is_passed_over() {
    let dir = tempdir().unwrap();
    let path = current_path(dir.path(), Role::Harness);
    fs::write(
        &path,
        [vec![b'x'; TRACE_LINE_MAX_BYTES + 1], b"\n".to_vec()].concat(),
    )
    .unwrap();
    write(dir.path(), &harness(), &[span(1, 0, "call", 0, 5)]);
    let lines: Vec<_> = read_traces(&path).unwrap().collect();
    assert!(matches!(
        lines[0],
        Err(TraceFileError::LineTooLong { offset_bytes: 0, .. })
    ));
    assert!(lines[1].is_ok());
}

#[test]
fn the_longest_line_that_can_be_written_can_be_read() {
    let dir = tempdir().unwrap();
    let mut wide = span(1, 0, &"\u{1}".repeat(9_999), 0, 5);
    wide.attributes = (0..99)
        .map(|_| {
            (
                "\u{1}".repeat(9_999).into(),
                Value::Str("\u{1}".repeat(9_999).into()),
            )
        })
        .collect();
    write(dir.path(), &harness(), &vec![wide; 130]);
    let lines = read(&current_path(dir.path(), Role::Harness));
    assert_eq!(lines.iter().map(|line| line.spans.len()).sum::<usize>(), 130);
}

#[test]
fn of_a_file_past_the_bound_only_the_end_is_read() {
    let dir = tempdir().unwrap();
    let path = current_path(dir.path(), Role::Harness);
    write(dir.path(), &harness(), &[of_trace(span(1, 0, "call", 0, 5), 1)]);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(READ_MAX_BYTES).unwrap();
    append_text(&path, b"\n");
    write(dir.path(), &harness(), &[of_trace(span(2, 0, "call", 0, 5), 2)]);
    assert_eq!(read(&path).len(), 1);
    assert_eq!(
        last_trace(dir.path()).unwrap().unwrap().trace_id,
        TraceId([2; 16])
    );
}

#[test]
fn a_full_file_is_kept_once_and_a_new_one_begins() {
    let dir = tempdir().unwrap();
    let mut file = TraceFile::open(dir.path(), Role::Harness)
        .unwrap()
        .with_max_bytes(1);
    for id in 1..=3 {
        file.append(&harness(), &[span(id, 0, "call", 0, 5)]).unwrap();
    }
    let ids = |path: &Path| {
        read(path)
            .iter()
            .map(|line| line.spans[0].span_id[0])
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&rotated_path(dir.path(), Role::Harness)), [2]);
    assert_eq!(ids(&current_path(dir.path(), Role::Harness)), [3]);
}

#[test]
fn two_writers_lose_nothing_when_one_rotates_under_the_other() {
    let dir = tempdir().unwrap();
    let open = || {
        TraceFile::open(dir.path(), Role::Harness)
            .unwrap()
            .with_max_bytes(600)
    };
    let (mut first, mut second) = (open(), open());
    first.append(&harness(), &[span(1, 0, "call", 0, 5)]).unwrap();
    second.append(&harness(), &[span(2, 0, "call", 0, 5)]).unwrap();
    first.append(&harness(), &[span(3, 0, "call", 0, 5)]).unwrap();
    second.append(&harness(), &[span(4, 0, "call", 0, 5)]).unwrap();
    let count = |path: &Path| read(path).len();
    assert_eq!(count(&rotated_path(dir.path(), Role::Harness)), 2);
    assert_eq!(count(&current_path(dir.path(), Role::Harness)), 2);
}

#[test]
fn the_batches_of_many_writers_do_not_mix() {
    let dir = tempdir().unwrap();
    std::thread::scope(|scope| {
        for id in 1..=4_u8 {
            let dir = dir.path();
            scope.spawn(move || {
                let mut file = TraceFile::open(dir, Role::Harness).unwrap();
                for _ in 0..25 {
                    file.append(&harness(), &vec![span(id, 0, "call", 0, 5); 40])
                        .unwrap();
                }
            });
        }
    });
    let lines = read(&current_path(dir.path(), Role::Harness));
    assert_eq!(lines.len(), 100);
    assert!(
        lines
            .iter()
            .all(|line| line.spans.len() == 40 && line.spans.iter().all(|span| *span == line.spans[0]))
    );
}

#[test]
fn a_file_removed_under_its_writer_is_made_again() {
    let dir = tempdir().unwrap();
    let path = current_path(dir.path(), Role::Harness);
    let mut file = TraceFile::open(dir.path(), Role::Harness).unwrap();
    fs::remove_file(&path).unwrap();
    file.append(&harness(), &[span(1, 0, "call", 0, 5)]).unwrap();
    assert_eq!(read(&path).len(), 1);
}

#[test]
fn a_failed_write_is_an_error_and_the_next_batch_is_whole() {
    let dir = tempdir().unwrap();
    let path = current_path(dir.path(), Role::Harness);
    let mut file = TraceFile::open(dir.path(), Role::Harness).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let refused = file.append(&harness(), &[span(1, 0, "call", 0, 5)]);
    assert!(
        matches!(refused, Err(TraceFileError::NotAFile { .. })),
        "{refused:?}"
    );
    fs::remove_dir(&path).unwrap();
    file.append(&harness(), &[span(2, 0, "call", 0, 5)]).unwrap();
    assert_eq!(read(&path).len(), 1);
}

#[test]
fn a_trace_file_is_private_and_never_a_link() {
    let dir = tempdir().unwrap();
    let home = dir.path().join("a/b");
    write(&home, &harness(), &[span(1, 0, "call", 0, 5)]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&current_path(&home, Role::Harness)), 0o600);
    assert_eq!(mode(&home), 0o700);

    let target = dir.path().join("target");
    symlink(&target, current_path(dir.path(), Role::Relay)).unwrap();
    let refused = TraceFile::open(dir.path(), Role::Relay);
    assert!(matches!(refused, Err(TraceFileError::NotAFile { .. })));
    assert!(!target.exists());
}

#[test]
fn the_last_trace_is_the_last_in_the_file_whatever_the_clock_says() {
    let dir = tempdir().unwrap();
    write(
        dir.path(),
        &harness(),
        &[of_trace(span(1, 0, "call", 9_000_000, 5), 1)],
    );
    write(dir.path(), &harness(), &[of_trace(span(2, 0, "call", 0, 5), 2)]);
    write(dir.path(), &harness(), &[of_trace(span(3, 0, "flush", 0, 5), 3)]);
    assert_eq!(
        last_trace(dir.path()).unwrap().unwrap().trace_id,
        TraceId([2; 16])
    );
}

#[test]
fn a_trace_is_gathered_from_every_file_and_role_each_span_once() {
    let dir = tempdir().unwrap();
    let clock = ClockOffset {
        offset_us: 5,
        error_us: 1,
    };
    let executor = Resource::new(Role::Executor, "box");
    let mut file = TraceFile::open(dir.path(), Role::Harness).unwrap();
    file.append(
        &harness(),
        &[span(1, 0, "call", 0, 5), of_trace(span(8, 0, "other", 0, 5), 8)],
    )
    .unwrap();
    file.append(&executor.clone().with_clock(clock), &[span(2, 1, "spawn", 1, 2)])
        .unwrap();
    write(
        dir.path(),
        &executor,
        &[span(2, 1, "spawn", 1, 2), span(3, 1, "drain", 3, 1)],
    );
    fs::rename(
        current_path(dir.path(), Role::Executor),
        rotated_path(dir.path(), Role::Executor),
    )
    .unwrap();
    append_text(&current_path(dir.path(), Role::Harness), b"garbage\n");

    let trace = last_trace(dir.path()).unwrap().unwrap();
    let mut found: Vec<_> = trace
        .spans
        .iter()
        .map(|(role, span)| (*role, span.span_id[0]))
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [(Role::Harness, 1), (Role::Executor, 2), (Role::Executor, 3)]
    );
    assert_eq!(trace.offsets, [(Role::Executor, clock)]);
    assert_eq!(trace.unread_lines, 1);
    assert_eq!(find_trace(dir.path(), TraceId([7; 16])).unwrap(), None);
}

#[test]
fn a_directory_without_traces_has_no_last_one() {
    let dir = tempdir().unwrap();
    assert_eq!(last_trace(dir.path()).unwrap(), None);
    assert_eq!(last_trace(&dir.path().join("missing")).unwrap(), None);
}

/// A call, its process and the news of its end, as they come: the process's spans before the call's.
fn write_call(dir: &Path, trace: u8, ids: [u8; 3], program: &'static str, exit: (&'static str, i64)) {
    let [call, process, watcher] = ids;
    let mut watcher = of_trace(span(watcher, process, "exit watcher", 0, 1), trace);
    watcher.attributes = vec![(exit.0.into(), Value::I64(exit.1))];
    let mut process = of_trace(span(process, call, "process", 0, 4), trace);
    process.attributes = vec![("process.executable.name".into(), Value::Str(program.into()))];
    let executor = Resource::new(Role::Executor, "box");
    let mut file = TraceFile::open(dir, Role::Harness).unwrap();
    file.append(&executor, &[watcher, process]).unwrap();
    let segments = [("harness.send", 2), ("executor.run", 30), ("executor.total", 40)];
    let call = of_trace(with_segments(span(call, 0, "call", 0, 50), &segments), trace);
    file.append(&harness(), &[call]).unwrap();
}

#[test]
fn calls_are_listed_newest_first_with_what_their_processes_say() {
    let dir = tempdir().unwrap();
    write_call(dir.path(), 1, [1, 2, 3], "sh", ("process.exit.code", 3));
    write_call(dir.path(), 2, [4, 5, 6], "cat", (semconv::PROCESS_SIGNAL, 9));
    let mut failed = of_trace(span(7, 0, "call", 0, 5), 3);
    failed.error = Some("timeout".into());
    write(dir.path(), &harness(), &[failed]);
    append_text(&current_path(dir.path(), Role::Harness), b"garbage\n");

    let listed = list_calls(dir.path(), 10).unwrap();
    let shown: Vec<_> = listed
        .calls
        .iter()
        .map(|call| (call.trace_id.0[0], call.program.as_deref(), call.status.clone()))
        .collect();
    assert_eq!(
        shown,
        [
            (3, None, CallStatus::Failed("timeout".into())),
            (2, Some("cat"), CallStatus::Signalled(9)),
            (1, Some("sh"), CallStatus::Exited(3)),
        ]
    );
    assert_eq!(
        listed.calls[1].biggest,
        Some(("executor".into(), "run".into(), 30)),
        "a total is no segment"
    );
    assert_eq!((listed.omitted, listed.unread_lines), (0, 1));
    let newest = list_calls(dir.path(), 1).unwrap();
    assert_eq!((newest.calls.len(), newest.omitted), (1, 2));
}

#[test]
fn calls_of_one_trace_are_told_apart_and_of_too_many_the_newest_are_held() {
    let dir = tempdir().unwrap();
    write_call(dir.path(), 1, [1, 2, 3], "first", ("process.exit.code", 1));
    write_call(dir.path(), 1, [4, 5, 6], "second", ("process.exit.code", 2));
    let listed = list_calls(dir.path(), 10).unwrap().calls;
    let programs: Vec<_> = listed.iter().map(|call| call.program.clone().unwrap()).collect();
    assert_eq!(programs, ["second", "first"]);
    assert_eq!(listed[1].status, CallStatus::Exited(1));

    let many: Vec<_> = (0..2 * CALLS_OF_TRACE_MAX)
        .map(|_| of_trace(span(9, 0, "call", 0, 5), 1))
        .collect();
    write(dir.path(), &harness(), &many);
    let listed = list_calls(dir.path(), usize::MAX).unwrap();
    assert_eq!(listed.calls.len(), CALLS_OF_TRACE_MAX);
    assert_eq!(listed.omitted as usize, 2 + CALLS_OF_TRACE_MAX);
}

#[test]
fn the_first_digits_name_a_trace_when_no_other_begins_with_them() {
    let dir = tempdir().unwrap();
    for (id, first) in [(1, 0xab), (2, 0xac), (3, 0x10)] {
        write(
            dir.path(),
            &harness(),
            &[of_trace(span(id, 0, "call", 0, 5), first)],
        );
    }
    let named = |text: &str| TracePrefix::parse(text).unwrap().resolve(dir.path()).unwrap();
    assert_eq!(named("AB"), Named::One(TraceId([0xab; 16])));
    assert_eq!(named("1"), Named::One(TraceId([0x10; 16])));
    assert_eq!(
        named("a"),
        Named::Ambiguous(vec![TraceId([0xab; 16]), TraceId([0xac; 16])])
    );
    assert_eq!(named("abc"), Named::None);
    assert_eq!(named(&"0".repeat(32)), Named::One(TraceId([0; 16])));
    for wrong in ["", "xyz", "+1", &"a".repeat(33)] {
        assert!(TracePrefix::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_ambiguous_prefix_names_a_few_of_the_newest() {
    let dir = tempdir().unwrap();
    let spans: Vec<_> = (0..200)
        .map(|trace| {
            let mut one = of_trace(span(1, 0, "call", 0, 5), trace);
            one.trace_id[0] = 7;
            one
        })
        .collect();
    write(dir.path(), &harness(), &spans);
    let Named::Ambiguous(ids) = TracePrefix::parse("07").unwrap().resolve(dir.path()).unwrap() else {
        panic!("it is ambiguous")
    };
    assert!(ids.len() <= 8 && ids.last().unwrap().0[1] == 199, "{ids:?}");
}

#[test]
fn several_traces_are_gathered_in_the_order_asked_for_and_each_within_its_bound() {
    let dir = tempdir().unwrap();
    for trace in 1..=3 {
        let spans: Vec<_> = (1..=5)
            .map(|id| of_trace(span(id, 0, "x", 0, 5), trace))
            .collect();
        write(dir.path(), &harness(), &spans);
    }
    let found = find_traces(dir.path(), &[3, 9, 1].map(|id| TraceId([id; 16])), 4).unwrap();
    let shape: Vec<_> = found
        .iter()
        .map(|trace| (trace.trace_id.0[0], trace.spans.len(), trace.omitted_spans))
        .collect();
    assert_eq!(shape, [(3, 4, 1), (1, 4, 1)]);
}

/// Found by the test below: whoever did not get the lock appended for as long as somebody else held it.
#[test]
fn a_file_that_somebody_stopped_over_takes_an_eighth_more_and_then_nothing_until_it_is_let_go() {
    const MAX_BYTES: u64 = 20_000;
    let dir = tempdir().unwrap();
    let path = current_path(dir.path(), Role::Harness);
    let mut file = TraceFile::open(dir.path(), Role::Harness)
        .unwrap()
        .with_max_bytes(MAX_BYTES);
    let stopped = fs::File::open(&path).unwrap();
    stopped.lock().unwrap();
    let batch = [span(1, 0, "call", 0, 5)];
    let appended = (0..10_000).take_while(|_| file.append(&harness(), &batch).is_ok());
    assert!(appended.count() < 10_000);
    let length = fs::metadata(&path).unwrap().len();
    let batch_bytes = fs::read_to_string(&path).unwrap().lines().next().unwrap().len() as u64 + 1;
    assert!(length <= MAX_BYTES + MAX_BYTES / 8 + batch_bytes, "{length}");
    let refused = file.append(&harness(), &batch);
    assert!(matches!(refused, Err(TraceFileError::Full { .. })), "{refused:?}");

    drop(stopped);
    file.append(&harness(), &batch).unwrap();
    assert_eq!(read(&path).len(), 1);
    assert_eq!(
        fs::metadata(rotated_path(dir.path(), Role::Harness))
            .unwrap()
            .len(),
        length
    );
}

#[test]
fn however_much_is_written_by_however_many_the_files_of_a_role_stay_within_their_bound() {
    const MAX_BYTES: u64 = 20_000;
    const WRITERS: u64 = 4;
    let dir = tempdir().unwrap();
    let batch: Vec<_> = (1..=10).map(|id| span(id, 0, "call", 0, 5)).collect();
    let sizes = |dir: &Path| {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| entry.metadata().unwrap().len())
            .collect::<Vec<_>>()
    };
    write(dir.path(), &harness(), &batch);
    let batch_bytes = sizes(dir.path())[0];
    let largest = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut file = TraceFile::open(dir.path(), Role::Harness)
                        .unwrap()
                        .with_max_bytes(MAX_BYTES);
                    (0..100)
                        .map(|_| {
                            match file.append(&harness(), &batch) {
                                Ok(()) | Err(TraceFileError::Full { .. }) => {}
                                Err(error) => panic!("{error}"),
                            }
                            // Between two looks a file may get another name: only what is named now is added up.
                            let named =
                                [current_path, rotated_path].map(|path| path(dir.path(), Role::Harness));
                            named
                                .iter()
                                .filter_map(|path| fs::metadata(path).ok())
                                .map(|file| file.len())
                                .max()
                        })
                        .max()
                        .flatten()
                })
            })
            .collect();
        writers
            .into_iter()
            .filter_map(|writer| writer.join().unwrap())
            .max()
    });
    // An eighth beside who rotates, and each writer may be on its way with one batch when the bound is reached.
    let bound = MAX_BYTES + MAX_BYTES / 8 + WRITERS * batch_bytes;
    assert!(largest.unwrap() <= bound, "{largest:?} of {bound}");
    assert_eq!(sizes(dir.path()).len(), 2, "one file and the one before it");
    let before = rotated_path(dir.path(), Role::Harness);
    assert!(
        fs::metadata(&before).unwrap().len() >= MAX_BYTES,
        "only a full file gives way"
    );
    for path in [before, current_path(dir.path(), Role::Harness)] {
        assert!(
            !read(&path).is_empty(),
            "every line of {} can be read",
            path.display()
        );
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        // The JSON reader may be off by the last bit of a long fraction; telemetry has no use for it.
        any::<i32>().prop_map(|n| Value::F64(f64::from(n) / 8.0)),
        Just(Value::F64(f64::NEG_INFINITY)),
        ".{0,20}".prop_map(|text| Value::Str(text.into())),
    ]
}

prop_compose! {
    fn any_span()(
        trace_id: [u8; 16], span_id: [u8; 8], parent: [u8; 8], name in ".{0,20}", kind in 0..3_usize,
        start_unix_ns: u64, end_unix_ns: u64, link: Option<[u8; 8]>, error in proptest::option::of("[a-z]{0,9}"),
        attributes in proptest::collection::vec(("[a-z.]{1,9}", any_value()), 0..6),
    ) -> Span {
        Span {
            trace_id, span_id, parent, name: name.into(),
            kind: [SpanKind::Internal, SpanKind::Client, SpanKind::Server][kind],
            start_unix_ns, end_unix_ns, link, error: error.map(Into::into),
            attributes: attributes.into_iter().map(|(key, value)| (key.into(), value)).collect(),
        }
    }
}

proptest! {
    #[test]
    fn every_span_survives_the_file(spans in proptest::collection::vec(any_span(), 1..80)) {
        let dir = tempdir().unwrap();
        write(dir.path(), &harness(), &spans);
        let read: Vec<_> = read(&current_path(dir.path(), Role::Harness)).into_iter().flat_map(|line| line.spans).collect();
        prop_assert_eq!(read, spans);
    }

    #[test]
    fn any_bytes_are_read_to_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let dir = tempdir().unwrap();
        let path = dir.path().join("bytes");
        fs::write(&path, &bytes).unwrap();
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        prop_assert!(read_traces(&path).unwrap().count() <= lines);
    }
}
