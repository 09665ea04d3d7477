//! `TerminalDelivery` on the executor: numbers a process's events and pushes them.
//!
//! Owns the order of one process's events. Never holds output: a chunk that finds no room at the framer keeps its own
//! room here, and so the reader from reading. Full: the readers wait. `exited` and `closed` need no room of the
//! readers: their port is their own. Who sends: the process's readers, and the `Process`.

use std::sync::Arc;

use bytes::Bytes;
use dwell_messages::process::{Ending, Usage};
use dwell_messages::{
    Closed, Envelope, Event, ExitStatus, Exited, Message as Wire, Output, OutputStream, ProcessId,
    TraceContext,
};

use crate::account::{Account, Segment};
use crate::mailbox::{Actor, BulkResidence, Mailbox, Message, Turn};
use crate::relay_framer::{self, RelayFramer, ToSend};
use crate::telemetry::Tick;

/// Chunks that may wait to be pushed: two for each reader.
pub(crate) const DELIVERY_MAILBOX_MAX: usize = 6;

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
    const NAMES: &'static [&'static str] = &["Output", "Exited", "Closed"];

    fn index(&self) -> usize {
        match self {
            Self::Output { .. } => 0,
            Self::Exited(_) => 1,
            Self::Closed { .. } => 2,
        }
    }

    fn bulk(&self) -> Option<&BulkResidence> {
        match self {
            Self::Output { bulk, .. } => Some(bulk),
            Self::Exited(_) | Self::Closed { .. } => None,
        }
    }
}

/// See the module.
pub(crate) struct TerminalDelivery {
    process: ProcessId,
    framer: Mailbox<RelayFramer>,
    event: u64,
    sent: [u64; 2],
}

impl TerminalDelivery {
    pub(crate) fn new(process: ProcessId, framer: Mailbox<RelayFramer>) -> Self {
        Self {
            process,
            framer,
            event: 0,
            sent: [0; 2],
        }
    }

    fn push(
        &mut self,
        context: TraceContext,
        event: Event,
        arrived: Option<Tick>,
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
            arrived,
            written: None,
            bulk,
            hold,
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
        self.event += 1;
        let event = self.event;
        let [stdout_end, stderr_end] = self.sent;
        match envelope.body {
            PushMessage::Output {
                stream,
                offset,
                data,
                bulk,
            } => {
                self.sent[stream.index()] = offset + data.len() as u64;
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
                turn.stop();
            }
        }
    }

    fn control(&mut self, control: Self::Control, _: &mut Turn<'_, Self>) {
        match control {}
    }
}
