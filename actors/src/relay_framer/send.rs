//! What a framer sends, keeps and acknowledges.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dwell_messages::codec::{self, EncodeError};
use dwell_messages::{
    Envelope, ErrorCode, Event, FileReply, FileRequest, HttpReply, Message as Wire, ProcessId, Reply,
    Request, Timings, TraceContext, WireError,
};
use dwell_relay::resume::Kept;
use dwell_relay::{Lane, TrailerStamps};

use super::line::Line;
use super::stamps::SendStamps;
use super::{
    ACK_DELAY, ACK_MESSAGES, Accounted, Arrival, FramerControl, HOLD, KeptToken, LinkLost,
    OUTBOUND_MESSAGES_MAX, RelayFramer, Sent, ToSend, Waiting,
};
use crate::fault_point::delay::{self, DelayPoint};
use crate::harness::foreign::{Left, Outgoing};
use crate::mailbox::{Room, Turn};
use crate::telemetry::Tick;
use crate::trace_collector::TraceMessage;

/// Output of a process up to here goes in the interactive lane, so that a short answer overtakes a flood; less where the
/// link carries less in its round trip and 20 ms, since nothing holds that lane back.
const INTERACTIVE_BYTES: u64 = 64 * 1024;
/// A request counts as this long when it is asked whether the order has room for it.
const REQUEST_BYTES: usize = 128 * 1024;

type OnWritten = Box<dyn FnOnce() + Send>;

impl RelayFramer {
    pub(super) fn send(&mut self, context: TraceContext, send: ToSend, turn: &mut Turn<'_, Self>) {
        if send.stamps.is_some() {
            delay::reach(DelayPoint::HarnessFramerMailbox);
        }
        let taken = turn.now();
        let room = turn.take_room();
        if self.over {
            return;
        }
        if let Some(foreign) = &self.foreign {
            if let Some(stamps) = &send.stamps {
                stamps.encoded(taken, taken, Tick::now());
            }
            let left = Left {
                _room: room,
                stamps: send.stamps,
            };
            let said = Outgoing::Said(context, Box::new(send.message), left);
            if foreign.try_send(said).is_err() {
                let gone = "what carries the session has ended";
                self.over(LinkLost::Broken(gone.into()), turn);
            }
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
            return self.waiting.push_back(Waiting {
                context,
                send,
                room,
                taken,
            });
        }
        self.put(context, send, room, (taken, taken), turn);
    }

    /// The order may have room for what waited for it.
    pub(super) fn send_waiting(&mut self, turn: &mut Turn<'_, Self>) {
        while !self.replay.is_full(REQUEST_BYTES) {
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            let Waiting {
                context,
                send,
                room,
                taken,
            } = waiting;
            self.put(context, send, room, (taken, Tick::now()), turn);
        }
    }

    /// `when` it was taken out of the mailbox, and its turn in the order came.
    fn put(
        &mut self,
        context: TraceContext,
        send: ToSend,
        room: Option<Room>,
        when: (Tick, Tick),
        turn: &mut Turn<'_, Self>,
    ) {
        let sequenced = send.message.is_sequenced() && !send.unkept;
        let flows = self.line.as_ref().is_some_and(|line| !line.resuming);
        if self.is_late(&send, sequenced) || (!flows && !sequenced) {
            return;
        }
        let (lane, channel) = self.lane(&send.message);
        let trailer = trailer(&send, turn);
        let on_written = self.on_written(&context, &send);
        let (hold, stamps) = (send.hold, send.stamps);
        let queued = queue_point(&send.message, stamps.is_some());
        let sequence = if sequenced { self.replay.next_sequence() } else { 0 };
        let envelope = Envelope::new(context, send.message);
        if stamps.is_some() {
            delay::reach(DelayPoint::HarnessSerialize);
        }
        let bytes = match codec::encode(&envelope, sequence) {
            Ok(bytes) => bytes,
            Err(error) => return self.unsent(envelope, &error, turn),
        };
        if let Some(stamps) = &stamps {
            stamps.encoded(when.0, when.1, Tick::now());
            self.freshen_round_trip(when.0);
        }
        let mut token = Sent {
            room,
            stamps,
            on_written,
        };
        if sequenced {
            self.replay.keep(Kept {
                sequence,
                lane,
                channel,
                bytes: bytes.clone(),
                trailer,
                token: KeptToken {
                    _room: token.room.take(),
                    stamps: token.stamps.clone(),
                },
            });
            self.count_unacknowledged();
        }
        if !flows {
            return;
        }
        let idle = !self.has_company();
        self.enqueue(
            dwell_relay::Outgoing {
                lane,
                channel,
                bytes,
                trailer,
                token,
            },
            turn,
        );
        if let Some(point) = queued {
            delay::reach(point);
        }
        self.send_off(hold && (idle || self.held.is_some()), turn);
    }

    /// What was queued leaves with this turn, or is held back for what comes next.
    fn send_off(&mut self, hold: bool, turn: &Turn<'_, Self>) {
        if hold {
            self.held
                .get_or_insert_with(|| turn.timer(HOLD, FramerControl::Flush));
        } else if turn.is_last() {
            self.flush();
        } else {
            self.wake();
        }
    }

