//! Files: what there is in an environment, and what can be done with it. Paths are bytes, absolute, without NUL.
//!
//! `request` is what is asked, `reply` what is answered, `check` what no request may hold.

mod check;
mod reply;
mod request;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

pub use check::Flaw;
pub use reply::{
    Block, BlockWritten, Canonical, Closed, Contents, Copied, DirectoryCreated, FileReply, Listing, Opened,
    Removed, WalkEntry, WalkError, WalkPage, Watching, Written,
};
pub use request::{
    Access, Await, Canonicalize, Close, Copy, CreateDirectory, FileRequest, GetMetadata, Handle, Links, List,
    Open, ReadBlock, ReadFile, Remove, Rename, Walk, WalkOn, Watch, WriteBlock, WriteFile, WriteHow,
};

/// Most bytes of a path, as Linux has it.
pub const PATH_MAX_BYTES: usize = 4_096;
/// Most bytes of a file that one answer carries: one block of an open file, and the whole of a file that is read at once.
pub const BLOCK_MAX_BYTES: usize = 256 * 1024;
/// Most entries of one page of a directory or a walk.
pub const PAGE_MAX_ENTRIES: usize = 4_096;
/// Most bytes of names, or of paths, in one page.
pub const PAGE_MAX_BYTES: usize = BLOCK_MAX_BYTES;
/// How many levels a walk goes down at the most.
pub const WALK_MAX_DEPTH: u32 = 256;
/// Directories that one walk reads at the most.
pub const WALK_MAX_DIRECTORIES: u32 = 100_000;
/// Entries that one walk gives at the most.
pub const WALK_MAX_ENTRIES: u32 = 1_000_000;
/// Missing paths of one watch at the most.
pub const WATCH_MAX_PATHS: usize = 64;

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file.
    #[serde(rename = "f")]
    File,
    /// A directory.
    #[serde(rename = "d")]
    Directory,
    /// A symbolic link, where links are not followed.
    #[serde(rename = "l")]
    Symlink,
    /// A device, a socket or a named pipe.
    #[serde(rename = "o")]
    Other,
}

/// What is known of a file without reading it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// Its size in bytes.
    pub size: u64,
    /// Its permission bits, of which the lowest twelve are used.
    pub mode: u32,
    /// When it was last written, in Unix nanoseconds by the executor's clock; negative before 1970.
    pub modified_unix_ns: i64,
    /// The device it lies on, and its number there: the same for two names of one file.
    pub device: u64,
    /// Its number on its device.
    pub inode: u64,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// The name, without its directory.
    pub name: ByteBuf,
    /// What it is; links are not followed.
    pub kind: FileKind,
}
