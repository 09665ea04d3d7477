//! What a framer sends, keeps and acknowledges.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use dwell_messages::codec::{self, EncodeError};
use dwell_messages::{
    Envelope, ErrorCode, Event, Message as Wire, ProcessId, Request, Timings, TraceContext, WireError,
};
use dwell_relay::resume::Kept;
use dwell_relay::{Lane, Outgoing, TrailerStamps};

use super::{
    ACK_DELAY, ACK_MESSAGES, Arrival, FramerControl, HOLD, LinkLost, OUTBOUND_MESSAGES_MAX, RelayFramer,
    Sent, ToSend,
};
use crate::mailbox::{Room, Turn};
use crate::telemetry::Tick;
use crate::trace_collector::TraceMessage;

/// Output of a process up to here goes in the interactive lane, so that a short answer overtakes a flood.
const INTERACTIVE_BYTES: u64 = 64 * 1024;
/// A request counts as this long when it is asked whether the order has room for it.
const REQUEST_BYTES: usize = 128 * 1024;

type OnWritten = Box<dyn FnOnce(Tick) + Send>;

impl RelayFramer {
    pub(super) fn send(&mut self, context: TraceContext, send: ToSend, turn: &mut Turn<'_, Self>) {
        let room = turn.take_room();
        if self.over {
            return;
        }
        if matches!(send.message, Wire::Request { .. })
            && (!self.waiting.is_empty() || self.replay.is_full(REQUEST_BYTES))
        {
            // Each has its room in the mailbox, so that is their bound.
            debug_assert!(
                self.waiting.len() <= OUTBOUND_MESSAGES_MAX,
                "rooms bound what waits"
            );
            return self.waiting.push_back((context, send, room));
        }
        self.put(context, send, room, turn);
    }

    /// The order may have room for what waited for it.
    pub(super) fn send_waiting(&mut self, turn: &mut Turn<'_, Self>) {
        while !self.replay.is_full(REQUEST_BYTES) {
            let Some((context, send, room)) = self.waiting.pop_front() else {
                return;
            };
            self.put(context, send, room, turn);
        }
    }

    fn put(&mut self, context: TraceContext, send: ToSend, room: Option<Room>, turn: &mut Turn<'_, Self>) {
        let sequenced = send.message.is_sequenced() && !send.unkept;
        let flows = self.line.as_ref().is_some_and(|line| !line.resuming);
        let late = send.attachment.is_some_and(|link| link != self.attachments);
        if late || (!flows && !sequenced) {
            return;
        }
        let (lane, channel) = lane(&send.message);
        let trailer = send.message.has_trailer().then(|| {
            let enqueued = turn.residence().enqueued;
            TrailerStamps {
                arrived: send.arrived.unwrap_or(enqueued).to_instant(),
                enqueued: enqueued.to_instant(),
            }
        });
        let on_written = self.on_written(&context, &send);
        let hold = send.hold;
        let sequence = if sequenced { self.replay.next_sequence() } else { 0 };
        let envelope = Envelope::new(context, send.message);
        let bytes = match codec::encode(&envelope, sequence) {
            Ok(bytes) => bytes,
            Err(error) => {
                let code = match error {
                    EncodeError::TooLarge { .. } => ErrorCode::TooLarge,
                    EncodeError::BadString { .. } | EncodeError::Serialize(_) => ErrorCode::BadRequest,
                };
                return self.unsent(envelope, WireError::new(code, error.to_string()), turn);
            }
        };
        let mut token = Sent { room, on_written };
        if sequenced {
            self.replay.keep(Kept {
                sequence,
                lane,
                channel,
                bytes: bytes.clone(),
                trailer,
                token: token.room.take(),
            });
            self.count_unacknowledged();
        }
        if !flows {
            return;
        }
        let idle = self
            .line
            .as_ref()
            .is_some_and(|line| !line.link.borrow().can_transmit());
        self.enqueue(
            Outgoing {
                lane,
                channel,
                bytes,
                trailer,
                token,
            },
            turn,
        );
        if hold && (idle || self.held.is_some()) {
            self.held
                .get_or_insert_with(|| turn.timer(HOLD, FramerControl::Flush));
        } else if turn.is_last() {
            self.flush();
        } else {
            self.wake();
        }
    }

    /// Puts a message on the link. A link that has no room for it is of no use: its successor gets what is kept.
    pub(super) fn enqueue(&mut self, message: Outgoing<Sent>, turn: &mut Turn<'_, Self>) {
        let Some(line) = &self.line else { return };
        let outcome = line.link.borrow_mut().enqueue(message);
        if let Err(refused) = outcome {
            self.link_lost(LinkLost::Failed(refused.problem.to_string()), turn);
        }
    }

    /// Sends everything again that the peer has not acknowledged.
    pub(super) fn send_again(&mut self, turn: &mut Turn<'_, Self>) {
        let again: Vec<_> = self
            .replay
            .unacknowledged()
            .map(|kept| Outgoing {
                lane: kept.lane,
                channel: kept.channel,
                bytes: kept.bytes.clone(),
                trailer: kept.trailer,
                token: Sent {
                    room: None,
                    on_written: None,
                },
            })
            .collect();
        for message in again {
            self.enqueue(message, turn);
        }
    }

