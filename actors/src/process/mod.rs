//! `Process`: one process, from its start to the end of its last pipe.
//!
//! Owns the process group, its standard input, its two output readers and its exit watcher. Never blocks: starting
//! happens on the spawner's thread, reading and waiting in tasks of this arbiter that come back as messages into room
//! that was reserved for them. Full: the supervisor waits. Stop: a process that is dropped is killed. Who sends: the
//! `ProcessSupervisor`, and its own tasks. A panic kills the process and tells the supervisor.

mod reader;
mod stdin;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwell_messages::process::{Containment, Inherit as WireInherit, Start, Started};
use dwell_messages::{
    Envelope, ErrorCode, ExitStatus, OutputStream, ProcessId, Reply, Request, SpanId, SpanKind, TraceContext,
    WireError,
};

use crate::account::{Account, Segment};
use crate::mailbox::{
    Actor, BulkResidence, HostOptions, Mailbox, Message, Slot, TimerGuard, Turn, start_here,
};
use crate::process_supervisor::{ProcessSupervisor, SupervisorControl};
use crate::relay_framer::RelayFramer;
use crate::rpc_queue::server::{Call, Responder};
use crate::spawn::{
    self, Environment, EnvironmentPolicy, Inherit, ProcessGroup, SpawnErrorKind, SpawnOutcome, SpawnRequest,
    Spawned, Spawner, StdinMode,
};
use crate::telemetry::{Collector, Stage, Tick, span_id};
use crate::terminal_delivery::push::{DELIVERY_MAILBOX_MAX, PushMessage, TerminalDelivery};

use reader::{Credit, ReaderReport};
use stdin::Stdin;

/// Calls and events that may lie in one process's mailbox.
pub const PROCESS_MAILBOX_MAX: usize = 64;
/// How long pipes may stay open after the exit when somebody else still holds them.
pub const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// Time between TERM and KILL when a process is ended because its session is.
const SESSION_GRACE: Duration = Duration::from_secs(2);

const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;
const SIGKILL: i32 = 9;

/// What it is told.
pub(crate) enum ProcessMessage {
    /// A request about this process; the first is its start.
    Call(Box<Call>),
    /// The spawner is done.
    Spawned(Box<SpawnOutcome>),
    /// An output is at its end.
    ReaderEnded(OutputStream, Box<ReaderReport>),
    /// The wait status is known.
    Exited(std::io::Result<spawn::Exit>, Tick),
}

/// What it is told urgently.
pub(crate) enum ProcessControl {
    /// The client takes more of a stream.
    Credit(OutputStream, u64),
    /// The session is ending.
    Terminate,
    /// The grace after TERM is over.
    Kill,
    /// The grace after the exit is over.
    DrainOver,
}

impl Message for ProcessMessage {
    const NAMES: &'static [&'static str] = &["Call", "Spawned", "ReaderEnded", "Exited"];

    fn index(&self) -> usize {
        match self {
            Self::Call(_) => 0,
            Self::Spawned(_) => 1,
            Self::ReaderEnded(..) => 2,
            Self::Exited(..) => 3,
        }
    }
}

/// Room reserved for what the tasks will say.
struct Slots {
    readers: [Option<Slot<Process>>; 2],
    exit: Option<Slot<Process>>,
}

/// A start under way.
struct Starting {
    responder: Responder,
    rpc_context: TraceContext,
    account: Account,
    withheld: Vec<String>,
}

/// A running process.
struct Running {
    group: Option<ProcessGroup>,
    stdin: Option<Stdin>,
    tasks: Vec<TimerGuard>,
    spawn_ended: Tick,
    ended: [Option<u64>; 2],
    exited: Option<(Tick, Option<ExitStatus>)>,
    drain: Option<TimerGuard>,
}

/// See the module.
pub(crate) struct Process {
    id: ProcessId,
    spawner: Arc<Spawner>,
    framer: Mailbox<RelayFramer>,
    supervisor: Mailbox<ProcessSupervisor>,
    collector: Collector,
    credit: Rc<Credit>,
    delivery: Option<Mailbox<TerminalDelivery>>,
    /// The process's own span: its stages hang below it, it hangs below the call.
    launch: TraceContext,
    span: SpanId,
    begun: Tick,
    starting: Option<Starting>,
    running: Option<Running>,
    account: Account,
    first_byte: Option<Tick>,
    waiting_for_end: VecDeque<(Responder, TraceContext, Account)>,
    /// When the group is killed, once it was told to end.
    kill: Option<(Instant, TimerGuard)>,
    terminate_early: bool,
    program: String,
}

