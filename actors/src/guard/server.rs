//! The guard's own life: it makes keepers, reaps them, and ends what the executor leaves behind.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_child_subreaper, setsid};

use super::MARK_NAME;
use super::cgroup::{self, Cgroup, CgroupParent};
use super::channel::{self, Received};
use super::keeper::{self, Keeper};
use super::namespace::{self, Side};
use super::wire::{FromGuard, FromKeeper, ToGuard};
use crate::spawn::sys;

/// How long the executor may take to say the first word.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what the executor left behind is hunted. A process that outlasts it cannot be killed at all.
const HUNT_TIMEOUT: Duration = Duration::from_secs(10);

/// What this part of the guard is.
enum Role {
    /// Init of the namespace: its end is everybody's.
    Init,
    /// Outside of the namespace: keeps only what is detached.
    Outside { init: Pid, pidfd: OwnedFd },
    /// There is no namespace: a subreaper that hunts.
    Hunter,
}

/// One keeper.
struct Kept {
    pid: Pid,
    /// Its own end of its connection, to speak for it when it was killed.
    socket: OwnedFd,
    detached: bool,
    cgroup: Option<std::path::PathBuf>,
}

struct Server {
    role: Role,
    control: OwnedFd,
    children: OwnedFd,
    cgroups: Option<CgroupParent>,
    keepers: Vec<Kept>,
}

/// The connection to the executor, if this process was started to be a guard.
pub(super) fn recognise() -> Option<OwnedFd> {
    let mark = std::env::var_os(MARK_NAME)?;
    if mark != "1" {
        return None;
    }
    let stdin = std::io::stdin();
    match rustix::net::sockopt::socket_type(&stdin) {
        Ok(SocketType::SEQPACKET) => stdin.as_fd().try_clone_to_owned().ok(),
        Ok(_) | Err(_) => None,
    }
}

/// The guard, to its end.
pub(super) fn main(socket: OwnedFd) -> ! {
    let code = i32::from(serve(socket).is_err());
    sys::exit_now(code)
}

fn serve(socket: OwnedFd) -> std::io::Result<()> {
    if !sys::has_one_thread() {
        return Err(std::io::Error::other("something was started before the guard"));
    }
    sys::close_all_but(&socket);
    let null = null()?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    drop(null);
    // A key pressed at the executor's terminal is for the executor, which has ways of ending this.
    let _ = setsid();
    name("dwell-guard");
    let hello = channel::receive_within(&socket, HELLO_TIMEOUT)?;
    let Ok(ToGuard::Hello { namespaces, cgroups }) = ToGuard::decode(&hello.bytes) else {
        return Err(std::io::ErrorKind::InvalidData.into());
    };
    // Made out here, where the process id in its name means something to the next guard.
    let mut group = cgroups.then(CgroupParent::new).flatten();
    let side = if namespaces {
        namespace::enter()
    } else {
        Err(Errno::PERM)
    };
    let (role, control) = match side {
        Ok(Side::Init(own)) => {
            drop(socket);
            name("dwell-guard");
            channel::send(&own, &FromGuard::Ready { is_namespaced: true }.encode(), &[])?;
            (Role::Init, own)
        }
        Ok(Side::Outside {
            init,
            pidfd,
            executor_end,
        }) => {
            let ready = FromGuard::Ready { is_namespaced: true };
            channel::send(&socket, &ready.encode(), &[executor_end.as_fd()])?;
            (Role::Outside { init, pidfd }, socket)
        }
        Err(_) => {
            set_child_subreaper(Some(rustix::process::getpid()))?;
            let ready = FromGuard::Ready { is_namespaced: false };
            channel::send(&socket, &ready.encode(), &[])?;
            (Role::Hunter, socket)
        }
    };
    let cgroups = match role {
        // What is detached has no group of this guard's: it will outlive it.
        Role::Outside { .. } => None,
        Role::Init | Role::Hunter => group.take(),
    };
    let server = Server {
        role,
        control,
        children: sys::child_signals()?,
        cgroups,
        keepers: Vec::new(),
    };
    server.run();
    drop(group);
    Ok(())
}

impl Server {
    fn run(mut self) {
        loop {
            let mut fds = [
                PollFd::new(&self.control, PollFlags::IN),
                PollFd::new(&self.children, PollFlags::IN),
            ];
            if channel::wait(&mut fds, None).is_err() {
                break;
            }
            let [control, children] = fds.map(|fd| !fd.revents().is_empty());
            if children && !self.reap() {
                break;
            }
            if control && !self.hear() {
                break;
            }
        }
        self.end();
    }

    /// Whether the executor is still there.
    fn hear(&mut self) -> bool {
        let Ok(Received::Packet(packet)) = channel::receive(&self.control) else {
            return false;
        };
        match ToGuard::decode(&packet.bytes) {
            Ok(ToGuard::Keeper { detached }) => {
                self.add_keeper(detached);
                true
            }
            // Nothing that follows can be trusted either.
            Ok(ToGuard::Hello { .. }) | Err(_) => false,
        }
    }

