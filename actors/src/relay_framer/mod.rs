//! `RelayFramer`: one link. It encodes, cuts, seals and sends; it receives, opens, reassembles and decodes.
//!
//! Owns the link's core, which it shares on its own thread with the connection's writer. Never waits for the socket,
//! and never for whoever asked: inbound and outbound traffic have rooms of their own, an outbound message keeps its
//! room until it has been written, and only inbound messages wait for the services above.
//! Full: senders wait. Stop: messages not yet cut are dropped with the link. Who sends: the connection's reader, the
//! `RpcQueue` and the `TerminalDelivery` of its session. Supervised by the session, which ends with it.

mod uplink;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dwell_messages::codec::{self, DecodeError, EncodeError, Trailer};
use dwell_messages::{
    Envelope, ErrorCode, Event, Message as Wire, ProcessId, PublicKey, Request, Timings, TraceContext,
    WireError,
};
use dwell_relay::link::HANDSHAKE_TIMEOUT;
use dwell_relay::{
    Incoming, Lane, LinkError, LinkEstablished, LinkEvent, OuterFrame, Outgoing, Reset, ResetCode,
    TrailerStamps,
};

use crate::mailbox::{Actor, BulkResidence, Failure, Mailbox, Message, TimerGuard, Turn};
use crate::telemetry::{Collector, Stage, Tick};
use crate::terminal_delivery::receive::TerminalDelivery as Delivery;

pub(crate) use uplink::{ConnectionError, LINKS_MAX, Sent, SharedLink, Uplink, read_loop};

/// Frames from the socket that may wait for the framer: 8 MiB of records at most.
pub const INBOUND_FRAMES_MAX: usize = 256;
/// Messages to send that may wait to be cut, stream data excepted, which has rooms of its own.
pub const OUTBOUND_MESSAGES_MAX: usize = 1_024;
/// Chunks of one process's output that may wait to be cut.
pub const OUTPUT_CHUNKS_MAX: usize = 8;
/// How long a message that may wait for company waits for it.
pub const HOLD: Duration = Duration::from_millis(2);
/// Output of a process up to here goes in the interactive lane, so that a short answer overtakes a flood.
const INTERACTIVE_BYTES: u64 = 64 * 1024;

/// When and how a message came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// When its first record arrived.
    pub(crate) first: Tick,
    /// What its framer wrote behind it.
    pub(crate) trailer: Option<Trailer>,
    /// Microseconds in relays, by their word.
    pub(crate) relay_us: u32,
}

