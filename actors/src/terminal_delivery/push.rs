//! `TerminalDelivery` on the executor: numbers a process's events, pushes them, and keeps the newest to be read again.
//!
//! A link may die with output under way: what the client has not consumed is kept and told again over the next. So it
//! lives on behind its process's end, until the client wants nothing more of it.
//!
//! Owns the order of one process's events, and what is kept of them. Never holds output back: a chunk that finds no room at the framer keeps its own
//! room here, and so the reader from reading. Full: the readers wait. `exited` and `closed` need no room of the
//! readers: their port is their own. Who sends: the process's readers, and the `Process`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dwell_messages::process::{Ending, Read, Skipped, Usage};
use dwell_messages::{
    Closed, Envelope, ErrorCode, Event, ExitStatus, Exited, Message as Wire, Output, OutputStream, ProcessId,
    Reply, TraceContext, WireError,
};

use crate::account::{Account, Segment};
use crate::mailbox::{Actor, BulkResidence, Mailbox, Message, TimerGuard, Turn};
use crate::process::Credit;
use crate::process_supervisor::{ProcessSupervisor, SupervisorMessage};
use crate::relay_framer::{self, RelayFramer, ToSend};
use crate::rpc_queue::server::Responder;
use crate::telemetry::Tick;
use crate::terminal_delivery::retained::Retained;
use crate::terminal_delivery::unconsumed::{Again, Unconsumed};

/// Reads of one process that may wait for an event.
pub(crate) const READS_WAITING_MAX: usize = 16;
/// The longest a read waits for an event.
pub(crate) const READ_WAIT_MAX: Duration = Duration::from_secs(60);
/// Output that the answer to one read carries, one event in any case: half of what a message may be.
pub(crate) const READ_MAX_BYTES: u64 = 512 * 1024;
/// Chunks that may wait to be pushed, two for each reader, and what its session says.
pub(crate) const DELIVERY_MAILBOX_MAX: usize = 8;

/// What it is told.
pub(crate) enum PushMessage {
    /// A chunk, as it was read.
    Output {
        stream: OutputStream,
        offset: u64,
        data: Bytes,
        bulk: Arc<BulkResidence>,
    },
    /// The wait status is known.
    Exited(Box<Ended>),
    /// Bytes that were dropped.
    Gap {
        stream: OutputStream,
        from: u64,
        to: u64,
    },
    /// A client wants events again.
    Read(Box<Reading>),
    /// A fresh link, and how far its client is, if it still wants this process.
    Attached { attachment: u64, next: Option<[u64; 2]> },
    /// The client wants nothing more of this process.
    Release,
    /// Nothing follows.
    Closed {
        status: Option<ExitStatus>,
        drained: bool,
        holders: u32,
        account: Box<Account>,
        first_byte: u64,
    },
}

/// What it is told urgently.
pub(crate) enum PushControl {
    /// A read has waited long enough.
    ReadDue(u64),
}

/// A read, and where its answer goes.
pub(crate) struct Reading {
    pub(crate) read: Read,
    pub(crate) responder: Responder,
    pub(crate) account: Account,
}

/// A read that waits for an event.
struct Waiting {
    number: u64,
    context: TraceContext,
    reading: Reading,
    _due: TimerGuard,
}

/// How a process ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) core_dumped: bool,
    pub(crate) oom_killed: Option<bool>,
    pub(crate) usage: Option<Usage>,
    pub(crate) ending: Option<Ending>,
}

impl Message for PushMessage {
    const NAMES: &'static [&'static str] =
        &["Output", "Exited", "Closed", "Read", "Gap", "Attached", "Release"];

    fn index(&self) -> usize {
        match self {
            Self::Output { .. } => 0,
            Self::Exited(_) => 1,
            Self::Closed { .. } => 2,
            Self::Read(_) => 3,
            Self::Gap { .. } => 4,
            Self::Attached { .. } => 5,
            Self::Release => 6,
        }
    }

    fn bulk(&self) -> Option<&BulkResidence> {
        match self {
            Self::Output { bulk, .. } => Some(bulk),
            Self::Exited(_)
            | Self::Closed { .. }
            | Self::Read(_)
            | Self::Gap { .. }
            | Self::Attached { .. }
            | Self::Release => None,
        }
    }
}

