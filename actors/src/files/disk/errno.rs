//! The system's errors, as they travel.

use std::io;

use dwell_messages::{ErrorCode, WireError};
use rustix::io::Errno;

/// What a system call's error means to whoever asked. Exhaustive for those that files bring about; every other keeps its
/// number.
pub(crate) fn code(errno: Errno) -> ErrorCode {
    match errno {
        Errno::NOENT => ErrorCode::NotFound,
        Errno::NOTDIR => ErrorCode::NotADirectory,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorCode::AccessDenied,
        Errno::ISDIR => ErrorCode::IsADirectory,
        Errno::EXIST => ErrorCode::AlreadyExists,
        Errno::LOOP => ErrorCode::SymlinkLoop,
        Errno::NOSPC | Errno::DQUOT => ErrorCode::NoSpace,
        Errno::NOTEMPTY => ErrorCode::NotEmpty,
        Errno::NAMETOOLONG => ErrorCode::BadPath,
        Errno::FBIG => ErrorCode::TooLarge,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => ErrorCode::ResourceExhausted,
        Errno::NXIO | Errno::NODEV => ErrorCode::NotAFile,
        _ => ErrorCode::FileFailed,
    }
}

/// Something that keeps an error's number.
pub(crate) trait Failure {
    fn errno(&self) -> Option<Errno>;
}

impl Failure for Errno {
    fn errno(&self) -> Option<Errno> {
        Some(*self)
    }
}

impl Failure for io::Error {
    fn errno(&self) -> Option<Errno> {
        self.raw_os_error().map(Errno::from_raw_os_error)
    }
}

/// Makes an error of what failed: `what` is one sentence without a path in it.
pub(crate) fn failed<E: Failure>(what: &'static str) -> impl FnOnce(E) -> WireError {
    move |error| {
        let errno = error.errno();
        WireError::new(errno.map_or(ErrorCode::FileFailed, code), what)
            .with_errno(errno.map(Errno::raw_os_error))
    }
}
