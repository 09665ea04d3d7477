//! `RelayFramer`: a session's links, one after the other. It encodes, cuts, seals and sends; it receives, opens,
//! reassembles and decodes; and it keeps what the peer has not acknowledged for the next link.
//!
//! Owns the present link's core, which it shares on its own thread with the connection's writer, and the session's order,
//! which outlives every link. Never waits for the socket, and never for whoever asked: inbound and outbound traffic
//! have rooms of their own, an outbound message keeps its room until it has been written, one with a place in the
//! order until it has been acknowledged, and only inbound messages wait for the services above.
//! Full: senders wait. Without a link: what has a place in the order is kept, output is dropped here because its
//! sender has it still, the rest is restated. Stop: messages not yet cut are dropped with the session. Who sends: the
//! connection's reader, the `RpcQueue` and the `TerminalDelivery` of its session. Supervised by the session, which ends
//! with it.

mod attach;
mod line;
mod receive;
mod round_trips;
mod send;
mod stamps;
mod uplink;

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dwell_messages::codec::DecodeError;
use dwell_messages::{
    Envelope, Message as Wire, ProcessId, RequestId, Resume, Resumed, StreamId, TraceContext, WireError,
};
use dwell_relay::resume::{REPLAY_MAX_BYTES, Received, Replay};
use dwell_relay::{LinkError, LinkEstablished, OuterFrame, ResetCode};
use tokio::sync::mpsc;

use crate::harness::foreign::Outgoing;
use crate::mailbox::{Actor, BulkResidence, Failure, Mailbox, Message, Room, TimerGuard, Turn};
use crate::telemetry::{Collector, Tick};
use crate::terminal_delivery::receive::{Progress, TerminalDelivery as Delivery};
use crate::trace_collector::TraceCollector;

use line::Line;

pub(crate) use attach::{put_off, turn_away, unknown};
pub(crate) use line::{Attachment, Transport};
pub use round_trips::PING_FRESH;
pub(crate) use round_trips::RoundTrip;
pub(crate) use stamps::{Accounted, Arrival, SendStamps};
pub(crate) use uplink::{ConnectionError, LINKS_MAX, Sent, Uplink, UplinkId, read_loop};

/// Frames from the socket that may wait for the framer: 8 MiB of records at most.
pub const INBOUND_FRAMES_MAX: usize = 256;
/// Messages to send that may wait to be cut, or for their acknowledgement; stream data excepted, which has rooms of its own.
pub const OUTBOUND_MESSAGES_MAX: usize = 1_024;
/// Answers of an executor that may wait for their acknowledgement: past `OUTCOMES_MAX` it takes no new request.
pub const OUTCOME_ROOM_MAX: usize = OUTCOMES_MAX + 2 * crate::rpc_queue::ADMITTED_MAX;
/// Answers that an executor remembers for one session until they are acknowledged. None is evicted.
pub const OUTCOMES_MAX: usize = 4_096;
/// Chunks of one process's output that may wait to be cut.
pub const OUTPUT_CHUNKS_MAX: usize = 8;
/// How long a message that may wait for company waits for it.
pub const HOLD: Duration = Duration::from_millis(2);
/// What a session says first waits so long at the most for a request that was queued before its link was up. It takes some
/// turns to come, and on a busy machine some milliseconds.
pub(crate) const COMPANY_WAIT: Duration = Duration::from_millis(100);
/// How long the ends of a session's processes may take to be told before the goodbye is said without them.
pub const WIND_DOWN_MAX: Duration = Duration::from_secs(5);
/// How long an acknowledgement waits for something to travel with.
pub const ACK_DELAY: Duration = Duration::from_millis(25);
/// Messages after which an acknowledgement waits no longer, and processes.
pub const ACK_MESSAGES: u32 = 64;

