//! Whoever serves requests about files, and what takes several of them.

use std::sync::Arc;

use bytes::Bytes;
use dwell_messages::files::{
    BLOCK_MAX_BYTES, Contents, DirectoryEntry, FileReply, FileRequest, GetMetadata, Handle, Links, List,
    Metadata, PAGE_MAX_ENTRIES, ReadFile,
};
use dwell_messages::{ErrorCode, WireError};
use serde_bytes::ByteBuf;

use super::blocks::FileReader;
use super::system::{FileAnswer, Front};

/// Whoever serves requests about files.
pub(super) trait Serve: Send + Sync {
    /// Serves one. It is under way once the answer was polled.
    fn ask(&self, request: FileRequest) -> FileAnswer<'static, FileReply>;

    /// A handle that was not used before.
    fn handle(&self) -> Handle;

    /// Closes what nobody wants any more, without waiting for it.
    fn close(&self, handle: Handle, discard: bool);
}

/// The same for several who ask.
pub(super) type Server = Arc<dyn Serve>;

/// An answer of another kind than was asked for.
pub(super) fn strange() -> WireError {
    WireError::new(
        ErrorCode::Protocol,
        "the answer is of another kind than the question",
    )
}

/// A file or directory of which there is more than its reader wants.
fn too_large(what: &'static str, limit: u64, actual: u64) -> WireError {
    WireError::new(ErrorCode::TooLarge, what).with_limit(limit, actual)
}

pub(super) async fn metadata(files: &Server, path: &[u8], links: Links) -> Result<Metadata, WireError> {
    let request = FileRequest::Metadata(GetMetadata {
        path: ByteBuf::from(path),
        links,
    });
    match files.ask(request).await? {
        FileReply::Metadata(metadata) => Ok(metadata),
        _ => Err(strange()),
    }
}

/// The beginning of a file, which is all of it where it is small.
pub(super) async fn beginning(files: &Server, path: &[u8], most: usize) -> Result<Contents, WireError> {
    let request = FileRequest::Read(ReadFile {
        path: ByteBuf::from(path),
        offset: 0,
        max_bytes: u32::try_from(most.min(BLOCK_MAX_BYTES)).unwrap_or(u32::MAX),
        links: Links::Follow,
    });
    match files.ask(request).await? {
        FileReply::Contents(contents) => Ok(contents),
        _ => Err(strange()),
    }
}

/// A file's beginning, of at most one block.
pub(super) async fn front(files: &Server, path: &[u8], max_bytes: u64) -> Result<Front, WireError> {
    let most = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let contents = beginning(files, path, most).await?;
    Ok(Front {
        bytes: contents.data,
        whole: contents.end,
    })
}

/// A whole file: in one answer where it is small, else in blocks.
pub(super) async fn read(files: &Server, path: &[u8], max_bytes: u64) -> Result<Bytes, WireError> {
    let what = "the file is larger than its reader wants";
    let most = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let first = beginning(files, path, most.saturating_add(1)).await?;
    if first.end && first.data.len() <= most {
        return Ok(first.data);
    }
    let seen = first.metadata.size.max(first.data.len() as u64);
    if seen > max_bytes {
        return Err(too_large(what, max_bytes, seen));
    }
    let mut reader = FileReader::open(Arc::clone(files), path, Links::Follow, Some(seen));
    let mut whole = Vec::with_capacity(usize::try_from(seen).unwrap_or(0));
    while let Some(block) = reader.next().await? {
        let length = whole.len() as u64 + block.len() as u64;
        if length > max_bytes {
            return Err(too_large(what, max_bytes, length));
        }
        whole.extend_from_slice(&block);
    }
    Ok(whole.into())
}

/// What lies in a directory, page by page.
pub(super) async fn list(
    files: &Server,
    path: &[u8],
    max_entries: usize,
    resolve: bool,
) -> Result<Vec<DirectoryEntry>, WireError> {
    let mut entries: Vec<DirectoryEntry> = Vec::new();
    loop {
        // One more than is wanted says that there is more.
        let wanted = (max_entries - entries.len())
            .saturating_add(1)
            .min(PAGE_MAX_ENTRIES);
        let after = entries
            .last()
            .map_or_else(ByteBuf::new, |entry| entry.name.clone());
        let request = FileRequest::List(List {
            path: ByteBuf::from(path),
            after,
            max_entries: u32::try_from(wanted).unwrap_or(u32::MAX),
            resolve,
        });
        let FileReply::Listing(page) = files.ask(request).await? else {
            return Err(strange());
        };
        let end = page.end || page.entries.is_empty();
        entries.extend(page.entries);
        if entries.len() > max_entries {
            let what = "the directory holds more than its reader wants";
            return Err(too_large(what, max_entries as u64, entries.len() as u64));
        }
        if end {
            return Ok(entries);
        }
    }
}
