//! The one owner of a started process and of what it started.
//!
//! Signals must never reach a stranger. To the leader they go by pidfd, which always means this process. With a guard the
//! leader's tree is its keeper's business, which signals by pidfd too. Without one the group is signalled by number, and
//! a number can be used again. So there the leader is not reaped until its owner gives it up: while it lives, or lies
//! unreaped, it is itself in the group, and the kernel gives the number to nobody else. The price is one zombie from the
//! exit until the last pipe is closed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, pidfd_send_signal};

use super::exit::{self, Exit, ExitWatcher, TreeReport};
use super::graveyard::Graveyard;
use super::procfs::{self, Member};
use super::pty::Terminal;
use crate::guard::{Containment, ExecutorDeath, KeeperLink, Scope, TreeHold, living_below};

/// A started process and all that descends from it; without a guard, the group it leads.
///
/// Dropping it kills all of them: what nobody owns does not run. Only a detached command is left alone.
#[derive(Debug)]
#[must_use = "dropping this kills the process and everything it started"]
pub struct ProcessGroup {
    leader: Pid,
    pidfd: Arc<OwnedFd>,
    holder: Holder,
    /// Reaped, or left to end by itself.
    is_given_up: bool,
}

#[derive(Debug)]
enum Holder {
    /// It is our own child.
    Own(Arc<Graveyard>),
    /// It is a keeper's.
    Keeper(Arc<KeeperLink>),
}

/// What came of giving a process up.
#[derive(Debug)]
#[must_use = "a process that still runs is handed back, and dropping it kills it"]
pub enum Reap {
    /// It had ended and is gone; its id may be used again from now on.
    Done(Exit),
    /// It still runs.
    Running(ProcessGroup),
}

/// Who carries a termination through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "without a guard it is the caller who has to kill when the grace is over"]
pub enum Enforcer {
    /// The keeper kills what is left when the grace is over, and reports: see
    /// [`ExitWatcher::tree_ended`](super::ExitWatcher::tree_ended).
    Guard,
    /// The group was told to end, and that is all.
    Caller,
}

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The process is gone and was reaped by somebody else, or its keeper is gone.
    #[error("the process is gone: there is nothing left to signal")]
    Gone,
    /// Not one of the signals that Linux names.
    #[error("{number} is not a signal that can be sent: use a number from 1 to 31")]
    Unsupported {
        /// What was asked for.
        number: i32,
    },
    /// The kernel refused: the process runs as somebody else, or a sandbox forbids it.
    #[error("the signal was refused: check as whom the process runs")]
    Refused(#[source] io::Error),
}

impl ProcessGroup {
    pub(super) fn own(leader: Pid, pidfd: OwnedFd, graveyard: Arc<Graveyard>) -> Self {
        Self {
            leader,
            pidfd: Arc::new(pidfd),
            holder: Holder::Own(graveyard),
            is_given_up: false,
        }
    }

    pub(super) fn kept(leader: Pid, pidfd: OwnedFd, link: Arc<KeeperLink>) -> Self {
        Self {
            leader,
            pidfd: Arc::new(pidfd),
            holder: Holder::Keeper(link),
            is_given_up: false,
        }
    }

