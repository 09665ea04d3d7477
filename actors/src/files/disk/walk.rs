//! Walks: what lies below a directory, breadth first, a page at a time.
//!
//! A walk holds what it has not entered yet, which is bounded in bytes as well as by what the caller allows, and the
//! names of one directory. Between two pages it does nothing and holds one descriptor.

use std::collections::{HashSet, VecDeque};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwell_messages::WireError;
use dwell_messages::files::{
    FileKind, PAGE_MAX_BYTES, PAGE_MAX_ENTRIES, Walk, WalkEntry, WalkError, WalkPage,
};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;
use serde_bytes::ByteBuf;

use super::directory::names;
use super::errno::{code, failed};
use super::ignored::{Found, REPOSITORY, Rules};
use super::place::{DIRECTORY, kind_of, path, type_of};

/// Bytes of the paths of directories that wait to be entered; what is beyond is not, and the walk says so.
const WAITING_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of the names of one directory; what is beyond is not looked at, and the walk says so.
const NAMES_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Entries that are given between two looks at the time.
const ENTRIES_BETWEEN_LOOKS: usize = 256;
/// What an entry costs in a page beside its path.
const ENTRY_BYTES: usize = 16;

/// A directory that waits to be entered.
struct Waiting {
    /// From the walk's beginning; empty for that itself.
    path: Vec<u8>,
    /// How deep the names in it lie.
    depth: u32,
    /// Whether its name is a link.
    link: bool,
    rules: Option<Arc<Rules>>,
}

/// The directory whose names are being given.
struct Entered {
    at: Waiting,
    directory: OwnedFd,
    names: Names,
    next: usize,
}

/// Names and their types, in one buffer.
#[derive(Default)]
struct Names {
    bytes: Vec<u8>,
    entries: Vec<(u32, u32, FileType)>,
}

impl Names {
    fn push(&mut self, name: &[u8], file_type: FileType) {
        let start = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(name);
        let end = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.entries.push((start, end, file_type));
    }

    fn name(&self, (start, end, _): (u32, u32, FileType)) -> &[u8] {
        &self.bytes[start as usize..end as usize]
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.entries
            .sort_unstable_by_key(|(start, end, _)| &bytes[*start as usize..*end as usize]);
    }

    /// Keeps the lowest names only, of which there are `most`.
    fn keep_lowest(&mut self, most: usize) {
        self.sort();
        self.entries.truncate(most);
        let mut kept = Self::default();
        for entry in &self.entries {
            kept.push(self.name(*entry), entry.2);
        }
        *self = kept;
    }
}

/// A walk that is under way.
pub(crate) struct WalkState {
    ask: Walk,
    /// Its beginning, without links: what ignore files are matched against.
    real: PathBuf,
    root: OwnedFd,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    entered: Option<Entered>,
    directories: u32,
    entries: u32,
    /// Directories that were entered, where links are followed: none is entered twice.
    visited: HashSet<(u64, u64)>,
    truncated: bool,
}

