//! `RunRecorder`: what ran, kept off the delivery path.
//!
//! Owns the records that the store's thread does not have yet. Never touches the disk: that thread does, behind a
//! bounded channel. Full: the sender's pump waits. Stop: a barrier; everything accepted is in the store, or the
//! barrier says why not. Who sends: the `TerminalDelivery` of each run.

use std::time::Duration;

use dwell_messages::{Envelope, ErrorCode, ExitStatus, TraceContext};

use crate::feed::{FEED_RETRY, Fed, Feed};
use crate::harness::{Ended, RunError};
use crate::mailbox::{Actor, Mailbox, Message, Reply, TimerGuard, Turn};
pub(crate) use crate::metadata_store::worker::Run;
use crate::metadata_store::worker::{BATCH_MAX, Job, StoreHandle};
use crate::metadata_store::{ProgramName, RunDurations, RunRecord, RunStatus};
use crate::telemetry::{Anchor, Tick};
use crate::terminal_delivery::receive::RunFacts;

/// Records that may lie in the mailbox.
pub const RUN_RECORDER_MAILBOX_MAX: usize = 256;
/// How long a record waits for others: waking the store's thread for each costs its caller more than the record does.
const GATHER: Duration = Duration::from_millis(3);

impl Run {
    pub(crate) fn new(facts: &RunFacts, program: &[u8], end: &Result<Ended, RunError>) -> Self {
        let started_ns = Anchor::take().unix_ns(facts.begun);
        let started_unix_us = i64::try_from(started_ns / 1_000).unwrap_or(i64::MAX);
        let name = ProgramName::from_argv0(program);
        let mut record = RunRecord::started(&facts.context, facts.process, name, started_unix_us);
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
pub(crate) enum RunRecorderMessage {
    /// A run has ended.
    Record(Box<Run>),
    /// Answer when everything before this is in the store.
    Barrier(Reply<Result<(), String>>),
}

/// What it is told urgently.
pub(crate) enum RunRecorderControl {
    /// Offer what waits, also again what found the queue full.
    Retry,
}

impl Message for RunRecorderMessage {
    const NAMES: &'static [&'static str] = &["Record", "Barrier"];

    fn index(&self) -> usize {
        match self {
            Self::Record(_) => 0,
            Self::Barrier(_) => 1,
        }
    }
}

/// See the module.
pub(crate) struct RunRecorder {
    feed: Feed<Job>,
    /// Set while records wait for others to wake the store's thread with.
    gathering: Option<TimerGuard>,
}

impl RunRecorder {
    pub(crate) fn new(store: &StoreHandle) -> Self {
        Self {
            feed: Feed::new(store.jobs()),
            gathering: None,
        }
    }

    /// Order is kept: nothing passes what waits.
    fn offer(&mut self, job: Job, turn: &mut Turn<'_, Self>) {
        let room = turn.take_room();
        let in_no_hurry = matches!(job, Job::Run(..)) && self.feed.waiting() < BATCH_MAX;
        self.feed.queue(job, room);
        if in_no_hurry {
            self.gathering
                .get_or_insert_with(|| turn.timer(GATHER, RunRecorderControl::Retry));
        } else {
            self.push(turn);
        }
    }

    fn push(&mut self, turn: &Turn<'_, Self>) {
        self.gathering = None;
        match self.feed.push() {
            Fed::All => {}
            Fed::Full => turn.timer(FEED_RETRY, RunRecorderControl::Retry).detach(),
            Fed::Gone(jobs) => jobs.into_iter().for_each(gone),
        }
    }
}

fn gone(job: Job) {
    match job {
        Job::Barrier(reply) => reply.send(Err("the store's thread is gone".into())),
        Job::Run(..) => tracing::error!("a run was not recorded: the store's thread is gone"),
        Job::Update(_) | Job::Ask(_) => {}
    }
}

/// Everything accepted before this call is in the store when it returns.
///
/// # Errors
/// Why something is not.
pub(crate) async fn barrier(recorder: &Mailbox<RunRecorder>) -> Result<(), String> {
    match recorder
        .ask(TraceContext::default(), RunRecorderMessage::Barrier)
        .await
    {
        Ok(outcome) => outcome,
        Err(error) => Err(error.to_string()),
    }
}

impl Actor for RunRecorder {
    const NAME: &'static str = "RunRecorder";
    type Message = RunRecorderMessage;
    type Control = RunRecorderControl;

    fn receive(&mut self, envelope: Envelope<RunRecorderMessage>, turn: &mut Turn<'_, Self>) {
        let job = match envelope.body {
            RunRecorderMessage::Record(run) => Job::Run(run, Tick::now()),
            RunRecorderMessage::Barrier(reply) => Job::Barrier(reply),
        };
        self.offer(job, turn);
    }

    fn control(&mut self, control: RunRecorderControl, turn: &mut Turn<'_, Self>) {
        match control {
            RunRecorderControl::Retry => self.push(turn),
        }
    }

    fn drained(&mut self, turn: &mut Turn<'_, Self>) {
        self.push(turn);
    }
}
