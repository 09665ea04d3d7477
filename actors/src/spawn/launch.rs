//! From a request to a running program: in the guard, and without one in the executor itself.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use rustix::process::Pid;

use super::error::SpawnErrorKind;
use super::lookup;
use super::request::{LimitName, SpawnRequest};
use super::sys::{self, LaunchFailed, Plan, Step};

/// The descriptors a child gets.
#[derive(Debug)]
pub(crate) struct ChildEnds {
    pub(crate) stdio: [OwnedFd; 3],
}

/// Where and under what a child runs, beside its request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place<'a> {
    /// Whether it dies with the thread that starts it: only where that thread is the process.
    pub(crate) dies_with_parent: bool,
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// Looks the program up and starts it. The request has been validated.
///
/// # Errors
/// Why not; no process is left behind.
pub(crate) fn launch(
    request: &SpawnRequest,
    ends: &ChildEnds,
    place: Place<'_>,
) -> Result<(Pid, OwnedFd), SpawnErrorKind> {
    let program = lookup::resolve(request)?;
    let c_program = c_string(program.as_os_str().as_bytes())?;
    let argv = request
        .argv
        .iter()
        .map(|argument| c_string(argument))
        .collect::<Result<Vec<_>, _>>()?;
    let env = request
        .env
        .pairs()
        .iter()
        .map(|(name, value)| c_string(&[name.as_slice(), b"=", value.as_slice()].concat()))
        .collect::<Result<Vec<_>, _>>()?;
    let cwd = request.cwd.as_deref().map(c_string).transpose()?;
    let limits = request.limits.resources();
    let numbers: Vec<_> = limits
        .iter()
        .map(|(name, value)| (resource(*name), *value))
        .collect();
    let [stdin, stdout, stderr] = &ends.stdio;
    let plan = Plan {
        program: &c_program,
        argv: &argv,
        env: &env,
        cwd: cwd.as_deref(),
        stdio: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        is_terminal: request.terminal.is_some(),
        dies_with_parent: place.dies_with_parent,
        limits: &numbers,
        nice: request.limits.nice.map(i32::from),
        cgroup: place.cgroup,
    };
    sys::launch(&plan).map_err(|failed| why(request, &program, &limits, failed))
}

fn why(
    request: &SpawnRequest,
    program: &std::path::Path,
    limits: &[(LimitName, u64)],
    LaunchFailed { step, errno }: LaunchFailed,
) -> SpawnErrorKind {
    let raw = errno.raw_os_error();
    match step {
        Step::Session if request.terminal.is_some() => SpawnErrorKind::TerminalUnavailable { errno: raw },
        Step::Session | Step::Stdio => SpawnErrorKind::Other { errno: raw },
        Step::Cwd => SpawnErrorKind::CwdUnusable { errno: raw },
        Step::Limit(index) => match limits.get(index) {
            Some((limit, _)) => SpawnErrorKind::LimitRefused {
                limit: *limit,
                errno: raw,
            },
            None => SpawnErrorKind::Other { errno: raw },
        },
        Step::Nice => SpawnErrorKind::LimitRefused {
            limit: LimitName::Nice,
            errno: raw,
        },
        Step::Clone | Step::Exec => lookup::diagnose(request, program, errno),
    }
}

/// A descriptor above the standard ones: those are overwritten in the child before all have been copied.
///
/// # Errors
/// When the process is out of descriptors.
pub(crate) fn above_standard(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, 3)
}

fn c_string(bytes: &[u8]) -> Result<CString, SpawnErrorKind> {
    // Validation forestalls it.
    CString::new(bytes).map_err(|_| SpawnErrorKind::Other {
        errno: Errno::INVAL.raw_os_error(),
    })
}

fn resource(name: LimitName) -> u32 {
    match name {
        LimitName::OpenFiles => libc::RLIMIT_NOFILE,
        LimitName::AddressSpace => libc::RLIMIT_AS,
        LimitName::Processes => libc::RLIMIT_NPROC,
        LimitName::Core => libc::RLIMIT_CORE,
        LimitName::FileSize => libc::RLIMIT_FSIZE,
        LimitName::Cpu => libc::RLIMIT_CPU,
        // Not a resource of the kernel's, and never in the list.
        LimitName::Nice => libc::RLIMIT_NICE,
    }
}
