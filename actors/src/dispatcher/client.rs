//! `Dispatcher` on the harness: readiness, the serial/parallel lock, process ids and the dispatch timing.
//!
//! Owns which calls wait and which run. Never holds a call's events: each has a `TerminalDelivery` of its own, which
//! the dispatcher starts. Full: `exec` waits in the mailbox's room. Stop: waiting calls are told that nothing was
//! begun. Who sends: the `Harness`, and the deliveries when their calls are over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dwell_messages::process::{EnvironmentPolicy, Inherit as WireInherit, Start};
use dwell_messages::{Envelope, ErrorCode, ProcessId, Reply as WireReply, Request, TraceContext, WireError};
use serde_bytes::ByteBuf;

use super::lock::{Full, LockCore, Mode, WAITING_MAX};
use crate::account::{Account, Segment};
use crate::harness::{Command, Inherit, RunError, RunShared};
use crate::mailbox::{Actor, HostOptions, Mailbox, Message, Reply, Turn, start_here};
use crate::metadata_writer::MetadataWriter;
use crate::relay_framer::{FramerControl, RelayFramer};
use crate::rpc_queue::caller::{Call, RpcMessage, RpcQueue};
use crate::telemetry::{Collector, Stage, Tick};
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
    /// Something for a process that runs.
    Ask {
        process: ProcessId,
        request: Box<Request>,
        deadline: Option<Duration>,
        reply: Reply<Result<WireReply, WireError>>,
    },
    /// What is the environment? Costs one round trip.
    Environment {
        reply: Reply<Result<WireReply, WireError>>,
    },
}

/// What it is told urgently.
pub(crate) enum DispatcherControl {
    /// The link is up.
    Ready,
    /// A started call is over.
    Finished(ProcessId, Mode),
    /// The link is gone.
    Lost(String),
}

impl Message for DispatcherMessage {
    const NAMES: &'static [&'static str] = &["Exec", "Ask", "Environment"];

    fn index(&self) -> usize {
        match self {
            Self::Exec(_) => 0,
            Self::Ask { .. } => 1,
            Self::Environment { .. } => 2,
        }
    }
}

struct Waiting {
    exec: Exec,
    account: Account,
    taken: Tick,
}

/// See the module.
pub(crate) struct Dispatcher {
    lock: LockCore<Waiting>,
    rpc: Mailbox<RpcQueue>,
    framer: Mailbox<RelayFramer>,
    metadata: Mailbox<MetadataWriter>,
    collector: Collector,
    next_process: u64,
    deliveries: HashMap<ProcessId, Mailbox<Delivery>>,
    lost: Option<String>,
}

impl Dispatcher {
    pub(crate) fn new(
        rpc: Mailbox<RpcQueue>,
        framer: Mailbox<RelayFramer>,
        metadata: Mailbox<MetadataWriter>,
        collector: Collector,
    ) -> Self {
        Self {
            lock: LockCore::default(),
            rpc,
            framer,
            metadata,
            collector,
            next_process: 1,
            deliveries: HashMap::new(),
            lost: None,
        }
    }

    fn exec(&mut self, exec: Exec, turn: &mut Turn<'_, Self>) {
        let mut account = Account::begin(exec.begun);
        account.lap(Segment::HandOff, turn.residence().dequeued);
        if let Err(error) = check(&exec.command) {
            return exec.shared.end(Err(RunError::Refused(error)), Tick::now());
        }
        if let Some(why) = &self.lost {
            return exec
                .shared
                .end(Err(RunError::NotStarted(why.clone())), Tick::now());
        }
        let mode = exec.command.mode;
        match self.lock.submit(
            mode,
            Waiting {
                exec,
                account,
                taken: turn.now(),
            },
        ) {
            Ok(Some(call)) => self.begin(call, turn),
            Ok(None) => {}
            Err(Full(call)) => {
                let error = WireError::new(ErrorCode::Busy, "too many commands wait for their turn")
                    .with_limit(WAITING_MAX as u64, WAITING_MAX as u64 + 1);
                call.exec.shared.end(Err(RunError::Refused(error)), Tick::now());
            }
        }
    }

    fn begin(&mut self, call: Waiting, turn: &mut Turn<'_, Self>) {
        let Waiting {
            exec,
            mut account,
            taken,
        } = call;
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
        let program = command.argv.first().cloned().unwrap_or_default();
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
        let now = Tick::now();
        account.lap(Segment::Dispatch, now);
        self.collector
            .stage(Stage::new(&context, "tool dispatch", taken, now).text(
                "dispatch.lock",
                if command.mode == Mode::Serial {
                    "serial"
                } else {
                    "parallel"
                },
            ));
        let reply = Box::new(move |outcome| {
            drop(delivery.control(ReceiveControl::Started(Box::new(outcome))));
        });
        let request = Request::Start(Box::new(start(command, &context)));
        // The delivery has the deadline: it must hear of a start that is answered late, to end what came of it.
        let call = Call {
            process: Some(process),
            request,
            deadline: None,
            account,
            reply,
        };
        turn.tell(&self.rpc, context, RpcMessage::Call(Box::new(call)));
    }

    fn ask(
        &self,
        context: TraceContext,
        (process, request): (Option<ProcessId>, Request),
        deadline: Option<Duration>,
        reply: Reply<Result<WireReply, WireError>>,
        turn: &mut Turn<'_, Self>,
    ) {
        let reply = Box::new(move |outcome: crate::rpc_queue::caller::Outcome| reply.send(outcome.result));
        let account = Account::begin(turn.residence().enqueued);
        let call = Call {
            process,
            request,
            deadline,
            account,
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

/// Refused here, before anything is sent.
fn check(command: &Command) -> Result<(), WireError> {
    if command.argv.first().is_none_or(Vec::is_empty) {
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

fn start(command: Command, context: &TraceContext) -> Start {
    Start {
        argv: command.argv.into_iter().map(ByteBuf::from).collect(),
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
        detach: command.detach,
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
                deadline,
                reply,
            } => {
                self.ask(context, (Some(process), *request), deadline, reply, turn);
            }
            DispatcherMessage::Environment { reply } => {
                self.ask(context, (None, Request::EnvironmentInfo), None, reply, turn);
            }
        }
    }

    fn control(&mut self, control: DispatcherControl, turn: &mut Turn<'_, Self>) {
        match control {
            DispatcherControl::Ready => {
                for call in self.lock.ready() {
                    self.begin(call, turn);
                }
            }
            DispatcherControl::Finished(process, mode) => {
                self.deliveries.remove(&process);
                drop(self.framer.control(FramerControl::Unroute(process)));
                for call in self.lock.finished(mode) {
                    self.begin(call, turn);
                }
            }
            DispatcherControl::Lost(why) => self.abandon(why),
        }
    }

    fn drained(&mut self, _: &mut Turn<'_, Self>) {
        self.abandon("the harness was shut down".into());
    }
}
