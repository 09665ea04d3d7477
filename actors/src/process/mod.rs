//! `Process`: one process, from its start to the end of its last pipe.
//!
//! Owns the process group, its standard input, its two output readers and its exit watcher. Never blocks: starting
//! happens on the spawner's thread, reading and waiting in tasks of this arbiter that come back as messages into room
//! that was reserved for them. Full: the supervisor waits. Stop: a process that is dropped is killed. Who sends: the
//! `ProcessSupervisor`, and its own tasks. A panic kills the process and tells the supervisor.

mod attention;
mod credit;
mod overdue;
mod reader;
mod spans;
mod spool;
mod start;
mod stdin;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwell_messages::process::{
    Drain, Ending, Overflow, Resize, Signal, SignalTarget, Start, Started, Terminated, Usage,
};
use dwell_messages::{
    Envelope, ErrorCode, ExitStatus, OutputStream, ProcessId, Reply, Request, SpanId, SpanKind, TraceContext,
    WireError,
};

use crate::access::ProcessSlot;
use crate::account::{Account, Segment};
use crate::in_flight::{Entered, Process as Watched, Stage as Place};
use crate::mailbox::{
    Actor, BulkResidence, HostOptions, Mailbox, Message, Slot, TimerGuard, Turn, start_here,
};
use crate::process_supervisor::{ProcessSupervisor, SupervisorControl, SupervisorMessage};
use crate::relay_framer::{self, RelayFramer};
use crate::rpc_queue::server::{Call, Responder};
use crate::spawn::{
    self, Enforcer, ExitWatcher, Member, ProcessGroup, SpawnOutcome, Spawned, Spawner, Terminal,
};
use crate::telemetry::{Collector, Stage, Tick, semconv, span_id};
use crate::terminal_delivery::RETENTION_BYTES;
use crate::terminal_delivery::push::{DELIVERY_MAILBOX_MAX, Ended, PushMessage, TerminalDelivery};
use crate::terminal_delivery::record::Record;

use overdue::Overdue;
use reader::ReaderReport;
use start::{error_code, launch_context};
use stdin::Stdin;

pub(crate) use attention::Attention;
pub use attention::{SHARE_BYTES, TYPED_MAX_BYTES, TYPING_LASTS, WINDOW, WINDOW_BYTES};
pub(crate) use credit::{Credit, Presence};
pub use spool::SPOOL_BYTES;
pub(crate) use spool::SpoolPlace;

/// Calls and events that may lie in one process's mailbox.
pub const PROCESS_MAILBOX_MAX: usize = 64;
/// The longest grace that a client may ask for, and the longest drain: a day.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How long a terminated tree is waited for beyond its grace: what the kernel does not let go of is reported by then.
const TREE_WAIT: Duration = Duration::from_secs(5);
/// Time between TERM and KILL when a process is ended because its session is.
const SESSION_GRACE: Duration = Duration::from_secs(2);

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
    Exited(Box<ExitSeen>),
}

/// A wait status, when it was seen, and who saw it.
pub(crate) struct ExitSeen {
    exit: std::io::Result<spawn::Exit>,
    seen: Tick,
    watcher: Option<ExitWatcher>,
}

/// What it is told urgently.
pub(crate) enum ProcessControl {
    /// The client takes more of a stream.
    Credit(OutputStream, u64),
    /// The session is about to end; its client still listens.
    WindDown,
    /// The session is ending.
    Terminate,
    /// The client wants nothing more of it: its output goes nowhere.
    Abandon,
    /// The client has withdrawn its start, which was under way.
    Withdrawn,
    /// The grace after TERM is over.
    Kill,
    /// A grace after the exit is over.
    DrainOver,
    /// How many processes hold a pipe that is given up.
    Holders(u32),
    /// The command's time is over.
    Deadline,
    /// A terminated tree should have ended by now.
    Overdue,
    /// What was left of it then.
    Unkillable(Terminated),
}

