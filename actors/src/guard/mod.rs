//! The guard: the small process that starts an executor's commands, and sees to it that none outlives its welcome.
//!
//! One guard serves one executor. It is the executor's own program (or another of this library's), executed again, and
//! is recognised by [`init`], which an embedding program calls first in `main`.
//!
//! ```text
//! executor ──── guard (outside) ──── guard (init of a namespace) ─┬─ keeper ── command ── its tree
//!     │                                                           └─ keeper ── command ── its tree
//!     └───────────── one connection to each keeper ──────────────────┘
//! ```
//!
//! **A keeper per running command.** To which command does a daemon belong that has left its group, its session and,
//! by a double fork, its parent? Once the parent is dead no look at `/proc` can tell, so it must be settled before: each
//! command is the child of a subreaper of its own, to which everything falls that is orphaned below it. A keeper is a
//! fork of the guard, some 200 KiB of its own, and serves one command after another, so in steady state a command costs
//! no fork but its own, and the executor talks to the keeper directly, which saves two wake-ups of a middleman.
//!
//! **The executor's death** is the end of its connections. As root the guard is init of a namespace of process ids, with
//! its own mounts (what the machine mounts still arrives) and its own `/proc`: it ends, and the kernel kills all that it
//! ever started. All commands of one executor share it, so `kill $(pgrep x)` in one finds what another started. Without
//! the privilege the guard is a subreaper and hunts by process id and start time until it has no children left.
//!
//! **One command's tree** is ended by its keeper in the same way, helped by `cgroup.kill` where control groups of
//! version 2 may be written: the keeper's commands are born in a group of the keeper's own, at no cost per command but
//! that of a fork in place of a vfork.
//!
//! **Detached commands** have keepers that the outside part of the guard forks, in the executor's own namespace, and that
//! the hunt spares. Nothing ends such a command but itself and its session's `terminate` while the executor lives.
//!
//! **What commands inherit** beside what is asked for, the umask and the limits above all, is what the executor had when
//! the guard was started. What a command mounts, the executor's other commands see and the executor does not.
//!
//! **What it does not do**: read a command's data, wait for the executor, use an async runtime, or trust a number that
//! may have been used again. A command that runs as the executor's own user and kills that user's every process kills
//! the keepers too; what they kept is then killed by the guard, and reported as a lost status.

mod cgroup;
mod channel;
mod client;
mod codec;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod keeper;
mod namespace;
mod pool;
mod server;
mod tree;
mod wire;
#[cfg(test)]
mod wire_tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::spawn::Member;

pub(crate) use client::GuardClient;
pub(crate) use pool::KeeperLink;
pub(crate) use wire::Scope;

/// The variable that tells the program it is the guard. Commands have environments of their own and never see it.
pub(crate) const MARK_NAME: &str = "DWELL_GUARD";

/// Whether this program calls [`init`], so that executing it again makes a guard.
static IS_PREPARED: AtomicBool = AtomicBool::new(false);

/// What the two duties of containment rest on, as reported with every start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Containment {
    /// What ends the command when the executor dies.
    pub executor_death: ExecutorDeath,
    /// What finds the command's processes when it is terminated.
    pub tree: TreeHold,
}

/// What ends a command when the executor dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutorDeath {
    /// The kernel: the guard is init of the namespace the command is in.
    PidNamespace,
    /// The guard, which hunts what it started by process id and start time.
    GuardHunt,
    /// Nothing, as asked: the command is detached.
    Outlives,
    /// Nothing: there is no guard.
    Nothing,
}

/// What finds the processes of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeHold {
    /// A control group, and descent besides.
    Cgroup,
    /// Descent from a subreaper of the command's own.
    Subreaper,
    /// The process group, which a process may leave.
    ProcessGroup,
}

/// Where the guard's program comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GuardProgram {
    /// This very program, if it called [`init`]; else there is no guard.
    #[default]
    Own,
    /// This program with these arguments, whose `main` calls [`init`].
    At(PathBuf, Vec<OsString>),
    /// No guard: commands are the executor's own children, and nothing contains them but their process groups.
    Nowhere,
}

/// How the guard is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardOptions {
    /// Its program.
    pub program: GuardProgram,
    /// Whether it tries for a namespace of process ids.
    pub namespaces: bool,
    /// Whether it tries for control groups.
    pub cgroups: bool,
}

impl GuardProgram {
    /// Its file, where there is one that calls [`init`].
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Own if is_prepared() => std::env::current_exe().ok(),
            Self::At(path, _) => Some(path.clone()),
            Self::Own | Self::Nowhere => None,
        }
    }
}

impl Default for GuardOptions {
    fn default() -> Self {
        Self {
            program: GuardProgram::Own,
            namespaces: true,
            cgroups: true,
        }
    }
}

/// Why there is no guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardProblem {
    /// None was wanted.
    #[error("no guard is wanted: commands are contained by their process groups alone")]
    Unwanted,
    /// The program does not call [`init`].
    #[error(
        "this program cannot be its own guard: call `dwell::guard::init()` first in `main`, or name a program that does"
    )]
    NotPrepared,
    /// Its program could not be started, or did not answer as a guard.
    #[error(
        "the guard could not be started: check its program, and that nothing runs before `dwell::guard::init()`"
    )]
    NotStarted(#[source] std::io::Error),
    /// It ended too often in a short time.
    #[error("the guard ended {times} times in {seconds} s: find out who kills it")]
    KeepsEnding {
        /// How often.
        times: usize,
        /// In how long, in seconds.
        seconds: u64,
    },
}

/// Makes this program able to be its own guard, and what confines commands inside of bubblewrap. Call it first in `main`, before any thread is started: in the guard it
/// runs the guard and never returns; otherwise it returns at once.
pub fn init() {
    crate::confine::recognise();
    match server::recognise() {
        Some(socket) => server::main(socket),
        None => IS_PREPARED.store(true, Ordering::Relaxed),
    }
}

/// The living processes below one of this `/proc`.
pub(crate) fn living_below(root: u32) -> Vec<Member> {
    let found = tree::descendants(root, &[]);
    let member = |(process, stat): &(tree::Identity, _)| Member::new(process.pid, stat);
    found.iter().map(member).collect()
}

fn is_prepared() -> bool {
    IS_PREPARED.load(Ordering::Relaxed)
}
