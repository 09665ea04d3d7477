//! Starting one process. Blocks: only the spawner's thread comes here.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::error::{SpawnError, SpawnErrorKind};
use super::graveyard::Graveyard;
use super::group::ProcessGroup;
use super::lookup;
use super::request::{SpawnRequest, StdinMode};

/// What the output pipes are asked to hold: 2.5 to 3 times the throughput of the kernel's 64 KiB, and more brings nothing.
pub const PIPE_BYTES: usize = 256 * 1024;

/// A process that was started. Dropping it kills the process.
#[derive(Debug)]
#[must_use = "dropping this kills the process"]
pub struct Spawned {
    /// The process and the group it leads.
    pub process: ProcessGroup,
    /// The writing end of its standard input, when that is a pipe; non-blocking.
    pub stdin: Option<OwnedFd>,
    /// The reading end of its standard output; non-blocking.
    pub stdout: OwnedFd,
    /// The reading end of its standard error; non-blocking.
    pub stderr: OwnedFd,
    /// What the output pipes really hold.
    pub pipes: PipeSizes,
}

/// What the output pipes of a process hold, in bytes. The kernel gives less than [`PIPE_BYTES`] to a user
/// who has many large pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeSizes {
    /// Standard output.
    pub stdout_bytes: usize,
    /// Standard error.
    pub stderr_bytes: usize,
}

/// # Errors
/// [`SpawnError`]: no process, no descriptor and no zombie is left behind.
pub(super) fn start(request: &SpawnRequest, graveyard: &Arc<Graveyard>) -> Result<Spawned, SpawnError> {
    request.validate()?;
    let program = lookup::resolve(request)?;
    let child = command(request, &program)
        .spawn()
        .map_err(|error| lookup::diagnose(request, &program, errno_of(&error)))?;
    adopt(child, graveyard, |pid| pidfd_open(pid, PidfdFlags::empty()))
}

/// The child becomes ours: from here on `Child` is only a bag of descriptors. Its drop neither kills nor waits.
pub(super) fn adopt(
    mut child: Child,
    graveyard: &Arc<Graveyard>,
    open: impl FnOnce(Pid) -> Result<OwnedFd, Errno>,
) -> Result<Spawned, SpawnError> {
    let pid = Pid::from_child(&child);
    let pidfd = match open(pid) {
        Ok(pidfd) => pidfd,
        Err(errno) => {
            // The child is not reaped yet, so both numbers are still its own. Neither call can fail while that holds.
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = child.wait();
            return Err(SpawnErrorKind::Unwatchable {
                errno: errno.raw_os_error(),
            }
            .into());
        }
    };
    // From here on every early return drops the group, which kills and reaps.
    let process = ProcessGroup::new(pid, pidfd, Arc::clone(graveyard));
    let stdin = child.stdin.take().map(OwnedFd::from);
    let stdout = child.stdout.take().map(OwnedFd::from).ok_or_else(no_pipe)?;
    let stderr = child.stderr.take().map(OwnedFd::from).ok_or_else(no_pipe)?;
    for end in stdin.iter().chain([&stdout, &stderr]) {
        make_non_blocking(end).map_err(|errno| SpawnErrorKind::Unwatchable {
            errno: errno.raw_os_error(),
        })?;
    }
    let pipes = PipeSizes {
        stdout_bytes: enlarge(&stdout),
        stderr_bytes: enlarge(&stderr),
    };
    Ok(Spawned {
        process,
        stdin,
        stdout,
        stderr,
        pipes,
    })
}

fn command(request: &SpawnRequest, program: &Path) -> Command {
    let mut argv = request.argv.iter().map(|argument| OsStr::from_bytes(argument));
    let mut command = Command::new(program);
    if let Some(name) = argv.next() {
        command.arg0(name);
    }
    command.args(argv).env_clear();
    for (name, value) in request.env.pairs() {
        command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
    }
    if let Some(cwd) = &request.cwd {
        command.current_dir(OsStr::from_bytes(cwd));
    }
    let stdin = match request.stdin {
        StdinMode::Null => Stdio::null(),
        StdinMode::Piped => Stdio::piped(),
    };
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    command
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

/// Never seen: the pipes were asked for.
fn no_pipe() -> SpawnError {
    SpawnErrorKind::Unwatchable {
        errno: Errno::BADF.raw_os_error(),
    }
    .into()
}

fn errno_of(error: &std::io::Error) -> Errno {
    // Without a number it is std's own refusal of the request, which `validate` forestalls.
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}
