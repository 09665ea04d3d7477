//! Lanes: what waits to be sent, and how it is cut into records. Strict priority between lanes; inside the bulk lanes
//! the channels take turns, a record's worth each.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use crate::chunk::{CHUNK_HEADER_BYTES, ChunkHeader};

/// Longest message: 1 MiB of content and room for its envelope.
pub const MESSAGE_MAX_BYTES: usize = 1024 * 1024 + 4 * 1024;
/// Most bytes one lane holds. The caller's permits are the real bound; this one catches their absence.
pub const LANE_QUEUE_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Most messages one lane holds.
pub const LANE_QUEUE_MAX_MESSAGES: usize = 64 * 1024;
/// Bytes of the stamps at the end of a message that asks for them.
pub const TRAILER_BYTES: usize = 8;

/// A message is not begun in a record that has less room than this, unless it fits.
const FRAGMENT_MIN_BYTES: usize = 256;
/// Emptied channel queues kept for the next channel.
const SPARE_QUEUES_MAX: usize = 32;
/// How many lanes there are.
const LANES: usize = 6;

/// What a message is for; lower numbers go first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Lane {
    /// Requests, responses, terminal events, acknowledgements, credit.
    Control = 0,
    /// Standard input and signals.
    Stdin = 1,
    /// Output someone watches: terminals.
    Interactive = 2,
    /// Output in quantity.
    Bulk = 3,
    /// Files.
    Files = 4,
    /// Span records.
    Trace = 5,
}

impl Lane {
    /// Every lane, by priority.
    pub const ALL: [Self; LANES] = [
        Self::Control,
        Self::Stdin,
        Self::Interactive,
        Self::Bulk,
        Self::Files,
        Self::Trace,
    ];

    /// This lane's number.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// The lane with this number, if there is one.
    pub const fn from_wire(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Control),
            1 => Some(Self::Stdin),
            2 => Some(Self::Interactive),
            3 => Some(Self::Bulk),
            4 => Some(Self::Files),
            5 => Some(Self::Trace),
            _ => None,
        }
    }

    /// Whether the lane waits for bulk allowance (see `Link::set_bulk_allowance`).
    pub const fn is_bulk(self) -> bool {
        match self {
            Self::Control | Self::Stdin | Self::Interactive => false,
            Self::Bulk | Self::Files | Self::Trace => true,
        }
    }

    const fn takes_turns(self) -> bool {
        match self {
            Self::Bulk | Self::Files => true,
            Self::Control | Self::Stdin | Self::Interactive | Self::Trace => false,
        }
    }
}

/// What the last 8 bytes of a message become when it is cut: durations, so that no two clocks are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrailerStamps {
    /// When the request that this answers arrived: microseconds since then are the first u32.
    pub arrived: Instant,
    /// When this message was enqueued: microseconds since then are the second u32.
    pub enqueued: Instant,
}

impl TrailerStamps {
    fn encode(&self, now: Instant) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        bytes[..4].copy_from_slice(&micros(now, self.arrived).to_be_bytes());
        bytes[4..].copy_from_slice(&micros(now, self.enqueued).to_be_bytes());
        bytes
    }
}

/// Whole microseconds from `then` to `now`, saturating at both ends.
pub(crate) fn micros(now: Instant, then: Instant) -> u32 {
    u32::try_from(now.saturating_duration_since(then).as_micros()).unwrap_or(u32::MAX)
}

/// One message to send.
#[derive(Clone, Debug)]
pub struct Outgoing<T> {
    /// Its lane.
    pub lane: Lane,
    /// Its channel; order holds within a channel of a lane.
    pub channel: u32,
    /// Its bytes, at least one and at most [`MESSAGE_MAX_BYTES`].
    pub bytes: Bytes,
    /// If set, the last [`TRAILER_BYTES`] of `bytes` are overwritten when the message's last chunk is cut.
    pub trailer: Option<TrailerStamps>,
    /// Given back when the last byte was cut; a permit, for instance.
    pub token: T,
}

