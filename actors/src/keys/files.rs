//! Opening, checking and replacing small private files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use super::error::KeyError;

/// Read and written by its owner alone.
const PRIVATE_FILE_MODE: u32 = 0o600;
/// Entered and changed by its owner alone.
const PRIVATE_DIR_MODE: u32 = 0o700;

/// Who may touch a file for it to be believed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// A secret: no bit for anybody but its owner, who is us.
    Secret,
    /// Public but decisive: nobody but us or root may write it.
    Decisive,
}

/// Reads a whole file of at most `max_bytes`, never through a link; `None` when there is none.
pub(super) fn read(
    path: &Path,
    trust: Trust,
    max_bytes: u64,
) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let file = match open_for_read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if is_link_refusal(&error) => return Err(not_a_file(path, "a symbolic link")),
        Err(error) => return Err(failed("open", path, error)),
    };
    let metadata = file.metadata().map_err(|error| failed("inspect", path, error))?;
    if metadata.is_dir() {
        return Err(not_a_file(path, "a directory"));
    }
    if !metadata.is_file() {
        return Err(not_a_file(path, "a pipe, socket or device"));
    }
    check(path, &metadata, trust, PRIVATE_FILE_MODE)?;
    if metadata.len() > max_bytes {
        return Err(too_large(path, max_bytes));
    }
    // Room for everything at once: a grown buffer would leave parts of a secret in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max_bytes as usize + 1));
    file.take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed("read", path, error))?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_large(path, max_bytes));
    }
    Ok(Some(bytes))
}

/// Makes the directory with mode 0700 if there is none, and refuses one in which others could replace the file.
pub(super) fn prepare_dir(file: &Path) -> Result<PathBuf, KeyError> {
    let dir = match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("/"),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR_MODE)
        .create(&dir)
        .map_err(|error| failed("create the directory", &dir, error))?;
    let metadata = fs::metadata(&dir).map_err(|error| failed("inspect", &dir, error))?;
    check(&dir, &metadata, Trust::Decisive, PRIVATE_DIR_MODE)?;
    Ok(dir)
}

/// Puts a new file in place, whole and durable, unless one is there: then the answer is `false` and it is untouched.
pub(super) fn create_new(dir: &Path, path: &Path, bytes: &[u8]) -> Result<bool, KeyError> {
    let temporary = Temporary::write(dir, path, bytes)?;
    // A link fails where a rename would replace: of two first starts, one wins and the other reads the winner's key.
    match fs::hard_link(&temporary.path, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(failed("put in place", path, error)),
    }
    drop(temporary);
    sync_dir(dir)?;
    Ok(true)
}

/// Replaces a file, whole and durable: whoever reads meanwhile sees the old or the new content.
pub(super) fn replace(dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let temporary = Temporary::write(dir, path, bytes)?;
    fs::rename(&temporary.path, path).map_err(|error| failed("replace", path, error))?;
    temporary.keep();
    sync_dir(dir)
}

/// Held while a file of this directory is read, changed and replaced. Released on drop and on death.
pub(super) struct DirLock(File);

impl Drop for DirLock {
    /// Not left to the close: a child that is just being forked has the directory too, until it executes its program.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

pub(super) fn lock_dir(dir: &Path, path: &Path) -> Result<DirLock, KeyError> {
    let handle = File::open(dir).map_err(|error| failed("open", dir, error))?;
    match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(DirLock(handle)),
        Err(Errno::WOULDBLOCK) => Err(KeyError::Busy {
            path: path.to_owned(),
        }),
        Err(error) => Err(failed("lock", dir, error.into())),
    }
}

pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> KeyError {
    KeyError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

struct Temporary {
    path: PathBuf,
    armed: bool,
}

impl Temporary {
    fn write(dir: &Path, target: &Path, bytes: &[u8]) -> Result<Self, KeyError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(KeyError::Random)?;
        let name = target
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let path = dir.join(format!(".{name}.{:016x}.tmp", u64::from_le_bytes(random)));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE_FILE_MODE)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .map_err(|error| failed("create", &path, error))?;
        let temporary = Self { path, armed: true };
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|error| failed("write", &temporary.path, error))?;
        Ok(temporary)
    }

    fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.armed {
            // Best effort: what stays is private to us and read by nobody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open_for_read(path: &Path) -> io::Result<File> {
    // Without NONBLOCK a pipe in the file's place would hang the start.
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path)
}

fn is_link_refusal(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

fn check(path: &Path, metadata: &fs::Metadata, trust: Trust, wanted: u32) -> Result<(), KeyError> {
    let us = geteuid().as_raw();
    let owner = metadata.uid();
    let trusted_owner = owner == us || (trust == Trust::Decisive && owner == 0);
    if !trusted_owner {
        return Err(KeyError::Owner {
            path: path.to_owned(),
            owner,
            wanted: us,
        });
    }
    let mode = metadata.mode() & 0o7777;
    let (forbidden, danger) = match trust {
        Trust::Secret => (0o077, "read or change it"),
        Trust::Decisive => (0o022, "change it"),
    };
    if mode & forbidden != 0 {
        return Err(KeyError::Mode {
            path: path.to_owned(),
            mode,
            danger,
            wanted,
        });
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<(), KeyError> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(|error| failed("sync the directory", dir, error))
}

fn not_a_file(path: &Path, found: &'static str) -> KeyError {
    KeyError::NotAFile {
        path: path.to_owned(),
        found,
    }
}

fn too_large(path: &Path, max_bytes: u64) -> KeyError {
    KeyError::TooLarge {
        path: path.to_owned(),
        max_bytes,
    }
}
