//! One call's causal chain of stamps on one machine.
//!
//! A segment is the difference of two neighbouring stamps taken on this machine: segments cannot overlap, cannot be
//! negative, and add up to the chain's length. Work beside the chain (readers, metadata) is drawn, never summed.

use dwell_messages::Timings;

use crate::telemetry::{Tick, nanos};

/// What a stretch of the chain was spent on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[repr(usize)]
pub enum Segment {
    /// From the arrival of a message's first record until it is handed on, decoded.
    Receive,
    /// Waiting in mailboxes and queues of this machine.
    Mailbox,
    /// Deciding whether a request is served: window, duplicates, deadlines.
    Admission,
    /// Choosing who serves it.
    Dispatch,
    /// Encoding a message.
    Serialize,
    /// Waiting for the thread that spawns.
    SpawnQueue,
    /// Starting the child.
    Spawn,
    /// The child itself: from its start until its end is seen.
    Run,
    /// From the child's end until its last pipe is at its end.
    Drain,
    /// Ordering and handing on the terminal event.
    Delivery,
    /// From the hand-over to the framer until the bytes have been written.
    Send,
    /// Another machine, and the way there and back.
    Remote,
    /// Between this library's threads and the caller's.
    HandOff,
}

/// How many kinds of segment there are.
pub const SEGMENTS: usize = 13;

impl Segment {
    /// All of them, in chain order.
    pub const ALL: [Self; SEGMENTS] = [
        Self::Receive,
        Self::Mailbox,
        Self::Admission,
        Self::Dispatch,
        Self::Serialize,
        Self::SpawnQueue,
        Self::Spawn,
        Self::Run,
        Self::Drain,
        Self::Delivery,
        Self::Send,
        Self::Remote,
        Self::HandOff,
    ];

    /// The segment's name, as attributes and tables show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Mailbox => "mailbox",
            Self::Admission => "admission",
            Self::Dispatch => "dispatch",
            Self::Serialize => "serialize",
            Self::SpawnQueue => "spawn_queue",
            Self::Spawn => "spawn",
            Self::Run => "run",
            Self::Drain => "drain",
            Self::Delivery => "delivery",
            Self::Send => "send",
            Self::Remote => "remote",
            Self::HandOff => "hand_off",
        }
    }
}

/// The chain so far: where it began, where it stands, and what each segment took.
#[derive(Clone, Debug)]
pub struct Account {
    first: Tick,
    last: Tick,
    ticks: [u64; SEGMENTS],
}

impl Account {
    /// A chain that begins at `first`.
    pub fn begin(first: Tick) -> Self {
        Self {
            first,
            last: first,
            ticks: [0; SEGMENTS],
        }
    }

    /// Gives the stretch from the last stamp to `now` to `segment`. A stamp before the last one takes nothing and
    /// moves nothing: counters of two cores may differ by a few ticks.
    pub fn lap(&mut self, segment: Segment, now: Tick) {
        self.ticks[segment as usize] += now.ticks_since(self.last);
        self.last = self.last.max(now);
    }

    /// One segment, in microseconds.
    pub fn micros(&self, segment: Segment) -> u64 {
        nanos(self.ticks[segment as usize]) / 1_000
    }

    /// One segment, in nanoseconds.
    pub fn nanos(&self, segment: Segment) -> u64 {
        nanos(self.ticks[segment as usize])
    }

    /// From the first stamp to the last, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.last.nanos_since(self.first)
    }

    /// The executor's account of a call as it travels in a response.
    pub fn timings(&self) -> Timings {
        Timings {
            receive: self.micros(Segment::Receive),
            mailbox: self.micros(Segment::Mailbox),
            admission: self.micros(Segment::Admission),
            dispatch: self.micros(Segment::Dispatch),
            spawn_queue: self.micros(Segment::SpawnQueue),
            spawn: self.micros(Segment::Spawn),
            first_byte: 0,
            run: self.micros(Segment::Run),
            drain: self.micros(Segment::Drain),
            delivery: self.micros(Segment::Delivery),
            total: self.total_ns() / 1_000,
        }
    }

    /// The last stamp.
    pub fn last(&self) -> Tick {
        self.last
    }

    /// The first stamp.
    pub fn first(&self) -> Tick {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_add_up_to_the_chain_whatever_the_order_of_stamps() {
        let mut account = Account::begin(Tick::from_raw(1_000));
        let stamps = [1_500, 1_400, 9_000, 9_000, 20_000];
        for (index, raw) in stamps.into_iter().enumerate() {
            account.lap(Segment::ALL[index % SEGMENTS], Tick::from_raw(raw));
        }
        assert_eq!(account.ticks.iter().sum::<u64>(), 19_000);
        assert_eq!(account.last(), Tick::from_raw(20_000));
    }

    #[test]
    fn the_index_of_every_segment_is_its_place() {
        assert!(
            Segment::ALL
                .iter()
                .enumerate()
                .all(|(index, segment)| *segment as usize == index)
        );
    }
}
