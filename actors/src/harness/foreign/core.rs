//! A session with a server of the JSON dialect: what the harness says in dwell's own words goes out in the server's, and
//! what the server tells comes back as what an executor would have said. A pure core.
//!
//! Every request of the harness has exactly one answer: what the server made of it, a refusal of what the dialect has no
//! words for, or that its outcome is unknown.

use std::collections::{BTreeMap, HashMap, VecDeque};

use dwell_messages::dialect::{self as json, Fault, Follower, Id, Told};
use dwell_messages::process::{Terminated, Write};
use dwell_messages::{
    ErrorCode, ExitStatus, Message as Wire, ProcessId, Reply, Request, RequestId, Timings, TraceContext,
    WireError,
};

use super::start;

mod inbound;

/// Bytes of a process's output that wait for its consumer's credit before the connection is read no further.
pub(crate) const HELD_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Writes of a process that wait for the one that is out. The harness's own window is smaller.
const WRITES_WAITING_MAX: usize = 256;
const SIGINT: i32 = 2;
/// What ends the input of a terminal.
const END_OF_TRANSMISSION: u8 = 4;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Effect<T> {
    /// To the server.
    Say(Vec<u8>, Option<T>),
    /// To the harness, as if an executor had said it.
    Tell(TraceContext, Box<Wire>),
    /// A process cannot be followed any further: its run ends so.
    Fail(ProcessId, String),
}

/// The server breaks the protocol: its connection is to be given up, and another tried.
#[derive(Debug, thiserror::Error)]
#[error("the server of the JSON dialect said something that cannot be: {0}")]
pub(super) struct Broken(pub(super) String);

/// A request that is out.
struct Asked {
    kind: Kind,
    process: ProcessId,
    /// As it is said again over the next connection, where it may be.
    again: Option<Vec<u8>>,
}

/// Whose answer it is.
enum Kind {
    Start(RequestId, TraceContext),
    Write(RequestId, TraceContext, u64),
    Signal(RequestId, TraceContext),
    /// Its answer to the harness comes with the process's end.
    Terminate,
    /// What was missed.
    Read,
}

impl Kind {
    /// On whose behalf it is asked.
    fn context(&self) -> Option<&TraceContext> {
        match self {
            Self::Start(_, context) | Self::Write(_, context, _) | Self::Signal(_, context) => Some(context),
            Self::Terminate | Self::Read => None,
        }
    }
}

struct Process {
    name: String,
    /// Of the call that it is.
    context: TraceContext,
    tty: bool,
    follower: Follower,
    /// Where each stream ends that was told.
    offsets: [u64; 2],
    limits: [u64; 2],
    /// What waits for credit, and everything behind it.
    held: VecDeque<Told>,
    held_bytes: usize,
    /// It was given up for a while: what comes is passed over, and read later.
    lagging: bool,
    exit: Option<ExitStatus>,
    writes: VecDeque<(RequestId, TraceContext, Write)>,
    writing: bool,
    written: u64,
    write_ids: u64,
    /// Its start, whose answer was lost with a connection: a read says whether it came about.
    unsure: Option<(RequestId, TraceContext)>,
    /// Who waits for its end.
    ending: Vec<(RequestId, TraceContext)>,
    /// It was told to end.
    ended: bool,
    /// The harness wants nothing more of it.
    forgotten: bool,
    /// Its end was told.
    over: bool,
}

/// See the module. `T` goes with what is said, until it has left.
pub(super) struct ForeignCore<T> {
    environment: json::EnvironmentInfo,
    next_id: i64,
    asked: BTreeMap<i64, Asked>,
    processes: HashMap<ProcessId, Process>,
    names: HashMap<String, ProcessId>,
    effects: VecDeque<Effect<T>>,
    attached: bool,
}

impl<T> ForeignCore<T> {
    pub(super) fn new(environment: json::EnvironmentInfo) -> Self {
        Self {
            environment,
            // The handshake has the first.
            next_id: 2,
            asked: BTreeMap::new(),
            processes: HashMap::new(),
            names: HashMap::new(),
            effects: VecDeque::new(),
            attached: true,
        }
    }

    /// What is to be done next.
    pub(super) fn poll(&mut self) -> Option<Effect<T>> {
        self.effects.pop_front()
    }

    /// Whether some process's consumer holds so much back that nothing more may be read; those processes.
    pub(super) fn held_up(&self) -> Vec<ProcessId> {
        let full = self
            .processes
            .iter()
            .filter(|(_, process)| process.held_bytes > HELD_MAX_BYTES);
        full.map(|(id, _)| *id).collect()
    }

