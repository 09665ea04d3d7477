//! `TerminalDelivery` on the executor: pushes a process's events in their order, over as many links as it takes.
//!
//! A link may die with output under way: what the client has not consumed is kept and told again over the next. So it
//! lives on behind its process's end, until the client wants nothing more of it.
//!
//! Owns the order of one process's events, and what its client has not consumed; what can be read again is in the process's
//! `Record`. Never holds output back: a chunk that finds no room at the framer keeps its own
//! room here, and so the reader from reading. Full: the readers wait. `exited` and `closed` need no room of the
//! readers: their port is their own. Who sends: the process's readers, and the `Process`.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use dwell_messages::process::{Ending, Skipped, Usage};
use dwell_messages::{
    Closed, Envelope, Event, ExitStatus, Exited, Message as Wire, Output, OutputStream, ProcessId, Progress,
    TraceContext,
};

use crate::account::{Account, Segment};
use crate::fault_point::delay::{self, DelayPoint};
use crate::mailbox::{Actor, BulkResidence, Mailbox, Message, Turn};
use crate::process::Credit;
use crate::process_supervisor::{ProcessSupervisor, SupervisorMessage};
use crate::relay_framer::{self, Accounted, RelayFramer, ToSend};
use crate::telemetry::Tick;
use crate::terminal_delivery::record::Record;
use crate::terminal_delivery::unconsumed::{Again, Unconsumed};

/// Chunks that may wait to be pushed, two for each reader, and what its session says.
pub(crate) const DELIVERY_MAILBOX_MAX: usize = 8;

/// What it is told.
pub(crate) enum PushMessage {
    /// A chunk, as it was read, with the number it got then; 0: it comes from the spool.
    Output {
        event: u64,
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
    /// A fresh link, and how far its client is, if it wants this process. `taken`: it is another client than before.
    Attached {
        attachment: u64,
        wanted: Option<Progress>,
        taken: bool,
    },
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

/// How a process ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) core_dumped: bool,
    pub(crate) oom_killed: Option<bool>,
    pub(crate) usage: Option<Usage>,
    pub(crate) ending: Option<Ending>,
}

impl Message for PushMessage {
    const NAMES: &'static [&'static str] = &["Output", "Exited", "Closed", "Gap", "Attached", "Release"];

    fn index(&self) -> usize {
        match self {
            Self::Output { .. } => 0,
            Self::Exited(_) => 1,
            Self::Closed { .. } => 2,
            Self::Gap { .. } => 3,
            Self::Attached { .. } => 4,
            Self::Release => 5,
        }
    }

    fn bulk(&self) -> Option<&BulkResidence> {
        match self {
            Self::Output { bulk, .. } => Some(bulk),
            Self::Exited(_)
            | Self::Closed { .. }
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
    sent: [u64; 2],
    record: Rc<Record>,
    credit: Rc<Credit>,
    unconsumed: [Unconsumed; 2],
    /// The link that output is for.
    attachment: u64,
    closed: bool,
    released: bool,
}

impl TerminalDelivery {
    /// For a process whose events were all taken and are still kept: whoever has the session now may have them again.
    pub(crate) fn again(
        process: ProcessId,
        framer: Mailbox<RelayFramer>,
        supervisor: Mailbox<ProcessSupervisor>,
        record: Rc<Record>,
        attachment: u64,
    ) -> Self {
        let sent = record.written();
        let mut delivery = Self::new(process, framer, supervisor, record, Rc::default(), attachment);
        delivery.sent = sent;
        delivery.closed = true;
        for (unconsumed, end) in delivery.unconsumed.iter_mut().zip(sent) {
            unconsumed.skip(end);
        }
        delivery
    }

    pub(crate) fn new(
        process: ProcessId,
        framer: Mailbox<RelayFramer>,
        supervisor: Mailbox<ProcessSupervisor>,
        record: Rc<Record>,
        credit: Rc<Credit>,
        attachment: u64,
    ) -> Self {
        Self {
            process,
            framer,
            supervisor,
            sent: [0; 2],
            record,
            credit,
            unconsumed: Default::default(),
            attachment,
            closed: false,
            released: false,
        }
    }

    /// What the client does not have, over the fresh link. `exited` and `closed` come again by themselves.
    fn tell_again(&mut self, context: &TraceContext, next: [u64; 2], turn: &mut Turn<'_, Self>) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let older = self.record.outputs(stream).into_iter();
            let again = self.unconsumed[stream.index()].from(next[stream.index()], older);
            self.push_again(context, stream, again, turn);
        }
    }

    /// Another client has the session from now on, and wants this process from where it says: at most a window of each
    /// stream is told it again, and both ends are, whoever has been told of them before.
    fn taken_up(&mut self, context: &TraceContext, wanted: &Progress, turn: &mut Turn<'_, Self>) {
        self.released = false;
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let at = stream.index();
            let (next, limit) = (wanted.next[at], wanted.limit[at]);
            let window = limit.saturating_sub(next);
            let from = next.max(self.sent[at].saturating_sub(window));
            if from > next {
                self.push_again(context, stream, vec![Again::Gap(next, from)], turn);
            }
            let older = self.record.outputs(stream).into_iter();
            let again = self.unconsumed[at].rewind(from, older);
            self.push_again(context, stream, again, turn);
            self.credit.take_over(stream, limit, window);
            self.note(stream);
        }
        for end in self.record.ends() {
            let begun = Tick::now();
            let accounted = matches!(end, Event::Closed(_)).then_some(Accounted {
                arrived: begun,
                handed: begun,
            });
            self.push(context.clone(), end, accounted, None, turn);
        }
    }

