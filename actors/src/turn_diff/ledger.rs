//! What a turn has done to files, composed: for each path what was there at the beginning, and what is there now.
//!
//! Pure: knows no file system, no root and no clock. The diff is between the two; how it came about shows in renames
//! only: a file whose old name is free now and whose new name was free before is shown as moved, as git would. The
//! content at a turn's beginning is the first old one that was told; what happened to a file between two changes
//! that were told is therefore part of the diff too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::change::{Change, Content};
use super::render::{FileDiff, Shape};

/// Files that a turn's diff keeps track of.
pub const TRACKED_FILES_MAX: usize = 4_096;
/// Bytes of their paths and contents together, at the turn's beginning and now. Rendered text is at most about twice as
/// much beside it.
pub const HELD_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Why a turn has no diff any more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VoidReason {
    /// Files were changed in ways that are not known.
    Inexact,
    /// More than [`TRACKED_FILES_MAX`] files were changed.
    TooManyFiles,
    /// Their contents have more than [`HELD_MAX_BYTES`].
    TooManyBytes,
}

/// The present file of a path.
#[derive(Clone, Debug)]
struct Current {
    content: Content,
    /// Where this file was at the turn's beginning, if it was anywhere.
    origin: Option<Arc<[u8]>>,
}

/// What a file's text was made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Basis {
    version: u64,
    /// Of the path that it was renamed from.
    source_version: Option<u64>,
    root: Option<Arc<[u8]>>,
}

#[derive(Clone, Debug, Default)]
struct Tracked {
    before: Option<Content>,
    now: Option<Current>,
    /// Differs for any two states of any two paths.
    version: u64,
    /// Whether nothing is to be shown of it.
    same: bool,
    rendered: Option<(Basis, Arc<FileDiff>)>,
}

impl Tracked {
    fn bytes(&self) -> usize {
        let before = self.before.as_ref().map_or(0, |content| content.data.len());
        let now = self.now.as_ref().map_or(0, |current| current.content.data.len());
        before + now
    }
}

type Paths = BTreeMap<Arc<[u8]>, Tracked>;

/// One file that is to be shown.
#[derive(Debug)]
pub(super) enum Part {
    /// As it was rendered before.
    Rendered(Arc<FileDiff>),
    /// Anew.
    Stale(Box<Shape>, Basis),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    environments: BTreeMap<Arc<str>, Paths>,
    files: usize,
    held_bytes: usize,
    versions: u64,
}

impl Ledger {
    /// Takes changes in, in their order.
    ///
    /// # Errors
    /// When that is more than is kept. Some of them are in it then: it is of no more use.
    pub(super) fn record(&mut self, environment: &str, changes: Vec<Change>) -> Result<(), VoidReason> {
        let environment: Arc<str> = match self.environments.get_key_value(environment) {
            Some((known, _)) => Arc::clone(known),
            None => environment.into(),
        };
        for change in changes {
            self.one(&environment, change);
            if self.files > TRACKED_FILES_MAX {
                return Err(VoidReason::TooManyFiles);
            }
            if self.held_bytes > HELD_MAX_BYTES {
                return Err(VoidReason::TooManyBytes);
            }
        }
        Ok(())
    }

    fn one(&mut self, environment: &Arc<str>, change: Change) {
        match change {
            Change::Add { path, new } => self.put(environment, path, None, new, None),
            Change::Update { path, old, new } => {
                let origin = self.origin(environment, &path);
                self.put(environment, path, Some(old), new, origin);
            }
            Change::Delete { path, old } => self.take(environment, path, old),
            Change::Rename {
                from, to, old, new, ..
            } if from == to => {
                let origin = self.origin(environment, &from);
                self.put(environment, from, Some(old), new, origin);
            }
            Change::Rename {
                from,
                to,
                old,
                new,
                overwritten,
            } => {
                let origin = self.origin(environment, &from);
                self.take(environment, from, old);
                self.put(environment, to, overwritten, new, origin);
            }
        }
    }

    /// Where the file that is at `path` now was at the beginning.
    fn origin(&self, environment: &Arc<str>, path: &[u8]) -> Option<Arc<[u8]>> {
        match self
            .environments
            .get(environment)
            .and_then(|paths| paths.get(path))
        {
            Some(tracked) => tracked.now.as_ref().and_then(|current| current.origin.clone()),
            // What nobody has told of yet is where it was.
            None => Some(path.into()),
        }
    }

