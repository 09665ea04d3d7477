//! Errors as they travel: a stable number, grouped by who is to blame, and a sentence that says what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who has to act for the next attempt to succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blame {
    /// The request itself is wrong.
    Caller,
    /// The request is not allowed.
    Permission,
    /// The executor's machine cannot do it.
    Machine,
    /// There is no room for it now.
    Capacity,
    /// The link between the two.
    Link,
    /// dwell itself.
    Ours,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $advice:literal;)*) => {
        /// A stable error number. Hundreds group by blame. Numbers are never reused.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        #[serde(from = "u16", into = "u16")]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// A number this version does not know.
            Unknown(u16),
        }

        impl ErrorCode {
            /// Every code this version knows.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What to do about it.
            pub fn advice(self) -> &'static str {
                match self {
                    $(Self::$name => $advice,)*
                    Self::Unknown(_) => "update this side to learn what it means",
                }
            }
        }

        impl From<u16> for ErrorCode {
            fn from(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Unknown(other),
                }
            }
        }

        impl From<ErrorCode> for u16 {
            fn from(code: ErrorCode) -> Self {
                match code {
                    $(ErrorCode::$name => $number,)*
                    ErrorCode::Unknown(number) => number,
                }
            }
        }
    };
}

codes! {
    /// The request's body could not be understood.
    BadRequest = 100, "correct the named field";
    /// A command without a program.
    EmptyArgv = 101, "name the program to run";
    /// The executor has no such method.
    UnknownMethod = 102, "use a method both sides know, or update the executor";
    /// No such process in this session.
    UnknownProcess = 103, "it has ended, or was never started here";
    /// The process id is in use.
    DuplicateProcess = 104, "choose an id that was not used in this session";
    /// The process has no open standard input.
    StdinClosed = 105, "start the command with a piped standard input, and write before closing it";
    /// A request id was used twice.
    DuplicateRequest = 106, "a request is served at most once: use a fresh id";
    /// No signal of this number.
    BadSignal = 107, "use a signal number of the executor's system";
    /// A write that does not begin where the last one ended.
    BadOffset = 108, "continue at the offset of the last answer";
    /// No such session, or not this client's.
    UnknownSession = 109, "begin a new session: the executor was restarted, or it was away for too long";
    /// A path that no file can have, or one that leads where it may not.
    BadPath = 110, "give an absolute path without NUL bytes, of at most 4,096 bytes";
    /// No open file of this handle in this session.
    UnknownHandle = 111, "open the file again: its handle was closed, or its session ended";
    /// This client may not do that.
    PermissionDenied = 200, "ask the executor's operator";
    /// The program could not be started.
    SpawnFailed = 300, "check the program's path and mode on the executor";
    /// The working directory cannot be entered.
    BadCwd = 301, "create the directory on the executor, or choose another";
    /// The machine has no more of something.
    ResourceExhausted = 302, "try again later, or raise the executor's limits";
    /// No file or directory of this name.
    NotFound = 303, "check the path on the executor";
    /// The executor's own user may not do that with this file.
    AccessDenied = 304, "check the file's owner and mode on the executor";
    /// A directory was needed.
    NotADirectory = 305, "name a directory";
    /// A file was needed.
    IsADirectory = 306, "name a file";
    /// There is something of this name already.
    AlreadyExists = 307, "choose another name, or ask for it to be replaced";
    /// A symbolic link that leads to itself.
    SymlinkLoop = 308, "remove one of the links";
    /// No space on the executor's disk, or no more of its quota.
    NoSpace = 309, "free some space on the executor";
    /// A directory that holds something.
    NotEmpty = 310, "empty it first, or ask for everything in it to go";
    /// The executor's disk or kernel refused it for another reason.
    FileFailed = 311, "see the errno";
    /// A file that was not the same when its reading ended as when it began.
    FileChanged = 312, "read it again";
    /// A device, a pipe or a socket, where a regular file was needed.
    NotAFile = 313, "name a regular file";
    /// An HTTP request that was made, and had no whole answer.
    HttpFailed = 314, "see what failed; check that the executor's machine reaches the server";
    /// Too much at once.
    Busy = 400, "wait for something to finish, then try again";
    /// Larger than a limit.
    TooLarge = 401, "send less at once";
    /// The link is gone.
    Disconnected = 500, "connect again; what was unanswered may have happened";
    /// The peer broke the protocol.
    Protocol = 501, "update both sides to the same release";
    /// No common version.
    Version = 502, "update the older side";
    /// Somebody else has taken the session over.
    Superseded = 503, "connect anew, or take it back with a newer owner number";
    /// An actor failed while it served this.
    ActorFailed = 600, "report this; what was asked may have happened";
    /// Nobody knows whether it happened.
    OutcomeUnknown = 601, "look before trying again";
    /// Shutting down.
    Stopped = 602, "nothing was begun; try another executor or wait for its restart";
    /// Cancelled by the caller.
    Cancelled = 603, "nothing to do";
    /// The deadline passed.
    DeadlineExceeded = 604, "allow more time, or find what is slow";
}

