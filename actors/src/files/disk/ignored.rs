//! What ignore files exclude. Their syntax and their matching are the `ignore` crate's; which of them concern an entry
//! is decided here, since a walk that goes breadth first, and is interrupted, cannot be that crate's own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The directory that makes one a repository. Itself it is no part of what a walk is after.
pub(super) const REPOSITORY: &[u8] = b".git";
const IGNORE: &str = ".ignore";
const GITIGNORE: &str = ".gitignore";
const EXCLUDE: &str = ".git/info/exclude";

/// The ignore files of one directory and, through `above`, of those above it.
#[derive(Debug)]
pub(super) struct Rules {
    above: Option<Arc<Rules>>,
    ignore: Option<Gitignore>,
    gitignore: Option<Gitignore>,
    exclude: Option<Gitignore>,
    is_repository: bool,
    /// Whether this directory lies in a repository: without one no `.gitignore` means anything.
    in_repository: bool,
    /// Whether there is any rule at all, here or above.
    any: bool,
}

/// Which ignore files a directory has, as its names say.
#[derive(Clone, Copy, Default)]
pub(super) struct Found {
    ignore: bool,
    gitignore: bool,
    git: bool,
    jj: bool,
}

impl Found {
    pub(super) fn see(&mut self, name: &[u8]) {
        match name {
            b".ignore" => self.ignore = true,
            b".gitignore" => self.gitignore = true,
            REPOSITORY => self.git = true,
            b".jj" => self.jj = true,
            _ => {}
        }
    }

    /// Whether that makes the directory a repository: one of Git's, or of Jujutsu's, which honours the same files.
    fn is_repository(self, at: &Path) -> bool {
        (self.git && at.join(".git").exists()) || (self.jj && at.join(".jj").exists())
    }
}

impl Rules {
    /// Those of a directory below `above`, whose absolute path is `at`.
    pub(super) fn read(above: Option<Arc<Self>>, at: &Path, found: Found) -> Arc<Self> {
        let file = |present: bool, name: &str| present.then(|| parse(at, name)).flatten();
        let ignore = file(found.ignore, IGNORE);
        let gitignore = file(found.gitignore, GITIGNORE);
        let exclude = file(found.git, EXCLUDE);
        let is_repository = found.is_repository(at);
        let own = ignore.is_some() || gitignore.is_some() || exclude.is_some();
        if !own
            && !is_repository
            && let Some(above) = above
        {
            return above;
        }
        Arc::new(Self {
            is_repository,
            in_repository: is_repository || above.as_ref().is_some_and(|above| above.in_repository),
            any: own || above.as_ref().is_some_and(|above| above.any),
            above,
            ignore,
            gitignore,
            exclude,
        })
    }

    /// Those of all directories above one whose absolute path, without links, is `at`.
    pub(super) fn above(at: &Path) -> Option<Arc<Self>> {
        let mut ancestors: Vec<&Path> = at.ancestors().skip(1).collect();
        ancestors.reverse();
        let mut rules = None;
        for directory in ancestors {
            let mut found = Found::default();
            for name in [IGNORE, GITIGNORE, ".git", ".jj"] {
                if directory.join(name).symlink_metadata().is_ok() {
                    found.see(name.as_bytes());
                }
            }
            rules = Some(Self::read(rules, directory, found));
        }
        rules
    }

    /// Whether there may be something that is passed over.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// Whether the entry of this absolute path is passed over. The nearest directory that says something has the last
    /// word; `.ignore` has it before `.gitignore`, and that before `.git/info/exclude`. Above the repository that an
    /// entry lies in, `.gitignore` means nothing.
    pub(super) fn excludes(&self, at: &Path, is_directory: bool) -> bool {
        let mut said = [const { None }; 3];
        let mut left_repository = !self.in_repository;
        let mut rules = Some(self);
        while let Some(at_level) = rules {
            let files = [
                at_level.ignore.as_ref(),
                at_level.gitignore.as_ref().filter(|_| !left_repository),
                at_level.exclude.as_ref().filter(|_| !left_repository),
            ];
            for (said, file) in said.iter_mut().zip(files) {
                if said.is_none()
                    && let Some(file) = file
                {
                    *said = verdict(&file.matched(at, is_directory));
                }
            }
            left_repository |= at_level.is_repository;
            rules = at_level.above.as_deref();
        }
        said.into_iter().flatten().next().unwrap_or(false)
    }
}

/// Whether a rule excludes, or takes back that another did.
fn verdict<T>(matched: &Match<T>) -> Option<bool> {
    match matched {
        Match::None => None,
        Match::Ignore(_) => Some(true),
        Match::Whitelist(_) => Some(false),
    }
}

/// The rules of one file; those that are no patterns are passed over, and a file that cannot be read has none.
fn parse(directory: &Path, name: &str) -> Option<Gitignore> {
    let mut builder = GitignoreBuilder::new(directory);
    let file: PathBuf = directory.join(name);
    // What is no regular file would have to be waited for.
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return None;
    }
    drop(builder.add(file));
    builder.build().ok().filter(|rules| !rules.is_empty())
}
