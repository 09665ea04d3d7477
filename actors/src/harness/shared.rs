//! Where one run's events meet their consumer: the one place where two threads look at the same state.
//!
//! The arbiter's side never waits and never holds the lock while it does anything else; the consumer is woken only
//! for what it waits for, because a wake-up of another thread costs more than everything else here.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use dwell_messages::process::Gap;
use dwell_messages::{OutputStream, ProcessId};

use crate::in_flight::{Call, Entered, Stage};
use crate::mailbox::Mailbox;
use crate::telemetry::{ThreadTag, Tick, count_crossing, thread_tag};
use crate::terminal_delivery::receive::{ReceiveControl, TerminalDelivery};
use crate::terminal_delivery::{Captured, Collector, OUTPUT_WINDOW_BYTES};

use super::run::{Ended, RunError, RunEvent};
use crate::dispatcher::{Begun, DispatchGuard, DispatchOutcome, DispatchTimings};

/// How the consumer takes the run.
#[derive(Debug)]
enum Mode {
    /// Event by event.
    Stream,
    /// All at the end: output is collected here and the consumer sleeps until then.
    Collect { stdout: Collector, stderr: Collector },
}

#[derive(Debug)]
struct Inner {
    mode: Mode,
    queue: VecDeque<RunEvent>,
    end: Option<Result<Ended, RunError>>,
    end_put: Option<Tick>,
    /// Whoever waits for an event or the end, and on which thread.
    waker: Option<(Waker, ThreadTag)>,
    /// Whoever waits to write as soon as it runs.
    start_waker: Option<Waker>,
    consumed: [u64; 2],
    /// What had been consumed when the arbiter was last told.
    told: [u64; 2],
    dropped: bool,
    cancelled: Option<Duration>,
    started: bool,
    process: Option<(ProcessId, Mailbox<TerminalDelivery>)>,
    /// Its place among what is unfinished, until its consumer has the end.
    call: Option<Entered<Call>>,
    /// Until its dispatch is told.
    dispatching: Option<DispatchGuard>,
    dispatched: DispatchTimings,
}

impl Inner {
    fn at(&self, stage: Stage) {
        if let Some(call) = &self.call {
            call.at(stage, Tick::now());
        }
    }
}

/// One run, between its `TerminalDelivery` and its `Run`.
#[derive(Debug)]
pub(crate) struct RunShared {
    inner: Mutex<Inner>,
}

/// What the consumer gets at the end.
#[derive(Debug)]
pub(crate) struct Final {
    pub(crate) ended: Result<Ended, RunError>,
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
    /// When the arbiter put the end here.
    pub(crate) put: Tick,
    pub(crate) dispatched: DispatchTimings,
}

