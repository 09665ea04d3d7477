//! Why a command was not started.

use rustix::io::Errno;

use super::request::LimitName;
use crate::confine::Unenforceable;

/// Why a command was not started, with the kernel's number where there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpawnError {
    /// What went wrong, for programs.
    pub kind: SpawnErrorKind,
    /// The kernel's error number, where the kernel was asked.
    pub errno: Option<i32>,
    /// What went wrong and what to do, for people. It names no argument, no path and no environment value.
    pub message: String,
}

/// What kept a command from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnErrorKind {
    /// The argument list has no program in it.
    EmptyArgv,
    /// A string that the kernel takes as NUL-terminated has a NUL byte in it.
    NulByte {
        /// Which string.
        place: Place,
    },
    /// One argument, or one `name=value` of the environment, is longer than the kernel takes.
    ArgumentTooLong {
        /// Which string.
        place: Place,
        /// Its length in bytes.
        length_bytes: usize,
        /// The longest that is taken, in bytes.
        limit_bytes: usize,
    },
    /// An environment name is empty or has an equals sign in it.
    InvalidEnvironmentName {
        /// Its position in the environment.
        index: usize,
    },
    /// Arguments and environment together are longer than the kernel takes (`E2BIG`).
    ArgumentsTooLong,
    /// The working directory is missing, is no directory, or may not be entered.
    CwdUnusable {
        /// What entering it answers.
        errno: i32,
    },
    /// The program is not there, or not in any directory of the command's own `PATH`.
    ProgramMissing {
        /// What looking it up answers.
        errno: i32,
    },
    /// The program is there, but the interpreter or loader it names is not.
    InterpreterMissing {
        /// What starting it answered.
        errno: i32,
    },
    /// The program is there, but is not something that can be executed: a directory, a file without the
    /// permission, a format the kernel does not know, a chain of interpreters without end.
    NotExecutable {
        /// What starting it answered.
        errno: i32,
    },
    /// The program may be executable, but not by us or not from there.
    PermissionDenied {
        /// What starting it answered.
        errno: i32,
    },
    /// The program's file is being written (`ETXTBSY`). The same request may succeed later.
    ProgramBusy,
    /// The machine is out of processes, descriptors or memory. The same request may succeed later.
    ResourceExhausted {
        /// What the kernel answered.
        errno: i32,
    },
    /// A limit or the priority cannot be set to what was asked: above the executor's own hard limit, or below its own
    /// priority without the privilege.
    LimitRefused {
        /// Which.
        limit: LimitName,
        /// What setting it answered.
        errno: i32,
    },
    /// The machine gave no terminal.
    TerminalUnavailable {
        /// What the kernel answered.
        errno: i32,
    },
    /// A command that outlives the executor was asked for, and here nothing can do that.
    DetachUnavailable,
    /// It was to be confined, and that cannot be enforced.
    Unconfined {
        /// Why.
        why: Unenforceable,
    },
    /// The guard ended while it was starting the command. It may have begun to run, and was killed with the guard. A
    /// new guard is started for the next one.
    GuardLost,
    /// The process was started, but could not be watched: it was killed and reaped. It may have begun to run.
    Unwatchable {
        /// What opening its pidfd or preparing its pipes answered.
        errno: i32,
    },
    /// Anything else that the kernel answered.
    Other {
        /// What the kernel answered.
        errno: i32,
    },
}

/// Which string of a request an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The argument with this index; 0 is the program.
    Argument(usize),
    /// The environment's entry with this index.
    Environment(usize),
    /// The working directory.
    Cwd,
}