impl Message for ProcessMessage {
    const NAMES: &'static [&'static str] = &["Call", "Spawned", "ReaderEnded", "Exited"];

    fn index(&self) -> usize {
        match self {
            Self::Call(_) => 0,
            Self::Spawned(_) => 1,
            Self::ReaderEnded(..) => 2,
            Self::Exited(_) => 3,
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
    group: Option<Arc<ProcessGroup>>,
    terminal: Option<Terminal>,
    stdin: Option<Stdin>,
    tasks: Vec<TimerGuard>,
    spawn_ended: Tick,
    ended: [Option<u64>; 2],
    exited: Option<(Tick, Option<ExitStatus>)>,
    watcher: Option<ExitWatcher>,
    /// When nobody but the pipes' holders was waited for.
    drain_began: Tick,
    drain: Option<TimerGuard>,
}

/// What a process knows of its session.
#[derive(Clone)]
pub(crate) struct SessionView {
    pub(crate) presence: Presence,
    /// The link that output is for, and the one with which its present owner came.
    pub(crate) attachment: u64,
    pub(crate) taken: u64,
    /// How long a session is there that is of no use to anybody.
    pub(crate) idle_life: Duration,
    pub(crate) spool: SpoolPlace,
    pub(crate) attention: Arc<Attention>,
}

/// What the client asked for beside the command itself.
#[derive(Default)]
struct Terms {
    grace: Duration,
    wall: Option<Duration>,
    drain: Drain,
    outlive: bool,
    overflow: Overflow,
    spool_bytes: Option<u64>,
}

/// See the module.
pub(crate) struct Process {
    session: SessionView,
    id: ProcessId,
    spawner: Arc<Spawner>,
    framer: Mailbox<RelayFramer>,
    supervisor: Mailbox<ProcessSupervisor>,
    collector: Collector,
    record: Rc<Record>,
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
    terms: Terms,
    /// Why it was told to end.
    ending: Option<Ending>,
    /// How long its tree has, once a guard ends it.
    tree_grace: Option<Duration>,
    /// When the group is killed, once it was told to end and there is no guard.
    kill: Option<(Instant, TimerGuard)>,
    overdue: Overdue,
    deadline: Option<TimerGuard>,
    terminate_early: Option<(Duration, Ending)>,
    program: String,
    /// Whether its leader is what confines it, and deaf.
    is_confined: bool,
    /// Its place among what is unfinished.
    watched: Option<Entered<Watched>>,
    /// Its place under its client's cap, given back with its last event.
    slot: Option<ProcessSlot>,
}

impl Process {
    pub(crate) fn new(
        id: ProcessId,
        spawner: Arc<Spawner>,
        framer: Mailbox<RelayFramer>,
        supervisor: Mailbox<ProcessSupervisor>,
        collector: Collector,
        session: SessionView,
        record: Rc<Record>,
    ) -> Self {
        Self {
            session,
            id,
            spawner,
            framer,
            supervisor,
            collector,
            record,
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
            terms: Terms::default(),
            ending: None,
            tree_grace: None,
            kill: None,
            overdue: Overdue::default(),
            deadline: None,
            terminate_early: None,
            program: String::new(),
            is_confined: false,
            watched: None,
            slot: None,
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
            slot,
            ..
        } = call;
        if slot.is_some() {
            self.slot = slot;
        }
        account.lap(Segment::ProcessMailbox, turn.now());
        // A write begins when it is its turn in the pipe.
        if !matches!(request, Request::Write(_)) && !responder.begin() {
            if matches!(request, Request::Start(_)) {
                self.slot = None;
                self.end(turn);
            }
            return;
        }
        match request {
            Request::Start(start) => self.start(context, *start, account, responder, turn),
            Request::Write(write) => self.write(context, write, account, responder, turn),
            Request::Signal(signal) => {
                let outcome = self.signal(signal).map(|()| Reply::Signalled);
                responder.answer(turn, context, outcome, account);
            }
            Request::Resize(resize) => {
                let outcome = self.resize(resize).map(|()| Reply::Resized);
                responder.answer(turn, context, outcome, account);
            }
            Request::Terminate(terminate) => {
                let grace = Duration::from_millis(u64::from(terminate.grace_ms));
                self.terminate(grace, Ending::Terminated, turn);
                self.waiting_for_end.push_back((responder, context, account));
            }
            // The supervisor answers reads.
            Request::Read(_)
            | Request::EnvironmentInfo
            | Request::Sessions(_)
            | Request::File(_)
            | Request::Http(_)
            | Request::FindUp(_)
            | Request::WorkspaceLoad(_) => {
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
        self.credit.begin(start.credit, start.unattended);
        self.program = start
            .executed()
            .map(|program| program_name(program))
            .unwrap_or_default();
        self.terms = terms(&start);
        let (tty, stdin) = (start.pty.is_some(), start.stdin || start.pty.is_some());
        let retention = start.retention_bytes.unwrap_or(RETENTION_BYTES);
        self.record.asked(&self.program, (tty, stdin), retention);
        let watched = Watched::new(self.id, &self.program, &context, self.begun);
        let watched = self.collector.board().process(watched);
        self.credit.watched(watched.share());
        self.watched = Some(watched);
        responder.at(Place::Spawner);
        // Who can write waits to hear that it runs; for anybody else its first event is soon enough.
        let responder = if start.stdin || start.pty.is_some() {
            responder
        } else {
            responder.unhurried()
        };
        self.is_confined = start.confinement.is_some();
        let (request, withheld) = start::request(start, &self.context());
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
        let (framer, supervisor, id) = (self.framer.clone(), self.supervisor.port(1), self.id);
        let record = Rc::clone(&self.record);
        // Without it the client would wait for an end that nobody can tell.
        let options =
            HostOptions::new(DELIVERY_MAILBOX_MAX).escalating(relay_framer::ends_link(&self.framer));
        let (credit, attachment) = (Rc::clone(&self.credit), self.session.attachment);
        let delivery = start_here(options, move || {
            let credit = Rc::clone(&credit);
            TerminalDelivery::new(
                id,
                framer.clone(),
                supervisor.clone(),
                Rc::clone(&record),
                credit,
                attachment,
            )
        });
        self.delivery = Some(delivery.clone());
        let message = SupervisorMessage::Delivers(self.id, delivery, attachment);
        // Upwards only into room of its own.
        turn.tell(&self.supervisor.port(1), TraceContext::default(), message);
    }

    fn start_failed(&mut self, error: WireError, turn: &mut Turn<'_, Self>) {
        self.slot = None;
        let Some(starting) = self.starting.take() else {
            return;
        };
        let now = Tick::now();
        self.collector
            .stage(self.own_span(now).failed(Some(error.code.name())));
        starting
            .responder
            .answer(turn, starting.rpc_context, Err(error), starting.account);
        self.end(turn);
    }

    /// The process's span up to now. Whoever runs a program is its client, as the conventions for programs have it.
    fn own_span(&self, now: Tick) -> Stage {
        Stage::with_id(&self.launch, self.span, semconv::span::PROCESS, self.begun, now)
            .kind(SpanKind::Client)
            .text(semconv::PROCESS_EXECUTABLE_NAME, self.program.clone())
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
        starting.account.lap(Segment::ProcessMailbox, turn.now());
        let failed = outcome.result.as_ref().err();
        let queued = u64::try_from(outcome.queued().as_micros()).unwrap_or(u64::MAX);
        let stage = Stage::new(&self.context(), semconv::span::SPAWN, begun, ended)
            .number(semconv::SPAWN_QUEUE_US, queued)
            .maybe_number(semconv::ERRNO, failed.and_then(|error| error.errno))
            .failed(failed.map(|_| "spawn_failed"));
        self.collector.stage(stage);
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
        self.record.runs(pid);
        if let Some(watched) = &self.watched {
            watched.runs(pid, spawned.process.pidfd());
        }
        if spawned.stderr.is_none() {
            self.record.ended(OutputStream::Stderr);
        }
        // Answered before anything watches the process: the RPC is over before its first event.
        if let Some(starting) = self.starting.take() {
            let started = Started {
                pid,
                containment: start::containment(spawned.containment),
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
        // A terminal has no standard error of its own.
        let ended = [None, spawned.stderr.is_none().then_some(0)];
        let outputs = [
            Some((OutputStream::Stdout, spawned.stdout)),
            spawned.stderr.map(|fd| (OutputStream::Stderr, fd)),
        ];
        for (stream, fd) in outputs.into_iter().flatten() {
            let slot = slots.readers[stream.index()].take();
            let (Some(slot), Some(delivery)) = (slot, self.delivery.clone()) else {
                return;
            };
            let read = reader::read(reader::Source {
                fd,
                stream,
                credit: Rc::clone(&self.credit),
                delivery,
                record: Rc::clone(&self.record),
                context: self.context(),
                bulk: Arc::new(BulkResidence::default()),
                spawn_ended,
                presence: self.session.presence.clone(),
                overflow: self.terms.overflow,
                spool: self.session.spool.at_most(self.terms.spool_bytes),
                attention: Arc::clone(&self.session.attention),
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
            let (exit, watcher) = match watcher {
                Ok(mut watcher) => (watcher.wait().await, Some(watcher)),
                Err(error) => (Err(error), None),
            };
            let seen = ExitSeen {
                exit,
                seen: Tick::now(),
                watcher,
            };
            slot.send(Envelope::new(context, ProcessMessage::Exited(Box::new(seen))));
        }));
        let stdin = spawned.stdin.and_then(|fd| Stdin::open(fd, turn));
        self.running = Some(Running {
            group: Some(Arc::new(spawned.process)),
            terminal: spawned.terminal,
            stdin,
            tasks,
            spawn_ended,
            ended,
            exited: None,
            watcher: None,
            drain_began: spawn_ended,
            drain: None,
        });
        self.deadline = self
            .terms
            .wall
            .map(|wall| turn.timer(wall, ProcessControl::Deadline));
        if let Some((grace, ending)) = self.terminate_early.take() {
            self.terminate(grace, ending, turn);
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
        self.session.attention.wrote(write.data.len(), turn.now());
        let stdin = self.running.as_ref().and_then(|running| running.stdin.as_ref());
        match stdin {
            Some(stdin) => stdin.write(write, responder, context, account, turn),
            None => {
                let error = WireError::new(ErrorCode::StdinClosed, "the process has no open standard input");
                responder.answer(turn, context, Err(error), account);
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), WireError> {
        let gone = || WireError::new(ErrorCode::UnknownProcess, "the process has ended");
        let running = self.running.as_ref().ok_or_else(gone)?;
        let group = running.group.as_ref().ok_or_else(gone)?;
        let sent = match (signal.target, &running.terminal) {
            (SignalTarget::Leader, _) if self.is_confined => group.signal_group(signal.signal),
            (SignalTarget::Leader, _) => group.signal_leader(signal.signal),
            (SignalTarget::Foreground, Some(terminal)) => group.signal_foreground(terminal, signal.signal),
            (SignalTarget::Foreground, None) | (SignalTarget::Tree, _) => group.signal_group(signal.signal),
        };
        sent.map_err(|error| match error {
            spawn::SignalError::Unsupported { .. } => WireError::new(ErrorCode::BadSignal, error.to_string()),
            spawn::SignalError::Gone => WireError::new(ErrorCode::UnknownProcess, error.to_string()),
            spawn::SignalError::Refused(_) => WireError::new(ErrorCode::PermissionDenied, error.to_string()),
        })
    }

    /// A size that comes after the end is late and no error.
    fn resize(&self, resize: Resize) -> Result<(), WireError> {
        let Some(running) = &self.running else {
            return Ok(());
        };
        let terminal = running.terminal.as_ref().ok_or_else(|| {
            WireError::new(
                ErrorCode::BadRequest,
                "the process has no terminal: start it with one",
            )
        })?;
        terminal.resize(start::size(resize.size)).map_err(|error| {
            WireError::new(ErrorCode::SpawnFailed, "the terminal refused the size")
                .with_errno(error.raw_os_error())
        })
    }

    /// TERM and CONT to the tree, KILL when the grace is over. The first reason counts, and the shortest grace.
    fn terminate(&mut self, grace: Duration, ending: Ending, turn: &Turn<'_, Self>) {
        let grace = grace.min(WAIT_MAX);
        let group = self.running.as_ref().and_then(|running| running.group.clone());
        let Some(group) = group else {
            if self.terminate_early.is_none_or(|(earlier, _)| grace < earlier) {
                self.terminate_early = Some((grace, ending));
            }
            return;
        };
        if self
            .running
            .as_ref()
            .is_some_and(|running| running.exited.is_none())
        {
            self.ending.get_or_insert(ending);
        }
        self.overdue.begin(grace, &group, turn);
        match group.terminate(grace) {
            Ok(Enforcer::Guard) => {
                self.tree_grace = Some(self.tree_grace.map_or(grace, |earlier| earlier.min(grace)));
            }
            Ok(Enforcer::Caller) => {
                let at = Instant::now() + grace;
                if self.kill.as_ref().is_none_or(|(earlier, _)| at < *earlier) {
                    self.kill = Some((at, turn.timer(grace, ProcessControl::Kill)));
                }
            }
            Err(error) => tracing::debug!(%error, "a process could not be terminated"),
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

    fn exited(&mut self, seen: ExitSeen, turn: &mut Turn<'_, Self>) {
        let ExitSeen { exit, seen, watcher } = seen;
        self.deadline = None;
        let ending = self.ending;
        let context = self.context();
        let (Some(running), Some(delivery)) = (&mut self.running, &self.delivery) else {
            return;
        };
        let status = exit.as_ref().ok().map(|exit| match exit.status {
            spawn::ExitStatus::Code(code) => ExitStatus::Code(code),
            spawn::ExitStatus::Signal(signal) => ExitStatus::Signal(signal),
        });
        self.account.lap(Segment::Run, seen);
        self.record.exited(status);
        if let Some(watched) = &self.watched {
            watched.exited();
        }
        running.exited = Some((seen, status));
        running.watcher = watcher;
        running.drain_began = seen;
        let stage = Stage::new(&context, semconv::span::EXIT_WATCHER, running.spawn_ended, seen);
        let lost = status.is_none().then_some("wait_status_lost");
        self.collector.stage(spans::ended_by(stage, status).failed(lost));
        if let (Some(status), Ok(exit)) = (status, exit) {
            let ended = Ended {
                status,
                core_dumped: exit.core_dumped,
                oom_killed: exit.oom_killed,
                usage: usage(&exit),
                ending,
            };
            turn.tell(delivery, context, PushMessage::Exited(Box::new(ended)));
        }
        if running.ended.iter().any(Option::is_none) {
            let idle = Duration::from_millis(u64::from(self.terms.drain.idle_ms));
            let total = Duration::from_millis(u64::from(self.terms.drain.total_ms));
            running.drain = Some(turn.timer(idle.min(total).min(WAIT_MAX), ProcessControl::DrainOver));
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
            self.close(None, turn);
        }
    }

    /// A drain timer rang: goes on while a consumer is slow or output still comes, and gives the pipes up otherwise.
    fn drain_over(&mut self, turn: &Turn<'_, Self>) {
        let held = self.is_held();
        let millis = |ms: u32| Duration::from_millis(u64::from(ms)).min(WAIT_MAX);
        let (idle, total) = (
            millis(self.terms.drain.idle_ms),
            millis(self.terms.drain.total_ms),
        );
        let last = self.credit.last_output();
        let Some(running) = &mut self.running else { return };
        let now = Tick::now();
        let since = |then: Tick| Duration::from_micros(now.micros_since(then));
        if held {
            // Not the pipe but the consumer is slow: what is in the pipe is still to be had.
            running.drain_began = now;
            running.drain = Some(turn.timer(idle, ProcessControl::DrainOver));
            return;
        }
        let left = total.saturating_sub(since(running.drain_began));
        let quiet = last.map_or(idle, since);
        if quiet < idle && !left.is_zero() {
            running.drain = Some(turn.timer((idle - quiet).min(left), ProcessControl::DrainOver));
            return;
        }
        let (group, mailbox) = (running.group.clone(), turn.mailbox());
        // Reads /proc, which takes its time on a machine with many processes.
        running.drain = Some(turn.spawn(async move {
            let counted = tokio::task::spawn_blocking(move || {
                let Some(group) = group else { return 0 };
                let alive = |members: Vec<Member>| members.iter().filter(|member| !member.is_zombie).count();
                u32::try_from(group.members().map_or(0, alive)).unwrap_or(u32::MAX)
            });
            let holders = counted.await.unwrap_or(0);
            drop(mailbox.control(ProcessControl::Holders(holders)));
        }));
    }

    fn give_pipes_up(&mut self, holders: u32, turn: &mut Turn<'_, Self>) {
        let context = self.context();
        if let Some(running) = &mut self.running {
            running.tasks.clear();
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                if running.ended[stream.index()].is_none() {
                    let name = reader::span_name(stream);
                    let stage = Stage::new(&context, name, running.spawn_ended, Tick::now());
                    self.collector.stage(stage.failed(Some("drain_timeout")));
                }
            }
        }
        self.close(Some(holders), turn);
    }

    /// What is to outlive the executor lives on; everything else ends.
    fn session_ends(&mut self, turn: &mut Turn<'_, Self>) {
        if !self.terms.outlive {
            return self.terminate(SESSION_GRACE, Ending::Session, turn);
        }
        let group = self.running.as_mut().and_then(|running| running.group.take());
        match group.and_then(Arc::into_inner) {
            Some(group) => {
                group.release();
                self.running = None;
                self.end(turn);
            }
            None => self.terminate(SESSION_GRACE, Ending::Session, turn),
        }
    }

    /// The instant when the exit is known and every pipe is at its end: once, by whichever comes last.
    /// `holders` of the pipes are given when they were given up.
    fn close(&mut self, holders: Option<u32>, turn: &mut Turn<'_, Self>) {
        let context = self.context();
        let (Some(mut running), Some(delivery)) = (self.running.take(), self.delivery.take()) else {
            return;
        };
        // The readers' and writers' descriptors, of which a terminal's are three.
        running.tasks.clear();
        running.stdin = None;
        running.terminal = None;
        // Before the client can hear of the end, and start the next one.
        self.slot = None;
        // The last of its ends waited in the mailbox, and only up to there were the pipes.
        let residence = turn.residence();
        self.account.lap(Segment::Drain, residence.enqueued);
        self.account.lap(Segment::ProcessMailbox, residence.dequeued);
        let now = Tick::now();
        let (exited, status) = running.exited.unwrap_or((now, None));
        self.account.lap(Segment::Drain, now);
        self.collector.stage(
            Stage::new(&context, semconv::span::CLOSE, exited, now)
                .number(semconv::PROCESS_DRAIN_US, now.micros_since(exited)),
        );
        self.collector.stage(
            spans::ended_by(self.own_span(now), status)
                .maybe_number(
                    semconv::PROCESS_PID,
                    running.group.as_ref().map(|group| group.pid()),
                )
                .failed_as(spans::failure(status)),
        );
        let first_byte = self
            .first_byte
            .map_or(0, |first| first.micros_since(running.spawn_ended));
        let closed = PushMessage::Closed {
            status,
            drained: holders.is_none(),
            holders: holders.unwrap_or(0),
            account: Box::new(self.account.clone()),
            first_byte,
        };
        turn.tell(&delivery, context, closed);
        // Nobody else has it: who counted holders is done.
        if let Some(group) = running.group.and_then(Arc::into_inner) {
            self.part(group, running.watcher, holders.is_none(), turn);
        }
        self.end(turn);
    }

    /// What becomes of the process and what it left running. Reaped only now: until here its number could not be used
    /// again, so no signal could go astray.
    fn part(
        &mut self,
        group: ProcessGroup,
        watcher: Option<ExitWatcher>,
        drained: bool,
        turn: &Turn<'_, Self>,
    ) {
        if let (Some(grace), Some(mut watcher)) = (self.tree_grace, watcher) {
            let waiting = std::mem::take(&mut self.waiting_for_end);
            turn.spawn(async move {
                let report = tokio::time::timeout(grace + TREE_WAIT, watcher.tree_ended()).await;
                let report = match report {
                    Ok(Ok(report)) => Terminated {
                        killed: report.killed,
                        unkillable: report.unkillable,
                    },
                    // The guard is gone, and with it the tree; or it does not end.
                    Ok(Err(_)) | Err(_) => Terminated::default(),
                };
                for (responder, context, account) in waiting {
                    let answer = Ok(Reply::Terminated(report));
                    responder.answer_later(context, answer, account).await;
                }
                drop(group);
            })
            .detach();
        } else if let (true, Some((at, _))) = (drained, self.kill.take()) {
            // The leader is gone, and others of its group may have closed the pipes and ignored TERM.
            let grace = at.saturating_duration_since(Instant::now()).min(SESSION_GRACE);
            turn.spawn(async move {
                tokio::time::sleep(grace).await;
                drop(group);
            })
            .detach();
        } else if self.terms.outlive {
            group.release();
        } else if drained && group.is_tree_empty() != Some(false) {
            match group.reap() {
                Ok(spawn::Reap::Done(_)) => {}
                Ok(spawn::Reap::Running(group)) => drop(group),
                Err(error) => tracing::warn!(%error, "a process was reaped by somebody else"),
            }
        } else {
            // Something of it runs on: in the background, or with a pipe in its hands. It ends with the session.
            drop(self.supervisor.control(SupervisorControl::Keep(group)));
        }
    }

    fn end(&mut self, turn: &mut Turn<'_, Self>) {
        self.kill = None;
        self.watched = None;
        for (responder, context, account) in std::mem::take(&mut self.waiting_for_end) {
            let answer = Ok(Reply::Terminated(Terminated::default()));
            responder.answer(turn, context, answer, account);
        }
        let (supervisor, id) = (self.supervisor.clone(), self.id);
        turn.after_effects(move || drop(supervisor.control(SupervisorControl::Ended(id))));
        turn.stop();
    }
}

fn terms(start: &Start) -> Terms {
    Terms {
        grace: Duration::from_millis(u64::from(start.grace_ms)).min(WAIT_MAX),
        wall: start.limits.wall_ms.map(Duration::from_millis),
        drain: start.drain.unwrap_or_default(),
        outlive: start.outlive,
        overflow: start.overflow,
        spool_bytes: start.spool_bytes,
    }
}

fn usage(exit: &spawn::Exit) -> Option<Usage> {
    Some(Usage {
        user_us: exit.user_us?,
        system_us: exit.system_us?,
        max_rss_bytes: exit.max_rss_kib?.saturating_mul(1_024),
    })
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

impl Actor for Process {
    const NAME: &'static str = "Process";
    type Message = ProcessMessage;
    type Control = ProcessControl;

    fn receive(&mut self, envelope: Envelope<ProcessMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            ProcessMessage::Call(call) => self.call(envelope.context, *call, turn),
            ProcessMessage::Spawned(outcome) => self.spawned(*outcome, turn),
            ProcessMessage::ReaderEnded(stream, report) => self.reader_ended(stream, &report, turn),
            ProcessMessage::Exited(seen) => self.exited(*seen, turn),
        }
    }

    fn control(&mut self, control: ProcessControl, turn: &mut Turn<'_, Self>) {
        match control {
            ProcessControl::Credit(stream, limit) => self.credit.set(stream, limit),
            ProcessControl::WindDown => self.session_ends(turn),
            ProcessControl::Terminate => {
                // Nobody takes output any more: the readers run dry instead of waiting for credit.
                self.credit.open();
                self.session_ends(turn);
            }
            ProcessControl::Abandon => self.credit.open(),
            ProcessControl::Withdrawn => self.terminate(self.terms.grace, Ending::Terminated, turn),
            ProcessControl::Deadline => {
                self.deadline = None;
                self.terminate(self.terms.grace, Ending::Deadline, turn);
            }
            ProcessControl::Kill => {
                let group = self.running.as_ref().and_then(|running| running.group.as_ref());
                if let Some(Err(error)) = group.map(|group| group.signal_group(SIGKILL)) {
                    tracing::warn!(%error, "a process group could not be killed");
                }
            }
            ProcessControl::DrainOver => self.drain_over(turn),
            ProcessControl::Holders(holders) => self.give_pipes_up(holders, turn),
            ProcessControl::Overdue => {
                if let Some(group) = self.running.as_ref().and_then(|running| running.group.clone()) {
                    self.overdue.count(group, turn);
                }
            }
            ProcessControl::Unkillable(report) => self.unkillable(report, turn),
        }
    }
}
