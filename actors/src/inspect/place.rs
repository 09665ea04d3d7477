//! Where the sockets lie: a directory of the user's own, mode 0700, with one socket a role and process, mode 0600.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use dwell_messages::Role;

use crate::trace_file::role_name;

/// Sockets of one directory that are looked at; more are left out.
pub const SOCKETS_MAX: usize = 256;
const SUFFIX: &str = ".sock";

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The directory cannot be made or entered.
    #[error("the directory {} cannot be used; make it one of your own, or name another", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is somebody else's, or others may enter it.
    #[error(
        "{} is not a directory that only its owner may enter (mode {mode:o}, owner {owner}); chmod 700 it, or name another",
        path.display()
    )]
    NotPrivate {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The number of its owner.
        owner: u32,
    },
    /// The socket cannot be made.
    #[error("no socket can be made in {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A socket that is listened on; it is removed with this.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    pub(crate) listener: UnixListener,
}

impl Place {
    /// Makes a socket for a role of this process.
    pub(crate) fn make(dir: &Path, role: Role) -> Result<Self, PlaceError> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        ensure_private(dir)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{number}{SUFFIX}", role_name(role), std::process::id());
        let path = dir.join(&name);
        let failed = |source| PlaceError::Socket {
            path: dir.to_owned(),
            source,
        };
        // One of an earlier process with this number: nobody listens there.
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(failed(error));
        }
        let listener = reach(dir, &name, |path| UnixListener::bind(path)).map_err(failed)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { path, listener })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// The directory is there, is ours, and nobody else may enter it.
fn ensure_private(dir: &Path) -> Result<(), PlaceError> {
    let failed = |source| PlaceError::Directory {
        path: dir.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    // Not through a link: whoever could put one here could choose where we listen.
    let found = fs::symlink_metadata(dir).map_err(failed)?;
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    if !found.is_dir() || mode & 0o077 != 0 || owner != rustix::process::geteuid().as_raw() {
        return Err(PlaceError::NotPrivate {
            path: dir.to_owned(),
            mode,
            owner,
        });
    }
    Ok(())
}

/// Reaches a socket by a path of any length: a socket's address holds 107 bytes, and a home may be longer.
fn reach<T>(dir: &Path, name: &str, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let opened = fs::File::open(dir)?;
    let short = format!("/proc/self/fd/{}/{name}", opened.as_raw_fd());
    if cfg!(target_os = "linux") {
        with(Path::new(&short))
    } else {
        with(&dir.join(name))
    }
}

/// Connects to a socket of this directory.
pub(super) fn connect(dir: &Path, name: &str) -> io::Result<UnixStream> {
    reach(dir, name, |path| UnixStream::connect(path))
}

/// The role and the process that a socket's name says it is of.
pub(super) fn parse(name: &str) -> Option<(Role, u32)> {
    let mut parts = name.strip_suffix(SUFFIX)?.split('-');
    let role = match parts.next()? {
        "harness" => Role::Harness,
        "executor" => Role::Executor,
        "relay" => Role::Relay,
        _ => return None,
    };
    let pid = parts.next()?.parse().ok()?;
    let number: u32 = parts.next()?.parse().ok()?;
    (number > 0 && parts.next().is_none()).then_some((role, pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_its_owners_alone_has_a_name_that_says_whose_it_is_and_goes_with_its_role() {
        let temp = tempfile::tempdir().unwrap();
        // Longer than a socket's address.
        let dir = temp.path().join("x".repeat(200)).join("run");
        let place = Place::make(&dir, Role::Executor).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&dir), mode(place.path())), (0o700, 0o600));
        let name = place.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(parse(&name), Some((Role::Executor, std::process::id())));
        assert!(connect(&dir, &name).is_ok());
        let path = place.path().to_owned();
        drop(place);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_others_may_enter_or_a_link_is_refused_with_what_to_do() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("open");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        let error = Place::make(&dir, Role::Relay).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
        let own = temp.path().join("own");
        DirBuilder::new().mode(0o700).create(&own).unwrap();
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(matches!(
            Place::make(&link, Role::Relay),
            Err(PlaceError::NotPrivate { .. })
        ));
    }

    #[test]
    fn other_names_are_no_sockets_of_ours() {
        for name in [
            "executor-1.sock",
            "executor-1-0.sock",
            "executor-x-1.sock",
            "other-1-1.sock",
            "executor-1-1",
            "executor-1-1-1.sock",
            ".sock",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
