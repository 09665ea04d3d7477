//! Copies.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dwell_messages::files::{Copied, Copy, FileKind, Links, WALK_MAX_DEPTH};
use dwell_messages::{ErrorCode, WireError};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fchmod, fstat, ftruncate, mkdirat, openat, readlinkat,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::directory::names;
use super::errno::failed;
use super::place::{DIRECTORY, ON_THE_WAY, check_regular, kind_of, path, refused_link};

const CANNOT_READ: &str = "what is to be copied could not be read";
const CANNOT_WRITE: &str = "the copy could not be written";

/// A name in a directory.
#[derive(Clone, Copy)]
struct At<'a> {
    directory: BorrowedFd<'a>,
    name: &'a Path,
}

struct Copier<'a> {
    ask: &'a Copy,
    copied: Copied,
}

pub(super) fn copy(ask: &Copy) -> Result<Copied, WireError> {
    let (from, to) = (
        At {
            directory: CWD,
            name: path(&ask.from),
        },
        At {
            directory: CWD,
            name: path(&ask.to),
        },
    );
    let mut copier = Copier {
        ask,
        copied: Copied { entries: 0, bytes: 0 },
    };
    let stat = copier.look(from)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        if !ask.recursive {
            return Err(failed("a directory is copied only with everything in it")(
                Errno::ISDIR,
            ));
        }
        refuse_into_itself(&stat, to.name)?;
    }
    copier.any(from, to, &stat, 0)?;
    Ok(copier.copied)
}

/// A directory that were copied into itself would never end.
fn refuse_into_itself(from: &Stat, to: &Path) -> Result<(), WireError> {
    let what = "the copy's directory could not be looked at";
    let same = |stat: &Stat| (stat.st_dev, stat.st_ino) == (from.st_dev, from.st_ino);
    let inside = || WireError::new(ErrorCode::BadPath, "a directory cannot be copied into itself");
    if statat(CWD, to, AtFlags::empty()).is_ok_and(|stat| same(&stat)) {
        return Err(inside());
    }
    let parent = to.parent().unwrap_or(Path::new("/"));
    let mut directory = openat(CWD, parent, ON_THE_WAY, Mode::empty()).map_err(failed(what))?;
    loop {
        let stat = fstat(&directory).map_err(failed(what))?;
        if same(&stat) {
            return Err(inside());
        }
        let above = openat(&directory, "..", ON_THE_WAY, Mode::empty()).map_err(failed(what))?;
        let next = fstat(&above).map_err(failed(what))?;
        if (next.st_dev, next.st_ino) == (stat.st_dev, stat.st_ino) {
            return Ok(());
        }
        directory = above;
    }
}

