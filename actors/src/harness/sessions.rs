//! A client's sessions at an executor: which there are, taking one up, and looking at what runs in another.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use dwell_messages::process::{Read, ReadReply, Signal, SignalTarget, Terminate, Terminated};
use dwell_messages::{
    Cursor, ErrorCode, ExitStatus, ListSessions, ProcessEntry, ProcessId, Reply as WireReply, Request,
    SessionEntry,
};
use serde_bytes::ByteBuf;

use super::Harness;
use super::command::{Command, GRACE};
use super::run::{Asker, Run, RunError, RunStdin, Withdrawing, unanswered};
use crate::dispatcher::client::{Dispatcher, DispatcherMessage, unwanted};
use crate::mailbox::Mailbox;
use crate::relay_framer::FramerControl;
use crate::telemetry::{Tick, root};
use crate::terminal_delivery::OUTPUT_LIMIT_BYTES;

/// Pages of one list of sessions: what an executor has at the most.
pub const LIST_PAGES_MAX: usize = 4_096;

/// A session of this client, as its executor lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Its number, unique in one life of the executor.
    pub session: u64,
    /// Its present owner's number: 1 is who began it, and each takeover is one more.
    pub owner: u64,
    /// Whether somebody is connected to it.
    pub connected: bool,
    /// Since when that is so, by the executor's clock, in Unix milliseconds.
    pub since_unix_ms: u64,
    /// When it began, by the executor's clock, in Unix milliseconds.
    pub begun_unix_ms: u64,
    /// Whether it did not answer in time: then its processes are not known.
    pub silent: bool,
    /// What runs in it, and what has ended and is still kept.
    pub processes: Vec<ProcessInfo>,
    /// When it was listed, by the executor's clock: what its other times are held against.
    pub listed_unix_ms: u64,
    epoch: ByteBuf,
    grant: ByteBuf,
}

/// A process of a listed session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessInfo {
    /// Its id in its session.
    pub process: u64,
    /// Its program's name, without directory and arguments.
    pub program: String,
    /// Its process id on the executor's machine; 0: it is still being started.
    pub pid: u32,
    /// When it was asked for, by the executor's clock, in Unix milliseconds.
    pub started_unix_ms: u64,
    /// How it stands.
    pub state: ProcessState,
    /// Bytes that it has written to standard output and to standard error so far.
    pub written: [u64; 2],
    /// The first byte of each that whoever takes the session up can still get.
    pub kept: [u64; 2],
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it has an input that can be written.
    pub stdin: bool,
}

/// How a process stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It has exited, and more of its output may come, or waits to be taken.
    Exited(ExitStatus),
    /// Nothing more comes. Without a status: it was lost.
    Closed(Option<ExitStatus>),
}

impl ProcessState {
    /// Whether it runs.
    pub fn is_running(self) -> bool {
        self == Self::Running
    }

    /// How it ended, where that is known.
    pub fn status(self) -> Option<ExitStatus> {
        match self {
            Self::Running => None,
            Self::Exited(status) => Some(status),
            Self::Closed(status) => status,
        }
    }
}

impl From<ProcessEntry> for ProcessInfo {
    fn from(entry: ProcessEntry) -> Self {
        let state = match (entry.closed, entry.status) {
            (true, status) => ProcessState::Closed(status),
            (false, Some(status)) => ProcessState::Exited(status),
            (false, None) => ProcessState::Running,
        };
        Self {
            process: entry.process,
            program: entry.program,
            pid: entry.pid,
            started_unix_ms: entry.started_unix_ms,
            state,
            written: entry.written,
            kept: entry.kept,
            tty: entry.tty,
            stdin: entry.stdin,
        }
    }
}

impl SessionInfo {
    /// One that no executor has.
    #[doc(hidden)]
    pub fn for_tests(session: u64, processes: Vec<ProcessInfo>) -> Self {
        Self {
            session,
            owner: 1,
            connected: false,
            since_unix_ms: 0,
            begun_unix_ms: 0,
            silent: false,
            processes,
            listed_unix_ms: 0,
            epoch: ByteBuf::new(),
            grant: ByteBuf::new(),
        }
    }

    fn new(entry: SessionEntry, listed_unix_ms: u64, epoch: &ByteBuf) -> Self {
        Self {
            session: entry.session,
            owner: entry.owner,
            connected: entry.connected,
            since_unix_ms: entry.since_unix_ms,
            begun_unix_ms: entry.begun_unix_ms,
            silent: entry.silent,
            processes: entry.processes.into_iter().map(ProcessInfo::from).collect(),
            listed_unix_ms,
            epoch: epoch.clone(),
            grant: entry.grant,
        }
    }

    /// What `HarnessBuilder::take_up` takes: this session with all its processes, each from its first byte, or the first
    /// that is kept.
    pub fn take_up(&self) -> TakeUp {
        TakeUp {
            epoch: self.epoch.clone(),
            session: self.session,
            grant: self.grant.clone(),
            owner: self.owner,
            processes: self
                .processes
                .iter()
                .map(|process| Adoption {
                    process: ProcessId(process.process),
                    program: process.program.clone(),
                    next: [0; 2],
                })
                .collect(),
        }
    }
}

