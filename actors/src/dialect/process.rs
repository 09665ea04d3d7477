//! One process of a session: a run of the harness, told as the dialect has it.
//!
//! What it writes stands in its log before anybody is told, so that whoever takes the session up finds it there. Telling
//! waits for the connection, and with it the command: its pipe fills, not memory.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use dwell_messages::dialect::{
    Accepted, Blob, Closed, Exited, Fault, Id, Output, Read, ReadAnswer, Write, WriteStatus, encode_error,
    encode_notification, encode_response, notification,
};
use dwell_messages::process::SignalTarget;
use dwell_messages::{ExitStatus, OutputStream};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::command::refusal;
use super::denial::Denial;
use super::line::Line;
use super::log::ProcessLog;
use super::outbox::Outbox;
use super::session::Session;
use super::task::Task;
use super::writes::{Put, WriteQueue};
use crate::harness::{Run, RunEvent, RunStdin, Terminator};

/// How long an ended process can be read, and its name is taken.
pub const ENDED_KEPT_FOR: Duration = Duration::from_secs(80);
/// What is said where nothing more can be written.
const WRITE_FAILED: &str = "failed to write to process stdin";
/// How long the exit of a confined command that failed waits for its last output.
const DENIAL_WAIT: Duration = Duration::from_millis(20);
const SIGINT: i32 = 2;

/// How far a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Starting,
    /// It was to end before it ran.
    Cancelled,
    Runs,
}

/// Who waits for the answer to a write.
struct Writer {
    id: Id,
    /// The write's own name, under which it may come again.
    write_id: String,
    outbox: Outbox,
}

impl Writer {
    async fn accepted(self) {
        let answer = Accepted {
            status: WriteStatus::Accepted,
        };
        drop(self.outbox.send(encode_response(&self.id, &answer)).await);
    }

    async fn failed(self) {
        let answer = encode_error(&self.id, &Fault::failed(WRITE_FAILED));
        drop(self.outbox.send(answer).await);
    }
}

/// As long as this is there, its process tells nothing: whoever answers its start has the word first.
pub(super) struct Silence(#[expect(dead_code, reason = "its end is its meaning")] oneshot::Sender<()>);

/// What a process is from its start.
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) tty: bool,
    pub(super) has_input: bool,
    pub(super) is_confined: bool,
    pub(super) retention_bytes: u64,
}

/// See the module.
pub(super) struct Process {
    name: String,
    tty: bool,
    has_input: bool,
    phase: Cell<Phase>,
    log: RefCell<ProcessLog>,
    /// Where it is confined: whether that seems to be what stopped it.
    denial: RefCell<Option<Denial>>,
    news: Notify,
    writes: RefCell<WriteQueue<Writer>>,
    more: Notify,
    /// Nothing more can be written.
    input_over: Cell<bool>,
    stdin: RunStdin,
    terminator: Terminator,
    tasks: RefCell<Vec<Task>>,
}

/// What is answered to a write at once; `None`: the answer comes.
pub(super) type Written = Option<Result<WriteStatus, Fault>>;

impl Process {
    /// A process that is being started. `started` hears whether it runs.
    pub(super) fn begin(
        facts: Facts,
        run: Run,
        session: &Rc<Session>,
        started: oneshot::Sender<Result<Silence, Fault>>,
    ) -> Rc<Self> {
        let log = ProcessLog::new(facts.tty, facts.retention_bytes);
        let process = Rc::new(Self {
            denial: RefCell::new(facts.is_confined.then(Denial::default)),
            name: facts.name,
            tty: facts.tty,
            has_input: facts.has_input,
            phase: Cell::new(Phase::Starting),
            log: RefCell::new(log),
            news: Notify::new(),
            writes: RefCell::default(),
            more: Notify::new(),
            input_over: Cell::new(false),
            stdin: run.stdin(),
            terminator: run.terminator(),
            tasks: RefCell::default(),
        });
        let pump = pump(
            Rc::clone(&process),
            run,
            session.line(),
            Rc::downgrade(session),
            started,
        );
        let mut tasks = vec![Task::spawn(pump)];
        if process.has_input {
            tasks.push(Task::spawn(feed(Rc::clone(&process))));
        }
        *process.tasks.borrow_mut() = tasks;
        process
    }

    /// Its tasks hold it: without this it would go on for ever.
    pub(super) fn end(&self) {
        self.tasks.borrow_mut().clear();
        drop(self.writes.borrow_mut().close());
    }

