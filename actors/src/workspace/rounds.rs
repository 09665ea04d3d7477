//! How many round trips there were, one after another.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use dwell_messages::WireError;
use dwell_messages::files::{DirectoryEntry, Metadata};

use crate::files::{FileAnswer, FileSystem, Front};

/// A file system whose questions are counted by what they waited for: one that was asked when an answer of the third round
/// was known is of the fourth, however many others are. What one question costs more than a round trip is not seen.
pub struct Rounds<'a> {
    files: &'a dyn FileSystem,
    /// The latest round of which an answer is known.
    answered: AtomicU32,
}

impl<'a> Rounds<'a> {
    /// None so far.
    pub fn new(files: &'a dyn FileSystem) -> Self {
        Self {
            files,
            answered: AtomicU32::new(0),
        }
    }

    /// How many there were.
    pub fn count(&self) -> u32 {
        self.answered.load(Ordering::Relaxed)
    }

    async fn counted<T>(&self, answer: FileAnswer<'_, T>) -> Result<T, WireError> {
        let round = self.count().saturating_add(1);
        let answer = answer.await;
        self.answered.fetch_max(round, Ordering::Relaxed);
        answer
    }
}

impl FileSystem for Rounds<'_> {
    fn identity(&self) -> &str {
        self.files.identity()
    }

    fn metadata<'a>(&'a self, path: &'a [u8]) -> FileAnswer<'a, Metadata> {
        Box::pin(self.counted(self.files.metadata(path)))
    }

    fn read<'a>(&'a self, path: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Bytes> {
        Box::pin(self.counted(self.files.read(path, max_bytes)))
    }

    fn front<'a>(&'a self, path: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Front> {
        Box::pin(self.counted(self.files.front(path, max_bytes)))
    }

    fn list<'a>(&'a self, path: &'a [u8], max_entries: usize) -> FileAnswer<'a, Vec<DirectoryEntry>> {
        Box::pin(self.counted(self.files.list(path, max_entries)))
    }
}
