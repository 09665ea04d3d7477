//! The store's thread: the only one that blocks on the database.
//!
//! Jobs come through a bounded channel and are done in their order; runs that lie next to each other share a transaction.
//! A store that an earlier failure has poisoned is opened again before the next write is tried. A job that panics fails
//! alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use dwell_messages::TraceContext;

use super::{Holder, MetadataStore, RunRecord, StoreError, ThreadId, ThreadPatch};
use crate::fault_point::delay::{self, DelayPoint};
use crate::fault_point::{FaultPoint, reach};
use crate::mailbox::Reply;
use crate::telemetry::{Collector, Stage, Tick, semconv};
use crate::threads::ThreadError;

/// Jobs that may wait for the database.
pub const METADATA_QUEUE_MAX: usize = 1_024;
/// Runs written in one transaction.
pub(crate) const BATCH_MAX: usize = 64;

/// One run's record, with the trace of its call.
pub(crate) struct Run {
    pub(crate) record: RunRecord,
    pub(crate) context: TraceContext,
}

/// Whatever else is wanted of the store.
pub(crate) type Question = Box<dyn FnOnce(&mut dyn MetadataStore) + Send>;

/// What the thread is to do.
pub(crate) enum Job {
    /// Keep a run, queued then.
    Run(Box<Run>, Tick),
    /// Answer when every run before this is kept, or say why one is not.
    Barrier(Reply<Result<(), String>>),
    /// Change a thread's record.
    Update(Box<Update>),
    /// Anything else with the store.
    Ask(Question),
}

/// One change of a thread's record.
pub(crate) struct Update {
    pub(crate) id: ThreadId,
    pub(crate) holder: Holder,
    pub(crate) patch: ThreadPatch,
    pub(crate) context: TraceContext,
    /// When the oldest change in it was accepted.
    pub(crate) oldest: Tick,
    pub(crate) done: Done,
}

/// Is told once what came of something; that it was lost, when it is dropped before.
pub(crate) struct Done(Option<Told>);

type Told = Box<dyn FnOnce(Result<(), ThreadError>) + Send>;

impl Done {
    pub(crate) fn new(told: impl FnOnce(Result<(), ThreadError>) + Send + 'static) -> Self {
        Self(Some(Box::new(told)))
    }

    pub(crate) fn tell(mut self, outcome: Result<(), ThreadError>) {
        if let Some(told) = self.0.take() {
            told(outcome);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            told(Err(ThreadError::WorkerFailed));
        }
    }
}

/// The sending end of the store's thread, which ends with the last of them.
#[derive(Clone)]
pub(crate) struct StoreHandle(SyncSender<Job>);

impl StoreHandle {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(store: Box<dyn MetadataStore>, collector: Collector) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(METADATA_QUEUE_MAX);
        let worker = Worker {
            store,
            collector,
            failed: None,
        };
        std::thread::Builder::new()
            .name("dwell-store".into())
            .spawn(move || worker.work(&queue))?;
        Ok(Self(jobs))
    }

    pub(crate) fn jobs(&self) -> SyncSender<Job> {
        self.0.clone()
    }

    /// Asks the store something, from anywhere but an actor's turn. Waits for room without blocking a runtime.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut dyn MetadataStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ThreadError> {
        let (reply, answer) = Reply::channel();
        let job = Job::Ask(Box::new(move |store| reply.send(retrying(store, question))));
        // A full channel means that the database is slow: nobody's turn is held up by this thread.
        let jobs = self.0.clone();
        match jobs.try_send(job) {
            Ok(()) => {}
            Err(std::sync::mpsc::TrySendError::Full(_)) => return Err(ThreadError::Overloaded),
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return Err(ThreadError::WorkerFailed),
        }
        answer
            .await
            .map_err(|_| ThreadError::WorkerFailed)?
            .map_err(|error| ThreadError::Store(Arc::new(error)))
    }
}

