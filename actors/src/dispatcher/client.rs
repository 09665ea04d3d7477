//! `Dispatcher` on the harness: readiness, the serial/parallel lock, process ids and the dispatch timing.
//!
//! Owns which calls wait and which run. Never holds a call's events: each has a `TerminalDelivery` of its own, which
//! the dispatcher starts. Full: `exec` waits in the mailbox's room. Stop: waiting calls are told that nothing was
//! begun. Who sends: the `Harness`, and the deliveries when their calls are over.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dwell_messages::process::{EnvironmentPolicy, Inherit as WireInherit, Start, Terminate};
use dwell_messages::{Envelope, ErrorCode, ProcessId, Reply as WireReply, Request, TraceContext, WireError};
use serde_bytes::ByteBuf;

use super::lock::{Full, LockCore, Mode, WAITING_MAX};
use crate::account::{Account, Segment};
use crate::fault_point::delay::{self, DelayPoint};
use crate::harness::{Command, GRACE, Inherit, RunError, RunShared};
use crate::mailbox::{Actor, HostOptions, Mailbox, Message, Reply, Turn, start_here};
use crate::relay_framer::{FramerControl, RelayFramer};
use crate::rpc_queue::caller::{Call, RpcMessage, RpcQueue, Ticket};
use crate::run_recorder::RunRecorder;
use crate::telemetry::{Collector, Tick};
use crate::terminal_delivery::OUTPUT_WINDOW_BYTES;
use crate::terminal_delivery::receive::{
    DELIVERY_MAILBOX_MAX, Progress, ReceiveControl, RunFacts, TerminalDelivery as Delivery, Wiring,
};

/// A command to run.
pub(crate) struct Exec {
    pub(crate) command: Command,
    pub(crate) shared: Arc<RunShared>,
    /// The call's own span, which everything of it hangs below.
    pub(crate) context: TraceContext,
    /// When `exec` was called.
    pub(crate) begun: Tick,
}

/// What it is told.
pub(crate) enum DispatcherMessage {
    /// Run a command.
    Exec(Box<Exec>),
    /// Something for the executor, mostly for a process that runs. The ticket says when nobody waits any more.
    Ask {
        process: Option<ProcessId>,
        request: Box<Request>,
        ticket: Ticket,
        reply: Reply<Result<WireReply, WireError>>,
    },
    /// Start a command that nobody here waits for. Its id is put into the slot when it runs.
    Start {
        command: Box<Command>,
        ticket: Ticket,
        slot: Arc<AtomicU64>,
        reply: Reply<(ProcessId, Result<WireReply, WireError>)>,
    },
    /// End a process that was started for nobody, and whose start was given up when it had been answered.
    Unwanted(ProcessId),
}

/// What it is told urgently.
pub(crate) enum DispatcherControl {
    /// The link is up.
    Ready,
    /// The session had other owners, and this is the highest process id of theirs.
    GoesOnBehind(u64),
    /// Processes that another owner started are this side's now.
    Adopted(Vec<(ProcessId, Mailbox<Delivery>)>),
    /// A started call is over.
    Finished(ProcessId, Mode),
    /// The link is gone.
    Lost(String),
}

impl Message for DispatcherMessage {
    const NAMES: &'static [&'static str] = &["Exec", "Ask", "Start", "Unwanted"];

    fn index(&self) -> usize {
        match self {
            Self::Exec(_) => 0,
            Self::Ask { .. } => 1,
            Self::Start { .. } => 2,
            Self::Unwanted(_) => 3,
        }
    }
}

struct Waiting {
    exec: Exec,
    account: Account,
}

/// See the module.
pub(crate) struct Dispatcher {
    lock: LockCore<Waiting>,
    rpc: Mailbox<RpcQueue>,
    framer: Mailbox<RelayFramer>,
    metadata: Mailbox<RunRecorder>,
    collector: Collector,
    /// Since when there is a link.
    ready: Option<Tick>,
    next_process: u64,
    deliveries: HashMap<ProcessId, Mailbox<Delivery>>,
    lost: Option<String>,
}

impl Dispatcher {
    pub(crate) fn new(
        rpc: Mailbox<RpcQueue>,
        framer: Mailbox<RelayFramer>,
        metadata: Mailbox<RunRecorder>,
        collector: Collector,
    ) -> Self {
        Self {
            lock: LockCore::default(),
            rpc,
            framer,
            metadata,
            collector,
            ready: None,
            next_process: 1,
            deliveries: HashMap::new(),
            lost: None,
        }
    }

