//! What is asked about files.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::kinds::MessageKind;

/// What becomes of symbolic links in a path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Links {
    /// All are followed.
    #[default]
    #[serde(rename = "f")]
    Follow,
    /// Those on the way are followed; the last name is what it is, also when it is a link.
    #[serde(rename = "k")]
    Keep,
    /// None is: a link anywhere in the path is a `SymlinkLoop`.
    #[serde(rename = "r")]
    Refuse,
}

/// Names one open file, walk or watch of a session. Chosen by the harness, never 0 and never used twice in a session's owner's
/// time, so that what is done with it can be asked for before it is known to be open.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handle(pub u64);

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum WriteHow {
    /// From its beginning, in place of what was there. It is created where there is none.
    #[default]
    #[serde(rename = "t")]
    Truncate,
    /// Behind what is there. It is created where there is none.
    #[serde(rename = "a")]
    Append,
    /// There must be nothing of this name.
    #[serde(rename = "x")]
    Exclusive,
}

/// Asks for a path's metadata.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GetMetadata {
    /// The path.
    pub path: ByteBuf,
    /// What becomes of links.
    #[serde(default)]
    pub links: Links,
}

/// Reads a part of a regular file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadFile {
    /// The path.
    pub path: ByteBuf,
    /// The first byte wanted.
    #[serde(default)]
    pub offset: u64,
    /// Most bytes wanted; at most `BLOCK_MAX_BYTES` come.
    pub max_bytes: u32,
    /// What becomes of links; `Keep` refuses a link as the last name.
    #[serde(default)]
    pub links: Links,
}

/// Writes a small file in one go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WriteFile {
    /// The path. Its directory must exist.
    pub path: ByteBuf,
    /// What is written; at most `BLOCK_MAX_BYTES`.
    pub data: Bytes,
    /// How.
    #[serde(default)]
    pub how: WriteHow,
    /// Permission bits of a file that is created, less the executor's umask (0666). An atomic replacement has those of
    /// what it replaces where this is not said, and exactly these where it is.
    #[serde(default)]
    pub permissions: Option<u32>,
    /// Whether the name leads to the old file or to the whole new one, and to nothing else, whatever happens: a new
    /// file is written in the same directory, synced, and given the name. Not with `Append`.
    #[serde(default)]
    pub atomic: bool,
    /// Whether it has to be on the disk before this is answered. An atomic one always is.
    #[serde(default)]
    pub sync: bool,
    /// What becomes of links; `Keep` refuses a link as the last name. Where one is followed, what it leads to is
    /// written or replaced, and the link stays.
    #[serde(default)]
    pub links: Links,
}

/// Asks for a page of a directory, in the order of the names' bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct List {
    /// The directory. Links are followed.
    pub path: ByteBuf,
    /// The last name of the page before; empty: the first page.
    #[serde(default)]
    pub after: ByteBuf,
    /// Most entries wanted; at most `PAGE_MAX_ENTRIES` come, of at most `PAGE_MAX_BYTES`.
    pub max_entries: u32,
    /// Whether an entry that is a link has the kind of what it leads to. One that leads nowhere stays a link.
    #[serde(default)]
    pub resolve: bool,
}

/// Creates a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateDirectory {
    /// The path.
    pub path: ByteBuf,
    /// Whether those above it are created too; then one that exists already is no error.
    #[serde(default)]
    pub parents: bool,
    /// Permission bits, less the executor's umask (0777).
    #[serde(default)]
    pub permissions: Option<u32>,
    /// What becomes of links on the way. With `parents` and `Follow`, a link to a directory counts as one that exists.
    #[serde(default)]
    pub links: Links,
}

/// Removes a name, and what lies below it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Remove {
    /// The path. A link is removed itself, never what it leads to.
    pub path: ByteBuf,
    /// Whether a directory goes with everything in it; else it has to be empty. Links in it are not followed.
    #[serde(default)]
    pub recursive: bool,
    /// Whether it is no error when there is nothing of this name.
    #[serde(default)]
    pub force: bool,
    /// What becomes of links on the way.
    #[serde(default)]
    pub links: Links,
}

/// Copies a file, a link, or a directory. Never what is none of these.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Copy {
    /// From here. `links` says what becomes of a link, here and below: `Follow` copies what it leads to, `Keep` copies
    /// the link, and `Refuse` refuses it.
    pub from: ByteBuf,
    /// To here, which is the name itself and not a directory to copy into. Its directory must exist.
    pub to: ByteBuf,
    /// Whether a directory is copied, with everything in it, into one that may exist.
    #[serde(default)]
    pub recursive: bool,
    /// Whether files that exist are written over.
    #[serde(default)]
    pub overwrite: bool,
    /// See `from`.
    #[serde(default)]
    pub links: Links,
}