impl Process {
    pub(crate) fn new(
        id: ProcessId,
        spawner: Arc<Spawner>,
        framer: Mailbox<RelayFramer>,
        supervisor: Mailbox<ProcessSupervisor>,
        collector: Collector,
    ) -> Self {
        Self {
            id,
            spawner,
            framer,
            supervisor,
            collector,
            credit: Rc::default(),
            delivery: None,
            launch: TraceContext::default(),
            span: span_id(),
            begun: Tick::now(),
            starting: None,
            running: None,
            account: Account::begin(Tick::now()),
            first_byte: None,
            waiting_for_end: VecDeque::new(),
            kill: None,
            terminate_early: false,
            program: String::new(),
        }
    }

    fn context(&self) -> TraceContext {
        self.launch.child(self.span)
    }

    fn call(&mut self, context: TraceContext, call: Call, turn: &mut Turn<'_, Self>) {
        let Call {
            request,
            mut account,
            responder,
            ..
        } = call;
        account.lap(Segment::Mailbox, turn.residence().dequeued);
        match request {
            Request::Start(start) => self.start(context, start, account, responder, turn),
            Request::Write(write) => self.write(context, write, account, responder, turn),
            Request::Signal(signal) => {
                let outcome = self.signal(signal.signal).map(|()| Reply::Signalled);
                responder.answer(turn, context, outcome, account);
            }
            Request::Terminate(terminate) => {
                self.terminate(Duration::from_millis(u64::from(terminate.grace_ms)), turn);
                self.waiting_for_end.push_back((responder, context, account));
            }
            Request::Read(_) => {
                let error = WireError::new(
                    ErrorCode::UnknownMethod,
                    "this executor pushes every event and keeps none to be read again",
                );
                responder.answer(turn, context, Err(error), account);
            }
            Request::EnvironmentInfo => {
                let error = WireError::new(ErrorCode::BadRequest, "the request is about no process");
                responder.answer(turn, context, Err(error), account);
            }
        }
    }

    fn start(
        &mut self,
        context: TraceContext,
        start: Start,
        mut account: Account,
        responder: Responder,
        turn: &mut Turn<'_, Self>,
    ) {
        self.begun = turn.now();
        self.launch = launch_context(&context, &start);
        self.credit.set(OutputStream::Stdout, start.credit);
        self.credit.set(OutputStream::Stderr, start.credit);
        self.program = start
            .argv
            .first()
            .map(|program| program_name(program))
            .unwrap_or_default();
        // Who can write waits to hear that it runs; for anybody else its first event is soon enough.
        let responder = if start.stdin {
            responder
        } else {
            responder.unhurried()
        };
        let resolved = Environment::resolve(&policy(&start, &self.context()), std::env::vars_os());
        let withheld = resolved
            .withheld
            .iter()
            .filter(|name| looks_secret(name))
            .map(|name| text(name))
            .collect();
        let request = SpawnRequest {
            argv: start
                .argv
                .into_iter()
                .map(serde_bytes::ByteBuf::into_vec)
                .collect(),
            cwd: start.cwd.map(serde_bytes::ByteBuf::into_vec),
            env: resolved.environment,
            stdin: if start.stdin {
                StdinMode::Piped
            } else {
                StdinMode::Null
            },
            ..SpawnRequest::default()
        };
        account.lap(Segment::Dispatch, Tick::now());
        self.starting = Some(Starting {
            responder,
            rpc_context: context,
            account,
            withheld,
        });
        let Some(slot) = turn.mailbox().port(1).try_reserve() else {
            return;
        };
        let launch = self.context();
        let reply = move |outcome: SpawnOutcome| {
            slot.send(Envelope::new(launch, ProcessMessage::Spawned(Box::new(outcome))));
        };
        crate::telemetry::count_crossing();
        if let Err(rejected) = self.spawner.try_submit(request, Box::new(reply)) {
            let error = WireError::new(ErrorCode::Busy, rejected.reason.to_string());
            return self.start_failed(error, turn);
        }
        // While the spawner works.
        let (framer, id) = (self.framer.clone(), self.id);
        self.delivery = Some(start_here(HostOptions::new(DELIVERY_MAILBOX_MAX), move || {
            TerminalDelivery::new(id, framer.clone())
        }));
    }