    fn add_keeper(&mut self, detached: bool) {
        // In a namespace whoever shall outlive the executor is started outside of it, and only he.
        let is_ours = match self.role {
            Role::Init => !detached,
            Role::Outside { .. } => detached,
            Role::Hunter => true,
        };
        let made = if is_ours {
            self.fork_keeper(detached)
        } else {
            Err(Errno::INVAL)
        };
        match made {
            Ok((socket, pidfd, has_cgroup)) => {
                self.answer(FromGuard::Keeper { has_cgroup }, &[socket.as_fd(), pidfd.as_fd()]);
            }
            Err(errno) => self.answer(
                FromGuard::NoKeeper {
                    errno: errno.raw_os_error(),
                },
                &[],
            ),
        }
    }

    fn answer(&self, message: FromGuard, attached: &[BorrowedFd<'_>]) {
        // When nobody hears it, the end of the connection is what is heard next.
        let _ = channel::send(&self.control, &message.encode(), attached);
    }

    fn fork_keeper(&mut self, detached: bool) -> Result<(OwnedFd, OwnedFd, bool), Errno> {
        let (executor_end, keeper_end) = channel::pair()?;
        let ours = rustix::io::fcntl_dupfd_cloexec(&keeper_end, 3)?;
        let cgroup = self
            .cgroups
            .as_mut()
            .filter(|_| !detached)
            .and_then(CgroupParent::child);
        let path = cgroup.as_ref().map(|cgroup| cgroup.path().to_owned());
        let Some(pid) = sys::fork()? else {
            drop((executor_end, ours));
            self.become_keeper(keeper_end, detached, cgroup)
        };
        drop((keeper_end, cgroup));
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let has_cgroup = path.is_some();
        self.keepers.push(Kept {
            pid,
            socket: ours,
            detached,
            cgroup: path,
        });
        Ok((executor_end, pidfd, has_cgroup))
    }

    fn become_keeper(&mut self, socket: OwnedFd, detached: bool, cgroup: Option<Cgroup>) -> ! {
        // Nothing of the guard's is the keeper's business, least of all its siblings' connections.
        self.keepers.clear();
        let closed = (close_copy(&mut self.control), close_copy(&mut self.children));
        name("dwell-keeper");
        if detached && let Ok(null) = null() {
            // Whoever waits for the executor's last word is not to wait for this.
            let _ = rustix::stdio::dup2_stderr(&null);
        }
        if closed == (Ok(()), Ok(()))
            && set_child_subreaper(Some(rustix::process::getpid())).is_ok()
            && let Ok(keeper) = Keeper::new(socket, detached, cgroup)
        {
            keeper.run();
        }
        sys::exit_now(0)
    }

    /// Whether there is still something to guard.
    fn reap(&mut self) -> bool {
        keeper::drain(&self.children);
        let mut dead = Vec::new();
        // `ECHILD` is no news here: there may be no keeper yet.
        let _ = keeper::reap_all(|pid| dead.push(pid));
        while !dead.is_empty() {
            let mut is_keeper_gone = false;
            for pid in std::mem::take(&mut dead) {
                if matches!(&self.role, Role::Outside { init, .. } if *init == pid) {
                    return false;
                }
                is_keeper_gone |= self.forget(pid);
            }
            // What a keeper leaves falls to init or to the subreaper. Outside there is neither, and it stays.
            if is_keeper_gone && !matches!(self.role, Role::Outside { .. }) {
                let spare: Vec<u32> = self.keepers.iter().map(|kept| raw(kept.pid)).collect();
                keeper::end_descendants(&spare, keeper::KILL_BOUND, |pid| dead.push(pid));
            }
        }
        true
    }

    /// Whether it was a keeper that died.
    fn forget(&mut self, pid: Pid) -> bool {
        let Some(place) = self.keepers.iter().position(|kept| kept.pid == pid) else {
            return false;
        };
        let kept = self.keepers.swap_remove(place);
        // Whoever still has its other end did not send it away.
        let _ = channel::send(&kept.socket, &FromKeeper::Died.encode(), &[]);
        if let Some(path) = kept.cgroup {
            let _ = std::fs::write(path.join("cgroup.kill"), "1");
            cgroup::remove(&path);
        }
        true
    }

    /// The executor is gone.
    fn end(mut self) {
        match &self.role {
            // The kernel does the rest.
            Role::Init => {}
            Role::Outside { pidfd, .. } => {
                let _ = pidfd_send_signal(pidfd, Signal::KILL);
                let _ = sys::wait_pidfd_blocking(pidfd.as_fd());
            }
            Role::Hunter => {
                self.keepers.retain(|kept| kept.detached);
                let spare: Vec<u32> = self.keepers.iter().map(|kept| raw(kept.pid)).collect();
                keeper::end_descendants(&spare, HUNT_TIMEOUT, |_| ());
            }
        }
    }
}

fn null() -> Result<OwnedFd, Errno> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Closes this process's copy of a descriptor by putting an empty one in its place.
fn close_copy(fd: &mut OwnedFd) -> Result<(), Errno> {
    *fd = null()?;
    Ok(())
}

fn raw(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

fn name(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        // What `ps` shows; nothing depends on it.
        let _ = rustix::thread::set_name(&name);
    }
}