    /// Whether something leaves now in any case.
    fn has_company(&self) -> bool {
        let can = |line: &Line| line.link.borrow().can_transmit();
        self.line.as_ref().is_none_or(can)
    }

    /// Whether a message was meant for a link, or an owner of the session, before the present one.
    fn is_late(&self, send: &ToSend, sequenced: bool) -> bool {
        send.attachment.is_some_and(|link| {
            if sequenced {
                link < self.taken_at
            } else {
                link != self.attachments
            }
        })
    }

    /// The lane of a message, and its channel. What a process writes keeps its order: where some of it waits in the bulk lane,
    /// the rest waits behind it.
    fn lane(&self, message: &Wire) -> (Lane, u32) {
        let (lane, channel) = lane(message);
        let Wire::Event { event, .. } = message else {
            return (lane, channel);
        };
        let Some(offset) = place(event) else {
            return (lane, channel);
        };
        let Some(line) = &self.line else {
            return (lane, channel);
        };
        let link = line.link.borrow();
        let is_bulk = offset >= link.bulk_bound_bytes() || link.holds(Lane::Bulk, channel);
        (if is_bulk { Lane::Bulk } else { lane }, channel)
    }

    /// Puts a message on the link. A link that has no room for it is of no use: its successor gets what is kept.
    pub(super) fn enqueue(&mut self, message: dwell_relay::Outgoing<Sent>, turn: &mut Turn<'_, Self>) {
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
            .map(|kept| dwell_relay::Outgoing {
                lane: kept.lane,
                channel: kept.channel,
                bytes: kept.bytes.clone(),
                trailer: kept.trailer,
                token: Sent {
                    stamps: kept.token.stamps.clone(),
                    ..Sent::default()
                },
            })
            .collect();
        let meters = self.collector.board().meters();
        meters.replayed.fetch_add(again.len() as u64, Ordering::Relaxed);
        for message in again {
            self.enqueue(message, turn);
        }
    }

    /// Puts a message on the link that has no place in the order and no room to give back.
    pub(super) fn say(&mut self, message: Wire) {
        self.say_stamped(message, None);
    }

    fn say_stamped(&mut self, message: Wire, stamps: Option<Arc<SendStamps>>) {
        let (lane, channel) = lane(&message);
        let Some(line) = &self.line else { return };
        let envelope = Envelope::new(TraceContext::default(), message);
        let bytes: Bytes = match codec::encode(&envelope, 0) {
            Ok(bytes) => bytes,
            Err(error) => return tracing::error!(%error, "a message of the link itself could not be encoded"),
        };
        let message = dwell_relay::Outgoing {
            lane,
            channel,
            bytes,
            trailer: None,
            token: Sent {
                stamps,
                ..Sent::default()
            },
        };
        if line.link.borrow_mut().enqueue(message).is_err() {
            tracing::debug!("a link that is over or full was not told something");
        }
    }

    /// Asks for a round trip.
    pub(super) fn ping(&mut self) {
        let stamps = Arc::<SendStamps>::default();
        let Some(line) = &mut self.line else { return };
        let value = line.pings.asked(Tick::now(), Arc::clone(&stamps));
        self.say_stamped(Wire::Ping(value), Some(stamps));
    }