    fn start_failed(&mut self, error: WireError, turn: &mut Turn<'_, Self>) {
        let Some(starting) = self.starting.take() else {
            return;
        };
        let now = Tick::now();
        self.collector.stage(
            Stage::with_id(&self.launch, self.span, "process", self.begun, now)
                .text("process.executable.name", self.program.clone())
                .failed(Some(error.code.name())),
        );
        starting
            .responder
            .answer(turn, starting.rpc_context, Err(error), starting.account);
        self.end(turn);
    }

    fn spawned(&mut self, outcome: SpawnOutcome, turn: &mut Turn<'_, Self>) {
        let (begun, ended) = (
            Tick::from_instant(outcome.started),
            Tick::from_instant(outcome.ended),
        );
        let Some(starting) = &mut self.starting else {
            return;
        };
        starting.account.lap(Segment::SpawnQueue, begun);
        starting.account.lap(Segment::Spawn, ended);
        self.account = starting.account.clone();
        starting.account.lap(Segment::Mailbox, turn.residence().dequeued);
        let error = outcome.result.as_ref().err().map(|_| "spawn_failed");
        self.collector.stage(
            Stage::new(&self.context(), "spawn", begun, ended)
                .number(
                    "spawn.queue_us",
                    u64::try_from(outcome.queued().as_micros()).unwrap_or(u64::MAX),
                )
                .failed(error),
        );
        match outcome.result {
            Ok(spawned) => self.run(spawned, ended, turn),
            Err(error) => {
                let code = error_code(&error.kind);
                let wire = WireError::new(code, error.to_string()).with_errno(error.errno);
                self.start_failed(wire, turn);
            }
        }
    }

    fn run(&mut self, spawned: Spawned, spawn_ended: Tick, turn: &mut Turn<'_, Self>) {
        let pid = spawned.process.pid();
        // Answered before anything watches the process: the RPC is over before its first event.
        if let Some(starting) = self.starting.take() {
            let started = Started {
                pid,
                containment: Containment::ProcessGroup,
                withheld: starting.withheld,
            };
            starting.responder.answer(
                turn,
                starting.rpc_context,
                Ok(Reply::Started(started)),
                starting.account,
            );
        }
        let port = turn.mailbox().port(3);
        let mut slots = Slots {
            readers: [port.try_reserve(), port.try_reserve()],
            exit: port.try_reserve(),
        };
        let mut tasks = Vec::new();
        // Only a terminal has no standard error of its own, and none is asked for here.
        let Some(stderr) = spawned.stderr else { return };
        for (stream, fd) in [
            (OutputStream::Stdout, spawned.stdout),
            (OutputStream::Stderr, stderr),
        ] {
            let slot = slots.readers[stream.index()].take();
            let (Some(slot), Some(delivery)) = (slot, self.delivery.clone()) else {
                return;
            };
            let read = reader::read(reader::Source {
                fd,
                stream,
                credit: Rc::clone(&self.credit),
                delivery,
                context: self.context(),
                bulk: Arc::new(BulkResidence::default()),
                spawn_ended,
            });
            let context = self.context();
            tasks.push(turn.spawn(async move {
                let report = read.await;
                slot.send(Envelope::new(
                    context,
                    ProcessMessage::ReaderEnded(stream, Box::new(report)),
                ));
            }));
        }
        let context = self.context();
        let watcher = spawned.process.watch();
        let Some(slot) = slots.exit.take() else { return };
        tasks.push(turn.spawn(async move {
            let exit = match watcher {
                Ok(mut watcher) => watcher.wait().await,
                Err(error) => Err(error),
            };
            slot.send(Envelope::new(context, ProcessMessage::Exited(exit, Tick::now())));
        }));
        let stdin = spawned.stdin.and_then(|fd| Stdin::open(fd, turn));
        self.running = Some(Running {
            group: Some(spawned.process),
            stdin,
            tasks,
            spawn_ended,
            ended: [None, None],
            exited: None,
            drain: None,
        });
        if self.terminate_early {
            self.terminate(SESSION_GRACE, turn);
        }
    }

