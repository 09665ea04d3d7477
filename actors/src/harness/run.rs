//! A run: a stream of events, and a future of how it finished.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dwell_messages::process::{
    CHUNK_MAX_BYTES, Containment, Ending, Gap, Read, ReadReply, Resize, Signal, SignalTarget, TerminalSize,
    Terminate, Terminated, Usage, Write,
};
use dwell_messages::{
    Closed, Envelope, ErrorCode, ExitStatus, Exited, ProcessId, Reply as WireReply, Request, TraceContext,
    TraceFlags, TraceId, WireError,
};

use super::command::GRACE;
use super::shared::RunShared;
use super::start_up::StageGuard;
use super::timings::CallTimings;
use crate::account::{Account, Segment};
use crate::dispatcher::client::{Dispatcher, DispatcherMessage};
use crate::fault_point::delay::{self, DelayPoint};
use crate::mailbox::{AskError, Mailbox};
use crate::relay_framer::Arrival;
use crate::rpc_queue::caller::{RpcControl, RpcQueue, Ticket};
use crate::telemetry::{Collector, Stage, Tick, semconv};
use crate::terminal_delivery::Captured;
use crate::terminal_delivery::receive::ReceiveControl;
use crate::trace_collector::{TraceCollector, TraceMessage};

/// What a running command tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RunEvent {
    /// It runs.
    Started {
        /// Its process id on the executor's machine.
        pid: u32,
        /// Names of variables withheld from it because they look like secrets.
        withheld: Vec<String>,
        /// What ends it when the executor dies, and what finds what it starts.
        containment: Containment,
    },
    /// It wrote to its standard output.
    Stdout(Bytes),
    /// It wrote to its standard error.
    Stderr(Bytes),
    /// Output that is gone: dropped because nobody took it, or no longer kept.
    Gap(Gap),
    /// Its wait status is known. Output may follow.
    Exited(ExitStatus),
}

/// Why a run has no exit status.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start, and never will: what was wrong, and what to do.
    #[error("{0}")]
    Refused(WireError),
    /// Nothing was sent: trying again is safe.
    #[error("the command was not sent: {0}; connect again and retry")]
    NotStarted(String),
    /// The link was lost while it ran. Its output up to there was delivered; its end is not known.
    #[error("the outcome is unknown: {0}; look at what the command was to change before running it again")]
    Lost(String),
    /// Its deadline passed; it was told to end.
    #[error(
        "the deadline passed and the command was terminated: allow more time, or find out why it is slow with `dwell trace`"
    )]
    DeadlineExceeded,
}

impl RunError {
    /// The executor's errno, where starting failed in a system call.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(error) => error.errno,
            Self::NotStarted(_) | Self::Lost(_) | Self::DeadlineExceeded => None,
        }
    }

    /// The kind of error, where the executor or this side refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            Self::NotStarted(_) | Self::Lost(_) | Self::DeadlineExceeded => None,
        }
    }

    pub(crate) fn error_type(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.code.name(),
            Self::NotStarted(_) => "not_started",
            Self::Lost(_) => "outcome_unknown",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }
}

/// How a run ended, as its delivery hands it over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) exited: Option<Exited>,
    pub(crate) closed: Closed,
    pub(crate) account: Box<Account>,
    pub(crate) arrival: Arrival,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How the process ended.
    pub status: ExitStatus,
    /// Its standard output, both ends of it when it was long. Empty where events were taken one by one.
    pub stdout: Captured,
    /// Its standard error.
    pub stderr: Captured,
    /// Bytes of standard output and standard error in all.
    pub output_bytes: [u64; 2],
    /// Whether every pipe of the process was at its end; else something it started still holds one.
    pub drained: bool,
    /// How many processes still held one then.
    pub holders: u32,
    /// Why the executor ended it, if it did.
    pub ending: Option<Ending>,
    /// Whether it left a core.
    pub core_dumped: bool,
    /// Whether the kernel killed it, or one of its own, for want of memory, where that is known.
    pub oom_killed: Option<bool>,
    /// What it, and those it waited for, have used, where that is known.
    pub usage: Option<Usage>,
    /// Where the time went.
    pub timings: CallTimings,
    /// The call's trace.
    pub trace_id: TraceId,
}

