//! `MetadataWriter`: what ran, kept off the delivery path.
//!
//! Owns the records that the store does not have yet. Never touches the disk: a thread of its own does, behind a
//! bounded channel. Full: the sender's pump waits. Stop: a barrier; everything accepted is in the store, or the
//! barrier says why not. Who sends: the `TerminalDelivery` of each run.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use dwell_messages::{Envelope, ErrorCode, ExitStatus, TraceContext};

use crate::harness::{Ended, RunError};
use crate::mailbox::{Actor, Mailbox, Message, Reply, TimerGuard, Turn};
use crate::run_store::{ProgramName, RunDurations, RunRecord, RunStatus, RunStore, StoreError};
use crate::telemetry::{Anchor, Collector, Stage, Tick};
use crate::terminal_delivery::receive::RunFacts;

/// Records that may lie in the mailbox.
pub const METADATA_MAILBOX_MAX: usize = 256;
/// Records that may wait for the disk.
pub const METADATA_QUEUE_MAX: usize = 1_024;
/// Records written in one transaction.
const BATCH_MAX: usize = 64;
/// How long a full queue is left alone before the record is offered again.
const RETRY: Duration = Duration::from_millis(5);
/// How long a record waits for others: waking the store's thread for each costs its caller more than the record does.
const GATHER: Duration = Duration::from_millis(3);

/// One run, as it ended.
pub(crate) struct Run {
    record: RunRecord,
    context: TraceContext,
}

impl Run {
    pub(crate) fn new(facts: &RunFacts, program: &[u8], end: &Result<Ended, RunError>) -> Self {
        let started_ns = Anchor::take().unix_ns(facts.begun);
        let started_unix_us = i64::try_from(started_ns / 1_000).unwrap_or(i64::MAX);
        let name = ProgramName::from_argv0(program);
        let mut record = RunRecord::started(facts.context.trace_id, facts.process, name, started_unix_us);
        match end {
            Ok(ended) => {
                let closed = &ended.closed;
                let micros = |value: u64| Some(value);
                record.status = match ended.status {
                    ExitStatus::Code(code) => RunStatus::Exited(code),
                    ExitStatus::Signal(signal) => RunStatus::Signaled(signal),
                };
                record.durations = RunDurations {
                    total_us: micros(ended.account.total_ns() / 1_000),
                    spawn_us: micros(closed.timings.spawn),
                    first_byte_us: micros(closed.timings.first_byte),
                    run_us: micros(closed.timings.run),
                    drain_us: micros(closed.timings.drain),
                };
                record.stdout_bytes = micros(closed.stdout_end);
                record.stderr_bytes = micros(closed.stderr_end);
            }
            Err(RunError::Refused(error)) if error.code == ErrorCode::SpawnFailed => {
                record.status = RunStatus::SpawnFailed(error.errno.unwrap_or(0));
            }
            Err(_) => record.status = RunStatus::Unknown,
        }
        Self {
            record,
            context: facts.context.clone(),
        }
    }
}

/// What it is told.
pub(crate) enum MetadataMessage {
    /// A run has ended.
    Record(Box<Run>),
    /// Answer when everything before this is in the store.
    Barrier(Reply<Result<(), String>>),
}

/// What it is told urgently.
pub(crate) enum MetadataControl {
    /// Offer what waits, also again what found the queue full.
    Retry,
}

impl Message for MetadataMessage {
    const NAMES: &'static [&'static str] = &["Record", "Barrier"];

    fn index(&self) -> usize {
        match self {
            Self::Record(_) => 0,
            Self::Barrier(_) => 1,
        }
    }
}

enum Job {
    Record(Box<Run>, Tick),
    Barrier(Reply<Result<(), String>>),
}

/// See the module.
pub(crate) struct MetadataWriter {
    jobs: SyncSender<Job>,
    waiting: std::collections::VecDeque<(Job, Option<crate::mailbox::Room>)>,
    /// Set while records wait for others to wake the store's thread with.
    gathering: Option<TimerGuard>,
}