    /// The leader's process id, which is its session's and its group's id too, as the commands of this executor see it:
    /// inside of the guard's namespace where there is one.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.leader.as_raw_nonzero().get().unsigned_abs()
    }

    /// The leader's process id as this process sees it; `None` once it is gone. Reads `/proc`.
    #[must_use]
    pub fn host_pid(&self) -> Option<u32> {
        match &self.holder {
            Holder::Own(_) => Some(self.pid()),
            Holder::Keeper(_) => procfs::pid_behind(&self.pidfd),
        }
    }

    /// What ends it when the executor dies, and what finds all of it.
    #[must_use]
    pub fn containment(&self) -> Containment {
        match &self.holder {
            Holder::Own(_) => Containment {
                executor_death: ExecutorDeath::Nothing,
                tree: TreeHold::ProcessGroup,
            },
            Holder::Keeper(link) => link.containment(),
        }
    }

    /// The leader's pidfd. It only looks: who reaps by it takes the group's number away from under its owner.
    #[must_use]
    pub fn pidfd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.pidfd)
    }

    /// A watcher of the leader's end, on the current tokio runtime. One at a time: it shares the descriptor.
    ///
    /// # Errors
    /// When the runtime's poller takes no more descriptors, or watches this process already.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn watch(&self) -> io::Result<ExitWatcher> {
        match &self.holder {
            Holder::Own(_) => ExitWatcher::new(self.pidfd()),
            Holder::Keeper(link) => ExitWatcher::of_keeper(Arc::clone(link)),
        }
    }

    /// When the leader started, in clock ticks since the machine did. Reads `/proc`.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or the leader is gone.
    pub fn start_ticks(&self) -> io::Result<u64> {
        let pid = self.host_pid().ok_or(io::ErrorKind::NotFound)?;
        procfs::stat(pid).map(|stat| stat.start_ticks)
    }

    /// The leader's end, if it has come. Reaps nothing.
    ///
    /// # Errors
    /// When the status is lost: see [`ExitWatcher::wait`](super::ExitWatcher::wait).
    pub fn exit(&self) -> io::Result<Option<Exit>> {
        match &self.holder {
            Holder::Own(_) => exit::look(self.pidfd.as_fd()),
            Holder::Keeper(link) => link.exit(),
        }
    }

    /// Sends a signal to the leader alone. To one that has ended it goes nowhere and is no error.
    ///
    /// # Errors
    /// [`SignalError`]; `Gone` only when somebody else reaped it.
    pub fn signal_leader(&self, number: i32) -> Result<(), SignalError> {
        let sent = pidfd_send_signal(&*self.pidfd, named(number)?);
        match (&self.holder, sent) {
            // Its keeper has reaped it, and nobody else can have: it has ended.
            (Holder::Keeper(_), Err(Errno::SRCH)) => Ok(()),
            (Holder::Own(_) | Holder::Keeper(_), sent) => sent.map_err(refusal),
        }
    }

    /// Sends a signal to all that descends from the leader, itself included, also after its end; without a guard, to
    /// every process of its group. With a guard it is the keeper that sends, after this has returned.
    ///
    /// # Errors
    /// [`SignalError`]; `Gone` only when somebody else reaped the leader, or its keeper is gone.
    pub fn signal_group(&self, number: i32) -> Result<(), SignalError> {
        let signal = named(number)?;
        match &self.holder {
            Holder::Own(_) => {
                // Somebody else's reaping would free the number: without our zombie it must not be used.
                exit::look(self.pidfd.as_fd()).map_err(|_| SignalError::Gone)?;
                kill_process_group(self.leader, signal).map_err(refusal)
            }
            Holder::Keeper(link) => link.signal(Scope::Tree, number).map_err(refusal),
        }
    }

    /// Sends a signal to the foreground group of the process's terminal: INT, QUIT and TSTP as the keys do, any other to
    /// the group that holds the terminal now.
    ///
    /// # Errors
    /// [`SignalError`]; `Gone` when nobody holds the terminal.
    pub fn signal_foreground(&self, terminal: &Terminal, number: i32) -> Result<(), SignalError> {
        let signal = named(number)?;
        if matches!(signal, Signal::INT | Signal::QUIT | Signal::TSTP) {
            return terminal.signal_key(number).map_err(refusal);
        }
        match &self.holder {
            Holder::Keeper(link) => link.signal(Scope::Foreground, number).map_err(refusal),
            Holder::Own(_) => {
                let group = terminal.foreground().ok_or(SignalError::Gone)?;
                let raw = group.as_raw_nonzero().get().unsigned_abs();
                // A number that no living process of our session has may be a stranger's by now.
                let members = procfs::members(raw).map_err(SignalError::Refused)?;
                if !members.iter().any(|member| member.session == self.pid()) {
                    return Err(SignalError::Gone);
                }
                kill_process_group(group, signal).map_err(refusal)
            }
        }
    }

    /// TERM to all that descends from the leader, itself included, and CONT, so that the stopped hear it; then, when
    /// `grace` is over and something is left, KILL. A grace of zero kills at once. A second call can only bring the KILL
    /// forward. Returns at once, and says who does the KILL.
    ///
    /// # Errors
    /// [`SignalError`]; `Gone` when the guard is gone, and with it the tree.
    pub fn terminate(&self, grace: Duration) -> Result<Enforcer, SignalError> {
        match &self.holder {
            Holder::Keeper(link) => {
                link.terminate(grace).map_err(refusal)?;
                Ok(Enforcer::Guard)
            }
            Holder::Own(_) => {
                if grace.is_zero() {
                    self.signal_group(Signal::KILL.as_raw())?;
                } else {
                    self.signal_group(Signal::TERM.as_raw())?;
                    self.signal_group(Signal::CONT.as_raw())?;
                }
                Ok(Enforcer::Caller)
            }
        }
    }

    /// The living processes that descend from the leader, itself included; without a guard, the processes of its group, a
    /// dead leader included. Numbers are as this process sees them. Blocking: see [`members`](super::members).
    ///
    /// # Errors
    /// When `/proc` cannot be listed.
    pub fn members(&self) -> io::Result<Vec<Member>> {
        match &self.holder {
            Holder::Own(_) => procfs::members(self.pid()),
            Holder::Keeper(link) => {
                std::fs::read_dir("/proc")?;
                let keeper = link.keeper_pid().ok_or(io::ErrorKind::NotFound)?;
                Ok(living_below(keeper))
            }
        }
    }

    /// Whether nothing that descends from the leader is left, itself included. Costs a system call. `None` without a
    /// guard: nobody knows.
    #[must_use]
    pub fn is_tree_empty(&self) -> Option<bool> {
        match &self.holder {
            Holder::Own(_) => None,
            Holder::Keeper(link) => Some(link.is_empty()),
        }
    }

    /// The report on a termination, if it has come. `None` without a guard.
    pub(crate) fn tree_report(&self) -> Option<TreeReport> {
        match &self.holder {
            Holder::Own(_) => None,
            Holder::Keeper(link) => link.report().ok().flatten(),
        }
    }

    /// Gives the process up as it is: nobody here ends it any more. For one that is detached.
    pub fn release(mut self) {
        self.is_given_up = true;
    }

    /// Gives the process up if it has ended. What it left running is left alone, and out of reach from then on: terminate
    /// it before. With a guard it still ends with the executor.
    ///
    /// # Errors
    /// When its status is lost; it is given up all the same.
    pub fn reap(mut self) -> io::Result<Reap> {
        let ended = match &self.holder {
            Holder::Own(_) => exit::reap(self.pidfd.as_fd()),
            Holder::Keeper(link) => link.exit(),
        };
        match ended {
            Ok(Some(exit)) => {
                self.is_given_up = true;
                Ok(Reap::Done(exit))
            }
            Ok(None) => Ok(Reap::Running(self)),
            Err(error) => {
                self.is_given_up = true;
                Err(error)
            }
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if self.is_given_up {
            return;
        }
        match &self.holder {
            Holder::Own(graveyard) => {
                // A refusal leaves the leader running, and the graveyard waits for it as long as there is one.
                let _ = self.signal_group(Signal::KILL.as_raw());
                graveyard.bury(Arc::clone(&self.pidfd));
            }
            Holder::Keeper(link) => {
                if link.containment().executor_death != ExecutorDeath::Outlives && !link.is_empty() {
                    // Fails when the keeper is gone, and then the guard has done it.
                    let _ = link.terminate(Duration::ZERO);
                }
            }
        }
    }
}

fn named(number: i32) -> Result<Signal, SignalError> {
    Signal::from_named_raw(number).ok_or(SignalError::Unsupported { number })
}

fn refusal(errno: Errno) -> SignalError {
    if matches!(errno, Errno::SRCH | Errno::PIPE | Errno::CONNRESET) {
        SignalError::Gone
    } else {
        SignalError::Refused(errno.into())
    }
}
