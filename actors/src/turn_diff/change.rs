//! What a turn's diff is told.

use bytes::Bytes;

/// What a file is, as far as git keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum FileMode {
    /// A regular file.
    #[default]
    Regular,
    /// A regular file that its owner may execute.
    Executable,
    /// A symbolic link; its content is where it leads.
    Symlink,
}

impl FileMode {
    /// Of a regular file with these permission bits.
    pub fn of_permissions(mode: u32) -> Self {
        if mode & 0o100 == 0 {
            Self::Regular
        } else {
            Self::Executable
        }
    }

    /// As git writes it.
    pub fn octal(self) -> &'static str {
        match self {
            Self::Regular => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
        }
    }

    /// Whether a file of one mode can become one of the other by changing its bits.
    pub(super) fn is_alike(self, other: Self) -> bool {
        (self == Self::Symlink) == (other == Self::Symlink)
    }
}

/// A file's content and mode at one instant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Content {
    /// What it is.
    pub mode: FileMode,
    /// Its bytes, all of them.
    pub data: Bytes,
}

impl Content {
    /// Of any file.
    pub fn new(mode: FileMode, data: impl Into<Bytes>) -> Self {
        Self {
            mode,
            data: data.into(),
        }
    }

    /// Of a regular file.
    pub fn text(data: impl Into<Bytes>) -> Self {
        Self::new(FileMode::Regular, data)
    }
}

/// One file's change. Paths are absolute bytes in the environment's own flavour, as for [`crate::files::FileSystem`]; one
/// that is not absolute is shown as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// There was no such file before.
    Add {
        /// Where it is.
        path: Vec<u8>,
        /// What it holds.
        new: Content,
    },
    /// The file has other content or another mode.
    Update {
        /// Where it is.
        path: Vec<u8>,
        /// What it held.
        old: Content,
        /// What it holds.
        new: Content,
    },
    /// The file is gone.
    Delete {
        /// Where it was.
        path: Vec<u8>,
        /// What it held.
        old: Content,
    },
    /// The file has another name, and maybe other content.
    Rename {
        /// Where it was.
        from: Vec<u8>,
        /// Where it is.
        to: Vec<u8>,
        /// What it held.
        old: Content,
        /// What it holds.
        new: Content,
        /// What was at its new place before, if anything.
        overwritten: Option<Content>,
    },
}

impl Change {
    /// A file that was not there before.
    pub fn add(path: impl Into<Vec<u8>>, new: Content) -> Self {
        let path = path.into();
        Self::Add { path, new }
    }

    /// A file with other content or another mode.
    pub fn update(path: impl Into<Vec<u8>>, old: Content, new: Content) -> Self {
        let path = path.into();
        Self::Update { path, old, new }
    }

    /// A file that is gone.
    pub fn delete(path: impl Into<Vec<u8>>, old: Content) -> Self {
        let path = path.into();
        Self::Delete { path, old }
    }

    /// A file that has another name, where nothing was before.
    pub fn rename(from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>, old: Content, new: Content) -> Self {
        Self::Rename {
            from: from.into(),
            to: to.into(),
            old,
            new,
            overwritten: None,
        }
    }
}

/// What one step of a turn did to files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delta {
    /// It is known in full.
    Exact {
        /// Of which environment.
        environment: String,
        /// In the order in which they were made. None changes nothing, and looks nothing up.
        changes: Vec<Change>,
    },
    /// Files were changed, and it is not known which, or from what: no diff of this turn would be true any more.
    Inexact,
}

impl Delta {
    /// A step that is known in full.
    pub fn exact(environment: impl Into<String>, changes: impl IntoIterator<Item = Change>) -> Self {
        Self::Exact {
            environment: environment.into(),
            changes: changes.into_iter().collect(),
        }
    }
}
