//! Threads: an agent's conversations, kept. History first, metadata behind it.
//!
//! [`Threads`] is one place where they are kept: a directory of event logs and a store of metadata, which several
//! processes may share. [`Thread`] is one that this process writes to.

mod error;
mod item;
mod open;
mod rebuild;
mod room;
mod thread;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

pub use error::ThreadError;
pub use item::Append;
pub use open::ThreadsBuilder;
pub(crate) use room::AppendRoom;
pub use room::{APPEND_QUEUE_MAX_BYTES, THREAD_QUEUE_MAX_BYTES};
pub use thread::{APPEND_MAX_BYTES, Thread};

use crate::event_log::worker::{LogHandle, LogJob, LogKey};
use crate::event_log::{self, LogError, LogFile, LogReader, Opened, Step};
pub use crate::event_log::{Item, ItemKind};
use crate::mailbox::{HostOptions, start_on};
use crate::metadata_store::worker::StoreHandle;
use crate::metadata_store::{Holder, ThreadId, ThreadPage, ThreadPatch, ThreadQuery, ThreadRecord};
use crate::metadata_writer::{Live, METADATA_MAILBOX_MAX, MetadataWriter, Observer};
use crate::runtime::{Place, Runtime};
use crate::telemetry::{Collector, wall_unix_us};

/// Threads that one `Threads` may have open.
pub const LIVE_THREADS_MAX: usize = 1_024;
/// What an event log's name ends with.
const LOG_SUFFIX: &str = "log";

/// A place where threads are kept. Cheap to clone, `Send` and `Sync`; usable from any runtime and without one.
#[derive(Clone)]
pub struct Threads(Arc<Kept>);

struct Kept {
    dir: PathBuf,
    store: StoreHandle,
    logs: LogHandle,
    collector: Collector,
    /// Of all threads' appends.
    room: room::Allowance,
    seats: Arc<Semaphore>,
    next_log: AtomicU64,
    place: Place,
    _runtime: Runtime,
}

/// What is known of a thread before anything has happened in it.
#[derive(Clone, Debug, Default)]
pub struct NewThread {
    /// What its record says from the beginning: the directory, the model, the thread it was begun from.
    pub patch: ThreadPatch,
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads")
            .field("dir", &self.0.dir)
            .finish_non_exhaustive()
    }
}

impl Threads {
    /// Sets up a place whose event logs are below `dir`.
    pub fn builder(dir: impl Into<PathBuf>) -> ThreadsBuilder {
        ThreadsBuilder::new(dir.into())
    }

    /// On what a harness has already: its store, its collector and its arbiters.
    pub(crate) fn on(
        dir: PathBuf,
        store: StoreHandle,
        collector: Collector,
        runtime: Runtime,
    ) -> Result<Self, ThreadError> {
        let (room, stuck) = room::Allowance::new(APPEND_QUEUE_MAX_BYTES);
        let logs = LogHandle::start(store.jobs(), stuck, collector.clone()).map_err(|source| {
            ThreadError::Local {
                what: "the thread of the event logs could not be started; raise the thread limit",
                source: Arc::new(source),
            }
        })?;
        Ok(Self(Arc::new(Kept {
            dir,
            store,
            logs,
            collector,
            room,
            seats: Arc::new(Semaphore::new(LIVE_THREADS_MAX)),
            next_log: AtomicU64::new(1),
            place: runtime.place(),
            _runtime: runtime,
        })))
    }

    /// Begins a thread. Nothing of it is kept before the first append, `persist` or `mutate`.
    ///
    /// # Errors
    /// `TooMany`; or the store's, which has to make this process its writer.
    pub async fn create(&self, new: NewThread) -> Result<Thread, ThreadError> {
        let mut id = ThreadId::default();
        getrandom::fill(&mut id.0).map_err(|_| ThreadError::Local {
            what: "the operating system gave no random bytes; try again",
            source: Arc::new(std::io::ErrorKind::Other.into()),
        })?;
        let now = wall_unix_us();
        let mut deferred = ThreadPatch {
            created_unix_us: Some(now),
            updated_unix_us: Some(now),
            ..ThreadPatch::default()
        };
        deferred.merge(new.patch.cleaned());
        let log = LogFile::unmade(self.log_path(id), id);
        let claimed = self.claim(id).await?;
        Ok(claimed.live(log, deferred, Observer::default()))
    }