    fn exec(&mut self, exec: Exec, turn: &mut Turn<'_, Self>) {
        let mut account = Account::begin(exec.begun);
        account.lap(Segment::Submit, turn.now());
        if let Err(error) = check(&exec.command) {
            return exec.shared.end(Err(RunError::Refused(error)), Tick::now());
        }
        if let Some(why) = &self.lost {
            return exec
                .shared
                .end(Err(RunError::NotStarted(why.clone())), Tick::now());
        }
        exec.shared.taken(turn.now());
        let mode = exec.command.mode;
        match self.lock.submit(mode, Waiting { exec, account }) {
            Ok(Some(call)) => self.begin_all(vec![call], turn),
            Ok(None) => {}
            Err(Full(call)) => {
                let error = WireError::new(ErrorCode::Busy, "too many commands wait for their turn")
                    .with_limit(WAITING_MAX as u64, WAITING_MAX as u64 + 1);
                call.exec.shared.end(Err(RunError::Refused(error)), Tick::now());
            }
        }
    }

    /// Begins calls whose turn it is. One whose consumer gave it up is not begun, and gives its turn to the next.
    fn begin_all(&mut self, calls: Vec<Waiting>, turn: &mut Turn<'_, Self>) {
        let mut calls = VecDeque::from(calls);
        while let Some(call) = calls.pop_front() {
            if call.exec.shared.is_cancelled() {
                let why = "it was given up before it was begun";
                let given_up = RunError::NotStarted(why.into());
                call.exec.shared.end(Err(given_up), Tick::now());
                calls.extend(self.lock.finished(call.exec.command.mode));
                continue;
            }
            self.begin(call, turn);
        }
    }

    fn begin(&mut self, call: Waiting, turn: &mut Turn<'_, Self>) {
        // The turn that lets it begin, be it its own: then it has waited for nothing.
        let locked = turn.now();
        let Waiting { exec, mut account } = call;
        let Exec {
            command,
            shared,
            context,
            ..
        } = exec;
        let process = ProcessId(self.next_process);
        self.next_process += 1;
        let facts = RunFacts {
            process,
            mode: command.mode,
            context: context.clone(),
            begun: account.first(),
        };
        let wiring = Wiring {
            rpc: self.rpc.clone(),
            framer: self.framer.clone(),
            dispatcher: turn.mailbox(),
            metadata: self.metadata.clone(),
            collector: self.collector.clone(),
        };
        let program = command.program.as_ref().or(command.argv.first());
        let program = program.cloned().unwrap_or_default();
        let (deadline, grace) = (command.deadline, command.grace);
        let owned = Arc::clone(&shared);
        let entered = self.collector.enter();
        let (waits, dispatcher, mode) = (Arc::clone(&shared), turn.mailbox(), command.mode);
        let options = HostOptions::new(DELIVERY_MAILBOX_MAX).escalating(move |failure| {
            waits.end(Err(RunError::Lost(failure.to_string())), Tick::now());
            drop(dispatcher.control(DispatcherControl::Finished(process, mode)));
        });
        let progress = Arc::<Progress>::default();
        let its_progress = Arc::clone(&progress);
        let delivery = start_here(options, move || {
            Delivery::new(
                facts.clone(),
                wiring.clone(),
                (Arc::clone(&owned), Arc::clone(&its_progress)),
                program.clone(),
                deadline,
                grace,
            )
        });
        drop(entered);
        self.deliveries.insert(process, delivery.clone());
        let route = delivery.clone();
        drop(self.framer.control(FramerControl::Upper(Box::new(move |upper| {
            upper.route(process, route, progress)
        }))));
        shared.begun(process, &delivery);
        delay::reach(DelayPoint::HarnessDispatch);
        let now = Tick::now();
        account.lap(Segment::Dispatch, now);
        if let Some(begun) = shared.starts(self.ready, locked, now) {
            begun.tell(&self.collector, &context);
        }
        let reply = Box::new(move |outcome| {
            drop(delivery.control(ReceiveControl::Started(Box::new(outcome))));
        });
        let request = Request::Start(Box::new(start(command, &context, false)));
        // The delivery has the deadline: it must hear of a start that is answered late, to end what came of it.
        let call = Call {
            process: Some(process),
            request,
            deadline: None,
            ticket: None,
            account,
            reply,
        };
        turn.tell(&self.rpc, context, RpcMessage::Call(Box::new(call)));
    }

