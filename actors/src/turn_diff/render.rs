//! One file's part of a diff.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::change::Content;
use super::hunks::{Hunks, compare};
use super::names::{quoted, relative};

/// A file is compared line by line if it has no more bytes than this, before and after the change together.
pub const COMPARED_MAX_BYTES: usize = 8 * 1024 * 1024;
/// A byte 0 among so many at the beginning makes a file a binary one, as in git.
const BINARY_LOOK_BYTES: usize = 8_000;
/// The name of a side that is not there.
const NOTHING: &[u8] = b"/dev/null";

/// What became of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FileChange {
    /// It was not there at the turn's beginning.
    Added,
    /// It is there no more.
    Deleted,
    /// It has other content, another mode, or both.
    Modified,
    /// It has another name, and maybe more than that.
    Renamed,
}

/// How far a file's part of a diff says what was changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Precision {
    /// Line by line.
    Exact,
    /// Right, and longer than it need be: the time for one file was over.
    Coarse,
    /// That it changed: it is no text.
    Binary,
    /// That it changed: it has more than [`COMPARED_MAX_BYTES`].
    TooLarge,
}

/// One file's part of a diff.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileDiff {
    /// Which environment's.
    pub environment: Arc<str>,
    /// The file's path in its environment; of a deleted one, where it was.
    pub path: Arc<[u8]>,
    /// Where a renamed one was.
    pub from: Option<Arc<[u8]>>,
    /// What became of it.
    pub change: FileChange,
    /// How far the text says what.
    pub precision: Precision,
    /// Lines that are new, where the text has them.
    pub added: u64,
    /// Lines that are gone.
    pub removed: u64,
    /// As `git diff` writes it: header lines, then hunks. Paths are relative to the repository.
    pub text: Bytes,
}

/// What is to be rendered: a file at the turn's beginning and now.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) environment: Arc<str>,
    pub(super) path: Arc<[u8]>,
    /// Set for a rename.
    pub(super) from: Option<Arc<[u8]>>,
    pub(super) before: Option<Content>,
    pub(super) now: Option<Content>,
}

/// Renders one file, comparing lines until `deadline`.
pub(super) fn render(shape: &Shape, root: Option<&[u8]>, deadline: Instant) -> FileDiff {
    let new = relative(root, &shape.path);
    let old = shape.from.as_deref().map_or(new, |from| relative(root, from));
    let names = Names::new(old, new);
    let mut text = Text {
        out: Vec::new(),
        precision: Precision::Exact,
        added: 0,
        removed: 0,
    };
    match (&shape.before, &shape.now) {
        (Some(before), Some(now)) if before.mode.is_alike(now.mode) => {
            text.changed(&names, (before, now), shape.from.is_some(), deadline);
        }
        // A link that becomes a file, or the other way round, is two changes to git.
        (before, now) => {
            if let Some(before) = before {
                text.one_sided(&names, before, Side::Deleted, deadline);
            }
            if let Some(now) = now {
                text.one_sided(&names, now, Side::Added, deadline);
            }
        }
    }
    FileDiff {
        environment: Arc::clone(&shape.environment),
        path: Arc::clone(&shape.path),
        from: shape.from.clone(),
        change: match (&shape.before, &shape.now) {
            (_, Some(_)) if shape.from.is_some() => FileChange::Renamed,
            (Some(_), Some(_)) => FileChange::Modified,
            (None, _) => FileChange::Added,
            (Some(_), None) => FileChange::Deleted,
        },
        precision: text.precision,
        added: text.added,
        removed: text.removed,
        text: text.out.into(),
    }
}

/// The names of a file's two sides, quoted.
struct Names {
    old: Vec<u8>,
    new: Vec<u8>,
    old_with_prefix: Vec<u8>,
    new_with_prefix: Vec<u8>,
}

