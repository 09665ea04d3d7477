//! The one owner of a started process and of the group it leads.
//!
//! Signals must never reach a stranger. To the leader they go by pidfd, which always means this process. To the group
//! they go by number, and a number can be used again. So the leader is not reaped until its owner gives it up: while it
//! lives, or lies unreaped, it is itself in the group, and the kernel gives the number to nobody else. The other way,
//! looking the members up in `/proc` and killing them one by one, always has a gap between the look and the
//! signal. The price is one zombie from the exit until the last pipe is closed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, pidfd_send_signal};

use super::exit::{self, Exit, ExitWatcher};
use super::graveyard::Graveyard;
use super::procfs::{self, Member};

/// A started process and the group it leads.
///
/// Dropping it kills the whole group and has the leader reaped by the spawner's thread: what nobody owns does not run.
#[derive(Debug)]
#[must_use = "dropping this kills the process and everything in its group"]
pub struct ProcessGroup {
    leader: Pid,
    pidfd: Arc<OwnedFd>,
    graveyard: Arc<Graveyard>,
    is_reaped: bool,
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

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The process is gone and was reaped by somebody else.
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
    pub(super) fn new(leader: Pid, pidfd: OwnedFd, graveyard: Arc<Graveyard>) -> Self {
        Self {
            leader,
            pidfd: Arc::new(pidfd),
            graveyard,
            is_reaped: false,
        }
    }

    /// The leader's process id, which is the group's id too.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.leader.as_raw_nonzero().get().unsigned_abs()
    }

    /// The leader's pidfd. It only looks: who reaps by it takes the group's number away from under its owner.
    #[must_use]
    pub fn pidfd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.pidfd)
    }

    /// A watcher of the leader's end, on the current tokio runtime. It shares the pidfd.
    ///
    /// # Errors
    /// When the runtime's poller takes no more descriptors, or watches this process already.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn watch(&self) -> io::Result<ExitWatcher> {
        ExitWatcher::new(self.pidfd())
    }

    /// When the leader started, in clock ticks since the machine did. Reads `/proc`.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn start_ticks(&self) -> io::Result<u64> {
        procfs::stat(self.pid()).map(|stat| stat.start_ticks)
    }

    /// The leader's end, if it has come. Reaps nothing.
    ///
    /// # Errors
    /// `ECHILD` when somebody else reaped it.
    pub fn exit(&self) -> io::Result<Option<Exit>> {
        exit::look(self.pidfd.as_fd())
    }

    /// Sends a signal to the leader alone. To one that has ended it goes nowhere and is no error.
    ///
    /// # Errors
    /// [`SignalError`]; `Gone` only when somebody else reaped it.
    pub fn signal_leader(&self, number: i32) -> Result<(), SignalError> {
        pidfd_send_signal(&*self.pidfd, named(number)?).map_err(refusal)
    }

    /// Sends a signal to every process of the group, also after the leader's end.
    ///
    /// # Errors
    /// [`SignalError`]; `Gone` only when somebody else reaped the leader.
    pub fn signal_group(&self, number: i32) -> Result<(), SignalError> {
        let signal = named(number)?;
        // Somebody else's reaping would free the number: without our zombie it must not be used.
        exit::look(self.pidfd.as_fd()).map_err(|_| SignalError::Gone)?;
        kill_process_group(self.leader, signal).map_err(refusal)
    }

    /// The processes of the group, a dead leader included. Blocking: see [`members`](super::members).
    ///
    /// # Errors
    /// When `/proc` cannot be listed.
    pub fn members(&self) -> io::Result<Vec<Member>> {
        procfs::members(self.pid())
    }

    /// Gives the process up if it has ended. The rest of its group is left alone, and out of reach from then on: kill
    /// it before.
    ///
    /// # Errors
    /// `ECHILD` when somebody else reaped it; it is given up all the same.
    pub fn reap(mut self) -> io::Result<Reap> {
        match exit::reap(self.pidfd.as_fd()) {
            Ok(Some(exit)) => {
                self.is_reaped = true;
                Ok(Reap::Done(exit))
            }
            Ok(None) => Ok(Reap::Running(self)),
            Err(error) => {
                self.is_reaped = true;
                Err(error)
            }
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if self.is_reaped {
            return;
        }
        // A refusal leaves the leader running, and the graveyard waits for it as long as there is one.
        let _ = self.signal_group(Signal::KILL.as_raw());
        self.graveyard.bury(Arc::clone(&self.pidfd));
    }
}

fn named(number: i32) -> Result<Signal, SignalError> {
    Signal::from_named_raw(number).ok_or(SignalError::Unsupported { number })
}

fn refusal(errno: Errno) -> SignalError {
    if errno == Errno::SRCH {
        SignalError::Gone
    } else {
        SignalError::Refused(errno.into())
    }
}
