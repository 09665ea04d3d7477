//! The thread that writes event logs: history in the order of its acceptance, and updates of metadata behind it.
//!
//! Jobs come through a bounded channel and are done in their order. Appends that lie next to each other are written with
//! one call a log. An update is handed on to the store's thread only when everything before it is on the disk, so that no
//! record of a thread is ever ahead of its history.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use dwell_messages::{SpanId, TraceContext};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::error::LogError;
use super::file::LogFile;
use super::format::Item;
use crate::metadata_store::worker::{Done, Job, Update};
use crate::metadata_store::{Holder, ThreadId};
use crate::telemetry::{Collector, Stage, Tick, semconv};
use crate::threads::ThreadError;

/// Jobs that may wait for the disk.
pub const LOG_QUEUE_MAX: usize = 1_024;
/// Jobs looked at together.
const BATCH_MAX: usize = 256;
/// How often a log that could not be written is tried again unasked: what waits for it keeps others' room.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Which open log: never used twice in a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LogKey(pub(crate) u64);

/// What the thread is to do.
pub(crate) enum LogJob {
    /// Keep a log, which nobody else has open.
    Open(LogKey, Box<LogFile>),
    /// Append some items, as records.
    Records(LogKey, Box<Records>),
    /// Append items of one append.
    Append(LogKey, Box<Appending>),
    /// Bring everything before this to the disk, then hand the update on. `materialise` makes a file also without items.
    Update {
        log: LogKey,
        update: Box<Update>,
        materialise: bool,
    },
    /// Bring everything to the disk, if it is to be synced, and let another be the thread's writer. The log stays.
    Close {
        log: LogKey,
        id: ThreadId,
        holder: Holder,
        sync: bool,
        done: Done,
    },
    /// Let go of a log that is closed.
    Forget(LogKey),
    /// As `Close` and `Forget`, whatever fails: nobody is left to be told.
    Drop {
        log: LogKey,
        id: ThreadId,
        holder: Holder,
    },
}

/// Items on their way into a log.
pub(crate) struct Appending {
    pub(crate) items: Vec<Item>,
    /// Room for their bytes, given back when they are written.
    pub(crate) room: Option<OwnedSemaphorePermit>,
    pub(crate) trace: AppendTrace,
}

/// Some appends' items as they are in the log: whole records, whose numbers go on where those before them end.
#[derive(Default)]
pub(crate) struct Records {
    pub(crate) bytes: Vec<u8>,
    pub(crate) items: u64,
    /// Room for the bytes of all of them.
    pub(crate) room: Option<OwnedSemaphorePermit>,
    /// Of the sampled ones.
    pub(crate) traces: Vec<AppendTrace>,
}

/// The span of one append, which ends when its items are written.
pub(crate) struct AppendTrace {
    /// The caller's context: the span's parent.
    pub(crate) parent: TraceContext,
    /// The span's id, under which everything else of the append hangs.
    pub(crate) span: SpanId,
    pub(crate) called: Tick,
}

impl AppendTrace {
    /// The context of what hangs below the append.
    pub(crate) fn inside(&self) -> TraceContext {
        self.parent.child(self.span)
    }
}

struct Log {
    file: LogFile,
    /// Of appends whose items are not in the file yet: their room, and their spans where they are sampled.
    rooms: Vec<OwnedSemaphorePermit>,
    traces: Vec<AppendTrace>,
}

/// The sending end of the thread, which ends with the last of them.
#[derive(Clone)]
pub(crate) struct LogHandle(SyncSender<LogJob>);

impl LogHandle {
    /// Starts the thread. `failing` is true as long as some log cannot be written.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(
        store: SyncSender<Job>,
        failing: watch::Sender<bool>,
        collector: Collector,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(LOG_QUEUE_MAX);
        let worker = Worker {
            logs: HashMap::new(),
            touched: Vec::new(),
            worn: Vec::new(),
            failed: Vec::new(),
            retry_at: None,
            store,
            failing,
            collector,
        };
        std::thread::Builder::new()
            .name("dwell-log".into())
            .spawn(move || worker.work(&queue))?;
        Ok(Self(jobs))
    }

    pub(crate) fn jobs(&self) -> SyncSender<LogJob> {
        self.0.clone()
    }
}