impl Names {
    fn new(old: &[u8], new: &[u8]) -> Self {
        Self {
            old: quoted(b"", old),
            new: quoted(b"", new),
            old_with_prefix: quoted(b"a/", old),
            new_with_prefix: quoted(b"b/", new),
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Added,
    Deleted,
}

struct Text {
    out: Vec<u8>,
    precision: Precision,
    added: u64,
    removed: u64,
}

/// What is known of two sides before their header is written.
enum Body {
    Same,
    Lines(Hunks),
    Differ(Precision, String),
}

fn body(old: &[u8], new: &[u8], deadline: Instant) -> Body {
    if old == new {
        Body::Same
    } else if is_binary(old) || is_binary(new) {
        Body::Differ(Precision::Binary, String::new())
    } else if old.len() + new.len() > COMPARED_MAX_BYTES {
        let sizes = format!(
            ": {} and {} bytes are too many to be compared",
            old.len(),
            new.len()
        );
        Body::Differ(Precision::TooLarge, sizes)
    } else {
        Body::Lines(compare(old, new, deadline))
    }
}

fn is_binary(content: &[u8]) -> bool {
    content[..content.len().min(BINARY_LOOK_BYTES)].contains(&0)
}

impl Text {
    fn line(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
        self.out.push(b'\n');
    }

    fn begin(&mut self, names: &Names) {
        self.line(&[
            b"diff --git ",
            &names.old_with_prefix,
            b" ",
            &names.new_with_prefix,
        ]);
    }

    fn changed(
        &mut self,
        names: &Names,
        (before, now): (&Content, &Content),
        renamed: bool,
        deadline: Instant,
    ) {
        let body = body(&before.data, &now.data, deadline);
        self.begin(names);
        if before.mode != now.mode {
            self.line(&[b"old mode ", before.mode.octal().as_bytes()]);
            self.line(&[b"new mode ", now.mode.octal().as_bytes()]);
        }
        if renamed {
            if let Some(percent) = similarity(&body, before.data.len().max(now.data.len())) {
                self.line(&[b"similarity index ", format!("{percent}%").as_bytes()]);
            }
            self.line(&[b"rename from ", &names.old]);
            self.line(&[b"rename to ", &names.new]);
        }
        self.body(body, &names.old_with_prefix, &names.new_with_prefix);
    }

    fn one_sided(&mut self, names: &Names, content: &Content, side: Side, deadline: Instant) {
        self.begin(names);
        match side {
            Side::Added => {
                self.line(&[b"new file mode ", content.mode.octal().as_bytes()]);
                self.body(
                    body(b"", &content.data, deadline),
                    NOTHING,
                    &names.new_with_prefix,
                );
            }
            Side::Deleted => {
                self.line(&[b"deleted file mode ", content.mode.octal().as_bytes()]);
                self.body(
                    body(&content.data, b"", deadline),
                    &names.old_with_prefix,
                    NOTHING,
                );
            }
        }
    }

    fn body(&mut self, body: Body, old: &[u8], new: &[u8]) {
        match body {
            Body::Same => {}
            Body::Lines(hunks) => {
                self.line(&[b"--- ", old, end_of(old)]);
                self.line(&[b"+++ ", new, end_of(new)]);
                self.out.extend_from_slice(&hunks.text);
                self.added += hunks.added;
                self.removed += hunks.removed;
                if hunks.coarse {
                    self.precision = Precision::Coarse;
                }
            }
            Body::Differ(precision, why) => {
                let what: &[u8] = match precision {
                    Precision::Binary => b"Binary files ",
                    Precision::Exact | Precision::Coarse | Precision::TooLarge => b"Files ",
                };
                self.line(&[what, old, b" and ", new, b" differ", why.as_bytes()]);
                self.precision = precision;
            }
        }
    }
}

/// Whoever reads a patch takes a name up to a tab: without one a name with a space would end there.
fn end_of(name: &[u8]) -> &'static [u8] {
    if name.contains(&b' ') { b"\t" } else { b"" }
}

/// How much of a renamed file stayed, in percent; never 100 unless all of it did.
fn similarity(body: &Body, longer: usize) -> Option<usize> {
    match body {
        Body::Same => Some(100),
        Body::Lines(hunks) => Some((hunks.kept_bytes * 100 / longer.max(1)).min(99)),
        Body::Differ(..) => None,
    }
}
