//! One direction of one stream at the relay: its window, its queue, its end.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;

use crate::lanes::micros;
use crate::link::SEND_WINDOW_INITIAL_BYTES;
use crate::outer::RawFrame;

/// The widest a window grows.
pub const WINDOW_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What passed in one direction of one stream.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FlowTotals {
    /// Frames passed on.
    pub frames: u64,
    /// Their bytes, with headers.
    pub bytes: u64,
    /// The sum of their residences in microseconds.
    pub residence_us_total: u64,
    /// The longest of them.
    pub residence_us_max: u32,
}

/// More was sent than allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Overrun;

enum Phase {
    /// Frames come in.
    Open,
    /// Nothing more comes in; behind what is queued goes this frame.
    Ending(BytesMut),
    /// Nothing more goes out.
    Done,
}

pub(super) struct Flow {
    phase: Phase,
    queue: VecDeque<(Instant, RawFrame)>,
    window_bytes: u64,
    /// All that was here has left since the last grant: the window was what held the sender up.
    drained: bool,
    limit: u64,
    received: u64,
    left: u64,
    handshakes: u32,
    /// Already in its target's list of flows that have something to write.
    pub(super) listed: bool,
    /// Already in its sender's list of windows to announce.
    pub(super) window_listed: bool,
    pub(super) totals: FlowTotals,
}

impl Flow {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Open,
            queue: VecDeque::new(),
            window_bytes: SEND_WINDOW_INITIAL_BYTES,
            drained: false,
            limit: SEND_WINDOW_INITIAL_BYTES,
            received: 0,
            left: 0,
            handshakes: 0,
            listed: false,
            window_listed: false,
            totals: FlowTotals::default(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// How much this flow's window has grown, in bytes.
    pub(super) fn grown_bytes(&self) -> u64 {
        self.window_bytes - SEND_WINDOW_INITIAL_BYTES
    }

    /// Takes a DATA frame.
    pub(super) fn accept_data(&mut self, arrived: Instant, frame: RawFrame) -> Result<(), Overrun> {
        self.received += frame.wire_bytes() as u64;
        if self.received > self.limit {
            return Err(Overrun);
        }
        self.queue.push_back((arrived, frame));
        Ok(())
    }

    /// Takes a handshake message; false when this direction already had its one.
    pub(super) fn accept_handshake(&mut self, arrived: Instant, frame: RawFrame) -> bool {
        if self.handshakes > 0 {
            return false;
        }
        self.handshakes += 1;
        self.queue.push_back((arrived, frame));
        true
    }

    /// Lets what is queued go out, then `last`.
    pub(super) fn end_with(&mut self, last: BytesMut) {
        if self.is_open() {
            self.phase = Phase::Ending(last);
        }
    }

    /// Lets only `last` go out.
    pub(super) fn break_with(&mut self, last: BytesMut) {
        if !self.is_done() {
            self.queue.clear();
            self.phase = Phase::Ending(last);
        }
    }

    /// Lets nothing more go out; gives how many frames were dropped.
    pub(super) fn abandon(&mut self) -> u64 {
        let dropped = self.queue.len() as u64;
        self.queue = VecDeque::new();
        self.phase = Phase::Done;
        dropped
    }

    pub(super) fn has_output(&self) -> bool {
        !self.queue.is_empty() || matches!(self.phase, Phase::Ending(_))
    }

    /// The next bytes to write, stamped with how long they were here.
    pub(super) fn next_output(&mut self, now: Instant) -> Option<BytesMut> {
        if let Some((received_at, frame)) = self.queue.pop_front() {
            self.drained |= self.queue.is_empty();
            let bytes = frame.wire_bytes() as u64;
            let is_data = frame.kind == dwell_messages::kinds::OuterKind::Data;
            if is_data {
                self.left += bytes;
            }
            let residence_us = micros(now, received_at);
            self.totals.frames += 1;
            self.totals.bytes += bytes;
            self.totals.residence_us_total += u64::from(residence_us);
            self.totals.residence_us_max = self.totals.residence_us_max.max(residence_us);
            return Some(frame.stamped(residence_us));
        }
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Ending(last) => Some(last),
            other @ (Phase::Open | Phase::Done) => {
                self.phase = other;
                None
            }
        }
    }

    /// Whether the sender should hear of a new limit: half of its window has left for the other socket.
    pub(super) fn grant_is_due(&self) -> bool {
        self.is_open() && self.left + self.window_bytes >= self.limit + self.window_bytes / 2
    }

    /// The new limit. The window doubles when its bytes leave as fast as they come, so that all had left at some time since
    /// the last grant, and `may_grow` says there is room.
    pub(super) fn grant(&mut self, may_grow: bool) {
        if std::mem::take(&mut self.drained) && may_grow {
            self.window_bytes = (self.window_bytes * 2).min(WINDOW_MAX_BYTES);
        }
        self.limit = self.limit.max(self.left + self.window_bytes);
    }

    /// Whether anything of it has been taken.
    pub(super) fn has_begun(&self) -> bool {
        self.handshakes > 0 || self.received > 0
    }

    /// How many frames wait, and since when the oldest does.
    pub(super) fn waiting(&self) -> (usize, Option<Instant>) {
        (self.queue.len(), self.queue.front().map(|(arrived, _)| *arrived))
    }

    /// Bytes that the sender may still send.
    pub(super) fn window_left(&self) -> u64 {
        self.limit.saturating_sub(self.received)
    }

    /// What the sender may have sent in all.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }
}