/// Gives a file or directory another name on the same file system. Links are renamed themselves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rename {
    /// Its name.
    pub from: ByteBuf,
    /// Its next name.
    pub to: ByteBuf,
    /// Whether what has that name goes.
    #[serde(default)]
    pub overwrite: bool,
}

/// Asks where a path leads, without links, `.` and `..`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Canonicalize {
    /// The path.
    pub path: ByteBuf,
}

/// Begins a walk: breadth first, the names of each directory in the order of their bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Walk {
    /// Names the walk, for its other pages. It is closed by itself with its last page.
    pub handle: Handle,
    /// Where it begins. A link is followed.
    pub path: ByteBuf,
    /// How many levels it goes down: with 0 the names in `path` are all. At most `WALK_MAX_DEPTH`.
    pub max_depth: u32,
    /// How many directories it reads, the first included. At most `WALK_MAX_DIRECTORIES`.
    pub max_directories: u32,
    /// How many entries it gives in all. At most `WALK_MAX_ENTRIES`.
    pub max_entries: u32,
    /// Whether links to directories are entered. Each directory is entered once, however many names lead to it.
    #[serde(default)]
    pub follow: bool,
    /// Whether directories whose names begin with a dot are named and not entered.
    #[serde(default)]
    pub prune_hidden: bool,
    /// Whether what ignore files exclude is passed over: `.ignore`, and in a repository `.gitignore` and
    /// `.git/info/exclude`, those above `path` too; and the directory `.git` itself.
    #[serde(default)]
    pub ignore_files: bool,
}

/// Asks for the next page of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalkOn {
    /// The walk.
    pub handle: Handle,
}

/// What an open file is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Access {
    /// Reading.
    #[serde(rename = "r")]
    Read,
    /// Writing.
    #[serde(rename = "w")]
    Write(WriteHow),
}

/// Opens a regular file, to be read or written in blocks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Open {
    /// Names it from now on.
    pub handle: Handle,
    /// The path.
    pub path: ByteBuf,
    /// What for.
    pub access: Access,
    /// As `WriteFile`'s.
    #[serde(default)]
    pub permissions: Option<u32>,
    /// As `WriteFile`'s: the name leads to the new file once it is closed, and never when it is not.
    #[serde(default)]
    pub atomic: bool,
    /// As `WriteFile`'s, for `Close`.
    #[serde(default)]
    pub sync: bool,
    /// As `ReadFile`'s and `WriteFile`'s.
    #[serde(default)]
    pub links: Links,
}

/// Reads a block of an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadBlock {
    /// The file.
    pub handle: Handle,
    /// The first byte wanted.
    pub offset: u64,
    /// Most bytes wanted, 1 at least; at most `BLOCK_MAX_BYTES` come.
    pub max_bytes: u32,
}

/// Writes a block of an open file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WriteBlock {
    /// The file.
    pub handle: Handle,
    /// Where it goes; of a file that is appended to, behind the end whatever is said here.
    pub offset: u64,
    /// What; at most `BLOCK_MAX_BYTES`.
    pub data: Bytes,
}

/// Closes an open file, or ends a walk or a watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Close {
    /// Which.
    pub handle: Handle,
    /// Whether what was written is given up: an atomic file never gets its name.
    #[serde(default)]
    pub discard: bool,
}

/// Watches for paths that are missing, once. No path of it may hold a link, `.` or `..`: a link can be turned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Watch {
    /// Names the watch. Where it is answered that nothing is watched for, it names nothing.
    pub handle: Handle,
    /// The paths, 1 to `WATCH_MAX_PATHS`. One that appears is seen, and so is the first directory on its way that does.
    pub missing: Vec<ByteBuf>,
    /// A path that is there: what it is written to, or goes, or becomes another, is seen too.
    #[serde(default)]
    pub present: Option<ByteBuf>,
}

/// Waits until a watch has seen something. It may have been something else: whoever asked looks again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Await {
    /// The watch.
    pub handle: Handle,
}

/// What can be asked about files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileRequest {
    /// What a path leads to.
    Metadata(GetMetadata),
    /// A part of a file.
    Read(ReadFile),
    /// A small file, written.
    Write(WriteFile),
    /// A page of a directory.
    List(List),
    /// A directory, created.
    CreateDirectory(CreateDirectory),
    /// A name, removed.
    Remove(Remove),
    /// A copy.
    Copy(Copy),
    /// Another name.
    Rename(Rename),
    /// Where a path leads.
    Canonicalize(Canonicalize),
    /// The first page of a walk.
    Walk(Walk),
    /// Its next page.
    WalkOn(WalkOn),
    /// A file, opened.
    Open(Open),
    /// A block of it, read.
    ReadBlock(ReadBlock),
    /// A block of it, written.
    WriteBlock(WriteBlock),
    /// It is closed.
    Close(Close),
    /// Paths, watched for.
    Watch(Watch),
    /// What a watch sees.
    Await(Await),
}