    /// Puts a message on the link that has no place in the order and no room to give back.
    pub(super) fn say(&mut self, message: Wire) {
        let (lane, channel) = lane(&message);
        let Some(line) = &self.line else { return };
        let envelope = Envelope::new(TraceContext::default(), message);
        let bytes: Bytes = match codec::encode(&envelope, 0) {
            Ok(bytes) => bytes,
            Err(error) => return tracing::error!(%error, "a message of the link itself could not be encoded"),
        };
        let message = Outgoing {
            lane,
            channel,
            bytes,
            trailer: None,
            token: Sent {
                room: None,
                on_written: None,
            },
        };
        if line.link.borrow_mut().enqueue(message).is_err() {
            tracing::debug!("a link that is over or full was not told something");
        }
    }

    /// Tells the peer what has been applied, if it does not know.
    pub(super) fn acknowledge(&mut self) {
        let flows = self.line.as_ref().is_some_and(|line| !line.resuming);
        if flows && (self.received.is_due() || !self.released.is_empty()) {
            self.ack = None;
            let released = std::mem::take(&mut self.released);
            let received = self.received.state();
            self.say(Wire::Ack { received, released });
        }
    }

    /// The consumer is done with this process: the peer may forget what it keeps of it.
    pub(super) fn unroute(&mut self, process: ProcessId, turn: &Turn<'_, Self>) {
        self.upper.unroute(process);
        // Without a link the next one's first message says it.
        if self.line.as_ref().is_none_or(|line| line.resuming) {
            return;
        }
        self.released.push(process);
        if self.released.len() >= ACK_MESSAGES as usize {
            self.acknowledge();
        } else {
            self.ack
                .get_or_insert_with(|| turn.timer(ACK_DELAY, FramerControl::Ack));
        }
    }

    /// A request that stays here is answered here: whoever made it waits.
    fn unsent(&mut self, envelope: Envelope<Wire>, error: WireError, turn: &mut Turn<'_, Self>) {
        tracing::debug!(%error, "a message was not sent");
        if let Wire::Request { id, .. } = envelope.body {
            let arrival = Arrival {
                first: Tick::now(),
                trailer: None,
                relay_us: 0,
            };
            let answer = Wire::Response {
                id,
                result: Err(error),
                timings: Timings::default(),
            };
            self.upper
                .message(arrival, Envelope::new(envelope.context, answer), turn);
        }
    }

    fn on_written(&self, context: &TraceContext, send: &ToSend) -> Option<OnWritten> {
        if let Some(written) = &send.written {
            let written = Arc::clone(written);
            return Some(Box::new(move |now: Tick| {
                written.store(now.to_raw(), Ordering::Release)
            }));
        }
        let process = send.ends.or(match &send.message {
            Wire::Event {
                process,
                event: Event::Closed(_),
            } => Some(*process),
            _ => None,
        })?;
        let shipper = self.upper.shipper().filter(|_| context.is_sampled())?;
        let context = context.clone();
        Some(Box::new(move |_| {
            drop(shipper.try_tell(Envelope::new(context, TraceMessage::Ship(process))));
        }))
    }

    pub(super) fn count_unacknowledged(&self) {
        self.unacknowledged.messages.set(self.replay.messages());
        self.unacknowledged.bytes.set(self.replay.bytes());
    }

    /// As `wake`, in the last of several turns: what all of them queued leaves now.
    fn flush(&mut self) {
        self.held = None;
        if self.can_transmit()
            && let Some(line) = &self.line
        {
            line.uplink.flush(line.stream);
        }
    }

    pub(super) fn wake(&mut self) {
        self.held = None;
        if self.can_transmit()
            && let Some(line) = &self.line
        {
            line.uplink.notify(line.stream);
        }
    }

    /// Whether something leaves now; an acknowledgement that waits for company goes with it.
    fn can_transmit(&mut self) -> bool {
        let can = self
            .line
            .as_ref()
            .is_some_and(|line| line.link.borrow().can_transmit());
        if can {
            self.acknowledge();
        }
        can
    }
}

/// Which lane a message takes, and which channel in it. Order holds within a channel of a lane.
fn lane(message: &Wire) -> (Lane, u32) {
    let channel = |process: &ProcessId| u32::try_from(process.0 & 0xffff_ffff).unwrap_or(u32::MAX);
    match message {
        Wire::Request {
            request: Request::Write(_) | Request::Signal(_) | Request::Terminate(_) | Request::Resize(_),
            ..
        } => (Lane::Stdin, 0),
        Wire::Request { .. } | Wire::Response { .. } => (Lane::Interactive, 0),
        Wire::Event {
            process,
            event: Event::Output(output),
        } if output.offset >= INTERACTIVE_BYTES => (Lane::Bulk, channel(process)),
        Wire::Event { process, .. } => (Lane::Interactive, channel(process)),
        Wire::TraceRecords { process, .. } => (Lane::Trace, channel(process)),
        Wire::Cancel(_)
        | Wire::Ack { .. }
        | Wire::Credit { .. }
        | Wire::Ping(_)
        | Wire::Pong(_)
        | Wire::Goodbye(_)
        | Wire::Resume(_)
        | Wire::Resumed(_)
        | Wire::ResumeRefused(_) => (Lane::Control, 0),
    }
}