impl Copier<'_> {
    fn follows(&self) -> bool {
        self.ask.links == Links::Follow
    }

    fn look(&self, from: At<'_>) -> Result<Stat, WireError> {
        let flags = if self.follows() {
            AtFlags::empty()
        } else {
            AtFlags::SYMLINK_NOFOLLOW
        };
        statat(from.directory, from.name, flags).map_err(failed(CANNOT_READ))
    }

    fn any(&mut self, from: At<'_>, to: At<'_>, stat: &Stat, depth: u32) -> Result<(), WireError> {
        match kind_of(FileType::from_raw_mode(stat.st_mode)) {
            FileKind::File => self.file(from, to),
            FileKind::Directory => self.directory(from, to, depth),
            FileKind::Symlink if self.ask.links == Links::Refuse => Err(refused_link()),
            FileKind::Symlink => self.link(from, to),
            FileKind::Other => Err(WireError::new(
                ErrorCode::NotAFile,
                "a device, a pipe or a socket is not copied",
            )),
        }
    }

    fn file(&mut self, from: At<'_>, to: At<'_>) -> Result<(), WireError> {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let no_follow = if self.follows() {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        };
        let source = openat(
            from.directory,
            from.name,
            flags | no_follow | OFlags::RDONLY,
            Mode::empty(),
        )
        .map_err(failed(CANNOT_READ))?;
        let stat = fstat(&source).map_err(failed(CANNOT_READ))?;
        check_regular(&stat)?;
        let create = flags | OFlags::WRONLY | OFlags::CREATE;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        let (copy, is_new) = match openat(to.directory, to.name, create | OFlags::EXCL, mode) {
            Ok(copy) => (copy, true),
            Err(Errno::EXIST) if self.ask.overwrite => (
                self.existing(&stat, to, flags | no_follow | OFlags::WRONLY)?,
                false,
            ),
            Err(errno) => return Err(failed(CANNOT_WRITE)(errno)),
        };
        let bytes = std::io::copy(&mut File::from(source), &mut File::from(duplicate(&copy)?));
        let done = bytes
            .map_err(failed(CANNOT_WRITE))
            .and_then(|bytes| fchmod(&copy, mode).map(|()| bytes).map_err(failed(CANNOT_WRITE)));
        match done {
            Ok(bytes) => {
                self.copied.entries += 1;
                self.copied.bytes += bytes;
                Ok(())
            }
            Err(error) => {
                if is_new {
                    let _ = unlinkat(to.directory, to.name, AtFlags::empty());
                }
                Err(error)
            }
        }
    }

    /// Opens a file that is written over, emptied. Never the one that is copied.
    fn existing(&self, source: &Stat, to: At<'_>, flags: OFlags) -> Result<OwnedFd, WireError> {
        let found = statat(to.directory, to.name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(CANNOT_WRITE))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink || !self.follows() {
            check_regular(&found)?;
        }
        let copy = openat(to.directory, to.name, flags, Mode::empty()).map_err(failed(CANNOT_WRITE))?;
        let stat = fstat(&copy).map_err(failed(CANNOT_WRITE))?;
        check_regular(&stat)?;
        if (stat.st_dev, stat.st_ino) == (source.st_dev, source.st_ino) {
            return Err(WireError::new(
                ErrorCode::BadPath,
                "a file cannot be copied onto itself",
            ));
        }
        ftruncate(&copy, 0).map_err(failed(CANNOT_WRITE))?;
        Ok(copy)
    }

    fn link(&mut self, from: At<'_>, to: At<'_>) -> Result<(), WireError> {
        let target = readlinkat(from.directory, from.name, Vec::new()).map_err(failed(CANNOT_READ))?;
        let made = match symlinkat(&target, to.directory, to.name) {
            Err(Errno::EXIST) if self.ask.overwrite => unlinkat(to.directory, to.name, AtFlags::empty())
                .and_then(|()| symlinkat(&target, to.directory, to.name)),
            made => made,
        };
        made.map_err(failed(CANNOT_WRITE))?;
        self.copied.entries += 1;
        Ok(())
    }

    fn directory(&mut self, from: At<'_>, to: At<'_>, depth: u32) -> Result<(), WireError> {
        if depth > WALK_MAX_DEPTH {
            return Err(
                WireError::new(ErrorCode::TooLarge, "the directories are too many levels deep")
                    .with_limit(u64::from(WALK_MAX_DEPTH), u64::from(depth)),
            );
        }
        let no_follow = if self.follows() {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        };
        let source = openat(from.directory, from.name, DIRECTORY | no_follow, Mode::empty())
            .map_err(failed(CANNOT_READ))?;
        let stat = fstat(&source).map_err(failed(CANNOT_READ))?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        // What goes into it needs the right to write it meanwhile.
        let is_new = match mkdirat(to.directory, to.name, mode | Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(failed(CANNOT_WRITE)(errno)),
        };
        let copy = openat(to.directory, to.name, DIRECTORY | no_follow, Mode::empty())
            .map_err(failed(CANNOT_WRITE))?;
        self.copied.entries += 1;
        let mut outcome = Ok(());
        names(&source, |name, _| {
            let name = path(name.to_bytes());
            let (from, to) = (
                At {
                    directory: source.as_fd(),
                    name,
                },
                At {
                    directory: copy.as_fd(),
                    name,
                },
            );
            outcome = match self.look(from) {
                Ok(stat) => self.any(from, to, &stat, depth + 1),
                // Gone since, or a link that leads nowhere, of which there is nothing to copy.
                Err(error) if error.code == ErrorCode::NotFound => Ok(()),
                Err(error) => Err(error),
            };
            if outcome.is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
        .map_err(failed(CANNOT_READ))?;
        outcome?;
        if is_new {
            fchmod(&copy, mode).map_err(failed(CANNOT_WRITE))?;
        }
        Ok(())
    }
}

fn duplicate(file: &OwnedFd) -> Result<OwnedFd, WireError> {
    file.try_clone().map_err(failed(CANNOT_WRITE))
}
