//! Putting a watch in place. Blocks; never follows a link.
//!
//! The first directory on a path's way that lacks the next name is watched for that name. So are all those before it, for
//! being moved, removed or closed: then the path leads elsewhere. Each is named to the kernel by an open descriptor, so that
//! what is watched is what was looked at. What happened between the two is found by looking a second time, when everything is
//! in place: then the way is the same or nothing is watched, and whatever changes it later is told.

use std::os::fd::{AsRawFd as _, OwnedFd};

use dwell_messages::files::Watch;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, fstatfs, openat};
use rustix::io::Errno;

use super::WATCH_NAMES_MAX;
use super::live::Placed;
use super::rule::Rule;

/// Opens whatever it is, as itself, without touching it.
const AS_IT_IS: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// What is told of everything on a path's way, and of what is there.
const OF_ITSELF: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    // Several paths share directories, and each has its wishes.
    .union(WatchFlags::MASK_ADD);
/// And of the directory in which a name is missing.
const APPEARS: WatchFlags = WatchFlags::CREATE.union(WatchFlags::MOVED_TO);

/// Kinds of file systems, by their magic numbers, where whatever is done to a file is done by this kernel, and told. Of others
/// (those of other machines, those that the kernel makes up) something may appear and nobody be told.
const TELLING: [u32; 17] = [
    0x0000_ef53, // ext2, ext3, ext4
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0x2fc1_2fc1, // ZFS
    0xf2f5_2010, // F2FS
    0xca45_1a4e, // bcachefs
    0x3153_464a, // JFS
    0x5265_4973, // ReiserFS
    0x0000_3434, // NILFS
    0x2011_bab0, // exFAT
    0x0000_4d44, // FAT
    0x7366_746e, // NTFS
    0x7371_7368, // SquashFS, below which others are mounted
    0xe0f5_e1e2, // EROFS, likewise
];

/// A path's way, as far as it goes.
struct Way<'a> {
    /// Device and number of everything on it, from the root.
    met: Vec<(u64, u64)>,
    /// The name that is missing behind it, and the last directory.
    missing: Option<(&'a [u8], OwnedFd)>,
}

/// Puts a watch in place. `None`: it is not watched, as [`files::Watching`](dwell_messages::files::Watching) says.
pub(in crate::files) fn place(ask: &Watch) -> Option<Placed> {
    place_and(ask, || ())
}

/// With something that is done before it is looked a second time.
fn place_and(ask: &Watch, between: impl FnOnce()) -> Option<Placed> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let mut rule = Rule::default();
    let mut seen = Vec::with_capacity(ask.missing.len() + 1);
    for path in &ask.missing {
        let way = follow(path, |file, stat| watch(&inotify, file, stat))?;
        let (name, directory) = way.missing?;
        rule.awaits(add(&inotify, &directory, OF_ITSELF | APPEARS)?, name);
        seen.push((path, way.met, true));
    }
    if let Some(path) = &ask.present {
        let way = follow(path, |file, stat| watch(&inotify, file, stat))?;
        seen.push((path, way.met, way.missing.is_some()));
        if way.missing.is_some() {
            return None;
        }
    }
    between();
    let is_still_so = seen.iter().all(|(path, met, is_missing)| {
        follow(path, |_, _| Some(()))
            .is_some_and(|now| now.met == *met && now.missing.is_some() == *is_missing)
    });
    is_still_so.then(|| Placed::new(inotify, rule))
}

/// Goes along a path, and shows whatever is on its way. `None`: a link, what cannot be entered or shown, or too many names.
fn follow<'a>(path: &'a [u8], mut show: impl FnMut(&OwnedFd, &Stat) -> Option<()>) -> Option<Way<'a>> {
    let names: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .collect();
    if names.len() > WATCH_NAMES_MAX || names.iter().any(|name| matches!(*name, b"." | b"..")) {
        return None;
    }
    let mut met = Vec::with_capacity(names.len() + 1);
    let mut meet = |file: &OwnedFd| {
        let stat = fstat(file).ok()?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return None;
        }
        met.push(number_of(&stat));
        show(file, &stat)
    };
    let mut here = openat(CWD, "/", AS_IT_IS, Mode::empty()).ok()?;
    meet(&here)?;
    for name in names {
        match openat(&here, name, AS_IT_IS, Mode::empty()) {
            Ok(next) => {
                meet(&next)?;
                here = next;
            }
            Err(Errno::NOENT) => {
                let missing = Some((name, here));
                return Some(Way { met, missing });
            }
            // Not a directory among others: it would have to go before anything can appear.
            Err(_) => return None,
        }
    }
    Some(Way { met, missing: None })
}

/// Watches what is on a way, or at its end.
fn watch(inotify: &OwnedFd, file: &OwnedFd, stat: &Stat) -> Option<()> {
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let flags = if is_file {
        OF_ITSELF | WatchFlags::MODIFY
    } else {
        OF_ITSELF
    };
    add(inotify, file, flags).map(drop)
}

fn add(inotify: &OwnedFd, file: &OwnedFd, flags: WatchFlags) -> Option<i32> {
    if !is_telling(file) {
        return None;
    }
    // By its descriptor: by its path it might be another one by now.
    inotify::add_watch(inotify, format!("/proc/self/fd/{}", file.as_raw_fd()), flags).ok()
}

#[allow(
    clippy::unnecessary_cast,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the field has other types on other machines, and the number has 32 bits"
)]
fn is_telling(file: &OwnedFd) -> bool {
    fstatfs(file).is_ok_and(|system| TELLING.contains(&(system.f_type as u32)))
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the fields have other types on other machines"
)]
fn number_of(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
