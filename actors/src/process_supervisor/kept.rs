//! Ended processes whose ends were taken: what they told can be read again for a while.

use std::collections::VecDeque;
use std::time::Duration;

use dwell_messages::ProcessId;

use super::{KEPT_BYTES_MAX, KEPT_FOR, KEPT_PROCESSES_MAX};
use crate::mailbox::TimerGuard;
use crate::telemetry::Tick;

/// Ended processes of which something is kept, the oldest first.
#[derive(Default)]
pub(super) struct Kept {
    entries: VecDeque<(Tick, ProcessId, u64)>,
    bytes: u64,
    pub(super) timer: Option<TimerGuard>,
}

impl Kept {
    /// Keeps one, and gives those that make room for it.
    pub(super) fn keep(&mut self, process: ProcessId, bytes: u64) -> Vec<ProcessId> {
        self.bytes += bytes;
        self.entries.push_back((Tick::now(), process, bytes));
        let mut dropped = Vec::new();
        while self.entries.len() > KEPT_PROCESSES_MAX || self.bytes > KEPT_BYTES_MAX {
            dropped.extend(self.drop_oldest());
        }
        dropped
    }

    /// Drops what is old and gives it. Says after how long to look again, if there is anything left.
    pub(super) fn forget(&mut self, now: Tick) -> (Vec<ProcessId>, Option<Duration>) {
        let mut dropped = Vec::new();
        while let Some((ended, ..)) = self.entries.front() {
            let age = Duration::from_micros(now.micros_since(*ended));
            if age < KEPT_FOR {
                return (dropped, Some(KEPT_FOR - age));
            }
            dropped.extend(self.drop_oldest());
        }
        (dropped, None)
    }

    /// Somebody has this one again.
    pub(super) fn take(&mut self, process: ProcessId) {
        if let Some(at) = self.entries.iter().position(|(_, kept, _)| *kept == process)
            && let Some((_, _, bytes)) = self.entries.remove(at)
        {
            self.bytes -= bytes;
        }
    }

    fn drop_oldest(&mut self) -> Option<ProcessId> {
        let (_, process, bytes) = self.entries.pop_front()?;
        self.bytes -= bytes;
        Some(process)
    }
}