    fn write(
        &mut self,
        context: TraceContext,
        write: dwell_messages::process::Write,
        account: Account,
        responder: Responder,
        turn: &mut Turn<'_, Self>,
    ) {
        let stdin = self.running.as_ref().and_then(|running| running.stdin.as_ref());
        match stdin {
            Some(stdin) => stdin.write(write, responder, context, account, turn),
            None => {
                let error = WireError::new(ErrorCode::StdinClosed, "the process has no open standard input");
                responder.answer(turn, context, Err(error), account);
            }
        }
    }

    fn signal(&self, number: i32) -> Result<(), WireError> {
        let group = self.running.as_ref().and_then(|running| running.group.as_ref());
        let group =
            group.ok_or_else(|| WireError::new(ErrorCode::UnknownProcess, "the process has ended"))?;
        group.signal_leader(number).map_err(|error| match error {
            spawn::SignalError::Unsupported { .. } => WireError::new(ErrorCode::BadSignal, error.to_string()),
            spawn::SignalError::Gone => WireError::new(ErrorCode::UnknownProcess, error.to_string()),
            spawn::SignalError::Refused(_) => WireError::new(ErrorCode::PermissionDenied, error.to_string()),
        })
    }

    /// TERM and CONT to the group, KILL when the grace is over.
    fn terminate(&mut self, grace: Duration, turn: &Turn<'_, Self>) {
        let Some(group) = self.running.as_ref().and_then(|running| running.group.as_ref()) else {
            self.terminate_early = true;
            return;
        };
        for signal in [SIGTERM, SIGCONT] {
            if let Err(error) = group.signal_group(signal) {
                tracing::debug!(%error, signal, "a process group was not signalled");
            }
        }
        let at = Instant::now() + grace;
        if self.kill.as_ref().is_none_or(|(earlier, _)| at < *earlier) {
            self.kill = Some((at, turn.timer(grace, ProcessControl::Kill)));
        }
    }

    fn reader_ended(&mut self, stream: OutputStream, report: &ReaderReport, turn: &mut Turn<'_, Self>) {
        let context = self.context();
        if let Some(first) = report.first_byte {
            self.first_byte = Some(self.first_byte.map_or(first, |earlier| earlier.min(first)));
        }
        self.collector.stage(report.stage(&context, stream));
        if let Some(running) = &mut self.running {
            running.ended[stream.index()] = Some(report.end);
        }
        self.close_if_done(turn);
    }

    fn exited(&mut self, exit: std::io::Result<spawn::Exit>, seen: Tick, turn: &mut Turn<'_, Self>) {
        let context = self.context();
        let (Some(running), Some(delivery)) = (&mut self.running, &self.delivery) else {
            return;
        };
        let status = exit.as_ref().ok().map(|exit| match exit.status {
            spawn::ExitStatus::Code(code) => ExitStatus::Code(code),
            spawn::ExitStatus::Signal(signal) => ExitStatus::Signal(signal),
        });
        self.account.lap(Segment::Run, seen);
        running.exited = Some((seen, status));
        let stage = Stage::new(&context, "exit watcher", running.spawn_ended, seen);
        self.collector.stage(match status {
            Some(ExitStatus::Code(code)) => stage.number("process.exit.code", code),
            Some(ExitStatus::Signal(signal)) => stage.number("process.exit.signal", signal),
            None => stage.failed(Some("wait_status_lost")),
        });
        if let Some(status) = status {
            let core_dumped = exit.is_ok_and(|exit| exit.core_dumped);
            turn.tell(delivery, context, PushMessage::Exited { status, core_dumped });
        }
        if running.ended.iter().any(Option::is_none) {
            running.drain = Some(turn.timer(DRAIN_GRACE, ProcessControl::DrainOver));
        }
        self.close_if_done(turn);
    }