    /// A request leaves, whose transit will be held against a ping of this link: one that is older than
    /// `PING_FRESH` is asked for anew, in the same write.
    fn freshen_round_trip(&mut self, now: Tick) {
        let flows = |line: &&mut Line| line.dials() && !line.resuming;
        if let Some(line) = self.line.as_mut().filter(flows)
            && line.pings.are_stale(now)
        {
            line.pinged_between();
            self.ping();
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
        if let Some(foreign) = &self.foreign
            && foreign.try_send(Outgoing::Forget(process)).is_err()
        {
            tracing::debug!("a process that is over is not forgotten until its session is");
        }
        // Without a link the next one's first message says it; where that has been said, it is said behind the answer.
        let Some(line) = &self.line else { return };
        let resuming = line.resuming;
        self.released.push(process);
        if resuming {
            return;
        }
        if self.released.len() >= ACK_MESSAGES as usize {
            self.acknowledge();
        } else {
            self.ack
                .get_or_insert_with(|| turn.timer(ACK_DELAY, FramerControl::Ack));
        }
    }

    /// A request that stays here is answered here: whoever made it waits.
    fn unsent(&mut self, envelope: Envelope<Wire>, error: &EncodeError, turn: &mut Turn<'_, Self>) {
        let code = match error {
            EncodeError::TooLarge { .. } => ErrorCode::TooLarge,
            EncodeError::BadPath { .. } => ErrorCode::BadPath,
            EncodeError::BadString { .. } | EncodeError::Serialize(_) => ErrorCode::BadRequest,
        };
        let text = match error {
            // Its advice is the code's.
            EncodeError::BadPath { field, problem } => format!("{field} {problem}"),
            EncodeError::TooLarge { .. } | EncodeError::BadString { .. } | EncodeError::Serialize(_) => {
                error.to_string()
            }
        };
        let error = WireError::new(code, text);
        tracing::debug!(%error, "a message was not sent");
        if let Wire::Request { id, .. } = envelope.body {
            let arrival = Arrival::here();
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
        let process = send.ends.or(match &send.message {
            Wire::Event {
                process,
                event: Event::Closed(_),
            } => Some(*process),
            _ => None,
        })?;
        let shipper = self.upper.shipper().filter(|_| self.collector.wants(context))?;
        let context = context.clone();
        Some(Box::new(move || {
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

/// Whether a message is the end of a process, and so of a call.
pub(super) fn is_end(message: &Wire) -> bool {
    matches!(
        message,
        Wire::Event {
            event: Event::Closed(_),
            ..
        }
    )
}

/// Where a test makes a message wait to be cut.
fn queue_point(message: &Wire, is_request: bool) -> Option<DelayPoint> {
    if is_request {
        Some(DelayPoint::HarnessQueue)
    } else {
        is_end(message).then_some(DelayPoint::ExecutorQueue)
    }
}

/// What becomes of an answer's account when it is cut, where the message has a trailer. The clock is read once for both.
fn trailer(send: &ToSend, turn: &Turn<'_, RelayFramer>) -> Option<TrailerStamps> {
    if !send.message.has_trailer() {
        return None;
    }
    let accounted = send.accounted.unwrap_or_else(|| {
        let enqueued = turn.residence().enqueued;
        Accounted {
            arrived: enqueued,
            handed: enqueued,
        }
    });
    let (now, instant) = (Tick::now(), Instant::now());
    let before = |tick: Tick| {
        let ago = Duration::from_nanos(now.nanos_since(tick));
        instant.checked_sub(ago).unwrap_or(instant)
    };
    Some(TrailerStamps {
        arrived: before(accounted.arrived),
        enqueued: before(accounted.handed),
    })
}

/// Where in its stream an event stands that must not overtake the output before it: a gap must not either.
fn place(event: &Event) -> Option<u64> {
    match event {
        Event::Output(output) => Some(output.offset),
        Event::Gap(gap) => Some(gap.from),
        Event::Exited(_) | Event::Closed(_) => None,
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
        Wire::Request {
            request: Request::File(file),
            ..
        } => asked_of_files(file),
        Wire::Response {
            result: Ok(Reply::File(file)),
            ..
        } => answered_of_files(file),
        Wire::Request {
            request: Request::Http(_),
            ..
        }
        | Wire::Response {
            result: Ok(Reply::Http(HttpReply::Body(_))),
            ..
        } => (Lane::Files, EXCHANGES),
        Wire::Request { .. } | Wire::Response { .. } => (Lane::Interactive, 0),
        Wire::Event { process, event } if place(event).is_some_and(|offset| offset >= INTERACTIVE_BYTES) => {
            (Lane::Bulk, channel(process))
        }
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

/// Small files, in the lane of files: they share it fairly with large ones.
const SMALL_FILES: u32 = 0;
/// Blocks of open files, walks, and everything about these, in order.
const OPEN_FILES: u32 = 1;

/// What is asked of exchanges, in order, and the bodies of their answers.
const EXCHANGES: u32 = 2;

/// What is about an open file keeps its order, so that it can be asked for before the file is open.
fn asked_of_files(file: &FileRequest) -> (Lane, u32) {
    match file {
        FileRequest::Write(_) => (Lane::Files, SMALL_FILES),
        FileRequest::Walk(_)
        | FileRequest::WalkOn(_)
        | FileRequest::Open(_)
        | FileRequest::ReadBlock(_)
        | FileRequest::WriteBlock(_)
        | FileRequest::Close(_)
        | FileRequest::Watch(_)
        | FileRequest::Await(_) => (Lane::Files, OPEN_FILES),
        FileRequest::Metadata(_)
        | FileRequest::Read(_)
        | FileRequest::List(_)
        | FileRequest::CreateDirectory(_)
        | FileRequest::Remove(_)
        | FileRequest::Copy(_)
        | FileRequest::Rename(_)
        | FileRequest::Canonicalize(_) => (Lane::Interactive, 0),
    }
}

/// What carries content, or names by the thousand, leaves what is short in peace.
fn answered_of_files(file: &FileReply) -> (Lane, u32) {
    match file {
        FileReply::Contents(_) | FileReply::Listing(_) => (Lane::Files, SMALL_FILES),
        FileReply::Walked(_) | FileReply::WalkedOn(_) | FileReply::Block(_) => (Lane::Files, OPEN_FILES),
        FileReply::Metadata(_)
        | FileReply::Written(_)
        | FileReply::DirectoryCreated(_)
        | FileReply::Removed(_)
        | FileReply::Copied(_)
        | FileReply::Renamed
        | FileReply::Canonical(_)
        | FileReply::Opened(_)
        | FileReply::BlockWritten(_)
        | FileReply::Closed(_)
        | FileReply::Watching(_)
        | FileReply::Seen => (Lane::Interactive, 0),
    }
}