    /// Makes this process the writer of a thread that exists. What its history says and its record does not, because
    /// a process died in between, becomes part of the record with the next append.
    ///
    /// # Errors
    /// `Missing`; `ThreadBusy` when a live process writes to it; `LogError::Damaged` when history that was acknowledged is
    /// not there any more: it says where everything is now, and resuming again goes on with what is left.
    pub async fn resume(&self, id: ThreadId) -> Result<Thread, ThreadError> {
        let claimed = self.claim(id).await?;
        let path = self.log_path(id);
        if claimed.record.is_none() && !path.exists() {
            return Err(ThreadError::Missing(id));
        }
        let record = claimed.record.clone().unwrap_or_else(|| ThreadRecord::new(id));
        let mut observer = Observer::of(&record);
        let (durable, covered) = (record.log_bytes, record.items);
        let is_known = claimed.record.is_some();
        // The claim goes along: whoever gives this call up must not let another in while the file is being repaired.
        // Behind the log, which it is to outlive also when nobody takes either.
        let (opened, claimed) = on_a_thread(id, move || {
            let mut deferred = ThreadPatch::default();
            let mut see = |item: &Item| {
                if !is_known && deferred.created_unix_us.is_none() {
                    deferred.created_unix_us = Some(item.at_unix_us);
                }
                deferred.merge(observer.observe(std::slice::from_ref(item)));
            };
            let opened = LogFile::open(path, id, durable, covered, &mut see);
            (opened.map(|opened| (opened, deferred, observer)), claimed)
        })
        .await?;
        match opened {
            Ok((opened, deferred, observer)) => {
                warn_of_cut(id, &opened);
                Ok(claimed.live(opened.log, deferred, observer))
            }
            Err(error) => {
                claimed.settle_damage(&error).await;
                Err(ThreadError::Log(Arc::new(error)))
            }
        }
    }

    async fn claim(&self, id: ThreadId) -> Result<Claimed, ThreadError> {
        let seat = Arc::clone(&self.0.seats)
            .try_acquire_owned()
            .map_err(|_| ThreadError::TooMany {
                max: LIVE_THREADS_MAX,
            })?;
        let holder = Holder::of_this_process();
        if holder.start_ticks == 0 {
            return Err(ThreadError::Local {
                what: "this process's own entry in /proc cannot be read, so nobody could tell whether it still writes; \
                       mount /proc, or raise the limit on open files",
                source: Arc::new(std::io::ErrorKind::Other.into()),
            });
        }
        // The claim is there before the question: dropped while it waits, it gives back what it got.
        let mut claimed = Claimed {
            threads: self.clone(),
            id,
            holder: holder.clone(),
            seat: Some(seat),
            record: None,
        };
        claimed.record = self.0.store.ask(move |store| store.lease(id, &holder)).await?;
        Ok(claimed)
    }

    /// What is known of a thread.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn get(&self, id: ThreadId) -> Result<Option<ThreadRecord>, ThreadError> {
        self.0.store.ask(move |store| store.thread(id)).await
    }

    /// A page of threads, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, query: ThreadQuery) -> Result<ThreadPage, ThreadError> {
        self.0.store.ask(move |store| store.threads(&query)).await
    }

    /// Deletes a thread: its history, with what of it was put aside as damaged, then its record. False when there is none.
    /// It is gone from the disk when this returns; cut short, it is deleted by the next call.
    ///
    /// # Errors
    /// `ThreadBusy` when a live process writes to it, this one included; the store's; or why a file cannot be removed.
    pub async fn delete(&self, id: ThreadId) -> Result<bool, ThreadError> {
        // As its writer, so that nobody resumes it in between.
        let claimed = self.claim(id).await?;
        let path = self.log_path(id);
        let (claimed, removed) = on_a_thread(id, move || (claimed, event_log::remove(&path))).await?;
        let removed = removed.map_err(|error| ThreadError::Log(Arc::new(error)))?;
        let holder = claimed.holder.clone();
        let forgotten = self.0.store.ask(move |store| store.delete_thread(id, &holder));
        Ok(forgotten.await? || removed)
    }

    /// A thread's history, item by item, as it is on the disk now. Blocks on the disk.
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub fn history(&self, id: ThreadId) -> Result<History, ThreadError> {
        History::open(&self.0.dir, id)
    }

    /// Waits until the spans made so far are where they go. On a harness's threads that is the harness's trace file.
    pub async fn flush_traces(&self) {
        self.0.collector.flush().await;
    }

    fn log_path(&self, id: ThreadId) -> PathBuf {
        log_path(&self.0.dir, id)
    }
}

/// Where a thread's event log is.
pub fn log_path(dir: &Path, id: ThreadId) -> PathBuf {
    dir.join(format!("{id}.{LOG_SUFFIX}"))
}

/// Says what of a history was not there to be read.
fn warn_of_cut(id: ThreadId, opened: &Opened) {
    let bytes = opened.cut_bytes;
    match &opened.kept {
        Some(kept) => tracing::warn!(
            thread = %id, bytes, kept = %kept.display(),
            "the end of a thread's history cannot be read and no record says whether it ever counted: it was cut off, and \
             the file is kept as it was"
        ),
        None if bytes > 0 => {
            tracing::warn!(thread = %id, bytes, "an unfinished end of a thread's history was cut off");
        }
        None => {}
    }
}

