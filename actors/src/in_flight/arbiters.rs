//! Whether the arbiters still run what they are given: a task is put on each, and how long it takes to run is the lag.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use actix_rt::ArbiterHandle;

use super::unpoisoned;
use crate::telemetry::{Tick, thread_tag};

/// The arbiters of one role, as far as somebody watches them.
#[derive(Debug, Default)]
pub(crate) struct Arbiters(Mutex<Vec<Arc<Arbiter>>>);

#[derive(Debug)]
struct Arbiter {
    handle: ArbiterHandle,
    /// Its thread's tag, once a task of ours has run on it.
    thread: AtomicU32,
    /// When the task under way was put there; 0: none is.
    asked: AtomicU64,
    /// How long the last one took, in microseconds.
    lag_us: AtomicU64,
}

/// One look at an arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArbiterLook {
    pub(crate) thread: u32,
    /// Since when a task waits on it.
    pub(crate) asked: Option<Tick>,
    /// How long the last one waited, in microseconds.
    pub(crate) lag_us: u64,
}

impl Arbiters {
    /// These are to be watched.
    pub(crate) fn watch(&self, handles: impl IntoIterator<Item = ArbiterHandle>) {
        let mut arbiters = unpoisoned(&self.0);
        arbiters.extend(handles.into_iter().map(|handle| {
            Arc::new(Arbiter {
                handle,
                thread: AtomicU32::new(0),
                asked: AtomicU64::new(0),
                lag_us: AtomicU64::new(0),
            })
        }));
    }

    /// Puts a task on each that has none of ours: one wake-up an arbiter.
    pub(crate) fn ask(&self) {
        let mut arbiters = unpoisoned(&self.0);
        arbiters.retain(|arbiter| {
            if arbiter.asked.load(Ordering::Relaxed) != 0 {
                return true;
            }
            arbiter.asked.store(Tick::now().to_raw(), Ordering::Relaxed);
            let answering = Arc::clone(arbiter);
            // An arbiter that has ended takes nothing.
            arbiter.handle.spawn_fn(move || answering.answer())
        });
    }

    pub(super) fn look(&self) -> Vec<ArbiterLook> {
        let arbiters = unpoisoned(&self.0);
        let look = |arbiter: &Arc<Arbiter>| ArbiterLook {
            thread: arbiter.thread.load(Ordering::Relaxed),
            asked: Some(arbiter.asked.load(Ordering::Relaxed))
                .filter(|asked| *asked != 0)
                .map(Tick::from_raw),
            lag_us: arbiter.lag_us.load(Ordering::Relaxed),
        };
        arbiters.iter().map(look).collect()
    }
}

impl Arbiter {
    fn answer(&self) {
        self.thread.store(thread_tag().0, Ordering::Relaxed);
        let asked = Tick::from_raw(self.asked.swap(0, Ordering::Relaxed));
        self.lag_us
            .store(Tick::now().micros_since(asked), Ordering::Relaxed);
    }
}