/// A message was cut to its end: its bytes are in sealed records.
#[derive(Debug)]
pub struct CutMessage<T> {
    /// Its lane.
    pub lane: Lane,
    /// Its channel.
    pub channel: u32,
    /// What came with it.
    pub token: T,
    /// When its first byte was cut.
    pub first_cut_at: Instant,
    /// Over how many records it was spread.
    pub records: u32,
    /// Its share of the records' plaintext: its bytes and chunk headers.
    pub sealed_bytes: u64,
}

/// Why a message was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnqueueProblem {
    /// The link is over.
    #[error("the link is over: dial again")]
    LinkOver,
    /// A message of no bytes.
    #[error("a message needs at least one byte")]
    Empty,
    /// A message with stamps needs room for them.
    #[error("a message with a trailer needs at least {TRAILER_BYTES} bytes and this one has {actual}")]
    NoRoomForTrailer {
        /// Its bytes.
        actual: usize,
    },
    /// The message is too long.
    #[error("a message of {actual} bytes, and {MESSAGE_MAX_BYTES} are allowed: send it in parts")]
    TooLong {
        /// Its bytes.
        actual: usize,
    },
    /// The lane is full.
    #[error(
        "lane {lane:?} holds {queued_bytes} bytes, and {LANE_QUEUE_MAX_BYTES} bytes or {LANE_QUEUE_MAX_MESSAGES} \
         messages are allowed: wait until some were sent"
    )]
    LaneFull {
        /// Which.
        lane: Lane,
        /// What it holds.
        queued_bytes: usize,
    },
}

/// A message was not taken; here it is again.
#[derive(Debug, thiserror::Error)]
#[error("the message was not queued")]
pub struct EnqueueError<T> {
    /// Why.
    #[source]
    pub problem: EnqueueProblem,
    /// The message, as it was given.
    pub message: Box<Outgoing<T>>,
}

struct Pending<T> {
    channel: u32,
    bytes: Bytes,
    offset: usize,
    trailer: Option<TrailerStamps>,
    token: T,
    first_cut_at: Option<Instant>,
    records: u32,
    sealed_bytes: u64,
}

/// What waits in one lane.
enum Queue<T> {
    /// One after the other.
    InOrder(VecDeque<Pending<T>>),
    /// The channels take turns.
    Turns {
        channels: HashMap<u32, VecDeque<Pending<T>>>,
        order: VecDeque<u32>,
        spare: Vec<VecDeque<Pending<T>>>,
    },
}

struct LaneQueue<T> {
    lane: Lane,
    queue: Queue<T>,
    queued_bytes: usize,
    queued_messages: usize,
}

/// All lanes of one link.
pub(crate) struct Lanes<T> {
    lanes: [LaneQueue<T>; LANES],
}

/// How much may be cut into the next record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutLimits {
    /// Plaintext in the record.
    pub(crate) record_bytes: usize,
    /// Of it, plaintext from the bulk lanes.
    pub(crate) bulk_bytes: usize,
}

impl<T> Lanes<T> {
    pub(crate) fn new() -> Self {
        Self {
            lanes: Lane::ALL.map(LaneQueue::new),
        }
    }

    pub(crate) fn enqueue(&mut self, message: Outgoing<T>) -> Result<(), EnqueueError<T>> {
        let lane = &mut self.lanes[message.lane as usize];
        match lane.judge(&message) {
            Ok(()) => {
                lane.push(message);
                Ok(())
            }
            Err(problem) => Err(EnqueueError {
                problem,
                message: Box::new(message),
            }),
        }
    }

    pub(crate) fn queued_bytes(&self, lane: Lane) -> usize {
        self.lanes[lane as usize].queued_bytes
    }

    pub(crate) fn has_urgent(&self) -> bool {
        self.lanes
            .iter()
            .any(|lane| !lane.lane.is_bulk() && lane.queued_messages > 0)
    }