/// When the trace of an unsampled call is kept, and who asks the executor for its part.
pub(super) struct Flight {
    pub(super) slower_than: Duration,
    pub(super) executor: Option<Mailbox<TraceCollector>>,
}

/// A command under way. Dropping it terminates the process (TERM, then KILL after the command's grace), unless it was
/// detached.
#[must_use = "dropping a run terminates its process: wait for it, or detach it"]
pub struct Run {
    pub(super) shared: Arc<RunShared>,
    pub(super) input: RunStdin,
    pub(super) collector: Collector,
    /// Set where it is not sampled and may be kept all the same.
    pub(super) flight: Option<Box<Flight>>,
    pub(super) context: TraceContext,
    /// The span this call hangs below, if the caller gave one.
    pub(super) parent: Option<TraceContext>,
    pub(super) begun: Tick,
    /// The last stage of the harness's start-up, if this is its first command.
    pub(super) first: Option<StageGuard>,
    pub(super) grace: Duration,
    pub(super) output_limit: usize,
    /// The link's usual round trip.
    pub(super) ping_us: Arc<AtomicU64>,
    pub(super) done: bool,
    pub(super) detached: bool,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("context", &self.context)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

impl Run {
    /// The next event; `None` when there is none left: then `wait` has the end. Cancellation safe.
    pub async fn next(&mut self) -> Option<RunEvent> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Waits for the end, collecting what was not taken event by event. Cancellation: dropping the future drops the
    /// run, and so terminates its process.
    ///
    /// # Errors
    /// `RunError` says whether the command ran, and what to do.
    pub async fn wait(mut self) -> Result<Finished, RunError> {
        // Usually nothing was: then the arbiter need not be woken for it.
        if self.shared.collect(self.output_limit) {
            self.tell(ReceiveControl::Consumed);
        }
        let last = std::future::poll_fn(|cx| self.shared.poll_end(cx)).await;
        self.done = true;
        delay::reach(DelayPoint::HarnessConsume);
        let now = Tick::now();
        match last.ended {
            Ok(ended) => {
                let Ended {
                    status,
                    exited,
                    closed,
                    mut account,
                    arrival,
                } = ended;
                account.lap(Segment::Consume, now);
                let mut timings = CallTimings::new(
                    &account,
                    &closed.timings,
                    &arrival,
                    self.ping_us.load(Ordering::Relaxed),
                );
                timings.dispatch = last.dispatched;
                self.record(last.put, now, Some(&timings), None);
                let ending = exited.and_then(|exited| exited.ending);
                self.keep_if(
                    matches!(status, ExitStatus::Signal(_)) || ending.is_some(),
                    now,
                    true,
                );
                Ok(Finished {
                    status,
                    stdout: last.stdout,
                    stderr: last.stderr,
                    output_bytes: [closed.stdout_end, closed.stderr_end],
                    drained: closed.drained,
                    holders: closed.holders,
                    ending: exited.and_then(|exited| exited.ending),
                    core_dumped: exited.is_some_and(|exited| exited.core_dumped),
                    oom_killed: exited.and_then(|exited| exited.oom_killed),
                    usage: exited.and_then(|exited| exited.usage),
                    timings,
                    trace_id: self.context.trace_id,
                })
            }
            Err(error) => {
                self.record(last.put, now, None, Some(error.error_type()));
                let answered = matches!(error, RunError::Refused(_) | RunError::DeadlineExceeded);
                self.keep_if(true, now, answered);
                Err(error)
            }
        }
    }

    /// The process's standard input, which may be written while events are taken.
    pub fn stdin(&self) -> RunStdin {
        self.input.clone()
    }

    /// Writes to the process's standard input. See `RunStdin::write`.
    ///
    /// # Errors
    /// As there.
    pub async fn write_stdin(&mut self, data: Bytes) -> Result<(), RunError> {
        self.input.write(data).await
    }

    /// Ends the process's standard input.
    ///
    /// # Errors
    /// As `write_stdin`.
    pub async fn close_stdin(&mut self) -> Result<(), RunError> {
        self.input.close().await
    }

    /// Sends a signal to the process's leader.
    ///
    /// # Errors
    /// When there is no such signal, or the process has ended.
    pub async fn signal(&self, signal: i32) -> Result<(), RunError> {
        self.signal_to(SignalTarget::Leader, signal).await
    }

