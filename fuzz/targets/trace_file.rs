//! Trace files, which other tools and torn writes leave behind: what is read can be written, and is then read as it was.
//! Whatever is in them can be listed, drawn, explained and exported, and every export is well formed.
#![no_main]

use std::collections::BTreeSet;
use std::path::Path;

use dwell_actors::trace_export::{Format, export};
use dwell_actors::trace_file::{
    Trace, TraceFile, TraceLine, TracePrefix, find_trace, find_traces, last_trace, list_calls, read_traces,
};
use dwell_actors::trace_why::{self, Baseline, explain};
use dwell_actors::waterfall::{Options, render, to_json};
use dwell_fuzz::{scratch, scratch_file};
use dwell_messages::{Role, TraceId};
use libfuzzer_sys::fuzz_target;

fn read(path: &Path, lines_max: usize) -> Vec<TraceLine> {
    let mut errors = 0;
    let mut batches = Vec::new();
    for line in read_traces(path).expect("the file is there") {
        match line {
            Ok(batch) => batches.push(batch),
            Err(error) => {
                assert!(error.is_line(), "{error}");
                errors += 1;
            }
        }
    }
    assert!(errors <= lines_max, "no more is wrong than there are lines");
    batches
}

/// Writes batches to a fresh file, and what is read of it.
fn written(batches: &[TraceLine], name: &str) -> Vec<TraceLine> {
    let dir = scratch().join(name);
    let path = dwell_actors::trace_file::current_path(&dir, Role::Executor);
    // Not there the first time.
    drop(std::fs::remove_file(&path));
    let mut file = TraceFile::open(&dir, Role::Executor).expect("a scratch file can be made");
    for batch in batches {
        file.append(&batch.resource, &batch.spans)
            .expect("what was read can be written");
    }
    read(&path, 0)
}

/// How many traces of one input are looked at.
const TRACES_MAX: usize = 8;

fn consult(trace: &Trace, baseline: &Baseline) {
    let options = Options {
        width: 80,
        color: true,
        ascii: true,
    };
    render(trace, &options);
    to_json(trace);
    let explained = explain(trace, baseline);
    assert!(explained.reasons.iter().all(|reason| reason.share_percent.is_finite()));
    trace_why::render(&explained, false);
    trace_why::to_json(&explained);
    for format in [Format::OtlpJson, Format::JaegerJson, Format::Perfetto] {
        let text = export(trace, format);
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{format:?}: {text}");
    }
    let page = export(trace, Format::Html);
    assert_eq!(page.matches("<script").count(), 2, "no span begins a script");
    assert_eq!(page.matches("</script").count(), 2, "no span ends one");
}

/// Everything that `dwell trace` does with what is in the files.
fn consult_all(batches: &[TraceLine], lines: usize) {
    let listed = list_calls(scratch(), usize::MAX).expect("the file is there");
    assert!(listed.unread_lines as usize <= lines);
    let spans = batches.iter().flat_map(|batch| &batch.spans);
    let ids: BTreeSet<_> = spans.map(|span| span.trace_id).collect();
    let ids: Vec<_> = ids.into_iter().take(TRACES_MAX).map(TraceId).collect();
    let traces = find_traces(scratch(), &ids, 1_000).expect("the file is there");
    assert_eq!(traces.len(), ids.len(), "every span is of a trace that can be found");
    for (trace, id) in traces.iter().zip(&ids) {
        let digits = TracePrefix::parse(&id.to_string()[..8]).expect("these are digits");
        assert!(digits.begins(*id));
        digits.resolve(scratch()).expect("the file is there");
        consult(trace, &Baseline::none());
        consult(trace, &Baseline::of(traces.iter().cycle().take(TRACES_MAX)));
        Baseline::load(scratch(), trace).expect("the file is there");
    }
}

fuzz_target!(|data: &[u8]| {
    let lines = data.iter().filter(|byte| **byte == b'\n').count();
    let batches = read(&scratch_file("traces-harness.jsonl", data), lines);
    if let Some(trace) = last_trace(scratch()).expect("the file is there") {
        assert!(trace.unread_lines as usize <= lines);
        let same = find_trace(scratch(), trace.trace_id).expect("the file is there");
        assert_eq!(format!("{same:?}"), format!("{:?}", Some(&trace)));
    }
    if batches.is_empty() {
        return;
    }
    consult_all(&batches, lines);
    // What is longer than we write is cut, once; then it is the same for ever. Through text: a NaN equals itself there.
    let once = written(&batches, "once");
    let twice = written(&once, "twice");
    assert_eq!(format!("{once:?}"), format!("{twice:?}"));
    let spans = |batches: &[TraceLine]| batches.iter().map(|batch| batch.spans.len()).sum::<usize>();
    assert_eq!(spans(&once), spans(&batches), "no span is lost on the way");
});
