//! What stands between the collector and a place that may be slow, full, or gone: a bounded queue with a thread behind it.
//!
//! Putting spans in never waits. What does not fit, and what the place refuses, is lost and counted, and said once an
//! outage: a back end that is down for an hour costs two lines of log. Only a flush waits, for a bound.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use dwell_messages::Span;

use super::collector::SinkError;

/// Spans that may wait for a slow place; more are lost and counted.
pub const SPANS_WAITING_MAX: usize = 16_384;

/// A place that spans are written to. Lives on the queue's own thread, which it may block.
pub(super) trait Place {
    /// Takes spans, or says why they are lost.
    fn write(&mut self, spans: Vec<Span>) -> Result<(), String>;
}

/// The queue's near end.
pub(super) struct ExportQueue {
    shared: Arc<Shared>,
    /// What the place is called in messages.
    what: &'static str,
    flush_max: Duration,
    /// Lost spans that were said to be.
    said: u64,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    batches: VecDeque<Vec<Span>>,
    /// Spans in `batches`.
    waiting: usize,
    /// Spans that the place has been given and has not taken yet.
    under_way: usize,
    lost: u64,
    /// A flush has given up, and nothing was taken since.
    stuck: bool,
    /// That the queue is full was said, and it has not been empty since.
    full: bool,
    closed: bool,
}

impl fmt::Debug for ExportQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportQueue")
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, at_most: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, at_most);
        waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
    }
}

impl ExportQueue {
    /// Starts the thread, and makes the place on it.
    ///
    /// # Errors
    /// When there is no thread to be had, or the place cannot be made.
    pub(super) fn start<P: Place>(
        thread: &'static str,
        what: &'static str,
        flush_max: Duration,
        make: impl FnOnce() -> Result<P, SinkError> + Send + 'static,
    ) -> Result<Self, SinkError> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let (ready, made) = sync_channel(1);
        let far = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(thread.into())
            .spawn(move || match make() {
                Ok(place) => {
                    ready.send(Ok(())).ok();
                    serve(place, &far, what);
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(|error| SinkError(format!("the thread for {what} could not be started: {error}")))?;
        made.recv()
            .map_err(|_| SinkError(format!("the thread for {what} ended while it was set up")))??;
        Ok(Self {
            shared,
            what,
            flush_max,
            said: 0,
        })
    }

    /// Hands spans over, or loses them. Never waits.
    pub(super) fn put(&self, spans: Vec<Span>) {
        let mut state = self.shared.lock();
        if state.waiting + spans.len() > SPANS_WAITING_MAX {
            state.lost += spans.len() as u64;
            let first = !std::mem::replace(&mut state.full, true);
            drop(state);
            if first {
                tracing::warn!(
                    "{SPANS_WAITING_MAX} spans wait for {} already: more are dropped and counted until it takes some",
                    self.what
                );
            }
            return;
        }
        state.waiting += spans.len();
        state.batches.push_back(spans);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until everything was taken or refused, for `flush_max` at the most; not at all where an earlier flush waited
    /// in vain and nothing was taken since.
    ///
    /// # Errors
    /// How much is left.
    pub(super) fn flush(&mut self) -> Result<(), SinkError> {
        let deadline = Instant::now() + self.flush_max;
        let mut state = self.shared.lock();
        loop {
            let left = state.waiting + state.under_way;
            if left == 0 {
                break;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if state.stuck || rest.is_zero() {
                state.stuck = true;
                return Err(SinkError(format!(
                    "{left} spans were not taken by {} within {:?}; {} were lost before",
                    self.what, self.flush_max, state.lost
                )));
            }
            state = self.shared.wait(state, rest);
        }
        let lost = state.lost;
        drop(state);
        if lost > self.said {
            tracing::warn!(
                "{} spans were lost on their way to {}",
                lost - self.said,
                self.what
            );
            self.said = lost;
        }
        Ok(())
    }

    /// Spans that were given and will never arrive.
    pub(super) fn lost(&self) -> u64 {
        self.shared.lock().lost
    }
}

impl Drop for ExportQueue {
    /// The thread ends behind what it is writing, which nobody waits for.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

fn serve(mut place: impl Place, shared: &Shared, what: &'static str) {
    let mut failing = false;
    let mut state = shared.lock();
    loop {
        if state.closed {
            return;
        }
        let Some(batch) = state.batches.pop_front() else {
            state.full = false;
            state = shared.wait(state, Duration::MAX);
            continue;
        };
        let count = batch.len();
        state.waiting -= count;
        state.under_way = count;
        drop(state);
        let written = place.write(batch);
        match (&written, failing) {
            (Err(error), false) => {
                tracing::warn!(%error, "spans are lost: {what} does not take them");
            }
            (Ok(()), true) => tracing::info!("{what} takes spans again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        failing = written.is_err();
        state = shared.lock();
        state.under_way = 0;
        if failing {
            state.lost += count as u64;
        } else {
            state.stuck = false;
        }
        shared.changed.notify_all();
    }
}