impl SpawnErrorKind {
    /// Whether the same request may succeed later without anybody changing it.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::ResourceExhausted { .. } | Self::TerminalUnavailable { .. } | Self::ProgramBusy
        )
    }

    fn errno(self) -> Option<i32> {
        match self {
            Self::EmptyArgv
            | Self::NulByte { .. }
            | Self::ArgumentTooLong { .. }
            | Self::InvalidEnvironmentName { .. }
            | Self::DetachUnavailable
            | Self::Unconfined { .. }
            | Self::GuardLost => None,
            Self::ArgumentsTooLong => Some(Errno::TOOBIG.raw_os_error()),
            Self::ProgramBusy => Some(Errno::TXTBSY.raw_os_error()),
            Self::CwdUnusable { errno }
            | Self::ProgramMissing { errno }
            | Self::InterpreterMissing { errno }
            | Self::NotExecutable { errno }
            | Self::PermissionDenied { errno }
            | Self::ResourceExhausted { errno }
            | Self::LimitRefused { errno, .. }
            | Self::TerminalUnavailable { errno }
            | Self::Unwatchable { errno }
            | Self::Other { errno } => Some(errno),
        }
    }

    fn message(self) -> String {
        match self {
            Self::EmptyArgv => "the argument list is empty: give at least the program".into(),
            Self::NulByte { place } => format!("{place} contains a NUL byte: remove it"),
            Self::ArgumentTooLong { place, length_bytes, limit_bytes } => format!(
                "{place} is {length_bytes} bytes long and the limit is {limit_bytes}: pass it by a file or by stdin"
            ),
            Self::InvalidEnvironmentName { index } => {
                format!("environment entry {index} has an empty name or an equals sign in it: correct the name")
            }
            Self::ArgumentsTooLong => {
                "arguments and environment together are longer than the kernel takes: pass them by a file or by stdin"
                    .into()
            }
            Self::CwdUnusable { errno } => {
                format!("the working directory cannot be entered ({}): create it or name another", words(errno))
            }
            Self::ProgramMissing { errno } => format!(
                "the program was not found ({}): install it, or check the name and the command's PATH",
                words(errno)
            ),
            Self::InterpreterMissing { errno } => format!(
                "the program's interpreter or loader was not found ({}): check its first line, or for what system it was built",
                words(errno)
            ),
            Self::NotExecutable { errno } => {
                format!("the program cannot be executed ({}): check its permissions and its format", words(errno))
            }
            Self::PermissionDenied { errno } => format!(
                "the system refuses to execute the program ({}): check the mount, the sandbox and the directories above it",
                words(errno)
            ),
            Self::ProgramBusy => "the program's file is open for writing: try again when the writer is done".into(),
            Self::ResourceExhausted { errno } => {
                format!("the machine is out of resources to start a process ({}): try again later", words(errno))
            }
            Self::LimitRefused { limit, errno } => format!(
                "the limit on {limit} cannot be set to that ({}): ask for one within the executor's own",
                words(errno)
            ),
            Self::TerminalUnavailable { errno } => {
                format!("the machine gave no terminal ({}): close some, or run without one", words(errno))
            }
            Self::DetachUnavailable => {
                "a command that outlives the executor needs the guard, and none runs: start the executor as `dwell executor`, or call `dwell::guard::init()` first in `main`"
                    .into()
            }
            Self::Unconfined { why } => why.to_string(),
            Self::GuardLost => {
                "the guard ended while it was starting the command: check what the command may have done before trying again"
                    .into()
            }
            Self::Unwatchable { errno } => format!(
                "the process was started but could not be watched ({}) and was killed: free some descriptors and check its effects before trying again",
                words(errno)
            ),
            Self::Other { errno } => format!("the process could not be started ({})", words(errno)),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Argument(index) => write!(f, "argument {index}"),
            Self::Environment(index) => write!(f, "environment entry {index}"),
            Self::Cwd => f.write_str("the working directory"),
        }
    }
}

impl From<SpawnErrorKind> for SpawnError {
    fn from(kind: SpawnErrorKind) -> Self {
        Self {
            kind,
            errno: kind.errno(),
            message: kind.message(),
        }
    }
}

fn words(errno: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno)
}