    /// Whether it runs confined.
    pub(super) fn is_confined(&self) -> bool {
        self.denial.borrow().is_some()
    }

    /// Bytes of output that are kept.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.log.borrow().bytes()
    }

    /// Writes, behind what came before.
    pub(super) fn write(&self, write: Write, id: &Id, outbox: &Outbox) -> Written {
        match self.phase.get() {
            Phase::Starting | Phase::Cancelled => return Some(Ok(WriteStatus::Starting)),
            Phase::Runs => {}
        }
        if !self.has_input {
            return Some(Ok(WriteStatus::StdinClosed));
        }
        if !self.log.borrow_mut().is_fresh_write(&write.write_id) {
            return Some(Ok(WriteStatus::Accepted));
        }
        if self.input_over.get() || self.log.borrow().is_exited() {
            // A terminal takes whatever is typed, whether or not anybody reads.
            if self.tty {
                return Some(Ok(WriteStatus::Accepted));
            }
            // Nothing was written, and the same again is no repetition of something that was.
            self.log.borrow_mut().forget_write(&write.write_id);
            return Some(Err(Fault::failed(WRITE_FAILED)));
        }
        let writer = Writer {
            id: id.clone(),
            write_id: write.write_id.clone(),
            outbox: outbox.clone(),
        };
        let put = self.writes.borrow_mut().put(write.chunk.0, writer);
        self.more.notify_one();
        match put {
            Put::Accepted(_) => Some(Ok(WriteStatus::Accepted)),
            Put::Waits => None,
            Put::Refused(_) => {
                self.log.borrow_mut().forget_write(&write.write_id);
                let text =
                    "the process does not read its input, and no more of it can wait: write it again later";
                Some(Err(Fault::failed(text)))
            }
        }
    }

    /// Interrupts it and all that it started. One that has ended is not there to be interrupted.
    pub(super) async fn interrupt(&self) {
        if !self.log.borrow().is_closed()
            && let Err(error) = self.stdin.signal_to(SignalTarget::Tree, SIGINT).await
        {
            tracing::debug!(%error, "a process was not interrupted");
        }
    }

    /// Kills it and all that it started. Whether it had not ended.
    pub(super) fn terminate(&self) -> bool {
        if self.phase.get() == Phase::Starting {
            self.phase.set(Phase::Cancelled);
        }
        let (is_exited, is_closed) = {
            let log = self.log.borrow();
            (log.is_exited(), log.is_closed())
        };
        if !is_closed {
            self.terminator.terminate(Duration::ZERO);
        }
        !is_exited
    }

    /// What it has told.
    pub(super) fn read(&self, read: &Read) -> ReadAnswer {
        let after = read.after_seq.unwrap_or(0);
        self.log.borrow().read(after, read.max_bytes)
    }

    /// Returns once there is something to read, or the time is over. Cancellation safe.
    pub(super) async fn news(&self, read: &Read) {
        let after = read.after_seq.unwrap_or(0);
        let wait = Duration::from_millis(read.wait_ms.unwrap_or(0));
        if !wait.is_zero() && !self.log.borrow().has_news(after) {
            let news = async {
                loop {
                    let notified = self.news.notified();
                    if self.log.borrow().has_news(after) {
                        return;
                    }
                    notified.await;
                }
            };
            drop(tokio::time::timeout(wait, news).await);
        }
    }

    fn output(&self, stream: OutputStream, data: Bytes) -> Vec<u8> {
        if let Some(denial) = &mut *self.denial.borrow_mut() {
            denial.heard(stream, &data);
        }
        let (seq, stream) = self.log.borrow_mut().output(stream, &data);
        self.news.notify_waiters();
        let output = Output {
            process_id: self.name.clone(),
            seq,
            stream,
            chunk: Blob(data),
        };
        encode_notification(notification::OUTPUT, &output)
    }

    fn exited(&self, status: Option<ExitStatus>) -> Option<Vec<u8>> {
        let (seq, exit_code) = self.log.borrow_mut().exited(status)?;
        let sandbox_denied = exit_code != 0 && self.denial.borrow().as_ref().is_some_and(Denial::is_likely);
        self.log.borrow_mut().denied(sandbox_denied);
        self.news.notify_waiters();
        let exited = Exited {
            process_id: self.name.clone(),
            seq,
            exit_code,
            sandbox_denied: Some(sandbox_denied),
        };
        Some(encode_notification(notification::EXITED, &exited))
    }

    fn closed(&self) -> Vec<u8> {
        let seq = self.log.borrow_mut().closed();
        self.news.notify_waiters();
        let closed = Closed {
            process_id: self.name.clone(),
            seq,
        };
        encode_notification(notification::CLOSED, &closed)
    }
}

