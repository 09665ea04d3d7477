//! Lanes: what waits to be sent, and how it is cut into records. Strict priority between lanes; inside the bulk lanes
//! the channels take turns, a record's worth each.

mod queue;

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use self::queue::LaneQueue;

/// Longest message: 1 MiB of content and room for its envelope.
pub const MESSAGE_MAX_BYTES: usize = 1024 * 1024 + 4 * 1024;
/// Most bytes one lane holds. The caller's permits are the real bound; this one catches their absence.
pub const LANE_QUEUE_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Most messages one lane holds.
pub const LANE_QUEUE_MAX_MESSAGES: usize = 64 * 1024;
/// Bytes of the stamps at the end of a message that asks for them.
pub const TRAILER_BYTES: usize = 8;

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

    /// Whether only so much of the lane may be under way as the link carries in its round trip and 20 ms.
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

    pub(crate) fn queued_bytes_total(&self) -> usize {
        self.lanes.iter().map(|lane| lane.queued_bytes).sum()
    }

    /// Whether something of this channel waits in this lane.
    pub(crate) fn holds(&self, lane: Lane, channel: u32) -> bool {
        self.lanes[lane as usize].holds(channel)
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
