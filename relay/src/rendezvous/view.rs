//! What is under way, for whoever watches the relay: streams and what waits in them.

use std::time::{Duration, Instant};

use dwell_messages::StreamId;

use super::Rendezvous;
use super::flow::Flow;

/// One stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamCensus {
    /// Its number.
    pub stream: StreamId,
    /// Whether the executor has not answered its first message.
    pub half_open: bool,
    /// Harness to executor.
    pub up: FlowCensus,
    /// Executor to harness.
    pub down: FlowCensus,
}

/// One direction of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowCensus {
    /// Frames that wait for the other connection.
    pub queued: usize,
    /// How long the oldest of them has waited.
    pub waited: Duration,
    /// Bytes passed on since the start.
    pub bytes: u64,
    /// Bytes that its sender may still send.
    pub window_left: u64,
}

impl Rendezvous {
    /// The oldest streams, at most so many.
    pub fn streams(&self, now: Instant, max: usize) -> Vec<StreamCensus> {
        let mut keys: Vec<_> = self.streams.keys().copied().collect();
        keys.sort_unstable();
        let found = keys.iter().take(max).filter_map(|key| self.streams.get(key));
        found
            .map(|stream| StreamCensus {
                stream: stream.id,
                half_open: !stream.down.has_begun(),
                up: stream.up.census(now),
                down: stream.down.census(now),
            })
            .collect()
    }
}

impl Flow {
    fn census(&self, now: Instant) -> FlowCensus {
        let (queued, oldest) = self.waiting();
        FlowCensus {
            queued,
            waited: oldest.map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest)),
            bytes: self.totals.bytes,
            window_left: self.window_left(),
        }
    }
}
