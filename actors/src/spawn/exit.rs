//! The end of a process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::sys;
use crate::guard::KeeperLink;

/// How a process ended, and what it used where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code or its signal.
    pub status: ExitStatus,
    /// Whether it left a core file.
    pub core_dumped: bool,
    /// Processor time in user mode, in microseconds, its reaped children's included.
    pub user_us: Option<u64>,
    /// Processor time in the kernel, in microseconds, its reaped children's included.
    pub system_us: Option<u64>,
    /// The most memory it or one of its reaped children held at once, in KiB. The kernel counts the memory of whoever
    /// started it too: some 4 MiB of the guard's at least. `None` without a guard, where that would be the executor's own.
    pub max_rss_kib: Option<u64>,
    /// Whether it was killed because memory ran out; `None` where nobody counts that. A kill by somebody else
    /// in the same moment as one for lack of memory is taken for the latter.
    pub oom_killed: Option<bool>,
}

/// What came of terminating a tree, in processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeReport {
    /// Ended by themselves within the grace, once they were told to.
    pub ended_by_term: u32,
    /// Killed.
    pub killed: u32,
    /// Still there 2 s after being killed: in a system call that does not end, or not ours to kill.
    pub unkillable: u32,
}

/// The exit code or the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ended by itself with this code, 0 to 255.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

/// Waits for the end of one process on a tokio runtime. It looks and does not reap: without a guard the process stays a
/// zombie, and its id its own, until its [`ProcessGroup`](super::ProcessGroup) reaps it.
#[derive(Debug)]
pub struct ExitWatcher {
    source: Source,
    seen: Option<Exit>,
}

#[derive(Debug)]
enum Source {
    /// Our own child.
    Child(AsyncFd<Arc<OwnedFd>>),
    /// What the keeper says.
    Kept(AsyncFd<Arc<KeeperLink>>),
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
        Ok(Self {
            source: Source::Child(register(pidfd, Interest::READABLE)?),
            seen: None,
        })
    }

    pub(super) fn of_keeper(link: Arc<KeeperLink>) -> io::Result<Self> {
        Ok(Self {
            source: Source::Kept(register(link, Interest::READABLE)?),
            seen: None,
        })
    }

    /// Waits for the end. Once it has been seen, every later call answers the same at once.
    ///
    /// Cancellation safe: a dropped future loses nothing.
    ///
    /// # Errors
    /// When the status is lost: without a guard `ECHILD`, after a stray `wait` of the embedding program or because it
    /// ignores `SIGCHLD`; with one, when the guard or the process's keeper was killed.
    pub async fn wait(&mut self) -> io::Result<Exit> {
        if let Some(exit) = self.seen {
            return Ok(exit);
        }
        let exit = match &self.source {
            Source::Child(pidfd) => ready(pidfd, |pidfd| look(pidfd.as_fd())).await?,
            Source::Kept(link) => ready(link, |link| link.exit()).await?,
        };
        self.seen = Some(exit);
        Ok(exit)
    }

    /// Waits for the report on a [termination](super::ProcessGroup::terminate). Comes within the grace and 2 s.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    /// `Unsupported` without a guard; otherwise when the guard or the process's keeper was killed.
    pub async fn tree_ended(&mut self) -> io::Result<TreeReport> {
        match &self.source {
            Source::Child(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "without a guard nobody watches a command's tree",
            )),
            Source::Kept(link) => ready(link, |link| link.report()).await,
        }
    }
}

pub(crate) fn register<T: AsRawFd>(inner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    #[expect(
        deprecated,
        reason = "deprecated for types that lie about their descriptor; these own theirs, and it stays open and the same"
    )]
    AsyncFd::with_interest(inner, interest)
}

/// Looks whenever there is something to see.
async fn ready<T: AsRawFd, R>(
    source: &AsyncFd<T>,
    look: impl Fn(&T) -> io::Result<Option<R>>,
) -> io::Result<R> {
    loop {
        if let Some(found) = look(source.get_ref())? {
            return Ok(found);
        }
        let mut ready = source.readable().await?;
        if let Some(found) = look(source.get_ref())? {
            return Ok(found);
        }
        ready.clear_ready();
    }
}

/// The end of the process, if it has come, without reaping it.
pub(super) fn look(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    wait_now(pidfd, false)
}

/// The end of the process, if it has come, and reaps it.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    wait_now(pidfd, true)
}

fn wait_now(pidfd: BorrowedFd<'_>, reap: bool) -> io::Result<Option<Exit>> {
    let ended = rustix::io::retry_on_intr(|| sys::wait_pidfd(pidfd, reap))?;
    Ok(ended.map(|ended| Exit {
        status: match ended.status {
            Ok(code) => ExitStatus::Code(code),
            Err(signal) => ExitStatus::Signal(signal),
        },
        core_dumped: ended.core_dumped,
        user_us: Some(ended.user_us),
        system_us: Some(ended.system_us),
        max_rss_kib: None,
        oom_killed: None,
    }))
}
