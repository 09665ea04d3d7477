//! `Process`: one process, from its start to the end of its last pipe.
//!
//! Owns the process group, its standard input, its two output readers and its exit watcher. Never blocks: starting
//! happens on the spawner's thread, reading and waiting in tasks of this arbiter that come back as messages into room
//! that was reserved for them. Full: the supervisor waits. Stop: a process that is dropped is killed. Who sends: the
//! `ProcessSupervisor`, and its own tasks. A panic kills the process and tells the supervisor.

mod attention;
mod credit;
mod ending;
mod launch;
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
    Drain, Ending, Overflow, Resize, Signal, SignalTarget, Start, Terminated, Usage,
};
use dwell_messages::{
    Envelope, ErrorCode, ExitStatus, OutputStream, ProcessId, Reply, Request, SpanId, TraceContext, WireError,
};

use crate::access::ProcessSlot;
use crate::account::{Account, Segment};
use crate::in_flight::{Entered, Process as Watched};
use crate::mailbox::{Actor, Mailbox, Message, Slot, TimerGuard, Turn};
use crate::process_supervisor::ProcessSupervisor;
use crate::relay_framer::RelayFramer;
use crate::rpc_queue::server::{Call, Responder};
use crate::spawn::{self, Enforcer, ExitWatcher, ProcessGroup, SpawnOutcome, Spawner, Terminal};
use crate::telemetry::{Collector, Tick, span_id};
use crate::terminal_delivery::push::TerminalDelivery;
use crate::terminal_delivery::record::Record;

use overdue::Overdue;
use reader::ReaderReport;
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
