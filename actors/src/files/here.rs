//! Files of this machine on the thread that asks: for whoever is on a thread of the pool already.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use dwell_messages::files::{DirectoryEntry, FileReply, FileRequest, Handle, Links, Metadata};
use dwell_messages::{ErrorCode, WireError};

use super::local::guarded;
use super::serve::{self, Serve, Server};
use super::system::{FileAnswer, FileSystem, Front};

/// Every answer is there when it is asked for, and blocks its thread until then. Nothing stays open: large files are had
/// in part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FilesHere;

impl FilesHere {
    fn server() -> Server {
        Arc::new(Self)
    }
}

impl Serve for FilesHere {
    fn ask(&self, request: FileRequest) -> FileAnswer<'static, FileReply> {
        Box::pin(ready(guarded(&request, &mut None)))
    }

    fn handle(&self) -> Handle {
        Handle(1)
    }

    fn close(&self, _: Handle, _: bool) {}
}

impl FileSystem for FilesHere {
    fn identity(&self) -> &str {
        "local"
    }

    fn metadata<'a>(&'a self, path: &'a [u8]) -> FileAnswer<'a, Metadata> {
        Box::pin(async move { serve::metadata(&Self::server(), path, Links::Follow).await })
    }

    fn read<'a>(&'a self, path: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Bytes> {
        Box::pin(async move {
            let front = serve::front(&Self::server(), path, max_bytes).await?;
            if front.whole {
                return Ok(front.bytes);
            }
            let what = "the file is larger than its reader wants";
            Err(WireError::new(ErrorCode::TooLarge, what))
        })
    }

    fn front<'a>(&'a self, path: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Front> {
        Box::pin(async move { serve::front(&Self::server(), path, max_bytes).await })
    }

    fn list<'a>(&'a self, path: &'a [u8], max_entries: usize) -> FileAnswer<'a, Vec<DirectoryEntry>> {
        Box::pin(async move { serve::list(&Self::server(), path, max_entries, false).await })
    }
}
