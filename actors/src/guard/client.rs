//! The executor's side of the guard: starting it, asking it for keepers, and starting commands by them. Blocks: only
//! the spawner's thread comes here.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::Pid;

use super::channel::{self, Packet};
use super::pool::{Keeper, KeeperLink, Pool};
use super::wire::{FromGuard, FromKeeper, PACKET_MAX_BYTES, REQUEST_MAX_BYTES, ToGuard, ToKeeper};
use super::{
    Containment, ExecutorDeath, GuardOptions, GuardProblem, GuardProgram, MARK_NAME, TreeHold, is_prepared,
};
use crate::spawn::launch::ChildEnds;
use crate::spawn::{SpawnErrorKind, SpawnRequest};

/// How long the guard may take to come up.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a keeper may take to start a command. Executing a program from a file system that hangs takes for ever; the
/// thread that waits is everybody's.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How many keepers are asked for until one is alive.
const ASKS_MAX: usize = 4;

/// How long the guard may take to kill what is left when it is let go.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// A running guard.
#[derive(Debug)]
pub(crate) struct GuardClient {
    /// To the part that is not in a namespace.
    outside: OwnedFd,
    /// To init of the namespace, where there is one.
    init: Option<OwnedFd>,
    guard: Child,
    executor_death: ExecutorDeath,
    pool: Arc<Pool>,
    /// Keepers that were asked for and have not come.
    awaited: usize,
    generation: u32,
    is_out_of_step: bool,
}

/// A command that a keeper has started.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) link: Arc<KeeperLink>,
    /// As the commands of this executor see it.
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

