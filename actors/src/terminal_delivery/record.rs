//! What is known of one process, in one place: for the client whose it is, for observers, and for the list of sessions.
//!
//! Shared by the process's readers, its delivery and its supervisor, which live on one arbiter. Whatever the process wrote
//! stands here when it has been read from the pipe, told or not: an observer sees it before anybody has taken it, and
//! takes nothing away from anybody.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use dwell_messages::process::{Read, ReadReply};
use dwell_messages::{Closed, Event, ExitStatus, Exited, Output, OutputStream, ProcessEntry, ProcessId};
use tokio::sync::Notify;

use super::retained::Retained;
use crate::telemetry::wall_unix_ms;

/// Reads of one process that may wait for an event, those of all its observers together.
pub const READS_WAITING_MAX: usize = 256;
/// The longest a read waits for an event.
pub const READ_WAIT_MAX: Duration = Duration::from_secs(60);
/// Output that the answer to one read carries, one event in any case: half of what a message may be.
pub const READ_MAX_BYTES: u64 = 512 * 1024;

/// What was asked for.
#[derive(Debug, Default)]
struct Asked {
    program: String,
    tty: bool,
    stdin: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Record {
    told: RefCell<Retained>,
    asked: RefCell<Asked>,
    begun_unix_ms: u64,
    pid: Cell<u32>,
    written: [Cell<u64>; 2],
    /// Whether the pipes are at their end.
    at_end: [Cell<bool>; 2],
    /// Whether the leader has exited, and how, where that is known.
    exited: Cell<bool>,
    status: Cell<Option<ExitStatus>>,
    closed: Cell<bool>,
    /// How far the delivery has come, and the first byte that it would tell again.
    delivered: [Cell<u64>; 2],
    untaken: [Cell<u64>; 2],
    /// Nothing more will be heard of it: its session is over.
    gone: Cell<bool>,
    waiting: Cell<usize>,
    news: Notify,
}

impl Record {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            told: RefCell::new(Retained::new(0)),
            asked: RefCell::default(),
            begun_unix_ms: wall_unix_ms(),
            pid: Cell::new(0),
            written: Default::default(),
            at_end: Default::default(),
            exited: Cell::new(false),
            status: Cell::new(None),
            closed: Cell::new(false),
            delivered: Default::default(),
            untaken: Default::default(),
            gone: Cell::new(false),
            waiting: Cell::new(0),
            news: Notify::new(),
        })
    }

    /// What is to be started, and how many bytes of its output are to be kept.
    pub(crate) fn asked(&self, program: &str, (tty, stdin): (bool, bool), retention_bytes: u64) {
        *self.asked.borrow_mut() = Asked {
            program: program.to_owned(),
            tty,
            stdin,
        };
        *self.told.borrow_mut() = Retained::new(retention_bytes);
    }

    /// It runs.
    pub(crate) fn runs(&self, pid: u32) {
        self.pid.set(pid);
    }

    /// Whether it never ran.
    pub(crate) fn is_unstarted(&self) -> bool {
        self.pid.get() == 0
    }

    /// It wrote. Gives the event's number.
    pub(crate) fn output(&self, stream: OutputStream, offset: u64, data: &Bytes) -> u64 {
        self.written[stream.index()].set(offset + data.len() as u64);
        let event = self.number();
        self.keep(&Event::Output(Output {
            event,
            stream,
            offset,
            data: data.clone(),
        }));
        event
    }

    /// A pipe is at its end.
    pub(crate) fn ended(&self, stream: OutputStream) {
        self.at_end[stream.index()].set(true);
        self.news.notify_waiters();
    }

    /// The leader has exited.
    pub(crate) fn exited(&self, status: Option<ExitStatus>) {
        self.exited.set(true);
        self.status.set(status);
        self.news.notify_waiters();
    }

    /// The number of the next event.
    pub(crate) fn number(&self) -> u64 {
        self.told.borrow().next_number()
    }

    /// Its exit was told.
    pub(crate) fn tell_exited(&self, exited: Exited) {
        self.keep(&exited.into());
    }

    /// Its end was told.
    pub(crate) fn tell_closed(&self, closed: &Closed) {
        self.closed.set(true);
        if closed.status.is_some() {
            self.status.set(closed.status);
        }
        self.keep(&closed.clone().into());
    }

    /// Its session is over: nobody need wait.
    pub(crate) fn forget(&self) {
        self.gone.set(true);
        self.news.notify_waiters();
    }

    /// Bytes that it has written so far.
    pub(crate) fn written(&self) -> [u64; 2] {
        [self.written[0].get(), self.written[1].get()]
    }

    /// How far the delivery has come with a stream, and the first byte of it that it still has.
    pub(crate) fn delivered(&self, stream: OutputStream, end: u64, untaken: u64) {
        self.delivered[stream.index()].set(end);
        self.untaken[stream.index()].set(untaken);
    }

    fn keep(&self, event: &Event) {
        self.told.borrow_mut().keep(event);
        self.news.notify_waiters();
    }

    /// `exited` and `closed`, as far as they were told.
    pub(crate) fn ends(&self) -> Vec<Event> {
        self.told.borrow().ends().cloned().collect()
    }

    /// The chunks that are kept of an output, in order.
    pub(crate) fn outputs(&self, stream: OutputStream) -> Vec<(u64, Bytes)> {
        self.told.borrow().outputs(stream).collect()
    }

    /// Bytes of output that are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.told.borrow().bytes()
    }

    /// As the list of sessions has it.
    pub(crate) fn entry(&self, process: ProcessId) -> ProcessEntry {
        let asked = self.asked.borrow();
        let kept = |stream: OutputStream| {
            let (end, untaken) = (
                self.delivered[stream.index()].get(),
                self.untaken[stream.index()].get(),
            );
            let told = self.told.borrow();
            let older = told.outputs(stream).map(|(offset, _)| offset).next();
            older
                .filter(|offset| *offset < untaken)
                .map_or(untaken, |offset| {
                    offset.max(end.saturating_sub(super::OUTPUT_WINDOW_BYTES))
                })
                .min(untaken)
        };
        ProcessEntry {
            process: process.0,
            program: asked.program.clone(),
            pid: self.pid.get(),
            started_unix_ms: self.begun_unix_ms,
            status: self.status.get(),
            closed: self.closed.get(),
            written: self.written(),
            kept: [kept(OutputStream::Stdout), kept(OutputStream::Stderr)],
            tty: asked.tty,
            stdin: asked.stdin,
        }
    }

    /// Whether a read would have something to tell.
    fn has_news(&self, after: u64) -> bool {
        self.gone.get() || self.is_ended() || self.told.borrow().has_news(after)
    }

    /// Whether nothing but `closed` can follow. An exit is known before it is told: until then it follows.
    fn is_ended(&self) -> bool {
        let is_told = self.status.get().is_none() || self.told.borrow().ends().next().is_some();
        self.closed.get() || (self.exited.get() && is_told && self.at_end.iter().all(Cell::get))
    }

    /// The answer to a read now.
    pub(crate) fn read(&self, read: &Read) -> ReadReply {
        let max_bytes = u64::from(read.max_bytes).min(READ_MAX_BYTES);
        let mut reply = self.told.borrow().read(read.after, max_bytes);
        let whole = reply.next >= self.number();
        reply.ended = whole && self.is_ended();
        reply
    }

    /// The answer to a read, once there is something to tell or its time is over. `None`: too many wait already, or the
    /// session ended. Cancellation safe.
    pub(crate) async fn read_when_due(self: Rc<Self>, read: Read) -> Option<ReadReply> {
        let wait = Duration::from_millis(u64::from(read.wait_ms)).min(READ_WAIT_MAX);
        if !wait.is_zero() && !self.has_news(read.after) {
            let _place = Place::take(&self)?;
            let news = async {
                while !self.has_news(read.after) {
                    self.news.notified().await;
                }
            };
            drop(tokio::time::timeout(wait, news).await);
        }
        (!self.gone.get()).then(|| self.read(&read))
    }

    /// Whether one more read may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.get() < READS_WAITING_MAX
    }
}

/// A read's place among those that wait.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(record: &'a Record) -> Option<Self> {
        record.has_room().then(|| {
            record.waiting.set(record.waiting.get() + 1);
            Self(&record.waiting)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