/// The session above a framer. Called within the framer's turns.
pub(crate) trait Upper {
    /// A client with a proven key asks to be served: the welcome's bytes, or nobody. The hash is the handshake's so far.
    fn authorize(&mut self, client: PublicKey, hello: &[u8], handshake: &[u8; 32]) -> Option<Vec<u8>>;
    /// Messages flow from now on.
    fn established(&mut self, peer: LinkEstablished, turn: &mut Turn<'_, RelayFramer>);
    /// A message.
    fn message(&mut self, arrival: Arrival, envelope: Envelope<Wire>, turn: &mut Turn<'_, RelayFramer>);
    /// A request that cannot be understood but can be answered.
    fn unanswerable(&mut self, error: &DecodeError, turn: &mut Turn<'_, RelayFramer>);
    /// Events of this process go there from now on. Only a harness has such routes.
    fn route(&mut self, process: ProcessId, to: Mailbox<Delivery>) {
        drop((process, to));
    }
    /// The process is over.
    fn unroute(&mut self, process: ProcessId) {
        let _ = process;
    }
    /// The executor refused to start it, and its spans of that will come. Only a harness waits for them.
    fn owed(&mut self, process: ProcessId) {
        let _ = process;
    }
    /// The link is over. Called once.
    fn lost(&mut self, why: LinkLost, turn: &mut Turn<'_, RelayFramer>);
}

/// Why a link is over.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkLost {
    /// The link's core found something wrong.
    #[error("the link failed: {0}")]
    Failed(String),
    /// The other end refused in the clear: a version or suite that is not served.
    #[error("{0}")]
    Refused(String),
    /// The other end, or the relay, says it is over.
    #[error("the other end or the relay ended the stream ({code:?}{text})")]
    Reset {
        /// By its word.
        code: ResetCode,
        /// What it adds, for people.
        text: String,
    },
    /// The peer said goodbye inside the seal.
    #[error("the peer ended the session: {0}")]
    Goodbye(String),
    /// The connection is gone.
    #[error("the connection is gone: {0}")]
    Connection(String),
    /// This side ended it.
    #[error("the session was ended here")]
    Ended,
}

impl LinkLost {
    /// Why, in a word or two of ours: nothing of what the other end says.
    pub(crate) fn in_short(&self) -> &'static str {
        match self {
            Self::Failed(_) => "link failed",
            Self::Refused(_) => "refused",
            Self::Reset { .. } => "reset",
            Self::Goodbye(_) => "goodbye",
            Self::Connection(_) => "connection lost",
            Self::Ended => "ended here",
        }
    }
}

/// What a framer is told.
pub(crate) enum FramerMessage {
    /// A frame of this link, and when its bytes were read.
    Inbound(OuterFrame, Tick),
    /// A message to send.
    Send(Box<ToSend>),
    /// The connection is gone. Behind the frames that came before: one of them may say why.
    Over(LinkLost),
}

/// A message to send.
pub(crate) struct ToSend {
    pub(crate) message: Wire,
    /// When the request that this answers arrived: fills the trailer.
    pub(crate) arrived: Option<Tick>,
    /// Filled with the raw tick when the last byte has been written.
    pub(crate) written: Option<Arc<AtomicU64>>,
    /// Set for stream data: its residence is summed there.
    pub(crate) bulk: Option<Arc<BulkResidence>>,
    /// May wait up to `HOLD` for the next message, to leave in one write with it: two wake-ups of every machine on the
    /// way become one.
    pub(crate) hold: bool,
    /// Set where an answer ends a call that never ran: its spans follow as they follow a terminal event.
    pub(crate) ends: Option<ProcessId>,
}

impl ToSend {
    /// A message without an account of its own.
    pub(crate) fn plain(message: Wire) -> Box<Self> {
        Box::new(Self {
            message,
            arrived: None,
            written: None,
            bulk: None,
            hold: false,
            ends: None,
        })
    }
}

/// Something done to the session above, on its thread.
pub(crate) type ForUpper = Box<dyn FnOnce(&mut dyn Upper) + Send>;

/// What a framer is told urgently.
pub(crate) enum FramerControl {
    /// The connection is gone.
    Lost(LinkLost),
    /// The handshake's deadline is here.
    Timeout,
    /// What was held has waited long enough.
    Flush,
    /// Say goodbye and end.
    End(String),
    /// Something for the session above, on this thread.
    Upper(ForUpper),
}

impl Message for FramerMessage {
    const NAMES: &'static [&'static str] = &["Inbound", "Send", "Over"];

    fn index(&self) -> usize {
        match self {
            Self::Inbound(..) => 0,
            Self::Send(_) => 1,
            Self::Over(_) => 2,
        }
    }

    fn bulk(&self) -> Option<&BulkResidence> {
        match self {
            Self::Inbound(..) | Self::Over(_) => None,
            Self::Send(send) => send.bulk.as_deref(),
        }
    }
}

/// Told when a sampled call's `Closed` has been written: its records follow.
pub(crate) type OnClosed = Rc<dyn Fn(TraceContext, ProcessId)>;

/// See the module.
pub(crate) struct RelayFramer {
    link: SharedLink,
    uplink: Rc<Uplink>,
    upper: Box<dyn Upper>,
    collector: Collector,
    sequence: u64,
    malformed_contexts: u64,
    over: bool,
    /// Whether a relay is in between.
    relayed: bool,
    deadline: Option<TimerGuard>,
    /// Set while the link holds a message back that nothing else has followed.
    held: Option<TimerGuard>,
    on_closed: Option<OnClosed>,
}

impl RelayFramer {
    pub(crate) fn new(
        link: SharedLink,
        uplink: Rc<Uplink>,
        upper: Box<dyn Upper>,
        collector: Collector,
        on_closed: Option<OnClosed>,
        relayed: bool,
    ) -> Self {
        Self {
            link,
            uplink,
            upper,
            collector,
            sequence: 0,
            malformed_contexts: 0,
            over: false,
            relayed,
            deadline: None,
            held: None,
            on_closed,
        }
    }

