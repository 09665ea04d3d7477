//! Directories: what lies in them, new ones, and other names.

use std::collections::BinaryHeap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use dwell_messages::files::{
    CreateDirectory, DirectoryCreated, DirectoryEntry, FileKind, Links, List, Listing, PAGE_MAX_BYTES,
    PAGE_MAX_ENTRIES, Rename,
};
use dwell_messages::{ErrorCode, WireError};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, RawDir, RenameFlags, fstat, mkdirat, openat, renameat_with, statat,
};
use rustix::io::Errno;
use serde_bytes::ByteBuf;

use super::errno::failed;
use super::place::{DIRECTORY, ON_THE_WAY, Place, kind_of, path, refused_link, type_of};

/// How much of a directory is asked for at once.
pub(super) const READ_BYTES: usize = 32 * 1024;

/// Calls `each` with every name but `.` and `..`, in whatever order they come, until it breaks off.
pub(super) fn names(
    directory: &OwnedFd,
    mut each: impl FnMut(&CStr, FileType) -> ControlFlow<()>,
) -> Result<(), Errno> {
    let mut buffer = Vec::<MaybeUninit<u8>>::new();
    buffer.resize(READ_BYTES, MaybeUninit::uninit());
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::INTR) => continue,
            // It was removed meanwhile: nothing more is in it.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") && each(name, entry.file_type()).is_break() {
            return Ok(());
        }
    }
    Ok(())
}

/// A page: the lowest names behind `after`, of however many there are.
pub(super) fn list(ask: &List) -> Result<Listing, WireError> {
    let what = "the directory could not be read";
    let directory = openat(CWD, path(&ask.path), DIRECTORY, Mode::empty()).map_err(failed(what))?;
    let most = usize::try_from(ask.max_entries)
        .unwrap_or(usize::MAX)
        .min(PAGE_MAX_ENTRIES);
    // The highest of those kept is on top, and goes when a lower one comes.
    let mut lowest: BinaryHeap<(Vec<u8>, u8)> = BinaryHeap::new();
    let mut end = true;
    names(&directory, |name, file_type| {
        let name = name.to_bytes();
        if name <= ask.after.as_slice() {
            return ControlFlow::Continue(());
        }
        if lowest.len() == most {
            end = false;
            if lowest
                .peek()
                .is_some_and(|(highest, _)| name >= highest.as_slice())
            {
                return ControlFlow::Continue(());
            }
            lowest.pop();
        }
        lowest.push((name.to_vec(), number(file_type)));
        ControlFlow::Continue(())
    })
    .map_err(failed(what))?;
    let mut bytes = 0;
    let mut entries = Vec::with_capacity(lowest.len());
    for (name, file_type) in lowest.into_sorted_vec() {
        bytes += name.len();
        if bytes > PAGE_MAX_BYTES {
            end = false;
            break;
        }
        let kind = kind(&directory, &name, FILE_TYPES[usize::from(file_type)], ask.resolve);
        entries.push(DirectoryEntry {
            name: ByteBuf::from(name),
            kind,
        });
    }
    Ok(Listing { entries, end })
}

/// Types in an order, so that they can lie in a heap.
const FILE_TYPES: [FileType; 8] = [
    FileType::RegularFile,
    FileType::Directory,
    FileType::Symlink,
    FileType::Fifo,
    FileType::Socket,
    FileType::CharacterDevice,
    FileType::BlockDevice,
    FileType::Unknown,
];

fn number(file_type: FileType) -> u8 {
    FILE_TYPES
        .iter()
        .zip(0..)
        .find(|(known, _)| **known == file_type)
        .map_or(7, |(_, number)| number)
}

fn kind(directory: &OwnedFd, name: &[u8], listed: FileType, resolve: bool) -> FileKind {
    let name = path(name);
    let kind = kind_of(type_of(directory.as_fd(), name, listed));
    if kind != FileKind::Symlink || !resolve {
        return kind;
    }
    statat(directory, name, AtFlags::empty())
        .map_or(kind, |stat| kind_of(FileType::from_raw_mode(stat.st_mode)))
}

/// Creates a directory, and with `parents` those above it.
pub(super) fn create(ask: &CreateDirectory) -> Result<DirectoryCreated, WireError> {
    let mode = Mode::from_raw_mode(ask.permissions.unwrap_or(0o777) & 0o7777);
    if !ask.parents {
        let place = Place::of(&ask.path, ask.links)?;
        mkdirat(place.at(), place.name, mode).map_err(failed("the directory could not be created"))?;
        return Ok(DirectoryCreated { created: true });
    }
    // From the top, each in the one before.
    let mut created = false;
    let what = "the directory could not be created";
    let mut directory = openat(CWD, "/", ON_THE_WAY, Mode::empty()).map_err(failed(what))?;
    let names: Vec<&[u8]> = ask
        .path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .collect();
    let last = names.len().saturating_sub(1);
    for (index, name) in names.into_iter().enumerate() {
        let name = path(name);
        let is_last = index == last;
        // Those on the way have to be entered, whatever the last one's permissions are to be.
        let mode = if is_last { mode } else { Mode::from_raw_mode(0o777) };
        created = match mkdirat(&directory, name, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => {
                // On a file system that cannot be written what is there is not said to exist.
                if statat(&directory, name, AtFlags::empty()).is_err() {
                    return Err(failed(what)(errno));
                }
                false
            }
        };
        directory = enter(&directory, name, ask.links, is_last)?;
    }
    Ok(DirectoryCreated { created })
}

fn enter(directory: &OwnedFd, name: &Path, links: Links, is_last: bool) -> Result<OwnedFd, WireError> {
    use rustix::fs::OFlags;
    let follows = match links {
        Links::Follow => true,
        Links::Keep => !is_last,
        Links::Refuse => false,
    };
    let flags = if follows {
        OFlags::PATH
    } else {
        OFlags::PATH | OFlags::NOFOLLOW
    };
    let entered = openat(directory, name, flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("a directory on the way could not be entered"))?;
    let stat = fstat(&entered).map_err(failed("a directory on the way could not be looked at"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(entered),
        FileType::Symlink => Err(refused_link()),
        _ => Err(if is_last {
            WireError::new(
                ErrorCode::AlreadyExists,
                "there is something else than a directory of this name",
            )
            .with_errno(Some(Errno::EXIST.raw_os_error()))
        } else {
            WireError::new(ErrorCode::NotADirectory, "something on the way is no directory")
                .with_errno(Some(Errno::NOTDIR.raw_os_error()))
        }),
    }
}

/// Another name. Without `overwrite` the system itself sees to it that nothing goes.
pub(super) fn rename(ask: &Rename) -> Result<(), WireError> {
    let flags = if ask.overwrite {
        RenameFlags::empty()
    } else {
        RenameFlags::NOREPLACE
    };
    renameat_with(CWD, path(&ask.from), CWD, path(&ask.to), flags)
        .map_err(failed("the file could not be renamed"))
}
