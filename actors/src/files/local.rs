//! Files of this machine, by the same operations and with the same errors as those of another.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dwell_messages::files::{
    Close, DirectoryEntry, FileReply, FileRequest, Handle, Links, Metadata, Watching,
};
use dwell_messages::{ErrorCode, WireError};
use tokio::sync::oneshot;

use super::disk::{self, OpenFile};
use super::pool::FilePool;
use super::serve::{self, Serve, Server};
use super::service::core::{Begun, Claim, ServiceCore};
use super::system::{FileAnswer, FileSystem, Front};

/// Requests of one [`LocalFiles`] that wait or are at work.
pub const LOCAL_REQUESTS_MAX: usize = 1_024;

/// The files of the machine this runs on. `Send`, `Sync` and cheap to clone; usable on any runtime and on none, since
/// what blocks is done on threads of its own.
///
/// Every operation of the vocabulary is served by [`LocalFiles::call`], as an executor serves it, but for watches: nothing is
/// watched. Dropping an answer
/// withdraws the question: if it was not begun, nothing is done.
#[derive(Clone)]
pub struct LocalFiles(Arc<Local>);

struct Local {
    pool: FilePool,
    core: Mutex<Core>,
    handles: AtomicU64,
}

#[derive(Default)]
struct Core {
    turns: ServiceCore<Asked, OpenFile>,
    requests: usize,
}

struct Asked {
    request: FileRequest,
    /// `None`: nobody waits, and it is done all the same.
    answer: Option<oneshot::Sender<Result<FileReply, WireError>>>,
}

impl Asked {
    fn answer(self, outcome: Result<FileReply, WireError>) {
        if let Some(answer) = self.answer {
            drop(answer.send(outcome));
        }
    }

    fn is_withdrawn(&self) -> bool {
        self.answer.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
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
        Self(Arc::new(Local {
            pool: FilePool::new(),
            core: Mutex::default(),
            handles: AtomicU64::new(0),
        }))
    }

    /// Serves one request. Those about one handle are served in the order in which they were asked; others in any.
    ///
    /// # Errors
    /// As documented for the request's kind; `Busy` when too much waits.
    pub async fn call(&self, request: FileRequest) -> Result<FileReply, WireError> {
        if let FileRequest::Watch(_) = request {
            // To wait for events takes a reactor, which whoever asks may not have.
            return Ok(FileReply::Watching(Watching { watching: false }));
        }
        let (answer, wait) = oneshot::channel();
        self.submit(Asked {
            request,
            answer: Some(answer),
        })?;
        wait.await.unwrap_or_else(|_| {
            Err(WireError::new(
                ErrorCode::Stopped,
                "the threads for files have ended",
            ))
        })
    }

    fn submit(&self, asked: Asked) -> Result<(), WireError> {
        let busy = || {
            WireError::new(ErrorCode::Busy, "too much work on files waits")
                .with_limit(LOCAL_REQUESTS_MAX as u64, LOCAL_REQUESTS_MAX as u64 + 1)
        };
        if !self.0.pool.admit() {
            return Err(busy());
        }
        let mut core = self.lock();
        if core.requests >= LOCAL_REQUESTS_MAX {
            return Err(busy());
        }
        let claim = Claim::of(&asked.request);
        core.turns.submit(asked, claim).map_err(|(_, error)| error)?;
        core.requests += 1;
        self.begin(&mut core);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on everything whose turn it is. What is answered here is nobody's to acknowledge.
    fn begin(&self, core: &mut Core) {
        while let Some(begun) = core.turns.next(0) {
            let (own, span) = (self.clone(), begun.ticket.span());
            self.0.pool.put(Box::new(move || own.work(begun)), span);
        }
    }

    fn work(&self, begun: Begun<Asked, OpenFile>) {
        let Begun {
            call,
            mut file,
            ticket,
        } = begun;
        let outcome = (!call.is_withdrawn()).then(|| guarded(&call.request, &mut file));
        let mut core = self.lock();
        let (orphans, file) = core.turns.finish(ticket, file);
        core.requests -= 1 + orphans.len();
        self.begin(&mut core);
        drop(core);
        drop(file);
        if let Some(outcome) = outcome {
            call.answer(outcome);
        }
        for orphan in orphans {
            orphan.answer(Err(disk::unknown()));
        }
    }

    fn server(&self) -> Server {
        Arc::new(self.clone())
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

impl Serve for LocalFiles {
    fn ask(&self, request: FileRequest) -> FileAnswer<'static, FileReply> {
        let own = self.clone();
        Box::pin(async move { own.call(request).await })
    }

    fn handle(&self) -> Handle {
        // From the other end than callers count, who choose theirs themselves.
        Handle(u64::MAX - self.0.handles.fetch_add(1, Ordering::Relaxed))
    }

    fn close(&self, handle: Handle, discard: bool) {
        let request = FileRequest::Close(Close { handle, discard });
        let asked = Asked {
            request,
            answer: None,
        };
        if let Err(error) = self.submit(asked) {
            tracing::debug!(%error, "a file was not closed before its owner is gone");
        }
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

    fn front<'a>(&'a self, path: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Front> {
        Box::pin(async move { serve::front(&self.server(), path, max_bytes).await })
    }

    fn list<'a>(&'a self, path: &'a [u8], max_entries: usize) -> FileAnswer<'a, Vec<DirectoryEntry>> {
        Box::pin(async move { serve::list(&self.server(), path, max_entries, false).await })
    }
}