/// See the module.
pub(crate) struct TerminalDelivery {
    process: ProcessId,
    framer: Mailbox<RelayFramer>,
    supervisor: Mailbox<ProcessSupervisor>,
    event: u64,
    sent: [u64; 2],
    retained: Retained,
    credit: Rc<Credit>,
    unconsumed: [Unconsumed; 2],
    /// The link that output is for.
    attachment: u64,
    closed: bool,
    released: bool,
    reads: u64,
    waiting: Vec<Waiting>,
}

impl TerminalDelivery {
    pub(crate) fn new(
        process: ProcessId,
        framer: Mailbox<RelayFramer>,
        supervisor: Mailbox<ProcessSupervisor>,
        retention_bytes: u64,
        credit: Rc<Credit>,
        attachment: u64,
    ) -> Self {
        Self {
            process,
            framer,
            supervisor,
            event: 0,
            sent: [0; 2],
            retained: Retained::new(retention_bytes),
            credit,
            unconsumed: Default::default(),
            attachment,
            closed: false,
            released: false,
            reads: 0,
            waiting: Vec::new(),
        }
    }

    fn read(&mut self, context: TraceContext, reading: Reading, turn: &mut Turn<'_, Self>) {
        let wait = Duration::from_millis(u64::from(reading.read.wait_ms)).min(READ_WAIT_MAX);
        if wait.is_zero() || self.retained.has_news(reading.read.after) {
            return self.answer(context, reading, turn);
        }
        if self.waiting.len() >= READS_WAITING_MAX {
            let error = WireError::new(ErrorCode::Busy, "too many reads wait for this process")
                .with_limit(READS_WAITING_MAX as u64, READS_WAITING_MAX as u64 + 1);
            return reading
                .responder
                .answer(turn, context, Err(error), reading.account);
        }
        self.reads += 1;
        self.waiting.push(Waiting {
            number: self.reads,
            context,
            reading,
            _due: turn.timer(wait, PushControl::ReadDue(self.reads)),
        });
    }

    fn answer(&self, context: TraceContext, reading: Reading, turn: &mut Turn<'_, Self>) {
        let Reading {
            read,
            responder,
            account,
        } = reading;
        let reply = self.retained.read(read.after, read_bytes(&read));
        responder.answer(turn, context, Ok(Reply::Read(reply)), account);
    }

    fn tell_waiting(&mut self, turn: &mut Turn<'_, Self>) {
        if self.waiting.is_empty() {
            return;
        }
        let (told, waiting): (Vec<_>, _) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| self.retained.has_news(waiting.reading.read.after));
        self.waiting = waiting;
        for Waiting { context, reading, .. } in told {
            self.answer(context, reading, turn);
        }
    }

    fn next_event(&mut self) -> u64 {
        self.event += 1;
        self.event
    }

    /// What the client does not have, over the fresh link. `exited` and `closed` come again by themselves.
    fn tell_again(&mut self, context: &TraceContext, next: [u64; 2], turn: &mut Turn<'_, Self>) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let older = self.retained.outputs(stream);
            let again = self.unconsumed[stream.index()].from(next[stream.index()], older);
            for piece in again {
                let event = match piece {
                    Again::Output(offset, data) => Event::Output(Output {
                        event: 0,
                        stream,
                        offset,
                        data,
                    }),
                    Again::Gap(from, to) => Event::Gap(Skipped {
                        event: 0,
                        stream,
                        from,
                        to,
                    }),
                };
                self.push(context.clone(), event, None, None, turn);
            }
        }
    }

    /// Gives what can be read again to the supervisor and goes, once nothing follows and nobody needs it again.
    fn end_if_released(&mut self, turn: &mut Turn<'_, Self>) {
        if !self.closed || !self.released {
            return;
        }
        let kept = std::mem::replace(&mut self.retained, Retained::new(0));
        turn.tell(
            &self.supervisor,
            TraceContext::default(),
            SupervisorMessage::Retain(self.process, Box::new(kept)),
        );
        turn.stop();
    }

    fn push(
        &mut self,
        context: TraceContext,
        event: Event,
        arrived: Option<Tick>,
        bulk: Option<Arc<BulkResidence>>,
        turn: &mut Turn<'_, Self>,
    ) {
        if event.number() > 0 {
            self.retained.keep(&event);
            self.tell_waiting(turn);
        }
        // The end of the pipes is mostly on its heels, and closes the call.
        let hold = matches!(event, Event::Exited(_));
        let attachment = match event {
            Event::Output(_) | Event::Gap(_) => Some(self.attachment),
            // They have their place in the session's order.
            Event::Exited(_) | Event::Closed(_) => None,
        };
        let message = Wire::Event {
            process: self.process,
            event,
        };
        let send = ToSend {
            message,
            arrived,
            written: None,
            bulk,
            hold,
            ends: None,
            attachment,
            unkept: false,
        };
        relay_framer::send(turn, &self.framer, context, Box::new(send));
    }
}