impl WalkState {
    /// # Errors
    /// When there is no directory to begin in. One that may not be read is no error of the walk: its page says so.
    pub(super) fn begin(ask: &Walk) -> Result<Self, WireError> {
        let what = "the walk could not begin there";
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path(&ask.path), flags, Mode::empty()).map_err(failed(what))?;
        let (real, rules) = if ask.ignore_files {
            let real = std::fs::canonicalize(path(&ask.path)).map_err(failed(what))?;
            let rules = Rules::above(&real);
            (real, rules)
        } else {
            (PathBuf::new(), None)
        };
        let first = Waiting {
            path: Vec::new(),
            depth: 0,
            link: true,
            rules,
        };
        Ok(Self {
            ask: ask.clone(),
            real,
            root,
            waiting: VecDeque::from([first]),
            waiting_bytes: 0,
            entered: None,
            directories: 0,
            entries: 0,
            visited: HashSet::new(),
            truncated: false,
        })
    }

    /// The next page: full, the last, or what was found in `slice`.
    pub(super) fn page(&mut self, slice: Duration) -> WalkPage {
        let begun = Instant::now();
        let mut page = Page::default();
        while !page.is_full() {
            let Some(mut entered) = self.entered.take().or_else(|| self.enter(&mut page)) else {
                if self.waiting.is_empty() {
                    page.end = true;
                    break;
                }
                continue;
            };
            let is_done = self.give(&mut entered, &mut page);
            if self.entries == self.ask.max_entries {
                self.truncated |= !is_done || self.is_more_below(&mut page, (begun, slice));
                page.end = true;
                break;
            }
            if !is_done {
                self.entered = Some(entered);
            }
            if begun.elapsed() >= slice {
                break;
            }
        }
        WalkPage {
            entries: page.entries,
            errors: page.errors,
            end: page.end,
            truncated: self.truncated,
        }
    }

    /// Whether something may lie in a directory that is not entered any more, because the entries are all given. Where
    /// that takes longer than a page may, it may.
    fn is_more_below(&mut self, page: &mut Page, (begun, slice): (Instant, Duration)) -> bool {
        while !self.waiting.is_empty() {
            if page.is_full() || begun.elapsed() >= slice {
                return true;
            }
            if let Some(entered) = self.enter(page)
                && !entered.names.entries.is_empty()
            {
                return true;
            }
        }
        false
    }

    /// Enters the next directory, if it can be.
    fn enter(&mut self, page: &mut Page) -> Option<Entered> {
        let mut at = self.waiting.pop_front()?;
        self.waiting_bytes -= at.path.len();
        if self.directories == self.ask.max_directories {
            self.truncated = true;
            self.waiting.clear();
            self.waiting_bytes = 0;
            return None;
        }
        match self.read(&mut at) {
            Ok(Some((directory, names))) => {
                self.directories += 1;
                Some(Entered {
                    at,
                    directory,
                    names,
                    next: 0,
                })
            }
            Ok(None) => None,
            // Removed, or replaced by something else, since it was seen.
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(errno) => {
                self.directories += 1;
                page.fail(at.path, errno);
                None
            }
        }
    }

    /// Its names in order. `None`: it was entered under another name.
    fn read(&mut self, at: &mut Waiting) -> Result<Option<(OwnedFd, Names)>, Errno> {
        let no_follow = if at.link {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        };
        let name = if at.path.is_empty() {
            Path::new(".")
        } else {
            path(&at.path)
        };
        let directory = openat(&self.root, name, DIRECTORY | no_follow, Mode::empty())?;
        if self.ask.follow {
            let stat = fstat(&directory)?;
            if !self.visited.insert((stat.st_dev, stat.st_ino)) {
                return Ok(None);
            }
        }
        let (ignore_files, mut truncated) = (self.ask.ignore_files, false);
        // One more than can be given says that there is more.
        let most = (self.ask.max_entries - self.entries) as usize + 1;
        let mut found = Found::default();
        let mut sorted = Names::default();
        names(&directory, |name, file_type| {
            let name = name.to_bytes();
            if ignore_files {
                found.see(name);
            }
            sorted.push(name, file_type);
            // Of what no ignore file concerns the lowest are all that can be given.
            if !ignore_files && sorted.entries.len() >= 2 * most + PAGE_MAX_ENTRIES {
                sorted.keep_lowest(most);
            }
            if sorted.bytes.len() < NAMES_MAX_BYTES {
                return ControlFlow::Continue(());
            }
            truncated = true;
            ControlFlow::Break(())
        })?;
        self.truncated |= truncated;
        if self.ask.ignore_files {
            let real = self.real.join(path(&at.path));
            let rules = Rules::read(at.rules.take(), &real, found);
            sorted = without_excluded(&sorted, &directory, &rules, &real);
            at.rules = Some(rules);
        }
        if sorted.entries.len() > most {
            sorted.keep_lowest(most);
        } else {
            sorted.sort();
        }
        Ok(Some((directory, sorted)))
    }

    /// Gives names until the page or the walk has enough of them. Whether all were given.
    fn give(&mut self, entered: &mut Entered, page: &mut Page) -> bool {
        let mut given = 0;
        while let Some(entry) = entered.names.entries.get(entered.next).copied() {
            if page.is_full() || self.entries == self.ask.max_entries || given == ENTRIES_BETWEEN_LOOKS {
                return false;
            }
            entered.next += 1;
            given += 1;
            self.entry(entered, entry, page);
        }
        true
    }

    fn entry(&mut self, entered: &Entered, entry: (u32, u32, FileType), page: &mut Page) {
        let name = entered.names.name(entry);
        let listed = type_of(entered.directory.as_fd(), path(name), entry.2);
        if listed == FileType::Unknown {
            // It is gone.
            return;
        }
        let link = listed == FileType::Symlink;
        let mut kind = kind_of(listed);
        if link && self.ask.follow {
            kind = statat(&entered.directory, path(name), AtFlags::empty())
                .map_or(kind, |stat| kind_of(FileType::from_raw_mode(stat.st_mode)));
        }
        let mut whole = Vec::with_capacity(entered.at.path.len() + 1 + name.len());
        if !entered.at.path.is_empty() {
            whole.extend_from_slice(&entered.at.path);
            whole.push(b'/');
        }
        whole.extend_from_slice(name);
        let enters = kind == FileKind::Directory
            && entered.at.depth < self.ask.max_depth
            && !(self.ask.prune_hidden && name.starts_with(b"."));
        if enters {
            self.wait(&whole, entered, link);
        }
        self.entries += 1;
        page.bytes += whole.len() + ENTRY_BYTES;
        page.entries.push(WalkEntry {
            path: ByteBuf::from(whole),
            kind,
            link,
        });
    }

    fn wait(&mut self, whole: &[u8], above: &Entered, link: bool) {
        if self.waiting_bytes + whole.len() > WAITING_MAX_BYTES {
            self.truncated = true;
            return;
        }
        self.waiting_bytes += whole.len();
        self.waiting.push_back(Waiting {
            path: whole.to_vec(),
            depth: above.at.depth + 1,
            link,
            rules: above.at.rules.clone(),
        });
    }
}

/// A page that is being filled.
#[derive(Default)]
struct Page {
    entries: Vec<WalkEntry>,
    errors: Vec<WalkError>,
    bytes: usize,
    end: bool,
}

impl Page {
    fn is_full(&self) -> bool {
        self.entries.len() + self.errors.len() >= PAGE_MAX_ENTRIES || self.bytes >= PAGE_MAX_BYTES
    }

    fn fail(&mut self, path: Vec<u8>, errno: Errno) {
        self.bytes += path.len() + ENTRY_BYTES;
        self.errors.push(WalkError {
            path: ByteBuf::from(path),
            code: code(errno),
            errno: Some(errno.raw_os_error()),
        });
    }
}

/// The names that no ignore file excludes.
fn without_excluded(all: &Names, directory: &OwnedFd, rules: &Rules, at: &Path) -> Names {
    let mut kept = Names::default();
    let mut whole = at.to_path_buf();
    for entry in &all.entries {
        let name = all.name(*entry);
        if name == REPOSITORY {
            continue;
        }
        if rules.any() {
            let file_type = type_of(directory.as_fd(), path(name), entry.2);
            whole.push(path(name));
            let is_excluded = rules.excludes(&whole, file_type == FileType::Directory);
            whole.pop();
            if is_excluded {
                continue;
            }
        }
        kept.push(name, entry.2);
    }
    kept
}