    /// Sends a signal to the leader, to its terminal's foreground job, or to all that descends from it.
    ///
    /// # Errors
    /// As `signal`.
    pub async fn signal_to(&self, target: SignalTarget, signal: i32) -> Result<(), RunError> {
        self.input.signal_to(target, signal).await
    }

    /// Gives the command's terminal another size; its foreground job hears of it. After the end it is no error.
    ///
    /// # Errors
    /// When the command has no terminal.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), RunError> {
        self.input.resize(rows, columns).await
    }

    /// Events of this run again, from what the executor keeps of them: those after a number (0: from the first), with
    /// output of at most `max_bytes`. With none to tell it waits up to `wait` for one. What is no longer kept stands in
    /// `gaps`. Possible for 30 s after the end. Cancellation safe.
    ///
    /// # Errors
    /// When the command was not started or its events are not kept any more, and when the link is lost.
    pub async fn read(&self, after: u64, max_bytes: u32, wait: Duration) -> Result<ReadReply, RunError> {
        let read = Read {
            after,
            max_bytes,
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            session: None,
        };
        match self.input.ask(Request::Read(read)).await? {
            WireReply::Read(reply) => Ok(reply),
            _ => Err(RunError::Lost(
                "the executor answered a read with something else".into(),
            )),
        }
    }

    /// Ends the process as `terminate` does, and waits until the whole tree is gone. `wait` has the end all the same.
    /// Cancellation safe: it is ended in any case.
    ///
    /// # Errors
    /// When it has ended before, or the link is lost.
    pub async fn stop(&self, grace: Duration) -> Result<Terminated, RunError> {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let terminate = Terminate {
            grace_ms,
            session: None,
        };
        match self.input.ask(Request::Terminate(terminate)).await? {
            WireReply::Terminated(report) => Ok(report),
            _ => Err(RunError::Lost(
                "the executor answered a termination with something else".into(),
            )),
        }
    }

    /// Ends the process: TERM and CONT to its group, KILL when `grace` is over. Returns at once; `wait` has the end.
    pub fn terminate(&self, grace: Duration) {
        self.shared.cancel(grace);
        self.tell(ReceiveControl::Terminate(grace));
    }

    /// What ends the process while somebody else waits for its events.
    pub(crate) fn terminator(&self) -> Terminator {
        Terminator(Arc::clone(&self.shared))
    }

    /// Lets the process live on when this handle is dropped, for as long as its session does.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// The call's trace.
    pub fn trace_id(&self) -> TraceId {
        self.context.trace_id
    }

