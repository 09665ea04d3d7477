//! Making the database's file, private from its first moment.
//!
//! The file is never opened here once it has its name: POSIX drops all of a process's locks on a file when the process
//! closes any descriptor of it, and so would take them from a store that is already open.

use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::super::error::StoreError;
use super::open_error;
use crate::durable_dir;

/// Makes an empty file with mode 0600 if there is none; refuses one that is none of ours to open.
pub(super) fn prepare_file(path: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => check(path, &metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(path).map_err(|error| open_error(path, error))
        }
        Err(error) => Err(open_error(path, error)),
    }
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
    if !metadata.is_file() {
        return Err(StoreError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

fn make(path: &Path) -> io::Result<()> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    durable_dir::make(dir)?;
    let temporary = temporary_name(dir)?;
    drop(
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?,
    );
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        // Another process was quicker; its file is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    durable_dir::sync_name(path)
}

fn temporary_name(dir: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|_| io::Error::other("the operating system gave no random bytes"))?;
    Ok(dir.join(format!(".runs.{:016x}.tmp", u64::from_le_bytes(random))))
}
