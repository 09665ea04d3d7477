//! `ProcessSupervisor`: the processes of one session.
//!
//! Owns which processes there are and the actors that own each. Never touches a process itself. Full: the dispatcher
//! waits. Stop: every process is terminated, and the supervisor ends when the last has. Who sends: the `Dispatcher`
//! and the framer (credit). Supervised by the session.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dwell_messages::{
    Envelope, ErrorCode, OutputStream, ProcessId, Reply, Request, Resume, TraceContext, WireError,
};

use crate::account::Segment;
use crate::mailbox::{Actor, HostOptions, Mailbox, Message, TimerGuard, Turn, start_here};
use crate::process::{PROCESS_MAILBOX_MAX, Process, ProcessControl, ProcessMessage, SessionView};
use crate::relay_framer::{FramerControl, OUTPUT_CHUNKS_MAX, RelayFramer};
use crate::rpc_queue::server::Call;
use crate::spawn::{ProcessGroup, Spawner};
use crate::telemetry::{Collector, Tick};
use crate::terminal_delivery::push::{PushMessage, Reading, TerminalDelivery, read_bytes};
use crate::terminal_delivery::retained::Retained;

/// Processes of one session at a time.
pub const PROCESSES_MAX: usize = 1_024;
/// Ids of ended processes that are remembered, so that a late request gets the right answer.
pub const TOMBSTONES_MAX: usize = 4_096;
/// Groups of ended processes that something still runs in; past it the oldest is killed.
pub const LEFTOVERS_MAX: usize = 256;
/// How long what an ended process told can be read again.
pub const KEPT_FOR: Duration = Duration::from_secs(30);
/// Ended processes of which that is kept, the newest.
pub const KEPT_PROCESSES_MAX: usize = 64;
/// Bytes of output kept of all of them.
pub const KEPT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// What a session may have to say to one process's delivery at a time.
const SESSION_MESSAGES_MAX: usize = 4;
/// Calls that may lie in the supervisor's mailbox.
pub const SUPERVISOR_MAILBOX_MAX: usize = 256;

/// What it is told.
pub(crate) enum SupervisorMessage {
    /// A request about a process.
    Call(Box<Call>),
    /// A process has a delivery, which says what it tells; the link it was made for.
    Delivers(ProcessId, Mailbox<TerminalDelivery>, u64),
    /// A fresh link, and how far its client is.
    Attached(u64, Box<Resume>),
    /// The client wants nothing more of these processes.
    Released(Vec<ProcessId>),
    /// What an ended process told, to be read again for a while: its delivery is gone.
    Retain(ProcessId, Box<Retained>),
}

/// What it is told urgently.
pub(crate) enum SupervisorControl {
    /// A process has closed and its actor is gone.
    Ended(ProcessId),
    /// The client takes more of a stream.
    Credit(ProcessId, OutputStream, u64),
    /// What is left of a process's group; dropped, and so killed, with the session.
    Keep(ProcessGroup),
    /// Look whether something was kept long enough.
    Forget,
    /// End everything, and say so when the client has heard of it.
    WindDown,
    /// The session is over: end everything.
    Terminate,
}

/// What is kept of ended processes.
#[derive(Default)]
struct Kept {
    entries: VecDeque<(Tick, ProcessId, Box<Retained>)>,
    bytes: u64,
    timer: Option<TimerGuard>,
}

impl Kept {
    fn find(&self, process: ProcessId) -> Option<&Retained> {
        let entry = self.entries.iter().find(|(_, id, _)| *id == process)?;
        Some(&entry.2)
    }

    fn keep(&mut self, process: ProcessId, retained: Box<Retained>) {
        self.bytes += retained.bytes();
        self.entries.push_back((Tick::now(), process, retained));
        while self.entries.len() > KEPT_PROCESSES_MAX || self.bytes > KEPT_BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// Drops what is old. Says after how long to look again, if there is anything left.
    fn forget(&mut self, now: Tick) -> Option<Duration> {
        while let Some((ended, ..)) = self.entries.front() {
            let age = Duration::from_micros(now.micros_since(*ended));
            if age < KEPT_FOR {
                return Some(KEPT_FOR - age);
            }
            self.drop_oldest();
        }
        None
    }

    fn drop_oldest(&mut self) {
        if let Some((_, _, retained)) = self.entries.pop_front() {
            self.bytes -= retained.bytes();
        }
    }
}

impl Message for SupervisorMessage {
    const NAMES: &'static [&'static str] = &["Call", "Delivers", "Attached", "Released", "Retain"];

    fn index(&self) -> usize {
        match self {
            Self::Call(_) => 0,
            Self::Delivers(..) => 1,
            Self::Attached(..) => 2,
            Self::Released(_) => 3,
            Self::Retain(..) => 4,
        }
    }
}