struct Worker {
    logs: HashMap<LogKey, Log>,
    /// Logs with appends that are not written.
    touched: Vec<LogKey>,
    /// Logs that were synced since they were last looked after.
    worn: Vec<LogKey>,
    /// Logs whose last write failed, and when they are tried again unasked.
    failed: Vec<LogKey>,
    retry_at: Option<Instant>,
    store: SyncSender<Job>,
    /// Whether there are such.
    failing: watch::Sender<bool>,
    collector: Collector,
}

impl Worker {
    fn work(mut self, queue: &Receiver<LogJob>) {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(job) => Some(job),
                None => match self.wait(queue) {
                    Ok(job) => Some(job),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            // Whoever waits for a job that panics is told by what it drops.
            let done = catch_unwind(AssertUnwindSafe(|| {
                if let Some(first) = first {
                    self.batch(first, queue);
                }
                self.retry(Instant::now());
                self.prepare(queue)
            }));
            match done {
                Ok(job) => next = job,
                Err(_) => {
                    tracing::error!(
                        "the thread of the event logs panicked; what was appended is written again"
                    );
                    for log in self.logs.values_mut() {
                        log.file.distrust();
                    }
                }
            }
        }
    }

    /// The next job, or the time at which something is to be tried again.
    fn wait(&self, queue: &Receiver<LogJob>) -> Result<LogJob, RecvTimeoutError> {
        match self.retry_at {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => queue.recv_timeout(at.saturating_duration_since(Instant::now())),
        }
    }

    /// Tries again what could not be written, if it is time.
    fn retry(&mut self, now: Instant) {
        if self.retry_at.is_none_or(|at| now < at) {
            return;
        }
        for key in self.failed.clone() {
            drop(self.write(key));
        }
        self.retry_at = (!self.failed.is_empty()).then(|| Instant::now() + RETRY_INTERVAL);
    }

    /// Knows a log as one that can or cannot be written. Whether that is news.
    fn fails(&mut self, key: LogKey, is_failing: bool) -> bool {
        let place = self.failed.iter().position(|failed| *failed == key);
        match (place, is_failing) {
            (None, true) => self.failed.push(key),
            (Some(place), false) => drop(self.failed.swap_remove(place)),
            (None, false) | (Some(_), true) => return false,
        }
        let failing = !self.failed.is_empty();
        self.failing
            .send_if_modified(|known| std::mem::replace(known, failing) != failing);
        self.retry_at = self.retry_at.filter(|_| failing);
        if failing {
            self.retry_at
                .get_or_insert_with(|| Instant::now() + RETRY_INTERVAL);
        }
        true
    }

    /// Uses the time until the next job, which it gives back, for what makes the next sync shorter.
    fn prepare(&mut self, queue: &Receiver<LogJob>) -> Option<LogJob> {
        loop {
            if let Ok(job) = queue.try_recv() {
                return Some(job);
            }
            let key = self.worn.pop()?;
            let Some(log) = self.logs.get_mut(&key) else {
                continue;
            };
            if let Err(error) = log.file.prepare() {
                tracing::warn!(%error, "room behind a thread's history was not made ready; the next flush writes it again");
            }
        }
    }

    fn batch(&mut self, first: LogJob, queue: &Receiver<LogJob>) {
        let mut next = Some(first);
        for _ in 0..BATCH_MAX {
            let Some(job) = next.take().or_else(|| queue.try_recv().ok()) else {
                break;
            };
            self.job(job);
        }
        for key in std::mem::take(&mut self.touched) {
            drop(self.write(key));
        }
    }