    fn inbound(&mut self, frame: OuterFrame, read: Tick, turn: &mut Turn<'_, Self>) {
        if self.over {
            return;
        }
        let now = Instant::now();
        let outcome = self.link.borrow_mut().handle_frame(now, frame);
        self.events(read, turn);
        if let Err(error) = outcome {
            let text = chain(&error);
            let refused = matches!(error, LinkError::Refused(_));
            self.fail(
                if refused {
                    LinkLost::Refused(text)
                } else {
                    LinkLost::Failed(text)
                },
                turn,
            );
        }
        self.wake();
    }

    fn events(&mut self, read: Tick, turn: &mut Turn<'_, Self>) {
        loop {
            let Some(event) = self.link.borrow_mut().poll_event() else {
                return;
            };
            match event {
                LinkEvent::Established(peer) => {
                    self.deadline = None;
                    self.upper.established(peer, turn);
                }
                LinkEvent::AuthorizationNeeded {
                    client,
                    hello,
                    handshake_hash,
                } => self.verdict(client, &hello, &handshake_hash, turn),
                LinkEvent::Message(incoming) => self.message(&incoming, read, turn),
                LinkEvent::PeerClosed { reason } => {
                    let text = if reason.text.is_empty() {
                        String::new()
                    } else {
                        format!(": {}", reason.text)
                    };
                    self.fail(
                        LinkLost::Reset {
                            code: reason.code,
                            text,
                        },
                        turn,
                    );
                }
            }
        }
    }

    fn verdict(&mut self, client: PublicKey, hello: &[u8], handshake: &[u8; 32], turn: &mut Turn<'_, Self>) {
        let Some(welcome) = self.upper.authorize(client, hello, handshake) else {
            self.link.borrow_mut().refuse();
            // Behind a relay the connection goes on: nothing else would end this session.
            return self.fail(LinkLost::Ended, turn);
        };
        let welcomed = self.link.borrow_mut().welcome(&welcome);
        if let Err(error) = welcomed {
            tracing::warn!(%error, "a client could not be welcomed");
            self.fail(LinkLost::Failed(chain(&error)), turn);
        }
    }

    fn message(&mut self, incoming: &Incoming, read: Tick, turn: &mut Turn<'_, Self>) {
        if self.over {
            return;
        }
        let first = if incoming.records > 1 {
            Tick::from_instant(incoming.first_record_at)
        } else {
            read
        };
        let decoded = match codec::decode(&incoming.bytes) {
            Ok(decoded) => decoded,
            Err(error) if error.request_id().is_some() => return self.upper.unanswerable(&error, turn),
            Err(error) => {
                self.link.borrow_mut().close(&Reset::new(ResetCode::Protocol));
                return self.fail(LinkLost::Failed(error.to_string()), turn);
            }
        };
        if decoded.context_malformed {
            self.malformed_contexts += 1;
            tracing::debug!(
                count = self.malformed_contexts,
                "a malformed trace context was passed over"
            );
        }
        let context = decoded.context.unwrap_or_default();
        let arrival = Arrival {
            first,
            trailer: decoded.trailer,
            relay_us: incoming.relay_us,
        };
        if context.is_sampled() && self.relayed && is_call_message(&decoded.message) {
            self.relay_hop(&context, &arrival);
        }
        match decoded.message {
            Wire::Goodbye(reason) => {
                self.link.borrow_mut().close(&Reset::new(ResetCode::Closed));
                self.fail(LinkLost::Goodbye(reason), turn);
            }
            Wire::Ping(nonce) => self.send(context, *ToSend::plain(Wire::Pong(nonce)), turn),
            message => self.upper.message(arrival, Envelope::new(context, message), turn),
        }
    }