impl GuardClient {
    /// Starts a guard.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn start(options: &GuardOptions) -> Result<Self, GuardProblem> {
        let (program, arguments) = program(&options.program)?;
        let (ours, theirs) = channel::pair().map_err(|errno| GuardProblem::NotStarted(errno.into()))?;
        let mut guard = Command::new(program)
            .arg0("dwell-guard")
            .args(arguments)
            .env(MARK_NAME, "1")
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(GuardProblem::NotStarted)?;
        match greet(&ours, options) {
            Ok(init) => Ok(Self {
                outside: ours,
                executor_death: if init.is_some() {
                    ExecutorDeath::PidNamespace
                } else {
                    ExecutorDeath::GuardHunt
                },
                init,
                guard,
                pool: Arc::default(),
                awaited: 0,
                generation: 0,
                is_out_of_step: false,
            }),
            Err(error) => {
                // It may be any program at all.
                drop(ours);
                let _ = guard.kill();
                let _ = guard.wait();
                Err(GuardProblem::NotStarted(error))
            }
        }
    }

    /// Whether its process runs, and answers.
    pub(crate) fn is_alive(&mut self) -> bool {
        !self.is_out_of_step && matches!(self.guard.try_wait(), Ok(None))
    }

    /// What commands can count on, a detached one excepted.
    pub(crate) fn executor_death(&self) -> ExecutorDeath {
        self.executor_death
    }

    /// Starts a command with these ends.
    ///
    /// # Errors
    /// Why not. After `GuardLost` this guard is of no more use.
    pub(crate) fn launch(
        &mut self,
        request: &SpawnRequest,
        ends: &ChildEnds,
    ) -> Result<Kept, SpawnErrorKind> {
        let keeper = if request.detach {
            self.ask(true)
                .and_then(|()| self.await_keeper(true))
                .map_err(|error| refusal(&error))?
        } else {
            self.keeper().map_err(|error| refusal(&error))?
        };
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        send_start(&keeper.socket, generation, request, ends).map_err(|errno| match errno {
            Errno::PIPE | Errno::CONNRESET => SpawnErrorKind::GuardLost,
            Errno::TOOBIG => SpawnErrorKind::ArgumentsTooLong,
            errno => SpawnErrorKind::ResourceExhausted {
                errno: errno.raw_os_error(),
            },
        })?;
        loop {
            let Packet { bytes, mut attached } = channel::receive_within(&keeper.socket, START_TIMEOUT)
                .map_err(|error| match error.raw_os_error() {
                    // It runs, and ends with its keeper, which ends with the connection that is dropped here.
                    Some(errno @ libc::EMFILE) => SpawnErrorKind::Unwatchable { errno },
                    Some(_) | None => SpawnErrorKind::GuardLost,
                })?;
            match FromKeeper::decode(&bytes) {
                Ok(FromKeeper::Started { generation: of, pid }) if of == generation => {
                    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                    let (Some(pid), Some(pidfd)) = (pid, attached.pop()) else {
                        return Err(SpawnErrorKind::GuardLost);
                    };
                    let link = Arc::new(KeeperLink::new(keeper, generation, Arc::clone(&self.pool)));
                    return Ok(Kept { link, pid, pidfd });
                }
                Ok(FromKeeper::Failed { generation: of, kind }) if of == generation => {
                    if !request.detach {
                        self.pool.put(keeper);
                    }
                    return Err(kind);
                }
                Ok(FromKeeper::Died) | Err(_) => return Err(SpawnErrorKind::GuardLost),
                // Late words about the command before.
                Ok(
                    FromKeeper::Started { .. }
                    | FromKeeper::Failed { .. }
                    | FromKeeper::Exited { .. }
                    | FromKeeper::TreeEmpty { .. }
                    | FromKeeper::TreeEnded { .. },
                ) => {}
            }
        }
    }

    /// Asks for one more keeper when none is idle, without waiting: the next command should find one.
    pub(crate) fn prepare(&mut self) {
        if self.awaited == 0 && self.pool.is_empty() {
            // Fails when the guard is gone, which the next start finds out.
            let _ = self.ask(false);
        }
    }

    fn keeper(&mut self) -> io::Result<Keeper> {
        if let Some(keeper) = self.pool.take() {
            return Ok(keeper);
        }
        let mut keeper = Err(io::ErrorKind::BrokenPipe.into());
        for _ in 0..ASKS_MAX {
            if self.awaited == 0 {
                self.ask(false)?;
            }
            keeper = self.await_keeper(false);
            // One that was made ahead of time may have been killed since.
            if !keeper.as_ref().is_ok_and(|keeper| !keeper.is_alive()) {
                break;
            }
        }
        keeper
    }

    fn connection(&self, detached: bool) -> &OwnedFd {
        match &self.init {
            Some(init) if !detached => init,
            Some(_) | None => &self.outside,
        }
    }

    fn ask(&mut self, detached: bool) -> io::Result<()> {
        // Without a namespace both kinds come by one connection, in the order they were asked for.
        while detached && self.init.is_none() && self.awaited > 0 {
            let keeper = self.await_keeper(false)?;
            self.pool.put(keeper);
        }
        channel::send(
            self.connection(detached),
            &ToGuard::Keeper { detached }.encode(),
            &[],
        )?;
        if !detached {
            self.awaited += 1;
        }
        Ok(())
    }

    fn await_keeper(&mut self, detached: bool) -> io::Result<Keeper> {
        let answer = channel::receive_within(self.connection(detached), READY_TIMEOUT);
        if !detached {
            self.awaited = self.awaited.saturating_sub(1);
        }
        if let Err(error) = &answer {
            // An answer that comes after all would be taken for the next one's.
            self.is_out_of_step |= error.kind() == io::ErrorKind::TimedOut;
        }
        let Packet { bytes, attached } = answer?;
        match FromGuard::decode(&bytes) {
            Ok(FromGuard::Keeper { has_cgroup }) => {
                let [socket, pidfd] = <[OwnedFd; 2]>::try_from(attached).map_err(|_| invalid())?;
                Ok(Keeper {
                    socket,
                    host_pid: crate::spawn::procfs::pid_behind(&pidfd),
                    pidfd,
                    containment: Containment {
                        executor_death: if detached {
                            ExecutorDeath::Outlives
                        } else {
                            self.executor_death
                        },
                        tree: if has_cgroup {
                            TreeHold::Cgroup
                        } else {
                            TreeHold::Subreaper
                        },
                    },
                })
            }
            Ok(FromGuard::NoKeeper { errno }) => Err(io::Error::from_raw_os_error(errno)),
            Ok(FromGuard::Ready { .. }) | Err(_) => Err(invalid()),
        }
    }
}

