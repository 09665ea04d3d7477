//! One lane's queue, and the cutting of what waits in it.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use crate::chunk::{CHUNK_HEADER_BYTES, ChunkHeader};

use super::{
    CutMessage, EnqueueProblem, LANE_QUEUE_MAX_BYTES, LANE_QUEUE_MAX_MESSAGES, Lane, MESSAGE_MAX_BYTES,
    Outgoing, TRAILER_BYTES, TrailerStamps,
};

/// A message is not begun in a record that has less room than this, unless it fits.
const FRAGMENT_MIN_BYTES: usize = 256;
/// Emptied channel queues kept for the next channel.
const SPARE_QUEUES_MAX: usize = 32;

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

pub(super) struct LaneQueue<T> {
    pub(super) lane: Lane,
    queue: Queue<T>,
    pub(super) queued_bytes: usize,
    pub(super) queued_messages: usize,
}

impl<T> LaneQueue<T> {
    pub(super) fn new(lane: Lane) -> Self {
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

    pub(super) fn holds(&self, channel: u32) -> bool {
        match &self.queue {
            Queue::InOrder(queue) => queue.iter().any(|pending| pending.channel == channel),
            Queue::Turns { channels, .. } => channels.contains_key(&channel),
        }
    }

    pub(super) fn judge(&self, message: &Outgoing<T>) -> Result<(), EnqueueProblem> {
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

    pub(super) fn push(&mut self, message: Outgoing<T>) {
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
            Queue::InOrder(queue) => {
                if queue.capacity() == 0 {
                    // An idle link says one thing at a time: room for more comes with the second.
                    queue.reserve_exact(1);
                }
                queue.push_back(pending);
            }
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
    pub(super) fn cut(
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