    /// The relay's word, drawn so that it ends where the record arrived.
    fn relay_hop(&self, context: &TraceContext, arrival: &Arrival) {
        let end = arrival.first;
        let start = end.earlier_by_micros(u64::from(arrival.relay_us));
        self.collector.stage(
            Stage::new(context, "relay hop", start, end)
                .number("relay.residence_us", arrival.relay_us)
                .text("relay.source", "unauthenticated"),
        );
    }

    fn send(&mut self, context: TraceContext, send: ToSend, turn: &mut Turn<'_, Self>) {
        let room = turn.take_room();
        let (lane, channel) = lane(&send.message);
        self.sequence += 1;
        let trailer = match (send.message.has_trailer(), send.arrived) {
            (true, arrived) => {
                let enqueued = turn.residence().enqueued;
                Some(TrailerStamps {
                    arrived: arrived.unwrap_or(enqueued).to_instant(),
                    enqueued: enqueued.to_instant(),
                })
            }
            (false, _) => None,
        };
        let on_written = self.on_written(&context, &send);
        let hold = send.hold;
        let envelope = Envelope::new(context, send.message);
        let bytes = match codec::encode(&envelope, self.sequence) {
            Ok(bytes) => bytes,
            Err(error) => {
                let code = match error {
                    EncodeError::TooLarge { .. } => ErrorCode::TooLarge,
                    EncodeError::BadString { .. } | EncodeError::Serialize(_) => ErrorCode::BadRequest,
                };
                return self.unsent(envelope, WireError::new(code, error.to_string()), turn);
            }
        };
        let token = Sent { room, on_written };
        let idle = !self.link.borrow().can_transmit();
        let outcome = self.link.borrow_mut().enqueue(Outgoing {
            lane,
            channel,
            bytes,
            trailer,
            token,
        });
        if let Err(refused) = outcome {
            self.unsent(
                envelope,
                WireError::new(ErrorCode::Busy, refused.problem.to_string()),
                turn,
            );
        }
        if hold && (idle || self.held.is_some()) {
            self.held
                .get_or_insert_with(|| turn.timer(HOLD, FramerControl::Flush));
        } else if turn.is_last() {
            self.flush();
        } else {
            self.wake();
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

    fn on_written(&self, context: &TraceContext, send: &ToSend) -> Option<Box<dyn FnOnce(Tick)>> {
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
        let on_closed = self.on_closed.as_ref().filter(|_| context.is_sampled())?;
        let (on_closed, context) = (Rc::clone(on_closed), context.clone());
        Some(Box::new(move |_| on_closed(context, process)))
    }

    fn fail(&mut self, why: LinkLost, turn: &mut Turn<'_, Self>) {
        if !self.over {
            self.over = true;
            self.deadline = None;
            let reset = Reset::new(ResetCode::Closed);
            if !self.link.borrow().is_over() {
                self.link.borrow_mut().close(&reset);
            }
            self.upper.lost(why, turn);
            self.uplink.retire(self.link.borrow().stream());
            turn.stop();
        }
    }

    /// As `wake`, in the last of several turns: what all of them queued leaves now.
    fn flush(&mut self) {
        self.held = None;
        let (can, stream) = {
            let link = self.link.borrow();
            (link.can_transmit(), link.stream())
        };
        if can {
            self.uplink.flush(stream);
        }
    }

    fn wake(&mut self) {
        self.held = None;
        let link = self.link.borrow();
        if link.can_transmit() {
            self.uplink.notify(link.stream());
        }
    }
}

/// Error and causes in one line.
pub(crate) fn chain(error: &LinkError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Messages that are part of a call's account; stream data and control are not.
fn is_call_message(message: &Wire) -> bool {
    match message {
        Wire::Request { request, .. } => !matches!(request, Request::Write(_)),
        Wire::Response { .. } => true,
        Wire::Event { event, .. } => !matches!(event, Event::Output(_)),
        Wire::Cancel(_)
        | Wire::Ack(_)
        | Wire::Credit { .. }
        | Wire::Ping(_)
        | Wire::Pong(_)
        | Wire::Goodbye(_)
        | Wire::TraceRecords { .. } => false,
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
        | Wire::Ack(_)
        | Wire::Credit { .. }
        | Wire::Ping(_)
        | Wire::Pong(_)
        | Wire::Goodbye(_) => (Lane::Control, 0),
    }
}

impl Actor for RelayFramer {
    const NAME: &'static str = "RelayFramer";
    type Message = FramerMessage;
    type Control = FramerControl;

    fn started(&mut self, turn: &mut Turn<'_, Self>) {
        self.deadline = Some(turn.timer(HANDSHAKE_TIMEOUT, FramerControl::Timeout));
        self.wake();
    }

    fn receive(&mut self, envelope: Envelope<FramerMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            FramerMessage::Inbound(frame, read) => self.inbound(frame, read, turn),
            FramerMessage::Send(send) => self.send(envelope.context, *send, turn),
            FramerMessage::Over(why) => {
                self.fail(why, turn);
                self.wake();
            }
        }
    }

    fn control(&mut self, control: FramerControl, turn: &mut Turn<'_, Self>) {
        match control {
            FramerControl::Lost(why) => self.fail(why, turn),
            FramerControl::Timeout => {
                let outcome = self.link.borrow_mut().handle_timeout(Instant::now());
                if let Err(error) = outcome {
                    self.fail(LinkLost::Failed(chain(&error)), turn);
                }
            }
            FramerControl::Flush => {}
            FramerControl::End(reason) => {
                if !self.over {
                    self.send(
                        TraceContext::default(),
                        *ToSend::plain(Wire::Goodbye(reason)),
                        turn,
                    );
                    let (link, uplink) = (Rc::clone(&self.link), Rc::clone(&self.uplink));
                    // The goodbye leaves with the next write; the reset behind it drops what was not cut.
                    turn.spawn(async move {
                        tokio::task::yield_now().await;
                        tokio::task::yield_now().await;
                        let stream = link.borrow().stream();
                        link.borrow_mut().close(&Reset::new(ResetCode::Closed));
                        uplink.notify(stream);
                    })
                    .detach();
                    self.over = true;
                    self.upper.lost(LinkLost::Ended, turn);
                    turn.stop();
                }
            }
            FramerControl::Upper(run) => run(self.upper.as_mut()),
        }
        self.wake();
    }

    fn drained(&mut self, turn: &mut Turn<'_, Self>) {
        self.fail(LinkLost::Ended, turn);
        self.wake();
    }
}

/// Sends through a framer, from a turn: waits for room in the pump, never in the turn.
pub(crate) fn send<A: Actor>(
    turn: &mut Turn<'_, A>,
    framer: &Mailbox<RelayFramer>,
    context: TraceContext,
    send: Box<ToSend>,
) {
    turn.tell(framer, context, FramerMessage::Send(send));
}

/// For a session's actors: one that panics ends the link, and so the session. Whoever waits for it is told.
pub(crate) fn ends_link(framer: &Mailbox<RelayFramer>) -> impl FnOnce(Failure) + Send + 'static {
    let framer = framer.clone();
    move |failure| {
        let lost = LinkLost::Failed(failure.to_string());
        drop(framer.control(FramerControl::Lost(lost)));
    }
}
