//! `ProcessSupervisor`: the processes of one session.
//!
//! Owns which processes there are and the actors that own each. Never touches a process itself. Full: the dispatcher
//! waits. Stop: every process is terminated, and the supervisor ends when the last has. Who sends: the `Dispatcher`
//! and the framer (credit). Supervised by the session.

mod kept;
mod owners;

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dwell_messages::{
    Envelope, ErrorCode, OutputStream, ProcessEntry, ProcessId, Progress, Reply, Request, Resume,
    TraceContext, WireError,
};

use crate::account::Segment;
use crate::mailbox::{Actor, HostOptions, Mailbox, Message, Reply as Answer, TimerGuard, Turn, start_here};
use crate::process::{PROCESS_MAILBOX_MAX, Process, ProcessControl, ProcessMessage, SessionView};
use crate::relay_framer::{FramerControl, OUTPUT_CHUNKS_MAX, RelayFramer};
use crate::rpc_queue::server::Call;
use crate::spawn::{ProcessGroup, Spawner};
use crate::telemetry::{Collector, Tick};
use crate::terminal_delivery::READS_WAITING_MAX;
use crate::terminal_delivery::push::{PushMessage, TerminalDelivery};
use crate::terminal_delivery::record::Record;

use kept::Kept;

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
/// Calls of this client's other sessions that may wait for one session's supervisor.
pub const ELSEWHERE_CALLS_MAX: usize = 128;
/// How long a session with nobody connected, nothing that runs and nothing untold is there: as long as a client dials a
/// lost link.
pub const IDLE_LIFE: Duration = Duration::from_secs(600);
/// Calls that may lie in the supervisor's mailbox.
pub const SUPERVISOR_MAILBOX_MAX: usize = 256;

/// What it is told.
pub(crate) enum SupervisorMessage {
    /// A request about a process.
    Call(Box<Call>),
    /// A process has a delivery, which says what it tells; the link it was made for.
    Delivers(ProcessId, Mailbox<TerminalDelivery>, u64),
    /// A fresh link, and how far its client is; whether that is another one than before.
    Attached(u64, Box<Resume>, bool),
    /// The client wants nothing more of these processes.
    Released(Vec<ProcessId>),
    /// An ended process's delivery is gone: what it told can be read again for a while.
    Retain(ProcessId),
    /// The client has withdrawn the start of this process.
    Withdrawn(ProcessId),
    /// The link is gone.
    Detached,
    /// What runs here, behind a process's id, and whether there is more than so much.
    List {
        after: u64,
        max: usize,
        reply: Answer<(Vec<ProcessEntry>, bool)>,
    },
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
    /// Nobody has come for so long: end if there is nothing to come for.
    Idle,
    /// End everything, and say so when the client has heard of it.
    WindDown,
    /// The session is over: end everything.
    Terminate,
}

impl Message for SupervisorMessage {
    const NAMES: &'static [&'static str] = &[
        "Call",
        "Delivers",
        "Attached",
        "Released",
        "Retain",
        "Detached",
        "List",
        "Withdrawn",
    ];

    fn index(&self) -> usize {
        match self {
            Self::Call(_) => 0,
            Self::Delivers(..) => 1,
            Self::Attached(..) => 2,
            Self::Released(_) => 3,
            Self::Retain(_) => 4,
            Self::Detached => 5,
            Self::List { .. } => 6,
            Self::Withdrawn(_) => 7,
        }
    }
}

