//! What is done with files on this machine. Blocks; knows no actor, no clock and no session.
//!
//! Links are dealt with as each request says: see `place`. Nothing here puts a path into an error.

mod copy;
mod directory;
mod errno;
mod ignored;
mod open;
mod place;
mod read;
mod remove;
mod walk;
mod write;

use std::time::Duration;

use dwell_messages::files::{Canonical, FileReply, FileRequest, Metadata, Watching};
use dwell_messages::{ErrorCode, WireError};
use serde_bytes::ByteBuf;

use super::pool::Span;
use super::watch::place as place_watch;
use errno::failed;
use place::{Place, path};

pub use write::TEMPORARY_PREFIX;

pub(crate) use open::{OpenFile, unknown};

/// How long one page of a walk is worked on before others get their turn.
pub(crate) const WALK_SLICE: Duration = Duration::from_millis(20);

/// How long an operation may take, whatever it is about: some wait for the disk, some go through whole trees.
pub(crate) fn span(request: &FileRequest) -> Span {
    match request {
        FileRequest::Write(write) if write.atomic || write.sync => Span::Long,
        FileRequest::Remove(remove) if remove.recursive => Span::Tree,
        FileRequest::Copy(_) => Span::Tree,
        FileRequest::Walk(_) | FileRequest::WalkOn(_) | FileRequest::Close(_) => Span::Long,
        FileRequest::Metadata(_)
        | FileRequest::Read(_)
        | FileRequest::List(_)
        | FileRequest::CreateDirectory(_)
        | FileRequest::Rename(_)
        | FileRequest::Canonicalize(_)
        | FileRequest::Open(_)
        | FileRequest::ReadBlock(_)
        | FileRequest::Write(_)
        | FileRequest::Remove(_)
        | FileRequest::WriteBlock(_)
        | FileRequest::Watch(_)
        | FileRequest::Await(_) => Span::Short,
    }
}

/// Serves a request. `file` is what its handle names: taken in where it exists, left there where it exists afterwards.
pub(crate) fn serve(request: &FileRequest, file: &mut Option<OpenFile>) -> Result<FileReply, WireError> {
    request
        .check()
        .map_err(|flaw| WireError::new(code_of(flaw), flaw.to_string()))?;
    match request {
        FileRequest::Metadata(ask) => metadata(&ask.path, ask.links).map(FileReply::Metadata),
        FileRequest::Read(ask) => read::read(ask).map(FileReply::Contents),
        FileRequest::Write(ask) => write::write(ask).map(FileReply::Written),
        FileRequest::List(ask) => directory::list(ask).map(FileReply::Listing),
        FileRequest::CreateDirectory(ask) => directory::create(ask).map(FileReply::DirectoryCreated),
        FileRequest::Remove(ask) => remove::remove(ask).map(FileReply::Removed),
        FileRequest::Copy(ask) => copy::copy(ask).map(FileReply::Copied),
        FileRequest::Rename(ask) => directory::rename(ask).map(|()| FileReply::Renamed),
        FileRequest::Canonicalize(ask) => canonicalize(&ask.path).map(FileReply::Canonical),
        FileRequest::Walk(ask) => {
            let mut walk = walk::WalkState::begin(ask)?;
            let page = walk.page(WALK_SLICE);
            *file = (!page.end).then(|| OpenFile::Walk(Box::new(walk)));
            Ok(FileReply::Walked(page))
        }
        FileRequest::Open(ask) => {
            let (opened, reply) = open::open(ask)?;
            *file = Some(opened);
            Ok(FileReply::Opened(reply))
        }
        FileRequest::Watch(ask) => {
            let placed = place_watch(ask);
            let watching = placed.is_some();
            *file = placed.map(|placed| OpenFile::Watch(Box::new(placed)));
            Ok(FileReply::Watching(Watching { watching }))
        }
        FileRequest::WalkOn(_)
        | FileRequest::ReadBlock(_)
        | FileRequest::WriteBlock(_)
        | FileRequest::Close(_)
        | FileRequest::Await(_) => open::serve(request, file),
    }
}

fn code_of(flaw: dwell_messages::files::Flaw) -> ErrorCode {
    use dwell_messages::files::Flaw;
    match flaw {
        Flaw::Path { .. } => ErrorCode::BadPath,
        Flaw::Field { .. } => ErrorCode::BadRequest,
        Flaw::TooLarge { .. } => ErrorCode::TooLarge,
    }
}

fn metadata(bytes: &[u8], links: dwell_messages::files::Links) -> Result<Metadata, WireError> {
    let place = Place::of(bytes, links)?;
    place.metadata()
}

fn canonicalize(bytes: &[u8]) -> Result<Canonical, WireError> {
    let real = std::fs::canonicalize(path(bytes)).map_err(failed("the path could not be followed"))?;
    Ok(Canonical {
        path: ByteBuf::from(std::os::unix::ffi::OsStringExt::into_vec(real.into_os_string())),
    })
}
