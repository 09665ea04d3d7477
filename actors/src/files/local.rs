//! Files of this machine, by the same operations and with the same errors as those of another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dwell_messages::files::{DirectoryEntry, FileReply, FileRequest, Handle, Links, Metadata};
use dwell_messages::{ErrorCode, WireError};
use tokio::sync::oneshot;

use super::disk::{self, OpenFile};
use super::pool::{FilePool, Span};
use super::serve::{self, Serve, Server};
use super::service::HANDLES_MAX;
use super::system::{FileAnswer, FileSystem};

/// The files of the machine this runs on. `Send`, `Sync` and cheap to clone; usable on any runtime and on none, since
/// what blocks is done on threads of its own.
///
/// Every operation of the vocabulary is served by [`LocalFiles::call`], as an executor serves it. Dropping an answer
/// does not keep the operation from being done.
#[derive(Clone)]
pub struct LocalFiles {
    pool: FilePool,
    next: Arc<AtomicU64>,
    open: Arc<Mutex<HashMap<Handle, Arc<Mutex<Option<OpenFile>>>>>>,
}

impl fmt::Debug for LocalFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalFiles")
    }
}

impl Default for LocalFiles {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalFiles {
    /// Threads are made when they are first needed, at most [`FILE_THREADS`](super::FILE_THREADS).
    pub fn new() -> Self {
        Self {
            pool: FilePool::new(),
            next: Arc::default(),
            open: Arc::default(),
        }
    }

    /// Serves one request. Those about one handle are served one after another; others in any order.
    ///
    /// # Errors
    /// As documented for the request's kind; `Busy` when too much waits.
    pub async fn call(&self, request: FileRequest) -> Result<FileReply, WireError> {
        if !self.pool.admit() {
            return Err(WireError::new(ErrorCode::Busy, "too much work on files waits"));
        }
        let slot = self.slot(&request)?;
        let (answer, wait) = oneshot::channel();
        let open = Arc::clone(&self.open);
        let span = if disk::is_long(&request) {
            Span::Long
        } else {
            Span::Short
        };
        let job = move || {
            let mut nothing = None;
            let outcome = match &slot {
                Some(slot) => {
                    let mut file = slot.lock().unwrap_or_else(PoisonError::into_inner);
                    let outcome = guarded(&request, &mut file);
                    if file.is_none()
                        && let Some(handle) = request.handle()
                    {
                        // Nothing is open under it any more, or never was.
                        open.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .remove(&handle);
                    }
                    outcome
                }
                None => guarded(&request, &mut nothing),
            };
            drop(answer.send(outcome));
        };
        self.pool.put(Box::new(job), span);
        wait.await.unwrap_or_else(|_| {
            Err(WireError::new(
                ErrorCode::Stopped,
                "the threads for files have ended",
            ))
        })
    }

    fn server(&self) -> Server {
        Arc::new(self.clone())
    }

    /// What a request's handle names; an opening one gets its place.
    fn slot(&self, request: &FileRequest) -> Result<Option<Arc<Mutex<Option<OpenFile>>>>, WireError> {
        let Some(handle) = request.handle() else {
            return Ok(None);
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let opens = matches!(request, FileRequest::Open(_) | FileRequest::Walk(_));
        let count = open.len();
        match open.entry(handle) {
            Entry::Occupied(_) if opens => Err(in_use()),
            Entry::Occupied(slot) => Ok(Some(Arc::clone(slot.get()))),
            Entry::Vacant(_) if !opens => Err(disk::unknown()),
            Entry::Vacant(_) if count >= HANDLES_MAX => Err(too_many_open(HANDLES_MAX)),
            Entry::Vacant(place) => Ok(Some(Arc::clone(place.insert(Arc::default())))),
        }
    }
}

/// Serves a request, whatever it comes to.
pub(super) fn guarded(request: &FileRequest, file: &mut Option<OpenFile>) -> Result<FileReply, WireError> {
    let outcome = catch_unwind(AssertUnwindSafe(|| disk::serve(request, file)));
    outcome.unwrap_or_else(|_| {
        *file = None;
        Err(WireError::new(ErrorCode::ActorFailed, "work on a file panicked"))
    })
}

pub(super) fn in_use() -> WireError {
    WireError::new(
        ErrorCode::BadRequest,
        "the handle is in use: choose one that was not used",
    )
}

pub(super) fn too_many_open(limit: usize) -> WireError {
    WireError::new(ErrorCode::Busy, "too many files and walks are open")
        .with_limit(limit as u64, limit as u64 + 1)
}

impl Serve for LocalFiles {
    fn ask(&self, request: FileRequest) -> FileAnswer<'static, FileReply> {
        let own = self.clone();
        Box::pin(async move { own.call(request).await })
    }

    fn handle(&self) -> Handle {
        // From the other end than callers count, who choose theirs themselves.
        Handle(u64::MAX - self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn close(&self, handle: Handle, _: bool) {
        // Whoever works on it keeps it until then, and a file that was not closed in order is given up.
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&handle);
    }
}

impl FileSystem for LocalFiles {
    fn identity(&self) -> &str {
        "local"
    }

    fn metadata<'a>(&'a self, path: &'a [u8]) -> FileAnswer<'a, Metadata> {
        Box::pin(async move { serve::metadata(&self.server(), path, Links::Follow).await })
    }

    fn read<'a>(&'a self, path: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Bytes> {
        Box::pin(async move { serve::read(&self.server(), path, max_bytes).await })
    }

    fn list<'a>(&'a self, path: &'a [u8], max_entries: usize) -> FileAnswer<'a, Vec<DirectoryEntry>> {
        Box::pin(async move { serve::list(&self.server(), path, max_entries, false).await })
    }
}
