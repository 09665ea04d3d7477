//! Removing names, and what lies below them. A link is never followed: what goes is the link.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dwell_messages::files::{FileKind, Remove, Removed, WALK_MAX_DEPTH};
use dwell_messages::{ErrorCode, WireError};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;

use super::directory::names;
use super::errno::failed;
use super::place::{DIRECTORY, Place, kind_of, path, type_of};

const CANNOT_REMOVE: &str = "it could not be removed";
/// Names that are read before the first of them is removed.
const BATCH_MAX: usize = 1_024;

pub(super) fn remove(ask: &Remove) -> Result<Removed, WireError> {
    let last = ask
        .path
        .split(|byte| *byte == b'/')
        .rfind(|name| !name.is_empty());
    if matches!(last, None | Some(b"." | b"..")) {
        return Err(WireError::new(
            ErrorCode::BadPath,
            "the path names a place and not a name in it",
        ));
    }
    let place = match Place::of(&ask.path, ask.links) {
        Err(error) if error.code == ErrorCode::NotFound && ask.force => return Ok(Removed { entries: 0 }),
        place => place?,
    };
    let stat = match statat(place.at(), place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) if ask.force => return Ok(Removed { entries: 0 }),
        Err(errno) => return Err(failed(CANNOT_REMOVE)(errno)),
    };
    let kind = kind_of(FileType::from_raw_mode(stat.st_mode));
    let mut removed = Removed { entries: 0 };
    match (kind, ask.recursive) {
        (FileKind::Directory, true) => tree(place.at(), place.name, 0, &mut removed)?,
        (FileKind::Directory, false) => one(place.at(), place.name, AtFlags::REMOVEDIR, &mut removed)?,
        (FileKind::File | FileKind::Symlink | FileKind::Other, _) => {
            one(place.at(), place.name, AtFlags::empty(), &mut removed)?;
        }
    }
    Ok(removed)
}

/// Somebody else may have been quicker: then it is gone, which is what was wanted.
fn one(at: BorrowedFd<'_>, name: &Path, flags: AtFlags, removed: &mut Removed) -> Result<(), WireError> {
    match unlinkat(at, name, flags) {
        Ok(()) => removed.entries += 1,
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(failed(CANNOT_REMOVE)(errno)),
    }
    Ok(())
}

fn tree(at: BorrowedFd<'_>, name: &Path, depth: u32, removed: &mut Removed) -> Result<(), WireError> {
    if depth > WALK_MAX_DEPTH {
        return Err(
            WireError::new(ErrorCode::TooLarge, "the directories are too many levels deep")
                .with_limit(u64::from(WALK_MAX_DEPTH), u64::from(depth)),
        );
    }
    loop {
        // Entered by itself: a link that takes a directory's place meanwhile is not followed.
        let directory = match openat(at, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => return one(at, name, AtFlags::empty(), removed),
            Err(errno) => return Err(failed(CANNOT_REMOVE)(errno)),
        };
        let before = removed.entries;
        let is_all = below(&directory, depth, removed)?;
        if !is_all {
            continue;
        }
        match unlinkat(at, name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                removed.entries += 1;
                return Ok(());
            }
            Err(Errno::NOENT) => return Ok(()),
            // Something was put there meanwhile.
            Err(Errno::NOTEMPTY | Errno::EXIST) if removed.entries > before => {}
            Err(errno) => return Err(failed(CANNOT_REMOVE)(errno)),
        }
    }
}

/// Removes a batch of what lies in a directory. Whether that was all.
fn below(directory: &OwnedFd, depth: u32, removed: &mut Removed) -> Result<bool, WireError> {
    let mut batch = Vec::new();
    names(directory, |name, file_type| {
        batch.push((name.to_bytes().to_vec(), file_type));
        if batch.len() == BATCH_MAX {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .map_err(failed(CANNOT_REMOVE))?;
    let is_all = batch.len() < BATCH_MAX;
    for (name, file_type) in batch {
        let name = path(&name);
        if type_of(directory.as_fd(), name, file_type) == FileType::Directory {
            tree(directory.as_fd(), name, depth + 1, removed)?;
        } else {
            one(directory.as_fd(), name, AtFlags::empty(), removed)?;
        }
    }
    Ok(is_all)
}