    /// Whether a stream that has not ended waits for its consumer.
    fn is_held(&self) -> bool {
        let ended = |stream: OutputStream| {
            self.running
                .as_ref()
                .is_none_or(|running| running.ended[stream.index()].is_some())
        };
        [OutputStream::Stdout, OutputStream::Stderr]
            .into_iter()
            .any(|stream| !ended(stream) && self.credit.is_held(stream))
    }

    fn close_if_done(&mut self, turn: &mut Turn<'_, Self>) {
        let done = self
            .running
            .as_ref()
            .is_some_and(|running| running.exited.is_some() && running.ended.iter().all(Option::is_some));
        if done {
            self.close(true, turn);
        }
    }

    /// The instant when the exit is known and every pipe is at its end: once, by whichever comes last.
    fn close(&mut self, drained: bool, turn: &mut Turn<'_, Self>) {
        let context = self.context();
        let (Some(running), Some(delivery)) = (self.running.take(), self.delivery.take()) else {
            return;
        };
        let now = Tick::now();
        let (exited, status) = running.exited.unwrap_or((now, None));
        self.account.lap(Segment::Drain, now);
        self.collector.stage(
            Stage::new(&context, "close", exited, now).number("process.drain_us", now.micros_since(exited)),
        );
        self.collector.stage(
            Stage::with_id(&self.launch, self.span, "process", self.begun, now)
                .kind(SpanKind::Client)
                .text("process.executable.name", self.program.clone())
                .failed(failure(status)),
        );
        let first_byte = self
            .first_byte
            .map_or(0, |first| first.micros_since(running.spawn_ended));
        let closed = PushMessage::Closed {
            status,
            drained,
            account: Box::new(self.account.clone()),
            first_byte,
        };
        turn.tell(&delivery, context, closed);
        if let Some(group) = running.group {
            // Reaped only now: until here its number could not be used again, so no signal could go astray.
            if let (true, Some((at, _))) = (drained, self.kill.take()) {
                // The leader is gone, and others of its group may have closed the pipes and ignored TERM.
                let grace = at.saturating_duration_since(Instant::now()).min(SESSION_GRACE);
                turn.spawn(async move {
                    tokio::time::sleep(grace).await;
                    drop(group);
                })
                .detach();
            } else if drained {
                match group.reap() {
                    Ok(spawn::Reap::Done(_)) => {}
                    Ok(spawn::Reap::Running(group)) => drop(group),
                    Err(error) => tracing::warn!(%error, "a process was reaped by somebody else"),
                }
            } else {
                // Somebody of the group still holds a pipe: it lives on, and ends with the session.
                drop(self.supervisor.control(SupervisorControl::Keep(group)));
            }
        }
        self.end(turn);
    }

    fn end(&mut self, turn: &mut Turn<'_, Self>) {
        self.kill = None;
        for (responder, context, account) in std::mem::take(&mut self.waiting_for_end) {
            responder.answer(turn, context, Ok(Reply::Terminated), account);
        }
        let (supervisor, id) = (self.supervisor.clone(), self.id);
        turn.after_effects(move || drop(supervisor.control(SupervisorControl::Ended(id))));
        turn.stop();
    }
}

/// The process's parent: the call, as the start names it, else the request.
fn launch_context(context: &TraceContext, start: &Start) -> TraceContext {
    match start
        .launch
        .as_ref()
        .and_then(|launch| <[u8; 8]>::try_from(launch.as_slice()).ok())
    {
        Some(launch) => context.child(SpanId(launch)),
        None => context.clone(),
    }
}

/// What the child finds in its environment, with its own ancestry in `TRACEPARENT`.
fn policy(start: &Start, context: &TraceContext) -> EnvironmentPolicy {
    let mut set: Vec<_> = start
        .env
        .set
        .iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    if context.is_valid() {
        set.push((b"TRACEPARENT".to_vec(), context.to_traceparent().into_bytes()));
        if let Some(state) = &context.state {
            set.push((b"TRACESTATE".to_vec(), state.as_str().as_bytes().to_vec()));
        }
    }
    EnvironmentPolicy {
        inherit: match start.env.inherit {
            WireInherit::Core => Inherit::Core,
            WireInherit::All => Inherit::All,
            WireInherit::None => Inherit::None,
        },
        set,
        unset: start.env.unset.iter().map(|name| name.to_vec()).collect(),
    }
}

