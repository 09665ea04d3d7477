//! The library's own threads: one actix `System` and a fixed pool of arbiters, so that callers may be on any runtime.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use actix_rt::{Arbiter, ArbiterHandle, System};

use crate::telemetry::Collector;

/// Most arbiters a pool may have.
pub const ARBITERS_MAX: usize = 64;

/// The threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error(
    "dwell's actor threads could not be started: raise the thread limit, or start fewer roles in this process"
)]
pub struct RuntimeError(#[source] std::io::Error);

/// A pool of arbiters. Cheap to clone; the threads end with the last handle.
#[derive(Clone)]
pub struct Runtime(Arc<Pool>);

struct Pool {
    arbiters: Vec<Seat>,
    collector: Collector,
    /// `None` on an arbiter of somebody else.
    system: Option<System>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// One arbiter and how many sessions live on it.
struct Seat {
    arbiter: ArbiterHandle,
    load: Arc<AtomicUsize>,
}

/// A place on one arbiter; it counts as load until dropped.
pub struct Place {
    arbiter: ArbiterHandle,
    load: Arc<AtomicUsize>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("arbiters", &self.0.arbiters.len())
            .finish()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("load", &self.load.load(Ordering::Relaxed))
            .finish()
    }
}

impl Runtime {
    /// Starts `arbiters` threads (1 to `ARBITERS_MAX`) whose mailboxes leave their records with `collector`.
    ///
    /// # Errors
    /// When a thread or its event loop cannot be made.
    pub fn start(arbiters: usize, collector: Collector) -> Result<Self, RuntimeError> {
        let count = arbiters.clamp(1, ARBITERS_MAX);
        let (ready, started) = sync_channel(1);
        let installer = collector.clone();
        let thread = std::thread::Builder::new()
            .name("dwell-actors".into())
            .spawn(move || system_main(count, &installer, &ready))
            .map_err(RuntimeError)?;
        let (system, arbiters) = started
            .recv()
            .map_err(|_| RuntimeError(std::io::Error::other("the actor system's thread ended early")))?
            .map_err(RuntimeError)?;
        let arbiters = arbiters
            .into_iter()
            .map(|arbiter| Seat {
                arbiter,
                load: Arc::default(),
            })
            .collect();
        Ok(Self(Arc::new(Pool {
            arbiters,
            collector,
            system: Some(system),
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// As many arbiters as the machine has cores.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_default(collector: Collector) -> Result<Self, RuntimeError> {
        Self::start(
            std::thread::available_parallelism().map_or(1, usize::from),
            collector,
        )
    }

    /// No thread of its own: the arbiter this is called on, which the last handle leaves running. `None` outside one.
    pub fn here(collector: Collector) -> Option<Self> {
        let arbiter = Arbiter::try_current()?;
        let seat = Seat {
            arbiter,
            load: Arc::default(),
        };
        Some(Self(Arc::new(Pool {
            arbiters: vec![seat],
            collector,
            system: None,
            thread: Mutex::new(None),
        })))
    }

    /// The least loaded arbiter, loaded by one more until the place is dropped.
    pub fn place(&self) -> Place {
        let seat = self
            .0
            .arbiters
            .iter()
            .min_by_key(|seat| seat.load.load(Ordering::Relaxed))
            .expect("a pool has at least one arbiter");
        seat.load.fetch_add(1, Ordering::Relaxed);
        Place {
            arbiter: seat.arbiter.clone(),
            load: Arc::clone(&seat.load),
        }
    }

    /// Its arbiters.
    pub(crate) fn handles(&self) -> Vec<ArbiterHandle> {
        self.0.arbiters.iter().map(|seat| seat.arbiter.clone()).collect()
    }

    /// Where this pool's records and stages go.
    pub fn collector(&self) -> &Collector {
        &self.0.collector
    }
}

impl Place {
    /// The arbiter.
    pub fn arbiter(&self) -> &ArbiterHandle {
        &self.arbiter
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(system) = &self.system {
            system.stop();
        }
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take();
        // The last handle may be dropped on one of our own threads, which cannot wait for itself.
        if let Some(thread) = thread
            && crate::telemetry::thread_tag().0 == 0
        {
            drop(thread.join());
        }
    }
}

/// Runs a future on an actix system of this thread's own, to its end: where `HarnessBuilder::here` finds its arbiter.
///
/// # Panics
/// On a thread that runs a tokio runtime already.
pub fn block_on<F: Future>(future: F) -> F::Output {
    System::new().block_on(future)
}

type Started = std::io::Result<(System, Vec<ArbiterHandle>)>;

fn system_main(count: usize, collector: &Collector, ready: &std::sync::mpsc::SyncSender<Started>) {
    let runner = System::new();
    collector.install();
    let system = System::current();
    let mut handles = vec![system.arbiter().clone()];
    let mut others = Vec::new();
    for _ in 1..count {
        match Arbiter::try_new() {
            Ok(arbiter) => {
                let collector = collector.clone();
                arbiter.spawn_fn(move || collector.install());
                handles.push(arbiter.handle());
                others.push(arbiter);
            }
            Err(error) => {
                drop(ready.send(Err(error)));
                return;
            }
        }
    }
    if ready.send(Ok((system, handles))).is_err() {
        return;
    }
    if let Err(error) = runner.run() {
        tracing::error!(%error, "the actor system ended with an error");
    }
    for arbiter in others {
        arbiter.stop();
        drop(arbiter.join());
    }
}
