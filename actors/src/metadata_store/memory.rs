//! Runs and threads in memory: for builds without a database, and for tests.

use std::collections::{HashMap, VecDeque};

use super::error::StoreError;
use super::lease::Holder;
use super::query::{ThreadPage, ThreadQuery};
use super::run::RunRecord;
use super::thread::{ThreadId, ThreadPatch, ThreadRecord};
use super::{MetadataStore, RUNS_KEPT_MAX};

/// Keeps the last runs and the threads of this process.
#[derive(Debug)]
pub struct MemoryStore {
    runs: VecDeque<RunRecord>,
    runs_kept_max: usize,
    threads: HashMap<ThreadId, ThreadRecord>,
    leases: HashMap<ThreadId, Holder>,
}

impl MemoryStore {
    /// Empty, with the bound of the database.
    pub fn new() -> Self {
        Self::with_runs_kept_max(RUNS_KEPT_MAX)
    }

    /// Empty, keeping at most `kept_max` runs.
    pub fn with_runs_kept_max(kept_max: usize) -> Self {
        Self {
            runs: VecDeque::new(),
            runs_kept_max: kept_max,
            threads: HashMap::new(),
            leases: HashMap::new(),
        }
    }

    fn others_lease(&self, id: ThreadId, holder: &Holder) -> Result<(), StoreError> {
        match self.leases.get(&id) {
            Some(other) if other != holder && other.is_alive() => {
                Err(StoreError::ThreadBusy { id, pid: other.pid })
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl MemoryStore {
    fn held_by(&self, id: ThreadId, holder: &Holder) -> Result<(), StoreError> {
        if self.leases.get(&id) == Some(holder) {
            return Ok(());
        }
        Err(StoreError::LeaseLost { id })
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MetadataStore for MemoryStore {
    fn record_runs(&mut self, batch: &[RunRecord]) -> Result<(), StoreError> {
        for record in batch {
            // From the newest: the end of a run follows its start closely.
            match self.runs.iter_mut().rev().find(|run| run.key() == record.key()) {
                Some(run) => run.absorb(record),
                None => self.runs.push_back(record.clone()),
            }
        }
        while self.runs.len() > self.runs_kept_max {
            self.runs.pop_front();
        }
        Ok(())
    }

    fn lease(&mut self, id: ThreadId, holder: &Holder) -> Result<Option<ThreadRecord>, StoreError> {
        self.others_lease(id, holder)?;
        self.leases.insert(id, holder.clone());
        Ok(self.threads.get(&id).cloned())
    }

    fn release(&mut self, id: ThreadId, holder: &Holder) -> Result<(), StoreError> {
        if self.leases.get(&id) == Some(holder) {
            self.leases.remove(&id);
        }
        Ok(())
    }

    fn update_thread(
        &mut self,
        id: ThreadId,
        holder: &Holder,
        patch: &ThreadPatch,
    ) -> Result<(), StoreError> {
        self.held_by(id, holder)?;
        self.threads
            .entry(id)
            .or_insert_with(|| ThreadRecord::new(id))
            .apply(patch.clone());
        Ok(())
    }

    fn delete_thread(&mut self, id: ThreadId, holder: &Holder) -> Result<bool, StoreError> {
        self.held_by(id, holder)?;
        self.leases.remove(&id);
        Ok(self.threads.remove(&id).is_some())
    }

    fn thread(&self, id: ThreadId) -> Result<Option<ThreadRecord>, StoreError> {
        Ok(self.threads.get(&id).cloned())
    }

    fn threads(&self, query: &ThreadQuery) -> Result<ThreadPage, StoreError> {
        let wanted = self.threads.values().filter(|thread| query.wants(thread));
        let mut threads: Vec<_> = wanted.cloned().collect();
        threads.sort_by_key(|thread| std::cmp::Reverse((thread.updated_unix_us, thread.id)));
        threads.truncate(query.limit() + 1);
        Ok(query.page(threads))
    }

    fn recent_runs(&self, limit: usize) -> Result<Vec<RunRecord>, StoreError> {
        Ok(self.runs.iter().rev().take(limit).cloned().collect())
    }

    fn is_poisoned(&self) -> bool {
        false
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