impl RunShared {
    /// `dispatching` is of a call that was made here; one that is taken up was dispatched by another.
    pub(crate) fn new(call: Entered<Call>, dispatching: Option<DispatchGuard>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                mode: Mode::Stream,
                queue: VecDeque::new(),
                end: None,
                end_put: None,
                waker: None,
                start_waker: None,
                consumed: [0; 2],
                told: [0; 2],
                dropped: false,
                cancelled: None,
                started: false,
                process: None,
                call: Some(call),
                dispatching,
                dispatched: DispatchTimings::default(),
            }),
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        f(&mut self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Arbiter: an event. Returns the bytes of each stream consumed so far, which is what credit is restated from.
    pub(crate) fn put(&self, event: RunEvent) -> [u64; 2] {
        let (waker, consumed) = self.with(|inner| {
            let dropped = inner.dropped;
            let starting = matches!(event, RunEvent::Started { .. });
            match &event {
                RunEvent::Started { .. } => inner.at(Stage::Running),
                RunEvent::Exited(_) => inner.at(Stage::Draining),
                RunEvent::Stdout(_) | RunEvent::Stderr(_) | RunEvent::Gap(_) => {}
            }
            inner.started |= starting;
            if starting && let Some(waker) = inner.start_waker.take() {
                waker.wake();
            }
            match (&mut inner.mode, event) {
                (_, RunEvent::Stdout(data)) if dropped => inner.consumed[0] += data.len() as u64,
                (_, RunEvent::Stderr(data)) if dropped => inner.consumed[1] += data.len() as u64,
                (Mode::Collect { stdout, .. }, RunEvent::Stdout(data)) => {
                    inner.consumed[0] += data.len() as u64;
                    stdout.push(data);
                }
                (Mode::Collect { stderr, .. }, RunEvent::Stderr(data)) => {
                    inner.consumed[1] += data.len() as u64;
                    stderr.push(data);
                }
                // Somebody may wait to write as soon as it runs; else nobody is woken before the end.
                (Mode::Collect { stdout, stderr }, RunEvent::Gap(gap)) => match gap.stream {
                    OutputStream::Stdout => stdout.skip(gap.bytes()),
                    OutputStream::Stderr => stderr.skip(gap.bytes()),
                },
                (Mode::Collect { .. }, RunEvent::Started { .. } | RunEvent::Exited(_)) => {}
                (Mode::Stream, event) => {
                    inner.queue.push_back(event);
                    return (inner.waker.take(), inner.consumed);
                }
            }
            (None, inner.consumed)
        });
        wake(waker);
        consumed
    }

    /// Arbiter: the end. Only the first counts.
    pub(crate) fn end(&self, end: Result<Ended, RunError>, now: Tick) {
        // Before anybody knows of the end: whoever does may ask for the whole trace.
        let asked = self.is_cancelled();
        self.dispatched(now, DispatchOutcome::of(&end, asked), |_| true);
        let waker = self.with(|inner| {
            if inner.end.is_none() {
                inner.end = Some(end);
                inner.end_put = Some(now);
                inner.at(Stage::Consumer);
            }
            if let Some(waker) = inner.start_waker.take() {
                waker.wake();
            }
            inner.waker.take()
        });
        wake(waker);
    }

    /// Bytes of each stream the consumer has taken.
    pub(crate) fn consumed(&self) -> [u64; 2] {
        self.with(|inner| inner.consumed)
    }

    /// Consumer: the next event; `None` when the run is over.
    ///
    /// The flag says that so much was consumed that the arbiter should restate credit.
    pub(crate) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Option<(RunEvent, bool)>> {
        self.with(|inner| match inner.queue.pop_front() {
            Some(event) => {
                match &event {
                    RunEvent::Stdout(data) => inner.consumed[0] += data.len() as u64,
                    RunEvent::Stderr(data) => inner.consumed[1] += data.len() as u64,
                    RunEvent::Started { .. } | RunEvent::Gap(_) | RunEvent::Exited(_) => {}
                }
                let step = OUTPUT_WINDOW_BYTES / 4;
                let restate = (0..2).any(|i| inner.consumed[i] - inner.told[i] >= step);
                if restate {
                    inner.told = inner.consumed;
                }
                Poll::Ready(Some((event, restate)))
            }
            None if inner.end.is_some() => Poll::Ready(None),
            None => {
                inner.waker = Some((cx.waker().clone(), thread_tag()));
                Poll::Pending
            }
        })
    }

    /// Consumer: from now on only the end is wanted. What is queued is collected too; what was taken is not.
    ///
    /// The flag says that something was consumed which the arbiter has not been told of.
    pub(crate) fn collect(&self, limit: usize) -> bool {
        self.with(|inner| {
            if matches!(inner.mode, Mode::Collect { .. }) {
                return false;
            }
            let (mut stdout, mut stderr) = (Collector::new(limit), Collector::new(limit));
            let skip = |gap: Gap, into: &mut Collector| into.skip(gap.bytes());
            let mut take = |data: Bytes, stream: usize, into: &mut Collector| {
                inner.consumed[stream] += data.len() as u64;
                into.push(data);
            };
            for event in std::mem::take(&mut inner.queue) {
                match event {
                    RunEvent::Stdout(data) => take(data, 0, &mut stdout),
                    RunEvent::Stderr(data) => take(data, 1, &mut stderr),
                    RunEvent::Gap(gap) => match gap.stream {
                        OutputStream::Stdout => skip(gap, &mut stdout),
                        OutputStream::Stderr => skip(gap, &mut stderr),
                    },
                    RunEvent::Started { .. } | RunEvent::Exited(_) => {}
                }
            }
            inner.mode = Mode::Collect { stdout, stderr };
            let restate = inner.consumed != inner.told;
            inner.told = inner.consumed;
            restate
        })
    }

    /// Consumer: the end, once.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Final> {
        self.with(|inner| match inner.end.take() {
            Some(ended) => {
                let put = inner.end_put.unwrap_or_default();
                inner.call = None;
                let mode = std::mem::replace(&mut inner.mode, Mode::Stream);
                let (stdout, stderr) = match mode {
                    Mode::Stream => Default::default(),
                    Mode::Collect { stdout, stderr } => (stdout.finish(), stderr.finish()),
                };
                Poll::Ready(Final {
                    ended,
                    stdout,
                    stderr,
                    put,
                    dispatched: inner.dispatched,
                })
            }
            None => {
                inner.waker = Some((cx.waker().clone(), thread_tag()));
                Poll::Pending
            }
        })
    }

    /// Consumer: gone. Output is let through unread, so that the process can end.
    pub(crate) fn abandon(&self) {
        self.with(|inner| {
            inner.dropped = true;
            if inner.end_put.is_some() {
                inner.call = None;
            }
            for event in std::mem::take(&mut inner.queue) {
                match event {
                    RunEvent::Stdout(data) => inner.consumed[0] += data.len() as u64,
                    RunEvent::Stderr(data) => inner.consumed[1] += data.len() as u64,
                    RunEvent::Started { .. } | RunEvent::Gap(_) | RunEvent::Exited(_) => {}
                }
            }
        });
    }

    /// Arbiter: the call has its process id and its delivery. If its consumer gave up meanwhile it is told to end.
    pub(crate) fn begun(&self, process: ProcessId, delivery: &Mailbox<TerminalDelivery>) {
        let cancelled = self.with(|inner| {
            inner.process = Some((process, delivery.clone()));
            if let Some(call) = &inner.call {
                call.of_process(process);
            }
            inner.at(Stage::Window);
            inner.cancelled
        });
        if let Some(grace) = cancelled {
            drop(delivery.control(ReceiveControl::Terminate(grace)));
        }
    }

    /// Arbiter: a process that runs already, under another owner until now.
    pub(crate) fn adopted(&self, process: ProcessId, delivery: &Mailbox<TerminalDelivery>) {
        self.with(|inner| inner.started = true);
        self.begun(process, delivery);
        self.at(Stage::Running);
    }

    /// Arbiter: the dispatcher has taken the call.
    pub(crate) fn taken(&self, now: Tick) {
        self.with(|inner| {
            inner.at(Stage::Dispatch);
            if let Some(dispatching) = &mut inner.dispatching {
                dispatching.taken(now);
            }
        });
    }

    /// Arbiter: the link was up at `ready`, the call's turn came at `locked`, and now it is handed on. `None` when it was
    /// given up before that.
    pub(crate) fn starts(&self, ready: Option<Tick>, locked: Tick, now: Tick) -> Option<Begun> {
        self.with(|inner| Some(inner.dispatching.as_mut()?.started(ready, locked, now)))
    }

    /// Tells the dispatch, once, if it is one of those.
    fn dispatched(&self, now: Tick, outcome: DispatchOutcome, of: impl FnOnce(&DispatchGuard) -> bool) {
        let guard = self.with(|inner| inner.dispatching.take_if(|guard| of(guard)));
        if let Some(guard) = guard {
            let timings = guard.over(now, outcome);
            self.with(|inner| inner.dispatched = timings);
        }
    }

    /// Arbiter: how far it has come, for whoever looks.
    pub(crate) fn at(&self, stage: Stage) {
        self.with(|inner| inner.at(stage));
    }

    /// Its process's number, whether or not it ever ran.
    pub(crate) fn number(&self) -> Option<ProcessId> {
        self.with(|inner| inner.process.as_ref().map(|(process, _)| *process))
    }

    /// Arbiter: whether its consumer gave it up.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.with(|inner| inner.cancelled.is_some())
    }

    /// Consumer: it is to end as soon as it has begun.
    pub(crate) fn cancel(&self, grace: Duration) {
        self.with(|inner| inner.cancelled = Some(grace));
        // One that waits is over for its consumer, however long its turn is still to come.
        self.dispatched(Tick::now(), DispatchOutcome::Terminated, |guard| {
            !guard.is_started()
        });
    }

    /// Whom to tell of this run, once it has begun.
    pub(crate) fn delivery(&self) -> Option<Mailbox<TerminalDelivery>> {
        self.with(|inner| inner.process.as_ref().map(|(_, delivery)| delivery.clone()))
    }

    /// Its process id, while it runs.
    pub(crate) fn process(&self) -> Option<ProcessId> {
        self.with(|inner| {
            inner
                .process
                .as_ref()
                .filter(|_| inner.started)
                .map(|(process, _)| *process)
        })
    }

    /// Consumer: ready when it runs, or is over.
    pub(crate) fn poll_started(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.with(|inner| {
            if inner.started || inner.end_put.is_some() {
                return Poll::Ready(());
            }
            inner.start_waker = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// Whether the end is known.
    pub(crate) fn is_ended(&self) -> bool {
        self.with(|inner| inner.end.is_some() || inner.end_put.is_some())
    }
}

fn wake(waker: Option<(Waker, ThreadTag)>) {
    if let Some((waker, thread)) = waker {
        // Threads that are no actors' have no number: a waiter there is always elsewhere.
        if thread.0 == 0 || thread != thread_tag() {
            count_crossing();
        }
        waker.wake();
    }
}