    pub(crate) fn has_bulk(&self) -> bool {
        self.lanes
            .iter()
            .any(|lane| lane.lane.is_bulk() && lane.queued_messages > 0)
    }

    /// Appends chunks, at most `limits`, highest lane first; returns how many plaintext bytes came from bulk lanes.
    pub(crate) fn cut(
        &mut self,
        now: Instant,
        limits: CutLimits,
        out: &mut BytesMut,
        finished: &mut Vec<CutMessage<T>>,
    ) -> usize {
        let start = out.len();
        let mut bulk = 0;
        for lane in &mut self.lanes {
            let room = limits.record_bytes - (out.len() - start);
            let room = if lane.lane.is_bulk() {
                room.min(limits.bulk_bytes - bulk)
            } else {
                room
            };
            let before = out.len();
            let fits = lane.cut(now, room, out, finished);
            if lane.lane.is_bulk() {
                bulk += out.len() - before;
            }
            // What is left of a higher lane goes before anything of a lower one.
            if !fits {
                break;
            }
        }
        bulk
    }
}

impl<T> LaneQueue<T> {
    fn new(lane: Lane) -> Self {
        let queue = if lane.takes_turns() {
            Queue::Turns {
                channels: HashMap::new(),
                order: VecDeque::new(),
                spare: Vec::new(),
            }
        } else {
            Queue::InOrder(VecDeque::new())
        };
        Self {
            lane,
            queue,
            queued_bytes: 0,
            queued_messages: 0,
        }
    }

    fn judge(&self, message: &Outgoing<T>) -> Result<(), EnqueueProblem> {
        let actual = message.bytes.len();
        if actual == 0 {
            return Err(EnqueueProblem::Empty);
        }
        if message.trailer.is_some() && actual < TRAILER_BYTES {
            return Err(EnqueueProblem::NoRoomForTrailer { actual });
        }
        if actual > MESSAGE_MAX_BYTES {
            return Err(EnqueueProblem::TooLong { actual });
        }
        if self.queued_bytes + actual > LANE_QUEUE_MAX_BYTES
            || self.queued_messages >= LANE_QUEUE_MAX_MESSAGES
        {
            return Err(EnqueueProblem::LaneFull {
                lane: self.lane,
                queued_bytes: self.queued_bytes,
            });
        }
        Ok(())
    }

    fn push(&mut self, message: Outgoing<T>) {
        self.queued_bytes += message.bytes.len();
        self.queued_messages += 1;
        let channel = message.channel;
        let pending = Pending {
            channel,
            bytes: message.bytes,
            offset: 0,
            trailer: message.trailer,
            token: message.token,
            first_cut_at: None,
            records: 0,
            sealed_bytes: 0,
        };
        match &mut self.queue {
            Queue::InOrder(queue) => queue.push_back(pending),
            Queue::Turns {
                channels,
                order,
                spare,
            } => channels
                .entry(channel)
                .or_insert_with(|| {
                    order.push_back(channel);
                    spare.pop().unwrap_or_default()
                })
                .push_back(pending),
        }
    }

    /// Cuts until the room is used or nothing waits; false when something waits that did not fit.
    fn cut(
        &mut self,
        now: Instant,
        room: usize,
        out: &mut BytesMut,
        finished: &mut Vec<CutMessage<T>>,
    ) -> bool {
        let end = out.len() + room;
        while self.queued_messages > 0 {
            let lane = self.lane;
            let before = out.len();
            let taken = match &mut self.queue {
                Queue::InOrder(queue) => cut_queue(lane, queue, now, end, out, finished),
                Queue::Turns {
                    channels,
                    order,
                    spare,
                } => cut_turn(lane, channels, order, spare, now, end, out, finished),
            };
            self.queued_bytes -= taken.bytes;
            self.queued_messages -= taken.messages;
            if taken.blocked || out.len() == before {
                return false;
            }
        }
        true
    }
}

