//! Runs in memory: for builds without a database, and for tests.

use std::collections::VecDeque;

use super::error::StoreError;
use super::record::RunRecord;
use super::{RUNS_KEPT_MAX, RunStore};

/// Keeps the last runs of this process.
#[derive(Debug)]
pub struct MemoryRunStore {
    runs: VecDeque<RunRecord>,
    kept_max: usize,
}

impl MemoryRunStore {
    /// Empty, with the bound of the database.
    pub fn new() -> Self {
        Self::with_kept_max(RUNS_KEPT_MAX)
    }

    /// Empty, keeping at most `kept_max` runs.
    pub fn with_kept_max(kept_max: usize) -> Self {
        Self {
            runs: VecDeque::new(),
            kept_max,
        }
    }

    /// At most `limit` runs, those that were recorded first last.
    pub fn recent(&self, limit: usize) -> Vec<RunRecord> {
        self.runs.iter().rev().take(limit).cloned().collect()
    }
}

impl Default for MemoryRunStore {
    fn default() -> Self {
        Self::new()
    }
}

impl RunStore for MemoryRunStore {
    fn record(&mut self, batch: &[RunRecord]) -> Result<(), StoreError> {
        for record in batch {
            // From the newest: the end of a run follows its start closely.
            let known =
                |run: &&mut RunRecord| run.trace_id == record.trace_id && run.process == record.process;
            match self.runs.iter_mut().rev().find(known) {
                Some(run) => run.absorb(record),
                None => self.runs.push_back(record.clone()),
            }
        }
        while self.runs.len() > self.kept_max {
            self.runs.pop_front();
        }
        Ok(())
    }
}