    /// The consumer of a process does not move: what it is told is passed over from now on, until it does.
    pub(super) fn give_up_for_now(&mut self, process: ProcessId) {
        if let Some(process) = self.processes.get_mut(&process) {
            process.lagging = true;
        }
    }

    /// Something that the harness says.
    pub(super) fn said(&mut self, context: TraceContext, message: Wire, token: Option<T>) {
        match message {
            Wire::Request { id, process, request } => self.request(context, (id, process), request, token),
            Wire::Credit {
                process,
                stream,
                limit,
            } => {
                if let Some(known) = self.processes.get_mut(&process) {
                    known.limits[stream.index()] = known.limits[stream.index()].max(limit);
                }
                self.hand_on(process);
            }
            // What is withdrawn is answered all the same: a start that came about is ended by whoever withdrew it.
            Wire::Cancel(_) => {}
            Wire::Response { .. }
            | Wire::Event { .. }
            | Wire::Ack { .. }
            | Wire::Ping(_)
            | Wire::Pong(_)
            | Wire::Resume(_)
            | Wire::Resumed(_)
            | Wire::ResumeRefused(_)
            | Wire::Goodbye(_)
            | Wire::TraceRecords { .. } => {}
        }
    }

    /// The harness wants nothing more of a process. One that runs on is ended: nobody else knows of it.
    pub(super) fn forget(&mut self, process: ProcessId) {
        let Some(known) = self.processes.get_mut(&process) else {
            return;
        };
        if known.over {
            return self.drop_process(process);
        }
        known.forgotten = true;
        if let Some((id, context)) = known.unsure.take() {
            self.refuse(id, context, outcome_unknown());
        }
        let Some(known) = self.processes.get_mut(&process) else {
            return;
        };
        (known.held, known.held_bytes) = (VecDeque::new(), 0);
        self.terminate(process);
    }

    /// Everything that runs is ended: nobody will ask for it.
    pub(super) fn end(&mut self) {
        let running: Vec<_> = self.processes.keys().copied().collect();
        for process in running {
            self.forget(process);
        }
    }

    fn request(
        &mut self,
        context: TraceContext,
        (id, process): (RequestId, Option<ProcessId>),
        request: Request,
        token: Option<T>,
    ) {
        let Some(process) = process.filter(|_| !request.is_whole_call()) else {
            return self.refuse(id, context, not_there(request.method()));
        };
        match request {
            Request::Start(asked) => self.start(context, (id, process), &asked, token),
            Request::Write(write) => self.write(context, (id, process), write),
            Request::Signal(signal) if signal.signal == SIGINT && signal.session.is_none() => {
                let Some(known) = self.processes.get(&process) else {
                    return self.refuse(id, context, unknown_process());
                };
                let signal = json::Signal {
                    process_id: known.name.clone(),
                    signal: json::Interrupt::Interrupt,
                };
                self.ask(
                    "process/signal",
                    &signal,
                    (Kind::Signal(id, context), process),
                    token,
                );
            }
            Request::Signal(_) => {
                let text = "a server of the JSON dialect passes on an interrupt (2) and no other signal";
                self.refuse(id, context, WireError::new(ErrorCode::BadSignal, text));
            }
            Request::Terminate(terminate) if terminate.session.is_none() => {
                match self.processes.get_mut(&process) {
                    Some(known) if !known.over => known.ending.push((id, context)),
                    Some(_) | None => {
                        return self.answer(id, context, Ok(Reply::Terminated(Terminated::default())));
                    }
                }
                self.terminate(process);
            }
            other @ (Request::Terminate(_)
            | Request::EnvironmentInfo
            | Request::Read(_)
            | Request::Resize(_)
            | Request::Sessions(_)
            | Request::File(_)
            | Request::Http(_)
            | Request::FindUp(_)
            | Request::WorkspaceLoad(_)) => self.refuse(id, context, not_there(other.method())),
        }
    }

    fn start(
        &mut self,
        context: TraceContext,
        (id, process): (RequestId, ProcessId),
        asked: &dwell_messages::process::Start,
        token: Option<T>,
    ) {
        let name = format!("dwell-{}", process.0);
        let credit = asked.credit;
        let start = match start::start(&name, asked, &self.environment, &context) {
            Ok(start) => start,
            Err(error) => return self.refuse(id, context, error),
        };
        let known = Process {
            name: name.clone(),
            context: context.clone(),
            tty: start.tty,
            follower: Follower::new(),
            offsets: [0; 2],
            limits: [credit; 2],
            held: VecDeque::new(),
            held_bytes: 0,
            lagging: false,
            exit: None,
            writes: VecDeque::new(),
            writing: false,
            written: 0,
            write_ids: 0,
            unsure: None,
            ending: Vec::new(),
            ended: false,
            forgotten: false,
            over: false,
        };
        self.names.insert(name, process);
        self.processes.insert(process, known);
        self.ask(
            "process/start",
            &start,
            (Kind::Start(id, context), process),
            token,
        );
    }