impl Drop for GuardClient {
    fn drop(&mut self) {
        // The end of the connections is its order to end everything. It is waited for, so that nothing is left when
        // this returns; but not for ever.
        self.init = None;
        if let Ok((unconnected, _)) = channel::pair() {
            self.outside = unconnected;
        }
        let deadline = Instant::now() + END_TIMEOUT;
        while let Ok(None) = self.guard.try_wait() {
            if Instant::now() >= deadline {
                let _ = self.guard.kill();
                let _ = self.guard.wait();
                return;
            }
            let _ = channel::wait(&mut [], Some(Duration::from_millis(1)));
        }
    }
}

fn program(program: &GuardProgram) -> Result<(PathBuf, Vec<OsString>), GuardProblem> {
    match program {
        // Also when the file was replaced or removed since this process was started.
        GuardProgram::Own if is_prepared() => Ok((PathBuf::from("/proc/self/exe"), Vec::new())),
        GuardProgram::Own => Err(GuardProblem::NotPrepared),
        GuardProgram::At(path, arguments) => Ok((path.clone(), arguments.clone())),
        GuardProgram::Nowhere => Err(GuardProblem::Unwanted),
    }
}

/// The first words; answers the connection to init, where there is one.
fn greet(socket: &OwnedFd, options: &GuardOptions) -> io::Result<Option<OwnedFd>> {
    let hello = ToGuard::Hello {
        namespaces: options.namespaces,
        cgroups: options.cgroups,
    };
    channel::send(socket, &hello.encode(), &[])?;
    let Packet { bytes, attached } = channel::receive_within(socket, READY_TIMEOUT)?;
    match FromGuard::decode(&bytes) {
        Ok(FromGuard::Ready { is_namespaced }) => {
            let init = attached.into_iter().next();
            if init.is_some() == is_namespaced {
                Ok(init)
            } else {
                Err(invalid())
            }
        }
        Ok(FromGuard::Keeper { .. } | FromGuard::NoKeeper { .. }) | Err(_) => Err(invalid()),
    }
}

fn send_start(
    socket: &OwnedFd,
    generation: u32,
    request: &SpawnRequest,
    ends: &ChildEnds,
) -> Result<(), Errno> {
    let (bytes, is_long) = ToKeeper::encode_start(generation, request);
    let [stdin, stdout, stderr] = &ends.stdio;
    if !is_long {
        debug_assert!(bytes.len() <= PACKET_MAX_BYTES);
        return channel::send(socket, &bytes, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
    }
    if bytes.len() > REQUEST_MAX_BYTES {
        return Err(Errno::TOOBIG);
    }
    let file = rustix::fs::memfd_create("dwell-start", MemfdFlags::CLOEXEC)?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    let announcement = ToKeeper::StartAttached { generation }.encode();
    channel::send(
        socket,
        &announcement,
        &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), file.as_fd()],
    )
}

/// Why no keeper was had.
fn refusal(error: &io::Error) -> SpawnErrorKind {
    match error.raw_os_error() {
        Some(errno) if !matches!(errno, libc::EPIPE | libc::ECONNRESET) => {
            SpawnErrorKind::ResourceExhausted { errno }
        }
        Some(_) | None => SpawnErrorKind::GuardLost,
    }
}

fn invalid() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it answered as no guard of this build does",
    )
}
