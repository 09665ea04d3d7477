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
use tokio::sync::watch;

use super::error::LogError;
use super::file::LogFile;
use super::format::Item;
use crate::metadata_store::worker::{Done, Job, Update};
use crate::metadata_store::{Holder, ThreadId};
use crate::telemetry::{Collector, Stage, Tick, semconv};
use crate::threads::{AppendRoom, ThreadError};

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
    /// Keep a log, which nobody else has open, and tell how many bytes of what was appended to it cannot be written.
    Open(LogKey, Box<LogFile>, watch::Sender<usize>),
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
    pub(crate) room: Option<AppendRoom>,
    pub(crate) trace: AppendTrace,
}

/// Some appends' items as they are in the log: whole records, whose numbers go on where those before them end.
#[derive(Default)]
pub(crate) struct Records {
    pub(crate) bytes: Vec<u8>,
    pub(crate) items: u64,
    /// Room for the bytes of all of them.
    pub(crate) room: Option<AppendRoom>,
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
    room: Option<AppendRoom>,
    traces: Vec<AppendTrace>,
    /// How many bytes of that could not be written.
    stuck: watch::Sender<usize>,
}

impl Log {
    /// Bytes that are not in the file yet.
    fn waiting(&self) -> usize {
        self.room.as_ref().map_or(0, AppendRoom::bytes)
    }
}

/// The sending end of the thread, which ends with the last of them.
#[derive(Clone)]
pub(crate) struct LogHandle(SyncSender<LogJob>);

