//! The unsafe half of starting and reaping processes: what neither std nor rustix has a safe form for.
//!
//! It stands apart from the crate's other unsafe module, the telemetry clock, because the guard is made of this one and
//! must stay small enough to be read at one sitting. Everything here is a system call and its proof; what is decided is
//! decided elsewhere.

#![expect(
    unsafe_code,
    reason = "system calls without a safe form; each block says why it is sound"
)]

mod confined;
mod launch;

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

pub(crate) use confined::{bar_sockets, default_signals, ignore_signals};
pub(crate) use launch::{LaunchFailed, Plan, Step, launch};

/// How a process ended, and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// `Ok` its code, `Err` its signal.
    pub(crate) status: Result<i32, i32>,
    pub(crate) core_dumped: bool,
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
    pub(crate) max_rss_kib: u64,
}

/// One dead child of this process, if there is one, reaped. `Ok(None)`: there are children, and none is dead.
///
/// # Errors
/// `ECHILD`: there are no children.
pub(crate) fn wait_any() -> Result<Option<(Pid, Ended)>, Errno> {
    let (mut status, mut usage) = (0, MaybeUninit::zeroed());
    // SAFETY: both pointers are to this frame; all zero is a valid `rusage` where the kernel writes none.
    let (pid, usage) = unsafe {
        let pid = libc::wait4(-1, &raw mut status, libc::WNOHANG, usage.as_mut_ptr());
        (pid, usage.assume_init())
    };
    if pid == -1 {
        return Err(last_errno());
    }
    let Some(pid) = Pid::from_raw(pid) else {
        return Ok(None);
    };
    let ended = if libc::WIFSIGNALED(status) {
        Err(libc::WTERMSIG(status))
    } else {
        Ok(libc::WEXITSTATUS(status))
    };
    Ok(Some((pid, ended_of(ended, libc::WCOREDUMP(status), &usage))))
}

/// The end of this process's child behind a pidfd, if it has come. Reaps it only when told to.
///
/// # Errors
/// `ECHILD` when it is no child, or was reaped.
pub(crate) fn wait_pidfd(pidfd: BorrowedFd<'_>, reap: bool) -> Result<Option<Ended>, Errno> {
    let keep = if reap { 0 } else { libc::WNOWAIT };
    let (mut info, mut usage) = (MaybeUninit::zeroed(), MaybeUninit::zeroed());
    // SAFETY: both pointers are to this frame and all zero is valid for both; the call is raw because libc's own has no
    // place for the usage.
    let (answer, info, usage) = unsafe {
        let answer = libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            pidfd.as_raw_fd(),
            info.as_mut_ptr(),
            libc::WEXITED | libc::WNOHANG | keep,
            usage.as_mut_ptr(),
        );
        let (info, usage): (libc::siginfo_t, libc::rusage) = (info.assume_init(), usage.assume_init());
        (answer, info, usage)
    };
    if answer == -1 {
        return Err(last_errno());
    }
    // SAFETY: the kernel filled in the fields of a child's end, or left them zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let ended = if info.si_code == libc::CLD_EXITED {
        Ok(status)
    } else {
        Err(status)
    };
    Ok(Some(ended_of(ended, info.si_code == libc::CLD_DUMPED, &usage)))
}

/// Waits for the end of this process's child behind a pidfd, and reaps it.
///
/// # Errors
/// `ECHILD` when it is no child, or was reaped.
pub(crate) fn wait_pidfd_blocking(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED))?;
    Ok(())
}

fn ended_of(status: Result<i32, i32>, core_dumped: bool, usage: &libc::rusage) -> Ended {
    let micros = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    Ended {
        status,
        core_dumped,
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    }
}

/// Whether this process has one thread.
pub(crate) fn has_one_thread() -> bool {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count) == 1
}

/// Closes every descriptor from 3 on but one.
pub(crate) fn close_all_but(kept: &OwnedFd) {
    let kept = kept.as_raw_fd().cast_unsigned();
    // SAFETY: called first in a process that was executed to be the guard: nothing of this program has opened any, so what
    // is closed was inherited, and nobody holds it.
    unsafe {
        if kept > 3 {
            libc::syscall(libc::SYS_close_range, 3, kept - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, kept + 1, libc::c_uint::MAX, 0);
    }
}

/// A second process like this one.
///
/// # Errors
/// When the kernel gives none, or this process has more than one thread: what the others held would be held for ever.
pub(crate) fn fork() -> Result<Option<Pid>, Errno> {
    if !has_one_thread() {
        return Err(Errno::BUSY);
    }
    // SAFETY: with one thread nothing is half-done in the copy, so the child may do whatever the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// The end of this process, without what a normal end does twice when a process was forked.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; there is nothing left to be unsound.
    unsafe { libc::_exit(code) }
}

/// Namespaces of this process's own; a process id namespace is that of its next child.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: unsafe only for CLONE_FILES, which no caller asks for.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// A descriptor that is readable when a child has ended. `SIGCHLD` is blocked from now on.
///
/// # Errors
/// When the process is out of descriptors.
pub(crate) fn child_signals() -> Result<OwnedFd, Errno> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the set is initialised by the first call; the descriptor is fresh when it is not -1.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), null_mut());
        match libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(last_errno()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Sends INT, QUIT or TSTP to the foreground group of the terminal whose master this is.
///
/// # Errors
/// `EINVAL` for any other signal.
pub(crate) fn signal_terminal(master: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: the argument of TIOCSIG is a plain number.
    match unsafe { libc::ioctl(master.as_raw_fd(), TIOCSIG, signal) } {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}

/// See `ioctl_tty(2)`; the same number on every architecture Linux has a generic table for.
const TIOCSIG: libc::c_ulong = 0x4004_5436;

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
