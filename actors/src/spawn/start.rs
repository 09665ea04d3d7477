//! Starting one process. Blocks: only the spawner's thread comes here.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use dwell_messages::confinement::Confinement;

use super::environment::Environment;
use super::error::{SpawnError, SpawnErrorKind};
use super::graveyard::Graveyard;
use super::group::ProcessGroup;
use super::launch::{ChildEnds, Place, above_standard, launch};
use super::lookup;
use super::pty::{self, Terminal};
use super::request::{SpawnRequest, StdinMode};
use crate::confine::{Confiner, Unenforceable, directory};
use crate::guard::{Containment, GuardClient};

/// What the output pipes are asked to hold: 2.5 to 3 times the throughput of the kernel's 64 KiB, and more brings nothing.
pub const PIPE_BYTES: usize = 256 * 1024;

/// A process that was started. Dropping it kills the process.
#[derive(Debug)]
#[must_use = "dropping this kills the process"]
pub struct Spawned {
    /// The process and all it starts.
    pub process: ProcessGroup,
    /// The writing end of its standard input, when that is a pipe or a terminal; non-blocking.
    pub stdin: Option<OwnedFd>,
    /// The reading end of its standard output, or of its terminal; non-blocking.
    pub stdout: OwnedFd,
    /// The reading end of its standard error; non-blocking. A terminal has none of its own.
    pub stderr: Option<OwnedFd>,
    /// Its terminal, when it has one.
    pub terminal: Option<Terminal>,
    /// What the output pipes really hold.
    pub pipes: PipeSizes,
    /// What ends it when the executor dies, and what finds all of it.
    pub containment: Containment,
}

/// What the output pipes of a process hold, in bytes. The kernel gives less than [`PIPE_BYTES`] to a user
/// who has many large pipes. Zero where there is a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PipeSizes {
    /// Standard output.
    pub stdout_bytes: usize,
    /// Standard error.
    pub stderr_bytes: usize,
}

/// Our ends of what the process reads and writes.
struct OurEnds {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
    terminal: Option<Terminal>,
    pipes: PipeSizes,
}

/// # Errors
/// [`SpawnError`]: no process, no descriptor and no zombie is left behind.
pub(super) fn start(
    request: SpawnRequest,
    guard: Option<&mut GuardClient>,
    graveyard: &Arc<Graveyard>,
    confiner: Option<&Confiner>,
) -> Result<Spawned, SpawnError> {
    request.validate()?;
    if request.detach && guard.is_none() {
        return Err(SpawnErrorKind::DetachUnavailable.into());
    }
    let mut request = request;
    if request.terminal.is_some() && request.env.value(b"TERM").is_none() {
        let pairs = request.env.pairs().iter().cloned();
        request.env = Environment::exact(pairs.chain([(b"TERM".to_vec(), pty::TERM_DEFAULT.to_vec())]));
    }
    if let Some(confinement) = request.confinement.take() {
        confine(&mut request, &confinement, confiner)?;
    }
    let (ours, theirs) = match request.terminal {
        Some(size) => terminal(size),
        None => pipes(request.stdin).map_err(|errno| SpawnErrorKind::ResourceExhausted {
            errno: errno.raw_os_error(),
        }),
    }?;
    let process = match guard {
        Some(guard) => {
            if request.cwd.is_none() {
                // The guard is where we were when it was started.
                request.cwd = std::env::current_dir()
                    .ok()
                    .map(|cwd| cwd.into_os_string().into_vec());
            }
            let kept = guard.launch(&request, &theirs)?;
            ProcessGroup::kept(kept.pid, kept.pidfd, kept.link)
        }
        None => {
            let (pid, pidfd) = launch(&request, &theirs, Place::default())?;
            ProcessGroup::own(pid, pidfd, Arc::clone(graveyard))
        }
    };
    let OurEnds {
        stdin,
        stdout,
        stderr,
        terminal,
        pipes,
    } = ours;
    Ok(Spawned {
        containment: process.containment(),
        process,
        stdin,
        stdout,
        stderr,
        terminal,
        pipes,
    })
}

/// Puts the chain that confines it in front of a command.
fn confine(
    request: &mut SpawnRequest,
    confinement: &Confinement,
    confiner: Option<&Confiner>,
) -> Result<(), SpawnErrorKind> {
    let confiner = confiner.ok_or(SpawnErrorKind::Unconfined {
        why: Unenforceable::NoMeans,
    })?;
    // Whether there is such a program is to be an error of the start, not a word on its standard error.
    let program = lookup::resolve(request)?;
    lookup::check(request, &program)?;
    let cwd = directory(request.cwd.take());
    let (argv, env) = confiner
        .wrap(request, &cwd, confinement)
        .map_err(|why| SpawnErrorKind::Unconfined { why })?;
    (request.program, request.cwd) = (None, Some(cwd));
    (request.argv, request.env) = (argv, env);
    Ok(())
}

fn pipes(stdin: StdinMode) -> Result<(OurEnds, ChildEnds), Errno> {
    let (their_stdin, our_stdin) = match stdin {
        StdinMode::Null => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            (rustix::fs::open("/dev/null", flags, Mode::empty())?, None)
        }
        StdinMode::Piped => {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            make_non_blocking(&ours)?;
            (theirs, Some(ours))
        }
    };
    let (stdout, their_stdout) = output_pipe()?;
    let (stderr, their_stderr) = output_pipe()?;
    let pipes = PipeSizes {
        stdout_bytes: enlarge(&stdout),
        stderr_bytes: enlarge(&stderr),
    };
    let ours = OurEnds {
        stdin: our_stdin,
        stdout,
        stderr: Some(stderr),
        terminal: None,
        pipes,
    };
    let stdio = [
        above_standard(their_stdin)?,
        above_standard(their_stdout)?,
        above_standard(their_stderr)?,
    ];
    Ok((ours, ChildEnds { stdio }))
}

fn output_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    make_non_blocking(&ours)?;
    Ok((ours, theirs))
}

fn terminal(size: super::TerminalSize) -> Result<(OurEnds, ChildEnds), SpawnErrorKind> {
    let unavailable = |errno: Errno| SpawnErrorKind::TerminalUnavailable {
        errno: errno.raw_os_error(),
    };
    let pair = pty::open(size).map_err(unavailable)?;
    let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(unavailable);
    let ours = OurEnds {
        stdin: Some(copy(&pair.master)?),
        stdout: copy(&pair.master)?,
        stderr: None,
        terminal: Some(Terminal::new(pair.master)),
        pipes: PipeSizes::default(),
    };
    let stdio = [copy(&pair.slave)?, copy(&pair.slave)?, copy(&pair.slave)?];
    Ok((ours, ChildEnds { stdio }))
}

fn make_non_blocking(end: &OwnedFd) -> Result<(), Errno> {
    fcntl_setfl(end, fcntl_getfl(end)? | OFlags::NONBLOCK)
}

/// Best effort: a smaller pipe is slower and loses nothing.
fn enlarge(end: &OwnedFd) -> usize {
    rustix::pipe::fcntl_setpipe_size(end.as_fd(), PIPE_BYTES)
        .or_else(|_| rustix::pipe::fcntl_getpipe_size(end.as_fd()))
        .unwrap_or(0)
}
