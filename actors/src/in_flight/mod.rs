//! What is unfinished in one role: its mailboxes, calls, processes and links, and since when.
//!
//! A message that is stuck never ends a span, so nothing of it would ever be drawn. Therefore whatever begins is entered
//! here and taken out when it ends, and whoever asks (`inspect`, the watchdog, the metrics) reads the table from a thread of
//! its own: an answer never needs an arbiter, because the arbiter may be what is stuck.
//!
//! It costs the path of a message two relaxed stores, and a call one entry in a map. Every table is bounded; what finds
//! no room is counted, and works like everything else.

mod arbiters;
mod call;
mod link;
mod probe;
mod process;
mod table;
pub mod view;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use dwell_messages::Role;

use crate::metrics::Meters;
use crate::telemetry::{Flight, Tick};
use view::{RelayView, Stuck};

pub(crate) use arbiters::{ArbiterLook, Arbiters};
pub(crate) use call::{Call, CallKind, Stage};
pub(crate) use link::{Link, LinkKind};
pub(crate) use probe::{CONTROL_TURN, Look, Probe, turn_of, turn_word};
pub(crate) use process::{Process, Waits};
pub(crate) use table::Entered;
use table::Table;

/// Mailboxes of one role that are looked at; those of more are counted.
pub const MAILBOXES_MAX: usize = 16_384;
/// Calls of one role that are looked at.
pub const CALLS_MAX: usize = 4_096;
/// Processes of one role that are looked at.
pub const PROCESSES_MAX: usize = 4_096;
/// Links of one role that are looked at.
pub const LINKS_MAX: usize = 2_048;

/// One role's table. Lives in its collector, which every actor of the role has.
pub(crate) struct Board {
    role: Role,
    began: Tick,
    mailboxes: Mutex<Mailboxes>,
    calls: Arc<Table<Call>>,
    processes: Arc<Table<Process>>,
    links: Arc<Table<Link>>,
    arbiters: Arbiters,
    relay: Mutex<Option<(Tick, RelayView)>>,
    findings: Mutex<Findings>,
    watched: AtomicBool,
    meters: Arc<Meters>,
    flight: OnceLock<Flight>,
}

/// What the watchdog has found; ids are those of mailboxes and of processes' places in their table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    pub(crate) stuck: Vec<Stuck>,
    pub(crate) still: HashMap<u64, u64>,
    pub(crate) stopped: HashSet<u64>,
}

#[derive(Default)]
struct Mailboxes {
    probes: Vec<Weak<dyn Probe>>,
    /// At this many the dead ones are swept out.
    sweep_at: usize,
    left_out: u64,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// What one look at a board found, in no order.
pub(crate) struct Seen {
    pub(crate) now: Tick,
    pub(crate) mailboxes: Vec<Look>,
    pub(crate) calls: Vec<(u64, Arc<Call>)>,
    pub(crate) processes: Vec<(u64, Arc<Process>)>,
    pub(crate) links: Vec<(u64, Arc<Link>)>,
    pub(crate) arbiters: Vec<ArbiterLook>,
    pub(crate) relay: Option<(Tick, RelayView)>,
    /// What found no room in a table, since the start.
    pub(crate) left_out: u64,
}

impl Board {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            began: Tick::now(),
            mailboxes: Mutex::default(),
            calls: Arc::new(Table::new(CALLS_MAX)),
            processes: Arc::new(Table::new(PROCESSES_MAX)),
            links: Arc::new(Table::new(LINKS_MAX)),
            arbiters: Arbiters::default(),
            relay: Mutex::default(),
            findings: Mutex::default(),
            watched: AtomicBool::new(false),
            meters: Arc::default(),
            flight: OnceLock::new(),
        }
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// The flight recorder, if there is one.
    #[inline]
    pub(crate) fn flight(&self) -> Option<&Flight> {
        self.flight.get()
    }

    /// Records from now on; on threads that are not yet installed.
    pub(crate) fn begin_flight(&self) {
        self.flight.get_or_init(Flight::default);
    }

    pub(crate) fn arbiters(&self) -> &Arbiters {
        &self.arbiters
    }

    /// How long the role has been there, in microseconds.
    pub(crate) fn up_us(&self) -> u64 {
        Tick::now().micros_since(self.began)
    }