impl LogHandle {
    /// Starts the thread. `stuck` is how many bytes of what was appended cannot be written.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(
        store: SyncSender<Job>,
        stuck: watch::Sender<usize>,
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
            stuck,
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
    /// What waits for these.
    stuck: watch::Sender<usize>,
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
                    self.distrust();
                }
            }
        }
    }

    /// After a panic: nothing that was not synced counts as written, and what somebody's room waits for is tried again
    /// unasked.
    fn distrust(&mut self) {
        for log in self.logs.values_mut() {
            log.file.distrust();
        }
        let waiting = self.logs.iter().filter(|(_, log)| log.room.is_some());
        for key in waiting.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.fails(key, true);
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
        // Before the first: should it panic, the next try has its time too.
        self.retry_at = Some(now + RETRY_INTERVAL);
        for key in self.failed.clone() {
            drop(self.write(key));
        }
        self.retry_at = (!self.failed.is_empty()).then(|| Instant::now() + RETRY_INTERVAL);
    }

    /// Knows a log as one that can or cannot be written, and tells how much waits for it. Whether the first is news.
    fn fails(&mut self, key: LogKey, is_failing: bool) -> bool {
        let place = self.failed.iter().position(|failed| *failed == key);
        match (place, is_failing) {
            (None, false) => return false,
            (None, true) => self.failed.push(key),
            (Some(place), false) => drop(self.failed.swap_remove(place)),
            (Some(_), true) => {}
        }
        let mut all = 0;
        for failed in &self.failed {
            let log = self.logs.get(failed);
            all += log.map_or(0, Log::waiting);
        }
        if let Some(log) = self.logs.get(&key) {
            log.stuck.send_replace(if is_failing { log.waiting() } else { 0 });
        }
        self.stuck.send_replace(all);
        self.retry_at = if self.failed.is_empty() {
            None
        } else {
            self.retry_at.or_else(|| Some(Instant::now() + RETRY_INTERVAL))
        };
        place.is_some() != is_failing
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
            LogJob::Open(key, file, stuck) => {
                let log = Log {
                    file: *file,
                    room: None,
                    traces: Vec::new(),
                    stuck,
                };
                self.logs.insert(key, log);
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
        AppendRoom::merge(&mut log.room, appending.room);
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
        AppendRoom::merge(&mut log.room, records.room);
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
                log.room = None;
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
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::event_log::{ItemKind, LogReader, Step};
    use crate::fault_point::{self, FaultPoint};
    use crate::telemetry::CollectorOptions;

    const LOG: LogKey = LogKey(1);
    const THREAD: ThreadId = ThreadId([9; 16]);

    /// A worker, what it is told, what it asks of the store, and how much it says that cannot be written.
    struct Bench {
        worker: Worker,
        jobs: SyncSender<LogJob>,
        queue: Receiver<LogJob>,
        asked: Receiver<Job>,
        stuck: watch::Receiver<usize>,
    }

    fn bench() -> Bench {
        let (jobs, queue) = sync_channel(8);
        let (store, asked) = sync_channel(8);
        let (all_stuck, stuck) = watch::channel(0);
        let collector = Collector::start(CollectorOptions {
            role: dwell_messages::Role::Harness,
            keep_recent: false,
            sinks: Vec::new(),
        });
        let worker = Worker {
            logs: HashMap::new(),
            touched: Vec::new(),
            worn: Vec::new(),
            failed: Vec::new(),
            retry_at: None,
            store,
            stuck: all_stuck,
            collector: collector.unwrap(),
        };
        Bench {
            worker,
            jobs,
            queue,
            asked,
            stuck,
        }
    }

    fn open(path: &Path) -> LogJob {
        let log = LogFile::unmade(path.to_owned(), THREAD);
        LogJob::Open(LOG, Box::new(log), watch::channel(0).0)
    }

    /// One item.
    fn records(room: Option<AppendRoom>) -> LogJob {
        let item = Item {
            kind: ItemKind::Note,
            at_unix_us: 0,
            body: vec![1; 100],
        };
        let mut records = Records {
            items: 1,
            room,
            ..Records::default()
        };
        crate::event_log::encode_record(&mut records.bytes, 0, &item);
        LogJob::Records(LOG, Box::new(records))
    }

    fn items(path: &Path) -> u64 {
        let Ok(file) = std::fs::File::open(path) else {
            return 0;
        };
        let mut reader = LogReader::new(file, THREAD);
        while matches!(reader.step().unwrap(), Step::Item(_)) {}
        reader.items()
    }

    /// Items in a log's file after its thread was closed in the same breath in which something was appended; and whether
    /// the lease was given back.
    fn closed(sync: bool) -> (u64, bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.log");
        let mut bench = bench();
        bench.jobs.send(records(None)).unwrap();
        let close = LogJob::Close {
            log: LOG,
            id: THREAD,
            holder: Holder::of_this_process(),
            sync,
            done: Done::new(drop),
        };
        bench.jobs.send(close).unwrap();
        bench.worker.batch(open(&path), &bench.queue);
        let released = matches!(bench.asked.try_recv(), Ok(Job::Ask(_)));
        (items(&path), released)
    }

    /// Regression: a discarded thread's last appends were written after its lease was given back, where the next writer's
    /// may be.
    #[test]
    fn nothing_is_written_to_a_log_once_its_thread_is_given_back() {
        assert_eq!(closed(false), (0, true));
        // What a shutdown writes it writes before.
        assert_eq!(closed(true), (1, true));
    }

    /// The thread that panics when it first writes.
    const PANICS: &str = "log-that-panics";

    fn panic_once(point: FaultPoint) {
        static HAS: AtomicBool = AtomicBool::new(false);
        let is_it = std::thread::current().name() == Some(PANICS);
        if is_it && point == FaultPoint::BeforeWrite && !HAS.swap(true, Ordering::Relaxed) {
            panic!("injected");
        }
    }

    /// Regression: nobody wrote what a panic had interrupted before somebody asked for more of the same thread, and
    /// whoever waited for its room did not.
    #[tokio::test]
    async fn what_a_panic_interrupts_is_written_unasked_and_its_room_is_given_back() {
        fault_point::set(panic_once);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.log");
        let Bench {
            worker,
            jobs,
            queue,
            mut stuck,
            ..
        } = bench();
        let room = Arc::new(Semaphore::new(1_000));
        jobs.send(open(&path)).unwrap();
        jobs.send(records(Some(AppendRoom::of(&room, 400)))).unwrap();
        let thread = std::thread::Builder::new().name(PANICS.into());
        let thread = thread.spawn(move || worker.work(&queue)).unwrap();
        let bound = Duration::from_secs(30);
        let whole = tokio::time::timeout(bound, room.acquire_many(1_000)).await;
        drop(whole.expect("its room is given back").unwrap());
        assert_eq!(items(&path), 1);
        let told = tokio::time::timeout(bound, stuck.wait_for(|bytes| *bytes == 0)).await;
        drop(told.expect("it is known not to").unwrap());
        drop(jobs);
        thread.join().unwrap();
    }
}