/// The items of one thread. It ends where the log does, or at what cannot be read; `fault` tells.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    reader: Option<LogReader<std::io::BufReader<std::fs::File>>>,
    fault: Option<event_log::Fault>,
}

impl History {
    /// Of a thread whose log is below `dir`; without a log there are no items.
    ///
    /// # Errors
    /// When the log is there and cannot be opened.
    pub fn open(dir: &Path, id: ThreadId) -> Result<Self, ThreadError> {
        let path = log_path(dir, id);
        let reader = match std::fs::File::open(&path) {
            Ok(file) => Some(LogReader::new(std::io::BufReader::new(file), id)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(ThreadError::Log(Arc::new(LogError::Open { path, source }))),
        };
        Ok(Self {
            path,
            reader,
            fault: None,
        })
    }

    /// Why it ended before the end of its file, once it has: an append that is under way, a torn end or damage.
    pub fn fault(&self) -> Option<event_log::Fault> {
        self.fault
    }
}

impl Iterator for History {
    type Item = Result<Item, ThreadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.reader.as_mut()?.step() {
            Ok(Step::Item(item)) => Some(Ok(item)),
            Ok(Step::End(fault)) => {
                self.fault = fault;
                self.reader = None;
                None
            }
            Err(source) => {
                self.reader = None;
                Some(Err(ThreadError::Log(Arc::new(LogError::Read {
                    path: self.path.clone(),
                    source,
                }))))
            }
        }
    }
}

/// A thread whose writer this process is, and which nobody serves yet. Dropped, it gives the lease back.
struct Claimed {
    threads: Threads,
    id: ThreadId,
    holder: Holder,
    seat: Option<tokio::sync::OwnedSemaphorePermit>,
    record: Option<ThreadRecord>,
}

impl Claimed {
    fn live(mut self, log: LogFile, deferred: ThreadPatch, observer: Observer) -> Thread {
        let kept = &self.threads.0;
        let closing = Arc::default();
        let key = LogKey(kept.next_log.fetch_add(1, Ordering::Relaxed));
        let live = Live {
            id: self.id,
            log: key,
            items: log.items(),
            holder: self.holder.clone(),
            deferred,
            observer,
            jobs: kept.logs.jobs(),
            collector: kept.collector.clone(),
            closing: Arc::clone(&closing),
            // From here on the actor gives the lease back.
            _seat: self.seat.take(),
        };
        let (share, stuck) = room::Allowance::new(THREAD_QUEUE_MAX_BYTES);
        let mut parts = Some((live, LogJob::Open(key, Box::new(log), stuck)));
        let options = HostOptions::new(METADATA_MAILBOX_MAX);
        let writer = start_on(kept.place.arbiter(), options, move || {
            let (live, open) = parts.take().expect("an actor that is not restarted is made once");
            MetadataWriter::new(live, open)
        });
        let all = kept.room.clone();
        let (gate, arbiter) = (room::Gate { share, all }, kept.place.arbiter().clone());
        Thread::new(self.id, writer, gate, arbiter, self.threads.clone(), closing)
    }

    /// After damage the record must not claim what is lost: it would be damage again the next time.
    async fn settle_damage(&self, error: &LogError) {
        let LogError::Damaged { at, items, .. } = error else {
            return;
        };
        let patch = ThreadPatch {
            items: Some(*items),
            log_bytes: Some(*at),
            ..ThreadPatch::default()
        };
        let (id, holder) = (self.id, self.holder.clone());
        let settled = self
            .threads
            .0
            .store
            .ask(move |store| store.update_thread(id, &holder, &patch));
        if let Err(error) = settled.await {
            tracing::warn!(%error, thread = %id, "a damaged thread's record still covers what is lost");
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if self.seat.is_some() {
            let (id, holder) = (self.id, self.holder.clone());
            self.threads.0.store.release(id, holder);
        }
    }
}

/// Does what blocks on a thread of its own: a caller may be on any runtime, and the log's thread has others to serve.
async fn on_a_thread<T: Send + 'static>(
    id: ThreadId,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ThreadError> {
    let (done, answer) = tokio::sync::oneshot::channel();
    // The kernel shows the beginning, a panic all of it.
    let started = std::thread::Builder::new()
        .name(format!("dwell-open {id}"))
        .spawn(move || drop(done.send(work())));
    started.map_err(|source| ThreadError::Local {
        what: "a thread to read history with could not be started; raise the thread limit",
        source: Arc::new(source),
    })?;
    answer.await.map_err(|_| ThreadError::WorkerFailed)
}
