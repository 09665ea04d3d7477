//! Writing files, also so that a name leads to the old one or the whole new one.

use std::os::fd::{AsFd, OwnedFd};

use dwell_messages::files::{Links, WriteFile, WriteHow, Written};
use dwell_messages::{ErrorCode, WireError};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid, fchmod, fchown, fstat, fsync,
    ftruncate, linkat, openat, readlinkat, renameat, renameat_with, statat, syncfs, unlinkat,
};
use rustix::io::{Errno, pwrite, write as append};

use super::errno::failed;
use super::place::{ON_THE_WAY, Place, check_regular, metadata_of, path, refused_link};

/// How the names begin that an atomic replacement has before it has its own.
pub const TEMPORARY_PREFIX: &str = ".dwell-new-";
/// Names that are tried for it.
const NAMES_TRIED_MAX: usize = 16;
/// Links that are followed one after another, as the system does.
const LINKS_MAX: usize = 40;
/// Permissions of a new file, before the umask.
const PERMISSIONS: u32 = 0o666;

const CANNOT_OPEN: &str = "the file could not be opened";
const CANNOT_WRITE: &str = "the file could not be written";
const CANNOT_SYNC: &str = "the file could not be brought to the disk";

/// How a file is to be written.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) path: &'a [u8],
    pub(super) how: WriteHow,
    pub(super) permissions: Option<u32>,
    pub(super) atomic: bool,
    pub(super) sync: bool,
    pub(super) links: Links,
}

/// A file that is being written.
pub(crate) struct WriteHandle {
    file: OwnedFd,
    appends: bool,
    sync: bool,
    /// Where its name is, if that has to be synced too.
    directory: Option<OwnedFd>,
    replacement: Option<Replacement>,
    /// What went wrong with a write: the file is not what its writer wanted.
    broken: Option<WireError>,
}

/// A new file that has no name of its own yet.
struct Replacement {
    directory: OwnedFd,
    name: Vec<u8>,
    /// Its name meanwhile, where the file system has no files without one. Removed if it never gets another.
    temporary: Option<Vec<u8>>,
    exclusive: bool,
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary {
            let _ = unlinkat(&self.directory, path(name), AtFlags::empty());
        }
    }
}

/// Writes a small file: opened, written and closed. A file without `atomic` that cannot be written whole is left as far
/// as it came.
pub(super) fn write(ask: &WriteFile) -> Result<Written, WireError> {
    let mut handle = WriteHandle::open(Plan {
        path: &ask.path,
        how: ask.how,
        permissions: ask.permissions,
        atomic: ask.atomic,
        sync: ask.sync,
        links: ask.links,
    })?;
    handle.write(0, &ask.data)?;
    let stat = handle.close()?;
    Ok(Written {
        metadata: metadata_of(&stat),
    })
}

impl WriteHandle {
    pub(super) fn open(plan: Plan<'_>) -> Result<Self, WireError> {
        if plan.atomic {
            return Self::open_atomic(plan);
        }
        let place = Place::of(plan.path, plan.links)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let flags = flags
            | match plan.how {
                WriteHow::Exclusive => OFlags::EXCL,
                WriteHow::Truncate => place.no_follow(),
                WriteHow::Append => place.no_follow() | OFlags::APPEND,
            };
        // What is no regular file is not opened: that may do something, or wait.
        let existed = match place.stat() {
            Ok(stat) => {
                if plan.how != WriteHow::Exclusive {
                    check_regular(&stat)?;
                }
                true
            }
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(failed(CANNOT_OPEN)(errno)),
        };
        let mode = Mode::from_raw_mode(plan.permissions.unwrap_or(PERMISSIONS) & 0o7777);
        let file = openat(place.at(), place.name, flags, mode).map_err(failed(CANNOT_OPEN))?;
        check_regular(&fstat(&file).map_err(failed(CANNOT_OPEN))?)?;
        if plan.how == WriteHow::Truncate {
            ftruncate(&file, 0).map_err(failed(CANNOT_WRITE))?;
        }
        let directory = if plan.sync && !existed {
            Some(Target::of(plan.path, plan.links)?.directory)
        } else {
            None
        };
        Ok(Self {
            file,
            appends: plan.how == WriteHow::Append,
            sync: plan.sync,
            directory,
            replacement: None,
            broken: None,
        })
    }

