//! The executor's side of the keepers: who is free, and what each has said.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::Containment;
use super::channel::{self, Received};
use super::wire::{FromKeeper, Scope, ToKeeper};
use crate::spawn::{Exit, TreeReport};

/// How many keepers may be idle; one more is let go. Each holds some 200 KiB.
pub(crate) const IDLE_KEEPERS_MAX: usize = 64;

/// A keeper without a command.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) socket: OwnedFd,
    pub(super) pidfd: OwnedFd,
    /// Its process id in the executor's own namespace.
    pub(super) host_pid: Option<u32>,
    pub(super) containment: Containment,
}

/// The keepers that are not in use.
#[derive(Debug, Default)]
pub(super) struct Pool {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    idle: Vec<Keeper>,
    /// Given up while something of their command still ran, and the command's generation.
    draining: Vec<(Keeper, u32)>,
}

/// A keeper and the one command it keeps. When it is dropped the keeper goes back to the pool.
#[derive(Debug)]
pub(crate) struct KeeperLink {
    keeper: Option<Keeper>,
    generation: u32,
    heard: Mutex<Heard>,
    pool: Arc<Pool>,
}

/// What a keeper has said of its command so far.
#[derive(Debug, Default, Clone, Copy)]
struct Heard {
    exit: Option<Exit>,
    is_empty: bool,
    report: Option<TreeReport>,
    is_lost: bool,
}

impl Pool {
    /// An idle keeper, or one that has become idle meanwhile.
    pub(super) fn take(&self) -> Option<Keeper> {
        let mut waiting = self.lock();
        waiting.living().or_else(|| {
            waiting.settle();
            waiting.living()
        })
    }

    /// Whether nobody is idle.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().idle.is_empty()
    }

    pub(super) fn put(&self, keeper: Keeper) {
        let mut waiting = self.lock();
        if waiting.idle.len() < IDLE_KEEPERS_MAX {
            waiting.idle.push(keeper);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here can panic half-way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Whether its process runs. One system call.
    pub(super) fn is_alive(&self) -> bool {
        let mut look = [PollFd::new(&self.pidfd, PollFlags::IN)];
        channel::wait(&mut look, Some(Duration::ZERO)).is_ok()
            && look.iter().all(|fd| fd.revents().is_empty())
    }
}

impl Waiting {
    /// An idle one that nobody has killed meanwhile.
    fn living(&mut self) -> Option<Keeper> {
        loop {
            let keeper = self.idle.pop()?;
            if keeper.is_alive() {
                return Some(keeper);
            }
        }
    }

    /// Sorts out those that were still busy: free, gone, or busy yet.
    fn settle(&mut self) {
        for (keeper, generation) in std::mem::take(&mut self.draining) {
            let mut heard = Heard::default();
            heard.listen(&keeper.socket, generation);
            if heard.is_lost {
                continue;
            }
            if !heard.is_empty {
                self.draining.push((keeper, generation));
            } else if self.idle.len() < IDLE_KEEPERS_MAX {
                self.idle.push(keeper);
            }
        }
    }
}

impl Heard {
    /// Takes in all that has been said; what is about an earlier command is old news.
    fn listen(&mut self, socket: &OwnedFd, generation: u32) {
        loop {
            let message = match channel::receive(socket) {
                Ok(Received::Packet(packet)) => FromKeeper::decode(&packet.bytes),
                Ok(Received::Nothing) => return,
                Ok(Received::End) | Err(_) => {
                    self.is_lost = true;
                    return;
                }
            };
            match message {
                Ok(FromKeeper::Exited {
                    generation: of,
                    exit,
                    is_empty,
                }) if of == generation => {
                    self.exit = Some(exit);
                    self.is_empty |= is_empty;
                }
                Ok(FromKeeper::TreeEmpty { generation: of }) if of == generation => self.is_empty = true,
                Ok(FromKeeper::TreeEnded {
                    generation: of,
                    report,
                }) if of == generation => {
                    self.report = Some(report);
                }
                Ok(FromKeeper::Died) | Err(_) => self.is_lost = true,
                // Of an earlier command, or of a start that nobody waited for any more.
                Ok(
                    FromKeeper::Exited { .. }
                    | FromKeeper::TreeEmpty { .. }
                    | FromKeeper::TreeEnded { .. }
                    | FromKeeper::Started { .. }
                    | FromKeeper::Failed { .. },
                ) => {}
            }
        }
    }
}

impl KeeperLink {
    pub(super) fn new(keeper: Keeper, generation: u32, pool: Arc<Pool>) -> Self {
        Self {
            keeper: Some(keeper),
            generation,
            heard: Mutex::default(),
            pool,
        }
    }

    pub(crate) fn containment(&self) -> Containment {
        self.keeper().containment
    }

    /// The keeper's process id as this process sees it.
    pub(crate) fn keeper_pid(&self) -> Option<u32> {
        self.keeper().host_pid
    }

    /// The leader's end, if it has been told.
    ///
    /// # Errors
    /// When the keeper is gone and took it along.
    pub(crate) fn exit(&self) -> io::Result<Option<Exit>> {
        let heard = self.listen();
        match heard.exit {
            None if heard.is_lost => Err(lost()),
            exit => Ok(exit),
        }
    }

    /// What came of a termination, if it has been told.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub(crate) fn report(&self) -> io::Result<Option<TreeReport>> {
        let heard = self.listen();
        match heard.report {
            None if heard.is_lost => Err(lost()),
            report => Ok(report),
        }
    }

    /// Whether nothing of the command is left.
    pub(crate) fn is_empty(&self) -> bool {
        let heard = self.listen();
        heard.is_empty || heard.is_lost
    }

    /// # Errors
    /// `EPIPE` when the keeper is gone, `EAGAIN` when it does not listen.
    pub(crate) fn signal(&self, scope: Scope, signal: i32) -> Result<(), Errno> {
        self.send(&ToKeeper::Signal {
            generation: self.generation,
            scope,
            signal,
        })
    }

    /// # Errors
    /// As [`signal`](Self::signal).
    pub(crate) fn terminate(&self, grace: Duration) -> Result<(), Errno> {
        self.send(&ToKeeper::Terminate {
            generation: self.generation,
            grace_ms: u32::try_from(grace.as_millis()).unwrap_or(u32::MAX),
        })
    }

    fn send(&self, message: &ToKeeper) -> Result<(), Errno> {
        channel::send(&self.keeper().socket, &message.encode(), &[])
    }

    fn listen(&self) -> Heard {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if !heard.is_lost {
            heard.listen(&self.keeper().socket, self.generation);
        }
        *heard
    }

    fn keeper(&self) -> &Keeper {
        self.keeper
            .as_ref()
            .expect("a link has its keeper until it is dropped")
    }
}

/// Readable when the keeper has said something.
impl AsRawFd for KeeperLink {
    fn as_raw_fd(&self) -> RawFd {
        self.keeper().socket.as_raw_fd()
    }
}

impl Drop for KeeperLink {
    fn drop(&mut self) {
        let heard = self.listen();
        let Some(keeper) = self.keeper.take() else { return };
        if heard.is_lost || keeper.containment.executor_death == super::ExecutorDeath::Outlives {
            return;
        }
        if heard.is_empty {
            self.pool.put(keeper);
        } else {
            self.pool.lock().draining.push((keeper, self.generation));
        }
    }
}

fn lost() -> io::Error {
    io::Error::other("the guard's keeper ended before the process: its wait status is lost")
}
