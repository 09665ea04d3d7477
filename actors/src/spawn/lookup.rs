//! Finding the program, and finding out afterwards why a start failed.
//!
//! The program is found here and not by `Command`: with an environment of its own and a bare program name, std searches
//! the child's `PATH` only after a fork, which costs 35 ms per GiB of the executor's memory. With a slash in
//! the program it takes `posix_spawn`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use super::error::SpawnErrorKind;
use super::request::SpawnRequest;

/// Where a bare program name is looked for when the environment has no `PATH`: what libc does.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// The program as a path with a slash in it, relative to the command's own working directory.
///
/// # Errors
/// [`SpawnErrorKind::ProgramMissing`] or [`SpawnErrorKind::NotExecutable`], or the working directory's error when
/// that is the cause.
pub(super) fn resolve(request: &SpawnRequest) -> Result<PathBuf, SpawnErrorKind> {
    let name = request.program().ok_or(SpawnErrorKind::EmptyArgv)?;
    if name.contains(&b'/') {
        return Ok(PathBuf::from(OsStr::from_bytes(name)));
    }
    if name.is_empty() {
        return Err(missing(request, Errno::NOENT));
    }
    let path = request.env.value(b"PATH").unwrap_or(DEFAULT_PATH);
    let mut refused = None;
    for directory in path.split(|byte| *byte == b':') {
        // An empty entry means the working directory, as it does for a shell.
        let directory: &[u8] = if directory.is_empty() { b"." } else { directory };
        let candidate = Path::new(OsStr::from_bytes(directory)).join(OsStr::from_bytes(name));
        match executable(&seen_from_here(request, &candidate)) {
            Ok(()) => return Ok(with_slash(candidate)),
            // What is there but not executable is worth reporting when no later directory has it.
            Err(Errno::ACCESS | Errno::PERM) => refused = Some(Errno::ACCESS),
            Err(_) => {}
        }
    }
    match refused {
        Some(errno) => Err(cwd_problem(request).unwrap_or(SpawnErrorKind::NotExecutable {
            errno: errno.raw_os_error(),
        })),
        None => Err(missing(request, Errno::NOENT)),
    }
}

/// Whether a program that was found could be executed, asked before it is. What the kernel says of its format, or of an
/// interpreter that is missing, only executing it tells.
///
/// # Errors
/// As `diagnose`.
pub(super) fn check(request: &SpawnRequest, program: &Path) -> Result<(), SpawnErrorKind> {
    if let Some(problem) = cwd_problem(request) {
        return Err(problem);
    }
    executable(&seen_from_here(request, program)).map_err(|errno| diagnose(request, program, errno))
}

/// What the errno of a failed start meant. Asked after the failure and not before it, so the good path pays
/// nothing; what it sees may be newer than the failure, and then the errno alone decides.
pub(super) fn diagnose(request: &SpawnRequest, program: &Path, errno: Errno) -> SpawnErrorKind {
    let raw = errno.raw_os_error();
    match errno {
        Errno::TOOBIG => return SpawnErrorKind::ArgumentsTooLong,
        Errno::TXTBSY => return SpawnErrorKind::ProgramBusy,
        Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE => {
            return SpawnErrorKind::ResourceExhausted { errno: raw };
        }
        Errno::NOEXEC | Errno::LIBBAD => return SpawnErrorKind::NotExecutable { errno: raw },
        _ => {}
    }
    if let Some(problem) = cwd_problem(request) {
        return problem;
    }
    let is_there = rustix::fs::stat(seen_from_here(request, program).as_path());
    match (errno, is_there) {
        (Errno::NOENT, Ok(_)) => SpawnErrorKind::InterpreterMissing { errno: raw },
        // Interpreters that name each other without end.
        (Errno::LOOP, Ok(_)) => SpawnErrorKind::NotExecutable { errno: raw },
        (Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG, _) => {
            SpawnErrorKind::ProgramMissing { errno: raw }
        }
        (Errno::ACCESS, Ok(found)) => {
            let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
            if is_file && found.st_mode & 0o111 != 0 {
                SpawnErrorKind::PermissionDenied { errno: raw }
            } else {
                SpawnErrorKind::NotExecutable { errno: raw }
            }
        }
        (Errno::ACCESS | Errno::PERM, _) => SpawnErrorKind::PermissionDenied { errno: raw },
        (_, _) => SpawnErrorKind::Other { errno: raw },
    }
}

fn missing(request: &SpawnRequest, errno: Errno) -> SpawnErrorKind {
    cwd_problem(request).unwrap_or(SpawnErrorKind::ProgramMissing {
        errno: errno.raw_os_error(),
    })
}

/// Why the working directory cannot be entered. Looking up `.` inside it needs what entering it needs: that it
/// exists, is a directory, and may be searched.
fn cwd_problem(request: &SpawnRequest) -> Option<SpawnErrorKind> {
    let cwd = request.cwd.as_ref()?;
    // An empty path names nothing, and joined with a dot it would name our own directory.
    if cwd.is_empty() {
        return Some(SpawnErrorKind::CwdUnusable {
            errno: Errno::NOENT.raw_os_error(),
        });
    }
    let inside = [cwd.as_slice(), b"/."].concat();
    let errno = rustix::fs::stat(OsStr::from_bytes(&inside)).err()?;
    Some(SpawnErrorKind::CwdUnusable {
        errno: errno.raw_os_error(),
    })
}

fn executable(path: &Path) -> Result<(), Errno> {
    let found = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// The path of `program` as this process must spell it, since the child has another working directory.
fn seen_from_here(request: &SpawnRequest, program: &Path) -> PathBuf {
    match &request.cwd {
        Some(cwd) => Path::new(OsStr::from_bytes(cwd)).join(program),
        None => program.to_path_buf(),
    }
}

/// `Path::join` makes of `.` and a name a path with a slash already; this holds for every directory, but what
/// takes the slow path in silence should not depend on it.
fn with_slash(path: PathBuf) -> PathBuf {
    if path.as_os_str().as_bytes().contains(&b'/') {
        path
    } else {
        Path::new(".").join(path)
    }
}