    fn put(
        &mut self,
        environment: &Arc<str>,
        path: Vec<u8>,
        old: Option<Content>,
        content: Content,
        origin: Option<Arc<[u8]>>,
    ) {
        self.change(environment, path, old, |tracked| {
            tracked.now = Some(Current { content, origin });
        });
    }

    fn take(&mut self, environment: &Arc<str>, path: Vec<u8>, old: Content) {
        self.change(environment, path, Some(old), |tracked| tracked.now = None);
    }

    /// Changes what is known of a path; `old` counts if nothing was known.
    fn change(
        &mut self,
        environment: &Arc<str>,
        path: Vec<u8>,
        old: Option<Content>,
        change: impl FnOnce(&mut Tracked),
    ) {
        let paths = self.environments.entry(Arc::clone(environment)).or_default();
        if !paths.contains_key(path.as_slice()) {
            self.files += 1;
            self.held_bytes += path.len();
        }
        let tracked = paths.entry(path.into()).or_insert_with(|| Tracked {
            before: old,
            ..Tracked::default()
        });
        // Counted from nothing when it is new.
        let held = if tracked.version == 0 { 0 } else { tracked.bytes() };
        change(tracked);
        self.versions += 1;
        tracked.version = self.versions;
        tracked.same = tracked.before.as_ref() == tracked.now.as_ref().map(|current| &current.content);
        if tracked.same {
            tracked.rendered = None;
        }
        self.held_bytes = self.held_bytes - held + tracked.bytes();
    }

    /// Whether anything of an environment is to be shown.
    pub(super) fn shows(&self, environment: &str) -> bool {
        self.environments
            .get(environment)
            .is_some_and(|paths| paths.values().any(|tracked| !tracked.same))
    }

    /// Everything that is to be shown, in the order of environments and paths. `root` says below which directory an
    /// environment's paths are shown; those of one it has no word for are left out.
    pub(super) fn parts(&self, root: impl Fn(&str) -> Option<Option<Arc<[u8]>>>) -> Vec<Part> {
        let mut parts = Vec::new();
        for (environment, paths) in &self.environments {
            let Some(root) = root(environment) else { continue };
            let moves = moves(paths);
            let sources: BTreeSet<_> = moves.values().collect();
            for (path, tracked) in paths {
                if tracked.same || sources.contains(path) {
                    continue;
                }
                let source = moves.get(path).and_then(|from| paths.get_key_value(from));
                parts.push(part(environment, (path, tracked), source, root.clone()));
            }
        }
        parts
    }

    /// Keeps what was rendered, if it is still true.
    pub(super) fn keep(&mut self, basis: Basis, diff: &Arc<FileDiff>) {
        if let Some(paths) = self.environments.get_mut(&diff.environment)
            && let Some(tracked) = paths.get_mut(&diff.path)
            && tracked.version == basis.version
        {
            tracked.rendered = Some((basis, Arc::clone(diff)));
        }
    }
}

/// Where files that have moved have come from.
fn moves(paths: &Paths) -> BTreeMap<Arc<[u8]>, Arc<[u8]>> {
    paths
        .iter()
        .filter(|(_, tracked)| tracked.before.is_none())
        .filter_map(|(path, tracked)| {
            let from = tracked.now.as_ref()?.origin.as_ref()?;
            let source = paths.get(from)?;
            (source.before.is_some() && source.now.is_none()).then(|| (Arc::clone(path), Arc::clone(from)))
        })
        .collect()
}

fn part(
    environment: &Arc<str>,
    (path, tracked): (&Arc<[u8]>, &Tracked),
    source: Option<(&Arc<[u8]>, &Tracked)>,
    root: Option<Arc<[u8]>>,
) -> Part {
    let basis = Basis {
        version: tracked.version,
        source_version: source.map(|(_, source)| source.version),
        root,
    };
    if let Some((of, diff)) = &tracked.rendered
        && *of == basis
    {
        return Part::Rendered(Arc::clone(diff));
    }
    let shape = Shape {
        environment: Arc::clone(environment),
        path: Arc::clone(path),
        from: source.map(|(from, _)| Arc::clone(from)),
        before: source
            .map_or(&tracked.before, |(_, source)| &source.before)
            .clone(),
        now: tracked.now.as_ref().map(|current| current.content.clone()),
    };
    Part::Stale(Box::new(shape), basis)
}

impl Basis {
    /// Below which directory paths are shown.
    pub(super) fn root(&self) -> Option<&[u8]> {
        self.root.as_deref()
    }
}
