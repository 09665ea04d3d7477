//! What finders and loaders need of a file system.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use dwell_messages::WireError;
use dwell_messages::files::{DirectoryEntry, Metadata};

/// An answer that is on its way.
pub type FileAnswer<'a, T> = Pin<Box<dyn Future<Output = Result<T, WireError>> + Send + 'a>>;

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

    /// What lies in a directory, in the order of its names' bytes; `TooLarge` when that is more than `max_entries`.
    fn list<'a>(&'a self, path: &'a [u8], max_entries: usize) -> FileAnswer<'a, Vec<DirectoryEntry>>;
}