/// The session above a framer. Called within the framer's turns.
pub(crate) trait Upper {
    /// Messages flow for the first time.
    fn begun(&mut self, peer: &LinkEstablished, turn: &mut Turn<'_, RelayFramer>);
    /// What to say first on a fresh link. Only a harness has something to say.
    fn resume(&mut self) -> Option<Resume> {
        None
    }
    /// The executor never heard of the session: it begins over, as the one that this welcome names.
    fn anew(&mut self, welcome: &[u8]) {
        let _ = welcome;
    }
    /// Messages flow again, over the link of this number. The executor is told how far its client is; and if it is another
    /// one than before, the highest request id of those before it.
    fn resumed(
        &mut self,
        attachment: u64,
        resume: Option<Resume>,
        taken: Option<RequestId>,
        turn: &mut Turn<'_, RelayFramer>,
    );
    /// What was granted behind the words that this link began with, and was not said since: it is said when the peer has
    /// answered them. Only a harness grants anything.
    fn granted_since(&mut self) -> Vec<Wire> {
        Vec::new()
    }
    /// Whether the client may take the session over from another one of its own. Only an executor is asked.
    ///
    /// # Errors
    /// What it lacks; it was written down.
    fn may_take_over(&self) -> Result<(), WireError> {
        Ok(())
    }
    /// This side has taken the session over: messages flow for the first time. Only a harness does that.
    fn taken_up(&mut self, resumed: Resumed, turn: &mut Turn<'_, RelayFramer>) {
        let _ = (resumed, turn);
    }
    /// A message.
    fn message(&mut self, arrival: Arrival, envelope: Envelope<Wire>, turn: &mut Turn<'_, RelayFramer>);
    /// A ping of the present link was answered; 0 where the other side does not say its time. Only who dialled asks.
    fn round_trip(&mut self, trip: RoundTrip, their_unix_ns: u64) {
        let _ = (trip, their_unix_ns);
    }
    /// A request that cannot be understood but can be answered.
    fn unanswerable(&mut self, context: TraceContext, error: &DecodeError, turn: &mut Turn<'_, RelayFramer>);
    /// The client wants nothing more of these processes.
    fn released(&mut self, processes: Vec<ProcessId>, turn: &mut Turn<'_, RelayFramer>) {
        drop((processes, turn));
    }
    /// Events of this process go there from now on. Only a harness has such routes.
    fn route(&mut self, process: ProcessId, to: Mailbox<Delivery>, progress: Arc<Progress>) {
        drop((process, to, progress));
    }
    /// The process is over.
    fn unroute(&mut self, process: ProcessId) {
        let _ = process;
    }
    /// A process cannot be followed any further: its run ends so.
    fn fail(&mut self, process: ProcessId, why: &str) {
        let _ = (process, why);
    }
    /// Messages flow over something that is no link.
    fn up(&mut self) {}
    /// The executor refused to start it, and its spans of that will come. Only a harness waits for them.
    fn owed(&mut self, process: ProcessId) {
        let _ = process;
    }
    /// Told when a sampled call's `Closed` has been written: its records follow.
    fn shipper(&self) -> Option<Mailbox<TraceCollector>> {
        None
    }
    /// Ends what the session runs; `WoundDown` is said when its client has heard of every end. False: nothing runs.
    fn wind_down(&mut self) -> bool {
        false
    }
    /// The link is gone. For how long the session waits for the next; `None`: it ends now.
    fn detached(&mut self, why: &LinkLost, turn: &mut Turn<'_, RelayFramer>) -> Option<Duration>;
    /// The session is over. Called once.
    fn lost(&mut self, why: LinkLost, turn: &mut Turn<'_, RelayFramer>);
}

/// Why a link, or its session, is over.
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
    /// Pings had no answer.
    #[error("the other end did not answer for {} s", dwell_relay::resume::DEAD_AFTER.as_secs())]
    Silent,
    /// What the peer says inside the seal breaks the protocol: the next link would bring it again.
    #[error("the other end breaks the protocol: {0}")]
    Protocol(String),
    /// An actor of the session failed.
    #[error("{0}")]
    Broken(String),
    /// The executor says that the session does not go on here.
    #[error("the session does not go on here: {error}")]
    TurnedAway {
        /// Why.
        error: WireError,
        /// The present owner's number, where the session is this client's; else 0.
        owner: u64,
    },
    /// The session does not go on: the executor was restarted, or nobody came back in time.
    #[error("{0}")]
    NotResumed(String),
    /// This side ended it.
    #[error("the session was ended here")]
    Ended,
}

impl LinkLost {
    /// Whether another link can carry the session on.
    pub(crate) fn may_resume(&self) -> bool {
        match self {
            Self::Failed(_) | Self::Reset { .. } | Self::Connection(_) | Self::Silent => true,
            Self::Refused(_)
            | Self::Goodbye(_)
            | Self::Protocol(_)
            | Self::Broken(_)
            | Self::TurnedAway { .. }
            | Self::NotResumed(_)
            | Self::Ended => false,
        }
    }

    /// Why, in a word or two of ours: nothing of what the other end says.
    pub(crate) fn in_short(&self) -> &'static str {
        match self {
            Self::Failed(_) => "link failed",
            Self::Refused(_) => "refused",
            Self::Reset { .. } => "reset",
            Self::Goodbye(_) => "goodbye",
            Self::Connection(_) => "connection lost",
            Self::Silent => "silent",
            Self::Protocol(_) => "protocol broken",
            Self::Broken(_) => "actor failed",
            Self::TurnedAway { .. } => "turned away",
            Self::NotResumed(_) => "not taken up again",
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
    /// The connection of a stream is gone. Behind the frames that came before: one of them may say why.
    Over(StreamId, LinkLost),
    /// A message that came over no link.
    Told(Box<Told>),
}

/// A message of an environment that has no links, in the words of one that has.
pub(crate) struct Told {
    pub(crate) context: TraceContext,
    pub(crate) message: Wire,
    pub(crate) arrival: Arrival,
}

/// A message to send.
pub(crate) struct ToSend {
    pub(crate) message: Wire,
    /// The account of what this answers: fills the trailer.
    pub(crate) accounted: Option<Accounted>,
    /// Filled on the message's way to the socket.
    pub(crate) stamps: Option<Arc<SendStamps>>,
    /// Set for stream data: its residence is summed there.
    pub(crate) bulk: Option<Arc<BulkResidence>>,
    /// May wait up to `HOLD` for the next message, to leave in one write with it: two wake-ups of every machine on the
    /// way become one.
    pub(crate) hold: bool,
    /// Set where an answer ends a call that never ran: its spans follow as they follow a terminal event.
    pub(crate) ends: Option<ProcessId>,
    /// Set for a process's events: the link they are for. Over another, output would come twice, or too early; ends come
    /// again by themselves, but not from one owner of the session to the next.
    pub(crate) attachment: Option<u64>,
    /// An answer that says no more than that there is no room: it is not kept for the next link.
    pub(crate) unkept: bool,
}

impl ToSend {
    /// A message without an account of its own.
    pub(crate) fn plain(message: Wire) -> Box<Self> {
        Box::new(Self {
            message,
            accounted: None,
            stamps: None,
            bulk: None,
            hold: false,
            ends: None,
            attachment: None,
            unkept: false,
        })
    }
}

/// Something done to the session above, on its thread.
pub(crate) type ForUpper = Box<dyn FnOnce(&mut dyn Upper) + Send>;

/// What a framer is told urgently.
pub(crate) enum FramerControl {
    /// The session is over, or the link of this stream is.
    Lost(Option<StreamId>, LinkLost),
    /// What was held has waited long enough.
    Flush,
    /// An acknowledgement has waited long enough.
    Ack,
    /// The link's pulse is due.
    Beat(StreamId),
    /// A link for this session. The executor is told with it what its client said first.
    Attach(Box<Attachment>, Option<Box<Resume>>),
    /// Nobody came back while this many links had been.
    Expired(u64),
    /// A process of which nothing more is wanted.
    Unroute(ProcessId),
    /// Say goodbye and end.
    End(String),
    /// End here, and leave the session for whoever takes it up.
    Leave,
    /// End what the session runs, tell its ends, then say goodbye.
    WindDown(String),
    /// All of that has been told, or took too long.
    WoundDown,
    /// Something for the session above, on this thread.
    Upper(ForUpper),
}

impl Message for FramerMessage {
    const NAMES: &'static [&'static str] = &["Inbound", "Send", "Over", "Told"];

    fn index(&self) -> usize {
        match self {
            Self::Inbound(..) => 0,
            Self::Send(_) => 1,
            Self::Over(..) => 2,
            Self::Told(_) => 3,
        }
    }

    fn bulk(&self) -> Option<&BulkResidence> {
        match self {
            Self::Inbound(..) | Self::Over(..) | Self::Told(_) => None,
            Self::Send(send) => send.bulk.as_deref(),
        }
    }
}

/// How much of a session's order waits for its acknowledgement, for whoever admits more of it.
#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    pub(crate) messages: Cell<usize>,
    pub(crate) bytes: Cell<usize>,
}

impl Unacknowledged {
    /// Whether one more outcome could not be remembered until its client has it. None is evicted to make room.
    pub(crate) fn is_full(&self) -> bool {
        self.messages.get() >= OUTCOMES_MAX || self.bytes.get() >= REPLAY_MAX_BYTES
    }
}

/// What goes with a message of the order until it is acknowledged.
struct KeptToken {
    /// Its room in the framer's mailbox.
    _room: Option<Room>,
    stamps: Option<Arc<SendStamps>>,
}

/// A request that waits for room in the order.
struct Waiting {
    context: TraceContext,
    send: ToSend,
    room: Option<Room>,
    taken: Tick,
}

/// See the module.
pub(crate) struct RelayFramer {
    upper: Box<dyn Upper>,
    collector: Collector,
    /// The link to begin with.
    first: Option<Box<Attachment>>,
    line: Option<Line>,
    /// What carries messages in place of links.
    foreign: Option<mpsc::Sender<Outgoing>>,
    /// Links so far.
    attachments: u64,
    /// Who has the session: 1 is who began it.
    owner: u64,
    /// This owner's links so far.
    links: u64,
    /// The link with which the present owner took the session over; 0: it began it.
    taken_at: u64,
    /// This side takes the session over with its first link.
    taking: bool,
    /// The highest request id that came, and the highest process id that was to be started.
    highest: (u64, u64),
    replay: Replay<KeptToken>,
    unacknowledged: Rc<Unacknowledged>,
    received: Received,
    /// Requests that wait until the order has room for them.
    waiting: VecDeque<Waiting>,
    /// Processes that the peer may forget, not yet told.
    released: Vec<ProcessId>,
    ack: Option<TimerGuard>,
    /// Set while the link holds a message back that nothing else has followed.
    held: Option<TimerGuard>,
    /// What is said first waits up to `COMPANY_WAIT` for a request that is on its way here.
    accompanied: bool,
    malformed_contexts: u64,
    /// Why the session is about to end.
    winding_down: Option<String>,
    over: bool,
}

impl RelayFramer {
    pub(crate) fn new(first: Option<Box<Attachment>>, upper: Box<dyn Upper>, collector: Collector) -> Self {
        Self {
            upper,
            collector,
            first,
            line: None,
            foreign: None,
            attachments: 0,
            owner: 1,
            links: 1,
            taken_at: 0,
            taking: false,
            highest: (0, 0),
            replay: Replay::default(),
            unacknowledged: Rc::default(),
            received: Received::default(),
            waiting: VecDeque::new(),
            released: Vec::new(),
            ack: None,
            held: None,
            accompanied: false,
            malformed_contexts: 0,
            winding_down: None,
            over: false,
        }
    }

    /// Messages go there, and over no link.
    pub(crate) fn foreign(
        upper: Box<dyn Upper>,
        collector: Collector,
        foreign: mpsc::Sender<Outgoing>,
    ) -> Self {
        let mut framer = Self::new(None, upper, collector);
        framer.foreign = Some(foreign);
        framer
    }

    /// Takes the session over, as the owner of this number, instead of beginning one.
    pub(crate) fn taking(mut self, owner: u64) -> Self {
        (self.owner, self.links, self.taking) = (owner, 0, true);
        self
    }

    /// A request is on its way here: what is said first leaves in one record with it.
    pub(crate) fn accompanied(mut self) -> Self {
        self.accompanied = true;
        self
    }

    /// Takes repetitions for new, which is wrong.
    pub(crate) fn credulous(mut self) -> Self {
        self.received = Received::credulous();
        self
    }

    /// Counts what waits for its acknowledgement there.
    pub(crate) fn counting(mut self, unacknowledged: Rc<Unacknowledged>) -> Self {
        self.unacknowledged = unacknowledged;
        self
    }

    fn over(&mut self, why: LinkLost, turn: &mut Turn<'_, Self>) {
        if !self.over {
            self.over = true;
            if let LinkLost::Broken(_) | LinkLost::Protocol(_) = &why {
                self.farewell(why.to_string(), turn);
            }
            self.line = None;
            self.foreign = None;
            self.upper.lost(why, turn);
            turn.stop();
        }
    }

    fn is_line(&self, stream: StreamId) -> bool {
        self.line.as_ref().is_some_and(|line| line.stream == stream)
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

impl Actor for RelayFramer {
    const NAME: &'static str = "RelayFramer";
    type Message = FramerMessage;
    type Control = FramerControl;

    fn started(&mut self, turn: &mut Turn<'_, Self>) {
        if let Some(first) = self.first.take() {
            self.begin(*first, turn);
        }
    }

    fn receive(&mut self, envelope: Envelope<FramerMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            FramerMessage::Inbound(frame, read) => self.inbound(frame, read, turn),
            FramerMessage::Send(send) => self.send(envelope.context, *send, turn),
            FramerMessage::Over(stream, why) => {
                if self.is_line(stream) {
                    self.link_lost(why, turn);
                }
            }
            FramerMessage::Told(told) => {
                let Told {
                    context,
                    message,
                    arrival,
                } = *told;
                if !self.over {
                    self.upper.message(arrival, Envelope::new(context, message), turn);
                }
            }
        }
    }

    fn control(&mut self, control: FramerControl, turn: &mut Turn<'_, Self>) {
        match control {
            FramerControl::Lost(None, why) => self.over(why, turn),
            FramerControl::Lost(Some(stream), why) => {
                if self.is_line(stream) {
                    self.link_lost(why, turn);
                }
            }
            FramerControl::Flush => {}
            FramerControl::Ack => {
                self.ack = None;
                self.acknowledge();
            }
            FramerControl::Beat(stream) => {
                if self.is_line(stream) {
                    self.beat(turn);
                }
            }
            FramerControl::Attach(attachment, resume) => self.attach(*attachment, resume, turn),
            FramerControl::Expired(attachments) => {
                if self.line.is_none() && self.attachments == attachments {
                    let why = "nobody took the session up again in time";
                    self.over(LinkLost::NotResumed(why.into()), turn);
                }
            }
            FramerControl::Unroute(process) => self.unroute(process, turn),
            FramerControl::End(reason) => self.end(reason, turn),
            FramerControl::Leave => self.leave(turn),
            FramerControl::WindDown(reason) => self.wind_down(reason, turn),
            FramerControl::WoundDown => {
                if let Some(reason) = self.winding_down.take() {
                    self.end(reason, turn);
                }
            }
            FramerControl::Upper(run) => run(self.upper.as_mut()),
        }
        self.wake();
    }

    fn drained(&mut self, turn: &mut Turn<'_, Self>) {
        self.over(LinkLost::Ended, turn);
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

/// For a session's actors: one that panics ends the session. Whoever waits for it is told.
pub(crate) fn ends_link(framer: &Mailbox<RelayFramer>) -> impl FnOnce(Failure) + Send + 'static {
    let framer = framer.clone();
    move |failure| {
        let lost = LinkLost::Broken(failure.to_string());
        drop(framer.control(FramerControl::Lost(None, lost)));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dwell_relay::Lane;
    use dwell_relay::resume::Kept;

    use super::*;

    /// Every outcome is there until it is acknowledged; past the bound there is none for which there would be no room.
    #[test]
    fn no_outcome_is_evicted_and_past_their_bound_nothing_new_is_taken() {
        let (mut replay, count) = (Replay::<()>::default(), Unacknowledged::default());
        for outcome in 0..OUTCOMES_MAX {
            assert!(!count.is_full(), "{outcome}");
            replay.keep(Kept {
                sequence: replay.next_sequence(),
                lane: Lane::Interactive,
                channel: 0,
                bytes: Bytes::from_static(b"outcome"),
                trailer: None,
                token: (),
            });
            count.messages.set(replay.messages());
            count.bytes.set(replay.bytes());
        }
        assert!(count.is_full());
        assert_eq!((replay.messages(), replay.first_kept()), (OUTCOMES_MAX, 1));
        assert!(replay.acknowledge(1, drop).is_ok());
        count.messages.set(replay.messages());
        assert!(!count.is_full(), "one acknowledgement makes room for one");
        count.bytes.set(REPLAY_MAX_BYTES);
        assert!(count.is_full(), "and bytes count as well");
    }
}
