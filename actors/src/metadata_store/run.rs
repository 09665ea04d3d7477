//! One run, and how two records of it become one.

use std::fmt;

use dwell_messages::{ProcessId, SpanId, TraceContext, TraceId};

/// The most bytes of a program's name that are kept.
pub const PROGRAM_NAME_MAX_BYTES: usize = 64;

/// A program's name without its path and arguments, safe to print.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ProgramName(String);

/// How a run stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunStatus {
    /// It has started, as far as is known.
    Running,
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// It could not be started; the errno.
    SpawnFailed(i32),
    /// Its executor went away before its end was known.
    Unknown,
}

/// How long its parts took, in microseconds; what is not known yet is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RunDurations {
    /// From the request to the delivered end, on the side that records.
    pub total_us: Option<u64>,
    /// Making the process.
    pub spawn_us: Option<u64>,
    /// From the spawn to the first byte of output.
    pub first_byte_us: Option<u64>,
    /// From the spawn to the exit.
    pub run_us: Option<u64>,
    /// From the exit to the end of its pipes.
    pub drain_us: Option<u64>,
}

/// What is known of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunRecord {
    /// The trace of its call.
    pub trace_id: TraceId,
    /// The span of its call: with the trace and `process`, what the run is known by. Zeros in runs that an earlier dwell
    /// has recorded.
    pub span_id: SpanId,
    /// Its id in its session: other sessions of the same trace use it too.
    pub process: ProcessId,
    /// What ran.
    pub program: ProgramName,
    /// How it stands.
    pub status: RunStatus,
    /// When it started, in Unix microseconds of the recording machine.
    pub started_unix_us: i64,
    /// How long it took.
    pub durations: RunDurations,
    /// Bytes of standard output, once known.
    pub stdout_bytes: Option<u64>,
    /// Bytes of standard error, once known.
    pub stderr_bytes: Option<u64>,
    /// The machine it ran on, where that has a name.
    pub host: Option<String>,
}

impl ProgramName {
    /// The name in the first argument: what follows its last slash, control and direction characters and broken text
    /// escaped, cut at [`PROGRAM_NAME_MAX_BYTES`]. `?` when nothing is left.
    pub fn from_argv0(argv0: &[u8]) -> Self {
        let base = argv0.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let mut name = String::new();
        for chunk in base.utf8_chunks() {
            for c in chunk.valid().chars() {
                if needs_escape(c) {
                    name.extend(c.escape_default());
                } else {
                    name.push(c);
                }
                if name.len() > PROGRAM_NAME_MAX_BYTES {
                    return Self(cut(&name));
                }
            }
            name.extend(chunk.invalid().escape_ascii().map(char::from));
        }
        if name.len() > PROGRAM_NAME_MAX_BYTES {
            return Self(cut(&name));
        }
        if name.is_empty() {
            name.push('?');
        }
        Self(name)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Text that a store has kept, made safe once more: the file may have been changed.
    #[cfg(feature = "store")]
    pub(super) fn from_stored(text: &str) -> Self {
        Self::from_argv0(text.as_bytes())
    }
}

impl fmt::Display for ProgramName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl RunRecord {
    /// A run that has just started, called in `context`.
    pub fn started(
        context: &TraceContext,
        process: ProcessId,
        program: ProgramName,
        started_unix_us: i64,
    ) -> Self {
        Self {
            trace_id: context.trace_id,
            span_id: context.span_id,
            process,
            program,
            status: RunStatus::Running,
            started_unix_us,
            durations: RunDurations::default(),
            stdout_bytes: None,
            stderr_bytes: None,
            host: None,
        }
    }

    /// What it is known by.
    pub(super) fn key(&self) -> (TraceId, SpanId, ProcessId) {
        (self.trace_id, self.span_id, self.process)
    }

    /// Takes over what a later record of the same run knows. The start stays the first one's, and a run that has
    /// ended does not run again because its start was recorded late.
    pub(super) fn absorb(&mut self, later: &Self) {
        if later.status != RunStatus::Running {
            self.status = later.status;
        }
        self.program.clone_from(&later.program);
        let (own, new) = (&mut self.durations, &later.durations);
        own.total_us = new.total_us.or(own.total_us);
        own.spawn_us = new.spawn_us.or(own.spawn_us);
        own.first_byte_us = new.first_byte_us.or(own.first_byte_us);
        own.run_us = new.run_us.or(own.run_us);
        own.drain_us = new.drain_us.or(own.drain_us);
        self.stdout_bytes = later.stdout_bytes.or(self.stdout_bytes);
        self.stderr_bytes = later.stderr_bytes.or(self.stderr_bytes);
        self.host = later.host.clone().or_else(|| self.host.take());
    }
}

pub(super) fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn cut(name: &str) -> String {
    const MARK: &str = "…";
    let mut kept = name[..name.floor_char_boundary(PROGRAM_NAME_MAX_BYTES - MARK.len())].to_owned();
    kept.push_str(MARK);
    kept
}
