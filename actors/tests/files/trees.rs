//! Random trees, and what a walk that knows nothing of ours finds in them.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use dwell_actors::files::{WalkOptions, Walked};
use dwell_messages::ErrorCode;
use dwell_messages::files::{
    FileKind, WALK_MAX_DEPTH, WALK_MAX_DIRECTORIES, WALK_MAX_ENTRIES, WalkEntry, WalkError,
};

use crate::place::{buf, named};
use crate::world::Dice;

const NAMES: [&[u8]; 14] = [
    b"a",
    b"b",
    b"c",
    b"src",
    b"target",
    b".hidden",
    b".git",
    b"A",
    b"a.rs",
    b"a b",
    b"\xff\xfe",
    b"zz",
    b"-",
    b"e\xcc\x81",
];

/// A tree of at most so many names, some of them links, pipes and directories that may not be entered.
pub(crate) struct Tree {
    _dir: tempfile::TempDir,
    pub(crate) directories: Vec<PathBuf>,
}

impl Tree {
    pub(crate) fn grow(dice: &mut Dice, names: u64, locks: bool) -> Self {
        // In a directory of its own: a link that leads out of it leads to nothing that others change.
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        let mut directories = vec![root];
        let mut all = directories.clone();
        for _ in 0..dice.below(names) {
            let parent = pick(dice, &directories).clone();
            let path = parent.join(named(pick::<&[u8]>(dice, &NAMES)));
            if path.symlink_metadata().is_ok() {
                continue;
            }
            match dice.below(10) {
                0..=3 => {
                    std::fs::create_dir(&path).unwrap();
                    directories.push(path.clone());
                }
                4..=6 => drop(std::fs::File::create(&path).unwrap()),
                7 | 8 => link(dice, &path, &all),
                _ => {
                    let pipe = rustix::fs::Mode::from_raw_mode(0o600);
                    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, pipe, 0).unwrap();
                }
            }
            all.push(path);
        }
        let tree = Self {
            _dir: dir,
            directories,
        };
        if locks {
            tree.lock(dice);
        }
        tree
    }

    /// Takes rights away: to read some directories, to enter others.
    fn lock(&self, dice: &mut Dice) {
        for directory in self.directories.iter().skip(1).rev() {
            let mode = match dice.below(12) {
                0 => 0o000,
                1 => 0o444,
                2 => 0o111,
                _ => continue,
            };
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.directories[0]
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // From the top, so that each can be entered to unlock the next.
        for directory in &self.directories {
            drop(std::fs::set_permissions(
                directory,
                std::fs::Permissions::from_mode(0o700),
            ));
        }
    }
}

pub(crate) fn pick<'a, T>(dice: &mut Dice, from: &'a [T]) -> &'a T {
    &from[usize::try_from(dice.below(from.len() as u64)).unwrap()]
}

/// To something that is there, to something that is not, to itself, or upwards.
fn link(dice: &mut Dice, path: &Path, all: &[PathBuf]) {
    let target = match dice.below(6) {
        0 => PathBuf::from("nowhere"),
        1 => path.to_path_buf(),
        2 => PathBuf::from(".."),
        3 => PathBuf::from("."),
        _ => pick(dice, all).clone(),
    };
    symlink(target, path).unwrap();
}

/// Bounds that are met, just met, and not met.
pub(crate) fn options(dice: &mut Dice) -> WalkOptions {
    let mut bound = |limit: u64, most: u32| {
        if dice.below(3) == 0 {
            u32::try_from(dice.below(limit)).unwrap()
        } else {
            most
        }
    };
    let (max_depth, max_directories, max_entries) = (
        bound(4, WALK_MAX_DEPTH),
        bound(8, WALK_MAX_DIRECTORIES).max(1),
        bound(20, WALK_MAX_ENTRIES).max(1),
    );
    WalkOptions {
        max_depth,
        max_directories,
        max_entries,
        follow: dice.below(2) == 0,
        prune_hidden: dice.below(2) == 0,
        ignore_files: false,
    }
}

fn kind(metadata: &std::fs::Metadata) -> FileKind {
    let file_type = metadata.file_type();
    if file_type.is_dir() {
        FileKind::Directory
    } else if file_type.is_symlink() {
        FileKind::Symlink
    } else if file_type.is_fifo() {
        FileKind::Other
    } else {
        FileKind::File
    }
}

struct Waiting {
    path: PathBuf,
    depth: u32,
}

/// The same walk with nothing but the standard library: paths joined, everything looked at, one directory after another.
pub(crate) fn naive(root: &Path, options: WalkOptions) -> Walked {
    let mut walked = Walked::default();
    let mut waiting = VecDeque::from([Waiting {
        path: PathBuf::new(),
        depth: 0,
    }]);
    let (mut directories, mut visited) = (0, HashSet::new());
    while let Some(at) = waiting.pop_front() {
        if directories == options.max_directories {
            walked.truncated = true;
            return walked;
        }
        let whole = if at.path.as_os_str().is_empty() {
            root.to_path_buf()
        } else {
            root.join(&at.path)
        };
        let names = match std::fs::read_dir(&whole) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                directories += 1;
                walked.errors.push(WalkError {
                    path: buf(&at.path),
                    code: ErrorCode::AccessDenied,
                    errno: error.raw_os_error(),
                });
                continue;
            }
        };
        let identity = || std::fs::metadata(&whole).map(|metadata| (metadata.dev(), metadata.ino()));
        // Whoever may read a directory and not enter it is told nothing of it by its path: by its names' own file then.
        let identity = identity().or_else(|_| {
            let open = std::fs::File::open(&whole)?;
            open.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
        });
        if options.follow && !visited.insert(identity.unwrap()) {
            continue;
        }
        directories += 1;
        let mut names: Vec<_> = names.map(|entry| entry.unwrap()).collect();
        names.sort_by_key(|entry| entry.file_name());
        for entry in names {
            if walked.entries.len() == usize::try_from(options.max_entries).unwrap() {
                walked.truncated = true;
                return walked;
            }
            let path = at.path.join(entry.file_name());
            let own = entry.file_type().unwrap();
            let link = own.is_symlink();
            let seen = if link && options.follow {
                std::fs::metadata(entry.path()).map_or(FileKind::Symlink, |metadata| kind(&metadata))
            } else if own.is_dir() {
                FileKind::Directory
            } else if link {
                FileKind::Symlink
            } else if own.is_file() {
                FileKind::File
            } else {
                FileKind::Other
            };
            let is_hidden = options.prune_hidden && entry.file_name().as_encoded_bytes().starts_with(b".");
            if seen == FileKind::Directory && at.depth < options.max_depth && !is_hidden {
                waiting.push_back(Waiting {
                    path: path.clone(),
                    depth: at.depth + 1,
                });
            }
            walked.entries.push(WalkEntry {
                path: buf(&path),
                kind: seen,
                link,
            });
        }
    }
    walked
}