    /// The call's context: what belongs to it hangs below this.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    fn tell(&self, control: ReceiveControl) {
        if let Some(delivery) = self.shared.delivery() {
            drop(delivery.control(control));
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<RunEvent>> {
        match self.shared.poll_event(cx) {
            Poll::Ready(Some((event, restate))) => {
                if restate {
                    self.tell(ReceiveControl::Consumed);
                }
                Poll::Ready(Some(event))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Keeps the trace of an unsampled call that failed or was slow. The executor is asked for its part if it answers.
    fn keep_if(&self, failed: bool, now: Tick, answers: bool) {
        let Some(flight) = &self.flight else { return };
        let took = Duration::from_micros(now.micros_since(self.begun));
        if !failed && took < flight.slower_than {
            return;
        }
        self.collector.dump(self.context.trace_id);
        if let (Some(executor), Some(process), true) = (&flight.executor, self.shared.number(), answers) {
            let ask = TraceMessage::Ask(process);
            // A full mailbox costs a trace, as a full queue does anywhere in telemetry.
            drop(executor.try_tell(Envelope::new(TraceContext::default(), ask)));
        }
    }

    /// The call's own span and its last stage, written also when it failed.
    fn record(&mut self, put: Tick, now: Tick, timings: Option<&CallTimings>, error: Option<&'static str>) {
        if let Some(first) = self.first.take() {
            match error {
                Some(error) => first.fail(error),
                None => first.finish_at(now),
            }
        }
        if !self.collector.wants(&self.context) {
            return;
        }
        self.collector.stage(Stage::new(
            &self.context,
            semconv::span::TERMINAL_CONSUME,
            put,
            now,
        ));
        let mut parent = self.parent.clone().unwrap_or_else(|| self.context.clone());
        // The call's own decision, where a sampler went past its parent's.
        parent.flags.0 |= self.context.flags.0;
        let mut stage = Stage::with_id(
            &parent,
            self.context.span_id,
            semconv::span::CALL,
            self.begun,
            now,
        )
        .failed(error);
        if self.parent.is_none() {
            stage = stage.root();
        }
        if let Some(timings) = timings {
            stage = stage.annotated_later(Arc::new(timings.clone()));
        }
        self.collector.stage(stage);
    }
}

/// See [`Run::terminator`].
#[derive(Clone, Debug)]
pub(crate) struct Terminator(Arc<RunShared>);

impl Terminator {
    /// As `Run::terminate`.
    pub(crate) fn terminate(&self, grace: Duration) {
        self.0.cancel(grace);
        if let Some(delivery) = self.0.delivery() {
            // A full control queue is full of what ends it as well.
            drop(delivery.control(ReceiveControl::Terminate(grace)));
        }
    }
}

/// A running command's standard input. Clones write to the same stream; writes of several at once are refused where they
/// overlap.
#[derive(Clone)]
pub struct RunStdin {
    pub(super) shared: Arc<RunShared>,
    pub(super) asker: Asker,
    pub(super) written: Arc<AtomicU64>,
    /// Whether it has to be asked first how far the stream is: somebody else has written to it, or a write was given up.
    pub(super) unsure: Arc<AtomicBool>,
    pub(super) closed: Arc<AtomicBool>,
}

impl fmt::Debug for RunStdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunStdin")
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl RunStdin {
    /// Writes; returns when the process's pipe has taken all of it. Not cancellation safe: how much was written is not
    /// known after a dropped call. The next one goes on behind it.
    ///
    /// # Errors
    /// A `RunError` with `StdinClosed` when the command has no pipe as input, or closed it.
    pub async fn write(&self, mut data: Bytes) -> Result<(), RunError> {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(CHUNK_MAX_BYTES));
            self.put(chunk, false).await?;
        }
        Ok(())
    }

    /// Ends the stream. Doing so again changes nothing.
    ///
    /// # Errors
    /// As `write`.
    pub async fn close(&self) -> Result<(), RunError> {
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.put(Bytes::new(), true).await?;
        self.closed.store(true, Ordering::Release);
        Ok(())
    }

    /// Gives the terminal another size. See `Run::resize`.
    ///
    /// # Errors
    /// As there.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), RunError> {
        let size = TerminalSize { rows, columns };
        self.ask(Request::Resize(Resize { size })).await.map(drop)
    }

    /// Sends a signal. See `Run::signal_to`.
    ///
    /// # Errors
    /// As there.
    pub async fn signal_to(&self, target: SignalTarget, signal: i32) -> Result<(), RunError> {
        let signal = Signal {
            signal,
            target,
            session: None,
        };
        self.ask(Request::Signal(signal)).await.map(drop)
    }

    async fn put(&self, data: Bytes, eof: bool) -> Result<(), RunError> {
        if data.is_empty() {
            // The end alone stands wherever the stream is.
            return self.put_at(0, data, eof).await;
        }
        if self.unsure.load(Ordering::Acquire) {
            // Writes are served in their order: behind this nobody else's is under way.
            self.put_at(0, Bytes::new(), false).await?;
        }
        let offset = self.written.load(Ordering::Acquire);
        self.put_at(offset, data, eof).await
    }

    async fn put_at(&self, offset: u64, data: Bytes, eof: bool) -> Result<(), RunError> {
        let before = self.unsure.swap(true, Ordering::AcqRel);
        let write = Write { offset, data, eof };
        let answer = self.ask(Request::Write(write)).await;
        if let Err(RunError::Refused(error)) = &answer
            && matches!(
                error.code,
                ErrorCode::PermissionDenied | ErrorCode::Busy | ErrorCode::Cancelled
            )
        {
            // Nothing of it was written.
            self.unsure.store(before, Ordering::Release);
        }
        match answer? {
            WireReply::Written(written) => {
                self.written.store(written.offset, Ordering::Release);
                self.unsure.store(false, Ordering::Release);
                Ok(())
            }
            _ => Err(RunError::Lost(
                "the executor answered a write with something else".into(),
            )),
        }
    }

    async fn ask(&self, request: Request) -> Result<WireReply, RunError> {
        // The lanes of input and signals overtake a start: wait for its answer first.
        std::future::poll_fn(|cx| self.shared.poll_started(cx)).await;
        let Some(process) = self.shared.process() else {
            return Err(RunError::NotStarted(
                "the command has ended or was never sent".into(),
            ));
        };
        self.asker.ask(Some(process), request).await
    }
}

/// Asks the executor something, and withdraws the question when the future that waits for its answer is dropped.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(super) dispatcher: Mailbox<Dispatcher>,
    pub(super) rpc: Mailbox<RpcQueue>,
    pub(crate) context: TraceContext,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

/// Withdraws a question that has no answer yet.
pub(super) struct Withdrawing {
    ticket: Ticket,
    rpc: Mailbox<RpcQueue>,
    answered: bool,
}

impl Withdrawing {
    pub(super) fn new(rpc: &Mailbox<RpcQueue>) -> (Self, Ticket) {
        let ticket = Ticket::default();
        let guard = Self {
            ticket: Arc::clone(&ticket),
            rpc: rpc.clone(),
            answered: false,
        };
        (guard, ticket)
    }

    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Withdrawing {
    fn drop(&mut self) {
        if !self.answered {
            self.ticket.store(true, Ordering::SeqCst);
            // With a full control queue the answer comes all the same, and is nobody's.
            drop(self.rpc.control(RpcControl::Withdrawn));
        }
    }
}

impl Asker {
    /// The same, for requests below another span.
    pub(crate) fn under(&self, context: TraceContext) -> Self {
        Self {
            context,
            ..self.clone()
        }
    }