/// See the module.
pub(crate) struct ProcessSupervisor {
    processes: HashMap<ProcessId, Mailbox<Process>>,
    /// Also those of ended processes whose client may still need something of them.
    deliveries: HashMap<ProcessId, Mailbox<TerminalDelivery>>,
    /// What is known of each process, from its start until nothing of it is kept any more.
    records: HashMap<ProcessId, Rc<Record>>,
    /// Those whose events nobody takes until somebody asks for them.
    unattended: HashSet<ProcessId>,
    /// Those that the present owner wants and whose deliveries are on their way.
    expected: HashMap<ProcessId, Progress>,
    /// Whether the session has no link, and since when it is of no use to anybody.
    detached: bool,
    idle: Option<TimerGuard>,
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
            records: HashMap::new(),
            unattended: HashSet::new(),
            expected: HashMap::new(),
            detached: false,
            idle: None,
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
        call.account.lap(Segment::SupervisorMailbox, turn.now());
        let Some(process) = call.process else {
            let error = WireError::new(ErrorCode::BadRequest, "the request names no process");
            return call.responder.answer(turn, context, Err(error), call.account);
        };
        if let Request::Start(start) = &call.request {
            if let Err(error) = self.admit(process) {
                return call.responder.answer(turn, context, Err(error), call.account);
            }
            if start.unattended {
                self.unattended.insert(process);
            }
            self.idle = None;
            let started = self.start(process, turn);
            self.processes.insert(process, started);
        }
        if matches!(call.request, Request::Read(_)) {
            return self.read(context, process, call, turn);
        }
        match self.processes.get(&process) {
            Some(target) => {
                call.account.lap(Segment::Dispatch, Tick::now());
                turn.tell(target, context, ProcessMessage::Call(Box::new(call)));
            }
            None => {
                let error = self.unknown(process);
                call.responder.answer(turn, context, Err(error), call.account);
            }
        }
    }

    fn unknown(&self, process: ProcessId) -> WireError {
        let text = if self.used.contains(&process) {
            "has ended"
        } else {
            "was never started here"
        };
        WireError::new(ErrorCode::UnknownProcess, format!("process {} {text}", process.0))
    }

    /// A read that waits does so in a task: whoever asks, and however long, nobody else waits for it.
    fn read(&self, context: TraceContext, process: ProcessId, call: Call, turn: &mut Turn<'_, Self>) {
        let Request::Read(read) = call.request else { return };
        let (responder, account) = (call.responder, call.account);
        let Some(record) = self.records.get(&process) else {
            return responder.answer(turn, context, Err(self.unknown(process)), account);
        };
        if read.wait_ms == 0 {
            let reply = record.read(&read);
            return responder.answer(turn, context, Ok(Reply::Read(reply)), account);
        }
        if !record.has_room() {
            let error = WireError::new(ErrorCode::Busy, "too many reads wait for this process")
                .with_limit(READS_WAITING_MAX as u64, READS_WAITING_MAX as u64 + 1);
            return responder.answer(turn, context, Err(error), account);
        }
        let reading = Rc::clone(record).read_when_due(read);
        let cancellation = responder.cancellation();
        turn.spawn(async move {
            let reply = tokio::select! {
                reply = reading => reply,
                // It has been answered so already.
                () = cancellation.cancelled() => return,
            };
            // Without a reply the responder says by itself that the process is gone.
            if let Some(reply) = reply {
                responder
                    .answer_later(context, Ok(Reply::Read(reply)), account)
                    .await;
            }
        })
        .detach();
    }

    fn list(&self, after: u64, max: usize) -> (Vec<ProcessEntry>, bool) {
        let mut ids: Vec<_> = self.records.keys().filter(|id| id.0 > after).copied().collect();
        ids.sort_unstable();
        let more = ids.len() > max;
        let entry = |id: &ProcessId| self.records.get(id).map(|record| record.entry(*id));
        (ids.iter().take(max).filter_map(entry).collect(), more)
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

    fn start(&mut self, process: ProcessId, turn: &Turn<'_, Self>) -> Mailbox<Process> {
        let record = Record::new();
        self.records.insert(process, Rc::clone(&record));
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
                Rc::clone(&record),
            )
        })
    }

    fn forget(&mut self, processes: Vec<ProcessId>) {
        for process in processes {
            if let Some(record) = self.records.remove(&process) {
                record.forget();
            }
        }
    }

    /// A process has closed, or never ran.
    fn ended(&mut self, process: ProcessId, turn: &mut Turn<'_, Self>) {
        self.processes.remove(&process);
        if self
            .records
            .get(&process)
            .is_some_and(|record| record.is_unstarted())
        {
            // Whoever asked for it hears of that by the answer; whoever took it over since has no answer to wait for.
            self.unattended.remove(&process);
            let taken_over = self.expected.remove(&process).is_some();
            self.forget(vec![process]);
            if let Some(delivery) = self.deliveries.remove(&process) {
                delivery.begin_drain();
            }
            if taken_over {
                self.tell_of(process, turn);
            }
        }
        self.check_wound_down();
        if !self.winding_down {
            self.check_empty(turn);
        }
        self.check_idle(turn);
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
        self.records.values().for_each(|record| record.forget());
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
                let over = self.terminating && !self.winding_down;
                if over || !self.records.contains_key(&process) {
                    return delivery.begin_drain();
                }
                if made_for != self.session.attachment {
                    // It missed the fresh link. Whoever has the session since then may want it, or not know of it.
                    let taken = made_for < self.session.taken;
                    let expected = self.expected.remove(&process);
                    if taken && expected.is_none() {
                        self.unattended.insert(process);
                    }
                    let begin = Progress {
                        process: process.0,
                        next: [0; 2],
                        limit: [0; 2],
                    };
                    let attached = PushMessage::Attached {
                        attachment: self.session.attachment,
                        wanted: expected.or((!taken).then_some(begin)),
                        taken,
                    };
                    turn.tell(&delivery, TraceContext::default(), attached);
                }
                // Output that waits for a slow link does not stand in the session's way.
                self.deliveries
                    .insert(process, delivery.port(SESSION_MESSAGES_MAX));
            }
            SupervisorMessage::Attached(attachment, resume, taken) => {
                self.attached(attachment, &resume, taken, turn);
            }
            SupervisorMessage::Withdrawn(process) => {
                if let Some(target) = self.processes.get(&process) {
                    drop(target.control(ProcessControl::Withdrawn));
                }
                // Nobody will ask how it ended.
                self.released(vec![process], turn);
            }
            SupervisorMessage::Detached => {
                self.detached = true;
                self.check_idle(turn);
            }
            SupervisorMessage::List { after, max, reply } => reply.send(self.list(after, max)),
            SupervisorMessage::Released(processes) => self.released(processes, turn),
            SupervisorMessage::Retain(process) => {
                // Somebody may have asked for it again since it went.
                if self.has_delivery(process) {
                    return;
                }
                self.deliveries.remove(&process);
                self.check_wound_down();
                let bytes = self.records.get(&process).map_or(0, |record| record.bytes());
                let dropped = self.kept.keep(process, bytes);
                self.forget(dropped);
                if self.kept.timer.is_none() {
                    self.kept.timer = Some(turn.timer(KEPT_FOR, SupervisorControl::Forget));
                }
                self.check_idle(turn);
            }
        }
    }

    fn control(&mut self, control: SupervisorControl, turn: &mut Turn<'_, Self>) {
        match control {
            SupervisorControl::Ended(process) => self.ended(process, turn),
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
                let (dropped, again) = self.kept.forget(Tick::now());
                self.forget(dropped);
                self.kept.timer = again.map(|after| turn.timer(after, SupervisorControl::Forget));
            }
            SupervisorControl::Idle => {
                self.idle = None;
                if self.is_idle() {
                    drop(
                        self.framer
                            .control(FramerControl::Expired(self.session.attachment)),
                    );
                }
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
                // Whoever waits for news of them need not.
                self.records.values().for_each(|record| record.forget());
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