fn error_code(kind: &SpawnErrorKind) -> ErrorCode {
    match kind {
        SpawnErrorKind::EmptyArgv => ErrorCode::EmptyArgv,
        SpawnErrorKind::NulByte { .. }
        | SpawnErrorKind::ArgumentTooLong { .. }
        | SpawnErrorKind::InvalidEnvironmentName { .. }
        | SpawnErrorKind::LimitRefused { .. }
        | SpawnErrorKind::DetachUnavailable => ErrorCode::BadRequest,
        SpawnErrorKind::CwdUnusable { .. } => ErrorCode::BadCwd,
        SpawnErrorKind::ResourceExhausted { .. }
        | SpawnErrorKind::TerminalUnavailable { .. }
        | SpawnErrorKind::ProgramBusy => ErrorCode::ResourceExhausted,
        SpawnErrorKind::ArgumentsTooLong
        | SpawnErrorKind::ProgramMissing { .. }
        | SpawnErrorKind::InterpreterMissing { .. }
        | SpawnErrorKind::NotExecutable { .. }
        | SpawnErrorKind::PermissionDenied { .. }
        | SpawnErrorKind::GuardLost
        | SpawnErrorKind::Unwatchable { .. }
        | SpawnErrorKind::Other { .. } => ErrorCode::SpawnFailed,
    }
}

fn failure(status: Option<ExitStatus>) -> Option<&'static str> {
    match status {
        Some(ExitStatus::Code(0)) => None,
        Some(ExitStatus::Code(_)) => Some("exit_code"),
        Some(ExitStatus::Signal(_)) => Some("signal"),
        None => Some("wait_status_lost"),
    }
}

/// A program's name without its directory: all that telemetry ever says of a command line.
pub(crate) fn program_name(program: &[u8]) -> String {
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or(program);
    let name = &name[..name.len().min(64)];
    String::from_utf8_lossy(name)
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn looks_secret(name: &[u8]) -> bool {
    let upper = name.to_ascii_uppercase();
    [&b"KEY"[..], b"SECRET", b"TOKEN", b"PASSWORD"]
        .iter()
        .any(|mark| upper.windows(mark.len()).any(|w| w == *mark))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Actor for Process {
    const NAME: &'static str = "Process";
    type Message = ProcessMessage;
    type Control = ProcessControl;

    fn receive(&mut self, envelope: Envelope<ProcessMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            ProcessMessage::Call(call) => self.call(envelope.context, *call, turn),
            ProcessMessage::Spawned(outcome) => self.spawned(*outcome, turn),
            ProcessMessage::ReaderEnded(stream, report) => self.reader_ended(stream, &report, turn),
            ProcessMessage::Exited(exit, seen) => self.exited(exit, seen, turn),
        }
    }

    fn control(&mut self, control: ProcessControl, turn: &mut Turn<'_, Self>) {
        match control {
            ProcessControl::Credit(stream, limit) => self.credit.set(stream, limit),
            ProcessControl::Terminate => {
                // Nobody takes output any more: let the readers run dry instead of waiting for credit.
                self.credit.open();
                self.terminate(SESSION_GRACE, turn);
            }
            ProcessControl::Kill => {
                let group = self.running.as_ref().and_then(|running| running.group.as_ref());
                if let Some(Err(error)) = group.map(|group| group.signal_group(SIGKILL)) {
                    tracing::warn!(%error, "a process group could not be killed");
                }
            }
            ProcessControl::DrainOver if self.is_held() => {
                // Not the pipe but the consumer is slow: what is in the pipe is still to be had.
                if let Some(running) = &mut self.running {
                    running.drain = Some(turn.timer(DRAIN_GRACE, ProcessControl::DrainOver));
                }
            }
            ProcessControl::DrainOver => {
                let context = self.context();
                if let Some(running) = &mut self.running {
                    running.tasks.clear();
                    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                        if running.ended[stream.index()].is_none() {
                            let stage = Stage::new(
                                &context,
                                reader::span_name(stream),
                                running.spawn_ended,
                                Tick::now(),
                            );
                            self.collector.stage(stage.failed(Some("drain_timeout")));
                        }
                    }
                }
                self.close(false, turn);
            }
        }
    }
}
