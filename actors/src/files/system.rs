//! What finders and loaders need of a file system.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use dwell_messages::WireError;
use dwell_messages::files::{BLOCK_MAX_BYTES, DirectoryEntry, Metadata};

/// An answer that is on its way.
pub type FileAnswer<'a, T> = Pin<Box<dyn Future<Output = Result<T, WireError>> + Send + 'a>>;

/// A file's beginning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Front {
    /// The beginning.
    pub bytes: Bytes,
    /// Whether that is all of it.
    pub whole: bool,
}

/// The files of one environment. Every call may cost a round trip.
///
/// Paths are absolute bytes in the environment's own flavour: they are never made canonical, joined to this machine's
/// directories or looked up here. Errors carry the codes of [`dwell_messages::ErrorCode`] that concern files;
/// what is not there is `NotFound` or `NotADirectory`. Dropping an answer gives the question up: it may still be
/// asked.
pub trait FileSystem: Send + Sync {
    /// Which environment this is: two file systems with one identity show the same files under the same paths.
    fn identity(&self) -> &str;

    /// What `path` leads to. Symbolic links are followed.
    fn metadata<'a>(&'a self, path: &'a [u8]) -> FileAnswer<'a, Metadata>;

    /// A whole file; `TooLarge` when it has more than `max_bytes`.
    fn read<'a>(&'a self, path: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Bytes>;

    /// At most the first `max_bytes` of a file, and at most `BLOCK_MAX_BYTES`. Where a file can only be had whole, one that
    /// has more is `TooLarge`.
    fn front<'a>(&'a self, path: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Front> {
        Box::pin(async move {
            let mut bytes = self.read(path, BLOCK_MAX_BYTES as u64).await?;
            let kept = usize::try_from(max_bytes).unwrap_or(usize::MAX);
            let whole = bytes.len() <= kept;
            bytes.truncate(kept);
            Ok(Front { bytes, whole })
        })
    }

    /// What lies in a directory, in the order of its names' bytes; `TooLarge` when that is more than `max_entries`.
    fn list<'a>(&'a self, path: &'a [u8], max_entries: usize) -> FileAnswer<'a, Vec<DirectoryEntry>>;
}