    fn write(&mut self, context: TraceContext, (id, process): (RequestId, ProcessId), write: Write) {
        let Some(known) = self.processes.get_mut(&process) else {
            return self.refuse(id, context, unknown_process());
        };
        if write.eof && !known.tty {
            let text = "a server of the JSON dialect cannot end the standard input of a command: leave it open, give the \
                        command a terminal, or let it read a file";
            return self.refuse(id, context, WireError::new(ErrorCode::UnknownMethod, text));
        }
        if known.writes.len() >= WRITES_WAITING_MAX {
            let error = WireError::new(ErrorCode::Busy, "too much input of the command waits")
                .with_limit(WRITES_WAITING_MAX as u64, WRITES_WAITING_MAX as u64 + 1);
            return self.refuse(id, context, error);
        }
        known.writes.push_back((id, context, write));
        self.write_next(process);
    }

    /// One write of a process at a time: the server has no order between two. Of a write only what is new is written: its
    /// beginning may have been taken from an earlier copy of it.
    fn write_next(&mut self, process: ProcessId) {
        let Some(known) = self.processes.get_mut(&process).filter(|known| !known.writing) else {
            return;
        };
        let Some((id, context, write)) = known.writes.pop_front() else {
            return;
        };
        let at = known.written;
        let Some(taken) = at.checked_sub(write.offset) else {
            let text = format!("a write at {} would leave a hole behind {at}", write.offset);
            self.refuse(id, context, WireError::new(ErrorCode::BadOffset, text));
            return self.write_next(process);
        };
        let taken = usize::try_from(taken).unwrap_or(usize::MAX).min(write.data.len());
        let fresh = write.data.slice(taken..);
        let end = at + fresh.len() as u64;
        if fresh.is_empty() && !write.eof {
            // It asks where the stream is.
            let answer = Reply::Written(dwell_messages::process::Written { offset: at });
            self.answer(id, context, Ok(answer));
            return self.write_next(process);
        }
        let chunk = if write.eof {
            [&fresh[..], &[END_OF_TRANSMISSION]].concat().into()
        } else {
            fresh
        };
        known.writing = true;
        known.write_ids += 1;
        let ask = json::Write {
            process_id: known.name.clone(),
            chunk: json::Blob(chunk),
            write_id: known.write_ids.to_string(),
        };
        self.ask(
            "process/write",
            &ask,
            (Kind::Write(id, context, end), process),
            None,
        );
    }

    fn terminate(&mut self, process: ProcessId) {
        let Some(known) = self.processes.get_mut(&process) else {
            return;
        };
        // Killed is killed.
        if std::mem::replace(&mut known.ended, true) {
            return;
        }
        let ask = json::Terminate {
            process_id: known.name.clone(),
        };
        self.ask("process/terminate", &ask, (Kind::Terminate, process), None);
    }

    fn read(&mut self, process: ProcessId) {
        let Some(known) = self.processes.get(&process) else {
            return;
        };
        let ask = json::Read {
            process_id: known.name.clone(),
            after_seq: Some(known.follower.last()),
            max_bytes: None,
            wait_ms: Some(0),
        };
        self.ask("process/read", &ask, (Kind::Read, process), None);
    }

    fn ask<P: serde::Serialize>(
        &mut self,
        method: &str,
        params: &P,
        (kind, process): (Kind, ProcessId),
        token: Option<T>,
    ) {
        let id = self.next_id;
        self.next_id += 1;
        let message = json::encode_request(&Id::Number(id), method, params, kind.context());
        if message.len() > json::FRAME_MAX_BYTES {
            return self.too_large(message.len(), kind, process);
        }
        // What does not do twice what it does may be said twice; the rest is known by its outcome alone.
        let again = match &kind {
            Kind::Write(..) | Kind::Terminate => Some(message.clone()),
            Kind::Start(..) | Kind::Signal(..) | Kind::Read => None,
        };
        self.asked.insert(id, Asked { kind, process, again });
        if self.attached {
            self.effects.push_back(Effect::Say(message, token));
        } else if let Some(asked) = self.asked.remove(&id) {
            match asked.again {
                Some(_) => drop(self.asked.insert(id, asked)),
                None => self.undelivered(asked),
            }
        }
    }