    fn open_atomic(plan: Plan<'_>) -> Result<Self, WireError> {
        let target = Target::of(plan.path, plan.links)?;
        let exclusive = plan.how == WriteHow::Exclusive;
        let before = match &target.stat {
            Some(_) if exclusive => {
                return Err(failed("there is something of this name")(Errno::EXIST));
            }
            Some(stat) => {
                check_regular(stat)?;
                Some(*stat)
            }
            None => None,
        };
        let permissions = plan.permissions.unwrap_or(PERMISSIONS) & 0o7777;
        let (file, temporary) = unnamed(&target.directory, Mode::from_raw_mode(permissions))?;
        let replacement = Replacement {
            directory: target.directory,
            name: target.name,
            temporary,
            exclusive,
        };
        if let Some(before) = before {
            take_over(&file, &before, plan.permissions)?;
        }
        Ok(Self {
            file,
            appends: false,
            sync: true,
            directory: None,
            replacement: Some(replacement),
            broken: None,
        })
    }

    /// Writes all of it. What cannot be written whole keeps the file from being closed as if it were.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<u64, WireError> {
        let written = self.write_all(offset, data);
        if let Err(error) = &written {
            self.broken.get_or_insert_with(|| error.clone());
        }
        written
    }

    fn write_all(&self, offset: u64, data: &[u8]) -> Result<u64, WireError> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| i64::try_from(*end).is_ok());
        let Some(end) = end else {
            return Err(WireError::new(ErrorCode::TooLarge, "no file is that long"));
        };
        let mut done = 0;
        while done < data.len() {
            let wrote = if self.appends {
                append(&self.file, &data[done..])
            } else {
                pwrite(&self.file, &data[done..], offset + done as u64)
            };
            match wrote {
                Ok(0) => return Err(failed(CANNOT_WRITE)(Errno::IO)),
                Ok(wrote) => done += wrote,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(CANNOT_WRITE)(errno)),
            }
        }
        Ok(end)
    }

    pub(super) fn stat(&self) -> Result<Stat, WireError> {
        fstat(&self.file).map_err(failed("the file could not be looked at"))
    }

    /// Brings it to the disk where that was asked, and gives it its name. Whatever fails, the name leads to what it led
    /// to before, or to the whole new file.
    pub(super) fn close(mut self) -> Result<Stat, WireError> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        if self.sync {
            fsync(&self.file).map_err(failed(CANNOT_SYNC))?;
        }
        if let Some(mut replacement) = self.replacement.take() {
            replacement.publish(&self.file)?;
            sync_directory(&replacement.directory, &self.file)?;
        }
        if let Some(directory) = &self.directory {
            sync_directory(directory, &self.file)?;
        }
        self.stat()
    }
}

impl Replacement {
    fn publish(&mut self, file: &OwnedFd) -> Result<(), WireError> {
        let what = "the new file could not be given its name";
        if self.temporary.is_none() && self.exclusive {
            return link(file, &self.directory, &self.name).map_err(failed(what));
        }
        let temporary = match &self.temporary {
            Some(name) => name.clone(),
            None => {
                // A file without a name can be given one that is free, and only then another's.
                let name = free_name(|name| link(file, &self.directory, name))
                    .map_err(failed(what))?
                    .1;
                self.temporary.insert(name).clone()
            }
        };
        let (from, to) = (path(&temporary), path(&self.name));
        if self.exclusive {
            renameat_with(&self.directory, from, &self.directory, to, RenameFlags::NOREPLACE)
        } else {
            renameat(&self.directory, from, &self.directory, to)
        }
        .map_err(failed(what))?;
        self.temporary = None;
        Ok(())
    }
}

/// A new file in this directory: one without a name, which goes by itself with this process, where there are such files.
fn unnamed(directory: &OwnedFd, mode: Mode) -> Result<(OwnedFd, Option<Vec<u8>>), WireError> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    match openat(directory, ".", flags | OFlags::TMPFILE, mode) {
        Ok(file) => Ok((file, None)),
        // The file system has none, or the system does not know of them.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
            let create = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let (file, name) = free_name(|name| openat(directory, path(name), flags | create, mode))
                .map_err(failed("a new file could not be made in its directory"))?;
            Ok((file, Some(name)))
        }
        Err(errno) => Err(failed("a new file could not be made in its directory")(errno)),
    }
}