    fn job(&mut self, job: LogJob) {
        match job {
            LogJob::Open(key, file) => {
                self.logs.insert(
                    key,
                    Log {
                        file: *file,
                        rooms: Vec::new(),
                        traces: Vec::new(),
                    },
                );
            }
            LogJob::Records(key, records) => self.records(key, *records),
            LogJob::Append(key, appending) => self.append(key, *appending),
            LogJob::Update {
                log,
                update,
                materialise,
            } => self.update(log, update, materialise),
            LogJob::Close {
                log,
                id,
                holder,
                sync,
                done,
            } => match if sync { self.sync(log) } else { Ok(()) } {
                Ok(()) => {
                    self.let_go(log);
                    if !sync {
                        // What of it is not written never is: from the release on the file may be another's.
                        self.forget(log);
                    }
                    self.release(id, holder, Some(done));
                }
                Err(error) => done.tell(Err(error)),
            },
            LogJob::Forget(log) => self.forget(log),
            LogJob::Drop { log, id, holder } => {
                if let Err(error) = self.sync(log) {
                    tracing::warn!(%error, thread = %id, "a thread was closed and not all of its history is kept");
                }
                self.let_go(log);
                self.forget(log);
                self.release(id, holder, None);
            }
        }
    }

    fn forget(&mut self, key: LogKey) {
        self.touched.retain(|touched| *touched != key);
        self.logs.remove(&key);
        self.fails(key, false);
    }

    fn append(&mut self, key: LogKey, appending: Appending) {
        let Some(log) = self.logs.get_mut(&key) else {
            return;
        };
        for item in &appending.items {
            log.file.push(item);
        }
        log.rooms.extend(appending.room);
        if appending.trace.parent.is_sampled() {
            log.traces.push(appending.trace);
        }
        self.touch(key);
    }

    fn records(&mut self, key: LogKey, records: Records) {
        let Some(log) = self.logs.get_mut(&key) else {
            return;
        };
        log.file.push_records(&records.bytes, records.items);
        log.rooms.extend(records.room);
        log.traces.extend(records.traces);
        self.touch(key);
    }

    fn touch(&mut self, key: LogKey) {
        if !self.touched.contains(&key) {
            self.touched.push(key);
        }
    }

    /// Writes what waits of one log; what cannot be written keeps its room.
    fn write(&mut self, key: LogKey) -> Result<(), ThreadError> {
        let Some(log) = self.logs.get_mut(&key) else {
            return Ok(());
        };
        let began = Tick::now();
        let outcome = log.file.write();
        let now = Tick::now();
        let kind = outcome.as_ref().err().map(LogError::kind);
        for trace in &log.traces {
            self.collector
                .stage(Stage::new(&trace.inside(), semconv::span::LOG_APPEND, began, now).failed(kind));
        }
        match outcome {
            Ok(()) => {
                log.rooms.clear();
                for trace in log.traces.drain(..) {
                    let name = semconv::span::THREAD_APPEND;
                    let stage = Stage::with_id(&trace.parent, trace.span, name, trace.called, now);
                    self.collector.stage(stage);
                }
                self.fails(key, false);
                Ok(())
            }
            Err(error) => {
                if self.fails(key, true) {
                    tracing::warn!(%error, "a thread's history was not written; it is tried again");
                }
                Err(ThreadError::Log(Arc::new(error)))
            }
        }
    }

    fn sync(&mut self, key: LogKey) -> Result<(), ThreadError> {
        self.touched.retain(|touched| *touched != key);
        self.write(key)?;
        let Some(log) = self.logs.get_mut(&key) else {
            return Ok(());
        };
        log.file.sync().map_err(|error| {
            tracing::warn!(%error, "a thread's history was not synced; the next flush tries again");
            ThreadError::Log(Arc::new(error))
        })?;
        if !self.worn.contains(&key) {
            self.worn.push(key);
        }
        Ok(())
    }

    /// Before the lease is given back: afterwards the log is another's.
    fn let_go(&mut self, key: LogKey) {
        if let Some(log) = self.logs.get_mut(&key) {
            log.file.let_go();
        }
    }