    fn push_again(
        &self,
        context: &TraceContext,
        stream: OutputStream,
        again: Vec<Again>,
        turn: &mut Turn<'_, Self>,
    ) {
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

    fn note(&self, stream: OutputStream) {
        let at = stream.index();
        self.record
            .delivered(stream, self.sent[at], self.unconsumed[at].first());
    }

    /// Leaves what can be read again to the supervisor and goes, once nothing follows and nobody needs it again.
    fn end_if_released(&mut self, turn: &mut Turn<'_, Self>) {
        if !self.closed || !self.released {
            return;
        }
        turn.tell(
            &self.supervisor,
            TraceContext::default(),
            SupervisorMessage::Retain(self.process),
        );
        turn.stop();
    }

    fn push(
        &self,
        context: TraceContext,
        event: Event,
        accounted: Option<Accounted>,
        bulk: Option<Arc<BulkResidence>>,
        turn: &mut Turn<'_, Self>,
    ) {
        // The end of the pipes is mostly on its heels, and closes the call.
        let hold = matches!(event, Event::Exited(_));
        let message = Wire::Event {
            process: self.process,
            event,
        };
        let send = ToSend {
            message,
            accounted,
            stamps: None,
            bulk,
            hold,
            ends: None,
            attachment: Some(self.attachment),
            unkept: false,
        };
        relay_framer::send(turn, &self.framer, context, Box::new(send));
    }
}

impl Actor for TerminalDelivery {
    const NAME: &'static str = "TerminalDelivery";
    type Message = PushMessage;
    type Control = std::convert::Infallible;

    fn receive(&mut self, envelope: Envelope<PushMessage>, turn: &mut Turn<'_, Self>) {
        let context = envelope.context;
        let [stdout_end, stderr_end] = self.sent;
        match envelope.body {
            PushMessage::Attached {
                attachment,
                wanted,
                taken,
            } => {
                self.attachment = attachment;
                match (wanted, taken) {
                    (Some(wanted), true) => self.taken_up(&context, &wanted, turn),
                    (Some(wanted), false) => self.tell_again(&context, wanted.next, turn),
                    (None, true) => self.credit.leave_unattended(),
                    (None, false) => {}
                }
            }
            PushMessage::Release => {
                self.released = true;
                self.unconsumed = Default::default();
                for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                    self.unconsumed[stream.index()].skip(self.sent[stream.index()]);
                    self.note(stream);
                }
                self.end_if_released(turn);
            }
            PushMessage::Gap { stream, from, to } => {
                self.sent[stream.index()] = to;
                self.unconsumed[stream.index()].skip(to);
                self.note(stream);
                let skipped = Skipped {
                    event: 0,
                    stream,
                    from,
                    to,
                };
                self.push(context, Event::Gap(skipped), None, None, turn);
            }
            PushMessage::Output {
                event,
                stream,
                offset,
                data,
                bulk,
            } => {
                self.sent[stream.index()] = offset + data.len() as u64;
                if self.released {
                    self.unconsumed[stream.index()].skip(self.sent[stream.index()]);
                } else {
                    let consumed = self.credit.consumed(stream);
                    self.unconsumed[stream.index()].push(offset, &data, consumed);
                }
                self.note(stream);
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
                let exited = Exited {
                    event: self.record.number(),
                    status,
                    core_dumped,
                    oom_killed,
                    usage,
                    ending,
                    stdout_end,
                    stderr_end,
                };
                self.record.tell_exited(exited);
                self.push(context, exited.into(), None, None, turn);
            }
            PushMessage::Closed {
                status,
                drained,
                holders,
                mut account,
                first_byte,
            } => {
                account.lap(Segment::DeliveryMailbox, turn.now());
                delay::reach(DelayPoint::ExecutorDelivery);
                account.lap(Segment::Delivery, Tick::now());
                let mut timings = account.timings();
                timings.first_byte = first_byte;
                let closed = Closed {
                    event: self.record.number(),
                    status,
                    stdout_end,
                    stderr_end,
                    drained,
                    holders,
                    timings,
                };
                self.record.tell_closed(&closed);
                self.push(context, closed.into(), Some((&*account).into()), None, turn);
                self.closed = true;
                self.end_if_released(turn);
            }
        }
    }

    fn control(&mut self, control: Self::Control, _: &mut Turn<'_, Self>) {
        match control {}
    }
}
