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
    /// Its thread's tag; 0 until the first task of ours has run on it.
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
            let arbiter = Arc::new(Arbiter {
                handle,
                thread: AtomicU32::new(0),
                asked: AtomicU64::new(0),
                lag_us: AtomicU64::new(0),
            });
            // At once, ahead of everything that is given to it later: whatever then holds the thread up is known to be on
            // it. One that has ended has nothing to be named.
            let named = Arc::clone(&arbiter);
            arbiter.handle.spawn_fn(move || named.name());
            arbiter
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
    /// Runs on its thread.
    fn name(&self) {
        self.thread.store(thread_tag().0, Ordering::Relaxed);
    }

    fn answer(&self) {
        self.name();
        let asked = Tick::from_raw(self.asked.swap(0, Ordering::Relaxed));
        self.lag_us
            .store(Tick::now().micros_since(asked), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::runtime::Runtime;
    use crate::telemetry::{Collector, CollectorOptions};
    use dwell_messages::Role;

    #[test]
    fn an_arbiter_is_known_by_its_thread_before_anything_given_to_it_later_runs() {
        let options = CollectorOptions {
            role: Role::Relay,
            keep_recent: false,
            sinks: Vec::new(),
        };
        let runtime = Runtime::start(1, Collector::start(options).unwrap()).unwrap();
        let arbiters = Arc::new(Arbiters::default());
        arbiters.watch(runtime.handles());
        let (saw, seen) = sync_channel(1);
        let looking = Arc::clone(&arbiters);
        let look = move || saw.send((looking.look()[0].thread, thread_tag().0)).unwrap();
        assert!(runtime.place().arbiter().spawn_fn(look));
        let (known, is) = seen.recv().unwrap();
        assert_eq!(known, is);
        assert_ne!(known, 0, "0 is no thread");
    }
}