/// What one cut took from a queue.
struct Taken {
    bytes: usize,
    messages: usize,
    blocked: bool,
}

#[expect(clippy::too_many_arguments, reason = "the parts of one queue, borrowed apart")]
fn cut_turn<T>(
    lane: Lane,
    channels: &mut HashMap<u32, VecDeque<Pending<T>>>,
    order: &mut VecDeque<u32>,
    spare: &mut Vec<VecDeque<Pending<T>>>,
    now: Instant,
    end: usize,
    out: &mut BytesMut,
    finished: &mut Vec<CutMessage<T>>,
) -> Taken {
    let channel = *order
        .front()
        .expect("a lane with messages has a channel whose turn it is");
    let queue = channels
        .get_mut(&channel)
        .expect("every channel in the order has a queue");
    let taken = cut_queue(lane, queue, now, end, out, finished);
    if queue.is_empty() {
        order.pop_front();
        let emptied = channels.remove(&channel).expect("it was there a line ago");
        if spare.len() < SPARE_QUEUES_MAX {
            spare.push(emptied);
        }
    } else if taken.bytes > 0 {
        // It had its record's worth.
        order.rotate_left(1);
    }
    taken
}

fn cut_queue<T>(
    lane: Lane,
    queue: &mut VecDeque<Pending<T>>,
    now: Instant,
    end: usize,
    out: &mut BytesMut,
    finished: &mut Vec<CutMessage<T>>,
) -> Taken {
    let mut taken = Taken {
        bytes: 0,
        messages: 0,
        blocked: false,
    };
    while let Some(front) = queue.front_mut() {
        let Some(length) = front.next_cut(end.saturating_sub(out.len())) else {
            taken.blocked = true;
            break;
        };
        taken.bytes += length;
        if !front.cut(lane, now, length, out) {
            taken.blocked = true;
            break;
        }
        let done = queue.pop_front().expect("its front was just cut");
        taken.messages += 1;
        finished.push(done.finished(lane, now));
    }
    taken
}

impl<T> Pending<T> {
    /// How many bytes of it go into this much room; `None` when it is better to wait for the next record.
    fn next_cut(&self, room: usize) -> Option<usize> {
        let remaining = self.bytes.len() - self.offset;
        let room = room.checked_sub(CHUNK_HEADER_BYTES)?.min(usize::from(u16::MAX));
        if remaining <= room {
            return Some(remaining);
        }
        if room < FRAGMENT_MIN_BYTES {
            return None;
        }
        // The stamps are written with the last chunk, so they must lie in it whole.
        let kept = if self.trailer.is_some() { TRAILER_BYTES } else { 0 };
        Some(room.min(remaining - kept))
    }

    /// Appends one chunk; true when it was the last.
    fn cut(&mut self, lane: Lane, now: Instant, length: usize, out: &mut BytesMut) -> bool {
        let end = self.offset + length;
        let last = end == self.bytes.len();
        let header = ChunkHeader {
            lane,
            channel: self.channel,
            first: self.offset == 0,
            last,
            length: u16::try_from(length).expect("a cut is at most a record"),
        };
        header.encode(out);
        match (&self.trailer, last) {
            (Some(stamps), true) => {
                out.put_slice(&self.bytes[self.offset..end - TRAILER_BYTES]);
                out.put_slice(&stamps.encode(now));
            }
            (Some(_), false) | (None, _) => out.put_slice(&self.bytes[self.offset..end]),
        }
        self.offset = end;
        self.first_cut_at.get_or_insert(now);
        self.records += 1;
        self.sealed_bytes += (CHUNK_HEADER_BYTES + length) as u64;
        last
    }

    fn finished(self, lane: Lane, now: Instant) -> CutMessage<T> {
        CutMessage {
            lane,
            channel: self.channel,
            token: self.token,
            first_cut_at: self.first_cut_at.unwrap_or(now),
            records: self.records,
            sealed_bytes: self.sealed_bytes,
        }
    }
}