/// Whether an exit is held back, for what the command still had to say.
enum Hold {
    Not,
    Until(ExitStatus, Instant),
    /// It was, for long enough.
    Over,
}

/// The next event of a run, or the exit that was held back. Its children may go on writing: it is not held longer for that.
async fn next(run: &mut Run, hold: &mut Hold) -> Option<RunEvent> {
    let Hold::Until(status, until) = *hold else {
        return run.next().await;
    };
    if Instant::now() < until
        && let Ok(event) = tokio::time::timeout_at(until, run.next()).await
    {
        return event;
    }
    *hold = Hold::Over;
    Some(RunEvent::Exited(status))
}

/// Takes a run's events to its end, and what is kept of it away when its time is over.
async fn pump(
    process: Rc<Process>,
    mut run: Run,
    line: Rc<Line>,
    session: Weak<Session>,
    started: oneshot::Sender<Result<Silence, Fault>>,
) {
    let forget = |session: &Weak<Session>| {
        if let Some(session) = session.upgrade() {
            session.forget(&process.name, &process);
        }
    };
    let mut started = Some(started);
    let mut hold = Hold::Not;
    while let Some(event) = next(&mut run, &mut hold).await {
        // Whatever it is that is heard first: what it tells may overtake the word that it runs.
        if started.is_some() && process.phase.get() == Phase::Cancelled {
            break;
        }
        if let Some(started) = started.take() {
            process.phase.set(Phase::Runs);
            let (silence, over) = oneshot::channel();
            // Nobody may be there to answer any more: then it is over at once.
            drop(started.send(Ok(Silence(silence))));
            drop(over.await);
        }
        let message = match event {
            RunEvent::Started { .. } => continue,
            RunEvent::Stdout(data) => process.output(OutputStream::Stdout, data),
            RunEvent::Stderr(data) => process.output(OutputStream::Stderr, data),
            RunEvent::Gap(gap) => {
                let text = format!("{} bytes of output were lost", gap.bytes());
                process.log.borrow_mut().failed(text);
                continue;
            }
            // What it still had to say may be why it failed.
            RunEvent::Exited(status)
                if process.is_confined() && !status.success() && matches!(hold, Hold::Not) =>
            {
                hold = Hold::Until(status, Instant::now() + DENIAL_WAIT);
                continue;
            }
            RunEvent::Exited(status) => match process.exited(Some(status)) {
                Some(message) => message,
                None => continue,
            },
        };
        line.tell(message).await;
    }
    if process.phase.get() == Phase::Cancelled {
        let text = format!("process {} start was cancelled", process.name);
        // Its name is free before anybody hears that it is not there.
        forget(&session);
        if let Some(started) = started.take() {
            drop(started.send(Err(Fault::invalid_request(text))));
        }
        drop(run.wait().await);
        return;
    }
    let finished = run.wait().await;
    if let Some(started) = started.take() {
        let fault = match &finished {
            Ok(_) => Fault::failed("the command ended before it was known to run"),
            Err(error) => refusal(error, process.is_confined()),
        };
        forget(&session);
        drop(started.send(Err(fault)));
        return;
    }
    let status = match finished {
        Ok(finished) => Some(finished.status),
        Err(error) => {
            process.log.borrow_mut().failed(error.to_string());
            None
        }
    };
    if let Some(exited) = process.exited(status) {
        line.tell(exited).await;
    }
    let closed = process.closed();
    if let Some(session) = session.upgrade() {
        session.ended(&process.name, &process);
    }
    line.tell(closed).await;
    tokio::time::sleep(ENDED_KEPT_FOR).await;
    forget(&session);
}

/// Writes what is to be written, in its order.
async fn feed(process: Rc<Process>) {
    loop {
        let next = process.writes.borrow_mut().take();
        let Some((data, accepted)) = next else {
            process.more.notified().await;
            continue;
        };
        for writer in accepted {
            writer.accepted().await;
        }
        if let Err(error) = process.stdin.write(data).await {
            tracing::debug!(%error, "a process takes no more input");
            process.input_over.set(true);
            let left = process.writes.borrow_mut().close();
            for writer in left {
                if process.tty {
                    writer.accepted().await;
                } else {
                    process.log.borrow_mut().forget_write(&writer.write_id);
                    writer.failed().await;
                }
            }
            return;
        }
    }
}
