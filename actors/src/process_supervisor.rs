//! `ProcessSupervisor`: the processes of one session.
//!
//! Owns which processes there are and the actors that own each. Never touches a process itself. Full: the dispatcher
//! waits. Stop: every process is terminated, and the supervisor ends when the last has. Who sends: the `Dispatcher`
//! and the framer (credit). Supervised by the session.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dwell_messages::{Envelope, ErrorCode, OutputStream, ProcessId, Reply, Request, TraceContext, WireError};

use crate::account::Segment;
use crate::mailbox::{Actor, HostOptions, Mailbox, Message, TimerGuard, Turn, start_here};
use crate::process::{PROCESS_MAILBOX_MAX, Process, ProcessControl, ProcessMessage};
use crate::relay_framer::{OUTPUT_CHUNKS_MAX, RelayFramer};
use crate::rpc_queue::server::Call;
use crate::spawn::{ProcessGroup, Spawner};
use crate::telemetry::{Collector, Tick};
use crate::terminal_delivery::push::read_bytes;
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
/// Calls that may lie in the supervisor's mailbox.
pub const SUPERVISOR_MAILBOX_MAX: usize = 256;

/// What it is told.
pub(crate) enum SupervisorMessage {
    /// A request about a process.
    Call(Box<Call>),
}

/// What it is told urgently.
pub(crate) enum SupervisorControl {
    /// A process has closed and its actor is gone.
    Ended(ProcessId),
    /// The client takes more of a stream.
    Credit(ProcessId, OutputStream, u64),
    /// What is left of a process's group; dropped, and so killed, with the session.
    Keep(ProcessGroup),
    /// What an ended process told, to be read again for a while.
    Retain(ProcessId, Box<Retained>),
    /// Look whether something was kept long enough.
    Forget,
    /// The link is gone: end everything.
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
    const NAMES: &'static [&'static str] = &["Call"];

    fn index(&self) -> usize {
        0
    }
}

/// See the module.
pub(crate) struct ProcessSupervisor {
    processes: HashMap<ProcessId, Mailbox<Process>>,
    used: HashSet<ProcessId>,
    spawner: Arc<Spawner>,
    framer: Mailbox<RelayFramer>,
    collector: Collector,
    leftovers: VecDeque<ProcessGroup>,
    kept: Kept,
    terminating: bool,
    on_empty: Option<Box<dyn FnOnce()>>,
}

impl ProcessSupervisor {
    /// `on_empty` is called when, after `Terminate`, no process is left.
    pub(crate) fn new(
        spawner: Arc<Spawner>,
        framer: Mailbox<RelayFramer>,
        collector: Collector,
        on_empty: Box<dyn FnOnce()>,
    ) -> Self {
        Self {
            processes: HashMap::new(),
            used: HashSet::new(),
            spawner,
            framer,
            collector,
            leftovers: VecDeque::new(),
            kept: Kept::default(),
            terminating: false,
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
        if self.processes.len() >= PROCESSES_MAX {
            let running = self.processes.len() as u64;
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
        let failed = supervisor.clone();
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
            )
        })
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
        let SupervisorMessage::Call(call) = envelope.body;
        self.call(envelope.context, *call, turn);
    }

    fn control(&mut self, control: SupervisorControl, turn: &mut Turn<'_, Self>) {
        match control {
            SupervisorControl::Ended(process) => {
                self.processes.remove(&process);
                self.check_empty(turn);
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
            SupervisorControl::Retain(process, retained) => {
                self.kept.keep(process, retained);
                if self.kept.timer.is_none() {
                    self.kept.timer = Some(turn.timer(KEPT_FOR, SupervisorControl::Forget));
                }
            }
            SupervisorControl::Forget => {
                let again = self.kept.forget(Tick::now());
                self.kept.timer = again.map(|after| turn.timer(after, SupervisorControl::Forget));
            }
            SupervisorControl::Terminate => {
                self.leftovers.clear();
                self.terminating = true;
                for target in self.processes.values() {
                    drop(target.control(ProcessControl::Terminate));
                }
                self.check_empty(turn);
            }
        }
    }
}
