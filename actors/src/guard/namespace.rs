//! Becoming init of a namespace.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{
    Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::channel;
use crate::spawn::sys;

/// How long init may take to prepare its mounts.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);

/// Which side of the fork this is.
pub(super) enum Side {
    /// Outside, with init's pidfd, its process id and the executor's end of the connection to it.
    Outside {
        init: Pid,
        pidfd: OwnedFd,
        executor_end: OwnedFd,
    },
    /// Init, with its own end of that connection.
    Init(OwnedFd),
}

/// Forks init of a new namespace, and waits until it is ready. Afterwards this process starts its children where it
/// itself is, as before.
///
/// # Errors
/// Why there is no namespace: usually `EPERM`. Nothing is changed then.
pub(super) fn enter() -> Result<Side, Errno> {
    let own = File::open("/proc/self/ns/pid").map_err(|_| Errno::NOENT)?;
    // Root of a user namespace may leave a namespace of process ids and not come back: then this process could never
    // fork again once init is gone. Entering where it is already tells, and changes nothing.
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
    let (executor_end, init_end) = channel::pair()?;
    sys::unshare(UnshareFlags::NEWPID)?;
    let forked = sys::fork();
    if forked == Ok(None) {
        drop((own, executor_end));
        match prepare() {
            Ok(()) => return Ok(Side::Init(init_end)),
            Err(errno) => sys::exit_now(errno.raw_os_error().clamp(1, 255)),
        }
    }
    drop(init_end);
    // Whatever became of init: the next child is not to be in its namespace.
    let back = move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID));
    let init = forked?.ok_or(Errno::CHILD)?;
    let pidfd = pidfd_open(init, PidfdFlags::empty())?;
    // Init says one word when it is ready, which is taken here so that the executor hears it once, from us.
    let ready = channel::receive_within(&executor_end, PREPARE_TIMEOUT);
    if back.is_err() || ready.is_err() {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        let _ = sys::wait_pidfd_blocking(pidfd.as_fd());
        return Err(back.err().unwrap_or(Errno::PERM));
    }
    Ok(Side::Outside {
        init,
        pidfd,
        executor_end,
    })
}

/// Its own mounts and its own `/proc`; and it dies with the process outside.
fn prepare() -> Result<(), Errno> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    sys::unshare(UnshareFlags::NEWNS)?;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None)
}