impl MetadataWriter {
    /// Starts the store's thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start_worker(
        store: Box<dyn RunStore>,
        collector: Collector,
    ) -> std::io::Result<MetadataHandle> {
        let (jobs, queue) = sync_channel(METADATA_QUEUE_MAX);
        std::thread::Builder::new()
            .name("dwell-store".into())
            .spawn(move || work(store, &collector, &queue))?;
        Ok(MetadataHandle(jobs))
    }

    pub(crate) fn new(handle: &MetadataHandle) -> Self {
        Self {
            jobs: handle.0.clone(),
            waiting: std::collections::VecDeque::new(),
            gathering: None,
        }
    }

    /// Order is kept: nothing passes what waits. What waits keeps its room in the mailbox, which bounds it.
    fn offer(&mut self, job: Job, turn: &mut Turn<'_, Self>) {
        let room = turn.take_room();
        let in_no_hurry = matches!(job, Job::Record(..)) && self.waiting.len() < BATCH_MAX;
        self.waiting.push_back((job, room));
        if in_no_hurry {
            self.gathering
                .get_or_insert_with(|| turn.timer(GATHER, MetadataControl::Retry));
        } else {
            self.push(turn);
        }
    }

    fn push(&mut self, turn: &Turn<'_, Self>) {
        self.gathering = None;
        while let Some((job, room)) = self.waiting.pop_front() {
            match self.jobs.try_send(job) {
                Ok(()) => drop(room),
                Err(TrySendError::Full(job)) => {
                    self.waiting.push_front((job, room));
                    return turn.timer(RETRY, MetadataControl::Retry).detach();
                }
                Err(TrySendError::Disconnected(Job::Barrier(reply))) => {
                    reply.send(Err("the store's thread is gone".into()));
                }
                Err(TrySendError::Disconnected(Job::Record(..))) => {
                    tracing::error!("a run was not recorded: the store's thread is gone");
                }
            }
        }
    }
}

/// The sending end of the store's thread.
#[derive(Clone)]
pub(crate) struct MetadataHandle(SyncSender<Job>);

/// Everything accepted before this call is in the store when it returns.
///
/// # Errors
/// Why something is not.
pub(crate) async fn barrier(writer: &Mailbox<MetadataWriter>) -> Result<(), String> {
    match writer
        .ask(TraceContext::default(), MetadataMessage::Barrier)
        .await
    {
        Ok(outcome) => outcome,
        Err(error) => Err(error.to_string()),
    }
}

/// The store's thread: batches what waits, one transaction a batch, and answers barriers in their order.
fn work(mut store: Box<dyn RunStore>, collector: &Collector, queue: &Receiver<Job>) {
    let mut failed: Option<String> = None;
    while let Ok(first) = queue.recv() {
        let mut batch = Vec::new();
        let mut barriers = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next.take() {
            match job {
                Job::Record(run, queued) => batch.push((run, queued)),
                Job::Barrier(reply) => {
                    barriers.push(reply);
                    break;
                }
            }
            if batch.len() < BATCH_MAX {
                next = queue.try_recv().ok();
            }
        }
        if let Err(error) = apply(store.as_mut(), collector, &batch) {
            tracing::warn!(%error, "runs were not recorded");
            failed = Some(error.to_string());
        }
        for reply in barriers {
            reply.send(failed.take().map_or(Ok(()), Err));
        }
    }
}

fn apply(
    store: &mut dyn RunStore,
    collector: &Collector,
    batch: &[(Box<Run>, Tick)],
) -> Result<(), StoreError> {
    if batch.is_empty() {
        return Ok(());
    }
    let began = Tick::now();
    let records: Vec<_> = batch.iter().map(|(run, _)| run.record.clone()).collect();
    let outcome = store.record(&records);
    let now = Tick::now();
    let error = outcome.is_err().then_some("store_failed");
    for (run, queued) in batch {
        collector.stage(Stage::new(&run.context, "metadata queue", *queued, began));
        collector.stage(
            Stage::new(&run.context, "metadata apply", began, now)
                .number("metadata.batch", batch.len() as u64)
                .failed(error),
        );
    }
    outcome
}

impl Actor for MetadataWriter {
    const NAME: &'static str = "MetadataWriter";
    type Message = MetadataMessage;
    type Control = MetadataControl;

    fn receive(&mut self, envelope: Envelope<MetadataMessage>, turn: &mut Turn<'_, Self>) {
        let job = match envelope.body {
            MetadataMessage::Record(run) => Job::Record(run, Tick::now()),
            MetadataMessage::Barrier(reply) => Job::Barrier(reply),
        };
        self.offer(job, turn);
    }

    fn control(&mut self, control: MetadataControl, turn: &mut Turn<'_, Self>) {
        match control {
            MetadataControl::Retry => self.push(turn),
        }
    }

    fn drained(&mut self, turn: &mut Turn<'_, Self>) {
        self.push(turn);
    }
}