/// A session to be taken up by a harness that did not begin it.
#[derive(Clone)]
pub struct TakeUp {
    pub(super) epoch: ByteBuf,
    pub(super) session: u64,
    pub(super) grant: ByteBuf,
    /// The owner from whom it is taken.
    pub(super) owner: u64,
    pub(super) processes: Vec<Adoption>,
}

/// A process that is taken up with its session.
#[derive(Clone)]
pub(super) struct Adoption {
    pub(super) process: ProcessId,
    pub(super) program: String,
    pub(super) next: [u64; 2],
}

impl fmt::Debug for TakeUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the grant.
        f.debug_struct("TakeUp")
            .field("session", &self.session)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

impl TakeUp {
    /// Takes this process's output from these offsets of standard output and standard error on: what comes before them is
    /// not told, nor named as a gap. Offsets that were not written yet wait for what is.
    #[must_use]
    pub fn from(mut self, process: u64, offsets: [u64; 2]) -> Self {
        for adoption in &mut self.processes {
            if adoption.process.0 == process {
                adoption.next = offsets;
            }
        }
        self
    }

    /// Takes only this process. The others wait for whoever takes them; what they write goes to their spools.
    #[must_use]
    pub fn only(mut self, process: u64) -> Self {
        self.processes.retain(|adoption| adoption.process.0 == process);
        self
    }
}

/// A command that was started and that nobody here waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartedProcess {
    /// Its id in the harness's session.
    pub process: u64,
    /// Its process id on the executor's machine.
    pub pid: u32,
}

/// A process of this client, in whatever session: looked at without taking anything from whoever has it.
#[derive(Clone, Debug)]
pub struct Observed {
    pub(super) asker: Asker,
    pub(super) session: u64,
    pub(super) process: ProcessId,
}

impl Observed {
    /// What it told after an event's number (0: from the first that is kept), with output of at most `max_bytes`; what is no
    /// longer kept stands in `gaps`. With nothing to tell it waits up to `wait`, a minute at the most, for something. Any
    /// number of observers read, and none holds the process up. Needs the scope `attach`. Cancellation safe.
    ///
    /// # Errors
    /// When the executor has no such process or session of this client, and when the link is lost.
    pub async fn read(&self, after: u64, max_bytes: u32, wait: Duration) -> Result<ReadReply, RunError> {
        let read = Read {
            after,
            max_bytes,
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            session: Some(self.session),
        };
        match self.ask(Request::Read(read)).await? {
            WireReply::Read(reply) => Ok(reply),
            _ => Err(something_else("a read")),
        }
    }

    /// Sends it a signal. Needs the scope `signal`.
    ///
    /// # Errors
    /// When it has ended, as `read` otherwise.
    pub async fn signal_to(&self, target: SignalTarget, signal: i32) -> Result<(), RunError> {
        let signal = Signal {
            signal,
            target,
            session: Some(self.session),
        };
        self.ask(Request::Signal(signal)).await.map(drop)
    }

    /// Ends it and all it started: TERM and CONT, KILL when the grace is over; returns when the tree is gone. Needs the
    /// scope `signal`. Cancellation safe: once asked for, it is ended in any case.
    ///
    /// # Errors
    /// When it has ended, as `read` otherwise.
    pub async fn stop(&self, grace: Duration) -> Result<Terminated, RunError> {
        let terminate = Terminate {
            grace_ms: u32::try_from(grace.as_millis()).unwrap_or(u32::MAX),
            session: Some(self.session),
        };
        match self.ask(Request::Terminate(terminate)).await? {
            WireReply::Terminated(report) => Ok(report),
            _ => Err(something_else("a termination")),
        }
    }

    async fn ask(&self, request: Request) -> Result<WireReply, RunError> {
        self.asker.ask(Some(self.process), request).await
    }
}

fn something_else(what: &str) -> RunError {
    RunError::Lost(format!("the executor answered {what} with something else"))
}

/// All pages of the list.
pub(super) async fn list(asker: &Asker, epoch: &ByteBuf) -> Result<Vec<SessionInfo>, RunError> {
    let mut sessions: Vec<SessionInfo> = Vec::new();
    let mut after = Cursor::default();
    for _ in 0..LIST_PAGES_MAX {
        let request = Request::Sessions(ListSessions { after });
        let WireReply::Sessions(page) = asker.ask(None, request).await? else {
            return Err(something_else("a list of sessions"));
        };
        for entry in page.sessions {
            let info = SessionInfo::new(entry, page.now_unix_ms, epoch);
            // A session whose processes did not fit comes again with the rest of them.
            match sessions.last_mut().filter(|last| last.session == info.session) {
                Some(last) => last.processes.extend(info.processes),
                None => sessions.push(info),
            }
        }
        match page.next.filter(|next| *next > after) {
            Some(next) => after = next,
            None => return Ok(sessions),
        }
    }
    Err(RunError::Refused(dwell_messages::WireError::new(
        ErrorCode::TooLarge,
        "the executor's list of sessions has no end",
    )))
}

