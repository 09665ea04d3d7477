//! The end of a process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How a process ended, and what it used where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code or its signal.
    pub status: ExitStatus,
    /// Whether it left a core file.
    pub core_dumped: bool,
    /// Processor time in user mode, in microseconds. `None` on the plain spawn path.
    pub user_us: Option<u64>,
    /// Processor time in the kernel, in microseconds. `None` on the plain spawn path.
    pub system_us: Option<u64>,
    /// The most memory it held at once, in KiB. `None` on the plain spawn path.
    pub max_rss_kib: Option<u64>,
}

/// The exit code or the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ended by itself with this code, 0 to 255.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

/// Waits for the end of one process on a tokio runtime. It looks and does not reap: the process stays a zombie, and its
/// id its own, until its [`ProcessGroup`](super::ProcessGroup) reaps it.
#[derive(Debug)]
pub struct ExitWatcher {
    pidfd: AsyncFd<Arc<OwnedFd>>,
    seen: Option<Exit>,
}

impl ExitWatcher {
    /// Watches the process behind a pidfd, which must be a child of this process.
    ///
    /// # Errors
    /// When the runtime's poller takes no more descriptors.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn new(pidfd: Arc<OwnedFd>) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "deprecated for types that lie about their descriptor; an owned one stays open and the same"
        )]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        Ok(Self { pidfd, seen: None })
    }

    /// Waits for the end. Once it has been seen, every later call answers the same at once.
    ///
    /// Cancellation safe: a dropped future loses nothing.
    ///
    /// # Errors
    /// `ECHILD` when the process was reaped before its end was seen here: by a stray `wait` of the embedding
    /// program, or because it ignores `SIGCHLD`. Its status is lost then.
    pub async fn wait(&mut self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = self.seen {
                return Ok(exit);
            }
            let mut ready = self.pidfd.readable().await?;
            match look(ready.get_inner().as_fd())? {
                Some(exit) => self.seen = Some(exit),
                None => ready.clear_ready(),
            }
        }
    }
}

/// The end of the process, if it has come, without reaping it.
pub(super) fn look(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    wait_now(
        pidfd,
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT,
    )
}

/// The end of the process, if it has come, and reaps it.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    wait_now(pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

fn wait_now(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> io::Result<Option<Exit>> {
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd), options))?;
    status.as_ref().map(read).transpose()
}

fn read(status: &WaitIdStatus) -> io::Result<Exit> {
    let ended = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => return Err(io::Error::other("waitid reported neither an exit nor a signal")),
    };
    Ok(Exit {
        status: ended,
        core_dumped: status.dumped(),
        user_us: None,
        system_us: None,
        max_rss_kib: None,
    })
}