impl ErrorCode {
    /// Who has to act.
    pub fn blame(self) -> Blame {
        match u16::from(self) / 100 {
            1 => Blame::Caller,
            2 => Blame::Permission,
            3 => Blame::Machine,
            4 => Blame::Capacity,
            5 => Blame::Link,
            _ => Blame::Ours,
        }
    }

    /// `error.type`, of low cardinality.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::EmptyArgv => "empty_argv",
            Self::UnknownMethod => "unknown_method",
            Self::UnknownProcess => "unknown_process",
            Self::DuplicateProcess => "duplicate_process",
            Self::StdinClosed => "stdin_closed",
            Self::DuplicateRequest => "duplicate_request",
            Self::BadSignal => "bad_signal",
            Self::BadOffset => "bad_offset",
            Self::UnknownSession => "unknown_session",
            Self::BadPath => "bad_path",
            Self::UnknownHandle => "unknown_handle",
            Self::PermissionDenied => "permission_denied",
            Self::SpawnFailed => "spawn_failed",
            Self::BadCwd => "bad_cwd",
            Self::ResourceExhausted => "resource_exhausted",
            Self::NotFound => "not_found",
            Self::AccessDenied => "access_denied",
            Self::NotADirectory => "not_a_directory",
            Self::IsADirectory => "is_a_directory",
            Self::AlreadyExists => "already_exists",
            Self::SymlinkLoop => "symlink_loop",
            Self::NoSpace => "no_space",
            Self::NotEmpty => "not_empty",
            Self::FileFailed => "file_failed",
            Self::FileChanged => "file_changed",
            Self::NotAFile => "not_a_file",
            Self::HttpFailed => "http_failed",
            Self::Busy => "busy",
            Self::TooLarge => "too_large",
            Self::Disconnected => "disconnected",
            Self::Protocol => "protocol",
            Self::Version => "version",
            Self::Superseded => "superseded",
            Self::ActorFailed => "actor_failed",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unknown(_) => "_OTHER",
        }
    }
}

/// An error as a response carries it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WireError {
    /// What kind of error.
    pub code: ErrorCode,
    /// What failed, in one sentence.
    pub message: String,
    /// The executor's errno, where a system call failed.
    #[serde(default)]
    pub errno: Option<i32>,
    /// The limit that was passed, where one was.
    #[serde(default)]
    pub limit: Option<u64>,
    /// What was asked, where a limit was passed.
    #[serde(default)]
    pub actual: Option<u64>,
}

impl WireError {
    /// An error of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            errno: None,
            limit: None,
            actual: None,
        }
    }

    /// Adds the errno of the failed call.
    #[must_use]
    pub fn with_errno(mut self, errno: Option<i32>) -> Self {
        self.errno = errno;
        self
    }

    /// Adds the limit that was passed and by what.
    #[must_use]
    pub fn with_limit(mut self, limit: u64, actual: u64) -> Self {
        (self.limit, self.actual) = (Some(limit), Some(actual));
        self
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        // What an executor says of a start has the system's own words, and mostly what to do behind them.
        let has_errno = self.code == ErrorCode::SpawnFailed && self.message.contains("(os error ");
        if has_errno && self.message.contains("): ") {
            return Ok(());
        }
        if let Some(errno) = self.errno.filter(|_| !has_errno) {
            write!(f, " (errno {errno})")?;
        }
        if let (Some(limit), Some(actual)) = (self.limit, self.actual) {
            write!(f, " ({actual}, and the limit is {limit})")?;
        }
        write!(f, ": {}", self.code.advice())
    }
}

impl std::error::Error for WireError {}