/// See the module.
pub(crate) struct ProcessSupervisor {
    processes: HashMap<ProcessId, Mailbox<Process>>,
    /// Also those of ended processes whose client may still need something of them.
    deliveries: HashMap<ProcessId, Mailbox<TerminalDelivery>>,
    session: SessionView,
    used: HashSet<ProcessId>,
    spawner: Arc<Spawner>,
    framer: Mailbox<RelayFramer>,
    collector: Collector,
    leftovers: VecDeque<ProcessGroup>,
    kept: Kept,
    terminating: bool,
    /// The framer waits until every end has been told.
    winding_down: bool,
    on_empty: Option<Box<dyn FnOnce()>>,
}

impl ProcessSupervisor {
    /// `on_empty` is called when, after `Terminate`, no process is left.
    pub(crate) fn new(
        spawner: Arc<Spawner>,
        framer: Mailbox<RelayFramer>,
        collector: Collector,
        session: SessionView,
        on_empty: Box<dyn FnOnce()>,
    ) -> Self {
        Self {
            processes: HashMap::new(),
            deliveries: HashMap::new(),
            session,
            used: HashSet::new(),
            spawner,
            framer,
            collector,
            leftovers: VecDeque::new(),
            kept: Kept::default(),
            terminating: false,
            winding_down: false,
            on_empty: Some(on_empty),
        }
    }

    fn call(&mut self, context: TraceContext, mut call: Call, turn: &mut Turn<'_, Self>) {
        call.account.lap(Segment::Mailbox, turn.residence().dequeued);
        let Some(process) = call.process else {
            let error = WireError::new(ErrorCode::BadRequest, "the request names no process");
            return call.responder.answer(turn, context, Err(error), call.account);
        };
        if matches!(call.request, Request::Start(_)) {
            if let Err(error) = self.admit(process) {
                return call.responder.answer(turn, context, Err(error), call.account);
            }
            let started = self.start(process, turn);
            self.processes.insert(process, started);
        }
        match self.processes.get(&process) {
            Some(target) => turn.tell(target, context, ProcessMessage::Call(Box::new(call))),
            None => {
                if let (Request::Read(_), Some(delivery)) = (&call.request, self.deliveries.get(&process)) {
                    let Request::Read(read) = call.request else { return };
                    let reading = Reading {
                        read,
                        responder: call.responder,
                        account: call.account,
                    };
                    return turn.tell(delivery, context, PushMessage::Read(Box::new(reading)));
                }
                if let (Request::Read(read), Some(kept)) = (&call.request, self.kept.find(process)) {
                    let reply = kept.read(read.after, read_bytes(read));
                    return call
                        .responder
                        .answer(turn, context, Ok(Reply::Read(reply)), call.account);
                }
                let text = if self.used.contains(&process) {
                    "has ended"
                } else {
                    "was never started here"
                };
                let error =
                    WireError::new(ErrorCode::UnknownProcess, format!("process {} {text}", process.0));
                call.responder.answer(turn, context, Err(error), call.account);
            }
        }
    }

    fn admit(&mut self, process: ProcessId) -> Result<(), WireError> {
        if self.terminating {
            return Err(WireError::new(ErrorCode::Stopped, "the session is ending"));
        }
        if self.used.contains(&process) {
            let text = format!("process id {} was used before in this session", process.0);
            return Err(WireError::new(ErrorCode::DuplicateProcess, text));
        }
        // Those that ended count for as long as something of them may be needed again.
        let held = self.processes.len().max(self.deliveries.len());
        if held >= PROCESSES_MAX {
            let running = held as u64;
            return Err(
                WireError::new(ErrorCode::Busy, "too many processes in this session")
                    .with_limit(PROCESSES_MAX as u64, running + 1),
            );
        }
        if self.used.len() >= TOMBSTONES_MAX + PROCESSES_MAX {
            // Ids only grow at a well-behaved client: the lowest ones are the ones nobody asks for any more.
            let mut ended: Vec<_> = self
                .used
                .iter()
                .copied()
                .filter(|id| !self.processes.contains_key(id))
                .collect();
            ended.sort_unstable();
            ended.truncate(TOMBSTONES_MAX / 2);
            ended.iter().for_each(|id| {
                self.used.remove(id);
            });
        }
        self.used.insert(process);
        Ok(())
    }

    fn start(&self, process: ProcessId, turn: &Turn<'_, Self>) -> Mailbox<Process> {
        let (spawner, collector) = (Arc::clone(&self.spawner), self.collector.clone());
        let framer = self.framer.port(OUTPUT_CHUNKS_MAX);
        let supervisor = turn.mailbox();
        let (failed, session) = (supervisor.clone(), self.session.clone());
        let options = HostOptions::new(PROCESS_MAILBOX_MAX).escalating(move |_| {
            drop(failed.control(SupervisorControl::Ended(process)));
        });
        start_here(options, move || {
            Process::new(
                process,
                Arc::clone(&spawner),
                framer.clone(),
                supervisor.clone(),
                collector.clone(),
                session.clone(),
            )
        })
    }

