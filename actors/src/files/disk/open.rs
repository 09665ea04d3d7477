//! Files that stay open, and walks that go on.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use dwell_messages::files::{
    Access, BLOCK_MAX_BYTES, Block, BlockWritten, Closed, FileReply, FileRequest, Open, Opened,
};
use dwell_messages::{ErrorCode, WireError};
use rustix::fs::{OFlags, fstat};

use super::WALK_SLICE;
use super::errno::failed;
use super::place::{Place, metadata_of};
use super::read::part;
use super::walk::WalkState;
use super::write::{Plan, WriteHandle};
use crate::files::watch::Placed;

/// What a handle names. Dropping it closes it: what was to replace a file is gone then.
pub(crate) enum OpenFile {
    /// A file that is read. Whatever becomes of its name, it is the same file.
    Read(OwnedFd),
    /// A file that is written.
    Write(Box<WriteHandle>),
    /// A walk that has more to give.
    Walk(Box<WalkState>),
    /// A watch. Whoever waits for it does so elsewhere: nothing here waits.
    Watch(Box<Placed>),
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read(_) => "Read",
            Self::Write(_) => "Write",
            Self::Walk(_) => "Walk",
            Self::Watch(_) => "Watch",
        })
    }
}

pub(super) fn open(ask: &Open) -> Result<(OpenFile, Opened), WireError> {
    match ask.access {
        Access::Read => {
            let (file, stat) = Place::of(&ask.path, ask.links)?.open_regular(OFlags::RDONLY)?;
            let metadata = metadata_of(&stat);
            Ok((OpenFile::Read(file), Opened { metadata }))
        }
        Access::Write(how) => {
            let handle = WriteHandle::open(Plan {
                path: &ask.path,
                how,
                permissions: ask.permissions,
                atomic: ask.atomic,
                sync: ask.sync,
                links: ask.links,
            })?;
            let metadata = metadata_of(&handle.stat()?);
            Ok((OpenFile::Write(Box::new(handle)), Opened { metadata }))
        }
    }
}

/// Serves what is about a handle. What fails leaves it open, except for its closing.
pub(super) fn serve(request: &FileRequest, file: &mut Option<OpenFile>) -> Result<FileReply, WireError> {
    let Some(open) = file else {
        return Err(unknown());
    };
    match (request, open) {
        (FileRequest::WalkOn(_), OpenFile::Walk(walk)) => {
            let page = walk.page(WALK_SLICE);
            if page.end {
                *file = None;
            }
            Ok(FileReply::WalkedOn(page))
        }
        (FileRequest::ReadBlock(ask), OpenFile::Read(open)) => {
            let size =
                metadata_of(&fstat(open.as_fd()).map_err(failed("the file could not be looked at"))?).size;
            let most = usize::try_from(ask.max_bytes)
                .unwrap_or(usize::MAX)
                .min(BLOCK_MAX_BYTES);
            let (data, end) = part(open.as_fd(), ask.offset, most, size)?;
            Ok(FileReply::Block(Block { data, end }))
        }
        (FileRequest::WriteBlock(ask), OpenFile::Write(open)) => {
            let offset = open.write(ask.offset, &ask.data)?;
            Ok(FileReply::BlockWritten(BlockWritten { offset }))
        }
        (FileRequest::Close(ask), _) => close(file.take(), ask.discard),
        (
            FileRequest::WalkOn(_)
            | FileRequest::ReadBlock(_)
            | FileRequest::WriteBlock(_)
            | FileRequest::Await(_),
            _,
        ) => Err(WireError::new(
            ErrorCode::BadRequest,
            "the handle was not opened for this",
        )),
        (
            FileRequest::Metadata(_)
            | FileRequest::Read(_)
            | FileRequest::Write(_)
            | FileRequest::List(_)
            | FileRequest::CreateDirectory(_)
            | FileRequest::Remove(_)
            | FileRequest::Copy(_)
            | FileRequest::Rename(_)
            | FileRequest::Canonicalize(_)
            | FileRequest::Walk(_)
            | FileRequest::Open(_)
            | FileRequest::Watch(_),
            _,
        ) => Err(WireError::new(
            ErrorCode::BadRequest,
            "the request is about no handle",
        )),
    }
}

fn close(file: Option<OpenFile>, discard: bool) -> Result<FileReply, WireError> {
    let stat = match file {
        Some(OpenFile::Read(file)) => Some(fstat(&file).map_err(failed("the file could not be looked at"))?),
        Some(OpenFile::Write(file)) if !discard => Some(file.close()?),
        Some(OpenFile::Write(_) | OpenFile::Walk(_) | OpenFile::Watch(_)) => None,
        None => return Err(unknown()),
    };
    Ok(FileReply::Closed(Closed {
        metadata: stat.as_ref().map(metadata_of),
    }))
}

/// There is nothing of this handle.
pub(crate) fn unknown() -> WireError {
    WireError::new(ErrorCode::UnknownHandle, "nothing is open under this handle")
}
