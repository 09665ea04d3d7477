//! A link's round trips, from pings that travel beside its traffic.
//!
//! A call's transit is held against them, so they are measured as it is: from the write that carried the ping to the
//! read that brought its answer. The value used is the **median of the last few**: one ping that met a sleeping machine
//! would hide what a call lost, and the least of them would make every jitter of the network look lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::stamps::SendStamps;
use crate::telemetry::{Tick, nanos};

/// A request that leaves while the newest ping is older than this takes another one with it.
pub const PING_FRESH: Duration = Duration::from_millis(250);
/// Round trips that the median is of.
const RECENT_MAX: usize = 9;
/// Pings whose answer is awaited; past it the oldest is no longer.
const ASKED_MAX: usize = 4;

/// One round trip of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoundTrip {
    /// When the write that carried the ping began.
    pub(crate) sent: Tick,
    /// When its answer was read.
    pub(crate) received: Tick,
    /// The median of the newest ones, this one among them, in microseconds; at least 1.
    pub(crate) usual_us: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    asked: VecDeque<(u64, Arc<SendStamps>)>,
    newest: Option<Tick>,
    recent_ns: VecDeque<u64>,
}

impl RoundTrips {
    /// A ping is on its way; what it carries so that its answer is known.
    pub(super) fn asked(&mut self, now: Tick, stamps: Arc<SendStamps>) -> u64 {
        let after = self.asked.back().map_or(0, |(value, _)| value + 1);
        let value = now.to_raw().max(after);
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back((value, stamps));
        self.newest = Some(now);
        value
    }

    /// Whether none is under way and the newest is no longer fresh.
    pub(super) fn are_stale(&self, now: Tick) -> bool {
        let fresh = |newest: Tick| Duration::from_nanos(nanos(now.ticks_since(newest))) < PING_FRESH;
        self.asked.is_empty() && !self.newest.is_some_and(fresh)
    }

    /// An answer came. `None`: to nothing that was asked, or not lately.
    pub(super) fn answered(&mut self, value: u64, received: Tick) -> Option<RoundTrip> {
        let at = self.asked.iter().position(|(asked, _)| *asked == value)?;
        let (value, stamps) = self.asked.drain(..=at).next_back()?;
        // Written before it could be answered; by a peer that answers ahead, asked at the earliest.
        let sent = stamps.first_written().unwrap_or(Tick::from_raw(value));
        if self.recent_ns.len() >= RECENT_MAX {
            self.recent_ns.pop_front();
        }
        self.recent_ns.push_back(received.nanos_since(sent));
        Some(RoundTrip {
            sent,
            received,
            usual_us: self.usual_us(),
        })
    }

    fn usual_us(&self) -> u64 {
        let mut sorted: Vec<_> = self.recent_ns.iter().copied().collect();
        sorted.sort_unstable();
        // Of an even number the lesser: a link's first ping waits for all that its session is made of.
        let median = sorted
            .get(sorted.len().saturating_sub(1) / 2)
            .copied()
            .unwrap_or(0);
        (median / 1_000).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tick so many microseconds after the clock's beginning.
    fn at(micros: u64) -> Tick {
        Tick::from_raw((micros as f64 * 1_000.0 / (nanos(1_000_000_000) as f64 / 1e9)) as u64)
    }

    fn written(micros: u64) -> Arc<SendStamps> {
        let stamps = SendStamps::default();
        stamps.written(at(micros));
        Arc::new(stamps)
    }

    #[test]
    fn the_usual_round_trip_is_the_median_of_the_newest_and_neither_the_first_nor_the_least() {
        let mut trips = RoundTrips::default();
        let mut usual = 0;
        for (index, took) in [9_000, 100, 110, 5, 120, 115].into_iter().enumerate() {
            let sent = 1_000_000 * (index as u64 + 1);
            let value = trips.asked(at(sent), written(sent));
            usual = trips.answered(value, at(sent + took)).unwrap().usual_us;
        }
        assert!((108..=112).contains(&usual), "{usual}");
        for index in 10..30_u64 {
            let sent = 1_000_000 * index;
            let value = trips.asked(at(sent), written(sent));
            usual = trips.answered(value, at(sent + 300)).unwrap().usual_us;
        }
        assert!((298..=301).contains(&usual), "what is old is forgotten: {usual}");
    }

    #[test]
    fn an_answer_to_nothing_that_was_asked_says_nothing() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.answered(7, at(1)), None);
        let value = trips.asked(at(10), written(10));
        assert_eq!(trips.answered(value + 1, at(20)), None);
        assert!(trips.answered(value, at(20)).is_some());
        assert_eq!(trips.answered(value, at(30)), None, "and not twice");
    }

    #[test]
    fn a_ping_is_asked_for_when_none_is_under_way_and_the_newest_is_old() {
        let mut trips = RoundTrips::default();
        assert!(trips.are_stale(at(1)));
        let value = trips.asked(at(1), written(1));
        assert!(!trips.are_stale(at(900_000)), "one is under way");
        trips.answered(value, at(50));
        assert!(!trips.are_stale(at(200_000)));
        assert!(trips.are_stale(at(260_000)));
    }

    #[test]
    fn pings_that_nobody_answers_are_bounded_and_never_share_a_value() {
        let mut trips = RoundTrips::default();
        let values: std::collections::BTreeSet<_> =
            (0..20).map(|_| trips.asked(at(5), Arc::default())).collect();
        assert_eq!((values.len(), trips.asked.len()), (20, ASKED_MAX));
    }
}
