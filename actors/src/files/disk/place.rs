//! Where a path leads, by the caller's policy of links.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use dwell_messages::files::{FileKind, Links, Metadata};
use dwell_messages::{ErrorCode, WireError};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::errno::failed;

/// The path, as the system takes it.
pub(super) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// A path's last name in the directory that it lies in, or the whole path where links on the way are followed.
pub(super) struct Place<'a> {
    /// `None`: `name` is absolute.
    directory: Option<OwnedFd>,
    pub(super) name: &'a Path,
    links: Links,
}

impl<'a> Place<'a> {
    /// Finds it. With `Links::Refuse` every directory on the way is entered by itself, so that none can be a link, also
    /// not one that takes its place meanwhile.
    ///
    /// # Errors
    /// What is on the way; `SymlinkLoop` for a link that is refused.
    pub(super) fn of(bytes: &'a [u8], links: Links) -> Result<Self, WireError> {
        if links != Links::Refuse {
            return Ok(Self {
                directory: None,
                name: path(bytes),
                links,
            });
        }
        let mut names: Vec<&[u8]> = bytes
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .collect();
        let last = names.pop().unwrap_or(b".");
        let what = "a directory on the way could not be entered";
        let mut directory = openat(CWD, "/", ON_THE_WAY, Mode::empty()).map_err(failed(what))?;
        for name in names {
            let next = openat(
                &directory,
                path(name),
                ON_THE_WAY | OFlags::NOFOLLOW,
                Mode::empty(),
            );
            directory = match next {
                // A link that is not followed is no directory to the system.
                Err(Errno::NOTDIR) if is_link(&directory, path(name)) => return Err(refused_link()),
                other => other.map_err(failed(what))?,
            };
        }
        Ok(Self {
            directory: Some(directory),
            name: path(last),
            links,
        })
    }

    pub(super) fn at(&self) -> BorrowedFd<'_> {
        self.directory.as_ref().map_or(CWD, AsFd::as_fd)
    }

    /// Whether a link as the last name is followed.
    pub(super) fn follows(&self) -> bool {
        self.links == Links::Follow
    }

    /// What is known of what it leads to. A link that is not followed is described itself, unless it is refused.
    pub(super) fn metadata(&self) -> Result<Metadata, WireError> {
        let metadata = metadata_of(&self.stat().map_err(failed("the path could not be looked at"))?);
        if self.links == Links::Refuse && metadata.kind == FileKind::Symlink {
            return Err(refused_link());
        }
        Ok(metadata)
    }

    pub(super) fn stat(&self) -> Result<Stat, Errno> {
        let flags = if self.follows() {
            AtFlags::empty()
        } else {
            AtFlags::SYMLINK_NOFOLLOW
        };
        statat(self.at(), self.name, flags)
    }

    /// Opens it. What is no regular file is not touched: to open a device may do something, and to open a pipe waits.
    pub(super) fn open_regular(&self, flags: OFlags) -> Result<(OwnedFd, Stat), WireError> {
        let what = "the file could not be opened";
        self.regular(what)?;
        let flags = flags | self.no_follow() | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(self.at(), self.name, flags, Mode::empty()).map_err(failed(what))?;
        // Another one may have taken its place since.
        let stat = fstat(&file).map_err(failed(what))?;
        check_regular(&stat)?;
        Ok((file, stat))
    }

    /// What it is, if it is a regular file.
    pub(super) fn regular(&self, what: &'static str) -> Result<Stat, WireError> {
        let stat = self.stat().map_err(failed(what))?;
        check_regular(&stat)?;
        Ok(stat)
    }

    pub(super) fn no_follow(&self) -> OFlags {
        if self.follows() {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        }
    }
}

/// Opens a directory for the names in it.
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// Enters a directory, which needs no right to read it.
pub(super) const ON_THE_WAY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn is_link(directory: &OwnedFd, name: &Path) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// A link that the caller does not want followed.
pub(super) fn refused_link() -> WireError {
    WireError::new(
        ErrorCode::SymlinkLoop,
        "the path holds a symbolic link, and none is followed",
    )
    .with_errno(Some(Errno::LOOP.raw_os_error()))
}

pub(super) fn check_regular(stat: &Stat) -> Result<(), WireError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(
            WireError::new(ErrorCode::IsADirectory, "the path leads to a directory")
                .with_errno(Some(Errno::ISDIR.raw_os_error())),
        ),
        FileType::Symlink => Err(refused_link()),
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(WireError::new(
            ErrorCode::NotAFile,
            "the path leads to a device, a pipe or a socket",
        )),
    }
}

pub(super) fn kind_of(file_type: FileType) -> FileKind {
    match file_type {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => FileKind::Other,
    }
}

/// The type of an entry as its directory has it, or as the system says where that does not know.
pub(super) fn type_of(directory: BorrowedFd<'_>, name: &Path, listed: FileType) -> FileType {
    if listed != FileType::Unknown {
        return listed;
    }
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the fields have other types on other machines"
)]
pub(super) fn metadata_of(stat: &Stat) -> Metadata {
    let seconds = stat.st_mtime as i64;
    Metadata {
        kind: kind_of(FileType::from_raw_mode(stat.st_mode)),
        size: stat.st_size as u64,
        mode: stat.st_mode as u32 & 0o7777,
        modified_unix_ns: seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(stat.st_mtime_nsec as i64),
        device: stat.st_dev as u64,
        inode: stat.st_ino as u64,
    }
}

/// Whether a file was written or replaced between two looks at it.
pub(super) fn is_changed(before: &Stat, after: &Stat) -> bool {
    let stamp = |stat: &Stat| {
        (
            stat.st_size,
            stat.st_mtime,
            stat.st_mtime_nsec,
            stat.st_ctime,
            stat.st_ctime_nsec,
        )
    };
    stamp(before) != stamp(after)
}
