//! What one process has told its client: numbers without gaps, and what can be read again. A pure core.
//!
//! The numbers count output and both ends alike, from 1. They are this side's own: those of the session behind it say
//! where an event stood on the executor, and a link that was lost may bring some without.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use dwell_messages::dialect::{Blob, Chunk, ReadAnswer, StreamName};
use dwell_messages::{Closed, Event, ExitStatus, Exited, Output, OutputStream, Timings};

use crate::terminal_delivery::retained::Retained;

/// Chunks of output kept of a process, beside the bound of bytes.
pub const LOGGED_CHUNKS_MAX: usize = 50_000;
/// Writes of a process that are known again when they are repeated, the newest.
pub const WRITE_IDS_MAX: usize = 4_096;

/// What an exit code is when nobody knows it.
const UNKNOWN_CODE: i32 = -1;
/// Why a process on a terminal ended that a signal killed.
const TERMINAL_SIGNAL_CODE: i32 = 1;

/// See the module.
#[derive(Debug)]
pub(super) struct ProcessLog {
    tty: bool,
    told: Retained,
    offsets: [u64; 2],
    exit_code: Option<i32>,
    closed: bool,
    failure: Option<String>,
    sandbox_denied: bool,
    write_ids: HashSet<String>,
    write_order: VecDeque<String>,
}

impl ProcessLog {
    pub(super) fn new(tty: bool, retention_bytes: u64) -> Self {
        Self {
            tty,
            told: Retained::new(retention_bytes).of_events(LOGGED_CHUNKS_MAX),
            offsets: [0; 2],
            exit_code: None,
            closed: false,
            failure: None,
            sandbox_denied: false,
            write_ids: HashSet::new(),
            write_order: VecDeque::new(),
        }
    }

    /// It wrote: under which number, and of which output.
    pub(super) fn output(&mut self, stream: OutputStream, data: &Bytes) -> (u64, StreamName) {
        let event = self.told.next_number();
        let offset = &mut self.offsets[stream.index()];
        self.told.keep(&Event::Output(Output {
            event,
            stream,
            offset: *offset,
            data: data.clone(),
        }));
        *offset += data.len() as u64;
        (event, StreamName::of(stream, self.tty))
    }

    /// It ended: under which number, and with which code. Only the first time.
    pub(super) fn exited(&mut self, status: Option<ExitStatus>) -> Option<(u64, i32)> {
        if self.exit_code.is_some() {
            return None;
        }
        let code = match status {
            None => UNKNOWN_CODE,
            Some(ExitStatus::Code(code)) => code,
            Some(ExitStatus::Signal(_)) if self.tty => TERMINAL_SIGNAL_CODE,
            Some(status @ ExitStatus::Signal(_)) => status.shell_code(),
        };
        self.exit_code = Some(code);
        let event = self.told.next_number();
        let [stdout_end, stderr_end] = self.offsets;
        self.told.keep(&Event::Exited(Exited {
            event,
            status: status.unwrap_or(ExitStatus::Code(UNKNOWN_CODE)),
            core_dumped: false,
            oom_killed: None,
            usage: None,
            ending: None,
            stdout_end,
            stderr_end,
        }));
        Some((event, code))
    }

    /// Nothing follows: under which number.
    pub(super) fn closed(&mut self) -> u64 {
        self.closed = true;
        let event = self.told.next_number();
        let [stdout_end, stderr_end] = self.offsets;
        self.told.keep(&Event::Closed(Closed {
            event,
            status: None,
            stdout_end,
            stderr_end,
            drained: true,
            holders: 0,
            timings: Timings::default(),
        }));
        event
    }

    /// Something of it will never be known.
    pub(super) fn failed(&mut self, why: String) {
        self.failure.get_or_insert(why);
    }

    /// Whether what confined it seems to have stopped it.
    pub(super) fn denied(&mut self, denied: bool) {
        self.sandbox_denied = denied;
    }

    /// Whether its end is known.
    pub(super) fn is_exited(&self) -> bool {
        self.exit_code.is_some()
    }

    /// Whether nothing follows.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Bytes of output that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.told.bytes()
    }

    /// Whether a read has something to say: output, or an end that whoever asks does not know.
    pub(super) fn has_news(&self, after: u64) -> bool {
        let unknown = after < self.told.next_number().saturating_sub(1);
        self.told.has_output(after) || self.closed || (self.is_exited() && unknown)
    }

    /// What was told after a number, with output of at most so many bytes, one chunk in any case.
    pub(super) fn read(&self, after: u64, max_bytes: Option<u64>) -> ReadAnswer {
        let reply = self.told.read(after, max_bytes.unwrap_or(u64::MAX));
        let chunk = |event: Event| match event {
            Event::Output(output) => Some(Chunk {
                seq: output.event,
                stream: StreamName::of(output.stream, self.tty),
                chunk: Blob(output.data),
            }),
            Event::Gap(_) | Event::Exited(_) | Event::Closed(_) => None,
        };
        let chunks: Vec<_> = reply.events.into_iter().filter_map(chunk).collect();
        let next = self.told.next_number();
        let next_seq = match (max_bytes, chunks.last()) {
            (Some(_), Some(last)) => last.seq + 1,
            (None, _) | (Some(_), None) => next,
        };
        ReadAnswer {
            chunks,
            next_seq,
            exited: self.is_exited(),
            exit_code: self.exit_code,
            closed: self.closed,
            failure: self.failure.clone(),
            sandbox_denied: self.sandbox_denied,
        }
    }

    /// Whether a write of this name has not come before.
    pub(super) fn is_fresh_write(&mut self, id: &str) -> bool {
        if !self.write_ids.insert(id.to_owned()) {
            return false;
        }
        self.write_order.push_back(id.to_owned());
        if self.write_order.len() > WRITE_IDS_MAX
            && let Some(oldest) = self.write_order.pop_front()
        {
            self.write_ids.remove(&oldest);
        }
        true
    }

    /// A write of this name was not taken after all.
    pub(super) fn forget_write(&mut self, id: &str) {
        self.write_ids.remove(id);
        self.write_order.retain(|known| known != id);
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