impl StoreHandle {
    /// Gives a lease back, if the store has time for it: else it ends with this process.
    pub(crate) fn release(&self, id: ThreadId, holder: Holder) {
        let job = Job::Ask(Box::new(move |store| {
            if let Err(error) = retrying(store, |store| store.release(id, &holder)) {
                tracing::warn!(%error, thread = %id, "a thread's lease was not given back; it ends with this process");
            }
        }));
        drop(self.0.try_send(job));
    }
}

/// A poisoned store is opened again first.
fn retrying<T>(
    store: &mut dyn MetadataStore,
    work: impl FnOnce(&mut dyn MetadataStore) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if store.is_poisoned() {
        tracing::warn!("the store is opened again after a failed write");
        store.reopen()?;
    }
    work(store)
}

struct Worker {
    store: Box<dyn MetadataStore>,
    collector: Collector,
    /// Why runs since the last barrier were not kept.
    failed: Option<String>,
}

impl Worker {
    fn work(mut self, queue: &Receiver<Job>) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| queue.recv().ok()) {
            // Whoever waits for a job that panics is told by what it drops.
            let done = catch_unwind(AssertUnwindSafe(|| self.job(job, queue)));
            match done {
                Ok(left) => next = left,
                Err(_) => {
                    tracing::error!("the store's thread panicked on a job, which is lost");
                    self.failed = Some("the store's thread panicked".into());
                }
            }
        }
    }

    /// Does a job, and gives back one that it took from the queue and did not do.
    fn job(&mut self, job: Job, queue: &Receiver<Job>) -> Option<Job> {
        match job {
            Job::Run(run, queued) => return self.runs((run, queued), queue),
            Job::Barrier(reply) => reply.send(self.failed.take().map_or(Ok(()), Err)),
            Job::Update(update) => self.update(*update),
            Job::Ask(question) => question(self.store.as_mut()),
        }
        None
    }

    fn runs(&mut self, first: (Box<Run>, Tick), queue: &Receiver<Job>) -> Option<Job> {
        let mut batch = vec![first];
        let mut left = None;
        while batch.len() < BATCH_MAX && left.is_none() {
            match queue.try_recv() {
                Ok(Job::Run(run, queued)) => batch.push((run, queued)),
                Ok(other) => left = Some(other),
                Err(_) => break,
            }
        }
        let began = Tick::now();
        delay::reach(DelayPoint::HarnessStore);
        let records: Vec<_> = batch.iter().map(|(run, _)| run.record.clone()).collect();
        let outcome = retrying(self.store.as_mut(), |store| store.record_runs(&records));
        let now = Tick::now();
        let kind = outcome.as_ref().err().map(StoreError::kind);
        for (run, queued) in &batch {
            self.collector.stage(Stage::new(
                &run.context,
                semconv::span::METADATA_QUEUE,
                *queued,
                began,
            ));
            self.collector.stage(
                Stage::new(&run.context, semconv::span::METADATA_APPLY, began, now)
                    .number(semconv::METADATA_BATCH, batch.len() as u64)
                    .failed(kind),
            );
        }
        if let Err(error) = outcome {
            tracing::warn!(%error, "runs were not recorded");
            self.failed = Some(error.to_string());
        }
        left
    }

    fn update(&mut self, update: Update) {
        let Update {
            id,
            holder,
            patch,
            context,
            oldest,
            done,
        } = update;
        let began = Tick::now();
        reach(FaultPoint::BeforeCommit);
        let outcome = retrying(self.store.as_mut(), |store| {
            store.update_thread(id, &holder, &patch)
        });
        reach(FaultPoint::AfterCommit);
        let now = Tick::now();
        let kind = outcome.as_ref().err().map(StoreError::kind);
        if let Err(error) = &outcome {
            tracing::warn!(%error, thread = %id, "a thread's metadata was not written; the next flush tries again");
        }
        done.tell(outcome.map_err(|error| ThreadError::Store(Arc::new(error))));
        if context.is_sampled() {
            self.collector
                .stage(Stage::new(&context, semconv::span::METADATA_QUEUE, oldest, began));
            self.collector
                .stage(Stage::new(&context, semconv::span::METADATA_APPLY, began, now).failed(kind));
        }
    }
}