/// Gives an unnamed file a name that nothing has.
fn link(file: &OwnedFd, directory: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    // By its descriptor alone only who may read everything can.
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, own, directory, path(name), AtFlags::SYMLINK_FOLLOW)
}

/// Does something with a name that nobody has.
fn free_name<T>(mut with: impl FnMut(&[u8]) -> Result<T, Errno>) -> Result<(T, Vec<u8>), Errno> {
    for _ in 0..NAMES_TRIED_MAX {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(|_| Errno::IO)?;
        let name = format!("{TEMPORARY_PREFIX}{:016x}", u64::from_ne_bytes(random)).into_bytes();
        match with(&name) {
            Ok(done) => return Ok((done, name)),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

/// The new file belongs to whom the old one belonged to, as far as that may be said, and has its permissions unless
/// others are asked for.
fn take_over(file: &OwnedFd, before: &Stat, permissions: Option<u32>) -> Result<(), WireError> {
    let what = "the new file could not be given the permissions of the old one";
    let own = fstat(file).map_err(failed(what))?;
    if (own.st_uid, own.st_gid) != (before.st_uid, before.st_gid) {
        // Only a privileged executor may give files away; the file is then its own, as an editor's would be.
        let _ = fchown(
            file,
            Some(Uid::from_raw(before.st_uid)),
            Some(Gid::from_raw(before.st_gid)),
        );
    }
    let mode = permissions.unwrap_or(before.st_mode) & 0o7777;
    fchmod(file, Mode::from_raw_mode(mode)).map_err(failed(what))
}

fn sync_directory(directory: &OwnedFd, file: &OwnedFd) -> Result<(), WireError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(directory, ".", flags, Mode::empty()) {
        Ok(directory) => fsync(directory),
        // One that may be written and not read: then everything of its file system is synced.
        Err(Errno::ACCESS) => syncfs(file),
        Err(errno) => Err(errno),
    }
    .map_err(failed(CANNOT_SYNC))
}

/// The name that a path stands for, once links are followed as they are to be.
struct Target {
    directory: OwnedFd,
    name: Vec<u8>,
    stat: Option<Stat>,
}

impl Target {
    fn of(bytes: &[u8], links: Links) -> Result<Self, WireError> {
        if links == Links::Refuse {
            let place = Place::of(bytes, links)?;
            let directory =
                openat(place.at(), ".", ON_THE_WAY, Mode::empty()).map_err(failed(CANNOT_OPEN))?;
            let name = std::os::unix::ffi::OsStrExt::as_bytes(place.name.as_os_str()).to_vec();
            return Self::at(directory, name)?.without_link();
        }
        let mut directory = openat(CWD, "/", ON_THE_WAY, Mode::empty()).map_err(failed(CANNOT_OPEN))?;
        let mut rest = bytes.to_vec();
        for _ in 0..LINKS_MAX {
            let (parent, name) = split(&rest)?;
            if !parent.is_empty() {
                directory = openat(&directory, path(parent), ON_THE_WAY, Mode::empty())
                    .map_err(failed("a directory on the way could not be entered"))?;
            }
            let target = Self::at(directory, name.to_vec())?;
            if !target.is_link() {
                return Ok(target);
            }
            if links == Links::Keep {
                return Err(refused_link());
            }
            rest = readlinkat(&target.directory, path(&target.name), Vec::new())
                .map_err(failed("a link could not be followed"))?
                .into_bytes();
            directory = target.directory;
        }
        Err(failed("the path could not be followed")(Errno::LOOP))
    }

    fn at(directory: OwnedFd, name: Vec<u8>) -> Result<Self, WireError> {
        let stat = match statat(&directory, path(&name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed(CANNOT_OPEN)(errno)),
        };
        Ok(Self {
            directory,
            name,
            stat,
        })
    }

    fn is_link(&self) -> bool {
        self.stat
            .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    }

    fn without_link(self) -> Result<Self, WireError> {
        if self.is_link() {
            Err(refused_link())
        } else {
            Ok(self)
        }
    }
}

/// A path's directory, empty for the one that it begins in, and its last name.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (parent, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&bytes[..=at], &bytes[at + 1..]),
        None => (&[][..], bytes),
    };
    match name {
        b"" | b"." | b".." => Err(failed("the path leads to a directory")(Errno::ISDIR)),
        name => Ok((parent, name)),
    }
}

impl AsFd for WriteHandle {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}
