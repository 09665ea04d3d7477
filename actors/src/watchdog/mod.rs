//! The watchdog: one warning for each place that does not move, until it moves again, and no more than one in half a
//! minute.
//!
//! It has a thread of its own that looks at the table four times within the time after which it warns, and needs nothing
//! of those it looks at. Twice in that time it puts a task on each actor thread, to see whether it is run.

mod core;
mod signs;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::core::{Place, WatchdogCore};
use crate::in_flight::view::Stuck;
use crate::in_flight::{Board, Seen};

pub(crate) use signs::WHATS;

/// After how long without a move a place is told of, unless the builder says otherwise.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(1);
/// A place is not told of again within this time, also if it has moved meanwhile.
const QUIET: Duration = Duration::from_secs(30);
/// Looks within the time after which a place is told of.
const LOOKS: u32 = 4;
/// Processes whose state is read in one look, 15 µs each; with more, they take turns.
const PROCESSES_LOOKED_MAX: usize = 64;
/// Stuck places that are kept for whoever asks; more are warned of and not shown.
const STUCK_MAX: usize = 256;

/// A running watchdog; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watchdog {
    stop: Arc<AtomicBool>,
    thread: std::thread::Thread,
}

impl Watchdog {
    /// Starts its thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(board: Arc<Board>, after: Duration) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let join = std::thread::Builder::new()
            .name("dwell-watchdog".into())
            .spawn(move || run(&board, after, &stopping))?;
        Ok(Self {
            stop,
            thread: join.thread().clone(),
        })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

fn run(board: &Board, after: Duration, stop: &AtomicBool) {
    let mut core = WatchdogCore::new(after, QUIET);
    let mut children = Children::default();
    let pause = (after / LOOKS).max(Duration::from_millis(1));
    let mut looks: u32 = 0;
    let mut next = Instant::now();
    while !stop.load(Ordering::Acquire) {
        if looks.is_multiple_of(LOOKS / 2) {
            board.arbiters().ask();
        }
        looks = looks.wrapping_add(1);
        let seen = board.look();
        children.look(&seen);
        look(board, &mut core, &seen, &children.stopped);
        // A copy of every row: not while nobody looks at it.
        drop(seen);
        next = (next + pause).max(Instant::now());
        while Instant::now() < next && !stop.load(Ordering::Acquire) {
            std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
        }
    }
}

/// Which processes are stopped, as far as that was looked at.
#[derive(Debug, Default)]
struct Children {
    stopped: HashMap<u64, bool>,
    /// The last that was looked at.
    last: u64,
}

impl Children {
    fn look(&mut self, seen: &Seen) {
        let mut running: Vec<_> = seen
            .processes
            .iter()
            .filter(|(_, process)| process.pid().is_some())
            .collect();
        running.sort_unstable_by_key(|(id, _)| *id);
        self.stopped
            .retain(|id, _| running.binary_search_by_key(id, |(id, _)| *id).is_ok());
        let from = running.partition_point(|(id, _)| *id <= self.last);
        let turn = running
            .iter()
            .cycle()
            .skip(from)
            .take(PROCESSES_LOOKED_MAX.min(running.len()));
        for (id, process) in turn {
            self.last = *id;
            self.stopped.insert(*id, process.is_stopped());
        }
    }
}

fn look(board: &Board, core: &mut WatchdogCore, seen: &Seen, stopped: &HashMap<u64, bool>) {
    let now = Instant::now();
    let signs = signs::signs(seen, stopped);
    let still = core.look(now, &signs);
    let mut stuck = Vec::new();
    for place in &still {
        let text = signs::text(seen, place.place, place.held);
        let what = signs::what(place.place);
        if place.fresh {
            board.meters().warnings.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(what, for_ms = place.held.as_millis() as u64, "{text}");
        }
        if stuck.len() < STUCK_MAX {
            stuck.push(Stuck {
                what: what.to_owned(),
                for_us: u64::try_from(place.held.as_micros()).unwrap_or(u64::MAX),
                text,
            });
        }
    }
    let held = seen.mailboxes.iter().filter_map(|look| {
        let place = if look.turn.is_some() {
            Place::Turn(look.id)
        } else {
            Place::Mailbox(look.id)
        };
        let held = core.held(now, place)?;
        Some((look.id, u64::try_from(held.as_micros()).unwrap_or(u64::MAX)))
    });
    board.publish_stuck(
        stuck,
        held.collect(),
        stopped
            .iter()
            .filter(|(_, stopped)| **stopped)
            .map(|(id, _)| *id)
            .collect(),
    );
}
