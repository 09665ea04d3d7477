//! From what a command may reach to what is mounted where. A pure core: what a path is, it is told.
//!
//! A path is followed link by link, and a link that the command itself could have made is refused: whoever may write below
//! `/tmp` must not say what `/tmp/work` leads to. For the same reason nothing is mounted where it would grant what is
//! granted already.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use dwell_messages::confinement::{CONFINED_PATHS_MAX, ConfinedPath, Confinement, Reach};

/// Links on the way to one path, as the kernel counts them.
const LINKS_MAX: usize = 40;

/// Why a confinement cannot be enforced. Names no path: whoever asked knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unenforceable {
    /// Nothing here confines commands.
    #[error(
        "this executor cannot confine what it runs: install bubblewrap, and start the executor as `dwell executor`"
    )]
    NoMeans,
    /// There are too many paths.
    #[error("a confinement has at most {CONFINED_PATHS_MAX} paths")]
    TooMany,
    /// A path is not absolute, or has a `..` or a NUL in it.
    #[error("every path of a confinement is absolute, without `..`")]
    BadPath,
    /// Not all files may at least be read.
    #[error("a confinement without the root directory cannot be enforced here: let everything be read")]
    NoRoot,
    /// Device and process files are the command's own.
    #[error("a confinement cannot say anything of /dev or /proc: a confined command has its own")]
    Special,
    /// A path leads through a link that commands can change.
    #[error("a path of the confinement leads through a symbolic link that confined commands could change")]
    Link,
    /// What is to be protected is not there.
    #[error("a path that is to be protected from a confined command is not there: create it")]
    Missing,
    /// The system does not tell what a path is.
    #[error("a path of the confinement cannot be looked at")]
    Unreadable,
}

/// What there is at a path, its last component not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Link(PathBuf),
    /// A directory, a file or anything else.
    Thing,
}

/// One mount, in the order in which they are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) path: PathBuf,
    pub(super) access: Reach,
    /// Left out where there is no such path any more.
    pub(super) optional: bool,
}

/// What to mount, from the root downwards.
///
/// # Errors
/// Why the whole is not enforced.
pub(super) fn mounts(
    confinement: &Confinement,
    look: &dyn Fn(&Path) -> io::Result<Seen>,
) -> Result<Vec<Mount>, Unenforceable> {
    if confinement.paths.len() > CONFINED_PATHS_MAX {
        return Err(Unenforceable::TooMany);
    }
    for entry in &confinement.paths {
        check(path_of(entry))?;
    }
    // Where commands can make links: as it is said, and as it is.
    let said = confinement
        .paths
        .iter()
        .filter(|entry| entry.access == Reach::Write);
    let mut writable: Vec<PathBuf> = said.map(|entry| path_of(entry).to_owned()).collect();
    loop {
        let settled = settle_all(&confinement.paths, &writable, look)?;
        let more: Vec<PathBuf> = settled
            .iter()
            .filter(|mount| mount.access == Reach::Write && !writable.contains(&mount.path))
            .map(|mount| mount.path.clone())
            .collect();
        if more.is_empty() {
            return nested(settled);
        }
        writable.extend(more);
    }
}

fn path_of(entry: &ConfinedPath) -> &Path {
    Path::new(OsStr::from_bytes(&entry.path))
}

fn check(path: &Path) -> Result<(), Unenforceable> {
    let is_plain = path
        .components()
        .all(|component| matches!(component, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !is_plain || path.as_os_str().as_bytes().contains(&0) {
        return Err(Unenforceable::BadPath);
    }
    Ok(())
}

fn settle_all(
    paths: &[ConfinedPath],
    writable: &[PathBuf],
    look: &dyn Fn(&Path) -> io::Result<Seen>,
) -> Result<Vec<Mount>, Unenforceable> {
    let mut settled = Vec::with_capacity(paths.len());
    for entry in paths {
        let (path, is_there) = settle(path_of(entry), writable, look)?;
        if path.starts_with("/dev") || path.starts_with("/proc") {
            return Err(Unenforceable::Special);
        }
        match entry.access {
            // What is not there cannot be written, and what is above it decides whether it can be made.
            Reach::Write if !is_there => continue,
            Reach::Write | Reach::Read => {}
        }
        settled.push((entry, path, is_there));
    }
    let mount = |(entry, path, is_there): (&ConfinedPath, PathBuf, bool)| {
        let could_be_made = writable.iter().any(|place| path.starts_with(place));
        if !is_there && !entry.optional && could_be_made {
            return Err(Unenforceable::Missing);
        }
        Ok(Mount {
            path,
            access: entry.access,
            optional: !is_there || entry.optional,
        })
    };
    settled.into_iter().map(mount).collect()
}

/// Where a path leads, and whether there is anything.
fn settle(
    path: &Path,
    writable: &[PathBuf],
    look: &dyn Fn(&Path) -> io::Result<Seen>,
) -> Result<(PathBuf, bool), Unenforceable> {
    let mut at = PathBuf::from("/");
    let mut rest: Vec<OsString> = Vec::new();
    put_in_front(&mut rest, path);
    let (mut links, mut is_there) = (0, true);
    while let Some(name) = rest.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let seen = if is_there {
            look(&next).map_err(|_| Unenforceable::Unreadable)?
        } else {
            Seen::Nothing
        };
        match seen {
            Seen::Thing => at = next,
            Seen::Nothing => {
                is_there = false;
                at = next;
            }
            Seen::Link(target) => {
                links += 1;
                let is_theirs = |place: &PathBuf| next != *place && next.starts_with(place);
                if links > LINKS_MAX || writable.iter().any(is_theirs) {
                    return Err(Unenforceable::Link);
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                put_in_front(&mut rest, &target);
            }
        }
    }
    Ok((at, is_there))
}

/// `rest` has its next component last.
fn put_in_front(rest: &mut Vec<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => rest.push(name.to_owned()),
            Component::ParentDir => rest.push("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

/// From the root downwards, without what says what holds already. At one place the narrower counts.
fn nested(mut settled: Vec<Mount>) -> Result<Vec<Mount>, Unenforceable> {
    let depth = |path: &Path| path.components().count();
    settled.sort_by(|a, b| {
        depth(&a.path)
            .cmp(&depth(&b.path))
            .then_with(|| a.path.cmp(&b.path))
    });
    let mut mounts: Vec<Mount> = Vec::new();
    for mount in settled {
        if let Some(same) = mounts.iter_mut().find(|same| same.path == mount.path) {
            if mount.access == Reach::Read {
                same.access = Reach::Read;
            }
            same.optional &= mount.optional;
            continue;
        }
        mounts.push(mount);
    }
    if mounts.first().is_none_or(|first| first.path != Path::new("/")) {
        return Err(Unenforceable::NoRoot);
    }
    let mut needed: Vec<Mount> = Vec::new();
    for mount in mounts {
        let above = needed
            .iter()
            .rev()
            .find(|above| mount.path.starts_with(&above.path));
        if above.is_none_or(|above| above.access != mount.access) {
            needed.push(mount);
        }
    }
    Ok(needed)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
