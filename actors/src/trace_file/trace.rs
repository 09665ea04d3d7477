//! One trace put together from the files of a directory.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use dwell_messages::{Role, Span, TraceId};

use super::error::TraceFileError;
use super::names::{ROLES, current_path, rotated_path};
use super::reader::{TraceLine, read_traces};
use super::resource::ClockOffset;
use crate::telemetry::semconv;

/// The name of a call's outermost span.
pub const ROOT_SPAN_NAME: &str = semconv::span::CALL;
/// The most spans of one trace that are held; more are counted.
pub const TRACE_SPANS_MAX: usize = 20_000;

/// The spans of one trace, with who made each.
#[derive(Clone, PartialEq, Debug)]
pub struct Trace {
    /// Its id.
    pub trace_id: TraceId,
    /// Its spans, each once, in the order of the files.
    pub spans: Vec<(Role, Span)>,
    /// How far each role's clock is from the harness's, where it is known.
    pub offsets: Vec<(Role, ClockOffset)>,
    /// Spans left out because there were more than [`TRACE_SPANS_MAX`].
    pub omitted_spans: u64,
    /// Lines passed over because they could not be read; some may have been of this trace.
    pub unread_lines: u64,
}

/// The trace of the newest call in a directory's files, newest by place in the file and not by the clock, which steps.
///
/// `None` when there is none. Reads each file twice, at most [`super::READ_MAX_BYTES`] of it, and holds one line at a
/// time and the spans of one trace.
///
/// # Errors
///
/// When a file that is there cannot be read. A line that cannot is counted in the trace.
pub fn last_trace(dir: &Path) -> Result<Option<Trace>, TraceFileError> {
    for role in ROLES {
        if let Some(trace_id) = last_call(dir, role)? {
            return find_trace(dir, trace_id);
        }
    }
    Ok(None)
}

/// The trace of this id in a directory's files; `None` when they hold no span of it.
///
/// # Errors
///
/// As [`last_trace`].
pub fn find_trace(dir: &Path, trace_id: TraceId) -> Result<Option<Trace>, TraceFileError> {
    Ok(find_traces(dir, &[trace_id], TRACE_SPANS_MAX)?.pop())
}

/// The traces of these ids in a directory's files, in this order, without those of which there is no span. Reads each
/// file once. Holds at most `spans_max` spans of each trace.
///
/// # Errors
///
/// As [`last_trace`].
pub fn find_traces(dir: &Path, ids: &[TraceId], spans_max: usize) -> Result<Vec<Trace>, TraceFileError> {
    let mut gathered: HashMap<TraceId, (Trace, HashSet<[u8; 8]>)> = HashMap::new();
    let mut unread_lines = 0;
    for id in ids {
        gathered
            .entry(*id)
            .or_insert_with(|| (Trace::empty(*id), HashSet::new()));
    }
    for path in ROLES.into_iter().flat_map(|role| files(dir, role)) {
        unread_lines += for_each_line(&path, |line| {
            let clock = line.resource.clock();
            let role = line.resource.role;
            for span in line.spans {
                if let Some((trace, seen)) = gathered.get_mut(&span.trace()) {
                    trace.take(seen, role, clock, span, spans_max);
                }
            }
        })?;
    }
    let found = ids.iter().filter_map(|id| gathered.remove(id));
    Ok(found
        .map(|(trace, _)| Trace {
            unread_lines,
            ..trace
        })
        .filter(|trace| !trace.spans.is_empty())
        .collect())
}

impl Trace {
    /// A trace of which there is nothing yet.
    pub fn empty(trace_id: TraceId) -> Self {
        Self {
            trace_id,
            spans: Vec::new(),
            offsets: Vec::new(),
            omitted_spans: 0,
            unread_lines: 0,
        }
    }

    fn take(
        &mut self,
        seen: &mut HashSet<[u8; 8]>,
        role: Role,
        clock: Option<ClockOffset>,
        span: Span,
        spans_max: usize,
    ) {
        if self.spans.len() >= spans_max {
            self.omitted_spans += 1;
        } else if seen.insert(span.span_id) {
            // Once only: what an executor on this machine wrote itself came back behind the call as well.
            self.spans.push((role, span));
        }
        if let Some(clock) = clock {
            self.offsets.retain(|(known, _)| *known != role);
            self.offsets.push((role, clock));
        }
    }
}

fn last_call(dir: &Path, role: Role) -> Result<Option<TraceId>, TraceFileError> {
    // The older file is read only when the newer has no call.
    for path in files(dir, role).into_iter().rev() {
        let mut last = None;
        for_each_line(&path, |line| {
            let call = line.spans.iter().rev().find(|span| span.name == ROOT_SPAN_NAME);
            last = call.map(Span::trace).or(last);
        })?;
        if last.is_some() {
            return Ok(last);
        }
    }
    Ok(None)
}

/// Oldest first.
pub(super) fn files(dir: &Path, role: Role) -> [PathBuf; 2] {
    [rotated_path(dir, role), current_path(dir, role)]
}

/// Hands on every line that can be read; the answer counts the others.
pub(super) fn for_each_line(path: &Path, mut take: impl FnMut(TraceLine)) -> Result<u64, TraceFileError> {
    let lines = match read_traces(path) {
        Ok(lines) => lines,
        Err(TraceFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut unread = 0;
    for line in lines {
        match line {
            Ok(line) => take(line),
            Err(error) if error.is_line() => unread += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(unread)
}