impl Actor for TerminalDelivery {
    const NAME: &'static str = "TerminalDelivery";
    type Message = PushMessage;
    type Control = PushControl;

    fn receive(&mut self, envelope: Envelope<PushMessage>, turn: &mut Turn<'_, Self>) {
        let context = envelope.context;
        let [stdout_end, stderr_end] = self.sent;
        match envelope.body {
            PushMessage::Read(reading) => self.read(context, *reading, turn),
            PushMessage::Attached { attachment, next } => {
                self.attachment = attachment;
                if let Some(next) = next {
                    self.tell_again(&context, next, turn);
                }
            }
            PushMessage::Release => {
                self.released = true;
                self.unconsumed = Default::default();
                self.end_if_released(turn);
            }
            PushMessage::Gap { stream, from, to } => {
                self.sent[stream.index()] = to;
                self.unconsumed[stream.index()].skip(to);
                let event = self.next_event();
                let skipped = Skipped {
                    event,
                    stream,
                    from,
                    to,
                };
                self.push(context, Event::Gap(skipped), None, None, turn);
            }
            PushMessage::Output {
                stream,
                offset,
                data,
                bulk,
            } => {
                self.sent[stream.index()] = offset + data.len() as u64;
                if !self.released {
                    let consumed = self.credit.consumed(stream);
                    self.unconsumed[stream.index()].push(offset, &data, consumed);
                }
                let event = self.next_event();
                let output = Output {
                    event,
                    stream,
                    offset,
                    data,
                };
                self.push(context, output.into(), None, Some(bulk), turn);
            }
            PushMessage::Exited(ended) => {
                let Ended {
                    status,
                    core_dumped,
                    oom_killed,
                    usage,
                    ending,
                } = *ended;
                let event = self.next_event();
                let exited = Exited {
                    event,
                    status,
                    core_dumped,
                    oom_killed,
                    usage,
                    ending,
                    stdout_end,
                    stderr_end,
                };
                self.push(context, exited.into(), None, None, turn);
            }
            PushMessage::Closed {
                status,
                drained,
                holders,
                mut account,
                first_byte,
            } => {
                account.lap(Segment::Mailbox, turn.residence().dequeued);
                account.lap(Segment::Delivery, Tick::now());
                let mut timings = account.timings();
                timings.first_byte = first_byte;
                let event = self.next_event();
                let closed = Closed {
                    event,
                    status,
                    stdout_end,
                    stderr_end,
                    drained,
                    holders,
                    timings,
                };
                self.push(context, closed.into(), Some(account.first()), None, turn);
                self.closed = true;
                self.end_if_released(turn);
            }
        }
    }

    fn control(&mut self, control: PushControl, turn: &mut Turn<'_, Self>) {
        let PushControl::ReadDue(number) = control;
        let due = self.waiting.iter().position(|waiting| waiting.number == number);
        if let Some(Waiting { context, reading, .. }) = due.map(|index| self.waiting.remove(index)) {
            self.answer(context, reading, turn);
        }
    }
}

/// Output that one answer carries: what was asked for, within what a message holds.
pub(crate) fn read_bytes(read: &Read) -> u64 {
    u64::from(read.max_bytes).min(READ_MAX_BYTES)
}
