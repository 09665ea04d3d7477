//! What is answered about files.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{DirectoryEntry, FileKind, Metadata};
use crate::error::ErrorCode;
use crate::kinds::MessageKind;

/// A part of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contents {
    /// The bytes, from the offset that was asked for.
    pub data: Bytes,
    /// Whether the file ends behind them.
    pub end: bool,
    /// The file that they were read from. Two parts with another device, inode, size or time are not of one file.
    pub metadata: Metadata,
}

/// A file was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Written {
    /// What it is now.
    pub metadata: Metadata,
}

/// A page of a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// What lies in it.
    pub entries: Vec<DirectoryEntry>,
    /// Whether these are the last.
    pub end: bool,
}

/// A directory is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirectoryCreated {
    /// Whether it was not before.
    pub created: bool,
}

/// Names were removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removed {
    /// How many, those below included.
    pub entries: u64,
}

/// Something was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Copied {
    /// Files, links and directories.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// Where a path leads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Canonical {
    /// The same place, without links.
    pub path: ByteBuf,
}

/// Something that a walk found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalkEntry {
    /// Its path, from where the walk began: never absolute, never empty.
    #[serde(rename = "p")]
    pub path: ByteBuf,
    /// What it is. Of a link that is followed, what it leads to.
    #[serde(rename = "k")]
    pub kind: FileKind,
    /// Whether the name is a link, whatever it leads to.
    #[serde(rename = "l", default, skip_serializing_if = "is_false")]
    pub link: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Where a walk could not go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalkError {
    /// The directory, as an entry's path; empty: where the walk began.
    #[serde(rename = "p")]
    pub path: ByteBuf,
    /// Why.
    #[serde(rename = "c")]
    pub code: ErrorCode,
    /// The system's number of it.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
}

/// A page of a walk. It may hold less than it could, also nothing: a walk is interrupted so that others get their turn.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WalkPage {
    /// What was found.
    pub entries: Vec<WalkEntry>,
    /// Where it could not go.
    #[serde(default)]
    pub errors: Vec<WalkError>,
    /// Whether this is the last page; the walk is closed.
    pub end: bool,
    /// Whether there is more than a bound of the walk lets through: its entries or its directories. Depth is no such
    /// bound.
    #[serde(default)]
    pub truncated: bool,
}

/// A file is open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Opened {
    /// What it is. Of an atomic one, the new file.
    pub metadata: Metadata,
}

/// A block of an open file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Block {
    /// The bytes.
    pub data: Bytes,
    /// Whether the file ends behind them.
    pub end: bool,
}

/// A block was written, whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BlockWritten {
    /// The offset behind it.
    pub offset: u64,
}

/// A file is closed, or a walk ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Closed {
    /// What the file is now; of a file that was read: whether it is what it was when it was opened says whether the
    /// blocks are of one file. `None`: it was a walk, or was given up.
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

/// Whether paths are watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Watching {
    /// Whether they are. If not there is no watch: one of them is there, or nobody would be told when it appears.
    pub watching: bool,
}

/// What is answered about files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileReply {
    /// To `Metadata`.
    Metadata(Metadata),
    /// To `Read`.
    Contents(Contents),
    /// To `Write`.
    Written(Written),
    /// To `List`.
    Listing(Listing),
    /// To `CreateDirectory`.
    DirectoryCreated(DirectoryCreated),
    /// To `Remove`.
    Removed(Removed),
    /// To `Copy`.
    Copied(Copied),
    /// To `Rename`.
    Renamed,
    /// To `Canonicalize`.
    Canonical(Canonical),
    /// To `Walk`.
    Walked(WalkPage),
    /// To `WalkOn`.
    WalkedOn(WalkPage),
    /// To `Open`.
    Opened(Opened),
    /// To `ReadBlock`.
    Block(Block),
    /// To `WriteBlock`.
    BlockWritten(BlockWritten),
    /// To `Close`.
    Closed(Closed),
    /// To `Watch`.
    Watching(Watching),
    /// To `Await`: look again.
    Seen,
}

impl FileReply {
    /// Its kind on the wire.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Metadata(_) => MessageKind::FileMetadataReply,
            Self::Contents(_) => MessageKind::FileContents,
            Self::Written(_) => MessageKind::FileWritten,
            Self::Listing(_) => MessageKind::FileListing,
            Self::DirectoryCreated(_) => MessageKind::FileDirectoryCreated,
            Self::Removed(_) => MessageKind::FileRemoved,
            Self::Copied(_) => MessageKind::FileCopied,
            Self::Renamed => MessageKind::FileRenamed,
            Self::Canonical(_) => MessageKind::FileCanonical,
            Self::Walked(_) => MessageKind::FileWalked,
            Self::WalkedOn(_) => MessageKind::FileWalkedOn,
            Self::Opened(_) => MessageKind::FileOpened,
            Self::Block(_) => MessageKind::FileBlock,
            Self::BlockWritten(_) => MessageKind::FileBlockWritten,
            Self::Closed(_) => MessageKind::FileClosed,
            Self::Watching(_) => MessageKind::FileWatching,
            Self::Seen => MessageKind::FileSeen,
        }
    }

    /// A first guess at its encoded size in bytes.
    pub fn size_hint(&self) -> usize {
        match self {
            Self::Contents(contents) => contents.data.len() + 256,
            Self::Block(block) => block.data.len() + 128,
            Self::Listing(listing) => 64 * listing.entries.len() + 128,
            Self::Walked(page) | Self::WalkedOn(page) => 96 * page.entries.len() + 128,
            Self::Metadata(_)
            | Self::Written(_)
            | Self::DirectoryCreated(_)
            | Self::Removed(_)
            | Self::Copied(_)
            | Self::Renamed
            | Self::Canonical(_)
            | Self::Opened(_)
            | Self::BlockWritten(_)
            | Self::Closed(_)
            | Self::Watching(_)
            | Self::Seen => 384,
        }
    }
}