    /// A fresh link: every process goes on from where its client is. Those that the client does not name, if it knows
    /// them all, go on for nobody.
    fn attached(&mut self, attachment: u64, resume: &Resume, turn: &mut Turn<'_, Self>) {
        self.session.attachment = attachment;
        let progress: HashMap<_, _> = resume
            .processes
            .iter()
            .map(|progress| (ProcessId(progress.process), progress))
            .collect();
        let mut unwanted = Vec::new();
        for (process, delivery) in &self.deliveries {
            let known = progress.get(process);
            if known.is_none() && resume.whole {
                unwanted.push(*process);
                continue;
            }
            if let (Some(progress), Some(target)) = (known, self.processes.get(process)) {
                for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                    let limit = progress.limit[stream.index()];
                    drop(target.control(ProcessControl::Credit(stream, limit)));
                }
            }
            let next = known.map(|progress| progress.next);
            turn.tell(
                delivery,
                TraceContext::default(),
                PushMessage::Attached { attachment, next },
            );
        }
        self.released(unwanted, turn);
    }

    fn released(&mut self, processes: Vec<ProcessId>, turn: &mut Turn<'_, Self>) {
        for process in processes {
            if let Some(target) = self.processes.get(&process) {
                drop(target.control(ProcessControl::Abandon));
            }
            if let Some(delivery) = self.deliveries.get(&process) {
                turn.tell(delivery, TraceContext::default(), PushMessage::Release);
            }
        }
    }

    /// Says that nothing is left to be told.
    fn check_wound_down(&mut self) {
        if self.winding_down && self.processes.is_empty() && self.deliveries.is_empty() {
            self.winding_down = false;
            drop(self.framer.control(FramerControl::WoundDown));
        }
    }

    fn check_empty(&mut self, turn: &mut Turn<'_, Self>) {
        if self.terminating && self.processes.is_empty() {
            if let Some(on_empty) = self.on_empty.take() {
                on_empty();
            }
            turn.stop();
        }
    }
}

impl Drop for ProcessSupervisor {
    fn drop(&mut self) {
        // A supervisor that failed has dropped, and so killed, its processes.
        if let Some(on_empty) = self.on_empty.take() {
            on_empty();
        }
    }
}

impl Actor for ProcessSupervisor {
    const NAME: &'static str = "ProcessSupervisor";
    type Message = SupervisorMessage;
    type Control = SupervisorControl;

    fn receive(&mut self, envelope: Envelope<SupervisorMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            SupervisorMessage::Call(call) => self.call(envelope.context, *call, turn),
            SupervisorMessage::Delivers(process, delivery, made_for) => {
                if self.terminating && !self.winding_down {
                    return delivery.begin_drain();
                }
                if made_for != self.session.attachment {
                    // It missed the fresh link.
                    let attached = PushMessage::Attached {
                        attachment: self.session.attachment,
                        next: Some([0; 2]),
                    };
                    turn.tell(&delivery, TraceContext::default(), attached);
                }
                // Output that waits for a slow link does not stand in the session's way.
                self.deliveries
                    .insert(process, delivery.port(SESSION_MESSAGES_MAX));
            }
            SupervisorMessage::Attached(attachment, resume) => self.attached(attachment, &resume, turn),
            SupervisorMessage::Released(processes) => self.released(processes, turn),
            SupervisorMessage::Retain(process, retained) => {
                self.deliveries.remove(&process);
                self.check_wound_down();
                self.kept.keep(process, retained);
                if self.kept.timer.is_none() {
                    self.kept.timer = Some(turn.timer(KEPT_FOR, SupervisorControl::Forget));
                }
            }
        }
    }

    fn control(&mut self, control: SupervisorControl, turn: &mut Turn<'_, Self>) {
        match control {
            SupervisorControl::Ended(process) => {
                self.processes.remove(&process);
                self.check_wound_down();
                if !self.winding_down {
                    self.check_empty(turn);
                }
            }
            SupervisorControl::Credit(process, stream, limit) => {
                if let Some(target) = self.processes.get(&process) {
                    drop(target.control(ProcessControl::Credit(stream, limit)));
                }
            }
            SupervisorControl::Keep(group) => {
                if self.leftovers.len() >= LEFTOVERS_MAX {
                    self.leftovers.pop_front();
                }
                self.leftovers.push_back(group);
            }
            SupervisorControl::Forget => {
                let again = self.kept.forget(Tick::now());
                self.kept.timer = again.map(|after| turn.timer(after, SupervisorControl::Forget));
            }
            SupervisorControl::WindDown => {
                self.leftovers.clear();
                (self.terminating, self.winding_down) = (true, true);
                for target in self.processes.values() {
                    drop(target.control(ProcessControl::WindDown));
                }
                self.check_wound_down();
            }
            SupervisorControl::Terminate => {
                self.leftovers.clear();
                (self.terminating, self.winding_down) = (true, false);
                for (process, delivery) in self.deliveries.drain() {
                    if !self.processes.contains_key(&process) {
                        delivery.begin_drain();
                    }
                }
                for target in self.processes.values() {
                    drop(target.control(ProcessControl::Terminate));
                }
                self.check_empty(turn);
            }
        }
    }
}
