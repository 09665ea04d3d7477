//! Processes whose owner went away before it reaped them.
//!
//! The spawner's thread reaps them, so that no zombie stays and no arbiter waits.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::spawner::Job;

/// How many killed but not yet dead processes wait to be reaped. More than this means a machine whose processes do
/// not die; the next ones are waited for in place.
const GRAVES_MAX: usize = 4_096;

/// How long a killed process is waited for in place, when the spawner's thread is gone or has no room.
const BURIAL_TIMEOUT: Duration = Duration::from_millis(100);

/// How often the spawner's thread looks again for a killed process that is not dead yet.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(10);

/// Where killed processes wait to be reaped.
#[derive(Debug)]
pub(super) struct Graveyard {
    graves: Mutex<Graves>,
    bell: SyncSender<Job>,
}

#[derive(Debug, Default)]
struct Graves {
    closed: bool,
    waiting: Vec<Arc<OwnedFd>>,
}

impl Graveyard {
    pub(super) fn new(bell: SyncSender<Job>) -> Self {
        Self {
            graves: Mutex::default(),
            bell,
        }
    }

    /// Takes over a process that was just killed.
    pub(super) fn bury(&self, pidfd: Arc<OwnedFd>) {
        if is_reaped(&pidfd) {
            return;
        }
        let refused = {
            let mut graves = self.lock();
            if graves.closed || graves.waiting.len() >= GRAVES_MAX {
                Some(pidfd)
            } else {
                graves.waiting.push(pidfd);
                None
            }
        };
        match refused {
            Some(pidfd) => wait_in_place(&pidfd),
            // A full queue needs no bell: the thread sweeps after each of its jobs.
            None => {
                let _ = self.bell.try_send(Job::Sweep);
            }
        }
    }

    /// Reaps what has died, and says whether some have not.
    pub(super) fn sweep(&self) -> bool {
        let mut graves = self.lock();
        graves.waiting.retain(|pidfd| !is_reaped(pidfd));
        !graves.waiting.is_empty()
    }

    /// No more are taken: the thread that reaps is about to end.
    pub(super) fn close(&self) {
        let left = {
            let mut graves = self.lock();
            graves.closed = true;
            std::mem::take(&mut graves.waiting)
        };
        for pidfd in left {
            wait_in_place(&pidfd);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Graves> {
        // Nothing in here can panic half-way through a change.
        self.graves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reaps the process if it is dead. An error means it is not ours to reap any more, which is as good.
fn is_reaped(pidfd: &OwnedFd) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    !matches!(waitid(WaitId::PidFd(pidfd.as_fd()), options), Ok(None))
}

fn wait_in_place(pidfd: &OwnedFd) {
    let deadline = Instant::now() + BURIAL_TIMEOUT;
    while !is_reaped(pidfd) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let left = Timespec::try_from(left).ok();
        // An interrupted or failed poll only brings the next look forward; the deadline still holds.
        let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], left.as_ref());
    }
}
