//! One trace put together from the files of a directory.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use dwell_messages::{Role, Span, TraceId};

use super::error::TraceFileError;
use super::names::{ROLES, current_path, rotated_path};
use super::reader::{TraceLine, read_traces};
use super::resource::ClockOffset;

/// The name of a call's outermost span.
pub const ROOT_SPAN_NAME: &str = "call";
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
    let mut trace = Trace {
        trace_id,
        spans: Vec::new(),
        offsets: Vec::new(),
        omitted_spans: 0,
        unread_lines: 0,
    };
    let mut seen = HashSet::new();
    for role in ROLES {
        for path in files(dir, role) {
            let unread = for_each_line(&path, |line| trace.take(&mut seen, line))?;
            trace.unread_lines += unread;
        }
    }
    Ok((!trace.spans.is_empty()).then_some(trace))
}

impl Trace {
    fn take(&mut self, seen: &mut HashSet<[u8; 8]>, line: TraceLine) {
        let clock = line.resource.clock();
        let role = line.resource.role;
        let mut any = false;
        for span in line.spans {
            if span.trace() != self.trace_id {
                continue;
            }
            any = true;
            if self.spans.len() >= TRACE_SPANS_MAX {
                self.omitted_spans += 1;
            } else if seen.insert(span.span_id) {
                // Once only: what an executor on this machine wrote itself came back behind the call as well.
                self.spans.push((role, span));
            }
        }
        if let Some(clock) = clock.filter(|_| any) {
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
fn files(dir: &Path, role: Role) -> [PathBuf; 2] {
    [rotated_path(dir, role), current_path(dir, role)]
}

/// Hands on every line that can be read; the answer counts the others.
fn for_each_line(path: &Path, mut take: impl FnMut(TraceLine)) -> Result<u64, TraceFileError> {
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