impl Harness {
    /// This harness's session, by the number that its executor lists it under.
    pub fn session(&self) -> u64 {
        self.connected.session.load(Ordering::Relaxed)
    }

    /// The executor's present life, in 16 bytes: the numbers of its sessions mean nothing in another.
    pub fn epoch(&self) -> &[u8] {
        &self.connected.epoch
    }

    /// This client's sessions at the executor, this harness's own among them, with what runs in them and what is still
    /// kept of what ran. Needs the scope `attach`. Cancellation safe.
    ///
    /// # Errors
    /// When the key lacks the scope, and when the link is lost.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>, RunError> {
        list(&self.asker(root(false)), &self.connected.epoch).await
    }

    /// Looks at a process of any session of this client without taking it up: see `Observed`. Asks nothing yet.
    pub fn observe(&self, session: u64, process: u64) -> Observed {
        Observed {
            asker: self.asker(root(false)),
            session,
            process: ProcessId(process),
        }
    }

    /// Starts a command that nobody here waits for, and returns when it runs. What it writes and how it ends is kept on the
    /// executor, with this harness's session, until somebody takes that up: see `leave` and `HarnessBuilder::take_up`.
    /// The command's `parent`, `deadline`, `serial` and `output_limit` mean nothing here. Cancellation: a start that has
    /// not been begun is withdrawn, one that has is ended, unless it had been answered.
    ///
    /// # Errors
    /// As `Run::wait`: when it does not start, or the link is lost.
    pub async fn start(&self, command: Command) -> Result<StartedProcess, RunError> {
        let slot = Arc::<AtomicU64>::default();
        let abandoned = Abandoned {
            slot: Arc::clone(&slot),
            dispatcher: self.connected.dispatcher.clone(),
        };
        // Locals are dropped from the last to the first: it is withdrawn before this looks whether that was too late.
        let (withdrawing, ticket) = Withdrawing::new(&self.connected.rpc);
        let context = root(command.sampled.unwrap_or(false));
        let answer = self
            .connected
            .dispatcher
            .ask(context, |reply| DispatcherMessage::Start {
                command: Box::new(command),
                ticket,
                slot,
                reply,
            });
        let answer = answer.await;
        withdrawing.answered();
        abandoned.slot.store(0, Ordering::SeqCst);
        let (process, outcome) = answer.map_err(|error| unanswered(&error))?;
        match outcome {
            Ok(WireReply::Started(started)) => Ok(StartedProcess {
                process: process.0,
                pid: started.pid,
            }),
            Ok(_) => Err(RunError::Lost("the executor answered with something else".into())),
            Err(error) => Err(match error.code {
                ErrorCode::OutcomeUnknown => RunError::Lost(error.message),
                ErrorCode::Disconnected => RunError::NotStarted(error.message),
                _ => RunError::Refused(error),
            }),
        }
    }

    /// A process that was taken up with this session, as a run: its output from where it was wanted, gaps where that is not
    /// kept any more, then its end; input, signals, sizes and termination as with any run. Once for each process. Dropping
    /// the run terminates the process, unless it is detached.
    pub fn adopt(&self, process: u64) -> Option<Run> {
        let process = ProcessId(process);
        let adopted = &self.connected.adopted;
        let (_, shared) = adopted.iter().find(|(id, _)| *id == process)?;
        let mut taken = self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.insert(process) {
            return None;
        }
        let context = root(false);
        Some(Run {
            shared: Arc::clone(shared),
            input: RunStdin {
                shared: Arc::clone(shared),
                asker: self.asker(context.clone()),
                written: Arc::default(),
                unsure: Arc::new(true.into()),
                closed: Arc::default(),
            },
            collector: self.collector.clone(),
            flight: None,
            context,
            parent: None,
            begun: Tick::now(),
            grace: GRACE,
            output_limit: OUTPUT_LIMIT_BYTES,
            ping_us: Arc::clone(&self.connected.ping_us),
            done: false,
            detached: false,
            first: None,
        })
    }

    /// Leaves the session and what runs in it where they are, for whoever takes them up, and ends this harness. Runs still
    /// under way here end as lost. Without anybody the session ends when its executor's `detached_life` is over.
    /// Not cancellation safe, as `shutdown`.
    pub async fn leave(self) {
        // First, so that nothing that comes now is taken here.
        drop(self.connected.framer.control(FramerControl::Leave));
        self.connected.framer.drain().await;
        if let Err(error) = self.flush().await {
            tracing::warn!(%error, "not every run was recorded");
        }
        self.collector.flush().await;
    }
}

/// A start for nobody that may have been answered when it was given up: what came of it is ended.
struct Abandoned {
    slot: Arc<AtomicU64>,
    dispatcher: Mailbox<Dispatcher>,
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        let process = self.slot.load(Ordering::SeqCst);
        if process != 0 {
            unwanted(&self.dispatcher, ProcessId(process));
        }
    }
}