impl FileRequest {
    /// The method's name, of low cardinality, for spans.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Metadata(_) => "File/Metadata",
            Self::Read(_) => "File/Read",
            Self::Write(_) => "File/Write",
            Self::List(_) => "File/List",
            Self::CreateDirectory(_) => "File/CreateDirectory",
            Self::Remove(_) => "File/Remove",
            Self::Copy(_) => "File/Copy",
            Self::Rename(_) => "File/Rename",
            Self::Canonicalize(_) => "File/Canonicalize",
            Self::Walk(_) => "File/Walk",
            Self::WalkOn(_) => "File/WalkOn",
            Self::Open(_) => "File/Open",
            Self::ReadBlock(_) => "File/ReadBlock",
            Self::WriteBlock(_) => "File/WriteBlock",
            Self::Close(_) => "File/Close",
            Self::Watch(_) => "File/Watch",
            Self::Await(_) => "File/Await",
        }
    }

    /// Its kind on the wire.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Metadata(_) => MessageKind::FileMetadata,
            Self::Read(_) => MessageKind::FileRead,
            Self::Write(_) => MessageKind::FileWrite,
            Self::List(_) => MessageKind::FileList,
            Self::CreateDirectory(_) => MessageKind::FileCreateDirectory,
            Self::Remove(_) => MessageKind::FileRemove,
            Self::Copy(_) => MessageKind::FileCopy,
            Self::Rename(_) => MessageKind::FileRename,
            Self::Canonicalize(_) => MessageKind::FileCanonicalize,
            Self::Walk(_) => MessageKind::FileWalk,
            Self::WalkOn(_) => MessageKind::FileWalkOn,
            Self::Open(_) => MessageKind::FileOpen,
            Self::ReadBlock(_) => MessageKind::FileReadBlock,
            Self::WriteBlock(_) => MessageKind::FileWriteBlock,
            Self::Close(_) => MessageKind::FileClose,
            Self::Watch(_) => MessageKind::FileWatch,
            Self::Await(_) => MessageKind::FileAwait,
        }
    }

    /// The open file, walk or watch that it is about, if it is about one.
    pub fn handle(&self) -> Option<Handle> {
        match self {
            Self::Walk(walk) => Some(walk.handle),
            Self::WalkOn(on) => Some(on.handle),
            Self::Open(open) => Some(open.handle),
            Self::ReadBlock(read) => Some(read.handle),
            Self::WriteBlock(write) => Some(write.handle),
            Self::Close(close) => Some(close.handle),
            Self::Watch(watch) => Some(watch.handle),
            Self::Await(on) => Some(on.handle),
            Self::Metadata(_)
            | Self::Read(_)
            | Self::Write(_)
            | Self::List(_)
            | Self::CreateDirectory(_)
            | Self::Remove(_)
            | Self::Copy(_)
            | Self::Rename(_)
            | Self::Canonicalize(_) => None,
        }
    }

    /// Whether it changes nothing: neither a file nor what is open.
    pub fn is_harmless(&self) -> bool {
        match self {
            Self::Metadata(_)
            | Self::Read(_)
            | Self::List(_)
            | Self::Canonicalize(_)
            | Self::ReadBlock(_)
            | Self::Await(_) => true,
            Self::Write(_)
            | Self::CreateDirectory(_)
            | Self::Remove(_)
            | Self::Copy(_)
            | Self::Rename(_)
            | Self::Walk(_)
            | Self::WalkOn(_)
            | Self::Open(_)
            | Self::WriteBlock(_)
            | Self::Close(_)
            | Self::Watch(_) => false,
        }
    }

    /// Bytes of file content that it carries.
    pub fn content_bytes(&self) -> usize {
        match self {
            Self::Write(write) => write.data.len(),
            Self::WriteBlock(write) => write.data.len(),
            Self::Metadata(_)
            | Self::Read(_)
            | Self::List(_)
            | Self::CreateDirectory(_)
            | Self::Remove(_)
            | Self::Copy(_)
            | Self::Rename(_)
            | Self::Canonicalize(_)
            | Self::Walk(_)
            | Self::WalkOn(_)
            | Self::Open(_)
            | Self::ReadBlock(_)
            | Self::Close(_)
            | Self::Watch(_)
            | Self::Await(_) => 0,
        }
    }
}