    /// The server would drop the connection of whoever says so much at once.
    fn too_large(&mut self, bytes: usize, kind: Kind, process: ProcessId) {
        let error = WireError::new(ErrorCode::TooLarge, "more than the environment takes at once")
            .with_limit(json::FRAME_MAX_BYTES as u64, bytes as u64);
        match kind {
            Kind::Start(id, context) => {
                self.drop_process(process);
                self.refuse(id, context, error);
            }
            Kind::Write(id, context, _) | Kind::Signal(id, context) => self.refuse(id, context, error),
            Kind::Terminate | Kind::Read => {}
        }
    }

    /// Without a connection a start is not begun, and a signal reaches nobody.
    fn undelivered(&mut self, asked: Asked) {
        let error = || {
            WireError::new(
                ErrorCode::Disconnected,
                "the connection to the environment is lost",
            )
        };
        match asked.kind {
            Kind::Start(id, context) => {
                self.drop_process(asked.process);
                self.answer(id, context, Err(error()));
            }
            Kind::Signal(id, context) => self.answer(id, context, Err(error())),
            // Read again when the session goes on.
            Kind::Read | Kind::Write(..) | Kind::Terminate => {}
        }
    }

    fn drop_process(&mut self, process: ProcessId) {
        if let Some(known) = self.processes.remove(&process) {
            self.names.remove(&known.name);
            for (id, context) in known.ending {
                self.answer(id, context, Ok(Reply::Terminated(Terminated::default())));
            }
            for (id, context, _) in known.writes {
                self.refuse(id, context, unknown_process());
            }
        }
    }

    /// The connection is lost. What may be asked twice is kept; of the rest nobody can say what came.
    pub(super) fn detached(&mut self) {
        self.attached = false;
        self.effects.retain(|effect| !matches!(effect, Effect::Say(..)));
        let asked = std::mem::take(&mut self.asked);
        for (number, asked) in asked {
            if asked.again.is_some() {
                self.asked.insert(number, asked);
                continue;
            }
            match asked.kind {
                Kind::Start(id, context) => match self.processes.get_mut(&asked.process) {
                    Some(known) if !known.forgotten => known.unsure = Some((id, context)),
                    Some(_) | None => self.refuse(id, context, outcome_unknown()),
                },
                Kind::Signal(id, context) => self.refuse(id, context, outcome_unknown()),
                Kind::Read | Kind::Write(..) | Kind::Terminate => {}
            }
        }
    }

    /// The session goes on over another connection: what was not answered is asked again, and what was missed is read.
    pub(super) fn resumed(&mut self) {
        self.attached = true;
        let again: Vec<_> = self
            .asked
            .values()
            .filter_map(|asked| asked.again.clone())
            .collect();
        for message in again {
            self.effects.push_back(Effect::Say(message, None));
        }
        let mut running: Vec<_> = self.processes.keys().copied().collect();
        running.sort_unstable_by_key(|process| process.0);
        for process in running {
            let Some(known) = self.processes.get_mut(&process) else {
                continue;
            };
            known.follower.unanswered();
            // Whoever holds it back reads when it takes something again.
            if !known.lagging && !known.forgotten && known.follower.lagged() {
                self.read(process);
            }
        }
    }

    fn answer(&mut self, id: RequestId, context: TraceContext, result: Result<Reply, WireError>) {
        let response = Wire::Response {
            id,
            result,
            timings: Timings::default(),
        };
        self.effects.push_back(Effect::Tell(context, Box::new(response)));
    }

    fn refuse(&mut self, id: RequestId, context: TraceContext, error: WireError) {
        self.answer(id, context, Err(error));
    }
}

fn not_there(method: &str) -> WireError {
    let text =
        format!("an environment that speaks the JSON dialect is not asked for {method} by this release");
    WireError::new(ErrorCode::UnknownMethod, text)
}

fn outcome_unknown() -> WireError {
    let text = "the connection to the environment was lost before it answered";
    WireError::new(ErrorCode::OutcomeUnknown, text)
}

fn unknown_process() -> WireError {
    WireError::new(ErrorCode::UnknownProcess, "the process is not there any more")
}

/// An error that is the server's own business.
fn of(fault: &Fault) -> WireError {
    WireError::new(ErrorCode::BadRequest, fault.to_string())
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