    fn ask(
        &mut self,
        context: TraceContext,
        (mut process, request): (Option<ProcessId>, Request),
        ticket: Ticket,
        reply: Reply<Result<WireReply, WireError>>,
        turn: &mut Turn<'_, Self>,
    ) {
        let mut owed = None;
        if request.is_whole_call() {
            process = Some(ProcessId(self.next_process));
            self.next_process += 1;
            owed = process.filter(|_| context.is_sampled());
        }
        let framer = self.framer.clone();
        let reply = Box::new(move |outcome: crate::rpc_queue::caller::Outcome| {
            if let Some(process) = owed.filter(|_| outcome.answered) {
                // Its spans come behind the answer, as those of a process behind its end.
                drop(framer.control(FramerControl::Upper(Box::new(move |upper| upper.owed(process)))));
            }
            reply.send(outcome.result);
        });
        let account = Account::begin(turn.residence().enqueued);
        let call = Call {
            process,
            request,
            deadline: None,
            ticket: Some(ticket),
            account,
            reply,
        };
        turn.tell(&self.rpc, context, RpcMessage::Call(Box::new(call)));
    }

    /// Starts a command whose events go to nobody here: whoever takes the session up asks for them.
    fn start_for_nobody(
        &mut self,
        context: TraceContext,
        command: Command,
        (ticket, slot): (Ticket, Arc<AtomicU64>),
        reply: Reply<(ProcessId, Result<WireReply, WireError>)>,
        turn: &mut Turn<'_, Self>,
    ) {
        let process = ProcessId(self.next_process);
        if let Err(error) = check(&command) {
            return reply.send((process, Err(error)));
        }
        if let Some(why) = &self.lost {
            let error = WireError::new(ErrorCode::Disconnected, why.clone());
            return reply.send((process, Err(error)));
        }
        self.next_process += 1;
        let request = Request::Start(Box::new(start(command, &context, true)));
        let (given_up, dispatcher) = (Arc::clone(&ticket), turn.mailbox());
        let reply = Box::new(move |outcome: crate::rpc_queue::caller::Outcome| {
            if outcome.result.is_ok() {
                // Whoever gives it up does this the other way round: one of the two sees the other.
                slot.store(process.0, Ordering::SeqCst);
                if given_up.load(Ordering::SeqCst) {
                    unwanted(&dispatcher, process);
                }
            }
            reply.send((process, outcome.result));
        });
        let call = Call {
            process: Some(process),
            request,
            deadline: None,
            ticket: Some(ticket),
            account: Account::begin(turn.residence().enqueued),
            reply,
        };
        turn.tell(&self.rpc, context, RpcMessage::Call(Box::new(call)));
    }

    fn abandon(&mut self, why: String) {
        for call in self.lock.abandon() {
            call.exec
                .shared
                .end(Err(RunError::NotStarted(why.clone())), Tick::now());
        }
        for delivery in self.deliveries.values() {
            drop(delivery.control(ReceiveControl::Lost(why.clone())));
        }
        self.lost = Some(why);
    }
}

/// Ends a process that was started for nobody and is wanted by nobody.
pub(crate) fn unwanted(dispatcher: &Mailbox<Dispatcher>, process: ProcessId) {
    let message = DispatcherMessage::Unwanted(process);
    if let Err(full) = dispatcher.try_tell(Envelope::new(TraceContext::default(), message)) {
        tracing::warn!(process = process.0, %full, "a process that nobody wants runs on");
    }
}

