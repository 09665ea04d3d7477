//! Finding and ending all that descends from one process.
//!
//! A look at `/proc` is a photograph: what it shows may be gone or have multiplied when it is looked at. Two things
//! make it enough. The root is a subreaper, so whatever loses its parent below it becomes its child, and "no children
//! left" (`ECHILD`), not an empty photograph, is what ends a hunt. And nobody is signalled by number: a pidfd is opened,
//! the start time is compared again, and then it cannot be a stranger any more.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::spawn::procfs::{self, Stat};

/// How often one pass looks again for processes that were born while it stopped the others.
const STOP_ROUNDS_MAX: usize = 8;

/// One process: its number may be used again, both together may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    start_ticks: u64,
}

/// What one pass of killing did.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// Who was sent the signal.
    pub(crate) killed: BTreeSet<Identity>,
}

/// The living descendants of a process, those below `spare` left out and `spare` too. Zombies are dead.
pub(crate) fn descendants(root: u32, spare: &[u32]) -> Vec<(Identity, Stat)> {
    let mut children: BTreeMap<u32, Vec<(u32, Stat)>> = BTreeMap::new();
    for (pid, stat) in procfs::all() {
        children.entry(stat.parent).or_default().push((pid, stat));
    }
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (pid, stat) in children.remove(&parent).unwrap_or_default() {
            if spare.contains(&pid) {
                continue;
            }
            parents.push(pid);
            if !stat.is_zombie {
                let start_ticks = stat.start_ticks;
                found.push((Identity { pid, start_ticks }, stat));
            }
        }
    }
    found
}

/// Sends a signal to exactly this process.
///
/// # Errors
/// `ESRCH` when it is gone, and what the kernel answers.
pub(crate) fn signal(process: Identity, signal: Signal) -> Result<(), Errno> {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let pidfd = pidfd_open(pid.ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
    match procfs::stat(process.pid) {
        Ok(stat) if stat.start_ticks == process.start_ticks => pidfd_send_signal(&pidfd, signal),
        Ok(_) | Err(_) => Err(Errno::SRCH),
    }
}

/// One pass of killing: everything is stopped first, until nothing new is seen, so that nobody answers the death of his
/// neighbour with another child; then everything is killed.
pub(crate) fn kill_pass(root: u32, spare: &[u32]) -> Pass {
    let mut stopped = BTreeSet::new();
    for _ in 0..STOP_ROUNDS_MAX {
        let before = stopped.len();
        for (process, _) in descendants(root, spare) {
            if stopped.insert(process) {
                // One that is gone or may not be signalled is seen in what is left.
                let _ = signal(process, Signal::STOP);
            }
        }
        if stopped.len() == before {
            break;
        }
    }
    let mut pass = Pass::default();
    for process in stopped {
        if signal(process, Signal::KILL).is_ok() {
            pass.killed.insert(process);
        }
    }
    pass
}