    /// Asks, and waits neither for room nor for an answer.
    pub(crate) fn tell(&self, request: Request) {
        let message = DispatcherMessage::Ask {
            process: None,
            request: Box::new(request),
            ticket: Ticket::default(),
            reply: crate::mailbox::Reply::channel().0,
        };
        let envelope = Envelope::new(self.context.clone(), message);
        if let Err(error) = self.dispatcher.try_tell(envelope) {
            tracing::debug!(%error, "a request that nobody waits for was not sent");
        }
    }

    /// Input is stream data: it travels under the call's trace without spans of its own, however much there is. Dropping
    /// the future withdraws the request: if the executor has not begun on it, it does nothing.
    pub(crate) async fn ask(
        &self,
        process: Option<ProcessId>,
        request: Request,
    ) -> Result<WireReply, RunError> {
        let flags = match request {
            Request::Write(_) => TraceFlags::NONE,
            Request::EnvironmentInfo
            | Request::Start(_)
            | Request::Signal(_)
            | Request::Terminate(_)
            | Request::Resize(_)
            | Request::Read(_)
            | Request::Sessions(_)
            | Request::File(_)
            | Request::Http(_)
            | Request::FindUp(_)
            | Request::WorkspaceLoad(_) => self.context.flags,
        };
        let context = TraceContext {
            flags,
            ..self.context.clone()
        };
        let (withdrawing, ticket) = Withdrawing::new(&self.rpc);
        let answer = self.dispatcher.ask(context, |reply| DispatcherMessage::Ask {
            process,
            request: Box::new(request),
            ticket,
            reply,
        });
        let answer = answer.await;
        withdrawing.answered();
        match answer {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(RunError::Refused(error)),
            Err(error) => Err(unanswered(&error)),
        }
    }
}

/// Why this side's own actors gave no answer.
pub(super) fn unanswered(error: &AskError) -> RunError {
    match error {
        AskError::NotStarted | AskError::Stopped => RunError::NotStarted("the harness was shut down".into()),
        AskError::OutcomeUnknown | AskError::ActorFailed => RunError::Lost(error.to_string()),
    }
}

impl futures_core::Stream for Run {
    type Item = RunEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RunEvent>> {
        self.poll_event(cx)
    }
}

impl IntoFuture for Run {
    type Output = Result<Finished, RunError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.shared.abandon();
        if self.detached || self.shared.is_ended() {
            if let Some(first) = self.first.take() {
                first.finish();
            }
            self.tell(ReceiveControl::Consumed);
            return;
        }
        let grace = if self.grace.is_zero() { GRACE } else { self.grace };
        self.shared.cancel(grace);
        self.tell(ReceiveControl::Terminate(grace));
        self.record(Tick::now(), Tick::now(), None, Some("dropped"));
    }
}