/// Refused here, before anything is sent.
fn check(command: &Command) -> Result<(), WireError> {
    let program = command.program.as_ref().or(command.argv.first());
    if program.is_none_or(Vec::is_empty) {
        return Err(WireError::new(ErrorCode::EmptyArgv, "the command has no program"));
    }
    let nul = |bytes: &[u8]| bytes.contains(&0);
    let fields = command
        .argv
        .iter()
        .chain(&command.cwd)
        .chain(command.set.iter().flat_map(|(n, v)| [n, v]))
        .map(Vec::as_slice)
        .chain(command.pty.iter().map(|pty| pty.term.as_bytes()));
    if fields.into_iter().any(nul) {
        return Err(WireError::new(
            ErrorCode::BadRequest,
            "an argument, path or variable holds a NUL byte",
        ));
    }
    if command
        .set
        .iter()
        .any(|(name, _)| name.is_empty() || name.contains(&b'='))
    {
        return Err(WireError::new(
            ErrorCode::BadRequest,
            "a variable's name is empty or holds '='",
        ));
    }
    Ok(())
}

fn start(command: Command, context: &TraceContext, unattended: bool) -> Start {
    Start {
        argv: command.argv.into_iter().map(ByteBuf::from).collect(),
        program: command.program.map(ByteBuf::from),
        cwd: command.cwd.map(ByteBuf::from),
        env: EnvironmentPolicy {
            inherit: match command.inherit {
                Inherit::Core => WireInherit::Core,
                Inherit::All => WireInherit::All,
                Inherit::None => WireInherit::None,
            },
            set: command
                .set
                .into_iter()
                .map(|(n, v)| (ByteBuf::from(n), ByteBuf::from(v)))
                .collect(),
            unset: command.unset.into_iter().map(ByteBuf::from).collect(),
            include: command.include.into_iter().map(ByteBuf::from).collect(),
            exclude: command.exclude.into_iter().map(ByteBuf::from).collect(),
            secrets: command.secrets,
        },
        stdin: command.stdin,
        pty: command.pty,
        limits: command.limits,
        drain: command.drain,
        retention_bytes: command.retention,
        overflow: command.overflow,
        spool_bytes: command.spool,
        confinement: command.confinement,
        outlive: command.outlive,
        unattended,
        credit: OUTPUT_WINDOW_BYTES,
        grace_ms: u32::try_from(command.grace.as_millis()).unwrap_or(u32::MAX),
        launch: Some(ByteBuf::from(context.span_id.0.to_vec())),
    }
}

impl Actor for Dispatcher {
    const NAME: &'static str = "Dispatcher";
    type Message = DispatcherMessage;
    type Control = DispatcherControl;

    fn receive(&mut self, envelope: Envelope<DispatcherMessage>, turn: &mut Turn<'_, Self>) {
        let context = envelope.context;
        match envelope.body {
            DispatcherMessage::Exec(exec) => self.exec(*exec, turn),
            DispatcherMessage::Ask {
                process,
                request,
                ticket,
                reply,
            } => {
                self.ask(context, (process, *request), ticket, reply, turn);
            }
            DispatcherMessage::Start {
                command,
                ticket,
                slot,
                reply,
            } => self.start_for_nobody(context, *command, (ticket, slot), reply, turn),
            DispatcherMessage::Unwanted(process) => {
                let terminate = Request::Terminate(Terminate {
                    grace_ms: u32::try_from(GRACE.as_millis()).unwrap_or(u32::MAX),
                    session: None,
                });
                let nobody = Reply::channel().0;
                // Nor is anything of it wanted again.
                drop(self.framer.control(FramerControl::Unroute(process)));
                self.ask(
                    context,
                    (Some(process), terminate),
                    Ticket::default(),
                    nobody,
                    turn,
                );
            }
        }
    }

    fn control(&mut self, control: DispatcherControl, turn: &mut Turn<'_, Self>) {
        match control {
            DispatcherControl::Ready => {
                self.ready = Some(turn.now());
                let calls = self.lock.ready();
                self.begin_all(calls, turn);
            }
            DispatcherControl::GoesOnBehind(last) => {
                self.next_process = self.next_process.max(last.saturating_add(1));
            }
            DispatcherControl::Adopted(runs) => {
                for (process, delivery) in runs {
                    self.lock.adopt();
                    self.deliveries.insert(process, delivery);
                }
            }
            DispatcherControl::Finished(process, mode) => {
                self.deliveries.remove(&process);
                drop(self.framer.control(FramerControl::Unroute(process)));
                let calls = self.lock.finished(mode);
                self.begin_all(calls, turn);
            }
            DispatcherControl::Lost(why) => self.abandon(why),
        }
    }

    fn drained(&mut self, _: &mut Turn<'_, Self>) {
        self.abandon("the harness was shut down".into());
    }
}
