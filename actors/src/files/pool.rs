//! The threads on which everything that blocks in files happens.
//!
//! Shared by all sessions of an executor. A few threads, made when they are first needed, and bounded queues: what
//! may take long (trees, syncs) has at most [`LONG_JOBS_MAX`] of them at a time, so that there is always one for what
//! is short, and what goes through a whole tree at once has one of those, so that there is always one for a page of a
//! walk. Each session has only a few jobs here at a time (see `service`), and the rest with itself: so a queue is
//! a round of all sessions, and not the order in which one of them asked.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::watch::WATCHES_IN_ALL_MAX;

/// Threads of a pool: with fewer, one disk that is slow keeps the others waiting; more do not make a disk faster.
pub const FILE_THREADS: usize = 4;
/// How many of them what may take long has at a time.
pub const LONG_JOBS_MAX: usize = 2;
/// Jobs that wait for a thread: a few of each session.
pub const POOL_QUEUE_MAX: usize = 4_096;

/// Something to do on a thread of the pool. It says itself what came of it.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// How long a job may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Span {
    /// As long as one look at a disk.
    Short,
    /// As long as a page of a walk, or a disk takes to write.
    Long,
    /// As long as a tree is large.
    Tree,
}

/// See the module. Cloning it gives another handle; the threads end with the last one, each with what it works on.
#[derive(Clone)]
pub(crate) struct FilePool(Arc<Owner>);

struct Owner {
    shared: Arc<Shared>,
    /// Not the threads', but shared by the same sessions.
    watches: Arc<Semaphore>,
}

struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    short: VecDeque<Job>,
    long: VecDeque<Job>,
    trees: VecDeque<Job>,
    /// Those through trees included.
    long_at_work: usize,
    is_tree_at_work: bool,
    threads: usize,
    idle: usize,
    over: bool,
}

impl fmt::Debug for FilePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FilePool")
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.over = true;
        // What waits is dropped, which tells whoever waits for it.
        let waiting = [
            std::mem::take(&mut state.short),
            std::mem::take(&mut state.long),
            std::mem::take(&mut state.trees),
        ];
        drop(state);
        self.shared.news.notify_all();
        drop(waiting);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if state.over {
                state.threads -= 1;
                return;
            }
            let Some((job, span)) = state.take() else {
                state.idle += 1;
                state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            drop(state);
            // A job answers for its own panics; this is the last line.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("work on a file panicked");
            }
            state = self.lock();
            match span {
                Span::Short => {}
                Span::Long => state.long_at_work -= 1,
                Span::Tree => {
                    state.long_at_work -= 1;
                    state.is_tree_at_work = false;
                }
            }
        }
    }
}

impl State {
    fn take(&mut self) -> Option<(Job, Span)> {
        if self.long_at_work < LONG_JOBS_MAX {
            if !self.is_tree_at_work
                && let Some(job) = self.trees.pop_front()
            {
                self.long_at_work += 1;
                self.is_tree_at_work = true;
                return Some((job, Span::Tree));
            }
            if let Some(job) = self.long.pop_front() {
                self.long_at_work += 1;
                return Some((job, Span::Long));
            }
        }
        self.short.pop_front().map(|job| (job, Span::Short))
    }
}

impl FilePool {
    pub(crate) fn new() -> Self {
        let shared = Shared {
            state: Mutex::default(),
            news: Condvar::new(),
        };
        Self(Arc::new(Owner {
            shared: Arc::new(shared),
            watches: Arc::new(Semaphore::new(WATCHES_IN_ALL_MAX)),
        }))
    }

    /// Room for one more watch, if there is.
    pub(crate) fn room_for_a_watch(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.watches).try_acquire_owned().ok()
    }

    /// Whether there is room for one more job, and a thread that does it. Never blocks.
    pub(crate) fn admit(&self) -> bool {
        let shared = &self.0.shared;
        let mut state = shared.lock();
        if state.short.len() + state.long.len() + state.trees.len() >= POOL_QUEUE_MAX {
            return false;
        }
        if state.idle == 0 && state.threads < FILE_THREADS {
            let its = Arc::clone(shared);
            let thread = std::thread::Builder::new()
                .name("dwell-files".into())
                .spawn(move || its.run());
            match thread {
                Ok(_) => state.threads += 1,
                Err(error) => {
                    tracing::warn!(%error, threads = state.threads, "work on files has fewer threads than it may")
                }
            }
        }
        state.threads > 0
    }

    /// Queues a job. Never blocks. To be asked before: [`FilePool::admit`]; where several ask at one moment, a few more
    /// than the bound may wait.
    pub(crate) fn put(&self, job: Job, span: Span) {
        let shared = &self.0.shared;
        let mut state = shared.lock();
        match span {
            Span::Short => state.short.push_back(job),
            Span::Long => state.long.push_back(job),
            Span::Tree => state.trees.push_back(job),
        }
        drop(state);
        shared.news.notify_one();
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