    /// A mailbox that is to be looked at for as long as it lives.
    pub(crate) fn watch(&self, probe: Weak<dyn Probe>) {
        let mut mailboxes = unpoisoned(&self.mailboxes);
        if mailboxes.probes.len() >= mailboxes.sweep_at {
            mailboxes.probes.retain(|probe| probe.strong_count() > 0);
            mailboxes.sweep_at = (mailboxes.probes.len() * 2).max(64);
        }
        if mailboxes.probes.len() < MAILBOXES_MAX {
            mailboxes.probes.push(probe);
        } else {
            mailboxes.left_out += 1;
        }
    }

    /// A call begins.
    pub(crate) fn call(&self, call: Call) -> Entered<Call> {
        Table::enter(&self.calls, call)
    }

    /// A process begins.
    pub(crate) fn process(&self, process: Process) -> Entered<Process> {
        Table::enter(&self.processes, process)
    }

    /// A link begins.
    pub(crate) fn link(&self, link: Link) -> Entered<Link> {
        Table::enter(&self.links, link)
    }

    /// Whether anybody looks here: what must be prepared for that need not be otherwise.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    pub(crate) fn set_watched(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// What a relay's actor knows of its streams, as of now.
    pub(crate) fn publish_relay(&self, view: RelayView) {
        *unpoisoned(&self.relay) = Some((Tick::now(), view));
    }

    /// What the watchdog has found, until it looks again: what is stuck, for how many microseconds each mailbox has been
    /// still, and which processes are stopped.
    pub(crate) fn publish_stuck(&self, stuck: Vec<Stuck>, still: HashMap<u64, u64>, stopped: HashSet<u64>) {
        *unpoisoned(&self.findings) = Findings {
            stuck,
            still,
            stopped,
        };
    }

    pub(crate) fn stuck(&self) -> Vec<Stuck> {
        unpoisoned(&self.findings).stuck.clone()
    }

    pub(crate) fn findings(&self) -> Findings {
        unpoisoned(&self.findings).clone()
    }

    /// Everything that is here now. Takes locks for as long as it copies, never while it looks.
    pub(crate) fn look(&self) -> Seen {
        let (probes, mailboxes_left_out): (Vec<_>, _) = {
            let mailboxes = unpoisoned(&self.mailboxes);
            (
                mailboxes.probes.iter().filter_map(Weak::upgrade).collect(),
                mailboxes.left_out,
            )
        };
        let looks = probes.iter().map(|probe| probe.look());
        Seen {
            now: Tick::now(),
            mailboxes: looks.filter(|look| !look.stopped).collect(),
            calls: self.calls.all(),
            processes: self.processes.all(),
            links: self.links.all(),
            arbiters: self.arbiters.look(),
            relay: unpoisoned(&self.relay).clone(),
            left_out: mailboxes_left_out
                + self.calls.left_out()
                + self.processes.left_out()
                + self.links.left_out(),
        }
    }
}

/// What a panic of another thread left behind a lock is still whole: every change under these locks is one step.
pub(crate) fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Still(bool);

    impl Probe for Still {
        fn look(&self) -> Look {
            Look {
                stopped: self.0,
                ..Look::default()
            }
        }
    }

    #[test]
    fn a_mailbox_is_seen_while_it_lives_and_forgotten_afterwards() {
        let board = Board::new(Role::Executor);
        let lives: Arc<dyn Probe> = Arc::new(Still(false));
        let stopped: Arc<dyn Probe> = Arc::new(Still(true));
        board.watch(Arc::downgrade(&lives));
        board.watch(Arc::downgrade(&stopped));
        assert_eq!(board.look().mailboxes.len(), 1);
        drop(lives);
        assert!(board.look().mailboxes.is_empty());
    }

    #[test]
    fn many_short_lives_leave_a_bounded_list() {
        let board = Board::new(Role::Executor);
        for _ in 0..100_000 {
            let lives: Arc<dyn Probe> = Arc::new(Still(false));
            board.watch(Arc::downgrade(&lives));
        }
        assert!(unpoisoned(&board.mailboxes).probes.len() <= 64);
        assert_eq!(unpoisoned(&board.mailboxes).left_out, 0);
    }
}