    fn update(&mut self, key: LogKey, mut update: Box<Update>, materialise: bool) {
        if materialise && let Some(log) = self.logs.get_mut(&key) {
            log.file.materialise();
        }
        let began = Tick::now();
        let idle = self.logs.get(&key).is_some_and(|log| log.file.is_durable());
        let synced = self.sync(key);
        if !idle && update.context.is_sampled() {
            let kind = synced.as_ref().err().map(ThreadError::kind);
            self.collector
                .stage(Stage::new(&update.context, semconv::span::LOG_SYNC, began, Tick::now()).failed(kind));
        }
        let Some(log) = self.logs.get(&key) else {
            return update.done.tell(Err(ThreadError::Closed));
        };
        match synced {
            Ok(()) => {
                update.patch.items = Some(log.file.items());
                update.patch.log_bytes = Some(log.file.durable_bytes());
                // The store's thread never waits for this one, so this ends. Dropped, the update tells of it.
                drop(self.store.send(Job::Update(update)));
            }
            Err(error) => update.done.tell(Err(error)),
        }
    }

    fn release(&self, id: ThreadId, holder: Holder, done: Option<Done>) {
        let job = Job::Ask(Box::new(move |store| {
            let released = if store.is_poisoned() {
                store.reopen().and_then(|()| store.release(id, &holder))
            } else {
                store.release(id, &holder)
            };
            if let Err(error) = &released {
                tracing::warn!(%error, thread = %id, "a thread's lease was not given back; it ends with this process");
            }
            if let Some(done) = done {
                done.tell(released.map_err(|error| ThreadError::Store(Arc::new(error))));
            }
        }));
        drop(self.store.send(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::{ItemKind, LogReader, Step};
    use crate::telemetry::CollectorOptions;

    const LOG: LogKey = LogKey(1);
    const THREAD: ThreadId = ThreadId([9; 16]);

    /// Items in a log's file after its thread was closed in the same breath in which something was appended; and whether
    /// the lease was given back.
    fn closed(sync: bool) -> (u64, bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.log");
        let (jobs, queue) = sync_channel(8);
        let (store, asked) = sync_channel(8);
        let collector = Collector::start(CollectorOptions {
            role: dwell_messages::Role::Harness,
            keep_recent: false,
            sinks: Vec::new(),
        });
        let mut worker = Worker {
            logs: HashMap::new(),
            touched: Vec::new(),
            worn: Vec::new(),
            failed: Vec::new(),
            retry_at: None,
            store,
            failing: watch::channel(false).0,
            collector: collector.unwrap(),
        };
        let item = Item {
            kind: ItemKind::Note,
            at_unix_us: 0,
            body: vec![1; 100],
        };
        let mut records = Records {
            items: 1,
            ..Records::default()
        };
        crate::event_log::encode_record(&mut records.bytes, 0, &item);
        jobs.send(LogJob::Records(LOG, Box::new(records))).unwrap();
        jobs.send(LogJob::Close {
            log: LOG,
            id: THREAD,
            holder: Holder::of_this_process(),
            sync,
            done: Done::new(drop),
        })
        .unwrap();
        let log = LogFile::unmade(path.clone(), THREAD);
        worker.batch(LogJob::Open(LOG, Box::new(log)), &queue);
        let released = matches!(asked.try_recv(), Ok(Job::Ask(_)));
        let Ok(file) = std::fs::File::open(&path) else {
            return (0, released);
        };
        let mut reader = LogReader::new(file, THREAD);
        while matches!(reader.step().unwrap(), Step::Item(_)) {}
        (reader.items(), released)
    }

    /// Regression: a discarded thread's last appends were written after its lease was given back, where the next writer's
    /// may be.
    #[test]
    fn nothing_is_written_to_a_log_once_its_thread_is_given_back() {
        assert_eq!(closed(false), (0, true));
        // What a shutdown writes it writes before.
        assert_eq!(closed(true), (1, true));
    }
}
