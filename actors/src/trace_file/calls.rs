//! The calls of a directory's files, one line each. Holds a few facts of each call, never its spans.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use dwell_messages::{Role, Span, TraceId, Value};

use super::error::TraceFileError;
use super::names::ROLES;
use super::reader::TraceLine;
use super::trace::{ROOT_SPAN_NAME, files, for_each_line};
use crate::telemetry::semconv::{self, span};

/// The most traces of which facts are held while files are read; past it the oldest are forgotten, and counted.
pub const CALLS_TRACES_MAX: usize = 16_384;
/// The most calls and processes of one trace: a long-lived parent may have many.
pub const CALLS_OF_TRACE_MAX: usize = 256;

/// What is known of one call without its spans.
#[derive(Clone, PartialEq, Debug)]
pub struct CallSummary {
    /// The trace it is part of.
    pub trace_id: TraceId,
    /// When it began, in Unix nanoseconds of the machine that asked.
    pub start_unix_ns: u64,
    /// From the call until its end was in the caller's hands, in nanoseconds.
    pub duration_ns: u64,
    /// The program's name without its directory; `None` when the process's span is not in the files.
    pub program: Option<String>,
    /// How it ended.
    pub status: CallStatus,
    /// The longest stretch of its account: machine, segment, microseconds.
    pub biggest: Option<(String, String, u64)>,
}

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallStatus {
    /// The command's own exit code.
    Exited(i64),
    /// The signal that ended the command.
    Signalled(i64),
    /// The call itself failed: its `error.type`.
    Failed(String),
    /// Without an error, and the command's status is not in the files.
    Ended,
}

/// The calls of a directory.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Calls {
    /// Newest first: by their place in the files, not by the clock, which steps.
    pub calls: Vec<CallSummary>,
    /// Older calls that were left out.
    pub omitted: u64,
    /// Lines passed over because they could not be read.
    pub unread_lines: u64,
}

/// The newest calls in a directory's files, at most `max`.
///
/// Reads each file once, at most [`super::READ_MAX_BYTES`] of it, and holds one line at a time and the facts of at most
/// [`CALLS_TRACES_MAX`] traces. Calls are looked for in the harness's files; in those of other roles only when these have
/// none.
///
/// # Errors
///
/// When a file that is there cannot be read. A line that cannot is counted.
pub fn list_calls(dir: &Path, max: usize) -> Result<Calls, TraceFileError> {
    for role in ROLES {
        let mut catalog = Catalog::default();
        let mut unread_lines = 0;
        for path in files(dir, role) {
            unread_lines += for_each_line(&path, |line| catalog.take(&line))?;
        }
        if catalog.seen_calls > 0 {
            return Ok(catalog.newest(max, unread_lines));
        }
    }
    Ok(Calls::default())
}

#[derive(Default)]
struct Catalog {
    held: HashMap<TraceId, Held>,
    order: VecDeque<TraceId>,
    seen_calls: u64,
}

/// What is held of one trace.
#[derive(Default)]
struct Held {
    calls: Vec<HeldCall>,
    processes: Vec<HeldProcess>,
    exits: Vec<([u8; 8], CallStatus)>,
}

struct HeldCall {
    place: u64,
    span_id: [u8; 8],
    summary: CallSummary,
}

struct HeldProcess {
    span_id: [u8; 8],
    parent: [u8; 8],
    program: String,
}

impl Catalog {
    fn take(&mut self, line: &TraceLine) {
        for one in &line.spans {
            match one.name.as_ref() {
                ROOT_SPAN_NAME => self.call(one),
                span::PROCESS if line.resource.role == Role::Executor => self.process(one),
                span::EXIT_WATCHER => self.exit(one),
                _ => {}
            }
        }
    }

    fn of(&mut self, trace_id: TraceId) -> &mut Held {
        if !self.held.contains_key(&trace_id) {
            if self.order.len() >= CALLS_TRACES_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.held.remove(&oldest);
            }
            self.order.push_back(trace_id);
        }
        self.held.entry(trace_id).or_default()
    }

    fn call(&mut self, span: &Span) {
        let place = self.seen_calls;
        self.seen_calls += 1;
        let summary = CallSummary {
            trace_id: span.trace(),
            start_unix_ns: span.start_unix_ns,
            duration_ns: span.duration_ns(),
            program: None,
            status: match &span.error {
                Some(error) => CallStatus::Failed(error.to_string()),
                None => CallStatus::Ended,
            },
            biggest: biggest(span),
        };
        let calls = &mut self.of(span.trace()).calls;
        if calls.len() >= CALLS_OF_TRACE_MAX {
            calls.remove(0);
        }
        calls.push(HeldCall {
            place,
            span_id: span.span_id,
            summary,
        });
    }

    fn process(&mut self, span: &Span) {
        let Some(Value::Str(program)) = span.attribute(semconv::PROCESS_EXECUTABLE_NAME) else {
            return;
        };
        let process = HeldProcess {
            span_id: span.span_id,
            parent: span.parent,
            program: program.to_string(),
        };
        push_bounded(&mut self.of(span.trace()).processes, process);
    }

    fn exit(&mut self, span: &Span) {
        let number = |name| match span.attribute(name) {
            Some(Value::I64(number)) => Some(*number),
            Some(Value::Bool(_) | Value::F64(_) | Value::Str(_)) | None => None,
        };
        let status = match (
            number(semconv::PROCESS_EXIT_CODE),
            number(semconv::PROCESS_SIGNAL),
        ) {
            (Some(code), _) => CallStatus::Exited(code),
            (None, Some(signal)) => CallStatus::Signalled(signal),
            (None, None) => return,
        };
        push_bounded(&mut self.of(span.trace()).exits, (span.parent, status));
    }

    fn newest(self, max: usize, unread_lines: u64) -> Calls {
        let mut calls: Vec<_> = self.held.into_values().flat_map(Held::joined).collect();
        calls.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        calls.truncate(max);
        Calls {
            omitted: self.seen_calls - calls.len() as u64,
            calls: calls.into_iter().map(|(_, summary)| summary).collect(),
            unread_lines,
        }
    }
}

impl Held {
    /// Every call with what its process's spans say of it.
    fn joined(self) -> Vec<(u64, CallSummary)> {
        let Self {
            calls,
            processes,
            exits,
        } = self;
        let complete = |mut call: HeldCall| {
            if let Some(process) = processes.iter().find(|process| process.parent == call.span_id) {
                call.summary.program = Some(process.program.clone());
                let exit = exits.iter().find(|(parent, _)| *parent == process.span_id);
                if let (CallStatus::Ended, Some((_, status))) = (&call.summary.status, exit) {
                    call.summary.status = status.clone();
                }
            }
            (call.place, call.summary)
        };
        calls.into_iter().map(complete).collect()
    }
}

fn push_bounded<T>(list: &mut Vec<T>, item: T) {
    if list.len() >= CALLS_OF_TRACE_MAX {
        list.remove(0);
    }
    list.push(item);
}

fn biggest(span: &Span) -> Option<(String, String, u64)> {
    crate::account::chain_segments(span)
        .filter(|(_, segment, _)| *segment != "total")
        .max_by_key(|(_, _, us)| *us)
        .map(|(machine, segment, us)| {
            (
                machine.to_owned(),
                segment.to_owned(),
                u64::try_from(us).unwrap_or(0),
            )
        })
}
